"""Rows of repositories and branches as the frozen values that leave the store. Inside ``read`` or ``write``."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any

from peewee import SQL

from daemon.model import (
    BranchFacts,
    BranchRecord,
    RepositoryRecord,
    RepositoryState,
    WebhookHealth,
)
from daemon.store import models as tables
from daemon.store.database import Database
from daemon.store.fields import optional_value

_FACTS = """
    SELECT id, repository_id, name, head_sha, tree_sha, remote_sha, remote_read_at, snapshot, rules_digest,
           tree_verified, gone, empty, collections_digest
    FROM branch
"""
_JOB_STATE = SQL(
    "CASE WHEN lease_owner IS NOT NULL THEN 'running' WHEN parked THEN 'failed'"
    " WHEN wanted_generation > done_generation THEN 'pending' ELSE 'idle' END"
)


def facts(db: Database, branch_id: int) -> BranchFacts:
    """What is stored of a branch. Raises LookupError."""
    found = _facts(db, "id = ?", [branch_id])
    if not found:
        raise LookupError(f"there is no branch {branch_id}")
    return found[0]


def tracked_facts(db: Database, repository_ids: Sequence[int]) -> list[BranchFacts]:
    """The tracked branches of some repositories, by name."""
    among = ",".join("?" * len(repository_ids))
    return _facts(db, f"tracked AND repository_id IN ({among})", repository_ids) if repository_ids else []


def _facts(db: Database, condition: str, params: Sequence[int]) -> list[BranchFacts]:
    """By plain SQL: a poll reads a hundred at a time, and peewee would take ten times as long."""
    rows = db.execute(f"{_FACTS} WHERE {condition} ORDER BY repository_id, name", params).fetchall()
    return [_branch_facts(row) for row in rows]


def _branch_facts(row: Sequence[Any]) -> BranchFacts:
    id_, repository_id, name, head, tree, remote, read_at, snapshot, digest, verified, gone, empty, collections = row
    return BranchFacts(
        id=id_,
        repository_id=repository_id,
        name=name,
        head_sha=head,
        tree_sha=tree,
        remote_sha=remote,
        remote_read_at=optional_value(read_at),
        snapshot=snapshot,
        rules_digest=digest,
        tree_verified=None if verified is None else bool(verified),
        gone=bool(gone),
        empty=bool(empty),
        collections_digest=collections,
    )


def repositories(db: Database, condition: Any, limit: int) -> list[RepositoryRecord]:
    """Tracked repositories by full name, with their tracked branches."""
    return _repositories(db, tables.Repository.tracked & condition, limit)


def repository(db: Database, repository_id: int) -> RepositoryRecord | None:
    """One that is tracked, or kept after another repository took its name."""
    table = tables.Repository
    shown = table.tracked | table.replaced_at.is_null(False) & ~table.pruned
    found = _repositories(db, (table.id == repository_id) & shown, 1)
    return found[0] if found else None


def _repositories(db: Database, condition: Any, limit: int) -> list[RepositoryRecord]:
    table = tables.Repository
    rows = list(db.run(table.select().where(condition).order_by(table.full_name).limit(limit).namedtuples()))
    branches = _branches(db, [row.id for row in rows])
    return [_repository(row, branches.get(row.id, [])) for row in rows]


def _branches(db: Database, repository_ids: Sequence[int]) -> dict[int, list[Any]]:
    branch, job = tables.Branch, tables.Job
    query = (
        branch.select(branch, _JOB_STATE.alias("job_state"), job.last_error.alias("job_error"))
        .join(job, on=(job.branch == branch.id))
        .where(branch.tracked & branch.repository.in_(list(repository_ids)))
        .order_by(branch.repository, branch.name)
        .namedtuples()
    )
    return {id_: list(rows) for id_, rows in groupby(db.run(query), key=attrgetter("repository"))}


def _repository(row: Any, branches: Sequence[Any]) -> RepositoryRecord:
    return RepositoryRecord(
        id=row.id,
        github_id=row.github_id,
        owner=row.owner,
        name=row.name,
        default_branch=row.default_branch,
        state=RepositoryState(row.state),
        webhook=WebhookHealth(row.webhook),
        missed_webhooks=row.missed_webhooks,
        webhook_reason=row.webhook_reason,
        last_error=row.last_error or _error_before_its_name(branches),
        next_poll_at=row.next_poll_at,
        polled_at=row.polled_at,
        archived=row.archived,
        replaced=row.replaced_at is not None,
        found_by=row.configured_as if (row.configured_as or "").endswith("/*") else None,
        branches=tuple(_branch(branch) for branch in branches if branch.name),
        job_states=tuple(branch.job_state for branch in branches),
    )


def _error_before_its_name(branches: Sequence[Any]) -> str | None:
    """What went wrong with the default branch while its name is unknown: there is no branch yet to tell it of."""
    return next((row.last_error or row.job_error for row in branches if not row.name), None)


def _branch(row: Any) -> BranchRecord:
    return BranchRecord(
        id=row.id,
        name=row.name,
        head_sha=row.head_sha,
        tree_sha=row.tree_sha,
        remote_sha=row.remote_sha,
        synced_at=row.synced_at,
        confirmed_at=row.confirmed_at,
        tree_verified=row.tree_verified,
        tree_error=row.tree_error,
        last_error=row.last_error,
        last_trigger=row.last_trigger,
        gone=row.gone,
        empty=row.empty,
        job_state=row.job_state,
        waiting_for=row.job_error if row.last_error is None else None,
    )
