"""The tree ids of every folder of the current snapshot, so that a small change recomputes only what it touches; and
whether a first sync has begun to read an archive, so that the next attempt asks only for what is missing.

A snapshot that was stored before has none: the next change of its branch takes the whole tree and writes them.
"""

from __future__ import annotations

from typing import Any

STATEMENTS = (
    """
    CREATE TABLE folder (
        branch_id INTEGER NOT NULL REFERENCES branch (id),
        parent BLOB NOT NULL,
        path BLOB NOT NULL,
        tree_sha TEXT NOT NULL,
        PRIMARY KEY (branch_id, parent, path)
    ) WITHOUT ROWID
    """,
    "ALTER TABLE branch ADD COLUMN archive_sha TEXT",
)


def up(_migrator: Any, db: Any) -> None:
    for statement in STATEMENTS:
        db.execute_sql(statement)
