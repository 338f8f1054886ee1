"""The scheduler calls on time, whatever a call does and whatever the wall clock does."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from apscheduler.events import EVENT_JOB_MAX_INSTANCES
from harness import wait_for

from daemon.triggers import scheduler as module
from daemon.triggers.scheduler import ClockWatch, Scheduler

SECONDS = 30.0
OFTEN = 0.02
HOUR = 3600.0


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    scheduler = Scheduler()
    scheduler.start()
    yield scheduler
    if scheduler.alive():
        scheduler.stop()


class Calls:
    """Counts how often it was called."""

    def __init__(self) -> None:
        self.count = 0
        self._called = threading.Condition()

    def __call__(self) -> None:
        with self._called:
            self.count += 1
            self._called.notify_all()

    def reach(self, count: int) -> None:
        with self._called:
            assert self._called.wait_for(lambda: self.count >= count, SECONDS)


def test_a_function_is_called_again_and_again(scheduler: Scheduler) -> None:
    calls = Calls()
    scheduler.every("count", OFTEN, calls)
    calls.reach(3)


def test_what_is_wanted_soon_while_the_same_goes_on_is_done_once_more(scheduler: Scheduler) -> None:
    begun, go_on, calls = threading.Semaphore(0), threading.Event(), Calls()

    def call() -> None:
        begun.release()
        assert go_on.wait(SECONDS)
        calls()

    scheduler.soon("call", call)
    assert begun.acquire(timeout=SECONDS)
    tried = threading.Semaphore(0)
    scheduler._scheduler.add_listener(lambda _event: tried.release(), EVENT_JOB_MAX_INSTANCES)
    scheduler.soon("call", call)
    assert tried.acquire(timeout=SECONDS)  # while the first goes on
    assert calls.count == 0
    go_on.set()
    calls.reach(2)


def test_at_once_means_before_the_first_interval_is_over(scheduler: Scheduler) -> None:
    calls, later = Calls(), Calls()
    scheduler.every("later", HOUR, later)
    scheduler.every("now", HOUR, calls, at_once=True)
    calls.reach(1)
    assert later.count == 0


def test_what_was_asked_for_before_the_start_is_called_after_it() -> None:
    scheduler, calls = Scheduler(), Calls()
    scheduler.every("count", HOUR, calls, at_once=True)
    assert not scheduler.alive()
    scheduler.start()
    assert scheduler.alive()
    calls.reach(1)
    scheduler.stop()


def test_the_same_name_replaces_interval_and_function(scheduler: Scheduler) -> None:
    old, new = Calls(), Calls()
    scheduler.every("poll", HOUR, old)
    scheduler.every("poll", OFTEN, new)
    new.reach(2)
    scheduler.run_all_now()
    new.reach(new.count + 1)
    assert old.count == 0


def test_a_call_that_raises_is_called_again(scheduler: Scheduler, caplog: pytest.LogCaptureFixture) -> None:
    calls = Calls()

    def fail() -> None:
        calls()
        raise RuntimeError("a defect")

    with caplog.at_level(logging.CRITICAL, "apscheduler"):
        scheduler.every("fail", OFTEN, fail)
        calls.reach(3)
    assert scheduler.alive()


def test_a_slow_call_does_not_run_twice_at_once_and_its_missed_times_are_one(
    scheduler: Scheduler, caplog: pytest.LogCaptureFixture
) -> None:
    begun, others = Calls(), Calls()
    go_on = threading.Event()

    def slow() -> None:
        begun()
        go_on.wait(SECONDS)

    with caplog.at_level(logging.CRITICAL, "apscheduler"):
        scheduler.every("slow", OFTEN, slow)
        scheduler.every("other", OFTEN, others)
        begun.reach(1)
        others.reach(5)  # a slow one holds up nobody else
        assert begun.count == 1
        go_on.set()
        begun.reach(2)


def test_after_a_jump_everything_is_called_at_once(scheduler: Scheduler) -> None:
    calls = [Calls(), Calls()]
    for number, call in enumerate(calls):
        scheduler.every(f"call {number}", HOUR, call)
    scheduler.run_all_now()
    for call in calls:
        call.reach(1)


def test_what_was_missed_over_fifty_years_is_one_call_at_once(scheduler: Scheduler) -> None:
    calls = Calls()
    scheduler.every("count", OFTEN, calls)
    calls.reach(1)
    scheduler._scheduler.get_job("count").modify(next_run_time=datetime(1970, 1, 1, tzinfo=UTC))
    counted = calls.count
    calls.reach(counted + 2)


def test_after_a_stop_nothing_is_called_and_what_runs_is_not_waited_for(scheduler: Scheduler) -> None:
    begun, calls = Calls(), Calls()
    go_on = threading.Event()

    def slow() -> None:
        begun()
        go_on.wait(SECONDS)

    scheduler.every("slow", HOUR, slow, at_once=True)
    scheduler.every("count", OFTEN, calls)
    begun.reach(1)
    stopping = threading.Thread(target=scheduler.stop)
    stopping.start()
    stopping.join(SECONDS / 2)
    assert not stopping.is_alive()
    assert not scheduler.alive()
    wait_for(lambda: not any(each.name == "APScheduler" for each in threading.enumerate()), "its thread to end")
    counted = calls.count
    go_on.set()
    assert calls.count <= counted + 1  # one that had been handed over already


# -- the clock watch --------------------------------------------------------------------------------


class Time(SimpleNamespace):
    """Both clocks of the machine, moved by hand."""

    wall = 1_800_000_000.0
    steady = 100.0

    def time(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.steady

    def go_on(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Time:
    machine = Time()
    monkeypatch.setattr(module, "time", machine)
    return machine


@pytest.mark.parametrize("seconds", [-3600.0, -2.5, 2.5, 3600.0, 315_360_000.0])
def test_a_jump_of_the_wall_clock_is_noticed_once(machine: Time, seconds: float) -> None:
    watch = ClockWatch()
    machine.go_on(1)
    machine.wall += seconds
    assert watch.jumped() == timedelta(seconds=seconds)
    machine.go_on(1)
    assert watch.jumped() is None


@pytest.mark.parametrize("seconds", [0.0, 1.0, HOUR])
def test_time_that_passes_is_no_jump(machine: Time, seconds: float) -> None:
    watch = ClockWatch()
    machine.go_on(seconds)
    assert watch.jumped() is None


def test_a_clock_that_is_slewed_is_followed_without_alarm(machine: Time) -> None:
    watch = ClockWatch()
    for _ in range(10):
        machine.go_on(1)
        machine.wall -= 0.5
        assert watch.jumped() is None
