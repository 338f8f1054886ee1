"""Three daemons on one database, killed, frozen and cut off at random: nothing accepted is lost, nothing done twice."""

from __future__ import annotations

import itertools
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest
from harness import Daemon, assert_equal_to_git

from daemon.demo.standin import StandIn
from daemon.demo.standin.gitrepo import GitRepo

NODES = 3


@dataclass
class Chaos:
    """What befalls the nodes, by a seed."""

    nodes: list[Daemon]
    url: str
    chance: random.Random
    befell: list[str] = field(default_factory=list)

    def strike(self) -> None:
        node = self.chance.choice(self.nodes)
        assert node.process is not None
        blow = self.chance.choice(["kill", "freeze", "cut off"])
        self.befell.append(blow)
        if blow == "kill":
            node.kill()
            node.start()
        elif blow == "freeze":
            node.process.send_signal(signal.SIGSTOP)
            time.sleep(self.chance.uniform(0.1, 6.0))  # shorter and longer than a write may stand still
            node.process.send_signal(signal.SIGCONT)
        else:
            with psycopg.connect(self.url, autocommit=True) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND application_name = 'headwater'"
                )


def survive(
    github: StandIn, folder: Path, make_daemon: Callable[..., Daemon], url: str, *, repositories: int, seconds: float
) -> None:
    names = [f"octo/r{number}" for number in range(repositories)]
    repos = {}
    for name in names:
        repos[name] = GitRepo.init(folder / f"{name.replace('/', '-')}.git")
        repos[name].commit({"README.md": name.encode()}, "Begin")
        github.add(name, repos[name].path)
    github.limits.enabled = False  # minutes of pushes cost more than an hour's budget, and wait for the next one
    settings = {"interval": "20s", "reconcile": "20s"}
    nodes = [make_daemon(storage=url, repositories=tuple(names), **settings).start() for _ in range(NODES)]
    hooks = {name: github.hook(name, nodes[0].webhook_url, nodes[0].secret) for name in names}
    chance = random.Random(repositories)
    chaos = Chaos(nodes, url, chance)
    accepted: dict[str, list[str]] = {name: [] for name in names}
    ends = time.monotonic() + seconds
    strikes_at = time.monotonic() + 1.0
    while time.monotonic() < ends:
        name = chance.choice(names)
        hooks[name].url = chance.choice(nodes).webhook_url
        before = repos[name].head()
        after = repos[name].commit({f"{chance.randrange(20)}.txt": str(time.monotonic()).encode()})
        result = github.push(name, "main", before, after)
        if result is not None and result.status == 200 and b'"accepted"' in result.body:
            accepted[name].append(after)
        if time.monotonic() > strikes_at:
            chaos.strike()
            strikes_at = time.monotonic() + chance.uniform(0.5, 3.0)
    for name in names:
        nodes[0].wait_head(repos[name].head(), name=name, seconds=120)
    nodes[0].wait_idle(seconds=120)
    told = {one["after"]: one for one in nodes[1].items("/api/v1/deliveries")}
    for name in names:
        assert_equal_to_git(nodes[2], repos[name], name=name)
        assert all(told[after]["run_id"] for after in accepted[name])
        spans = sorted((run["started_at"], run["finished_at"]) for run in nodes[0].runs(name))
        assert [two for one, two in itertools.pairwise(spans) if two[0] < one[1]] == []
    assert sum(map(len, accepted.values())) > 0
    assert chaos.befell


def test_three_nodes_survive_what_befalls_them(
    github: StandIn, tmp_path: Path, postgres_url: str, make_daemon: Callable[..., Daemon]
) -> None:
    survive(github, tmp_path, make_daemon, postgres_url, repositories=6, seconds=15)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_three_nodes_survive_five_minutes_with_three_hundred_repositories(
    github: StandIn, tmp_path: Path, postgres_url: str, make_daemon: Callable[..., Daemon]
) -> None:
    survive(github, tmp_path, make_daemon, postgres_url, repositories=300, seconds=300)
