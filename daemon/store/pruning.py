"""Removing what is stored of repositories that are gone or not tracked any more, when somebody asks for it.

The mark is one transaction, after which nobody is shown the repository; the rows go behind it, a batch at a time,
and whatever a kill leaves is taken up again. Contents that nothing else shows are swept with the other orphans.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from daemon.model import PruneCandidate, RepositoryState, Topic
from daemon.store.database import Database

_CANDIDATE = f"""
    NOT pruned AND (NOT tracked OR state = '{RepositoryState.GONE.value}' AND github_id IS NOT NULL)
"""
_CANDIDATES = f"""
    SELECT id, owner || '/' || name, state, tracked, configured_as,
           (SELECT count(*) FROM branch WHERE repository_id = repository.id AND head_sha IS NOT NULL),
           (SELECT count(*) FROM entry JOIN branch ON branch.id = branch_id WHERE repository_id = repository.id)
    FROM repository WHERE {_CANDIDATE}
"""  # noqa: S608 - constants
# The name and the number are free from now on, for whatever GitHub or the configuration brings.
_MARK = f"""
    UPDATE repository SET pruned = TRUE, tracked = FALSE, configured_as = NULL, github_id = NULL,
                          full_name = '~' || id
    WHERE id = ? AND {_CANDIDATE}
"""  # noqa: S608 - constants
# The job first: a run that is under way is refused by its last transaction from then on.
_ROWS = (
    "DELETE FROM job WHERE branch_id = ? AND ? > 0",
    """
    DELETE FROM entry WHERE (branch_id, path, since) IN (
        SELECT branch_id, path, since FROM entry WHERE branch_id = ? LIMIT ?)
    """,
    """
    DELETE FROM folder WHERE (branch_id, parent, path) IN (
        SELECT branch_id, parent, path FROM folder WHERE branch_id = ? LIMIT ?)
    """,
    """
    DELETE FROM "commit" WHERE (branch_id, position) IN (
        SELECT branch_id, position FROM "commit" WHERE branch_id = ? LIMIT ?)
    """,
    """
    DELETE FROM entity_version WHERE id IN (
        SELECT entity_version.id FROM entity_version JOIN entity ON entity.id = entity_key
        WHERE branch_id = ? LIMIT ?)
    """,
    "DELETE FROM entity WHERE id IN (SELECT id FROM entity WHERE branch_id = ? LIMIT ?)",
    "DELETE FROM entity_source WHERE id IN (SELECT id FROM entity_source WHERE branch_id = ? LIMIT ?)",
    """
    DELETE FROM entity_error WHERE (branch_id, path, entity_type) IN (
        SELECT branch_id, path, entity_type FROM entity_error WHERE branch_id = ? LIMIT ?)
    """,
    "DELETE FROM action_state WHERE branch_id = ? AND ? > 0",
    "DELETE FROM outbox WHERE id IN (SELECT id FROM outbox WHERE branch_id = ? LIMIT ?)",
    """
    UPDATE delivery SET branch_id = NULL, repository_id = NULL, generation = NULL, run_id = NULL WHERE id IN (
        SELECT id FROM delivery WHERE branch_id = ? LIMIT ?)
    """,
    "DELETE FROM run WHERE id IN (SELECT id FROM run WHERE branch_id = ? LIMIT ?)",
)
_LAST = (
    "DELETE FROM branch WHERE repository_id = ?",
    "DELETE FROM former_name WHERE repository_id = ?",
    "DELETE FROM repository WHERE id = ?",
)


class Pruning:
    """What may be removed, and its removal."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def candidates(self) -> list[PruneCandidate]:
        """Everything that is gone or not tracked any more, by name."""
        with self._db.read():
            rows = self._db.execute(f"{_CANDIDATES} ORDER BY full_name").fetchall()
        return [_candidate(row) for row in rows]

    def find(self, full_name: str) -> PruneCandidate | None:
        """The one that goes by this name, in any case; None where there is none, or it is tracked and not gone."""
        with self._db.read():
            row = self._db.execute(f"{_CANDIDATES} AND full_name = ?", (full_name.lower(),)).fetchone()
        return None if row is None else _candidate(row)

    def forget(self, repository_id: int) -> bool:
        """Have it removed; False, and nothing done, where it is tracked and not gone (again)."""
        with self._db.write():
            marked = self._db.execute(_MARK, (repository_id,)).rowcount
            self._db.execute("DELETE FROM former_name WHERE repository_id = ? AND ? > 0", (repository_id, marked))
            self._db.tell(Topic.TRACKED)
        return bool(marked)

    def sweep(self, *, check: Callable[[], None] = lambda: None, batch: int = 1000) -> int:
        """Remove the rows of what was forgotten, in short transactions; how many went.

        ``check`` is called between them and may raise to stop.
        """
        with self._db.read():
            ids = [row[0] for row in self._db.execute("SELECT id FROM repository WHERE pruned ORDER BY id")]
        return sum(self._sweep(repository_id, check, batch) for repository_id in ids)

    def _sweep(self, repository_id: int, check: Callable[[], None], batch: int) -> int:
        with self._db.read():
            rows = self._db.execute("SELECT id FROM branch WHERE repository_id = ?", (repository_id,)).fetchall()
        total = sum(self._delete(sql, branch_id, check, batch) for (branch_id,) in rows for sql in _ROWS)
        with self._db.write():
            return total + sum(self._db.execute(sql, (repository_id,)).rowcount for sql in _LAST)

    def _delete(self, sql: str, branch_id: int, check: Callable[[], None], batch: int) -> int:
        total = 0
        while True:
            check()
            with self._db.write():
                gone = self._db.execute(sql, (branch_id, batch)).rowcount
            total += gone
            if gone < batch:
                return total


def _candidate(row: Any) -> PruneCandidate:
    id_, full_name, state, tracked, configured_as, branches, entries = row
    by_name = configured_as is not None and not configured_as.endswith("/*")
    return PruneCandidate(id_, full_name, RepositoryState(state), bool(tracked), by_name, branches, entries)
