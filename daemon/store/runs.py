"""Runs: written when a job ends, read for the lists."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from daemon.model import Claim, Outcome, RunRecord, RunResult
from daemon.store import models as tables
from daemon.store.database import Database
from daemon.store.fields import instant_text, json_text, optional_plain

_INSERT = """
    INSERT INTO run (repository_id, branch_id, "trigger", triggers, outcome, "before", "after", started_at, finished_at,
                     added, modified, removed, requests, attempt, error, snapshot, entity_errors)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, (SELECT count(*) FROM entity_error WHERE branch_id = ?))
    RETURNING id
"""


def insert(db: Database, claim: Claim, result: RunResult, *, snapshot: int | None = None) -> int:
    """Write one run down; its id. ``snapshot`` is the number of the snapshot it made. Inside ``write``."""
    triggers = [trigger.value for trigger in claim.triggers]
    what = (claim.repository_id, claim.branch_id, triggers[0], json_text(triggers), result.outcome.value)
    where = (result.before, result.after, instant_text(result.started_at), instant_text(result.finished_at))
    counts = (result.added, result.modified, result.removed, result.requests, claim.attempt)
    end = (optional_plain(result.error), snapshot, claim.branch_id)
    rows = db.execute(_INSERT, (*what, *where, *counts, *end)).fetchall()
    return int(rows[0][0])


def select() -> Any:
    """The query every list of runs starts from: rows for ``record``, newest first."""
    run, branch, repository = tables.Run, tables.Branch, tables.Repository
    return (
        run.select(run, repository.owner, repository.name.alias("repository_name"), branch.name.alias("branch_name"))
        .join(branch, on=(run.branch == branch.id))
        .join(repository, on=(run.repository == repository.id))
        .order_by(run.id.desc())
        .namedtuples()
    )


def record(row: Any) -> RunRecord:
    return RunRecord(
        id=row.id,
        repository=f"{row.owner}/{row.repository_name}",
        branch=row.branch_name,
        trigger=row.trigger,
        triggers=tuple(row.triggers),
        outcome=row.outcome,
        before=row.before,
        after=row.after,
        started_at=row.started_at,
        finished_at=row.finished_at,
        added=row.added,
        modified=row.modified,
        removed=row.removed,
        entity_errors=row.entity_errors,
        requests=row.requests,
        attempt=row.attempt,
        error=row.error,
    )


def ended_at(db: Database, branch_id: int, sha: str) -> bool:
    """Whether a run of the branch ended with that head stored. Failed runs store nothing."""
    found = db.execute(
        'SELECT 1 FROM run WHERE branch_id = ? AND "after" = ? AND outcome <> ? LIMIT 1',
        (branch_id, sha, Outcome.FAILED.value),
    ).fetchone()
    return found is not None


def newest_superseding(db: Database, branch_id: int, before: datetime) -> int:
    """The latest snapshot made at or before an instant, 0 when there is none."""
    row = db.execute(
        "SELECT max(snapshot) FROM run WHERE branch_id = ? AND snapshot IS NOT NULL AND finished_at <= ?",
        (branch_id, instant_text(before)),
    ).fetchone()
    return int(row[0] or 0)
