"""The tables of a store on PostgreSQL: made and changed by the migrations that SQLite has, seen whether they are ours.

Everything runs inside the one transaction that opens the store, and so in one daemon at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from playhouse.migrations import Migration

from daemon.errors import StoreIncompatible
from daemon.store import dialect
from daemon.store.database import HISTORY_TABLE, MIGRATIONS, Database
from daemon.store.models import Table

_OLDEST = 14  # whose support has not ended
_HISTORY = f"""
    CREATE TABLE IF NOT EXISTS {HISTORY_TABLE} (
        name TEXT COLLATE "C" NOT NULL PRIMARY KEY, applied TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp())
"""


def refuse_unfit(db: Database, server_version: int, *, writing: bool) -> None:
    """Raise StoreIncompatible for a server or a database that cannot keep what it is given."""
    if server_version // 10_000 < _OLDEST:
        raise StoreIncompatible(f"{db.name} is PostgreSQL {server_version // 10_000}; {_OLDEST} or newer is needed")
    encoding, commit = db.execute(
        "SELECT current_setting('server_encoding'), current_setting('synchronous_commit')"
    ).fetchone()
    if encoding != "UTF8":
        raise StoreIncompatible(f"{db.name} has the encoding {encoding}; create it with UTF8")
    if commit == "off" and writing:
        raise StoreIncompatible(f"{db.name} does not let synchronous_commit be switched on")


def assert_current(db: Database) -> None:
    """Raise StoreIncompatible when the store is older or newer than this program, or not ours."""
    if _status(db)[1]:
        raise StoreIncompatible(f"{db.name} has an older schema; start the daemon once, which migrates it")


def migrate(db: Database) -> None:
    """Bring the store up to date. Raises StoreIncompatible when it is newer than this program, or not ours."""
    for migration in _status(db)[1]:
        db.execute("SET LOCAL statement_timeout = 0")
        db.execute(_HISTORY)
        migration.load().up(None, _Schema(db))
        db.execute(f"INSERT INTO {HISTORY_TABLE} (name) VALUES (?)", (migration.name,))  # noqa: S608 - a constant


def migrations(db: Database) -> tuple[list[str], list[str]]:
    """The names of what was applied and of what is pending, in order. Raises StoreIncompatible as ``migrate`` does."""
    applied, pending = _status(db)
    return [one.name for one in applied], [one.name for one in pending]


def _status(db: Database) -> tuple[list[Any], list[Any]]:
    every = Migration.load_directory(str(MIGRATIONS))  # type: ignore[no-untyped-call]
    applied = _applied(db)
    if unknown := sorted(applied - {migration.name for migration in every}):
        raise StoreIncompatible(
            f"{db.name} was written by a newer headwater (it has {', '.join(unknown)}); "
            "install that version again, or use another storage.url"
        )
    return [one for one in every if one.name in applied], [one for one in every if one.name not in applied]


def _applied(db: Database) -> set[str]:
    if _exists(db, HISTORY_TABLE):
        return {row[0] for row in db.execute(f"SELECT name FROM {HISTORY_TABLE}")}  # noqa: S608 - a constant
    ours = (model._meta.table_name for model in Table.__subclasses__())  # noqa: SLF001
    if found := [name for name in ours if _exists(db, name)]:
        raise StoreIncompatible(
            f"{db.name} has another program's table {found[0]}; give headwater a database or a schema of its own"
        )
    return set()


def _exists(db: Database, table: str) -> bool:
    sql = "SELECT to_regclass(quote_ident(current_schema()) || '.' || quote_ident(?))"
    return db.execute(sql, (table,)).fetchone()[0] is not None


class _Schema:
    """What a migration is given for a database."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def execute_sql(self, sql: str, params: Sequence[Any] = ()) -> Any:
        cursor = None
        for statement in dialect.schema(sql):
            cursor = self._db.execute(statement, params)
        return cursor
