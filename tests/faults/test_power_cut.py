"""FAULTS B20: the power fails at any instant; what was acknowledged is there afterwards."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import crash
import powercut
import pytest
from case import Case

MEMORY = Path("/dev/shm")  # what is rebuilt need not be durable
SEEDS = (None, 1, 2)  # None: nothing of what was not synced arrived


def cuts(
    case: Case, part: str, *, seeds: tuple[int | None, ...], step: int = 1, broken: str | None = None
) -> tuple[int, list[str]]:
    """Cut the power after every ``step``-th call that matters; how many cuts, and what the oracle says against them."""
    folder, trace = crash.record(case.bench, part, powercut.CALLS, broken=broken)
    disk = powercut.Disk.before(case.prepared, folder)
    count, verdicts = 0, []
    for index, number in enumerate(disk.play(trace)):
        for seed in seeds if index % step == 0 else ():
            count += 1
            with TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as left:
                disk.rebuild(Path(left), None if seed is None else random.Random(f"{seed}-{number}"))
                if verdict := case.check(part, Path(left)):
                    verdicts.append(f"{part}, call {number}, seed {seed}: {verdict}")
    assert disk.promised or part != "ingest"
    return count, verdicts


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("part", "step"), [("ingest", 6), ("sync", 8)])
def test_a_power_cut_loses_nothing_that_was_acknowledged(case: Case, part: str, step: int) -> None:
    case.prepare(part)
    count, verdicts = cuts(case, part, seeds=SEEDS, step=step)
    assert verdicts == []
    assert count >= 30


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", ["ingest", "first", "sync", "prune"])
def test_a_power_cut_at_every_instant_loses_nothing(case: Case, part: str) -> None:
    case.prepare(part)
    count, verdicts = cuts(case, part, seeds=(None, *range(8)))
    assert verdicts == []
    sys.stdout.write(f"{part}: {count} power cuts\n")


def test_the_oracle_sees_that_synchronous_normal_is_not_enough(case: Case) -> None:
    case.prepare("ingest")
    _, verdicts = cuts(case, "ingest", seeds=(None,), step=4, broken="synchronous-normal")
    assert any("acknowledged and lost" in verdict for verdict in verdicts)
