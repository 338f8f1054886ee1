"""Time, passed in rather than looked up, so that tests can hold it still."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime


def utc_now() -> datetime:
    """The wall clock as an aware UTC instant."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Clock:
    """The three ways a part may ask for time; tests replace any of them.

    ``now`` is for what is stored and shown, ``monotonic`` (seconds) for every duration and deadline,
    ``sleep`` (seconds) for waits that nothing can wake early.
    """

    now: Callable[[], datetime] = utc_now
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
