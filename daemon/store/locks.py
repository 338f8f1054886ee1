"""Who may write: one process by a lock file, one thread at a time by a queue."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any

from daemon.clock import Clock
from daemon.errors import StoreIncompatible, StoreLocked
from daemon.store.fields import instant_text

# ``locked_by`` holds the lock for an instant while it looks: an opener must not take that for an owner.
_TRIES = 5
_BETWEEN_TRIES_SECONDS = 0.02


class FairLock:
    """A mutex that serves its waiters in the order they came.

    ``threading.Lock`` lets the delivery writer, which comes back at once, starve a sync's last transaction.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()
        self._held = False

    def acquire(self, timeout: float) -> bool:
        """Wait at most ``timeout`` seconds; False when the turn did not come."""
        with self._guard:
            if not self._held:
                self._held = True
                return True
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append(turn)
        if turn.acquire(timeout=timeout):
            return True
        return self._give_up(turn)

    def release(self) -> None:
        with self._guard:
            if self._waiting:
                self._waiting.popleft().release()  # handed over: nobody can push in between
            else:
                self._held = False

    def _give_up(self, turn: threading.Lock) -> bool:
        with self._guard:
            if turn in self._waiting:
                self._waiting.remove(turn)
                return False
            return True  # the turn came between the time-out and here


def lock_path(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


class LockFile:
    """The exclusive right of this process to a database, with facts about it for whoever asks.

    The file is never removed: two openers could otherwise hold locks on two files of one name.
    """

    def __init__(self, handle: int, facts: dict[str, Any]) -> None:
        self._handle = handle
        self._facts = facts
        self._guard = threading.Lock()

    @classmethod
    def acquire(cls, path: Path, *, clock: Clock) -> LockFile:
        """Lock the database at ``path``. Raises StoreLocked, naming the process that has it."""
        try:
            handle = os.open(lock_path(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreIncompatible(
                f"cannot write {lock_path(path)}: {error.strerror}; give headwater's user this folder"
            ) from error
        for attempt in range(_TRIES):
            if _flock(handle, fcntl.LOCK_EX):
                lock = cls(handle, {"pid": os.getpid(), "started_at": instant_text(clock.now())})
                lock.note()
                return lock
            if attempt < _TRIES - 1:
                clock.sleep(_BETWEEN_TRIES_SECONDS)
        facts = _read_facts(handle)
        os.close(handle)
        raise StoreLocked(
            f"{path} is in use by process {facts.get('pid', 'unknown')}; stop that headwater, or give this one "
            "another storage.url"
        )

    def note(self, **facts: Any) -> None:
        """Add ``facts`` to what ``locked_by`` tells other processes."""
        with self._guard:
            self._facts.update(facts)
            text = json.dumps(self._facts).encode()
            os.pwrite(self._handle, text, 0)
            os.ftruncate(self._handle, len(text))

    def release(self) -> None:
        with self._guard:
            with suppress(OSError):  # on a disk that fails the note stays, and says nothing without the lock
                os.ftruncate(self._handle, 0)
            os.close(self._handle)


def locked_by(path: Path) -> dict[str, Any] | None:
    """The facts that the process which owns the database at ``path`` noted; None when nobody owns it."""
    try:
        handle = os.open(lock_path(path), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return None if _flock(handle, fcntl.LOCK_SH) else _read_facts(handle)
    finally:
        os.close(handle)


def _flock(handle: int, kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read_facts(handle: int) -> dict[str, Any]:
    try:
        facts = json.loads(os.pread(handle, 65536, 0))
    except ValueError:
        return {}  # caught between two writes
    return facts if isinstance(facts, dict) else {}
