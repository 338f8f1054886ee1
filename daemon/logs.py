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
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from types import TracebackType
from typing import Any, cast

import structlog
from structlog.typing import FilteringBoundLogger

from daemon import journal
from daemon.redaction import HIDDEN, Redactor, is_secret_field
from daemon.sinks import JournalSink, Sink, Stream, file_descriptor
from daemon.values import escaped

LINE_BYTES = 8192
VALUE_CHARACTERS = 2000
SHORT_CHARACTERS = 100
MOST_FIELDS = 12  # of a line that had to be cut
MOST_ITEMS = 100
DEEPEST = 6
SCANNED_CHARACTERS = 64 * 1024
LIMITED_EVENTS = frozenset({"request.refused", "delivery.refused", "http.refused"})
LIMIT = 10
LIMIT_SECONDS = 60.0
# sd-daemon(3): the priority of a line, as <N> at its start; the journal's own protocol has a field for it.
PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
LEVELS = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)
# There is one line for each request already; a call that is still under way is skipped on purpose.
QUIET = {"tornado.access": logging.CRITICAL, "apscheduler": logging.ERROR}
IDENTIFIER = "headwater"
FIELD_NAME_BYTES = 64  # the longest name of a field that journald takes
_NO_FIELD_NAME = re.compile(r"[^A-Z0-9_]")
_BARE = re.compile(r"[A-Za-z0-9._:/@+-]+")

Event = MutableMapping[str, Any]


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
    journal_socket: str = journal.SOCKET,
) -> None:
    """Log from ``level`` on, as ``fmt`` (auto, console, json, journald), to ``stream`` (stderr).

    May be called again. ``secrets`` is asked at every line and must be quick. Where ``stream`` goes to the journal,
    journald gets entries with a field for each of ours; elsewhere lines that begin with their priority.
    """
    target = stream if stream is not None else sys.stderr
    where = os.environ if environ is None else environ
    chosen = resolve_format(fmt, stream=target, environ=where)
    number = logging.getLevelNamesMapping()[level.upper()]
    sink = Sink(target)
    if chosen == "journald" and (entries := _journal_behind(target, where, journal_socket)):
        chosen, sink = "journal", JournalSink(entries)
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
    fd = file_descriptor(stream)
    if fd is None:
        return "json"
    if os.isatty(fd):
        return "console"
    return "journald" if journal.is_stream(fd, environ) else "json"


def _journal_behind(stream: Stream | None, environ: Mapping[str, str], path: str) -> journal.Journal | None:
    fd = file_descriptor(stream)
    if fd is None or not journal.is_stream(fd, environ):
        return None
    entries = journal.Journal(path)
    try:
        entries.channel()
    except OSError:  # not to be had in here; what goes to the stream still arrives
        return None
    return entries


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
        self._render = {"json": _json_line, "journald": _journald_line, "journal": _event_line}.get(fmt, _console_line)
        self._native = fmt == "journal"
        self._redact = redact
        self._tracebacks = tracebacks
        self._now = now

    def __call__(self, _logger: object, _method: str, event: Event) -> str | bytes:
        try:
            return self._line(event)
        except Exception as error:  # noqa: BLE001 - whatever a field's __str__ does, logging is no reason to fail
            return self._line({"event": "log.unprintable", "level": "error", "error": type(error).__name__})

    def _line(self, event: Event) -> str | bytes:
        fields = dict(event)
        self._explain_exception(fields)
        head = {
            "timestamp": self._now().isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": str(fields.pop("level", "info")),
            "event": self._text(str(fields.pop("event", ""))),
        }
        plain = {self._text(str(name)): self._plain(value, str(name)) for name, value in fields.items()}
        line = self._fitting(head, plain)
        return _journal_entry(line, head, plain) if self._native else line

    def _fitting(self, head: dict[str, str], plain: dict[str, Any]) -> str:
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


def _journal_entry(message: str, head: dict[str, str], fields: dict[str, Any]) -> bytes:
    """The line, and each field for `journalctl HEADWATER_EVENT=…`. No time: journald has its own."""
    entry = {
        _field_name(name): value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in {**fields, "event": head["event"]}.items()
    }
    known = {"MESSAGE": message, "PRIORITY": str(PRIORITIES.get(head["level"], 6)), "SYSLOG_IDENTIFIER": IDENTIFIER}
    return journal.encode(known | entry)


def _field_name(name: str) -> str:
    return f"{IDENTIFIER.upper()}_{_NO_FIELD_NAME.sub('_', name.upper())}"[:FIELD_NAME_BYTES]


def _value(value: Any) -> str:
    if not isinstance(value, str):
        return escaped(json.dumps(value, ensure_ascii=False))
    if _BARE.fullmatch(value):
        return value
    return '"' + escaped(value.replace("\\", "\\\\").replace('"', '\\"')) + '"'


# -- what libraries log -----------------------------------------------------------------------------


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
