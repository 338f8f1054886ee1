"""One sync of a branch at a time; any number of triggers meanwhile cost one more."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable

from harness import Daemon, assert_equal_to_git, wait_for

from daemon.demo.standin import StandIn
from daemon.demo.standin.faults import Hold
from daemon.demo.standin.gitrepo import GitRepo

BURST = 200


def overlaps(runs: list[dict[str, str]]) -> bool:
    """Whether two runs were under way at the same time."""
    ordered = sorted((run["started_at"], run["finished_at"]) for run in runs)
    return any(later[0] < earlier[1] for earlier, later in itertools.pairwise(ordered))


def test_two_hundred_deliveries_in_a_burst_make_at_most_three_runs(
    github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    daemon = make_daemon()
    daemon.variables["HEADWATER_GITHUB__TIMEOUT"] = "60s"  # the first run waits for as long as the burst lasts
    daemon.start()
    daemon.wait_head(repo.head())
    runs_before = len(daemon.runs())
    github.hook("octo/data", daemon.webhook_url, daemon.secret)
    heads = [repo.head()]
    heads += [repo.commit({"burst.txt": b"%d\n" % number}) for number in range(BURST)]
    pairs = list(itertools.pairwise(heads))
    hold = Hold(timeout_seconds=60)
    github.faults.add(r"/commits/heads/main$", hold, times=1)

    def send(part: list[tuple[str | None, str | None]]) -> None:
        for before, after in part:
            result = github.push("octo/data", "main", before, after)
            assert result is not None
            assert result.status == 200

    threads = [threading.Thread(target=send, args=(pairs[n::8],)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    hold.release()
    daemon.wait_head(heads[-1])
    daemon.wait_idle()
    runs = daemon.runs()[: len(daemon.runs()) - runs_before]
    assert 1 <= len(runs) <= 3
    assert not overlaps(daemon.runs())
    assert_equal_to_git(daemon, repo)


def test_the_same_delivery_again_makes_no_run_even_after_a_restart(
    github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    daemon = make_daemon().start()
    daemon.wait_head(repo.head())
    hook = github.hook("octo/data", daemon.webhook_url, daemon.secret)
    before = repo.head()
    after = repo.commit({"once.txt": b"1\n"})
    first = github.push("octo/data", "main", before, after, guid="11111111-2222-3333-4444-555555555555")
    daemon.wait_head(after)
    daemon.wait_idle()
    runs = daemon.runs()
    assert first is not None
    for _ in range(5):
        assert b'"duplicate"' in github.redeliver(first.guid).body
    daemon.stop()
    daemon.start()
    hook.url = daemon.webhook_url
    assert b'"duplicate"' in github.redeliver(first.guid).body
    daemon.wait_idle()
    assert daemon.runs() == runs
    delivery = next(item for item in daemon.items("/api/v1/deliveries") if item["guid"] == first.guid)
    assert delivery["attempts"] == 7


def test_a_trigger_during_a_sync_costs_exactly_one_more(
    github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    daemon = make_daemon().start()
    daemon.wait_head(repo.head())
    runs_before = len(daemon.runs())
    hold = Hold()
    github.faults.add(r"/commits/heads/main$", hold, times=1)
    daemon.post("/api/v1/repositories/octo/data/sync")
    assert hold.reached.wait(30)
    after = repo.commit({"meanwhile.txt": b"1\n"})
    for _ in range(10):
        assert daemon.post("/api/v1/repositories/octo/data/sync").status_code == 202
    hold.release()
    daemon.wait_head(after)
    daemon.wait_idle()
    assert len(daemon.runs()) - runs_before == 2


def test_a_second_daemon_on_the_same_store_is_refused_and_says_why(
    repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    daemon = make_daemon().start()
    second = daemon.cli("run")
    assert second.returncode == 1
    assert "Traceback" not in second.stderr
    assert str(daemon.process.pid) in second.stderr  # type: ignore[union-attr]
    daemon.wait_head(repo.head())


def test_a_run_whose_daemon_was_killed_is_taken_up_again(
    github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    hold = Hold(timeout_seconds=60)
    github.faults.add(r"/(git/trees|tarball)/", hold, times=1)
    daemon = make_daemon().start()
    assert hold.reached.wait(30)
    daemon.kill()
    hold.release()
    daemon.start()
    daemon.wait_head(repo.head(), seconds=10)
    wait_for(lambda: daemon.get("/api/v1/status").json()["queue"]["running"] == 0, "no job to be left running")
