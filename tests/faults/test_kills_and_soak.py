"""FAULTS B4 and O8: thousands of kills, and an hour of load with faults, leave nothing that grows."""

from __future__ import annotations

import random
import statistics
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path

import pytest
from harness import Daemon, assert_equal_to_git
from kills import Pusher, kill_and_restart

from daemon.demo.standin import StandIn
from daemon.demo.standin.faults import Drop, Html, Status
from daemon.demo.standin.gitrepo import GitRepo

KILLS = 3000
SOAK_SECONDS = 3600.0
SHORT_SOAK_SECONDS = 15.0
SAMPLE_SECONDS = 0.5
FAULTY = 0.3  # of the time between two samples
FEWEST_UPDATES_A_SECOND = 0.1  # else it was no load, and only waiting
MOST_GROWTH = {"threads": 1.05, "descriptors": 1.2, "resident_bytes": 1.25, "wal_bytes": 3.0}
WAL_BYTES = 80 * 1024 * 1024


@pytest.mark.long
@pytest.mark.timeout(6 * 3600)
def test_three_thousand_kills_under_load(github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon]) -> None:
    daemon = kill_and_restart(github, repo, make_daemon, kills=KILLS, seed=7)
    assert daemon.stop() == 0
    assert daemon.integrity() == "ok"


@dataclass(frozen=True)
class Sample:
    threads: int
    descriptors: int
    resident_bytes: int
    wal_bytes: int

    @classmethod
    def of(cls, daemon: Daemon) -> Sample:
        assert daemon.process is not None
        proc = Path(f"/proc/{daemon.process.pid}")
        wal = Path(f"{daemon.database}-wal")
        return cls(
            len(list((proc / "task").iterdir())),
            len(list((proc / "fd").iterdir())),
            int((proc / "statm").read_text().split()[1]) * 4096,
            wal.stat().st_size if wal.exists() else 0,
        )


def soak(github: StandIn, repo: GitRepo, daemon: Daemon, seconds: float, *, seed: int) -> list[Sample]:
    """Push and read for that long while GitHub fails now and then; what the process takes up meanwhile."""
    chance = random.Random(seed)
    pusher = Pusher(github, repo)
    ended = threading.Event()

    def read() -> None:
        while not ended.is_set():
            for path in ("/api/v1/status", "/api/v1/repositories", "/metrics", "/api/v1/search?q=load"):
                assert daemon.get(path).status_code == 200
            ended.wait(0.05)

    reader = threading.Thread(target=read, daemon=True)
    pusher.start()
    reader.start()
    samples = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        github.faults.clear()  # what was not met with: else they pile up, and nothing but faults is ever answered
        if chance.random() < FAULTY:
            fault = chance.choice((Status(502), Status(404), Html(), Drop(), Drop(reset=True), Status(403)))
            github.faults.add(".", fault, times=chance.randint(1, 3))
        samples.append(Sample.of(daemon))
        time.sleep(SAMPLE_SECONDS)  # the distance between two samples is what is wanted here
    pusher.ended.set()
    pusher.join(30)
    ended.set()
    reader.join(30)
    github.faults.clear()
    return samples


def grown(samples: list[Sample]) -> list[str]:
    """Which figure was larger in the last third than the middle one by more than noise."""
    third = len(samples) // 3
    middle, last = samples[third : 2 * third], samples[2 * third :]
    found = []
    for field in fields(Sample):
        before, after = (statistics.median(getattr(one, field.name) for one in part) for part in (middle, last))
        if after > max(before, 1) * MOST_GROWTH[field.name] and not (field.name == "wal_bytes" and after < WAL_BYTES):
            found.append(f"{field.name}: {before:.0f} → {after:.0f}")
    return found


def soaked(github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon], seconds: float) -> list[Sample]:
    github.limits.enabled = False  # an hour of pushes costs more than an hour's budget, and waits for the next one
    daemon = make_daemon(interval="1s", reconcile="2s").start()
    daemon.wait_head(repo.head())
    github.hook("octo/data", daemon.webhook_url, daemon.secret)
    with ThreadPoolExecutor(32) as readers:  # the threads that read are made when they are first needed
        list(readers.map(daemon.get, ["/api/v1/status"] * 320))
    samples = soak(github, repo, daemon, seconds, seed=3)
    daemon.post("/api/v1/repositories/octo/data/sync")
    daemon.wait_head(repo.head(), seconds=120)
    assert grown(samples) == []
    assert_equal_to_git(daemon, repo)
    assert daemon.stop() == 0
    assert daemon.integrity() == "ok"
    log = daemon.log.read_text(encoding="utf-8", errors="replace")
    assert "Traceback" not in log
    assert log.count('"outcome":"updated"') > seconds * FEWEST_UPDATES_A_SECOND
    return samples


@pytest.mark.timeout(300)
def test_a_short_soak_grows_nothing(github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon]) -> None:
    soaked(github, repo, make_daemon, SHORT_SOAK_SECONDS)


@pytest.mark.long
@pytest.mark.timeout(2 * 3600)
def test_an_hour_of_load_with_faults_grows_nothing(
    github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    samples = soaked(github, repo, make_daemon, SOAK_SECONDS)
    sys.stdout.write(f"{samples[len(samples) // 3]} {samples[-1]}\n")


def test_the_oracle_sees_what_grows() -> None:
    steady = [Sample(20, 40, 80_000_000, 4_000_000)] * 30
    leaking = [Sample(20, 40 + number * 2, 80_000_000, 4_000_000) for number in range(30)]
    assert grown(steady) == []
    assert [one.split(":")[0] for one in grown(leaking)] == ["descriptors"]
