"""Runs a program with the change on its standard input: no shell, a clean environment, a group that can be ended.

The program's exit is waited for through a pidfd and not reaped before its group was ended, so that the group's
number cannot have become another's.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from daemon.clock import Clock
from daemon.model import ActionResult, BranchChange

MOST_OUTPUT_BYTES = 64 * 1024
KEPT_VARIABLES = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "USER", "LOGNAME", "TMPDIR")
DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"
SLICE_SECONDS = 0.2  # how late a stop of the daemon may be seen
GRACE_SECONDS = 2.0  # between TERM and KILL
_CHUNK = 64 * 1024
_MOST_CHUNKS = 16


def change_json(change: BranchChange) -> dict[str, Any]:
    """What an action is told of a change."""
    return {
        "repository": change.repository.full_name,
        "branch": change.branch,
        "before": change.before,
        "after": change.after,
        "added": list(change.added),
        "modified": list(change.modified),
        "removed": list(change.removed),
        "entities": change.entities.as_json(),
    }


def environment(change: BranchChange, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of the program: the change, and what any program needs. Nothing else, no secrets."""
    kept = {name: environ[name] for name in KEPT_VARIABLES if name in environ}
    return {"PATH": DEFAULT_PATH, "LANG": "C.UTF-8"} | kept | {
        "HEADWATER_REPOSITORY": change.repository.full_name,
        "HEADWATER_BRANCH": change.branch,
        "HEADWATER_BEFORE": change.before or "",
        "HEADWATER_AFTER": change.after,
    }  # fmt: skip


def run_command(
    command: Sequence[str],
    change: BranchChange,
    *,
    environ: Mapping[str, str],
    timeout_seconds: float,
    clock: Clock,
    stopping: Callable[[], bool],
) -> ActionResult:
    """Run it to its end, or end it: at the time-out, or when ``stopping`` says so."""
    try:
        with _started(command, change, environ) as process:
            watched = _Watched(process, clock)
            why = watched.follow(clock.monotonic() + timeout_seconds, stopping)
            output = watched.output()
            code = process.wait()
    except OSError as error:
        return ActionResult(f"{command[0]} cannot be started: {error.strerror or error}")
    if why == "timeout":
        return ActionResult(f"{command[0]} took longer than {timeout_seconds:g} s and was ended", output)
    if why == "stopping":
        return ActionResult(f"{command[0]} was ended because the daemon stops", output)
    return ActionResult(_ending(command[0], code), output)


def _ending(name: str, code: int) -> str | None:
    if code < 0:
        return f"{name} was ended by signal {-code}"
    return f"{name} ended with exit code {code}" if code else None


@contextmanager
def _started(
    command: Sequence[str], change: BranchChange, environ: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    with tempfile.TemporaryFile() as told:  # a file: a program that never reads cannot block whoever writes
        told.write(json.dumps(change_json(change)).encode())
        told.seek(0)
        with subprocess.Popen(  # noqa: S603 - the administrator's own command, never a shell
            list(command),
            stdin=told,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment(change, environ),
            start_new_session=True,
        ) as process:
            try:
                yield process
            except BaseException:
                process.kill()  # or leaving the block would wait for it
                raise


class _Watched:
    """A running program: what it writes, and when it ends."""

    def __init__(self, process: subprocess.Popen[bytes], clock: Clock) -> None:
        assert process.stdout is not None
        self._process = process
        self._clock = clock
        self._pipe = process.stdout.fileno()
        self._tail = bytearray()
        self._open = True
        os.set_blocking(self._pipe, False)

    def follow(self, deadline: float, stopping: Callable[[], bool]) -> str:
        """Wait for the end, and bring it about when it has to be; ``ended``, ``timeout`` or ``stopping``."""
        exited = os.pidfd_open(self._process.pid)
        try:
            while not self._wait(exited, min(deadline - self._clock.monotonic(), SLICE_SECONDS)):
                late = self._clock.monotonic() >= deadline
                if late or stopping():
                    self._end(exited)
                    return "timeout" if late else "stopping"
            self._read()
            return "ended"
        finally:
            os.close(exited)

    def _wait(self, exited: int, seconds: float) -> bool:
        """Read for so long at most; whether the program has ended. Others may hold its output open: let them."""
        watched = [exited, self._pipe] if self._open else [exited]
        ready, _, _ = select.select(watched, [], [], max(0.0, seconds))
        if self._pipe in ready:
            self._read()
        return exited in ready

    def _end(self, exited: int) -> None:
        self._signal(signal.SIGTERM)
        give_up = self._clock.monotonic() + GRACE_SECONDS
        while self._clock.monotonic() < give_up and not self._wait(exited, SLICE_SECONDS):
            pass
        self._signal(signal.SIGKILL)  # also what the program has left behind in its group
        self._read()

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):  # gone, or of another user: nothing of ours can end it
            os.killpg(self._process.pid, number)

    def _read(self) -> None:
        """Take what is there and keep its end: whoever writes more than that is not held up."""
        for _ in range(_MOST_CHUNKS if self._open else 0):  # not for ever: there is a time-out to see
            try:
                chunk = os.read(self._pipe, _CHUNK)
            except BlockingIOError:
                return
            if not chunk:
                self._open = False
                return
            self._tail += chunk
            del self._tail[:-MOST_OUTPUT_BYTES]

    def output(self) -> str | None:
        return self._tail.decode("utf-8", "replace") or None
