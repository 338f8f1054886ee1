"""What journald receives, read from a socket as journald has it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import mmap
import os
import socket
from pathlib import Path

import pytest
import structlog

from daemon import journal, logs

SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class Journald:
    """The receiving end, bound to a path."""

    def __init__(self, path):
        self.path = str(path)
        self.listen()

    def listen(self):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.settimeout(10)

    def restart(self):
        self.socket.close()
        Path(self.path).unlink()
        self.listen()

    def entry(self):
        """The fields of the next entry, and whether it came as a file."""
        data, fds, _, _ = socket.recv_fds(self.socket, 1 << 20, 1)
        for fd in fds:
            assert data == b""
            assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) & SEALS == SEALS
            with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as file:
                data = file[:]
            os.close(fd)
        return fields_of(data), bool(fds)


def fields_of(data):
    fields = {}
    while data:
        line, _, rest = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            size = int.from_bytes(rest[:8], "little")
            value, rest = rest[8 : 8 + size], rest[8 + size :]
            assert rest[:1] == b"\n"
            rest = rest[1:]
        assert name.decode() not in fields
        fields[name.decode()] = value.decode()
        data = rest
    return fields


@pytest.fixture
def journald(tmp_path):
    journald = Journald(tmp_path / "journal")
    yield journald
    journald.socket.close()


@pytest.fixture(autouse=True)
def restored():
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


@pytest.fixture
def log(journald, tmp_path):
    """A logger whose stream goes to the journal, and what has been written to that stream."""
    with contextlib.ExitStack() as stack:

        def log(fmt="auto", *, path=journald.path, ours=True, secrets=(), level="info"):
            stream = stack.enter_context((tmp_path / "stderr").open("w"))
            status = os.fstat(stream.fileno())
            environ = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}" if ours else "1:1"}
            logs.configure(
                level, fmt, secrets=lambda: secrets, stream=stream, environ=environ, journal_socket=str(path)
            )
            return logs.get_logger()

        yield log


def test_an_entry_has_the_line_its_priority_and_a_field_for_each_of_ours_and_no_time(journald, log):
    log().warning("run.waiting", branch="octo/data@main", seconds=1.5, paths=["a", "b"], error=None)
    fields, _ = journald.entry()
    assert fields == {
        "MESSAGE": 'run.waiting branch=octo/data@main seconds=1.5 paths=["a", "b"] error=null',
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "headwater",
        "HEADWATER_EVENT": "run.waiting",
        "HEADWATER_BRANCH": "octo/data@main",
        "HEADWATER_SECONDS": "1.5",
        "HEADWATER_PATHS": '["a", "b"]',
        "HEADWATER_ERROR": "null",
    }


@pytest.mark.parametrize(("method", "priority"), [("info", 6), ("error", 3), ("critical", 2)])
def test_the_priority_is_that_of_the_level(journald, log, method, priority):
    getattr(log(), method)("x.y")
    assert journald.entry()[0]["PRIORITY"] == str(priority)


def test_nothing_of_a_secret_reaches_the_journal_in_the_line_or_in_a_field(journald, log):
    secret = "correct horse battery staple"
    log(secrets=(secret,)).error("x.y", error=f"no {secret}", deep={"a": [secret]}, password="hunter2")
    told = json.dumps(journald.entry()[0])
    assert secret not in told
    assert "hunter2" not in told


def test_a_value_of_several_lines_is_one_field_and_the_message_one_line(journald, log):
    log().info("x.y", text="one\ntwo=2\nHEADWATER_EVENT=forged")
    fields, _ = journald.entry()
    assert fields["HEADWATER_TEXT"] == "one\ntwo=2\nHEADWATER_EVENT=forged"
    assert fields["HEADWATER_EVENT"] == "x.y"
    assert "\n" not in fields["MESSAGE"]


def test_names_become_those_that_journald_takes(journald, log):
    log().info("x.y", **{"gr\u00f6 e in bytes": 1, "n" * 100: 2})
    names = set(journald.entry()[0])
    assert "HEADWATER_GR__E_IN_BYTES" in names
    assert max(map(len, names)) == 64


def test_an_entry_larger_than_a_datagram_comes_as_a_sealed_file(journald, log):
    log().info("x.y", many=[f"{number}:" + "x" * 1900 for number in range(100)], more=["y" * 1900] * 100)
    fields, as_file = journald.entry()
    assert as_file
    assert len(json.loads(fields["HEADWATER_MANY"])) == 100
    assert len(fields["MESSAGE"].encode()) <= logs.LINE_BYTES


def test_the_same_entry_arrives_after_a_restart_of_the_journal(journald, log):
    logger = log()
    logger.info("before")
    journald.entry()
    journald.restart()
    logger.info("after")
    assert journald.entry()[0]["MESSAGE"] == "after"


def test_a_journal_that_does_not_read_costs_lines_and_no_standstill(journald, log):
    logger = log()
    for number in range(5000):
        logger.info("x.y", number=number)
    assert journald.entry()[0]["HEADWATER_NUMBER"] == "0"


def test_sending_itself_never_waits(journald):
    entries = journal.Journal(journald.path)

    def fill():
        for _ in range(10_000):
            entries.send(b"MESSAGE=x\n")

    with pytest.raises(BlockingIOError):
        fill()


def test_a_journal_that_went_away_for_good_is_no_reason_to_fail(journald, log):
    logger = log()
    journald.socket.close()
    Path(journald.path).unlink()
    logger.info("nobody hears")
    with pytest.raises(OSError, match="No such file"):
        journal.Journal(journald.path).send(b"MESSAGE=x\n")


@pytest.mark.parametrize("options", [{"path": "/nowhere/journal"}, {"fmt": "journald", "ours": False}])
def test_without_its_socket_or_with_another_stderr_lines_with_a_priority_are_written(journald, log, tmp_path, options):
    log(**options).warning("x.y", n=1)
    assert (tmp_path / "stderr").read_text() == "<4>x.y n=1\n"


def test_records_of_libraries_are_entries_too(journald, log):
    log()
    logging.getLogger("some.library").error("went %s", "wrong")
    fields, _ = journald.entry()
    assert (fields["HEADWATER_LOGGER"], fields["HEADWATER_MESSAGE"]) == ("some.library", "went wrong")


def test_a_reload_leaves_no_connection_behind(journald, log):
    def connections():
        count = 0
        for fd in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # the one that lists them
                count += str(fd.readlink()).startswith("socket:")
        return count

    log().info("one")
    before = connections()
    for _ in range(5):
        log().info("again")
    assert connections() == before
