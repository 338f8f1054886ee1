"""The change feed: what changed, oldest first, by ids that are given once and never again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from daemon.model import ChangePage, ChangeRecord, EntityNews, Topic
from daemon.store.ages import first_kept
from daemon.store.database import Database
from daemon.store.fields import instant_text, instant_value, json_text

MOST_BYTES = 4 * 1024 * 1024  # of paths in one page: a first sync may name a hundred thousand
_BATCH = 500

_AFTER = """
    SELECT outbox.id, outbox.type, repository.owner || '/' || repository.name, branch.name, outbox."before",
           outbox."after", outbox.added, outbox.modified, outbox.removed, outbox.created_at, outbox.entities
    FROM outbox JOIN branch ON branch.id = outbox.branch_id JOIN repository ON repository.id = branch.repository_id
    WHERE outbox.id > ? ORDER BY outbox.id LIMIT ?
"""
_NEWEST = "SELECT seq FROM sqlite_sequence WHERE name = 'outbox'"
# From the oldest on and without a hole, so that one comparison tells whether anything after an id is gone.
_SWEEP = "DELETE FROM outbox WHERE id IN (SELECT id FROM outbox WHERE id < ? ORDER BY id LIMIT ?)"
_ANNOUNCE = """
    INSERT INTO outbox (type, branch_id, "before", "after", added, modified, removed, created_at, entities)
    VALUES ('branch.changed', ?, ?, ?, ?, ?, ?, ?, ?)
"""


def announce(
    db: Database,
    branch_id: int,
    before: str | None,
    after: str,
    *,
    paths: tuple[Sequence[str], Sequence[str], Sequence[str]] = ((), (), ()),
    entities: EntityNews,
    now: datetime,
) -> None:
    """Tell actions and readers of a change; ``paths`` were added, modified, removed. Inside ``write``.

    Nothing is told when nothing is another now: the same commit taken again may be nothing.
    """
    if before == after and not any(paths) and not entities:
        return
    names = json_text([entities.added, entities.modified, entities.removed]) if entities else None
    texts = (json_text(list(names)) for names in paths)
    db.execute(_ANNOUNCE, (branch_id, before, after, *texts, instant_text(now), names))
    db.tell(Topic.CHANGE)


def entity_news(text: str | None) -> EntityNews:
    """What ``announce`` stored of the entities."""
    kinds = json.loads(text) if text else ((), (), ())
    return EntityNews(*(tuple((name[0], name[1]) for name in names) for names in kinds))


class Feed:
    """The rows of the outbox for readers. Who writes them is the transaction that changes the branch."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def newest(self) -> int:
        """The id given last, also when its row was swept; 0 before the first."""
        with self._db.read():
            row = self._db.execute(_NEWEST).fetchone()
        return int(row[0]) if row else 0

    def oldest(self) -> int:
        """The id of the oldest row that is kept; the one that will be given next when there is none."""
        with self._db.read():
            row = self._db.execute("SELECT min(id) FROM outbox").fetchone()
            return int(row[0]) if row[0] is not None else self.newest() + 1

    def page(self, after: int | None, *, limit: int, most_bytes: int = MOST_BYTES) -> ChangePage:
        """Changes beyond the id ``after`` (None: from the oldest kept), at most ``limit``, fewer when they are large.

        Raises LookupError when a change between ``after`` and the oldest kept was swept.
        """
        with self._db.read():
            oldest = self.oldest()
            begin = oldest - 1 if after is None else after
            if begin < oldest - 1:
                raise LookupError(f"the changes from {begin + 1} to {oldest - 1} are not kept any more")
            rows = self._db.rows(_AFTER, (begin, limit + 1))
            return _page(rows, limit, most_bytes)

    def sweep(self, *, now: datetime, keep_seconds: float, needed: Callable[[], int | None] | None = None) -> int:
        """Drop what is older than ``keep_seconds``, in short transactions; how many rows went.

        ``needed`` tells the oldest id that an action still waits for: that one and all after it stay.
        """
        with self._db.read():
            bound = first_kept(self._db, "outbox", "created_at", now - timedelta(seconds=keep_seconds))
        held = needed() if needed else None
        return self._delete_before(bound if held is None else min(bound, held))

    def _delete_before(self, bound: int) -> int:
        total = 0
        while True:
            with self._db.write():
                gone = self._db.execute(_SWEEP, (bound, _BATCH)).rowcount
            total += gone
            if gone < _BATCH:
                return total


def _page(rows: Iterable[Any], limit: int, most_bytes: int) -> ChangePage:
    """As many rows as fit, the first whatever its size; ``more`` when there is one beyond them."""
    items: list[ChangeRecord] = []
    size = 0
    for row in rows:
        size += sum(len(names) for names in (*row[6:9], row[10] or ""))
        if len(items) == limit or (items and size > most_bytes):
            return ChangePage(tuple(items), more=True)
        items.append(_record(row))
    return ChangePage(tuple(items), more=False)


def _record(row: Any) -> ChangeRecord:
    number, kind, repository, branch, before, after = row[:6]
    return ChangeRecord(
        id=number,
        type=kind,
        repository=repository,
        branch=branch,
        before=before,
        after=after,
        added=tuple(json.loads(row[6])),
        modified=tuple(json.loads(row[7])),
        removed=tuple(json.loads(row[8])),
        created_at=instant_value(row[9]),
        entities=entity_news(row[10]),
    )
