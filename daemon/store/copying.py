"""The rows of one store put into another, on whichever engines, and both held against each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from daemon.errors import StoreError, StoreIncompatible
from daemon.store.database import HISTORY_TABLE, Database

_ROWS_AT_ONCE = 500
_BYTES_AT_ONCE = 4 * 1024 * 1024

# In the order in which they were made, so that what a row refers to comes before it.
_TABLES = {
    False: "SELECT name FROM sqlite_master WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL%' ORDER BY rowid",
    True: """
        SELECT relname::text FROM pg_class
        WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace ORDER BY oid
    """,
}
# The index over the text is made anew from it, and who is there and whose turn it is are of no use elsewhere.
_NOT_COPIED = {HISTORY_TABLE, "node", "lease", "id_counter", "sqlite_sequence", "search_blob", "search_index"}
_FLAGS = """
    SELECT column_name FROM information_schema.columns
    WHERE table_schema = current_schema() AND table_name = ? AND data_type = 'boolean'
"""
_IDENTITY = "SELECT pg_get_serial_sequence(quote_ident(current_schema()) || '.' || quote_ident(?), 'id')"


@dataclass(frozen=True, slots=True)
class Sum:
    """What two tables with the same rows have in common, whatever their order."""

    rows: int
    digest: int


def copy(source: Database, target: Database, *, told: Callable[[str, int], None] = lambda _table, _rows: None) -> int:
    """Put every row of ``source`` into ``target``, which is empty, and compare; how many rows there are.

    ``told`` hears of each table and its rows. Raises StoreIncompatible when there is something in the target already,
    and StoreError when the two are not the same afterwards.
    """
    with source.read():
        tables = _tables(source)
        _refuse_filled(target, tables)
        total = 0
        for table in tables:
            _copy_table(source, target, table)
            total += (rows := _compare(source, target, table))
            told(table, rows)
        newest = source.execute("SELECT seq FROM sqlite_sequence WHERE name = 'outbox'").fetchone()
    _go_on_counting(target, tables, int(newest[0]) if newest else 0)
    return total


def _tables(db: Database) -> list[str]:
    names = [row[0] for row in db.execute(_TABLES[db.shared])]
    return [name for name in names if name not in _NOT_COPIED and not name.startswith(("search_index", "sqlite_"))]


def _refuse_filled(target: Database, tables: Sequence[str]) -> None:
    with target.read():
        for table in tables:
            if target.execute(f'SELECT 1 FROM "{table}" LIMIT 1').fetchone():  # noqa: S608 - of our own schema
                raise StoreIncompatible(f"{target.name} is not empty (it has rows in {table}); copy into a new store")


def _columns(db: Database, table: str) -> list[str]:
    if db.shared:
        sql = "SELECT column_name FROM information_schema.columns WHERE table_schema = current_schema()"
        return [row[0] for row in db.execute(f"{sql} AND table_name = ? ORDER BY ordinal_position", (table,))]
    return [row[1] for row in db.execute(f'PRAGMA table_info("{table}")')]


def _copy_table(source: Database, target: Database, table: str) -> None:
    columns = _columns(source, table)
    names = ", ".join(f'"{name}"' for name in columns)
    with target.read():
        flags = {row[0] for row in target.execute(_FLAGS, (table,))} if target.shared else set()
    places = [place for place, name in enumerate(columns) if name in flags]
    insert = f'INSERT INTO "{table}" ({names}) VALUES ({", ".join("?" * len(columns))})'  # noqa: S608
    rows = source.rows(f'SELECT {names} FROM "{table}"')  # noqa: S608
    for chunk in _chunks(rows):
        with target.write():
            target.executemany(insert, [_with_flags(row, places) for row in chunk])


def _with_flags(row: Sequence[Any], places: Iterable[int]) -> list[Any]:
    """SQLite keeps truth as a number."""
    values = list(row)
    for place in places:
        values[place] = None if values[place] is None else bool(values[place])
    return values


def _chunks(rows: Iterator[Any]) -> Iterator[list[Any]]:
    chunk: list[Any] = []
    size = 0
    for row in rows:
        chunk.append(row)
        size += sum(len(value) for value in row if isinstance(value, str | bytes))
        if len(chunk) == _ROWS_AT_ONCE or size > _BYTES_AT_ONCE:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _compare(source: Database, target: Database, table: str) -> int:
    columns = _columns(source, table)
    with target.read():
        there = summed(target, table, columns)
    here = summed(source, table, columns)
    if here != there:
        raise StoreError(
            f"the copy of {table} is not the same ({here.rows} rows in {source.name}, {there.rows} in {target.name}); "
            "do not use it"
        )
    return here.rows


def summed(db: Database, table: str, columns: Sequence[str]) -> Sum:
    """The number of rows of a table and the sum of their digests. Inside ``read`` or ``write``."""
    names = ", ".join(f'"{name}"' for name in columns)
    count = total = 0
    for row in db.rows(f'SELECT {names} FROM "{table}"'):  # noqa: S608 - of our own schema
        count += 1
        total += int.from_bytes(sha256(repr([_plain(value) for value in row]).encode()).digest())
    return Sum(count, total % 2**256)


def _plain(value: Any) -> Any:
    return int(value) if isinstance(value, bool) else value


def _go_on_counting(target: Database, tables: Sequence[str], newest: int) -> None:
    """An id that was given is never given again."""
    with target.write():
        if not target.shared:
            target.execute("DELETE FROM sqlite_sequence WHERE name = 'outbox'")
            target.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('outbox', ?)", (newest,))
            return
        target.execute("UPDATE id_counter SET seq = ? WHERE name = 'outbox'", (newest,))
        for table in tables:
            if "id" in _columns(target, table) and (sequence := target.execute(_IDENTITY, (table,)).fetchone()[0]):
                highest = target.execute(f'SELECT max(id) FROM "{table}"').fetchone()[0]  # noqa: S608
                if highest is not None:
                    target.execute("SELECT setval(?::regclass, ?)", (sequence, highest))
