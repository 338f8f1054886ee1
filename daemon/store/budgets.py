"""What is left of each token's budget, so that a restart, or another daemon, does not ask through a pause."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from daemon.model import BudgetRecord, Topic
from daemon.store.database import Database
from daemon.store.fields import instant_text, optional_text, optional_value

KEPT = timedelta(days=1)  # no limit lasts as long; a token may be gone by then

# A pause that another daemon has found lasts, whatever this one has seen since.
_SAVE = """
    INSERT INTO budget (mark, resource, quota, remaining, reset_at, paused_until, updated_at)
    VALUES (?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (mark, resource) DO UPDATE SET
        quota = excluded.quota, remaining = excluded.remaining, reset_at = excluded.reset_at,
        paused_until = CASE WHEN budget.paused_until > excluded.paused_until OR excluded.paused_until IS NULL
                            THEN budget.paused_until ELSE excluded.paused_until END,
        updated_at = excluded.updated_at
"""
_LOAD = "SELECT mark, resource, quota, remaining, reset_at, paused_until FROM budget ORDER BY mark, resource"


class Budgets:
    """The budgets of every token that was used within a day."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def save(self, budgets: Iterable[BudgetRecord], *, now: datetime) -> None:
        """Write down what is known, and forget what is old. Raises StoreUnavailable."""
        at = instant_text(now)
        with self._db.write():
            rows = list(budgets)
            self._db.executemany(_SAVE, [(*_row(one), at) for one in rows])
            if any(one.paused_until is not None for one in rows):
                self._db.tell(Topic.BUDGET)
            self._db.execute("DELETE FROM budget WHERE updated_at < ?", (instant_text(now - KEPT),))

    def load(self) -> list[BudgetRecord]:
        with self._db.read():
            return [_record(*row) for row in self._db.execute(_LOAD)]


def _row(one: BudgetRecord) -> tuple[Any, ...]:
    times = (optional_text(one.reset_at), optional_text(one.paused_until))
    return (one.mark, one.resource, one.limit, one.remaining, *times)


def _record(mark: str, resource: str, *numbers: Any) -> BudgetRecord:
    limit, remaining, reset_at, paused_until = numbers
    return BudgetRecord(mark, resource, limit, remaining, optional_value(reset_at), optional_value(paused_until))
