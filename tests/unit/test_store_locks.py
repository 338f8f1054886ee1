"""Turns to write, and the lock file."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from daemon.clock import Clock
from daemon.errors import StoreLocked
from daemon.store.locks import FairLock, LockFile, lock_path, locked_by


def test_waiters_are_served_in_the_order_they_came() -> None:
    lock = FairLock()
    assert lock.acquire(1)
    served: list[int] = []
    threads = []
    for number in range(8):
        thread = threading.Thread(
            target=lambda number=number: (lock.acquire(10), served.append(number), lock.release())
        )
        thread.start()
        threads.append(thread)
        _until(lambda expected=number + 1: len(lock._waiting) == expected)
    lock.release()
    for thread in threads:
        thread.join(10)
    assert served == list(range(8))


def test_a_waiter_that_gives_up_leaves_the_line() -> None:
    lock = FairLock()
    assert lock.acquire(1)
    assert not lock.acquire(0.01)
    lock.release()
    assert lock.acquire(0.01)


def test_a_turn_that_comes_at_the_time_out_is_not_lost() -> None:
    lock = FairLock()
    assert lock.acquire(1)
    turn = threading.Lock()
    turn.acquire()
    lock._waiting.append(turn)
    lock.release()  # handed to the waiter, who has just timed out
    assert lock._give_up(turn)


def test_the_lock_file_tells_who_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    lock = LockFile.acquire(path, clock=Clock())
    lock.note(admin_url="http://127.0.0.1:8788")
    facts = locked_by(path)
    assert facts is not None
    assert facts["admin_url"] == "http://127.0.0.1:8788"
    assert facts["pid"] > 0
    with pytest.raises(StoreLocked, match=str(facts["pid"])):
        LockFile.acquire(path, clock=Clock(sleep=lambda _seconds: None))
    lock.release()
    assert locked_by(path) is None


def test_shorter_facts_replace_longer_ones_whole(tmp_path: Path) -> None:
    lock = LockFile.acquire(tmp_path / "store.db", clock=Clock())
    lock.note(admin_url="x" * 500)
    lock.note(admin_url="y")
    facts = locked_by(tmp_path / "store.db")
    assert facts is not None
    assert facts["admin_url"] == "y"
    lock.release()


def test_a_look_at_the_lock_does_not_stop_an_opener(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    LockFile.acquire(path, clock=Clock()).release()
    looking = lock_path(path).open()
    import fcntl

    fcntl.flock(looking, fcntl.LOCK_SH)
    lock = LockFile.acquire(path, clock=Clock(sleep=lambda _seconds: looking.close()))
    lock.release()


def _until(done: object) -> None:
    waited = threading.Event()
    for _ in range(2000):
        if done():  # type: ignore[operator]
            return
        waited.wait(0.005)
    raise AssertionError("waited in vain")
