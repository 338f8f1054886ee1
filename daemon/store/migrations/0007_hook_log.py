"""GitHub's delivery log: when it is read next, up to when it was read, and what it says is wrong."""

from __future__ import annotations

from typing import Any

STATEMENTS = (
    "ALTER TABLE repository ADD COLUMN webhook_reason TEXT",
    "ALTER TABLE repository ADD COLUMN hook_log_due_at TEXT",
    "ALTER TABLE repository ADD COLUMN hook_log_until TEXT",
    "ALTER TABLE repository ADD COLUMN hook_log_missed INTEGER NOT NULL DEFAULT 0",
)


def up(_migrator: Any, db: Any) -> None:
    for statement in STATEMENTS:
        db.execute_sql(statement)
