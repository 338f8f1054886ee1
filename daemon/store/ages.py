"""Which rows are old, by ids and not by their times alone: a row that was stamped under a wrong clock has no age."""

from __future__ import annotations

from datetime import datetime

from daemon.store.database import Database
from daemon.store.fields import instant_text

# A machine without a battery begins in 1970. Nothing was stored before this program was written.
_BEGAN = "2026-01-01"


def first_kept(db: Database, table: str, column: str, oldest: datetime) -> int:
    """The id from which on rows are kept, those of ``oldest`` and younger. Inside ``read`` or ``write``.

    Ids grow with time, so it is found without an index; and a row whose time is before all others' is as old as the
    row after it, never older: of times before any that can be true nothing is concluded.
    """
    names = f"FROM {table} WHERE {column}"  # constants
    row = db.execute(f"SELECT id {names} >= ? ORDER BY id LIMIT 1", (instant_text(oldest),)).fetchone()
    young = row[0] if row is not None else 1 + db.execute(f"SELECT coalesce(max(id), 0) FROM {table}").fetchone()[0]  # noqa: S608
    row = db.execute(f"SELECT max(id) {names} >= ? AND id < ?", (_BEGAN, young)).fetchone()
    return 1 + int(row[0] or 0)
