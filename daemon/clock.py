"""Time, passed in rather than looked up, so that tests can hold it still."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta


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


class OtherClock:
    """What a clock elsewhere says, as last heard, carried on by the monotonic one: a jump of ours does not move it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heard: tuple[datetime, float] | None = None

    def hear(self, at: datetime) -> None:
        self._heard = (at, self._clock.monotonic())

    def now(self) -> datetime | None:
        """The instant there; None before it was heard."""
        heard = self._heard
        return heard[0] + timedelta(seconds=self._clock.monotonic() - heard[1]) if heard else None
