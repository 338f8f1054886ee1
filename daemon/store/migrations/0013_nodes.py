"""The daemons that share the store, and what one of them does for all."""

from __future__ import annotations

from typing import Any

TABLES = (
    """
    CREATE TABLE node (
        id TEXT NOT NULL PRIMARY KEY,
        host TEXT NOT NULL,
        pid INTEGER NOT NULL,
        version TEXT NOT NULL,
        started_at TEXT NOT NULL,
        heartbeat_at TEXT NOT NULL,
        config_digest TEXT NOT NULL,
        admin_url TEXT
    )
    """,
    """
    CREATE TABLE lease (
        name TEXT NOT NULL PRIMARY KEY,
        owner TEXT NOT NULL,
        until TEXT NOT NULL
    )
    """,
)


def up(_migrator: Any, db: Any) -> None:
    for statement in TABLES:
        db.execute_sql(statement)
