"""Several daemons on one PostgreSQL database: each delivery counts wherever it arrives, whoever is killed."""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from engines import Server
from events import Stream
from harness import Daemon, assert_equal_to_git, wait_for

from daemon.demo.standin import StandIn
from daemon.demo.standin.faults import Hold
from daemon.demo.standin.gitrepo import GitRepo

PUSHES = 45


def overlapping(daemon: Daemon) -> list[tuple[str, str]]:
    """Runs of one branch that were under way at the same time."""
    spans = sorted((run["started_at"], run["finished_at"]) for run in daemon.runs())
    return [(one[1], two[0]) for one, two in itertools.pairwise(spans) if two[0] < one[1]]


def test_what_any_of_three_nodes_has_accepted_is_synced_although_one_is_killed(
    github: StandIn, repo: GitRepo, make_node: Callable[..., Daemon]
) -> None:
    nodes = [make_node().start() for _ in range(3)]
    nodes[0].wait_head(repo.head())
    hooks = [github.hook("octo/data", node.webhook_url, node.secret) for node in nodes]
    for hook in hooks[1:]:
        hook.active = False
    accepted = []
    for number in range(PUSHES):
        if number == PUSHES // 3:
            nodes[2].kill()
        node = nodes[number % (3 if number < PUSHES // 3 else 2)]
        hooks[0].url = node.webhook_url
        before = repo.head()
        after = repo.commit({f"pushed/{number}.txt": b"%d\n" % number})
        result = github.push("octo/data", "main", before, after)
        assert result is not None
        assert (result.status, b'"accepted"' in result.body) == (200, True), result.body
        accepted.append(after)
    nodes[1].wait_head(accepted[-1], seconds=90)  # the lease of the one that was killed ends after 60
    nodes[0].wait_idle(seconds=90)
    assert_equal_to_git(nodes[0], repo)
    assert_equal_to_git(nodes[1], repo)
    assert overlapping(nodes[0]) == []
    deliveries = list(nodes[1].items("/api/v1/deliveries"))
    assert {one["after"] for one in deliveries} == set(accepted)
    assert all(one["run_id"] for one in deliveries)


def test_nodes_tell_of_each_other_and_of_a_configuration_that_differs(
    repo: GitRepo, make_node: Callable[..., Daemon]
) -> None:
    first, second = make_node().start(), make_node(interval="2h", reconcile="2h").start()
    told = {node["admin_url"]: node for node in second.items("/api/v1/nodes")}
    assert set(told) == {first.admin_url, second.admin_url}
    assert [told[one.admin_url]["this"] for one in (first, second)] == [False, True]
    assert [told[one.admin_url]["same_config"] for one in (first, second)] == [False, True]
    assert all(node["alive"] for node in told.values())
    assert second.stop() == 0
    assert [node["admin_url"] for node in first.items("/api/v1/nodes")] == [first.admin_url]


def test_three_nodes_ask_github_no_more_often_than_one(
    github: StandIn, repo: GitRepo, make_node: Callable[..., Daemon]
) -> None:
    nodes = [make_node(interval="2s", reconcile="2s").start() for _ in range(3)]
    nodes[0].wait_head(repo.head())
    nodes[0].wait_idle()
    began, before = time.monotonic(), len(github.requests.paths())
    wait_for(lambda: len(github.requests.paths()) - before >= 5, "five looks")
    seconds = time.monotonic() - began
    # One node looks every 1.7 s; three that did so each would have taken a third of the time.
    assert seconds > 5 * 1.7 / 2, github.requests.paths()[before:]


def test_a_change_that_one_node_makes_is_told_by_another(
    github: StandIn, repo: GitRepo, make_node: Callable[..., Daemon]
) -> None:
    maker, teller = make_node().start(), make_node().start()
    maker.wait_head(repo.head())
    after = repo.commit({"told.txt": b"told\n"})
    stream = teller.get("/api/v1/events", stream=True)
    seen = threading.Event()

    def listen() -> None:
        for line in stream.iter_lines():
            if line.startswith(b"data:") and after.encode() in line:
                seen.set()
                return

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    maker.post("/api/v1/repositories/octo/data/sync")
    assert seen.wait(30)
    stream.close()
    listener.join(10)


def slow_to_look(node: Daemon, folder: Path) -> Daemon:
    """A node that looks for itself only every minute: what it does sooner it was told to do."""
    (folder / "sitecustomize.py").write_text(
        "from daemon.actions import runner\nfrom daemon.sync import workers\nfrom daemon.web import stream\n"
        "workers.IDLE_SECONDS = runner.IDLE_SECONDS = stream.POLL_SECONDS = 60.0\n"
    )
    node.variables["PYTHONPATH"] = str(folder)
    return node


def listens(node: Daemon, times: int = 1) -> None:
    wait_for(lambda: len(node.log_lines("store.listening")) == times, "the node to listen")


class Told:
    """When a node's stream told of each commit."""

    def __init__(self, node: Daemon) -> None:
        self._stream = Stream(node.admin_url)
        self._events: queue.Queue[tuple[str, float]] = queue.Queue()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        for event in self._stream:
            if event.name == "branch.changed":
                self._events.put((event.data["after"], time.monotonic()))

    def wait(self, after: str) -> float:
        while (told := self._events.get(timeout=30))[0] != after:
            pass
        return told[1]

    def close(self) -> None:
        self._stream.close()
        self._thread.join(10)


def test_a_push_to_one_node_is_told_by_another_at_once_also_after_its_connection_was_ended(
    github: StandIn, repo: GitRepo, make_node: Callable[..., Daemon], postgres_url: str, tmp_path: Path
) -> None:
    maker, teller = (slow_to_look(make_node(), tmp_path).start() for _ in range(2))
    maker.wait_head(repo.head())
    github.hook("octo/data", maker.webhook_url, maker.secret)
    listens(maker)
    listens(teller)
    told = Told(teller)

    def seconds(number: int) -> float:
        before = repo.head()
        began = time.monotonic()
        after = repo.commit({"told.txt": b"%d\n" % number})
        github.push("octo/data", "main", before, after)
        return told.wait(after) - began

    assert min(seconds(number) for number in range(3)) < 0.9
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        ended = connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND query = 'LISTEN headwater'"
        ).fetchall()
    assert len(ended) == 2
    assert seconds(3) < 20  # told at once, or found when it listens again
    listens(maker, 2)
    listens(teller, 2)
    assert min(seconds(number) for number in range(4, 7)) < 0.9
    told.close()


def test_a_push_to_a_node_whose_workers_are_busy_is_synced_by_another_at_once(
    github: StandIn, repo: GitRepo, make_node: Callable[..., Daemon], tmp_path: Path
) -> None:
    hold = Hold(timeout_seconds=60)
    github.faults.add(r"/tarball/", hold, times=1)
    repo.reset("other", repo.head() or "")
    several: dict[str, Any] = {"sections": {"sync": "workers = 1"}, "extra": 'branches = ["main", "other"]'}
    busy = slow_to_look(make_node(**several), tmp_path)
    busy.variables["HEADWATER_GITHUB__TIMEOUT"] = "60s"
    busy.start()
    assert hold.reached.wait(30)
    free = slow_to_look(make_node(**several), tmp_path).start()
    wait_for(lambda: {free.head(), free.head("other")} == {repo.head(), None}, "the other branch to be synced")
    branch = "main" if free.head() else "other"
    listens(free)
    github.hook("octo/data", busy.webhook_url, busy.secret)
    before = repo.head(branch)
    after = repo.commit({"other.txt": b"1\n"}, branch=branch)
    github.push("octo/data", branch, before, after)
    free.wait_head(after, branch, seconds=20)
    hold.release()


# Told of what is tracked, it does not get to read it, and finds it by looking, which is every minute otherwise.
DEAF = """
from daemon import service
service.TRACKING_SECONDS = 0.5
soon = service.Scheduler.soon
service.Scheduler.soon = lambda self, name, call: None if name == "tracked" else soon(self, name, call)
"""


@pytest.mark.parametrize("customized", ["", DEAF], ids=["told", "looking"])
def test_a_repository_that_one_node_is_told_to_track_no_more_is_none_for_the_other_either(
    github: StandIn, repo: GitRepo, make_node: Callable[..., Daemon], tmp_path: Path, customized: str
) -> None:
    (tmp_path / "sitecustomize.py").write_text(customized)
    github.add("octo/more", repo.path)
    nodes = [make_node(repositories=("octo/data", "octo/more")) for _ in range(2)]
    nodes[1].variables["PYTHONPATH"] = str(tmp_path)
    for node in nodes:
        node.start()
        listens(node)
        node.wait_head(repo.head(), name="octo/more")
    push = {"ref": "refs/heads/main", "after": repo.head(), "repository": {"full_name": "octo/more"}, "commits": []}
    assert nodes[1].deliver(push).json()["status"] == "accepted"
    nodes[0].write_config(repositories=("octo/data",))
    nodes[0].hangup()
    wait_for(lambda: nodes[1].deliver(push).json()["status"] == "ignored", "the other node to know", seconds=20)


def test_a_change_is_acted_on_once_whichever_node_made_it_and_whoever_is_killed(
    repo: GitRepo, make_node: Callable[..., Daemon], tmp_path: Path
) -> None:
    acted = tmp_path / "acted"
    script = f'echo "$HEADWATER_AFTER" >> {acted}'
    action = f"[[actions]]\ncommand = ['/bin/sh', '-c', '{script}']"
    nodes = [make_node(extra=action).start() for _ in range(2)]
    nodes[0].wait_head(repo.head())
    heads = []
    for node in nodes * 2:
        heads.append(repo.commit({"acted.txt": str(len(heads)).encode()}))
        node.post("/api/v1/repositories/octo/data/sync")
        node.wait_head(heads[-1])
    wait_for(lambda: acted.exists() and acted.read_text().split()[-4:] == heads, "every change to be acted on")
    # What is killed between acting and writing that down acts again: at least once is what is promised.
    wait_for(
        lambda: [one["commit_sha"] for one in nodes[1].items("/api/v1/actions")] == [heads[-1]], "that to be written"
    )
    assert len(acted.read_text().split()) == len(set(acted.read_text().split()))
    nodes[0].kill()
    last = repo.commit({"acted.txt": b"last"})
    nodes[1].post("/api/v1/repositories/octo/data/sync")
    # Where it was the killed node that acted, its turn lasts for half a minute.
    wait_for(lambda: acted.read_text().split()[-1] == last, "the other node to act", seconds=60)
    assert len(acted.read_text().split()) == len(set(acted.read_text().split()))


def test_a_run_of_a_killed_node_is_taken_over_within_a_minute_and_a_little(
    github: StandIn, repo: GitRepo, make_node: Callable[..., Daemon]
) -> None:
    hold = Hold(timeout_seconds=90)
    github.faults.add(r"/tarball/", hold, times=1)
    killed = make_node().start()
    assert hold.reached.wait(30)
    survivor = make_node().start()
    killed.kill()
    hold.release()
    survivor.wait_head(repo.head(), seconds=75)
    assert_equal_to_git(survivor, repo)


def test_the_commands_work_beside_running_daemons(repo: GitRepo, make_node: Callable[..., Daemon]) -> None:
    node = make_node().start()
    node.wait_head(repo.head())
    after = repo.commit({"by-hand.txt": b"1\n"})
    synced = node.cli("sync", "octo/data")
    assert (synced.returncode, node.head()) == (0, after), synced.stderr
    assert node.cli("verify").returncode == 0
    shown = node.cli("status", "--json")
    assert after in shown.stdout
    assert node.cli("cat", "octo/data", "by-hand.txt").stdout == "1\n"


def test_while_the_database_is_down_deliveries_are_refused_and_afterwards_all_is_well(
    github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    server = Server()
    try:
        node = make_daemon(storage=server.url("model")).start()
        node.wait_head(repo.head())
        github.hook("octo/data", node.webhook_url, node.secret)
        server.stop()
        before = repo.head()
        after = repo.commit({"down.txt": b"1\n"})
        result = github.push("octo/data", "main", before, after)
        assert result is not None
        assert result.status == 503
        assert node.get("/readyz").status_code == 503
        server.start()
        wait_for(lambda: node.get("/readyz").status_code == 200, "the node to be ready again")
        assert github.redeliver(result.guid).status == 200
        node.wait_head(after)
        assert_equal_to_git(node, repo)
    finally:
        node.stop()
        server.close()
