"""Branch rows: which exist, which are tracked, and which one is the default. All inside ``write``."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from fnmatch import fnmatchcase

from daemon.globs import is_glob
from daemon.model import Topic, Trigger
from daemon.store import wishes
from daemon.store.database import Database

_ENSURE = """
    INSERT INTO branch (repository_id, name) VALUES (?, ?)
    ON CONFLICT (repository_id, name) DO UPDATE SET tracked = TRUE
    RETURNING id
"""


def ensure(db: Database, repository_id: int, name: str) -> int:
    """The tracked branch of that name, made with its job when it is new; its id."""
    branch_id = int(db.execute(_ENSURE, (repository_id, name)).fetchall()[0][0])
    wishes.create(db, branch_id)
    return branch_id


def find(db: Database, repository_id: int, name: str) -> int | None:
    """The tracked branch of that name, where there is one."""
    return _find(db, "tracked AND repository_id = ? AND name = ?", repository_id, name)


def track(db: Database, repository_id: int, patterns: Sequence[str], *, now: datetime) -> None:
    """Track the branches that are configured; the default branch where none are."""
    if patterns:
        track_patterns(db, repository_id, patterns)
    else:
        track_default(db, repository_id, now=now)


def track_default(db: Database, repository_id: int, *, now: datetime) -> None:
    """Track the default branch and no other."""
    row = db.execute("SELECT default_branch FROM repository WHERE id = ?", (repository_id,)).fetchone()
    branch_id = settle_default(db, repository_id, row[0] or "", now=now)
    db.execute("UPDATE branch SET tracked = (id = ?) WHERE repository_id = ?", (branch_id, repository_id))


def track_patterns(db: Database, repository_id: int, patterns: Sequence[str]) -> None:
    """Track the branches that are named, and those known already that match a glob; no others."""
    rows = db.execute("SELECT id, name FROM branch WHERE repository_id = ?", (repository_id,)).fetchall()
    tracked = [
        (bool(name) and any(fnmatchcase(name, pattern) for pattern in patterns), branch_id) for branch_id, name in rows
    ]
    db.executemany("UPDATE branch SET tracked = ? WHERE id = ?", tracked)
    for pattern in patterns:
        if not is_glob(pattern):
            ensure(db, repository_id, pattern)


def follow_default(
    db: Database, repository_id: int, name: str, *, heads: Mapping[str, str | None], now: datetime
) -> None:
    """GitHub says the default branch is called ``name`` now: follow it where it is what is tracked.

    Where ``heads`` has the old default branch with a commit, it was not renamed: another branch was made the default.
    """
    row = db.execute("SELECT patterns FROM repository WHERE id = ?", (repository_id,)).fetchone()
    if json.loads(row[0]):  # branches are tracked by name: only the mark moves
        db.execute("UPDATE branch SET is_default = (name = ?) WHERE repository_id = ?", (name, repository_id))
    else:
        there = {branch for branch, sha in heads.items() if sha is not None}
        settle_default(db, repository_id, name, there=there, now=now)


def settle_default(db: Database, repository_id: int, name: str, *, there: Collection[str] = (), now: datetime) -> int:
    """The one row that is the default branch, called ``name`` afterwards ("" keeps the name it has); its id.

    A renamed default branch keeps its snapshot. Where a row of the new name exists, or the old branch is still
    ``there``, the row of the new name takes over what was wanted of the old.
    """
    marked = _find(db, "is_default AND repository_id = ?", repository_id)
    named = _find(db, "repository_id = ? AND name = ?", repository_id, name) if name else marked
    if named is None and marked is not None and _name(db, marked) not in there:
        db.execute("UPDATE branch SET name = ? WHERE id = ?", (name, marked))
        named = marked
    if named is None:
        named = ensure(db, repository_id, name)
    db.execute("UPDATE branch SET is_default = TRUE, tracked = TRUE WHERE id = ?", (named,))
    wishes.create(db, named)
    if marked is not None and marked != named:
        db.execute("UPDATE branch SET is_default = FALSE, tracked = FALSE WHERE id = ?", (marked,))
        hand_over(db, marked, named, now)
    return named


def begin_anew(db: Database, old: int, fresh: int, *, now: datetime) -> None:
    """Make the branches of repository ``fresh``, which took the name of ``old``, and all that was wanted of that."""
    row = db.execute("SELECT patterns FROM repository WHERE id = ?", (fresh,)).fetchone()
    track(db, fresh, json.loads(row[0]), now=now)
    before, after = default_id(db, old), default_id(db, fresh)
    if before is not None and after is not None:
        hand_over(db, before, after, now)
    for (branch_id,) in db.execute("SELECT id FROM branch WHERE tracked AND repository_id = ?", (fresh,)).fetchall():
        wish = wishes.load(db, branch_id, now)
        wish.ask(Trigger.POLL, now)
        wishes.save(db, wish)
        db.tell(Topic.JOB)


def default_id(db: Database, repository_id: int) -> int | None:
    """The row of the default branch, or the only tracked one there is."""
    marked = _find(db, "is_default AND tracked AND repository_id = ?", repository_id)
    if marked is not None:
        return marked
    rows = db.execute("SELECT id FROM branch WHERE tracked AND repository_id = ? LIMIT 2", (repository_id,)).fetchall()
    return int(rows[0][0]) if len(rows) == 1 else None


def hand_over(db: Database, old: int, new: int, now: datetime) -> None:
    """What was announced for, and wanted of, the row that no longer is the default branch."""
    was = wishes.load(db, old, now)
    wish = wishes.load(db, new, now)
    for asked in was.asked:
        wish.ask(Trigger(asked.trigger), now)
    wishes.save(db, wish)
    db.tell(Topic.JOB)
    db.execute(
        "UPDATE delivery SET branch_id = ?, generation = ? WHERE branch_id = ? AND NOT acted", (new, wish.wanted, old)
    )


def _name(db: Database, branch_id: int) -> str:
    return str(db.execute("SELECT name FROM branch WHERE id = ?", (branch_id,)).fetchone()[0])


def _find(db: Database, condition: str, *params: object) -> int | None:
    row = db.execute(f"SELECT id FROM branch WHERE {condition} ORDER BY id LIMIT 1", params).fetchone()  # noqa: S608
    return None if row is None else int(row[0])
