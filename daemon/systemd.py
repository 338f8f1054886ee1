"""What systemd and the daemon tell each other: readiness, watchdog, inherited sockets."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping

FIRST_FD = 3  # sd_listen_fds(3): SD_LISTEN_FDS_START
MOST_FDS = 64


def notify(state: str, *, environ: Mapping[str, str]) -> bool:
    """Send ``state`` (lines such as ``READY=1``) to the service manager, if there is one. Never raises.

    https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html
    """
    address = environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]  # a name in the abstract namespace, see unix(7)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.setblocking(False)  # a manager that does not read must not stop the daemon
            channel.sendto(state.encode("utf-8", "replace"), address)
    except (OSError, ValueError):
        return False
    return True


def reloading() -> str:
    """The state to send when a reload begins; ``READY=1`` ends it (``Type=notify-reload`` needs the time stamp)."""
    return f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}"


def listen_fds(environ: Mapping[str, str], pid: int, *, first: int = FIRST_FD) -> dict[str, socket.socket]:
    """The sockets that systemd listens on for us, by name (``FileDescriptorName=``). Empty without any.

    Of several sockets with one name the first is taken, the others are closed. None is inherited by programs
    that we start. Ask once: a socket that is asked for twice is owned, and closed, twice.
    https://www.freedesktop.org/software/systemd/man/latest/sd_listen_fds.html
    """
    if _number(environ, "LISTEN_PID") != pid:
        return {}
    count = min(_number(environ, "LISTEN_FDS") or 0, MOST_FDS)
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    found: dict[str, socket.socket] = {}
    for index in range(count):
        name = names[index] if index < len(names) and names[index] else "unknown"
        inherited = _listening(first + index)
        if inherited is not None and found.setdefault(name, inherited) is not inherited:
            inherited.close()  # rather refuse a connection than let it wait in a backlog for ever
    return found


def _listening(fd: int) -> socket.socket | None:
    try:
        os.set_inheritable(fd, False)
        inherited = socket.socket(fileno=fd)
    except OSError:
        return None  # closed, or a file: nothing that could be served on
    if inherited.type != socket.SOCK_STREAM or not inherited.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        inherited.detach()
        return None
    return inherited


def watchdog_seconds(environ: Mapping[str, str], pid: int) -> float | None:
    """How often at least the watchdog wants to hear ``WATCHDOG=1``; None without one."""
    microseconds = _number(environ, "WATCHDOG_USEC")
    if not microseconds or _number(environ, "WATCHDOG_PID") not in (None, pid):
        return None
    return microseconds / 1_000_000


def _number(environ: Mapping[str, str], name: str) -> int | None:
    text = environ.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None  # noqa: PLR2004 - 63 bits
