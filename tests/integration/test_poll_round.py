"""What a round over 1,000 idle repositories costs: requests, points, and CPU of the poller alone.

The figures are printed by `python -m pytest tests/integration/test_poll_round.py -s`. The stand-in answers in another
process, so its work is not counted.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench import Bench, Rule

from daemon.demo.standin.gitrepo import GitRepo

COUNT = 1000
GENEROUS_CPU_SECONDS = 1.5  # ten times what a round takes: machines of CI are slow and shared


class Remote:
    """The stand-in in its own process, as far as a bench needs to know it."""

    def __init__(self, path: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parents[1] / "many_standin.py"), str(path), str(COUNT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()

    def used(self) -> dict[str, int]:
        """Requests and points since the last call."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate(timeout=30)


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[Bench]:
    """A thousand repositories that are where GitHub is, as after their first sync."""
    repo = GitRepo.init(tmp_path / "data.git")
    head = repo.commit({"README.md": b"# Data\n"})
    remote = Remote(repo.path)
    rules = tuple(Rule(name=f"r{number:05}") for number in range(COUNT))
    bench = Bench(tmp_path, remote, repo, repositories_rules=rules)
    bench.poller.tick()
    with bench.database.write():
        bench.database.execute("UPDATE branch SET head_sha = ?, rules_digest = ?", (head, bench.content.digest))
        bench.database.execute("UPDATE job SET done_generation = wanted_generation, wanted_at = NULL, triggers = '[]'")
    yield bench
    bench.close()
    remote.close()


def test_a_round_over_a_thousand_idle_repositories_costs_ten_requests_and_little_cpu(idle: Bench) -> None:
    seconds = []
    for _ in range(3):
        idle.time.advance(60)
        idle.github.used()
        began = time.process_time()
        idle.poller.tick()
        seconds.append(time.process_time() - began)
        assert idle.github.used() == {"requests": 10, "points": 10}
    every = idle.repositories.records(after=None, limit=COUNT)
    assert all(one.branches[0].confirmed_at == idle.time.at for one in every)
    assert idle.jobs.counts(idle.time.at).pending == 0
    sys.stdout.write(f"\na round over {COUNT} idle repositories: {min(seconds) * 1000:.0f} ms of CPU at best\n")
    assert min(seconds) < GENEROUS_CPU_SECONDS
