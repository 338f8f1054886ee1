"""Actions: what each has seen of the outbox, what it has done of that on each branch, and when it tries again.

Two facts a pair of action and branch: ``wanted_id`` is the newest outbox row that it is meant to act on, ``done_id``
the last one that it needs not look at again. Progress is committed after the act, so that a kill in between repeats it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from daemon.model import ActionIdentity, ActionRecord, ActionResult, ActionTask, BranchChange, RepositoryRef
from daemon.store.database import Database
from daemon.store.feed import entity_news
from daemon.store.fields import instant_text, optional_plain, optional_value

Matches = Callable[[str, BranchChange], bool]

_SCAN_ROWS = 200
# A wall clock that was set back must not put an attempt off for longer than any backoff lasts.
_BEYOND_ANY_BACKOFF = timedelta(hours=2)

_ADD = """
    INSERT INTO action (key, position, kind, target, scanned_id)
    VALUES (?, ?, ?, ?, (SELECT coalesce(max(id), 0) FROM outbox))
    ON CONFLICT (key) DO UPDATE SET position = excluded.position, target = excluded.target
"""
_CHANGES = """
    SELECT outbox.id, outbox.branch_id, repository.owner, repository.name, repository.github_id, branch.name,
           outbox."before", outbox."after", outbox.added, outbox.modified, outbox.removed, outbox.entities
    FROM outbox JOIN branch ON branch.id = outbox.branch_id JOIN repository ON repository.id = branch.repository_id
    WHERE outbox.type = 'branch.changed'
"""
_WANT = """
    INSERT INTO action_state (action, branch_id, wanted_id, done_id) VALUES (?, ?, ?, ?)
    ON CONFLICT (action, branch_id) DO UPDATE SET wanted_id = excluded.wanted_id
"""
_FORCE = """
    INSERT INTO action_state (action, branch_id, wanted_id, done_id, forced)
    VALUES (?, ?, (SELECT scanned_id FROM action WHERE key = ?), (SELECT scanned_id FROM action WHERE key = ?), TRUE)
    ON CONFLICT (action, branch_id) DO UPDATE SET forced = TRUE
"""
_WAITING = "(state.wanted_id > state.done_id OR state.forced)"
_DUE = f"""
    SELECT state.action, state.branch_id FROM action_state AS state
    WHERE {_WAITING} AND (state.run_after IS NULL OR state.run_after <= ? OR state.run_after > ?)
    ORDER BY state.done_id
"""  # noqa: S608 - constants, here and below
_NEXT_DUE = f"SELECT min(state.run_after) FROM action_state AS state WHERE {_WAITING}"  # noqa: S608
_TASK = f"""
    SELECT repository.owner, repository.name, repository.github_id, branch.name,
           state.wanted_id, state.done_id, state.attempts
    FROM action_state AS state JOIN branch ON branch.id = state.branch_id
         JOIN repository ON repository.id = branch.repository_id
    WHERE state.action = ? AND state.branch_id = ? AND {_WAITING}
"""  # noqa: S608
_DONE = """
    UPDATE action_state SET done_id = max(done_id, ?), forced = FALSE, attempts = 0, run_after = NULL,
                            commit_sha = ?, last_error = NULL, note = ?, output = ?, finished_at = ?
    WHERE action = ? AND branch_id = ?
"""
_FAILED = """
    UPDATE action_state SET attempts = attempts + 1, run_after = ?, last_error = ?, note = ?, output = ?,
                            finished_at = ?
    WHERE action = ? AND branch_id = ?
"""
# A change that was not held against the filters yet may be one to act on: "done" must not be said too early.
_PENDING = f"""
    ({_WAITING} OR EXISTS (SELECT 1 FROM outbox WHERE outbox.branch_id = state.branch_id
                           AND outbox.id > (SELECT scanned_id FROM action WHERE key = state.action)))
"""  # noqa: S608
_FAILING = """
    SELECT repository.owner || '/' || repository.name, count(*), min(state.last_error)
    FROM action_state AS state JOIN branch ON branch.id = state.branch_id
         JOIN repository ON repository.id = branch.repository_id
    WHERE state.last_error IS NOT NULL
    GROUP BY repository.id, repository.owner, repository.name ORDER BY repository.full_name
"""
_RECORDS = f"""
    SELECT action.key, action.kind, action.target, state.branch_id, repository.owner || '/' || repository.name,
           branch.name, {_PENDING}, state.attempts, state.run_after, state.commit_sha, state.last_error, state.note,
           state.output, state.finished_at
    FROM action LEFT JOIN action_state AS state ON state.action = action.key
         LEFT JOIN branch ON branch.id = state.branch_id LEFT JOIN repository ON repository.id = branch.repository_id
    WHERE (action.key, coalesce(state.branch_id, 0)) > (?, ?)
    ORDER BY action.key, coalesce(state.branch_id, 0) LIMIT ?
"""  # noqa: S608
_COUNTS = f"""
    SELECT (SELECT count(*) FROM action),
           (SELECT count(*) FROM action_state AS state WHERE {_PENDING} AND state.last_error IS NULL),
           (SELECT count(*) FROM action_state AS state WHERE state.last_error IS NOT NULL)
"""  # noqa: S608
_OLDEST_NEEDED = """
    SELECT min(needed) FROM (
        SELECT min(scanned_id) + 1 AS needed FROM action
        UNION ALL
        SELECT min(done_id) + 1 FROM action_state WHERE wanted_id > done_id) AS needs
"""


class Actions:
    """The progress of every configured action on every branch."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def configure(self, actions: Sequence[ActionIdentity]) -> None:
        """Know exactly these. A new one begins behind the newest change; what is known of others goes."""
        keys = [action.key for action in actions]
        marks = ",".join("?" * len(keys))
        with self._db.write():
            self._db.execute(f"DELETE FROM action_state WHERE action NOT IN ({marks})", keys)  # noqa: S608
            self._db.execute(f"DELETE FROM action WHERE key NOT IN ({marks})", keys)  # noqa: S608
            self._db.execute("DELETE FROM action_state WHERE branch_id IN (SELECT id FROM branch WHERE NOT tracked)")
            for position, action in enumerate(actions):
                self._db.execute(_ADD, (action.key, position, action.kind, action.target))

    # -- what is to be done -----------------------------------------------------------------------

    def scan(self, matches: Matches) -> int:
        """Hold new changes against the actions' filters, and note who has to act on what; how many were looked at."""
        with self._db.read():
            scanned = dict(self._db.execute("SELECT key, scanned_id FROM action").fetchall())
            sql = f"{_CHANGES} AND outbox.id > ? ORDER BY outbox.id LIMIT ?"
            found = self._db.execute(sql, (min(scanned.values()), _SCAN_ROWS)).fetchall() if scanned else []
        changes = [_change(row) for row in found]
        if changes:
            wanted = [
                (key, change.branch_id, change.id, change.id - 1)
                for change in changes
                for key, already in scanned.items()
                if change.id > already and matches(key, change)
            ]
            with self._db.write():
                self._db.executemany(_WANT, wanted)
                newest = changes[-1].id
                self._db.execute("UPDATE action SET scanned_id = ? WHERE scanned_id < ?", (newest, newest))
        return len(changes)

    def force(self, pairs: Iterable[tuple[str, int]]) -> None:
        """Have these actions look after these branches, changed or not."""
        with self._db.write():
            self._db.executemany(_FORCE, [(key, branch_id, key, key) for key, branch_id in pairs])

    def due(self, now: datetime) -> list[tuple[str, int]]:
        """Action and branch of whatever may be done now, that which waits longest first."""
        with self._db.read():
            return self._db.execute(_DUE, (instant_text(now), instant_text(now + _BEYOND_ANY_BACKOFF))).fetchall()

    def next_due(self, now: datetime) -> float | None:
        """Seconds until the next attempt that is put off; None when there is none."""
        with self._db.read():
            at = optional_value(self._db.execute(_NEXT_DUE).fetchone()[0])
        return None if at is None else max(0.0, (at - now).total_seconds())

    def task(self, key: str, branch_id: int) -> ActionTask | None:
        """What the action has to do next on the branch; None when it is done or not configured any more."""
        with self._db.read():
            row = self._db.execute(_TASK, (key, branch_id)).fetchone()
            if row is None:
                return None
            owner, name, github_id, branch, wanted_id, done_id, attempts = row
            sql = f"{_CHANGES} AND outbox.branch_id = ? AND outbox.id > ? AND outbox.id <= ? ORDER BY outbox.id LIMIT 1"
            found = self._db.execute(sql, (branch_id, done_id, wanted_id)).fetchone()
        repository = RepositoryRef(owner, name, github_id)
        return ActionTask(
            key, branch_id, repository, branch, wanted_id, attempts, None if found is None else _change(found)
        )

    def tracked(self) -> list[tuple[int, RepositoryRef, str]]:
        """Id, repository and name of every tracked branch that has been synced."""
        sql = """
            SELECT branch.id, owner, repository.name, github_id, branch.name
            FROM branch JOIN repository ON repository.id = branch.repository_id
            WHERE branch.tracked AND repository.tracked AND branch.head_sha IS NOT NULL ORDER BY branch.id
        """
        with self._db.read():
            rows = self._db.execute(sql).fetchall()
        return [(row[0], RepositoryRef(row[1], row[2], row[3]), row[4]) for row in rows]

    # -- how it ended -----------------------------------------------------------------------------

    def done(
        self, task: ActionTask, result: ActionResult, *, up_to: int, commit_sha: str | None, now: datetime
    ) -> None:
        """The action has acted on everything up to the outbox row ``up_to``."""
        told = (commit_sha, optional_plain(result.note), optional_plain(result.output), instant_text(now))
        with self._db.write():
            self._db.execute(_DONE, (up_to, *told, task.action, task.branch_id))

    def skip(self, task: ActionTask, *, up_to: int) -> None:
        """Nothing up to ``up_to`` concerns the action."""
        with self._db.write():
            self._db.execute(
                "UPDATE action_state SET done_id = max(done_id, ?) WHERE action = ? AND branch_id = ?",
                (up_to, task.action, task.branch_id),
            )

    def failed(self, task: ActionTask, result: ActionResult, *, run_after: datetime, now: datetime) -> None:
        """It is tried again after ``run_after``; nothing later is done on the branch before."""
        told = (optional_plain(result.error), optional_plain(result.note), optional_plain(result.output))
        with self._db.write():
            at = (instant_text(run_after), *told, instant_text(now))
            self._db.execute(_FAILED, (*at, task.action, task.branch_id))

    def retry(self, key: str | None = None) -> int:
        """Let what is put off be tried at once, of one action or of all; how many branches that concerns."""
        with self._db.write():
            return self._db.execute(
                "UPDATE action_state SET run_after = NULL, attempts = 0 "
                "WHERE last_error IS NOT NULL AND (? IS NULL OR action = ?)",
                (key, key),
            ).rowcount

    # -- for readers ------------------------------------------------------------------------------

    def oldest_needed(self) -> int | None:
        """See ``oldest_needed_by_actions``, in a transaction of its own."""
        with self._db.read():
            return oldest_needed_by_actions(self._db)

    def knows(self, key: str) -> bool:
        with self._db.read():
            return self._db.execute("SELECT 1 FROM action WHERE key = ?", (key,)).fetchone() is not None

    def records(self, *, after: tuple[str, int] | None, limit: int) -> list[ActionRecord]:
        """Every action on every branch it was meant to act on, by action and branch id, beyond ``after``."""
        with self._db.read():
            rows = self._db.execute(_RECORDS, (*(after or ("", -1)), limit)).fetchall()
        return [_record(row) for row in rows]

    def failing(self) -> list[tuple[str, int, str]]:
        """The repositories on whose branches actions fail, by name: on how many, and one of the errors."""
        with self._db.read():
            return [(row[0], int(row[1]), row[2]) for row in self._db.execute(_FAILING)]

    def counts(self) -> dict[str, int]:
        """How many actions there are, and on how many branches they wait or fail."""
        with self._db.read():
            row = self._db.execute(_COUNTS).fetchone()
        return dict(zip(("configured", "pending", "failed"), row, strict=True))


def oldest_needed_by_actions(db: Database) -> int | None:
    """The outbox row from which on actions still need them all; None without actions. Inside ``read`` or ``write``."""
    found: int | None = db.execute(_OLDEST_NEEDED).fetchone()[0]
    return found


def _change(row: Any) -> BranchChange:
    id_, branch_id, owner, name, github_id, branch, before, after, *paths, entities = row
    added, modified, removed = (tuple(json.loads(text)) for text in paths)
    repository = RepositoryRef(owner, name, github_id)
    news = entity_news(entities)
    return BranchChange(id_, branch_id, repository, branch, before, after, added, modified, removed, news)


def _record(row: Any) -> ActionRecord:
    *identity, pending, attempts, run_after, commit_sha, last_error, note, output, finished_at = row
    action, kind, target, branch_id, repository, branch = identity
    return ActionRecord(
        action=action,
        kind=kind,
        target=target,
        branch_id=branch_id,
        repository=repository,
        branch=branch,
        pending=bool(pending),
        attempts=attempts or 0,
        run_after=optional_value(run_after),
        commit_sha=commit_sha,
        last_error=last_error,
        note=note,
        output=output,
        finished_at=optional_value(finished_at),
    )
