"""Connections to PostgreSQL: taken for one transaction, given back after it.

One is opened by whoever needs it, in his own thread: so its error is told with its reason, and the first attempt
after an outage is the one that ends it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psycopg
from psycopg import ClientCursor
from psycopg.conninfo import make_conninfo
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow
from psycopg.types.string import TextLoader

from daemon.errors import StoreUnavailable

MOST = 20  # PostgreSQL itself takes 100 by default, from all daemons together
_MOST_IDLE = 8

# A host that is gone is noticed without waiting for TCP's own quarter of an hour. The URL may say otherwise.
_DEFAULTS = {
    "application_name": "headwater",
    "connect_timeout": "5",
    "keepalives_idle": "15",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
}

Connection = psycopg.Connection[TupleRow]


class _Number(TextLoader):
    """The sum of integers is ``numeric`` in PostgreSQL; SQLite gives an integer."""

    def load(self, data: Any) -> Any:
        text = bytes(data).decode()
        return int(text) if text.lstrip("-").isdigit() else float(text)


def connect(url: str, password: str | None) -> Connection:
    """A connection of which nothing is kept on the server between transactions. Raises psycopg.Error.

    Parameters are put into the text here: PostgreSQL then infers their types as SQLite does, and nothing is prepared,
    which a connection pooler that gives every transaction another session could not keep.
    """
    secret = {"password": password} if password is not None else {}
    connection = psycopg.connect(
        make_conninfo(url, **(_DEFAULTS | psycopg.conninfo.conninfo_to_dict(url)), **secret),
        autocommit=True,
        prepare_threshold=None,
        cursor_factory=ClientCursor,
    )
    connection.adapters.register_loader("numeric", _Number)
    return connection


class Connections:
    """Up to ``MOST`` connections, those not in use kept for whoever comes next."""

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self._connect = connect
        self._free = threading.Semaphore(MOST)
        self._guard = threading.Lock()
        self._idle: list[Connection] = []
        self._closed = False

    def take(self, timeout: float) -> Connection:
        """A connection, which may have died unnoticed. Raises psycopg.Error, StoreUnavailable."""
        if not self._free.acquire(timeout=timeout):
            raise StoreUnavailable(f"all {MOST} connections to the database were in use for {timeout:g} s")
        try:
            with self._guard:
                if self._idle:
                    return self._idle.pop()
            return self._connect()
        except BaseException:
            self._free.release()
            raise

    def give(self, connection: Connection) -> None:
        """Take a connection back, whatever was left open in it."""
        with suppress(psycopg.Error):
            connection.rollback()
        with self._guard:
            idle = not connection.closed and connection.info.transaction_status is TransactionStatus.IDLE
            keep = idle and not self._closed and len(self._idle) < _MOST_IDLE
            if keep:
                self._idle.append(connection)
        if not keep:
            connection.close()
        self._free.release()

    def close(self) -> None:
        with self._guard:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()
