"""Which repositories are due for a look, and what a round of looks has found, a batch in a few statements."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import groupby
from operator import attrgetter
from typing import Any

from daemon.globs import is_glob
from daemon.model import (
    BranchFacts,
    HeadsQuery,
    PollTarget,
    RemoteRepository,
    RepositoryRef,
    WebhookHealth,
)
from daemon.store import records
from daemon.store.database import Database
from daemon.store.fields import instant_text, optional_value

_TARGET = """
    SELECT id, github_id, owner, name, default_branch, archived, private, webhook, poll_failures, patterns, changed_at,
           polled_at, next_poll_at, last_error IS NOT NULL, hinted
    FROM repository WHERE tracked AND
"""
_DUE = f"""
    {_TARGET} (next_poll_at IS NULL OR next_poll_at <= ? OR polled_at > ?)
    ORDER BY polled_at IS NOT NULL, polled_at, id LIMIT ?
"""
_SOON = f"""
    {_TARGET} next_poll_at > ? AND next_poll_at <= ? AND polled_at <= ? ORDER BY next_poll_at, id LIMIT ?
"""
_TAKE = """
    UPDATE repository SET next_poll_at = ?, polled_at = CASE WHEN polled_at > ? THEN NULL ELSE polled_at END
    WHERE id = ?
"""
_POLLED = """
    UPDATE repository SET polled_at = ?, poll_failures = 0, last_error = NULL,
                          next_poll_at = CASE WHEN hinted AND NOT ? THEN next_poll_at ELSE ? END,
                          hinted = hinted AND NOT ?,
                          state = CASE WHEN state IN ('unknown', 'gone', 'blocked') THEN 'available' ELSE state END
    WHERE id = ?
"""
_CONFIRM = """
    UPDATE branch SET remote_sha = head_sha, remote_read_at = ?, confirmed_at = ?, gone = FALSE, empty = FALSE,
                      last_error = NULL
    WHERE id = ? AND head_sha = ?
"""


def due(db: Database, *, now: datetime, limit: int, ahead_seconds: float) -> list[PollTarget]:
    """See ``Repositories.due``. Inside ``read``."""
    at = instant_text(now)
    rows = db.execute(_DUE, (at, at, limit)).fetchall()
    if rows and ahead_seconds and len(rows) < limit:
        soon = instant_text(now + timedelta(seconds=ahead_seconds))
        rows += db.execute(_SOON, (at, soon, at, limit - len(rows))).fetchall()
    facts = branches(db, [row[0] for row in rows])
    return [_target(row, facts.get(row[0], [])) for row in rows]


def take(db: Database, targets: Sequence[PollTarget], *, until: datetime, now: datetime) -> list[PollTarget]:
    """See ``Repositories.take``. Inside ``write``."""
    marks = ",".join("?" * len(targets))
    ids = [target.repository_id for target in targets]
    sql = f"SELECT id, next_poll_at FROM repository WHERE id IN ({marks})"  # noqa: S608 - marks
    due_at = {id_: optional_value(at) for id_, at in db.execute(sql, ids)}
    kept = [target for target in targets if due_at.get(target.repository_id) == target.due_at]
    times = (instant_text(until), instant_text(now))
    db.executemany(_TAKE, [(*times, target.repository_id) for target in kept])
    return kept


def branches(db: Database, repository_ids: Sequence[int]) -> dict[int, list[BranchFacts]]:
    """The tracked branches of each of some repositories, by name."""
    facts = records.tracked_facts(db, repository_ids)
    return {repository_id: list(own) for repository_id, own in groupby(facts, key=attrgetter("repository_id"))}


def polled(db: Database, next_poll_at: Mapping[int, datetime], *, at: datetime, hinted: Collection[int]) -> None:
    """See ``Repositories.polled``. Inside ``write``."""
    began = instant_text(at)
    rows = [(began, id_ in hinted, instant_text(again), id_ in hinted, id_) for id_, again in next_poll_at.items()]
    db.executemany(_POLLED, rows)


def confirm(db: Database, heads: Iterable[tuple[int, str]], *, at: datetime) -> None:
    """See ``Repositories.confirm_all``. Inside ``write``."""
    read_at = instant_text(at)
    db.executemany(_CONFIRM, [(read_at, read_at, branch_id, head) for branch_id, head in heads])


@lru_cache(maxsize=1_000)
def _patterns(text: str) -> tuple[str, ...]:
    return tuple(json.loads(text))  # most repositories have the same


def _target(row: Sequence[Any], own: Sequence[BranchFacts]) -> PollTarget:
    id_, github_id, owner, name, default, archived, private, webhook, failures, patterns, *times, failed, hinted = row
    changed_at, polled_at, due_at = map(optional_value, times)
    tracked = _patterns(patterns)
    known = RemoteRepository(github_id, owner, name, default, bool(archived), bool(private)) if github_id else None
    query = HeadsQuery(
        repository=RepositoryRef(owner, name, github_id),
        branches=tuple(branch.name for branch in own if branch.name),
        known=tuple((branch.name, branch.head_sha) for branch in own if branch.name and branch.head_sha),
        every=any(map(is_glob, tracked)),
        fragile=failures > 0,
        identify=bool(hinted),
    )
    return PollTarget(
        repository_id=id_,
        query=query,
        health=WebhookHealth(webhook),
        failures=failures,
        patterns=tracked,
        branches=tuple(own),
        known=known,
        changed_at=changed_at,
        polled_at=polled_at,
        due_at=due_at,
        put_off=bool(failed),
    )
