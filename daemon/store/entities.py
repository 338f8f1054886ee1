"""Entities for readers, and the one way to make them anew from what is stored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from daemon.model import AskedBranch, EntityChange, EntityError, EntityRecord, EntityVersion, RepositoryRef
from daemon.store import electing, feed
from daemon.store.database import Database
from daemon.store.fields import instant_value, optional_value

MOST_BYTES = 8 * 2**20  # of data in one page or history: a file may hold a megabyte, and a page a thousand of them

_MADE_BY = """
    SELECT branch.id, repository.owner, repository.name, repository.github_id, branch.collections_digest
    FROM branch JOIN repository ON repository.id = branch.repository_id
    WHERE branch.tracked AND repository.tracked AND branch.head_sha IS NOT NULL
"""
_BRANCHES = """
    SELECT branch.id, repository.owner || '/' || repository.name, branch.name, branch.head_sha, branch.confirmed_at
    FROM branch JOIN repository ON repository.id = branch.repository_id
    WHERE branch.tracked AND repository.tracked AND branch.name <> ''
      AND (? IS NULL OR repository.id = ?) AND (? IS NULL OR branch.name = ?)
    ORDER BY branch.is_default DESC, branch.id
"""
_ENTITY = """
    SELECT entity.id, entity.branch_id, entity.entity_id, entity.entity_type, entity.label, entity.description,
           source.data, entity.path, entity.commit_sha, entity.stale, entity.created_at, entity.updated_at
    FROM entity JOIN entity_source AS source USING (branch_id, path, entity_type)
    WHERE NOT entity.deleted
"""
_ONE = f"{_ENTITY} AND entity.branch_id = ? AND entity.entity_type = ? AND entity.entity_id = ?"
_MATCHES = r"""
    AND (entity.entity_id LIKE ? ESCAPE '\' OR entity.label LIKE ? ESCAPE '\' OR entity.description LIKE ? ESCAPE '\')
"""
_COUNTS = """
    SELECT entity_type, count(*) FROM entity WHERE NOT deleted AND branch_id IN ({marks})
    GROUP BY entity_type ORDER BY entity_type
"""
_HISTORY = """
    SELECT commit_sha, data, valid_from, valid_to FROM entity_version WHERE entity_key = ? ORDER BY id DESC LIMIT ?
"""
_ERRORS = """
    SELECT branch_id, path, entity_type, line, "column", error FROM entity_error
    WHERE branch_id IN ({marks}) AND (branch_id, path, entity_type) > (?, ?, ?)
    ORDER BY branch_id, path, entity_type LIMIT ?
"""


class Entities:
    """The entities of tracked branches. What is asked of several branches is asked of those ``branches`` gave."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def made_by(self) -> list[tuple[int, RepositoryRef, str | None]]:
        """Every tracked branch that has a snapshot, and the digest of the rules its entities were made by."""
        with self._db.read():
            rows = self._db.execute(_MADE_BY).fetchall()
        return [(row[0], RepositoryRef(*row[1:4]), row[4]) for row in rows]

    def branches(self, repository_id: int | None = None, name: str | None = None) -> list[AskedBranch]:
        """The tracked branches of a repository, of a name, of both or all of them; default branches first."""
        with self._db.read():
            rows = self._db.execute(_BRANCHES, (repository_id, repository_id, name, name)).fetchall()
        return [AskedBranch(row[0], row[1], row[2], row[3], optional_value(row[4])) for row in rows]

    def counts(self, branches: Sequence[AskedBranch]) -> list[tuple[str, int]]:
        """How many entities there are of each type, by type."""
        sql = _COUNTS.format(marks=_marks(branches))
        with self._db.read():
            return [(row[0], int(row[1])) for row in self._db.execute(sql, [branch.id for branch in branches])]

    def page(
        self,
        branches: Sequence[AskedBranch],
        entity_type: str,
        *,
        after: tuple[str, int] | None,
        limit: int,
        q: str | None = None,
    ) -> tuple[list[EntityRecord], bool]:
        """Entities of a type beyond an id and branch id, by these, at most ``limit``, fewer when their data is large;
        and whether there are more.

        ``q`` is looked for in id, label and description, whatever the case of ASCII letters.
        """
        # Of one branch the ids alone tell the place, which its index follows; "" would be beyond no id.
        single = len(branches) == 1
        order = "entity.entity_id" if single else "entity.entity_id, entity.branch_id"
        beyond = f"({order}) > ({'?' if single else '?, ?'})" if after else "TRUE"
        bounds = after[: 1 if single else 2] if after else ()
        pattern = [f"%{_escaped(q)}%"] * 3 if q else []
        sql = (
            f"{_ENTITY} AND entity.entity_type = ? AND entity.branch_id IN ({_marks(branches)}) AND {beyond}"
            f"{_MATCHES if q else ''} ORDER BY {order} LIMIT ?"
        )
        named = {branch.id: branch for branch in branches}
        with self._db.read():
            rows = self._db.rows(sql, [entity_type, *named, *bounds, *pattern, limit + 1])
            return _page((_record(row, named[row[1]]) for row in rows), limit)

    def one(self, branches: Sequence[AskedBranch], entity_type: str, entity_id: str) -> EntityRecord | None:
        """The entity in the first of these branches that has it; None when none has."""
        with self._db.read():
            for branch in branches:
                row = self._db.execute(_ONE, (branch.id, entity_type, entity_id)).fetchone()
                if row is not None:
                    return _record(row, branch)
        return None

    def history(self, key: int, *, limit: int = 1000) -> list[EntityVersion]:
        """What an entity was, newest first, at most ``limit`` versions, fewer when their data is large."""
        with self._db.read():
            rows = self._db.rows(_HISTORY, (key, limit))
            versions = (EntityVersion(row[0], row[1], instant_value(row[2]), optional_value(row[3])) for row in rows)
            return list(_fitting(versions))

    def errors(
        self, branches: Sequence[AskedBranch], *, after: tuple[int, bytes, str] | None, limit: int
    ) -> list[EntityError]:
        """Files that are no entity although a collection takes them, by branch and path, beyond ``after``."""
        named = {branch.id: branch for branch in branches}
        sql = _ERRORS.format(marks=_marks(branches))
        with self._db.read():
            rows = self._db.execute(sql, [*named, *(after or (0, b"", "")), limit]).fetchall()
        return [EntityError(row[0], named[row[0]].repository, named[row[0]].name, *row[1:]) for row in rows]

    def remake(self, branch_id: int, snapshot: int, change: EntityChange, *, now: datetime) -> bool:
        """Make the entities of a branch those of ``change``, unless its snapshot is another by now: then False."""
        with self._db.write():
            row = self._db.execute("SELECT snapshot, head_sha FROM branch WHERE id = ?", (branch_id,)).fetchone()
            if row is None or row[0] != snapshot or row[1] is None:
                return False
            news = electing.apply(self._db, branch_id, change, commit_sha=row[1], now=now)
            feed.announce(self._db, branch_id, row[1], row[1], entities=news, now=now)
        return True


def _marks(branches: Sequence[AskedBranch]) -> str:
    return ",".join("?" * len(branches))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_").replace("\0", "\ufffd")


def _page(found: Iterator[EntityRecord], limit: int) -> tuple[list[EntityRecord], bool]:
    """The page, and whether something comes after it: no more is read than what tells that."""
    shown: list[EntityRecord] = []
    size = 0
    for one in found:
        size += len(one.data)
        if len(shown) == limit or (shown and size > MOST_BYTES):
            return shown, True
        shown.append(one)
    return shown, False


def _fitting(found: Iterable[Any]) -> Iterator[Any]:
    """What is found until its data is too much; the first whatever its size."""
    size = 0
    for number, one in enumerate(found):
        size += len(one.data)
        if size > MOST_BYTES and number:
            return
        yield one


def _record(row: Any, branch: AskedBranch) -> EntityRecord:
    key, branch_id, entity_id, entity_type, label, description, data, path, commit_sha, stale, created, updated = row
    return EntityRecord(
        key=key,
        branch_id=branch_id,
        entity_id=entity_id,
        entity_type=entity_type,
        label=label,
        description=description,
        data=data,
        repository=branch.repository,
        branch=branch.name,
        path=path,
        commit_sha=commit_sha,
        stale=bool(stale),
        created_at=instant_value(created),
        updated_at=instant_value(updated),
    )
