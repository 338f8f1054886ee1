"""Polling at the right pace: when a repository last changed, and what is left of each token's budget."""

from __future__ import annotations

from typing import Any

STATEMENTS = (
    "ALTER TABLE repository ADD COLUMN changed_at TEXT",
    """
    CREATE TABLE budget (
        mark TEXT NOT NULL,
        resource TEXT NOT NULL,
        quota INTEGER,
        remaining INTEGER,
        reset_at TEXT,
        paused_until TEXT,
        updated_at TEXT NOT NULL,
        PRIMARY KEY (mark, resource)
    )
    """,
)


def up(_migrator: Any, db: Any) -> None:
    for statement in STATEMENTS:
        db.execute_sql(statement)
