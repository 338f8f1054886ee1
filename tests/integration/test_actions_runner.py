"""Actions on changes that real syncs made: order, progress, backoff, filters."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from action_peer import Receiver, receiver
from bench import Bench
from harness import wait_for

from daemon.actions.runner import ActionRunner
from daemon.config import ActionRule
from daemon.demo.standin.gitrepo import Symlink, executable
from daemon.secret import Secret
from daemon.store.actions import oldest_needed_by_actions

APPEND = "import json, sys; open(sys.argv[1], 'a').write(json.dumps(json.load(sys.stdin)) + chr(10))"
FAIL = "import sys; print('no luck: hunter2-secret'); sys.exit(1)"


def command(script: str, *arguments: object, **keys: object) -> ActionRule:
    return ActionRule(command=(sys.executable, "-c", script, *map(str, arguments)), **keys)  # type: ignore[arg-type]


class Acting:
    """A runner without its thread: it acts when it is told to."""

    def __init__(self, bench: Bench, folder: Path) -> None:
        self.bench = bench
        self.folder = folder
        self.ended: list[tuple[str, bool]] = []
        self.runner = self.make()

    def make(self) -> ActionRunner:
        return ActionRunner(
            self.bench_actions,
            self.bench.snapshots,
            clock=self.bench.time.clock,
            jitter=lambda: 0.5,
            redact=lambda text: text.replace("hunter2-secret", "[redacted]"),
            on_end=lambda kind, failed: self.ended.append((kind, failed)),
        )

    @property
    def bench_actions(self):
        from daemon.store.actions import Actions

        return Actions(self.bench.database)

    def configure(self, *rules: ActionRule) -> None:
        self.runner.configure(rules)

    def act(self) -> None:
        while self.bench_actions.scan(self.runner._concerns):
            pass
        for pair in self.bench_actions.due(self.bench.time.at):
            while self.runner.step(pair):
                pass

    def change(self, changes: dict) -> str:
        sha = self.bench.repo.commit(changes)
        self.bench.sync()
        return sha

    def records(self):
        return self.bench_actions.records(after=None, limit=100)

    def told(self, name: str = "log") -> list[dict]:
        path = self.folder / name
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def acting(bench: Bench, tmp_path: Path) -> Acting:
    return Acting(bench, tmp_path)


@pytest.fixture
def peer() -> Iterator[Receiver]:
    with receiver() as found:
        yield found


def log_of(acting: Acting, **keys: object) -> ActionRule:
    return command(APPEND, acting.folder / "log", **keys)


def test_every_change_is_acted_on_once_in_commit_order(acting: Acting) -> None:
    acting.configure(log_of(acting))
    shas = [acting.bench.repo.head()]
    acting.bench.sync()
    shas += [acting.change({f"f{number}": b"x"}) for number in range(3)]
    acting.act()
    acting.act()
    assert [(one["before"], one["after"]) for one in acting.told()] == list(zip([None, *shas], shas, strict=False))
    assert acting.told()[1]["added"] == ["f0"]
    (record,) = acting.records()
    assert (record.state, record.commit_sha, record.attempts) == ("done", shas[-1], 0)


def test_a_new_action_does_not_replay_what_was_before_it(acting: Acting) -> None:
    acting.bench.sync()
    acting.configure(log_of(acting))
    acting.act()
    assert acting.told() == []
    acting.change({"new": b"1"})
    acting.act()
    assert len(acting.told()) == 1


def test_a_branch_that_is_first_synced_after_the_action_was_configured_is_acted_on(acting: Acting) -> None:
    acting.configure(log_of(acting))
    acting.bench.sync()
    acting.act()
    assert [one["before"] for one in acting.told()] == [None]


def test_a_failure_is_tried_again_with_backoff_and_nothing_later_comes_before_it(acting: Acting) -> None:
    acting.bench.sync()
    acting.configure(
        command(
            f"import os, sys\nif not os.path.exists(sys.argv[2]): sys.exit(1)\n{APPEND}",
            acting.folder / "log",
            acting.folder / "go",
        )
    )
    first = acting.change({"a": b"1"})
    second = acting.change({"b": b"2"})
    waits = []
    for _ in range(14):
        acting.act()
        (record,) = acting.records()
        assert record.run_after is not None
        waits.append((record.run_after - acting.bench.time.at).total_seconds())
        acting.act()  # not due: nothing happens
        assert acting.records()[0].attempts == len(waits)
        acting.bench.time.advance(waits[-1])
    assert waits == [min(2.0**number, 3600.0) for number in range(14)]
    assert (record.state, record.last_error) == ("failed", f"{sys.executable} ended with exit code 1")
    (acting.folder / "go").touch()
    acting.act()
    assert [one["after"] for one in acting.told()] == [first, second]
    assert acting.records()[0].last_error is None


def test_jitter_keeps_the_backoff_within_a_quarter(acting: Acting) -> None:
    for jitter, expected in ((0.0, 0.75), (0.999999, 1.25)):
        acting.runner._jitter = lambda jitter=jitter: jitter
        assert acting.runner._backoff_seconds(1) == pytest.approx(expected, abs=1e-3)


def test_a_failing_action_holds_up_no_other(acting: Acting) -> None:
    acting.bench.sync()
    acting.configure(command(FAIL), log_of(acting))
    acting.change({"a": b"1"})
    acting.act()
    assert len(acting.told()) == 1
    assert {record.state for record in acting.records()} == {"done", "failed"}
    ((name, count, error),) = acting.bench_actions.failing()
    assert (name, count) == ("octo/data", 1)
    assert "exit code" in error
    assert sorted(acting.ended) == [("command", False), ("command", True)]


def test_output_is_kept_without_secrets(acting: Acting) -> None:
    acting.bench.sync()
    acting.configure(command(FAIL))
    acting.change({"a": b"1"})
    acting.act()
    assert acting.records()[0].output == "no luck: [redacted]\n"


def test_retry_clears_the_backoff(acting: Acting) -> None:
    acting.bench.sync()
    acting.configure(command(FAIL))
    acting.change({"a": b"1"})
    acting.act()
    assert acting.bench_actions.due(acting.bench.time.at) == []
    assert acting.runner.retry("unknown") == 0
    assert acting.runner.retry() == 1
    assert len(acting.bench_actions.due(acting.bench.time.at)) == 1


def test_a_wall_clock_that_was_set_back_does_not_put_an_attempt_off_for_long(acting: Acting) -> None:
    acting.bench.sync()
    acting.configure(command(FAIL))
    acting.change({"a": b"1"})
    acting.act()
    acting.bench.time.at -= timedelta(days=1)
    assert len(acting.bench_actions.due(acting.bench.time.at)) == 1


def test_an_act_whose_progress_was_not_stored_is_repeated(acting: Acting, monkeypatch: pytest.MonkeyPatch) -> None:
    acting.bench.sync()
    acting.configure(log_of(acting))
    acting.change({"a": b"1"})

    class Killed(BaseException):
        pass

    def die(*_args: object, **_keys: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr("daemon.store.actions.Actions.done", die)
        with pytest.raises(Killed):
            acting.act()
    acting.runner = acting.make()
    acting.configure(log_of(acting))
    acting.act()
    assert len(acting.told()) == 2
    assert acting.told()[0] == acting.told()[1]


@pytest.mark.parametrize(
    ("filters", "times"),
    [
        ({"repositories": ("octo/*",)}, 2),
        ({"repositories": ("Data",)}, 2),
        ({"repositories": ("other/*",)}, 0),
        ({"branches": ("ma*",)}, 2),
        ({"branches": ("dev",)}, 0),
        ({"paths": ("docs/*.md",)}, 1),
        ({"paths": ("gone",)}, 1),
        ({"paths": ("*.py",)}, 0),
    ],
)
def test_filters_choose_what_is_acted_on(acting: Acting, filters: dict, times: int) -> None:
    acting.bench.repo.commit({"gone": b"1"})
    acting.bench.sync()
    acting.configure(log_of(acting, **filters))
    acting.change({"docs/new.md": b"1"})
    acting.change({"gone": None})
    acting.act()
    assert len(acting.told()) == times
    assert acting.bench_actions.due(acting.bench.time.at) == []


def test_rows_that_an_action_still_needs_are_known(acting: Acting) -> None:
    def oldest() -> int | None:
        with acting.bench.database.read():
            return oldest_needed_by_actions(acting.bench.database)

    acting.bench.sync()
    assert oldest() is None
    acting.configure(command(FAIL), log_of(acting))
    assert oldest() == 2
    acting.change({"a": b"1"})
    assert oldest() == 2
    acting.change({"b": b"1"})
    acting.act()
    assert oldest() == 2
    acting.configure(log_of(acting))
    assert oldest() == 4


def test_an_action_that_is_no_longer_configured_is_forgotten_and_another_secret_is_the_same_action(
    acting: Acting,
) -> None:
    first = ActionRule(url="http://127.0.0.1:1/x", secret=Secret(inline=("one",)))
    acting.configure(first)
    (before,) = acting.records()
    acting.configure(ActionRule(url="http://127.0.0.1:1/x", secret=Secret(inline=("two",)), timeout_seconds=1.0))
    (after,) = acting.records()
    assert before == after
    assert "127.0.0.1" in after.target
    acting.configure()
    assert acting.records() == []


# -- url ---------------------------------------------------------------------------------------------


def post_to(peer: Receiver, **keys: object) -> ActionRule:
    return ActionRule(url=peer.url, secret=Secret(inline=(peer.secret,)), **keys)  # type: ignore[arg-type]


def test_a_change_is_posted_signed_and_the_receiver_can_verify_it(acting: Acting, peer: Receiver) -> None:
    acting.bench.sync()
    acting.configure(post_to(peer))
    sha = acting.change({"a": b"1", "docs/index.md": None})
    acting.act()
    (got,) = peer.received
    assert got["verified"] is True
    assert (got["event"], got["header_event"], str(got["id"])) == (
        "branch.changed",
        "branch.changed",
        peer.deliveries[0],
    )
    assert (got["repository"], got["branch"], got["after"], got["added"], got["removed"]) == (
        "octo/data", "main", sha, ["a"], ["docs/index.md"],
    )  # fmt: skip
    assert acting.records()[0].output == "thanks"


@pytest.mark.parametrize("status", [302, 400, 404, 500, 503])
def test_only_2xx_is_a_success_and_a_retry_has_the_same_delivery_id(
    acting: Acting, peer: Receiver, status: int
) -> None:
    acting.bench.sync()
    acting.configure(post_to(peer))
    acting.change({"a": b"1"})
    peer.status = status
    peer.headers = {"Location": peer.url + "/elsewhere"}
    acting.act()
    assert acting.records()[0].last_error == f"the receiver answered {status}"
    assert len(peer.received) == 1  # no redirect was followed
    acting.bench.time.advance(2)
    peer.status = 204
    peer.answer = b""
    acting.act()
    assert len(set(peer.deliveries)) == 1
    assert acting.records()[0].state == "done"


def test_a_receiver_that_is_down_is_a_failure_that_does_not_speak_of_github(acting: Acting, peer: Receiver) -> None:
    acting.bench.sync()
    acting.configure(ActionRule(url="http://127.0.0.1:1/"))
    acting.change({"a": b"1"})
    acting.act()
    error = str(acting.records()[0].last_error)
    assert "the receiver cannot be reached" in error
    assert "GitHub" not in error


def test_a_large_answer_to_a_success_is_still_a_success(acting: Acting, peer: Receiver) -> None:
    acting.bench.sync()
    acting.configure(post_to(peer))
    acting.change({"a": b"1"})
    peer.answer = b"x" * 2_000_000
    acting.act()
    assert acting.records()[0].state == "done"


# -- publish -----------------------------------------------------------------------------------------


def assert_published(acting: Acting, target: Path) -> None:
    truth = {entry.path.decode(): acting.bench.repo.cat(entry.sha) for entry in acting.bench.repo.ls_tree("main")}
    found = {str(path.relative_to(target)): path.read_bytes() for path in target.rglob("*") if path.is_file()}
    assert found == truth


def test_a_new_publish_action_publishes_what_is_there_and_then_every_change(acting: Acting, tmp_path: Path) -> None:
    site = tmp_path / "srv" / "site"
    acting.bench.sync()
    acting.configure(ActionRule(publish=str(site)))
    acting.act()
    assert_published(acting, site)
    acting.change({"docs/more.md": b"more", "run.sh": executable(b"#!/bin/sh\n"), "README.md": None})
    acting.change({"docs/last.md": b"last"})
    acting.act()
    assert_published(acting, site)
    assert (site / "run.sh").stat().st_mode & 0o777 == 0o755
    assert acting.records()[0].commit_sha == acting.bench.repo.head()


def test_publish_jumps_to_the_newest(acting: Acting, tmp_path: Path) -> None:
    acting.bench.sync()
    acting.configure(ActionRule(publish=str(tmp_path / "site")))
    acting.act()
    acting.ended.clear()
    for number in range(5):
        acting.change({"n": b"%d" % number})
    acting.act()
    assert acting.ended == [("publish", False)]
    assert (tmp_path / "site" / "n").read_bytes() == b"4"


def test_a_folder_that_is_gone_is_made_again_at_the_start(acting: Acting, tmp_path: Path) -> None:
    rule = ActionRule(publish=str(tmp_path / "site"))
    acting.bench.sync()
    acting.configure(rule)
    acting.act()
    (tmp_path / "site").unlink()
    acting.runner = acting.make()
    acting.configure(rule)
    acting.act()
    assert_published(acting, tmp_path / "site")


def test_a_symlink_that_leads_outside_fails_the_action_by_name_and_a_later_commit_mends_it(
    acting: Acting, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    acting.bench.sync()
    acting.configure(ActionRule(publish=str(site)))
    acting.act()
    acting.change({"evil": Symlink(b"../../etc/passwd"), "fine": Symlink(b"docs/index.md")})
    acting.act()
    assert "evil" in str(acting.records()[0].last_error)
    assert not (site / "fine").exists()
    acting.change({"evil": None})
    acting.bench.time.advance(2)
    acting.act()
    assert (site / "fine").read_bytes() == b"welcome\n"
    assert acting.records()[0].last_error is None


def test_two_actions_that_publish_one_branch_in_one_folder_are_told_so(acting: Acting, tmp_path: Path) -> None:
    acting.bench.sync()
    acting.configure(ActionRule(publish=f"{tmp_path}/data"), ActionRule(publish=f"{tmp_path}/{{name}}"))
    acting.act()
    assert all("give each a folder of its own" in str(record.last_error) for record in acting.records())


def test_placeholders_name_the_branch(acting: Acting, tmp_path: Path) -> None:
    acting.bench.sync()
    acting.configure(ActionRule(publish=f"{tmp_path}/{{owner}}/{{name}}/{{branch}}"))
    acting.act()
    assert_published(acting, tmp_path / "octo" / "data" / "main")


# -- the thread --------------------------------------------------------------------------------------


@pytest.fixture
def started(acting: Acting) -> Iterator[Callable[..., ActionRunner]]:
    def start(*rules: ActionRule) -> ActionRunner:
        acting.runner.configure(rules)
        acting.runner.start()
        return acting.runner

    yield start
    acting.runner.stop(0.1)


def test_the_thread_acts_when_it_is_woken_and_an_action_that_hangs_holds_up_no_other(
    acting: Acting, started: Callable[..., ActionRunner]
) -> None:
    acting.bench.sync()
    runner = started(command("import time; time.sleep(600)"), log_of(acting))
    acting.change({"a": b"1"})
    runner.wake()
    wait_for(lambda: len(acting.told()) == 1, "the second action")
    acting.change({"b": b"1"})
    runner.wake()
    wait_for(lambda: len(acting.told()) == 2, "the second action again")
    assert runner.alive()


def test_a_stop_ends_what_runs_and_it_is_repeated_after_the_start(
    acting: Acting, started: Callable[..., ActionRunner]
) -> None:
    acting.bench.sync()
    runner = started(
        command("import sys, time; open(sys.argv[1], 'a').write('x'); time.sleep(600)", acting.folder / "begun")
    )
    acting.change({"a": b"1"})
    runner.wake()
    wait_for((acting.folder / "begun").exists, "the command to begin")
    runner.stop(0.1)
    (record,) = acting.records()
    assert (record.state, record.attempts) == ("pending", 0)
