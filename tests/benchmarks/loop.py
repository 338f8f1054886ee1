"""How long the event loop waits for its turn while four workers sync large repositories, against an idle daemon.

The probe is a loop in the process of the workers that asks for its turn every 5 ms. What it waits beyond that, and no
longer than this process computed meanwhile, is its lag: what other programs take of the processor does not count. Once
with archives alone, once with exclude patterns, which has the trees listed too: the largest JSON there is.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from support import Remote, bench, folder, make_repository, report, served, synced

from daemon.demo.standin.gitrepo import GitRepo
from daemon.service import COLLECTOR_THRESHOLDS, SWITCH_SECONDS
from daemon.sync.patterns import rules

FILES = 30_000
WORKERS = 4
TICK_SECONDS = 0.005
IDLE_SECONDS = 5.0


def lags_while(work: Callable[[], None]) -> list[float]:
    """Milliseconds that each turn of a loop came late while ``work`` ran in threads of this process."""
    found: list[float] = []
    done = threading.Event()

    async def probe() -> None:
        while not done.is_set():
            started, used = time.perf_counter(), time.process_time()
            await asyncio.sleep(TICK_SECONDS)
            late = time.perf_counter() - started - TICK_SECONDS
            found.append(min(late, time.process_time() - used) * 1000)

    looping = threading.Thread(target=lambda: asyncio.run(probe()))
    looping.start()
    work()
    done.set()
    looping.join()
    return sorted(found)


def sync_all(path: Path, github: Remote, repo: GitRepo, exclude: tuple[str, ...]) -> Callable[[], None]:
    benches = [bench(path / f"store-{len(exclude)}-{number}", github, repo) for number in range(WORKERS)]
    for one in benches:
        one.content = rules((), exclude, 5_000_000)

    def work() -> None:
        with ThreadPoolExecutor(WORKERS) as workers:
            for done in [workers.submit(synced, one) for one in benches]:
                done.result()

    return work


def told(lags: list[float]) -> dict[str, float]:
    """Milliseconds."""
    return {
        "p50": round(lags[len(lags) // 2], 1),
        "p99": round(lags[len(lags) * 99 // 100], 1),
        "worst": round(lags[-1], 1),
    }


def main() -> None:
    gc.set_threshold(*COLLECTOR_THRESHOLDS)  # as the daemon does
    sys.setswitchinterval(SWITCH_SECONDS)
    with folder() as path:
        repo = make_repository(path / "origin.git", FILES, size=2_000)
        with served({"octo/data": repo.path}) as github:
            idle = lags_while(lambda: time.sleep(IDLE_SECONDS))
            archives = lags_while(sync_all(path, github, repo, ()))
            listings = lags_while(sync_all(path, github, repo, ("*.psd",)))
    report(
        "loop",
        files=FILES,
        workers=WORKERS,
        idle_ms=told(idle),
        archives_ms=told(archives),
        listings_ms=told(listings),
    )


if __name__ == "__main__":
    main()
