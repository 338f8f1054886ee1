"""FAULTS B1, B2, B3, B5: killed at a system call, whichever it is, nothing that was promised is lost or half done."""

from __future__ import annotations

import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import crash
import pytest
from case import Case
from scenario import PARTS

AT_ONCE = 2
FEW = 10  # points of a part in the short run, spread over all of them


def chosen(every: list[Any], most: int | None) -> list[Any]:
    """All of them, or as many as ``most``, spread evenly: each kind of call is among them."""
    if most is None or len(every) <= most:
        return every
    return [every[number * len(every) // most] for number in range(most)]


def crash_at(case: Case, points: list[crash.Point], *, broken: str | None = None) -> tuple[int, list[str]]:
    """How many were killed there, and what the oracle says against it."""

    def one(point: crash.Point) -> tuple[bool, str | None]:
        folder = crash.kill(case.bench, point, broken=broken)
        if folder is None:
            return False, None
        verdict = case.check(point.part, folder)
        shutil.rmtree(folder)
        return True, f"{point}: {verdict}" if verdict else None

    with ThreadPoolExecutor(AT_ONCE) as pool:
        results = list(pool.map(one, points))
    return sum(killed for killed, _ in results), [verdict for _, verdict in results if verdict]


def survives(case: Case, part: str, most: int | None) -> int:
    case.prepare(part)
    every = crash.points(case.bench, part)
    killed, verdicts = crash_at(case, chosen(every, most))
    assert verdicts == []
    assert killed >= min(len(every), most or len(every)) * 0.9  # a few ends come a call earlier than in the first run
    return killed


@pytest.mark.timeout(300)
@pytest.mark.parametrize("part", sorted(PARTS))
def test_a_kill_at_a_system_call_loses_nothing(case: Case, part: str) -> None:
    survives(case, part, FEW)


@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("part", sorted(PARTS))
def test_a_kill_at_every_system_call_loses_nothing(case: Case, part: str) -> None:
    sys.stdout.write(f"{part}: killed at {survives(case, part, None)} points\n")


# -- the oracle, on builds that are broken on purpose ----------------------------------------------


@pytest.mark.parametrize(
    ("part", "broken", "call", "verdict"),
    [
        ("ingest", "acknowledge-first", "pwrite64", "acknowledged and lost"),
        ("sync", "no-transaction", "pwrite64", "not that of its commit"),
        ("publish", "no-flip", "openat", "mixture"),
    ],
)
def test_the_oracle_sees_a_broken_build(case: Case, part: str, broken: str, call: str, verdict: str) -> None:
    case.prepare(part)
    every = [point for point in crash.points(case.bench, part, broken=broken) if point.call == call]
    _, verdicts = crash_at(case, chosen(every, 20), broken=broken)
    assert any(verdict in told for told in verdicts)
