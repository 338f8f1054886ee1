"""Logging: one line a record, secrets taken out by the formatter, and never a reason to fail or to wait.

Modules do ``log = get_logger()`` and ``log.info("dotted.event", field=value)``. Records of libraries come
through the same formatter.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import select
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from types import TracebackType
from typing import Any, Protocol, cast

import structlog
from structlog.typing import FilteringBoundLogger

from daemon.redaction import HIDDEN, Redactor, is_secret_field
from daemon.values import escaped

LINE_BYTES = 8192
VALUE_CHARACTERS = 2000
SHORT_CHARACTERS = 100
MOST_FIELDS = 12  # of a line that had to be cut
MOST_ITEMS = 100
DEEPEST = 6
SCANNED_CHARACTERS = 64 * 1024
PIPE_BYTES = 4096  # PIPE_BUF: a pipe that select calls writable takes as much without blocking, see pipe(7)
PATIENCE_SECONDS = 0.1
LIMITED_EVENTS = frozenset({"request.refused", "delivery.refused", "http.refused"})
LIMIT = 10
LIMIT_SECONDS = 60.0
# sd-daemon(3): the priority of a line, as <N> at its start.
PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
LEVELS = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)
# There is one line for each request already; a call that is still under way is skipped on purpose.
QUIET = {"tornado.access": logging.CRITICAL, "apscheduler": logging.ERROR}
_BARE = re.compile(r"[A-Za-z0-9._:/@+-]+")

Event = MutableMapping[str, Any]


class Stream(Protocol):
    """What lines are written to."""

    def write(self, text: str, /) -> object: ...
    def flush(self) -> object: ...


def get_logger() -> FilteringBoundLogger:
    """The logger; it may be asked for before ``configure``, and follows every later one."""
    return cast("FilteringBoundLogger", structlog.get_logger())


def configure(
    level: str,
    fmt: str,
    *,
    secrets: Callable[[], Iterable[str]],
    stream: Stream | None = None,
    environ: Mapping[str, str] | None = None,
) -> None:
    """Log from ``level`` on, as ``fmt`` (auto, console, json, journald), to ``stream`` (stderr).

    May be called again. ``secrets`` is asked at every line and must be quick.
    """
    target = stream if stream is not None else sys.stderr
    chosen = resolve_format(fmt, stream=target, environ=os.environ if environ is None else environ)
    number = logging.getLevelNamesMapping()[level.upper()]
    sink = _Sink(target)
    formatter = Formatter(chosen, redact=Redactor(secrets), tracebacks=number <= logging.DEBUG)
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, structlog.stdlib.add_log_level, Limiter(), formatter],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *_arguments: sink,
        cache_logger_on_first_use=False,
    )
    _route_libraries(max(number, logging.WARNING))


def resolve_format(fmt: str, *, stream: Stream | None, environ: Mapping[str, str]) -> str:
    """The format that ``auto`` means here: console on a terminal, journald under systemd, else JSON."""
    if fmt != "auto":
        return fmt
    fd = _file_descriptor(stream)
    if fd is None:
        return "json"
    if os.isatty(fd):
        return "console"
    # Set, but naming another file: the variable was inherited, our stderr goes elsewhere. See systemd.exec(5).
    status = os.fstat(fd)
    ours = f"{status.st_dev}:{status.st_ino}"
    return "journald" if environ.get("JOURNAL_STREAM") == ours else "json"


def log_uncaught() -> None:
    """Log what nobody has caught, redacted, instead of a traceback on stderr. For the whole process."""

    def uncaught(kind: type[BaseException], value: BaseException | None, trace: TracebackType | None) -> None:
        if not issubclass(kind, KeyboardInterrupt):
            get_logger().critical("daemon.uncaught", exc_info=(kind, value, trace))

    sys.excepthook = uncaught
    threading.excepthook = lambda hook: uncaught(hook.exc_type, hook.exc_value, hook.exc_traceback)
    sys.unraisablehook = lambda hook: uncaught(hook.exc_type, hook.exc_value, hook.exc_traceback)


class Limiter:
    """Lets ten lines a minute pass of an event that strangers can cause at will, and says how many it held back."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._windows: dict[str, _Window] = {}

    def __call__(self, _logger: object, _method: str, event: Event) -> Event:
        limited = event.pop("limited", False)
        name = event.get("event")
        if not isinstance(name, str) or not (limited or name in LIMITED_EVENTS):
            return event
        with self._lock:
            held_back = self._windows.setdefault(name, _Window(self._monotonic())).admit(self._monotonic())
        if held_back is None:
            raise structlog.DropEvent
        if held_back:
            event["held_back"] = held_back
        return event


@dataclass(slots=True)
class _Window:
    """A minute of one event."""

    started: float
    passed: int = 0
    held_back: int = 0

    def admit(self, now: float) -> int | None:
        """None to drop the line, else how many were dropped before it."""
        if now - self.started >= LIMIT_SECONDS:
            before, self.started, self.passed, self.held_back = self.held_back, now, 1, 0
            return before
        if self.passed >= LIMIT:
            self.held_back += 1
            return None
        self.passed += 1
        return 0


class Formatter:
    """Turns an event into one line that holds no secret and cannot be mistaken for two.

    Order matters: redact before cutting (a cut secret is not recognised), cut before escaping.
    """

    def __init__(
        self,
        fmt: str,
        *,
        redact: Callable[[str], str],
        tracebacks: bool = False,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._render = {"json": _json_line, "journald": _journald_line}.get(fmt, _console_line)
        self._redact = redact
        self._tracebacks = tracebacks
        self._now = now

    def __call__(self, _logger: object, _method: str, event: Event) -> str:
        try:
            return self._line(event)
        except Exception as error:  # noqa: BLE001 - whatever a field's __str__ does, logging is no reason to fail
            return self._line({"event": "log.unprintable", "level": "error", "error": type(error).__name__})

    def _line(self, event: Event) -> str:
        fields = dict(event)
        self._explain_exception(fields)
        head = {
            "timestamp": self._now().isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": str(fields.pop("level", "info")),
            "event": self._text(str(fields.pop("event", ""))),
        }
        plain = {self._text(str(name)): self._plain(value, str(name)) for name, value in fields.items()}
        line = self._render(head, plain)
        for shorter in _shortened(head, plain):
            if len(line.encode()) <= LINE_BYTES:
                break
            line = self._render(*shorter)
        return line

    def _explain_exception(self, fields: Event) -> None:
        raised = fields.pop("exc_info", None)
        error = raised if isinstance(raised, BaseException) else raised[1] if isinstance(raised, tuple) else None
        if raised is True:
            error = sys.exc_info()[1]
        if error is None:
            return
        fields.setdefault("error", f"{type(error).__name__}: {error}")
        if self._tracebacks:
            fields["traceback"] = "".join(traceback.format_exception(error))

    def _plain(self, value: Any, name: str, depth: int = 0) -> Any:
        """``value`` in the types of JSON, every text in it redacted and cut."""
        if value is None or type(value) in (bool, int) or (type(value) is float and math.isfinite(value)):
            return value
        if depth >= DEEPEST:
            return "…"
        if isinstance(value, Mapping):
            items = list(value.items())[:MOST_ITEMS]
            return {self._text(str(key)): self._plain(one, str(key), depth + 1) for key, one in items}
        if isinstance(value, list | tuple | set | frozenset):
            return [self._plain(one, name, depth + 1) for one in list(value)[:MOST_ITEMS]]
        return HIDDEN if is_secret_field(name) else self._text(_as_text(value))

    def _text(self, text: str) -> str:
        clean = self._redact(text[:SCANNED_CHARACTERS])
        return clean if len(clean) <= VALUE_CHARACTERS else clean[:VALUE_CHARACTERS] + "…"


def _as_text(value: Any) -> str:
    if isinstance(value, bytes | bytearray):  # paths are bytes, and need not be UTF-8
        return bytes(value).decode("utf-8", "backslashreplace")
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}"
    return str(value)


def _shortened(head: dict[str, str], fields: dict[str, Any]) -> Iterator[tuple[dict[str, str], dict[str, Any]]]:
    """The line with less and less of its fields: the last one fits, whatever escaping makes of it."""
    brief = {**head, "event": head["event"][:SHORT_CHARACTERS]}
    few = {
        name[:SHORT_CHARACTERS]: value[:SHORT_CHARACTERS] if isinstance(value, str) else value
        for name, value in list(fields.items())[:MOST_FIELDS]
        if not isinstance(value, list | dict)
    }
    yield brief, {**few, "truncated": True}
    yield brief, {"truncated": True}


# -- how a line looks -----------------------------------------------------------------------------


def _json_line(head: dict[str, str], fields: dict[str, Any]) -> str:
    return json.dumps({**head, **fields, **head}, allow_nan=False, separators=(",", ":"))  # escapes all but ASCII


def _console_line(head: dict[str, str], fields: dict[str, Any]) -> str:
    return f"{head['timestamp']} {head['level']:<8} {_event_line(head, fields)}"


def _journald_line(head: dict[str, str], fields: dict[str, Any]) -> str:
    return f"<{PRIORITIES.get(head['level'], 6)}>{_event_line(head, fields)}"


def _event_line(head: dict[str, str], fields: dict[str, Any]) -> str:
    pairs = [f"{escaped(name)}={_value(value)}" for name, value in fields.items()]
    return " ".join([escaped(head["event"]), *pairs])


def _value(value: Any) -> str:
    if not isinstance(value, str):
        return escaped(json.dumps(value, ensure_ascii=False))
    if _BARE.fullmatch(value):
        return value
    return '"' + escaped(value.replace("\\", "\\\\").replace('"', '\\"')) + '"'


# -- where lines go -------------------------------------------------------------------------------


class _Sink:
    """Writes lines. A reader that is gone, stopped or full costs lines and a tenth of a second, never the daemon."""

    def __init__(self, stream: Stream | None) -> None:
        self._stream = stream
        self._lock = threading.RLock()  # a finaliser may log while a line is being written
        self._cut = False  # half a line is out: the next one begins on a line of its own
        self._patience = PATIENCE_SECONDS

    def write(self, line: str) -> None:
        with self._lock:
            try:
                self._put(line)
            except (OSError, ValueError):  # closed, disk full, reader gone: there is nobody left to tell
                return

    debug = info = warning = warn = error = critical = exception = fatal = msg = write

    def _put(self, line: str) -> None:
        if self._stream is None:
            return
        fd = _file_descriptor(self._stream)
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


def _file_descriptor(stream: Stream | None) -> int | None:
    try:
        return int(stream.fileno())  # type: ignore[union-attr]
    except (AttributeError, OSError, ValueError):
        return None


class _Libraries(logging.Handler):
    """Sends the records of libraries the way of ours."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except (TypeError, ValueError, KeyError):
            message = str(record.msg)
        known = [number for number in LEVELS if number <= record.levelno]
        fields: dict[str, Any] = {"exc_info": record.exc_info[1]} if record.exc_info else {}
        get_logger().log(
            max(known, default=logging.DEBUG), "library.message", logger=record.name, message=message, **fields
        )


def _route_libraries(level: int) -> None:
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _Libraries)]:
        root.removeHandler(handler)
    root.addHandler(_Libraries())
    root.setLevel(level)
    for name, quiet in QUIET.items():
        logging.getLogger(name).setLevel(quiet)
    logging.captureWarnings(True)
