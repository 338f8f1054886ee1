"""The one transaction that moves a branch to another commit. Inside ``write``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from daemon.errors import StoreError
from daemon.model import Claim, Commit, CommitChange, EntityNews, Entry, RunResult, SnapshotChange
from daemon.store import electing, feed, folders, jobs, runs
from daemon.store.database import Database
from daemon.store.fields import display_path, instant_text, json_text, optional_plain, plain
from daemon.store.models import CURRENT

_CLOSE = f"UPDATE entry SET until = ? WHERE branch_id = ? AND path = ? AND until = {CURRENT}"  # noqa: S608 - a constant
_OPEN = """
    INSERT INTO entry (branch_id, path, path_text, mode, sha, size, stored, since) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""
_BRANCH = """
    UPDATE branch SET head_sha = ?, tree_sha = ?, remote_sha = ?, remote_read_at = ?, confirmed_at = ?, synced_at = ?,
                      snapshot = ?, rules_digest = ?, tree_verified = ?, tree_error = ?, last_trigger = ?,
                      last_error = NULL, gone = FALSE, empty = FALSE
    WHERE id = ?
"""
_COMMIT = """
    INSERT INTO "commit" (branch_id, position, sha, tree_sha, parents, author_name, author_email, authored_at,
                          committed_at, message)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""


def apply(
    db: Database,
    claim: Claim,
    change: SnapshotChange,
    result: RunResult,
    *,
    commits: CommitChange | None,
    now: datetime,
    read_at: datetime,
    served: Sequence[int],
) -> int:
    """See ``Snapshots.apply``. The guard comes first: a stale token leaves before anything is written."""
    wish = jobs.release(db, claim, now)
    branch_id = claim.branch_id
    number = _next_snapshot(db, branch_id)
    _swap_entries(db, branch_id, change, number)
    if change.folders is not None:
        folders.apply(db, branch_id, change.folders)
    if commits is not None:
        _store_commits(db, branch_id, commits)
    _move_branch(db, claim, change, number, now=now, read_at=read_at)
    if result.before not in {None, change.head_sha}:
        db.execute("UPDATE repository SET changed_at = ? WHERE id = ?", (instant_text(now), claim.repository_id))
    entities = EntityNews()
    if change.entities is not None:
        entities = electing.apply(db, branch_id, change.entities, commit_sha=change.head_sha, now=now)
    run_id = runs.insert(db, claim, result, snapshot=number)
    feed.announce(db, branch_id, result.before, change.head_sha, paths=_shown_paths(change), entities=entities, now=now)
    jobs.complete(db, claim, wish, served=served, run_id=run_id, now=now, news=True)
    return run_id


def _next_snapshot(db: Database, branch_id: int) -> int:
    return int(db.execute("SELECT snapshot FROM branch WHERE id = ?", (branch_id,)).fetchone()[0]) + 1


def _swap_entries(db: Database, branch_id: int, change: SnapshotChange, number: int) -> None:
    """Close what goes, open what comes. The plan was made from what is stored: where they differ, it is void."""
    gone = [*(entry.path for entry in change.modified), *change.removed]
    if number > 1:  # the first snapshot cannot add what is there already
        gone.extend(entry.path for entry in change.added)
    closed = db.executemany(_CLOSE, [(number, branch_id, path) for path in gone])
    expected = len(change.modified) + len(change.removed)
    if closed != expected:
        raise StoreError(
            f"the change to {change.head_sha} was planned on other entries than those stored "
            f"(it closes {closed} of {expected}); it is planned anew"
        )
    db.executemany(_OPEN, _entry_rows(branch_id, (*change.added, *change.modified), number))


def _entry_rows(branch_id: int, entries: Iterable[Entry], number: int) -> Iterator[tuple[Any, ...]]:
    for entry in sorted(entries, key=lambda entry: entry.path):  # the key's order: neighbours share pages
        path = entry.path
        yield branch_id, path, display_path(path), entry.mode, entry.sha, entry.size, entry.stored, number


def _store_commits(db: Database, branch_id: int, change: CommitChange) -> None:
    row = db.execute('SELECT max(position) FROM "commit" WHERE branch_id = ?', (branch_id,)).fetchone()
    top = int(row[0] or 0)  # before anything goes: a position once used is never another commit's
    if change.replace:
        _drop_commits(db, branch_id, change.keep_below)
    db.executemany(
        _COMMIT,
        [_commit_row(branch_id, top + number, commit) for number, commit in enumerate(reversed(change.prepend), 1)],
    )


def _drop_commits(db: Database, branch_id: int, keep_below: str | None) -> None:
    row = db.execute(
        'SELECT max(position) FROM "commit" WHERE branch_id = ? AND sha = ?', (branch_id, keep_below)
    ).fetchone()
    db.execute('DELETE FROM "commit" WHERE branch_id = ? AND position >= ?', (branch_id, row[0] or 0))


def _commit_row(branch_id: int, position: int, commit: Commit) -> tuple[Any, ...]:
    author = (plain(commit.author_name), plain(commit.author_email), commit.authored_at)
    ids = (commit.sha, commit.tree_sha, json_text(list(commit.parents)))
    return (branch_id, position, *ids, *author, commit.committed_at, plain(commit.message))


def _move_branch(
    db: Database, claim: Claim, change: SnapshotChange, number: int, *, now: datetime, read_at: datetime
) -> None:
    read = instant_text(read_at)
    head = (change.head_sha, change.tree_sha, change.head_sha, read, read, instant_text(now))
    proof = (number, change.rules_digest, change.tree_verified, optional_plain(change.tree_error))
    db.execute(_BRANCH, (*head, *proof, claim.triggers[0].value, claim.branch_id))


def _shown_paths(change: SnapshotChange) -> tuple[list[str], list[str], list[str]]:
    added = [display_path(entry.path) for entry in change.added]
    modified = [display_path(entry.path) for entry in change.modified]
    return added, modified, [display_path(path) for path in change.removed]
