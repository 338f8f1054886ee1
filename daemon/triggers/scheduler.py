"""APScheduler as headwater uses it: it only calls, on time; it holds no logic and no state worth keeping.

Due times live in the database, so a missed, merged or late call costs nothing (`coalesce`,
`max_instances=1`, no misfire limit).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from queue import SimpleQueue
from typing import Any

from apscheduler.events import EVENT_JOB_MAX_INSTANCES, JobSubmissionEvent
from apscheduler.executors.base import BaseExecutor, run_job
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger

JUMP_SECONDS = 2.0
BUSY_SECONDS = 0.1  # between two tries of a call that has to wait for itself


class Scheduler:
    """Calls functions at intervals on its own threads."""

    def __init__(self, *, threads: int = 4) -> None:
        self._scheduler = BackgroundScheduler(
            executors={"default": _DaemonThreads(threads)},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
            timezone=UTC,
        )
        self._wanted: dict[str, Callable[[], None]] = {}
        self._scheduler.add_listener(self._again, EVENT_JOB_MAX_INSTANCES)

    def every(self, name: str, seconds: float, call: Callable[[], None], *, at_once: bool = False) -> None:
        """Call every ``seconds``; again under the same name replaces the interval and the function."""
        first = {"next_run_time": datetime.now(UTC)} if at_once else {}
        self._scheduler.add_job(call, _Every(timedelta(seconds=seconds)), id=name, replace_existing=True, **first)

    def soon(self, name: str, call: Callable[[], None]) -> None:
        """Call once, as soon as a thread is free; again under the same name before that is still one call.

        While the call of before goes on it has to wait: what that one has looked at may be from before this wish.
        """
        self._wanted[name] = call
        self._scheduler.add_job(call, id=name, replace_existing=True)

    def _again(self, event: JobSubmissionEvent) -> None:
        """APScheduler drops a call while the same one goes on."""
        if call := self._wanted.get(event.job_id):
            at = datetime.now(UTC) + timedelta(seconds=BUSY_SECONDS)
            self._scheduler.add_job(call, "date", run_date=at, id=event.job_id, replace_existing=True)

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


class _Every(BaseTrigger):  # type: ignore[misc]  # APScheduler has no types
    """An interval that owes nothing: however many calls were missed, the next one is at most an interval away.

    APScheduler's own trigger goes through every missed time, which takes hours after a jump from 1970 to today.
    """

    def __init__(self, interval: timedelta) -> None:
        self._interval = interval

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime:
        following = now + self._interval
        if previous_fire_time is None or not now < previous_fire_time + self._interval < following:
            return following
        return previous_fire_time + self._interval


class _DaemonThreads(BaseExecutor):  # type: ignore[misc]  # APScheduler has no types
    """Threads that do not outlive the process, where those of a pool are waited for at its end.

    A poll that GitHub does not answer would hold up a stop for as long as it waits.
    """

    def __init__(self, threads: int) -> None:
        super().__init__()
        self._calls: SimpleQueue[tuple[Any, list[datetime]] | None] = SimpleQueue()
        names = (f"scheduler-{number}" for number in range(threads))
        self._threads = [threading.Thread(target=self._serve, name=name, daemon=True) for name in names]

    def start(self, scheduler: Any, alias: str) -> None:
        super().start(scheduler, alias)
        for thread in self._threads:
            thread.start()

    def shutdown(self, wait: bool = True) -> None:  # noqa: ARG002 - APScheduler's signature
        for _ in self._threads:
            self._calls.put(None)

    def _do_submit_job(self, job: Any, run_times: list[datetime]) -> None:
        self._calls.put((job, run_times))

    def _serve(self) -> None:
        while call := self._calls.get():
            job, run_times = call
            # Never raises: run_job makes an event of whatever the call raises.
            events = run_job(job, job._jobstore_alias, run_times, self._logger.name)  # noqa: SLF001 - as its executors
            self._run_job_success(job.id, events)


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
