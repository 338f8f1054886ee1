"""Measures what a test waits for, in time that the machine gave it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

TICK_SECONDS = 0.01
STANDSTILL_SECONDS = 0.1


class Stopwatch:
    """The seconds that pass; where this process stands still for longer than a tenth of one, only that tenth."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stopwatch", daemon=True)

    def _run(self) -> None:
        at, ended = time.monotonic(), False
        while not ended:
            ended = self._ended.wait(TICK_SECONDS)
            before, at = at, time.monotonic()
            self.seconds += min(at - before, STANDSTILL_SECONDS)


@contextmanager
def stopwatch() -> Iterator[Stopwatch]:
    """Runs within the block; what it shows stays afterwards."""
    watch = Stopwatch()
    watch._thread.start()
    try:
        yield watch
    finally:
        watch._ended.set()
        watch._thread.join()
