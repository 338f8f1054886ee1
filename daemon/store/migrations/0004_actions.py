"""Actions: how far each has looked through the outbox, and how far it has come on each branch."""

from __future__ import annotations

from typing import Any

TABLES = (
    """
    CREATE TABLE action (
        key TEXT NOT NULL PRIMARY KEY,
        position INTEGER NOT NULL,
        kind TEXT NOT NULL,
        target TEXT NOT NULL,
        scanned_id BIGINT NOT NULL
    )
    """,
    """
    CREATE TABLE action_state (
        action TEXT NOT NULL REFERENCES action (key) ON DELETE CASCADE,
        branch_id INTEGER NOT NULL REFERENCES branch (id),
        wanted_id BIGINT NOT NULL,
        done_id BIGINT NOT NULL,
        forced BOOLEAN NOT NULL DEFAULT FALSE,
        attempts INTEGER NOT NULL DEFAULT 0,
        run_after TEXT,
        commit_sha TEXT,
        last_error TEXT,
        note TEXT,
        output TEXT,
        finished_at TEXT,
        PRIMARY KEY (action, branch_id)
    )
    """,
)


def up(_migrator: Any, db: Any) -> None:
    for statement in TABLES:
        db.execute_sql(statement)
