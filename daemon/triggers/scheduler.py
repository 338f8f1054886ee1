"""APScheduler as headwater uses it: it only calls, on time; it holds no logic and no state worth keeping.

Due times live in the database, so a missed, merged or late call costs nothing (`coalesce`,
`max_instances=1`, no misfire limit).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.interval import IntervalTrigger

JUMP_SECONDS = 2.0


class Scheduler:
    """Calls functions at intervals on its own threads."""

    def __init__(self, *, threads: int = 4) -> None:
        self._scheduler = BackgroundScheduler(
            executors={"default": ThreadPoolExecutor(threads)},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
            timezone=UTC,
        )

    def every(self, name: str, seconds: float, call: Callable[[], None], *, at_once: bool = False) -> None:
        """Call every ``seconds``; again under the same name replaces the interval and the function."""
        first = {"next_run_time": datetime.now(UTC)} if at_once else {}
        self._scheduler.add_job(
            call, IntervalTrigger(seconds=seconds, timezone=UTC), id=name, replace_existing=True, **first
        )

    def start(self) -> None:
        self._scheduler.start()

    def stop(self) -> None:
        """Call nothing more; what runs is not waited for."""
        self._scheduler.shutdown(wait=False)

    def alive(self) -> bool:
        return bool(self._scheduler.running)

    def run_all_now(self) -> None:
        """After the wall clock jumped: APScheduler sleeps by it, so an hour back would be an hour of silence."""
        now = datetime.now(UTC)
        for job in self._scheduler.get_jobs():
            job.modify(next_run_time=now)


class ClockWatch:
    """Notices jumps of the wall clock by holding it against the monotonic one."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def jumped(self) -> timedelta | None:
        """How far the wall clock has jumped since the last call, when further than two seconds."""
        offset = time.time() - time.monotonic()
        jump = offset - self._offset
        self._offset = offset
        return timedelta(seconds=jump) if abs(jump) > JUMP_SECONDS else None
