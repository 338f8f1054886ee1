"""Owners whose repositories are looked for, the names that repositories had, and what became of replaced ones.

``former_name`` leads from a name to the repository that gave it up, until another repository takes it.
"""

from __future__ import annotations

from typing import Any

STATEMENTS = (
    "ALTER TABLE repository ADD COLUMN hinted BOOLEAN NOT NULL DEFAULT FALSE",
    "ALTER TABLE repository ADD COLUMN replaced_at TEXT",
    "ALTER TABLE repository ADD COLUMN pruned BOOLEAN NOT NULL DEFAULT FALSE",
    """
    CREATE TABLE former_name (
        full_name TEXT NOT NULL PRIMARY KEY,
        repository_id INTEGER NOT NULL REFERENCES repository (id)
    )
    """,
    "CREATE INDEX former_name_repository ON former_name (repository_id)",
    """
    INSERT INTO former_name (full_name, repository_id)
    SELECT configured_as, min(id) FROM repository
    WHERE configured_as NOT IN (SELECT full_name FROM repository) GROUP BY configured_as
    """,
    """
    CREATE TABLE owner (
        configured_as TEXT NOT NULL PRIMARY KEY,
        looked_at TEXT,
        next_look_at TEXT,
        hinted_at TEXT,
        failures INTEGER NOT NULL DEFAULT 0,
        last_error TEXT
    )
    """,
)


def up(_migrator: Any, db: Any) -> None:
    for statement in STATEMENTS:
        db.execute_sql(statement)
