from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, closing, suppress

import pytest

from daemon import systemd


@pytest.fixture
def manager(tmp_path):
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as channel:
        channel.settimeout(5)
        yield channel


@pytest.fixture
def sockets():
    """Listening TCP sockets on neighbouring descriptors, as systemd passes them, and the first descriptor."""
    with ExitStack() as stack:

        def sockets(*kinds):
            first = 100
            while any(_is_open(first + offset) for offset in range(len(kinds))):
                first += 10
            for offset, kind in enumerate(kinds):
                one = stack.enter_context(socket.socket(type=kind))
                if kind == socket.SOCK_STREAM:
                    one.bind(("127.0.0.1", 0))
                    one.listen()
                os.dup2(one.fileno(), first + offset)
                stack.callback(_close, first + offset)
            return first

        yield sockets


def _is_open(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _close(fd):
    with suppress(OSError):
        os.close(fd)


def handed_over(count, names=None):
    environ = {"LISTEN_PID": "42", "LISTEN_FDS": str(count)}
    return environ if names is None else environ | {"LISTEN_FDNAMES": names}


# -- notify ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["READY=1\nSTATUS=keeping 3 repositories", "STOPPING=1", "WATCHDOG=1"])
def test_the_manager_is_told_at_its_socket(manager, tmp_path, state):
    manager.bind(str(tmp_path / "notify"))
    assert systemd.notify(state, environ={"NOTIFY_SOCKET": str(tmp_path / "notify")})
    assert manager.recv(4096).decode() == state


def test_the_managers_socket_may_be_abstract(manager):
    name = f"headwater-test-{os.getpid()}-{time.monotonic_ns()}"
    manager.bind(f"\0{name}")
    assert systemd.notify("READY=1", environ={"NOTIFY_SOCKET": f"@{name}"})
    assert manager.recv(4096) == b"READY=1"


@pytest.mark.parametrize(
    "address", ["", "relative", "/nowhere/at/all", "@nobody-listens-here", "/" + "x" * 300, "/a\0b", "vsock:1:2"]
)
def test_a_manager_that_is_not_there_is_no_error(address):
    assert systemd.notify("READY=1", environ={"NOTIFY_SOCKET": address}) is False
    assert systemd.notify("READY=1", environ={}) is False


def test_a_manager_that_does_not_read_does_not_stop_the_daemon(manager, tmp_path):
    manager.bind(str(tmp_path / "notify"))
    environ = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
    assert not all(systemd.notify("WATCHDOG=1", environ=environ) for _ in range(10_000))


def test_a_reload_carries_the_time_on_the_managers_clock():
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    first, second = systemd.reloading().split("\n")
    assert first == "RELOADING=1"
    name, _, microseconds = second.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before <= int(microseconds) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


# -- inherited sockets ----------------------------------------------------------------------------


def test_inherited_sockets_are_found_by_name_and_not_passed_on(sockets):
    first = sockets(socket.SOCK_STREAM, socket.SOCK_STREAM)
    found = systemd.listen_fds(handed_over(2, "webhook:admin"), 42, first=first)
    with closing(found["webhook"]) as webhook, closing(found["admin"]) as admin:
        assert (webhook.fileno(), admin.fileno()) == (first, first + 1)
        assert webhook.getsockname() != admin.getsockname()
        assert not webhook.get_inheritable()
        assert not admin.get_inheritable()
        with closing(socket.create_connection(webhook.getsockname(), timeout=5)):
            webhook.accept()[0].close()


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"LISTEN_FDS": "1"},
        {"LISTEN_FDS": "1", "LISTEN_PID": "43"},
        {"LISTEN_FDS": "x", "LISTEN_PID": "42"},
        {"LISTEN_FDS": "-1", "LISTEN_PID": "42"},
        {"LISTEN_FDS": "0", "LISTEN_PID": "42"},
        {"LISTEN_FDS": "1", "LISTEN_PID": "٤٢"},
    ],
)
def test_sockets_that_were_meant_for_another_process_are_left_alone(sockets, environ):
    first = sockets(socket.SOCK_STREAM)
    assert systemd.listen_fds(environ, 42, first=first) == {}
    assert _is_open(first)


def test_sockets_without_a_name_and_descriptors_that_nobody_can_be_served_on_are_passed_over(sockets, tmp_path):
    first = sockets(socket.SOCK_DGRAM, socket.SOCK_STREAM)
    found = systemd.listen_fds(handed_over(3), 42, first=first)
    assert list(found) == ["unknown"]
    found["unknown"].close()
    with (tmp_path / "file").open("w") as file:
        assert systemd.listen_fds(handed_over(1, "webhook"), 42, first=file.fileno()) == {}


def test_of_two_sockets_with_one_name_the_second_is_closed(sockets):
    first = sockets(socket.SOCK_STREAM, socket.SOCK_STREAM)
    found = systemd.listen_fds(handed_over(2, "webhook:webhook"), 42, first=first)
    with closing(found["webhook"]) as webhook:
        assert webhook.fileno() == first
        assert not _is_open(first + 1)


def test_a_process_started_with_sockets_from_descriptor_3_on_finds_them(tmp_path):
    """As systemd does it: LISTEN_PID is the process's own, set between fork and exec."""
    code = (
        "import os; from daemon import systemd; "
        "print({n: s.getsockname()[1] for n, s in systemd.listen_fds(os.environ, os.getpid()).items()})"
    )
    script = f'LISTEN_PID=$$ exec {sys.executable} -c "$0" 3<&"$1"'
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        output = subprocess.run(
            ["bash", "-c", script, code, str(server.fileno())],
            env={**os.environ, "LISTEN_FDS": "1", "LISTEN_FDNAMES": "webhook", "PYTHONPATH": os.pathsep.join(sys.path)},
            pass_fds=[server.fileno()],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert output.strip() == str({"webhook": server.getsockname()[1]})


# -- watchdog -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"WATCHDOG_USEC": "60000000"}, 60.0),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "42"}, 0.5),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "43"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_ours_only_when_it_names_us(environ, seconds):
    assert systemd.watchdog_seconds(environ, 42) == seconds
