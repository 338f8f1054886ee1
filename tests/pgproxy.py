"""A connection to PostgreSQL that can be cut at the worst moment."""

from __future__ import annotations

import select
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

SOCKET = ".s.PGSQL.5432"


class Proxy:
    """Passes everything on between clients and a server's unix socket, until it is told to cut."""

    def __init__(self, server: Path) -> None:
        self._server = str(server / SOCKET)
        self.folder = Path(tempfile.mkdtemp(prefix="pgproxy-"))
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.folder / SOCKET))
        self._listener.listen()
        self._word: bytes | None = None
        self._passed_on = False
        self.cuts = 0
        self._threads: list[threading.Thread] = []
        self._begin(self._accept)

    def cut(self, word: bytes, *, passed_on: bool) -> None:
        """Cut the next connection whose client says ``word``, after the server was told of it, or before."""
        self._word, self._passed_on = word, passed_on

    def close(self) -> None:
        """After its clients have gone."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)
        shutil.rmtree(self.folder)

    def _begin(self, call: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=call, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._begin(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server, suppress(OSError):
            server.connect(self._server)
            other = {client: server, server: client}
            while True:
                for source in select.select(list(other), [], [])[0]:
                    piece = source.recv(65536)
                    if not piece or (source is client and self._cuts(piece, client, server)):
                        return
                    other[source].sendall(piece)

    def _cuts(self, piece: bytes, client: socket.socket, server: socket.socket) -> bool:
        if self._word is None or self._word not in piece:
            return False
        self._word = None
        self.cuts += 1
        client.shutdown(socket.SHUT_RDWR)  # it hears nothing any more
        if self._passed_on:
            server.sendall(piece)
        return True
