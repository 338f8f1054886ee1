"""What happened: deliveries as they came, runs as they ended, and how long both are kept."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from daemon.errors import StoreInterrupted
from daemon.model import Delivery, DeliveryRecord, DeliveryStatus, RunRecord
from daemon.store import models as tables
from daemon.store import runs
from daemon.store.ages import first_kept
from daemon.store.arrivals import Arrivals, NeedsTurn
from daemon.store.database import Database

_BATCH = 1000

_SWEEP_DELIVERIES = """
    DELETE FROM delivery WHERE id IN (
        SELECT id FROM delivery WHERE id < ? AND NOT (status = 'accepted' AND NOT acted) ORDER BY id LIMIT ?)
"""
# The run that made a branch's current snapshot tells readers which commit an older one was.
_SWEEP_RUNS = """
    DELETE FROM run WHERE id IN (
        SELECT run.id FROM run JOIN branch ON branch.id = run.branch_id
        WHERE run.id <= ? AND (run.snapshot IS NULL OR run.snapshot < branch.oldest_snapshot)
        ORDER BY run.id LIMIT ?)
"""


class History:
    """Deliveries and runs."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def store_deliveries(self, deliveries: Sequence[Delivery], *, now: datetime) -> list[DeliveryStatus]:
        """Store deliveries, and the wishes of those accepted, in one durable transaction; what became of each.

        Raises StoreUnavailable: then none of them is stored.
        """
        if self._db.shared:
            with suppress(NeedsTurn, StoreInterrupted):  # two that lock each other out: one of them goes on alone
                return self._store(deliveries, now, together=True)
        try:
            return self._store(deliveries, now)
        except StoreInterrupted:  # nothing of it is stored; GitHub would not send it again
            return self._store(deliveries, now)

    def _store(self, deliveries: Sequence[Delivery], now: datetime, *, together: bool = False) -> list[DeliveryStatus]:
        with self._db.write(together=together):
            arrivals = Arrivals(self._db, now, together=together)
            if together:
                arrivals.expect(deliveries)
            outcomes = [arrivals.store(delivery) for delivery in deliveries]
            arrivals.flush()
        return outcomes

    def runs(
        self,
        *,
        repository_id: int | None = None,
        branch_id: int | None = None,
        before_id: int | None,
        limit: int,
    ) -> list[RunRecord]:
        """Runs, newest first, of one repository, of one branch or of all, below ``before_id``."""
        query = runs.select().limit(limit)
        if repository_id is not None:
            query = query.where(tables.Run.repository == repository_id)
        if branch_id is not None:
            query = query.where(tables.Run.branch == branch_id)
        if before_id is not None:
            query = query.where(tables.Run.id < before_id)
        with self._db.read():
            return [runs.record(row) for row in self._db.run(query)]

    def run(self, run_id: int) -> RunRecord | None:
        with self._db.read():
            rows = list(self._db.run(runs.select().where(tables.Run.id == run_id)))
        return runs.record(rows[0]) if rows else None

    def deliveries(self, *, before_id: int | None, limit: int) -> list[DeliveryRecord]:
        """Deliveries, newest first, below ``before_id``."""
        table = tables.Delivery
        query = table.select().order_by(table.id.desc()).limit(limit).namedtuples()
        if before_id is not None:
            query = query.where(table.id < before_id)
        with self._db.read():
            return [_delivery(row) for row in self._db.run(query)]

    def sweep(self, *, now: datetime, delivery_retention_seconds: float, run_keep: int = 100_000) -> int:
        """Drop deliveries older than the retention, and all but the newest ``run_keep`` runs.

        A delivery that waits for its sync stays whatever its age. Many short transactions; how many rows went.
        """
        oldest = now - timedelta(seconds=delivery_retention_seconds)
        with self._db.read():
            delivery = first_kept(self._db, "delivery", "received_at", oldest)
            newest_run = self._db.execute("SELECT max(id) FROM run").fetchone()[0] or 0
        return self._delete_batches(_SWEEP_DELIVERIES, delivery) + self._delete_batches(
            _SWEEP_RUNS, newest_run - run_keep
        )

    def _delete_batches(self, sql: str, bound: int) -> int:
        total = 0
        while True:
            with self._db.write():
                gone = self._db.execute(sql, (bound, _BATCH)).rowcount
            total += gone
            if gone < _BATCH:
                return total


def _delivery(row: Any) -> DeliveryRecord:
    return DeliveryRecord(
        id=row.id,
        guid=row.guid,
        event=row.event,
        action=row.action,
        repository=row.repository,
        ref=row.ref,
        before=row.before,
        after=row.after,
        received_at=row.received_at,
        status=row.status,
        reason=row.reason,
        run_id=row.run_id,
        attempts=row.attempts,
    )
