"""Where log lines go: a stream, or the journal. A reader that is gone or full is no reason to fail or to wait."""

from __future__ import annotations

import os
import select
import threading
from typing import Any, Protocol

from daemon.journal import Journal

PIPE_BYTES = 4096  # PIPE_BUF: a pipe that select calls writable takes as much without blocking, see pipe(7)
PATIENCE_SECONDS = 0.1


class Stream(Protocol):
    """What lines are written to."""

    def write(self, text: str, /) -> object: ...
    def flush(self) -> object: ...


class Sink:
    """Writes lines. A reader that is gone, stopped or full costs lines and a tenth of a second, never the daemon."""

    def __init__(self, stream: Stream | None) -> None:
        self._stream = stream
        self._lock = threading.RLock()  # a finaliser may log while a line is being written
        self._cut = False  # half a line is out: the next one begins on a line of its own
        self._patience = PATIENCE_SECONDS

    def write(self, line: Any) -> None:
        with self._lock:
            try:
                self._put(line)
            except (OSError, ValueError):  # closed, disk full, reader gone: there is nobody left to tell
                return

    debug = info = warning = warn = error = critical = exception = fatal = msg = write

    def _put(self, line: Any) -> None:
        if self._stream is None:
            return
        fd = file_descriptor(self._stream)
        if fd is None:
            self._stream.write(line + "\n")
            self._stream.flush()
        else:
            self._send(fd, ("\n" * self._cut + line + "\n").encode("utf-8", "backslashreplace"))

    def _send(self, fd: int, data: bytes) -> None:
        sent = 0
        try:
            while sent < len(data) and self._writable(fd):
                sent += os.write(fd, data[sent : sent + PIPE_BYTES])
        finally:
            self._cut = sent < len(data) if sent else self._cut

    def _writable(self, fd: int) -> bool:
        # Making the descriptor non-blocking instead would do so for everybody who shares it, our parent's shell too.
        ready = select.poll()
        ready.register(fd, select.POLLOUT)
        writable = bool(ready.poll(self._patience * 1000))
        self._patience = PATIENCE_SECONDS if writable else 0.0
        return writable


class JournalSink(Sink):
    """Sends entries to journald, with the same patience."""

    def __init__(self, entries: Journal) -> None:
        super().__init__(None)
        self._entries = entries

    def _put(self, line: Any) -> None:
        if self._writable(self._entries.channel().fileno()):
            self._entries.send(line)


def file_descriptor(stream: Stream | None) -> int | None:
    try:
        return int(stream.fileno())  # type: ignore[union-attr]
    except (AttributeError, OSError, ValueError):
        return None
