"""Is a head read to be believed? The stale-read guard, without any request of its own.

Right after a push GitHub's API may answer with the old head for seconds (GITHUB.md, "Right after a
push"), and deliveries arrive late and out of order. So a head that is older than the stored one, or
that is not what a delivery announced, is believed only when several reads over some time agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from daemon.model import Sighting

AGREEING_READS = 3
AGREEING_SECONDS = 10.0
LONGEST_WAIT_SECONDS = 60.0
NO_BRANCH = ""  # the "head" of a branch that GitHub says does not exist


@dataclass(frozen=True, slots=True)
class Doubt:
    """A disputed read: what was seen, whether it is now to be believed, and when to read again."""

    sighting: Sighting
    settled: bool
    read_again_at: datetime


def dispute(head: str, earlier: Sighting | None, *, now: datetime) -> Doubt:
    """Count one more read that disagrees; settled after three over at least ten seconds agree."""
    if earlier is None or earlier.head != head or earlier.first_at > now:
        sighting = Sighting(head=head, first_at=now, reads=1)
    else:
        sighting = Sighting(head=head, first_at=earlier.first_at, reads=earlier.reads + 1)
    age = (now - sighting.first_at).total_seconds()
    settled = sighting.reads >= AGREEING_READS and age >= AGREEING_SECONDS
    return Doubt(sighting, settled, now + timedelta(seconds=_wait_seconds(sighting.reads, age)))


def _wait_seconds(reads: int, age: float) -> float:
    """1, 2, 4, 8 … seconds, but one read right at the end of the agreeing time."""
    wait = min(2.0 ** (reads - 1), LONGEST_WAIT_SECONDS)
    if reads >= AGREEING_READS - 1 and age < AGREEING_SECONDS < age + wait:
        return AGREEING_SECONDS - age
    return wait
