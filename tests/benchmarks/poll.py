"""One poll round over 1,000 idle repositories: against 1,000 conditional requests, in CPU time of this program.

Once what it takes to ask, once the whole round: what is due, asking, and writing down that each was confirmed.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from pathlib import Path

from support import ROUNDS, TOKEN, Bench, Rule, folder, make_repository, middle, quiet, report

from daemon.demo.standin import StandIn
from daemon.demo.standin.gitrepo import GitRepo
from daemon.model import HeadsQuery, RepositoryRef
from daemon.service import COLLECTOR_THRESHOLDS

COUNT = 1_000


def cpu_seconds(work: Callable[[], object]) -> float:
    """Of the calling thread: the stand-in works in threads of its own."""
    started = time.thread_time()
    work()
    return time.thread_time() - started


def stocked(path: Path, github: StandIn, repo: GitRepo) -> Bench:
    names = [f"r{number:04}" for number in range(COUNT)]
    for name in names:
        github.add(f"octo/{name}", repo.path)
    one = Bench(path, github, repo, repositories_rules=tuple(Rule(name=name) for name in names), timeout_seconds=60.0)
    one.poller.tick()
    while (claim := one.claim()) is not None:
        one.workers.work(claim)
    return one


def main() -> None:
    quiet()
    gc.set_threshold(*COLLECTOR_THRESHOLDS)  # both sides run as in the daemon
    with folder() as path, StandIn(token=TOKEN) as github:
        repo = make_repository(path / "origin.git", 3)
        one = stocked(path, github, repo)
        refs = [RepositoryRef("octo", f"r{number:04}") for number in range(COUNT)]
        queries = [HeadsQuery(ref, ("main",)) for ref in refs]
        head = repo.head() or ""
        rounds, asks, singles = [], [], []
        for _ in range(ROUNDS):
            one.time.advance(3600)
            github.requests.clear()
            rounds.append(cpu_seconds(one.poller.tick))
            requests = len(github.requests.all())
            asks.append(cpu_seconds(lambda: one.client.heads(queries)))
            singles.append(cpu_seconds(lambda: [one.client.head(ref, "main", known=head) for ref in refs]))
        one.close()
    report(
        "poll",
        repositories=COUNT,
        requests=requests,
        cpu_seconds=middle(rounds),
        asking_times_less_cpu=round(middle(singles) / middle(asks), 1),
        round_times_less_cpu=round(middle(singles) / middle(rounds), 1),
    )


if __name__ == "__main__":
    main()
