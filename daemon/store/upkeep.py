"""A copy of the store that is known to be good, where it is one file, and what its schema lacks on any engine.

Nothing here opens the database file itself (see ``database``): SQLite's backup reads it through a connection.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from daemon.clock import Clock
from daemon.errors import StoreUnavailable
from daemon.settings import StorageSettings
from daemon.store.database import Database
from daemon.store.opening import open_store, open_to_read


@dataclass(frozen=True, slots=True)
class Backup:
    """A copy that was made and checked."""

    path: Path
    size_bytes: int
    migration: str | None  # the last one applied to it


def backup(source: Path, target: Path, *, clock: Clock) -> Backup:
    """Copy the store at ``source``, as of one instant, to ``target``: whole and checked, or not at all.

    Beside a running daemon, too, and of any schema. Raises StoreIncompatible, StoreUnavailable, OSError.
    """
    _refuse_in_use(source, target)
    database = Database.open_read_only(source, clock=clock, any_schema=True)
    aside = target.with_name(f".{target.name}.partial")
    try:
        _create_anew(aside)
        _copy(database, aside)
        applied, _ = database.migrations()
        _make_durable(aside)
        aside.replace(target)
        _make_durable(target.parent)
    finally:
        database.close()
        aside.unlink(missing_ok=True)
    return Backup(target, target.stat().st_size, applied[-1] if applied else None)


def _refuse_in_use(source: Path, target: Path) -> None:
    if target.exists() and source.exists() and target.samefile(source):
        raise StoreUnavailable(f"{target} is the store itself; name another file")
    if target.is_dir():
        raise StoreUnavailable(f"{target} is a folder; name a file in it")
    # A log that is left would be taken for the new file's own when that is opened.
    for suffix in ("-wal", "-journal"):
        if os.path.lexists(beside := target.with_name(target.name + suffix)):
            raise StoreUnavailable(f"{beside} is there, so {target} is in use or damaged; name another file")


def _create_anew(path: Path) -> None:
    path.unlink(missing_ok=True)  # of a backup that was killed
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))


def _copy(database: Database, path: Path) -> None:
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as copy:
            database.copy_into(copy)
            copy.execute("PRAGMA journal_mode = DELETE")  # one file, readable from where nothing can be written
            found = "\n".join(row[0] for row in copy.execute("PRAGMA integrity_check"))
    except sqlite3.Error as error:
        raise StoreUnavailable(f"the backup to {path.parent} failed: {error}") from error
    if found != "ok":
        raise StoreUnavailable(f"the store is damaged, as its copy shows: {found.splitlines()[0]}; no backup was made")


def _make_durable(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@dataclass(frozen=True, slots=True)
class Schema:
    """The migrations that were applied to a store, and those that are pending, in order."""

    store: str
    applied: list[str]
    pending: list[str]


def schema(storage: StorageSettings, *, clock: Clock) -> Schema:
    """Where the schema of the store is. Raises StoreError, also when there is no file."""
    with closing(open_to_read(storage, clock=clock, any_schema=True)) as database:
        return Schema(database.name, *database.migrations())


def migrate(storage: StorageSettings, *, clock: Clock) -> list[str]:
    """Apply what is pending, creating the store when there is none; the names of what was applied.

    Raises StoreLocked while a daemon runs on SQLite, StoreIncompatible, StoreUnavailable.
    """
    absent = not storage.is_postgres and not storage.sqlite_path.exists()
    before = [] if absent else schema(storage, clock=clock).applied
    open_store(storage, clock=clock).close()
    return [name for name in schema(storage, clock=clock).applied if name not in before]
