"""The change feed tells which entities a change made, changed and removed. JSON; NULL: none."""

from __future__ import annotations

from typing import Any


def up(_migrator: Any, db: Any) -> None:
    db.execute_sql("ALTER TABLE outbox ADD COLUMN entities TEXT")
