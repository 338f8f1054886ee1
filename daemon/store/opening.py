"""The store that the configuration names, on whichever engine."""

from __future__ import annotations

from typing import Any

from daemon.clock import Clock
from daemon.settings import StorageSettings
from daemon.store.database import Database, StatementSeen


def open_store(storage: StorageSettings, *, clock: Clock, on_statement: StatementSeen | None = None) -> Database:
    """The store, created or migrated as needed; on SQLite for this process alone.

    Raises StoreLocked, StoreIncompatible, StoreUnavailable.
    """
    if storage.is_postgres:
        return _on_postgres(storage, clock, on_statement=on_statement)
    return Database.open(storage.sqlite_path, clock=clock, on_statement=on_statement)


def open_to_read(storage: StorageSettings, *, clock: Clock, any_schema: bool = False) -> Database:
    """The store as it is, beside whoever writes to it. Raises StoreIncompatible, StoreUnavailable.

    ``any_schema``: also one that this program would have to migrate first.
    """
    if storage.is_postgres:
        return _on_postgres(storage, clock, read_only=True, any_schema=any_schema)
    return Database.open_read_only(storage.sqlite_path, clock=clock, any_schema=any_schema)


def _on_postgres(storage: StorageSettings, clock: Clock, **options: Any) -> Database:
    from daemon.store.postgres import PostgresDatabase  # noqa: PLC0415 - its driver is installed for those who use it

    return PostgresDatabase.at(storage.url, clock=clock, password=storage.password, **options)
