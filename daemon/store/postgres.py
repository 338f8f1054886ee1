"""The connection to PostgreSQL, which any number of daemons share.

Writes take turns, through all daemons, by one advisory lock that ends with the transaction: so what is true on SQLite
with its one writer is true here, and nobody's SQL needs to think of anybody else's. Two kinds go without: contents,
nearly all of the bytes, take no turn, because nothing shows them yet; deliveries and claims share one turn with those
of other daemons, and keep out of each other's way by locks on rows (see ``arrivals`` and ``jobs``).
Every setting is made in the transaction it is for, and nothing of a session is used: a pooler may give each
transaction another one.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import psycopg
from peewee import PostgresqlDatabase
from psycopg.pq import TransactionStatus

from daemon.clock import Clock
from daemon.errors import StoreError, StoreIncompatible, StoreInterrupted, StoreUnavailable
from daemon.model import Topic
from daemon.store import dialect, schema_postgres
from daemon.store.connections import MOST, Connection, Connections, connect
from daemon.store.database import Cursor, Database, StatementSeen
from daemon.store.faults_postgres import explained, explained_at_start, unreachable, words
from daemon.store.listening import Listening, telling

_LOCK = 0x68647774  # "hdwt"; with the schema, so that two stores in one database do not wait for each other
# A process that stands still inside a write holds up all others: less than they wait for their turn.
_WRITE_IDLE_SECONDS = 4
_READ_IDLE_SECONDS = 60
_STATEMENT_SECONDS = 60
_SETTLE_SECONDS = 5.0
_BETWEEN_LOOKS_SECONDS = 0.05
_ROWS_AT_ONCE = 50

_READ = f"""
    BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
    SET LOCAL statement_timeout = '{_STATEMENT_SECONDS}s';
    SET LOCAL idle_in_transaction_session_timeout = '{_READ_IDLE_SECONDS}s'
"""
# The number of the transaction, last, tells afterwards whether it was committed.
_WRITE = f"""
    BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;
    SET LOCAL statement_timeout = '{_STATEMENT_SECONDS}s';
    SET LOCAL idle_in_transaction_session_timeout = '{{idle}}s';
    SET LOCAL lock_timeout = '{{milliseconds}}ms';
    SELECT set_config('synchronous_commit', 'on', TRUE) WHERE current_setting('synchronous_commit') = 'off';
    {{turn}}
    SELECT pg_current_xact_id()::text
"""
TURN = f"SELECT pg_advisory_xact_lock({_LOCK}, hashtext(current_schema()));"
# Who waits for a turn alone is served before those who come later to share one: neither kind starves the other.
_SHARED_TURN = TURN.replace("xact_lock", "xact_lock_shared")


class PostgresDatabase(Database):
    """A store in the current schema of a PostgreSQL database."""

    shared = True

    def __init__(
        self,
        url: str,
        *,
        clock: Clock,
        busy_seconds: float,
        password: Callable[[], str | None] = lambda: None,
        on_statement: StatementSeen | None = None,
    ) -> None:
        self._begin(_name(url), clock, busy_seconds, on_statement)
        self._connect = lambda: connect(url, password())
        self._connections = Connections(self._connect)
        self._id = uuid.uuid4().hex[:12]  # by which it knows what it has told itself
        self._peewee = _Peewee(self._send)
        self._read_at = (clock.now(), clock.monotonic())
        self._numbers = count()

    # -- life -------------------------------------------------------------------------------------

    @classmethod
    def at(cls, url: str, *, read_only: bool = False, any_schema: bool = False, **options: Any) -> PostgresDatabase:
        """Open the store at ``url``, creating or migrating it as needed, or only to read it as it is.

        ``any_schema``: also one that this program would have to migrate first.
        Raises StoreIncompatible, StoreUnavailable.
        """
        database = cls(url, **({"busy_seconds": 5.0} | options))
        try:
            database._open(read_only=read_only, any_schema=any_schema)
        except BaseException:
            database.close()
            raise
        return database

    def _open(self, *, read_only: bool, any_schema: bool) -> None:
        with self._explained_at_start(), self.read() if read_only else self.write():
            schema_postgres.refuse_unfit(self, self._connection().info.server_version, writing=not read_only)
            if not read_only:
                schema_postgres.migrate(self)
            elif not any_schema:
                schema_postgres.assert_current(self)

    def migrations(self) -> tuple[list[str], list[str]]:
        with self.read():
            return schema_postgres.migrations(self)

    def shared_clock(self) -> Clock:
        """The database's own, so that nodes agree whatever their clocks say. Raises StoreUnavailable."""
        self.read_clock()
        return Clock(now=self._now, monotonic=self._clock.monotonic, sleep=self._clock.sleep)

    def read_clock(self) -> None:
        with self.read():
            asked = self._clock.monotonic()
            at = self.execute("SELECT clock_timestamp()").fetchone()[0].astimezone(UTC)
            self._read_at = (at, (asked + self._clock.monotonic()) / 2)  # some time between question and answer

    def _now(self) -> datetime:
        at, then = self._read_at
        return at + timedelta(seconds=self._clock.monotonic() - then)

    def _disconnect(self, *, idle: bool) -> None:
        del idle  # a connection in use closes when it is given back
        self._connections.close()

    def close_thread(self) -> None:
        """Nothing: no thread has a connection of its own."""

    # -- telling other daemons --------------------------------------------------------------------

    def tell(self, topic: Topic) -> None:
        self._connection()
        self._local.topics.add(topic)

    def listener(self, calls: Mapping[Topic, Callable[[], None]]) -> Listening:
        return Listening(self._connect, self._beat, name=self.name, own=self._id, calls=calls, clock=self._clock)

    def _beat(self) -> None:
        with self.write(alone=False):
            self.tell(Topic.BEAT)

    # -- transactions -----------------------------------------------------------------------------

    @contextmanager
    def write(self, *, alone: bool = True, together: bool = False) -> Iterator[None]:
        mode = getattr(self._local, "mode", None)
        if mode == "read":
            raise RuntimeError("a write inside a read: the transaction cannot be upgraded")
        if mode == "write":
            with self._explained(), self._connection().transaction():
                yield
            return
        with ExitStack() as stack:
            stack.enter_context(self._used())
            left = stack.enter_context(self._queued()) if alone else self._busy_seconds
            idle = _WRITE_IDLE_SECONDS if alone else _READ_IDLE_SECONDS
            turn = (_SHARED_TURN if together else TURN) if alone else ""
            sql = _WRITE.format(milliseconds=int(left * 1000), idle=idle, turn=turn)
            connection, row = stack.enter_context(self._begun(sql, left))
            self._local.topics = topics = set[Topic]()
            with self._explained(), self._inside("write", connection):
                yield
            self._commit(connection, row[0], topics)

    @contextmanager
    def read(self) -> Iterator[None]:
        if getattr(self._local, "mode", None) is not None:
            yield
            return
        with ExitStack() as stack:
            stack.enter_context(self._used())
            connection, _ = stack.enter_context(self._begun(_READ, self._busy_seconds))
            with self._explained(), self._inside("read", connection):
                yield

    @contextmanager
    def _begun(self, sql: str, timeout: float) -> Iterator[tuple[Connection, Any]]:
        """A connection with a transaction in it, and the row that its beginning gave; what is left open is undone."""
        try:
            connection, row = self._begin_on_any(sql, timeout)
        except psycopg.Error as error:
            raise unreachable(error, self.name) from error
        try:
            yield connection, row
        finally:
            self._connections.give(connection)

    def _begin_on_any(self, sql: str, timeout: float) -> tuple[Connection, Any]:
        """Connections that were idle may all have died since: nothing was begun on them, and the next is as good."""
        for _ in range(MOST):
            connection = self._connections.take(timeout)
            try:
                return connection, _last_row(connection.execute(sql.encode()))
            except BaseException:
                died = connection.closed
                self._connections.give(connection)
                if not died:
                    raise
        raise StoreUnavailable(f"{self.name} ends every connection at once")

    def _commit(self, connection: Connection, number: str, topics: Iterable[Topic]) -> None:
        if connection.info.transaction_status is TransactionStatus.INERROR:
            raise StoreError(f"{self.name} refused a statement, and what was to be written with it")
        try:
            connection.execute(f"{telling(self._id, topics)}COMMIT".encode())
        except psycopg.Error as error:
            if not connection.closed:
                raise explained(error, self.name) from error
            self._settle(number, error)

    def _settle(self, number: str, error: psycopg.Error) -> None:
        """The connection was lost between question and answer: find out what became of the transaction.

        Returns when it was committed. Raises StoreInterrupted when it was not, StoreUnavailable when nobody knows.
        """
        deadline = self._clock.monotonic() + _SETTLE_SECONDS
        while (outcome := self._outcome(number)) == "in progress":
            if self._clock.monotonic() > deadline:
                raise StoreUnavailable(f"{self.name} does not tell what became of a transaction") from error
            self._clock.sleep(_BETWEEN_LOOKS_SECONDS)
        if outcome != "committed":
            raise StoreInterrupted(f"{self.name} was cut off before it had committed") from error

    def _outcome(self, number: str) -> str:
        with self._begun(_READ, self._busy_seconds) as (connection, _):
            try:
                row = connection.execute(f"SELECT pg_xact_status('{int(number)}')").fetchone()
            except psycopg.errors.InvalidParameterValue:
                return "lost"  # a number not given yet: another server, which took over and never had it
            except psycopg.Error as error:
                raise unreachable(error, self.name) from error
        return str(row[0]) if row else "lost"

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            raise explained(error, self.name) from error

    @contextmanager
    def _explained_at_start(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            raise explained_at_start(error, self.name) from error

    # -- statements -------------------------------------------------------------------------------

    def execute(self, sql: str, params: Sequence[Any] = ()) -> Cursor:
        return self._send(dialect.query(sql), params)

    def rows(self, sql: str, params: Sequence[Any] = ()) -> Iterator[Any]:
        name = f"rows_{next(self._numbers)}"
        self._send(f"DECLARE {name} NO SCROLL CURSOR FOR {dialect.query(sql)}", params)
        more = True
        while more:
            found = self._send(f"FETCH {_ROWS_AT_ONCE} FROM {name}").fetchall()
            more = len(found) == _ROWS_AT_ONCE
            yield from found

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> int:
        connection = self._connection()
        texts = dialect.batches(dialect.query(sql), rows, psycopg.ClientCursor(connection).mogrify)
        return sum(_changed(self._send(text, None)) for text in texts)

    def run(self, query: Any) -> Any:
        self._connection()
        return query.execute(self._peewee)

    def _send(self, text: str, params: Sequence[Any] | None = ()) -> Cursor:
        started = time.perf_counter() if self._on_statement else 0.0
        cursor: Cursor = self._connection().execute(text, params and [_storable(value) for value in params])
        if self._on_statement:
            self._on_statement(text, time.perf_counter() - started)
        return cursor

    # -- care -------------------------------------------------------------------------------------

    def checkpoint(self) -> int:
        """Nothing: PostgreSQL does it."""
        return 0

    def integrity(self) -> str:
        """``ok`` when it answers; the rest is for its own checksums and amcheck."""
        with self.read():
            return "ok"

    def size_bytes(self) -> int:
        with self.read():
            return int(self.execute("SELECT pg_database_size(current_database())").fetchone()[0])

    def check(self) -> None:
        """Raise StoreUnavailable when a write would fail now."""
        with self.write():
            pass


class _Peewee(PostgresqlDatabase):
    """Peewee's words for PostgreSQL; how they are sent is not its business."""

    def __init__(self, send: Callable[[str, Sequence[Any]], Any]) -> None:
        super().__init__(None, prefer_psycopg3=True)
        self._send = send

    def execute_sql(self, sql: str, params: Sequence[Any] | None = None) -> Any:
        return self._send(sql, params or ())


def _storable(value: Any) -> Any:
    """Text is stored without NUL (see ``fields.plain``), so it is looked for without."""
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value


def _name(url: str) -> str:
    """What the store is called in errors: never its password."""
    facts = _facts(url)
    host = f" at {facts['host']}" if facts.get("host") else ""
    return f"the PostgreSQL database {facts.get('dbname', '')}{host}"


def without_password(url: str) -> str:
    """The same database as a command line may name it, which every user of the machine can read.

    Raises StoreIncompatible.
    """
    return psycopg.conninfo.make_conninfo("", **(_facts(url) | {"password": None, "sslpassword": None}))


def _facts(url: str) -> dict[str, Any]:
    try:
        return dict(psycopg.conninfo.conninfo_to_dict(url))
    except psycopg.ProgrammingError as error:
        raise StoreIncompatible(f"storage.url cannot be used: {words(error)}") from None


def _last_row(cursor: Any) -> Any:
    """The row that the last of several statements gave, if it gave one."""
    while cursor.nextset():
        pass
    return cursor.fetchone() if cursor.description else None


def _changed(cursor: Any) -> int:
    """How many rows several statements changed."""
    total = max(int(cursor.rowcount), 0)
    while cursor.nextset():
        total += max(cursor.rowcount, 0)
    return total
