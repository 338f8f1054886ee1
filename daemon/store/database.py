"""The connection to SQLite: one writing process, one writer at a time, short consistent reads.

SQLite keeps a promise only when it is asked to: ``synchronous=FULL`` (NORMAL loses acknowledged rows at a power
cut), ``BEGIN IMMEDIATE`` (a read that turns into a write may be refused at once, whatever the busy time-out).
A flush that failed is never tried again: from then on everything is refused until the process begins anew.
Nothing here or elsewhere may open the database file itself: closing any handle on it drops this process's locks
(https://sqlite.org/howtocorrupt.html, 2.2).
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from peewee import QueryEvent, SqliteDatabase
from playhouse.migrations import Runner

from daemon.clock import Clock
from daemon.errors import StoreIncompatible, StoreUnavailable
from daemon.model import Topic
from daemon.store.faults import DATABASE_ERRORS, explained, explained_at_start, is_unsure
from daemon.store.locks import FairLock, LockFile, locked_by

MIGRATIONS = Path(__file__).parent / "migrations"
HISTORY_TABLE = "schema_migration"
APPLICATION_ID = 0x68647774  # set by the first migration; see there

_MEBIBYTE = 1024 * 1024
_FREE_BYTES_NEEDED = 4 * _MEBIBYTE  # below it the store counts as full before SQLite says so
_SHORTEST_BUSY_SECONDS = 0.05
_FULL = 2
_PRAGMAS: dict[str, str | int] = {
    "journal_mode": "wal",
    "synchronous": _FULL,
    "foreign_keys": 1,
    # The checkpoint thread does it; this is for when that thread is held up. Pages, so 16 MiB.
    "wal_autocheckpoint": 4000,
    "journal_size_limit": 64 * _MEBIBYTE,  # gives the disk back after a burst
}

StatementSeen = Callable[[str, float], None]


class Cursor(Protocol):
    """What a statement gave, as every driver has it."""

    @property
    def rowcount(self) -> int: ...
    def fetchone(self) -> Any: ...
    def fetchall(self) -> list[Any]: ...
    def __iter__(self) -> Iterator[Any]: ...


class Listener(Protocol):
    """A thread that hears what other daemons tell of."""

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def hears(self) -> bool: ...


class _Connection(sqlite3.Connection):
    """A connection that can be referred to weakly, and closes itself when the thread that had it is gone."""

    def __del__(self) -> None:
        with suppress(sqlite3.ProgrammingError):  # it could not be opened
            self.close()


class _Sqlite(SqliteDatabase):
    """Peewee's SQLite, which also knows every thread's connection."""

    def __init__(self, path: Path, *, busy_seconds: float, read_only: bool) -> None:
        self.opened: weakref.WeakSet[sqlite3.Connection] = weakref.WeakSet()
        pragmas = {"query_only": 1} if read_only else _PRAGMAS
        super().__init__(
            # Never made here: a thread that connects after the file was removed must not find an empty one.
            f"file:{quote(os.fsencode(path))}?mode=rw",
            uri=True,
            pragmas=pragmas,
            lock_type="IMMEDIATE",
            timeout=busy_seconds,
            factory=_Connection,
            check_same_thread=False,  # ``close`` closes the connections of every thread
        )

    def _connect(self) -> sqlite3.Connection:
        connection: sqlite3.Connection = super()._connect()  # type: ignore[misc]
        self.opened.add(connection)
        return connection

    def rollback(self) -> None:
        # A full disk rolls back by itself; rolling back again would raise "no transaction is active" and hide why.
        if self.handle().in_transaction:
            super().rollback()

    def handle(self) -> sqlite3.Connection:
        """The connection of this thread, opened when it has none."""
        connection: sqlite3.Connection = super().connection()  # type: ignore[no-untyped-call]
        return connection


class Database:
    """One store, usable from any thread. Statements work inside ``read`` or ``write``.

    ``on_statement`` is told the text and the seconds of every statement. ``shared`` is whether other processes may
    write at the same time; ``name`` is what the store is called in errors. ``failure`` says why nothing can be trusted
    to reach the disk any more, once that is so: everything is refused from then on, and only a new process begins anew.
    """

    shared = False
    failure: str | None = None

    def __init__(
        self,
        path: Path,
        *,
        clock: Clock,
        busy_seconds: float,
        read_only: bool = False,
        on_statement: StatementSeen | None = None,
    ) -> None:
        self.path = path
        self._begin(str(path), clock, busy_seconds, on_statement)
        self._sqlite = _Sqlite(path, busy_seconds=busy_seconds, read_only=read_only)
        if on_statement is not None:
            self._sqlite.query_hooks.append(self._seen)
        self._file: tuple[int, int] | None = None

    def _begin(self, name: str, clock: Clock, busy_seconds: float, on_statement: StatementSeen | None) -> None:
        """What a store on any engine has."""
        self.name = name
        self._clock = clock
        self._busy_seconds = busy_seconds
        self._on_statement = on_statement
        self._local = threading.local()
        self._writing = FairLock()
        self._using = threading.Condition()
        self._users = 0
        self._closed = False
        self._lock: LockFile | None = None

    # -- life -------------------------------------------------------------------------------------

    @classmethod
    def open(
        cls, path: Path, *, clock: Clock, busy_seconds: float = 5.0, on_statement: StatementSeen | None = None
    ) -> Database:
        """Open the store at ``path`` for this process alone, creating or migrating it as needed.

        No write waits longer than ``busy_seconds``. Raises StoreLocked, StoreIncompatible, StoreUnavailable.
        """
        if not path.parent.is_dir():
            raise StoreIncompatible(f"the folder {path.parent} does not exist; create it, or change storage.url")
        lock = LockFile.acquire(path, clock=clock)
        database = cls(path, clock=clock, busy_seconds=busy_seconds, on_statement=on_statement)
        database._lock = lock
        try:
            with database._explained_at_start():
                _create(path)
                _refuse_foreign(path, busy_seconds)
                database._migrate()
                database._assert_pragmas()
        except BaseException:
            database.close()
            raise
        return database

    @classmethod
    def open_read_only(cls, path: Path, *, clock: Clock, any_schema: bool = False) -> Database:
        """Open an existing store to read, beside whoever owns it. Raises StoreIncompatible, StoreUnavailable.

        ``any_schema``: also one that this program would have to migrate first, or cannot read.
        """
        if not path.is_file():
            raise StoreIncompatible(f"there is no database at {path}: `headwater run` makes it; or correct storage.url")
        database = cls(path, clock=clock, busy_seconds=5.0, read_only=True)
        try:
            with database._explained_at_start():
                _refuse_foreign(path, database._busy_seconds)
                if not any_schema:
                    database._assert_current()
        except BaseException:
            database.close()
            raise
        return database

    @staticmethod
    def locked_by(path: Path) -> dict[str, Any] | None:
        """What the process that owns the store at ``path`` noted (``pid``, …); None when nobody owns it."""
        return locked_by(path)

    def lock_note(self, **facts: Any) -> None:
        """Add JSON ``facts`` to what ``locked_by`` tells other processes."""
        if self._lock is not None:
            self._lock.note(**facts)

    def shared_clock(self) -> Clock:
        """The clock that everybody who writes to this store goes by."""
        return self._clock

    def read_clock(self) -> None:
        """Follow that clock, when it is another than this machine's."""

    def close(self) -> None:
        """Refuse new work, wait ``busy_seconds`` for what runs, close every connection, release the lock."""
        with self._using:
            if self._closed:
                return
            self._closed = True
            idle = self._using.wait_for(lambda: self._users == 0, timeout=self._busy_seconds)
        self._disconnect(idle=idle)

    def _disconnect(self, *, idle: bool) -> None:
        if idle:  # closing a connection under a running statement would crash the process
            for connection in list(self._sqlite.opened):
                connection.close()
        if self._lock is not None:
            self._lock.release()

    def close_thread(self) -> None:
        """Close this thread's connection; the next ``read`` or ``write`` opens one again."""
        self._sqlite.close()

    # -- transactions -----------------------------------------------------------------------------

    @contextmanager
    def write(self, *, alone: bool = True, together: bool = False) -> Iterator[None]:  # noqa: ARG002 - always alone
        """One write transaction, durable when the block ends. Within another ``write`` it is a part of that one,
        undone alone when it raises.

        Not ``alone`` is for contents, which nothing shows yet: others may then write meanwhile, where the engine can.
        ``together`` is for deliveries and claims: only others that are ``together`` may write meanwhile, in other
        processes, and only where ``shared``. Locks on rows must keep those apart.
        Raises StoreUnavailable (locked, full, I/O error) and RuntimeError inside ``read``.
        """
        mode = getattr(self._local, "mode", None)
        if mode == "read":
            raise RuntimeError("a write inside a read: the transaction cannot be upgraded")
        if mode == "write":
            with self._explained(), self._sqlite.atomic():
                yield
            return
        with self._used(), self._turn(), self._explained(), self._sqlite.atomic("IMMEDIATE"), self._inside("write"):
            yield

    @contextmanager
    def read(self) -> Iterator[None]:
        """One consistent snapshot of everything; within another ``read`` or ``write`` a part of that one.

        Raises StoreUnavailable.
        """
        if getattr(self._local, "mode", None) is not None:
            yield
            return
        with self._used(), self._explained(), self._sqlite.atomic("DEFERRED"), self._inside("read"):
            yield

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """The turn of this thread to write, with what is left of the busy time for SQLite's own lock."""
        with self._queued() as left:
            self._assert_sound()  # whoever had the turn before may have found out
            with self._explained():
                self._assert_same_file()
                self._sqlite.handle().execute(f"PRAGMA busy_timeout = {int(left * 1000)}")
            yield

    @contextmanager
    def _queued(self) -> Iterator[float]:
        """The turn of this thread among those of the process, and the seconds of the busy time that are left."""
        started = self._clock.monotonic()
        if not self._writing.acquire(self._busy_seconds):
            raise StoreUnavailable(f"{self.name} was busy with other writes for {self._busy_seconds:g} s")
        try:
            yield max(self._busy_seconds - (self._clock.monotonic() - started), _SHORTEST_BUSY_SECONDS)
        finally:
            self._writing.release()

    @contextmanager
    def _used(self) -> Iterator[None]:
        with self._using:
            if self._closed:
                raise StoreUnavailable(f"{self.name} is closed")
            self._assert_sound()
            self._users += 1
        try:
            yield
        finally:
            with self._using:
                self._users -= 1
                self._using.notify_all()

    @contextmanager
    def _inside(self, mode: str, connection: Any = None) -> Iterator[None]:
        self._local.mode = mode
        self._local.connection = self._sqlite.handle() if connection is None else connection
        try:
            yield
        finally:
            self._local.mode = self._local.connection = None

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except DATABASE_ERRORS as error:
            if is_unsure(error):
                self.failure = f"{self.path} could not be flushed to its disk ({error}); look at the disk, then restart"
            raise explained(error, self.path) from error

    def _assert_sound(self) -> None:
        if self.failure is not None:
            raise StoreUnavailable(self.failure)

    @contextmanager
    def _explained_at_start(self) -> Iterator[None]:
        try:
            yield
        except DATABASE_ERRORS as error:
            raise explained_at_start(error, self.path) from error
        except OSError as error:
            raise StoreIncompatible(f"{self.path} cannot be used: {error.strerror}") from error

    # -- telling other daemons --------------------------------------------------------------------

    def tell(self, topic: Topic) -> None:
        """Have other daemons hear of ``topic`` as soon as this transaction is committed. Inside ``write``."""

    def listener(self, calls: Mapping[Topic, Callable[[], None]]) -> Listener | None:
        """What calls these when another daemon tells of their topic, on its own thread; None where nobody can."""
        del calls
        return None

    # -- statements -------------------------------------------------------------------------------

    def execute(self, sql: str, params: Sequence[Any] = ()) -> Cursor:
        """One SQL statement, its parameters as ``?``, and the cursor over its rows."""
        started = time.perf_counter() if self._on_statement else 0.0
        cursor: Cursor = self._connection().execute(sql, params)
        if self._on_statement:
            self._on_statement(sql, time.perf_counter() - started)
        return cursor

    def rows(self, sql: str, params: Sequence[Any] = ()) -> Iterator[Any]:
        """The rows of a query, read as they are asked for: for those that may be large."""
        yield from self.execute(sql, params)

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> int:
        """One SQL statement for each row of parameters; the number of rows it changed."""
        started = time.perf_counter() if self._on_statement else 0.0
        cursor: Cursor = self._connection().executemany(sql, rows)
        if self._on_statement:
            self._on_statement(sql, time.perf_counter() - started)
        return max(cursor.rowcount, 0)

    def run(self, query: Any) -> Any:
        """A Peewee query: rows as its row type says, the number of rows for an update, the id for an insert."""
        self._connection()
        return query.execute(self._sqlite)

    def _connection(self) -> Any:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            raise RuntimeError("a statement outside read() and write()")
        return connection

    def _seen(self, event: QueryEvent) -> None:
        if self._on_statement:
            self._on_statement(event.sql, event.duration)

    # -- care -------------------------------------------------------------------------------------

    def checkpoint(self) -> int:
        """Move what the log holds into the database without waiting for anybody; the pages that are left."""
        with self._used(), self._explained():
            _, pages, moved = self._sqlite.handle().execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        return max(0, int(pages) - int(moved))

    def copy_into(self, target: sqlite3.Connection) -> None:
        """Copy the whole store, as of one instant, into an empty database. Raises sqlite3.Error of either side.

        In one step: between two steps another process may write, and SQLite would begin again.
        """
        with self._used():
            self._sqlite.handle().backup(target)

    def integrity(self) -> str:
        """``ok``, or what is wrong, a line each. Reads the whole file."""
        with self.read():
            return "\n".join(row[0] for row in self.execute("PRAGMA integrity_check"))

    def size_bytes(self) -> int:
        """What the store takes on the disk, about."""
        return self.path.stat().st_size

    def check(self) -> None:
        """Raise StoreUnavailable when a write would fail now: locked, file gone, hardly any space left."""
        with self.write():
            free = os.statvfs(self.path.parent)
        if free.f_bavail * free.f_frsize < _FREE_BYTES_NEEDED:
            raise StoreUnavailable(f"the disk of {self.path} is full; free some space, nothing else is needed")

    def pragma(self, name: str) -> Any:
        """The value in force on this thread's connection."""
        with self._used(), self._explained():
            return self._sqlite.handle().execute(f"PRAGMA {name}").fetchone()[0]

    def _assert_same_file(self) -> None:
        # What goes into a file that was unlinked is lost with the process: never acknowledge it.
        try:
            found = self.path.stat()
        except OSError as error:
            raise StoreUnavailable(f"{self.path} cannot be found any more ({error.strerror}); restart") from error
        if self._file is None:
            self._file = (found.st_dev, found.st_ino)
        if self._file != (found.st_dev, found.st_ino):
            raise StoreUnavailable(f"{self.path} was replaced while it was in use; restart")

    # -- opening ----------------------------------------------------------------------------------

    def migrations(self) -> tuple[list[str], list[str]]:
        """The names of the migrations that were applied to the store and of those that are pending, in order.

        Raises StoreIncompatible for a store that a newer program wrote.
        """
        runner = self._runner()
        self._refuse_newer(runner)
        every = runner.status()
        return [one.name for one in every if one.applied], [one.name for one in every if not one.applied]

    def _migrate(self) -> None:
        if self.migrations()[1]:
            self._runner().up()

    def _assert_current(self) -> None:
        if self.migrations()[1]:
            raise StoreIncompatible(f"{self.path} has an older schema; start the daemon once, which migrates it")

    def _runner(self) -> Any:
        return Runner(self._sqlite, str(MIGRATIONS), table_name=HISTORY_TABLE)  # type: ignore[no-untyped-call]

    def _refuse_newer(self, runner: Any) -> None:
        unknown = [migration.name for migration in runner.status() if migration.path is None]
        if unknown:
            raise StoreIncompatible(
                f"{self.path} was written by a newer headwater (it has {', '.join(unknown)}); "
                "install that version again, or use another storage.url"
            )

    def _assert_pragmas(self) -> None:
        """Ask back what was set: a file system without shared memory, say, silently stays out of WAL mode."""
        for name, wanted in _PRAGMAS.items():
            found = self.pragma(name)
            if found != wanted:
                raise StoreIncompatible(f"{self.path}: SQLite gives {name}={found} where {wanted} is needed")
        with self._sqlite.atomic("IMMEDIATE"):  # a read-only file or mount shows here, not at the first delivery
            self._assert_same_file()


def _create(path: Path) -> None:
    if not path.exists():  # never opened when it exists: see the module's docstring
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))


def _refuse_foreign(path: Path, busy_seconds: float) -> None:
    """Raise StoreIncompatible for another program's database, before a pragma changes anything in it."""
    with closing(sqlite3.connect(path, timeout=busy_seconds)) as connection:
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        names = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    # A kill during the very first start leaves the history table alone in there.
    fresh = application == 0 and names <= {HISTORY_TABLE, "sqlite_sequence"}
    if not fresh and application != APPLICATION_ID:
        raise StoreIncompatible(f"{path} belongs to another program; use another storage.url")
