"""The workers: claim a job, run the routine, and see to it that every ending is written down.

A lease is renewed by a thread of its own, so that an honest slow run keeps it; a run that lost its
lease (a frozen machine, a slow disk) is refused at its last transaction by the fencing token. A run may
take hours, but not a step of it: one that makes none for half an hour hangs, and its lease is left to end.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from daemon.clock import Clock
from daemon.config import SyncSettings
from daemon.errors import (
    HeadwaterError,
    LeaseLost,
    ObjectNotFound,
    Outage,
    RateLimited,
    StoreError,
    StoreUnavailable,
    Unauthorized,
)
from daemon.logs import get_logger
from daemon.model import Claim, Outcome, RunResult, SyncProgress
from daemon.store.jobs import Jobs
from daemon.sync.attempt import Progress
from daemon.sync.routine import Interrupted, Routine, no_progress

log = get_logger()

LEASE_SECONDS = 60.0
IDLE_SECONDS = 1.0  # the longest a worker sleeps before it asks the database itself
FIRST_BACKOFF_SECONDS = 5.0
LONGEST_BACKOFF_SECONDS = 3600.0
LONGEST_OUTAGE_WAIT_SECONDS = 60.0
# No step takes as long: not a call to GitHub with its retries, not the last transaction of a huge repository.
HUNG_SECONDS = 1800.0
PATIENCE_SECONDS = 300.0  # how long an object GitHub just announced may be missing before it is a failure


@dataclass(slots=True)
class _Running:
    """A claim under way, the thread that runs it, how far it has come, and whether it may go on."""

    claim: Claim
    thread: int = field(default_factory=threading.get_ident)
    step: tuple[str, int, int] = ("head", 0, 1)
    lost: threading.Event = field(default_factory=threading.Event)


class Workers:
    """A pool of threads that drain the queue; its size follows the settings while it runs."""

    def __init__(
        self,
        jobs: Jobs,
        routine: Routine,
        *,
        clock: Clock,
        owner: str,
        settings: Callable[[], SyncSettings],
        on_run: Callable[[Claim, RunResult], None] = lambda _claim, _result: None,
        on_start: Callable[[Claim], None] = lambda _claim: None,
        on_put_off: Callable[[Claim], None] = lambda _claim: None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._jobs = jobs
        self._routine = routine
        self._clock = clock
        self._owner = owner
        self._settings = settings
        self._on_run = on_run
        self._on_start = on_start
        self._on_put_off = on_put_off
        self._jitter = jitter
        self._wake = threading.Condition()
        self._wakes = 0
        self._stopping = threading.Event()
        self._running: dict[int, _Running] = {}
        self._lock = threading.Lock()
        self._threads: dict[int, threading.Thread] = {}
        self._signs: dict[int, float] = {}  # when each thread last made a step, by its ident
        self._heartbeat = threading.Thread(target=self._beat, name="lease-heartbeat", daemon=True)

    # -- life -------------------------------------------------------------------------------------

    def start(self) -> None:
        self.start_heartbeat()
        self.resize()

    def start_heartbeat(self) -> None:
        """Renew the leases of what `work` runs, until `stop`: for one who claims by himself."""
        self._heartbeat.start()

    def resize(self) -> None:
        """Start the threads that the settings ask for and that do not live; surplus ones end by themselves."""
        for number in range(self._settings().workers):
            thread = self._threads.get(number)
            if thread is None or not thread.is_alive():
                self._threads[number] = threading.Thread(
                    target=self._loop, args=(number,), name=f"worker-{number}", daemon=True
                )
                self._threads[number].start()

    def wake(self) -> None:
        """Something was put into the queue: one worker looks, and whoever finds a job has the next one look."""
        with self._wake:
            self._wakes += 1
            self._wake.notify()

    def alive(self) -> bool:
        """Whether every worker and the heartbeat live; a dead worker is replaced by `resize`."""
        wanted = range(self._settings().workers)
        return self._heartbeat.is_alive() and all(
            number in self._threads and self._threads[number].is_alive() for number in wanted
        )

    def hung(self) -> int:
        """How many workers have made no step for so long that they will not make another."""
        return sum(self._hangs(thread.ident) for thread in list(self._threads.values()) if thread.is_alive())

    def moving(self) -> bool:
        """Whether every worker lives and at least one is not hung; when not, only a new process helps."""
        return self.alive() and self.hung() < self._settings().workers

    def running(self) -> int:
        """How many syncs are under way in this process."""
        with self._lock:
            return len(self._running)

    def progress(self) -> list[SyncProgress]:
        """How far each sync of this process has come."""
        with self._lock:
            running = list(self._running.values())
        return [_told(one.claim, *one.step) for one in running]

    def stop(self, timeout: float) -> None:
        """Claim nothing more, let running syncs end at their next step, hand back what does not within ``timeout``."""
        self._stopping.set()
        with self._wake:
            self._wake.notify_all()
        deadline = self._clock.monotonic() + timeout
        for thread in list(self._threads.values()):
            thread.join(max(0.0, deadline - self._clock.monotonic()))
        with self._lock:
            left = [running.claim for running in self._running.values()]
        for claim in left:
            self._hand_back(claim)

    # -- one worker -------------------------------------------------------------------------------

    def _loop(self, number: int) -> None:
        while not self._stopping.is_set() and number < self._settings().workers:
            self._sign()
            seen = self._wakes
            claim = self._claim()
            if claim is None:
                self._rest(seen)
            else:
                self.wake()
                self.work(claim)
        self.wake()  # a surplus one may have been the one to look

    def _claim(self) -> Claim | None:
        try:
            return self._jobs.claim(self._owner, now=self._clock.now(), lease_seconds=LEASE_SECONDS)
        except StoreError as error:
            log.warning("worker.claim_failed", error=str(error))
            return None

    def _rest(self, seen: int) -> None:
        seconds = self._idle_seconds()
        with self._wake:
            if self._wakes == seen and not self._stopping.is_set():
                self._wake.wait(seconds)

    def _idle_seconds(self) -> float:
        """Until the next job is due, but no longer than a lost wake-up may cost."""
        try:
            due = self._jobs.next_due(self._clock.now())
        except StoreError:
            due = None
        return IDLE_SECONDS if due is None else min(max(due, 0.01), IDLE_SECONDS)

    def work(self, claim: Claim, *, progress: Progress = no_progress) -> RunResult | None:
        """Run one claim to its end, whatever that is; None when it was handed back."""
        running = _Running(claim)
        self._sign()
        started_at = self._clock.now()

        def show(phase: str, done: int, total: int) -> None:
            running.step = (phase, done, total)
            progress(phase, done, total)

        with self._lock:
            self._running[claim.job_id] = running
        self._on_start(claim)
        try:
            result = self._routine.run(claim, check=lambda: self._check(running), progress=show)
        except (Exception, MemoryError) as error:  # noqa: BLE001 - the top of a run: its end must be recorded
            result = self._end_badly(claim, error, started_at)
        finally:
            with self._lock:
                self._running.pop(claim.job_id, None)
        if result is None:
            self._on_put_off(claim)
        else:
            _log_run(claim, result)
            self._on_run(claim, result)
        return result

    def _sign(self) -> None:
        self._signs[threading.get_ident()] = self._clock.monotonic()

    def _hangs(self, thread: int | None) -> bool:
        now = self._clock.monotonic()
        return thread is not None and now - self._signs.get(thread, now) > HUNG_SECONDS

    def _check(self, running: _Running) -> None:
        self._sign()
        if self._stopping.is_set():
            raise Interrupted("the daemon is stopping")
        if running.lost.is_set():
            raise LeaseLost(f"another worker took over {_label(running.claim)}")

    # -- endings ----------------------------------------------------------------------------------

    def _end_badly(self, claim: Claim, error: BaseException, started_at: datetime) -> RunResult | None:
        try:
            return self._record(claim, error, started_at)
        except LeaseLost as lost:
            log.warning("run.lease_lost", branch=_label(claim), error=str(lost))
        except StoreError as unavailable:
            # The lease runs out by itself, and the job with it becomes claimable again.
            log.error("run.end_not_stored", branch=_label(claim), error=str(unavailable))
            self._clock.sleep(IDLE_SECONDS)
        return None

    def _record(self, claim: Claim, error: BaseException, started_at: datetime) -> RunResult | None:
        now = self._clock.now()
        if isinstance(error, LeaseLost):
            raise error
        if isinstance(error, Interrupted):
            self._jobs.hand_back(claim, now=now)
            return None
        wait = self._wait_seconds(claim, error, now)
        if wait is not None:
            log.warning("run.waiting", branch=_label(claim), error=str(error), seconds=round(wait, 1))
            run_after = now + timedelta(seconds=wait)
            self._jobs.waiting(claim, run_after=run_after, sighting=claim.sighting, note=str(error), now=now)
            return None
        return self._fail(claim, error, started_at, now)

    def _wait_seconds(self, claim: Claim, error: BaseException, now: datetime) -> float | None:
        """How long to wait without counting an attempt; None when the attempt failed."""
        age = max(0.0, (now - claim.wanted_at).total_seconds())
        if isinstance(error, RateLimited):
            return max(1.0, (error.until - now).total_seconds()) + self._jitter()
        if isinstance(error, Outage | StoreUnavailable | Unauthorized):
            # In proportion to how long it lasts: exponential, and nothing to remember.
            return min(max(1.0, age / 2), LONGEST_OUTAGE_WAIT_SECONDS) * (0.75 + self._jitter() / 2)
        if isinstance(error, ObjectNotFound) and age < PATIENCE_SECONDS:
            return min(max(1.0, age), 10.0)
        return None

    def _fail(self, claim: Claim, error: BaseException, started_at: datetime, now: datetime) -> RunResult:
        if not isinstance(error, HeadwaterError):
            log.error("run.unexpected_error", branch=_label(claim), exc_info=error)
        result = RunResult(Outcome.FAILED, None, None, started_at=started_at, finished_at=now, error=_words(error))
        backoff = min(FIRST_BACKOFF_SECONDS * 2.0 ** min(claim.attempt - 1, 12), LONGEST_BACKOFF_SECONDS)
        self._jobs.failed(
            claim,
            result,
            run_after=now + timedelta(seconds=backoff * (0.75 + self._jitter() / 2)),
            park=claim.attempt >= self._settings().max_attempts,
            now=now,
        )
        return result

    def _hand_back(self, claim: Claim) -> None:
        try:
            self._jobs.hand_back(claim, now=self._clock.now())
        except StoreError as error:
            log.warning("run.not_handed_back", branch=_label(claim), error=str(error))

    # -- heartbeat --------------------------------------------------------------------------------

    def _beat(self) -> None:
        while not self._stopping.wait(LEASE_SECONDS / 4):
            with self._lock:
                running = [item for item in self._running.values() if not item.lost.is_set()]
            for item in running:
                self._renew(item)

    def _renew(self, running: _Running) -> None:
        if self._hangs(running.thread):
            log.error("run.hangs", branch=_label(running.claim), seconds=HUNG_SECONDS)
            running.lost.set()  # should it come back after all, it must not go on
            return
        try:
            kept = self._jobs.renew(running.claim, now=self._clock.now(), lease_seconds=LEASE_SECONDS)
        except StoreError as error:
            log.warning("run.lease_not_renewed", branch=_label(running.claim), error=str(error))
            return
        if not kept:
            running.lost.set()


def _told(claim: Claim, phase: str, done: int, total: int) -> SyncProgress:
    return SyncProgress(claim.repository_id, claim.repository.full_name, claim.branch, phase, done, total)


def _label(claim: Claim) -> str:
    return f"{claim.repository.full_name}@{claim.branch or '(default branch)'}"


def _words(error: BaseException) -> str:
    if isinstance(error, HeadwaterError):
        return str(error)
    return f"unexpected {type(error).__name__}: {error}"


def _log_run(claim: Claim, result: RunResult) -> None:
    log_at = log.warning if result.outcome is Outcome.FAILED else log.info
    log_at(
        "run.finished",
        branch=_label(claim),
        trigger=str(claim.triggers[0]) if claim.triggers else None,
        outcome=str(result.outcome),
        after=result.after,
        added=result.added,
        modified=result.modified,
        removed=result.removed,
        requests=result.requests,
        attempt=claim.attempt,
        seconds=round((result.finished_at - result.started_at).total_seconds(), 3),
        error=result.error,
    )
