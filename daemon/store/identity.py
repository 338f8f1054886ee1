"""Who a repository is: its number never changes, its names do. Inside ``write``.

Names are unique keys. A repository that lost its name to another one goes on as ``name~github_id``: ``~`` is in no
name on GitHub, and needs no escape in a URL.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from daemon.errors import RepositoryReplaced
from daemon.model import RemoteRepository, RepositoryRef, RepositoryState, Topic
from daemon.store import branches
from daemon.store.database import Database
from daemon.store.fields import instant_text

_IDENTIFY = """
    UPDATE repository SET github_id = ?, owner = ?, name = ?, full_name = ?, default_branch = ?, archived = ?,
                          private = ?, state = ?, last_error = NULL
    WHERE id = ?
"""
_TAKEN = """
    SELECT owner, name FROM repository
    WHERE id <> ? AND tracked AND coalesce(configured_as, '') NOT LIKE '%/*'
      AND (github_id = ? OR full_name = ? AND github_id IS NULL)
    ORDER BY id LIMIT 1
"""
_DISOWN = """
    UPDATE repository SET github_id = NULL, tracked = FALSE, configured_as = NULL WHERE id <> ? AND github_id = ?
"""
# Still tracked under a name that is another's: it was renamed as well, or is gone. It is asked for by its number.
_LOSE_NAME = """
    UPDATE repository SET name = name || '~' || coalesce(CAST(github_id AS TEXT), 'row' || id),
                          full_name = full_name || '~' || coalesce(CAST(github_id AS TEXT), 'row' || id),
                          next_poll_at = NULL, hinted = TRUE
    WHERE id <> ? AND full_name = ?
"""
_RETIRE = """
    UPDATE repository SET tracked = FALSE, configured_as = NULL, state = ?, replaced_at = ?, last_error = ?
    WHERE id = ?
"""
_BEGIN_ANEW = """
    INSERT INTO repository (owner, name, full_name, configured_as, patterns, search)
    VALUES (?, ?, ?, ?, ?, ?) RETURNING id
"""
_REMEMBER = """
    INSERT INTO former_name (full_name, repository_id) VALUES (?, ?)
    ON CONFLICT (full_name) DO UPDATE SET repository_id = excluded.repository_id
"""
_BY_NAME = """
    SELECT id FROM (
        SELECT id, 1 AS place FROM repository WHERE full_name = ?
        UNION ALL SELECT repository_id, 2 FROM former_name WHERE full_name = ?
        UNION ALL SELECT id, 3 FROM repository WHERE configured_as = ?
    ) AS found ORDER BY place LIMIT 1
"""


def by_name(db: Database, owner: str, name: str) -> int | None:
    """The repository that has this name, in any case, or had it, or is configured under it. Inside ``read``."""
    key = f"{owner}/{name}".lower()
    row = db.execute(_BY_NAME, (key, key, key)).fetchone()
    return None if row is None else int(row[0])


def identify(
    db: Database,
    known: RepositoryRef,
    id_: int,
    remote: RemoteRepository,
    *,
    heads: Mapping[str, str | None],
    now: datetime,
) -> None:
    """Take over names, flags and default branch. Raises RepositoryReplaced, having written nothing."""
    key = f"{remote.owner}/{remote.name}".lower()
    _refuse_another(known, remote)
    _refuse_taken(db, known, id_, remote, key)
    db.execute(_DISOWN, (id_, remote.github_id))
    db.execute(_LOSE_NAME, (id_, key))
    state = RepositoryState.EMPTY if remote.default_branch is None else RepositoryState.AVAILABLE
    names = (remote.github_id, remote.owner, remote.name, key, remote.default_branch)
    db.execute(_IDENTIFY, (*names, remote.archived, remote.private, state.value, id_))
    _rename(db, id_, known.full_name.lower(), key)
    if remote.default_branch is not None:
        branches.follow_default(db, id_, remote.default_branch, heads=heads, now=now)
    db.tell(Topic.TRACKED)


def replace(db: Database, known: RepositoryRef, id_: int, now: datetime) -> int:
    """Begin anew under a name that is another repository's now; the old rows are kept as they are. The new id."""
    select = "SELECT configured_as, patterns, search FROM repository WHERE id = ?"
    configured_as, patterns, search = db.execute(select, (id_,)).fetchone()
    key = known.full_name.lower()
    at = instant_text(now)
    why = f"another repository is {known.full_name} since {at[:10]}; this is the last good copy of the one before it"
    db.execute(_RETIRE, (RepositoryState.GONE.value, at, why, id_))
    free_name(db, key)
    row = (known.owner, known.name, key, configured_as, patterns, search)
    fresh = int(db.execute(_BEGIN_ANEW, row).fetchall()[0][0])
    branches.begin_anew(db, id_, fresh, now=now)
    db.tell(Topic.TRACKED)
    return fresh


def free_name(db: Database, key: str) -> None:
    """Whoever has or had this name goes by it no more: another repository is about to."""
    db.execute(_LOSE_NAME, (-1, key))
    db.execute("DELETE FROM former_name WHERE full_name = ?", (key,))


def _refuse_another(known: RepositoryRef, remote: RemoteRepository) -> None:
    if known.github_id not in (None, remote.github_id):
        raise RepositoryReplaced(
            f"{known.full_name} is another repository now (id {remote.github_id}, it was {known.github_id}); the "
            "last good copy is kept"
        )


def _refuse_taken(db: Database, known: RepositoryRef, id_: int, remote: RemoteRepository, key: str) -> None:
    row = db.execute(_TAKEN, (id_, remote.github_id, key)).fetchone()
    if row is not None:
        raise RepositoryReplaced(
            f"{known.full_name} is {remote.owner}/{remote.name} on GitHub, which is tracked "
            f"already as {row[0]}/{row[1]}; configure it once"
        )


def _rename(db: Database, id_: int, before: str, key: str) -> None:
    """Remember the name that was given up; nobody else's old name leads to this one's new name any more."""
    db.execute("DELETE FROM former_name WHERE full_name = ?", (key,))
    if before == key:
        return
    if "~" not in before and db.execute("SELECT 1 FROM repository WHERE full_name = ?", (before,)).fetchone() is None:
        db.execute(_REMEMBER, (before, id_))
    owners = {f"{name.partition('/')[0]}/*" for name in (before, key)}
    db.executemany("UPDATE owner SET next_look_at = NULL WHERE configured_as = ?", [(one,) for one in sorted(owners)])
