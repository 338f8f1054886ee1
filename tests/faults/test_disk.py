"""FAULTS D1, D3, D4: a disk that fails or is full costs refusals, never anything that was acknowledged."""

from __future__ import annotations

import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import crash
import pytest
from case import Case
from scenario import REFUSED
from test_crash import AT_ONCE, chosen

WRITES = ("pwrite64", "ftruncate", "fdatasync", "fsync")
READS = ("pread64",)
FLUSHES = ("fdatasync", "fsync")
FEW = 12  # faults of a part in the short run, spread over every kind of call


@dataclass(frozen=True)
class Fault:
    """A call that fails, with which error, and whether it does so from then on."""

    point: crash.Point
    error: str
    forever: bool

    def __str__(self) -> str:
        return f"{self.point} {self.error}{' for ever' if self.forever else ''}"


def faults(case: Case, part: str, calls: tuple[str, ...]) -> list[Fault]:
    """Every way to fail at every such call."""
    return [
        Fault(point, error, forever)
        for point in crash.points(case.bench, part, calls=calls)
        for error in (("EIO",) if point.call in READS else ("EIO", "ENOSPC"))
        for forever in (False, True)
    ]


def outcome(case: Case, fault: Fault, *, broken: str | None = None) -> tuple[list[str], str | None]:
    """What was answered while it failed, and what the oracle says against what is left once the disk is well again."""
    folder = crash.fail(case.bench, fault.point, fault.error, forever=fault.forever, broken=broken)
    ledger = folder / "ledger"
    answered = ledger.read_text().split() if ledger.exists() else []
    verdict = case.check(fault.point.part, folder) or unsure(fault, answered)
    shutil.rmtree(folder)
    return answered, f"{fault}: {verdict}" if verdict else None


def unsure(fault: Fault, answered: list[str]) -> str | None:
    """After a flush that failed nobody can tell what is on the disk: no later commit may be called good."""
    if fault.point.call not in FLUSHES or REFUSED not in answered:
        return None
    later = answered[answered.index(REFUSED) :]
    return "acknowledged after a flush that failed" if set(later) != {REFUSED} else None


def outcomes(
    case: Case, part: str, most: int | None, *, calls: tuple[str, ...] = (*WRITES, *READS), broken: str | None = None
) -> tuple[list[list[str]], list[str]]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        chances = chosen(faults(case, part, calls), most)
        found = list(pool.map(lambda fault: outcome(case, fault, broken=broken), chances))
    return [answered for answered, _ in found], [verdict for _, verdict in found if verdict]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("part", ["ingest", "sync"])
def test_an_error_of_the_disk_loses_nothing_that_was_acknowledged(case: Case, part: str) -> None:
    case.prepare(part)
    answered, verdicts = outcomes(case, part, FEW)
    assert verdicts == []
    assert part != "ingest" or any(REFUSED in one for one in answered)


@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("part", ["ingest", "sync", "first", "prune"])
def test_an_error_of_the_disk_at_every_call_loses_nothing(case: Case, part: str) -> None:
    case.prepare(part)
    answered, verdicts = outcomes(case, part, None)
    assert verdicts == []
    sys.stdout.write(f"{part}: {len(answered)} errors of the disk\n")


def test_the_oracle_sees_a_build_that_goes_on_after_a_failed_flush(case: Case) -> None:
    case.prepare("ingest")
    _, verdicts = outcomes(case, "ingest", 5, calls=("fdatasync",), broken="go-on")
    assert any("acknowledged after a flush that failed" in verdict for verdict in verdicts)
