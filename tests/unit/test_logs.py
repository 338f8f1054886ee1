from __future__ import annotations

import contextlib
import fcntl
import io
import json
import logging
import os
import pty
import sys
import threading
import warnings
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

import pytest
import structlog
from harness import Stopwatch
from hypothesis import given
from hypothesis import strategies as st

from daemon import logs
from daemon.logs import Formatter, Limiter, get_logger

NOW = datetime(2025, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
FORMATS = ["json", "console", "journald"]


def fail(message):
    raise ValueError(message)


@pytest.fixture(autouse=True)
def restored():
    """Whatever a test configures is undone: structlog, the root logger, the hooks."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    hooks = (sys.excepthook, threading.excepthook, sys.unraisablehook)
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks


@pytest.fixture
def written():
    """Configure logging into memory and give back what to call for the lines so far."""

    def written(fmt="json", level="info", secrets=()):
        stream = io.StringIO()
        logs.configure(level, fmt, secrets=lambda: secrets, stream=stream)

        def lines():
            text = stream.getvalue()
            assert text == "" or text.endswith("\n")
            return text.split("\n")[:-1]

        return lines

    return written


def line_of(fmt="json", *, tracebacks=False, **fields):
    formatter = Formatter(fmt, redact=lambda text: text, tracebacks=tracebacks, now=lambda: NOW)
    return formatter(None, "info", {"level": "info", "event": "x.y", **fields})


# -- what a line looks like -----------------------------------------------------------------------


def test_json_is_one_object_a_line_with_time_level_and_event_first(written):
    lines = written()
    get_logger().warning("queue.full", pending=3, path=b"a\xff", branch=None)
    (line,) = lines()
    record = json.loads(line)
    assert list(record)[:3] == ["timestamp", "level", "event"]
    assert datetime.fromisoformat(record.pop("timestamp")).tzinfo is not None
    assert record == {"level": "warning", "event": "queue.full", "pending": 3, "path": "a\\xff", "branch": None}


def test_console_has_time_level_event_and_fields():
    assert line_of("console", n=3, text="two words", name="a/b", quoted='say "\\"') == (
        '2025-01-02T03:04:05.678Z info     x.y n=3 text="two words" name=a/b quoted="say \\"\\\\\\""'
    )


@pytest.mark.parametrize(
    ("method", "priority"), [("debug", 7), ("info", 6), ("warning", 4), ("error", 3), ("critical", 2), ("exception", 3)]
)
def test_journald_lines_begin_with_the_priority_and_have_no_time(written, method, priority):
    lines = written("journald", level="debug")
    getattr(get_logger(), method)("x.y", n=1)
    assert lines() == [f"<{priority}>x.y n=1"]


def test_values_of_every_kind_become_plain():
    class Word(StrEnum):
        ONE = "one"

    record = json.loads(
        line_of(
            word=Word.ONE,
            at=NOW,
            path=Path("/x"),
            error=ValueError("no"),
            nan=float("nan"),
            many=[1, b"x", {"a": (Word.ONE,)}],
            names={"one"},
        )
    )
    assert record["word"] == "one"
    assert record["at"] == NOW.isoformat()
    assert (record["path"], record["error"], record["nan"]) == ("/x", "ValueError: no", "nan")
    assert record["many"] == [1, "x", {"a": ["one"]}]
    assert record["names"] == ["one"]


def test_a_field_cannot_take_the_place_of_time_level_or_event(written):
    lines = written()
    get_logger().info("x.y", timestamp="never")
    record = json.loads(lines()[0])
    assert record["timestamp"] != "never"
    assert record["event"] == "x.y"


def test_below_the_level_nothing_is_written(written):
    lines = written(level="warning")
    get_logger().info("x.y")
    assert lines() == []


def test_it_may_be_configured_again_and_older_loggers_follow(written):
    before = get_logger()
    first = written("json", level="error")
    second = written("journald", level="debug")
    before.debug("x.y")
    logging.getLogger("tornado.general").error("library")
    assert first() == []
    assert second() == ["<7>x.y", "<3>library.message logger=tornado.general message=library"]


# -- hostile values -------------------------------------------------------------------------------

NASTY = [
    "\r\n",
    "\n<2>forged",
    "\x1b[2J",
    "\u2028",
    "\u2029",
    "\x85",
    "\x00",
    "\x7f",
    "\u202e",
    "\u2066",
    "\ud800",
    "\u200b",
    "\x9b",
]


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("nasty", NASTY)
def test_nothing_that_ends_a_line_or_moves_a_cursor_gets_out(fmt, nasty):
    for fields in (
        {"value": f"a{nasty}b"},
        {f"a{nasty}b": 1},
        {"event": f"a{nasty}b"},
        {"value": {f"{nasty}": [nasty]}},
    ):
        line = line_of(fmt, **fields)
        assert line.isprintable(), line
        assert nasty not in line
        line.encode("utf-8")


@given(
    st.dictionaries(
        st.text(), st.recursive(st.text() | st.binary() | st.floats() | st.integers(), st.lists, max_leaves=5)
    ),
    st.sampled_from(FORMATS),
)
def test_whatever_is_logged_is_one_printable_line_of_at_most_8_kilobytes(fields, fmt):
    line = line_of(fmt, **{name: value for name, value in fields.items() if name not in ("fmt", "tracebacks")})
    assert line.isprintable()
    assert len(line.encode()) <= 8192
    if fmt == "json":
        assert json.loads(line)["event"]


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("text", ["x" * 1_000_000, "\U0001f600" * 100_000, "\ud800" * 10_000, '"' * 10_000])
def test_a_line_of_a_megabyte_is_cut_and_stays_what_it_is(fmt, text):
    for fields in (
        {"value": text},
        {f"field{n}": text for n in range(50)},
        {"event": text},
        {text: 1},
        {"value": [text] * 500},
    ):
        line = line_of(fmt, **fields)
        assert len(line.encode()) <= 8192
        if fmt == "json":
            assert json.loads(line)["level"] == "info"


def test_a_cut_line_says_so_and_keeps_its_short_fields():
    record = json.loads(line_of(code=403, **{f"field{n}": "x" * 2000 for n in range(8)}))
    assert record["truncated"] is True
    assert record["code"] == 403
    assert record["field0"].startswith("xxx")


def test_a_value_that_cannot_be_shown_costs_its_line_and_nothing_else(written):
    class Broken:
        def __str__(self):
            raise RuntimeError("no")

    lines = written()
    get_logger().info("x.y", value=Broken())
    get_logger().info("x.y", value=10**5000)
    get_logger().info("after")
    assert [json.loads(line)["event"] for line in lines()] == ["log.unprintable", "log.unprintable", "after"]


def test_a_structure_that_holds_itself_ends():
    loop = []
    loop.append(loop)
    assert "…" in json.loads(line_of(value=loop))["value"][0][0][0][0][0]


# -- exceptions -----------------------------------------------------------------------------------


def test_an_exception_is_its_type_and_message_on_the_line(written):
    lines = written()
    try:
        fail("one\ntwo")
    except ValueError as error:
        get_logger().exception("x.failed")
        get_logger().error("x.failed", exc_info=error)
        get_logger().error("x.failed", exc_info=(type(error), error, error.__traceback__))
    for line in lines():
        record = json.loads(line)
        assert record["error"] == "ValueError: one\ntwo"
        assert set(record) == {"timestamp", "level", "event", "error"}


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_traceback_is_shown_only_when_debugging_and_on_the_same_line(written, fmt):
    lines = written(fmt, level="debug", secrets=["hunter2-canary"])
    try:
        fail("hunter2-canary")
    except ValueError:
        get_logger().exception("x.failed")
    (line,) = lines()
    assert "Traceback (most recent call last)" in line
    assert "in fail" in line
    assert "hunter2" not in line


def test_what_nobody_caught_is_one_line_too(written):
    lines = written()
    logs.log_uncaught()
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()
    sys.excepthook(ValueError, ValueError("x"), None)
    sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert [json.loads(line)["error"] for line in lines()] == ["ZeroDivisionError: division by zero", "ValueError: x"]


# -- libraries ------------------------------------------------------------------------------------


def test_libraries_come_through_the_same_formatter(written):
    lines = written(secrets=["hunter2-canary"])
    logging.getLogger("a.library").warning("job %s\nfailed", "hunter2-canary")
    try:
        fail("hunter2-canary")
    except ValueError:
        logging.getLogger("tornado.application").exception("Uncaught")
    record, failed = (json.loads(line) for line in lines())
    assert (record["event"], record["logger"], record["level"]) == ("library.message", "a.library", "warning")
    assert record["message"] == "job [redacted]\nfailed"
    assert failed["error"] == "ValueError: [redacted]"


def test_libraries_are_heard_from_warnings_on_and_what_is_no_news_not_at_all(written):
    lines = written(level="debug")
    logging.getLogger("peewee").debug("SELECT 1")
    logging.getLogger("apscheduler").info("x")
    logging.getLogger("apscheduler.scheduler").warning("skipped: maximum number of running instances reached")
    logging.getLogger("tornado.access").error("500 GET /?token=x")
    assert lines() == []


def test_a_record_of_a_library_with_wrong_arguments_or_an_odd_level_is_still_a_line(written):
    lines = written()
    root = logging.getLogger()
    root.handlers[:] = [handler for handler in root.handlers if "_pytest" not in type(handler).__module__]
    logging.getLogger("x").warning("%d items", "three")
    logging.getLogger("x").log(35, "odd")
    assert [json.loads(line)["message"] for line in lines()] == ["%d items", "odd"]


def test_warnings_of_python_are_lines(written):
    lines = written()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert json.loads(lines()[0])["logger"] == "py.warnings"


# -- events that strangers cause ------------------------------------------------------------------


def test_an_event_that_strangers_cause_is_written_ten_times_a_minute_and_the_rest_counted():
    now = [0.0]
    limiter = Limiter(monotonic=lambda: now[0])

    def passes(event="delivery.refused", **fields):
        try:
            return limiter(None, "warning", {"event": event, **fields})
        except structlog.DropEvent:
            return None

    assert [bool(passes()) for _ in range(15)] == [True] * 10 + [False] * 5
    assert passes("delivery.answered")
    assert [bool(passes("mine", limited=True)) for _ in range(11)] == [True] * 10 + [False]
    assert all(passes("mine") for _ in range(20))
    now[0] = 60.0
    assert passes() == {"event": "delivery.refused", "held_back": 5}
    assert passes() == {"event": "delivery.refused"}


def test_the_limit_holds_in_the_configured_logger(written):
    lines = written()
    for _ in range(30):
        get_logger().warning("delivery.refused", code=403)
        get_logger().info("delivery.answered")
    events = [json.loads(line)["event"] for line in lines()]
    assert (events.count("delivery.refused"), events.count("delivery.answered")) == (10, 30)


# -- where lines go -------------------------------------------------------------------------------


@contextlib.contextmanager
def pipe():
    reader, writer = os.pipe()
    with (
        os.fdopen(reader, "rb", closefd=False, buffering=0) as source,
        os.fdopen(writer, "w", encoding="ascii", closefd=False) as target,
    ):
        yield source, target
    for fd in (reader, writer):
        with contextlib.suppress(OSError):
            os.close(fd)


def test_auto_is_console_on_a_terminal_json_in_a_pipe_and_journald_only_for_the_journals_own_stream(tmp_path):
    def chosen(stream, **environ):
        return logs.resolve_format("auto", stream=stream, environ=environ)

    controller, terminal = pty.openpty()
    with os.fdopen(controller, "rb", buffering=0), os.fdopen(terminal, "wb", buffering=0) as tty:
        assert chosen(tty) == "console"
    with pipe() as (_, target):
        status = os.fstat(target.fileno())
        assert chosen(target) == "json"
        assert chosen(target, JOURNAL_STREAM="1:2") == "json"
        assert chosen(target, JOURNAL_STREAM=f"{status.st_dev}:{status.st_ino}") == "journald"
    assert chosen(io.StringIO(), JOURNAL_STREAM="1:2") == "json"
    assert chosen(None) == "json"
    assert logs.resolve_format("console", stream=None, environ={}) == "console"


def test_a_reader_that_stops_reading_costs_lines_but_not_the_daemon(monkeypatch):
    with pipe() as (source, target):
        fcntl.fcntl(target, fcntl.F_SETPIPE_SZ, 4096)
        logs.configure("info", "journald", secrets=list, stream=target)
        with Stopwatch() as watch:
            for number in range(500):
                get_logger().info("x.y", number=number, filler="x" * 100)
        assert watch.seconds < 5
        first = os.read(source.fileno(), 1 << 20)
        get_logger().info("after")
        lines = (first + os.read(source.fileno(), 1 << 20)).decode().split("\n")
        assert lines[0].startswith("<6>x.y number=0")
        assert lines[-2:] == ["<6>after", ""]


def test_half_a_line_is_ended_before_the_next_one():
    with pipe() as (source, target):
        fcntl.fcntl(target, fcntl.F_SETPIPE_SZ, 4096)
        logs.configure("info", "journald", secrets=list, stream=target)
        get_logger().info("long", **{f"f{n}": "x" * 1900 for n in range(4)})
        os.read(source.fileno(), 1 << 20)
        get_logger().info("after")
        assert os.read(source.fileno(), 1 << 20) == b"\n<6>after\n"


def test_a_reader_that_is_gone_a_full_disk_and_a_closed_stream_are_no_errors():
    with pipe() as (source, target):
        logs.configure("info", "json", secrets=list, stream=target)
        os.close(source.fileno())
        get_logger().info("x.y")
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        logs.configure("info", "json", secrets=list, stream=full)
        get_logger().info("x.y")
    get_logger().info("x.y")  # closed by now
    closed = io.StringIO()
    closed.close()
    logs.configure("info", "json", secrets=list, stream=closed)
    get_logger().info("x.y")


def test_without_stderr_nothing_is_written_and_nothing_fails(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    logs.configure("info", "auto", secrets=list)
    get_logger().info("x.y")


def test_lines_are_utf_8_whatever_the_locale(tmp_path):
    with (tmp_path / "log").open("w", encoding="ascii") as stream:
        logs.configure("info", "console", secrets=list, stream=stream)
        get_logger().info("x.y", name="Zoë")
    assert 'name="Zoë"' in (tmp_path / "log").read_text(encoding="utf-8")


def test_lines_of_many_threads_do_not_mix():
    with pipe() as (source, target):
        fcntl.fcntl(target, fcntl.F_SETPIPE_SZ, 1 << 20)
        logs.configure("info", "json", secrets=list, stream=target)
        threads = [
            threading.Thread(
                target=lambda: [
                    get_logger().info("x.y", one="x" * 1900, two="y" * 1900, three="z" * 1900) for _ in range(15)
                ]
            )
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        lines = os.read(source.fileno(), 1 << 20).decode().splitlines()
    assert len(lines) == 120
    assert all(json.loads(line)["three"] == "z" * 1900 for line in lines)
