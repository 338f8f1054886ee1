"""journald's native protocol: an entry is one datagram, or a sealed file in memory when it is too large for one.

https://systemd.io/JOURNAL_NATIVE_PROTOCOL/
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Mapping
from contextlib import closing

SOCKET = "/run/systemd/journal/socket"
TOO_LARGE = (errno.EMSGSIZE, errno.ENOBUFS)
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


def is_stream(fd: int, environ: Mapping[str, str]) -> bool:
    """Whether the file ``fd`` goes to the journal; ``$JOURNAL_STREAM`` names the file that systemd gave us.

    The variable is inherited, so it may name a file that is not ours: see systemd.exec(5).
    """
    status = os.fstat(fd)
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def encode(fields: Mapping[str, str]) -> bytes:
    """An entry of ``fields``; their names are upper-case letters, digits and underscores, their values any text."""
    return b"".join(_field(name.encode(), value.encode("utf-8", "backslashreplace")) for name, value in fields.items())


def _field(name: bytes, value: bytes) -> bytes:
    if b"\n" in value:
        return name + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"
    return name + b"=" + value + b"\n"


class Journal:
    """A connection to the journal, for one thread at a time. Sending waits for nobody."""

    def __init__(self, path: str = SOCKET) -> None:
        self._path = path
        self._channel: socket.socket | None = None

    def channel(self) -> socket.socket:
        """The connected socket, to wait on. Raises OSError when there is no journal."""
        if self._channel is None:
            channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            channel.setblocking(False)
            try:
                channel.connect(self._path)
            except OSError:
                channel.close()
                raise
            self._channel = channel
        return self._channel

    def send(self, entry: bytes) -> None:
        """Send an entry, also to a journal that went away and came back meanwhile. Raises OSError."""
        try:
            self._send(entry)
        except ConnectionError:
            self.close()
            self._send(entry)

    def _send(self, entry: bytes) -> None:
        try:
            self.channel().send(entry)
        except OSError as error:
            if error.errno not in TOO_LARGE:
                raise
            self._send_file(entry)

    def _send_file(self, entry: bytes) -> None:
        memory = os.memfd_create("headwater-journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        with closing(os.fdopen(memory, "wb")) as file:
            file.write(entry)
            file.flush()
            fcntl.fcntl(memory, fcntl.F_ADD_SEALS, SEALS)  # journald maps it, and takes nothing that may yet change
            socket.send_fds(self.channel(), [b""], [memory])

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None
