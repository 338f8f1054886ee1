"""What a branch's files say, made into its entities, in the transaction that moves the branch. Inside ``write``.

Every file keeps its claim; of the claims to one id the first by path wins. So an id changes hands without a file
being read again, and a file that does not parse any more goes on saying what it said last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import chain, groupby, islice
from operator import itemgetter
from typing import Any, NamedTuple

from daemon.model import EntityChange, EntityName, EntityNews, ParsedFile
from daemon.store.database import Cursor, Database
from daemon.store.fields import display_path, instant_text, optional_plain, plain

_CHUNK = 400
_Place = tuple[bytes, str]  # a path, and the type of the collection that takes it

_SOURCES = """
    SELECT path, entity_type, entity_id, label, description, sha, digest, stale FROM entity_source WHERE branch_id = ?
"""
_STORE = """
    INSERT INTO entity_source (branch_id, path, entity_type, entity_id, label, description,
                               sha, commit_sha, digest, data)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (branch_id, path, entity_type) DO UPDATE SET
        entity_id = excluded.entity_id, label = excluded.label, description = excluded.description,
        digest = excluded.digest, data = excluded.data, stale = FALSE, sha = excluded.sha,
        commit_sha = CASE WHEN entity_source.sha = excluded.sha
                          THEN entity_source.commit_sha ELSE excluded.commit_sha END
"""
_CLAIMS = """
    SELECT entity_type, entity_id, path, label, description, digest, commit_sha, stale FROM entity_source
    WHERE branch_id = ? AND (entity_type, entity_id) IN (VALUES {names}) ORDER BY entity_type, entity_id, path
"""
_CURRENT = """
    SELECT entity_type, entity_id, path, label, description, digest, commit_sha, stale, deleted, id FROM entity
    WHERE branch_id = ? AND (entity_type, entity_id) IN (VALUES {names})
"""
_SHOW = """
    INSERT INTO entity (branch_id, entity_type, entity_id, path, path_text, label, description, digest, commit_sha,
                        stale, created_at, updated_at)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (branch_id, entity_type, entity_id) DO UPDATE SET
        path = excluded.path, path_text = excluded.path_text, label = excluded.label,
        description = excluded.description, digest = excluded.digest, commit_sha = excluded.commit_sha,
        stale = excluded.stale, deleted = FALSE, updated_at = excluded.updated_at
"""
_CLOSE_VERSION = "UPDATE entity_version SET valid_to = ? WHERE entity_key = ? AND valid_to IS NULL"
_OPEN_VERSION = """
    INSERT INTO entity_version (entity_key, commit_sha, valid_from, data)
    SELECT entity.id, entity.commit_sha, ?, source.data
    FROM entity JOIN entity_source AS source USING (branch_id, path, entity_type, entity_id)
    WHERE entity.branch_id = ? AND (entity_type, entity_id) IN (VALUES {names})
"""
_HIDE = "UPDATE entity SET deleted = TRUE, updated_at = ? WHERE id = ?"
_ERROR = """
    INSERT INTO entity_error (branch_id, path, entity_type, path_text, entity_id, line, "column", error)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING
"""
_FORGET_DUPLICATE = "DELETE FROM entity_error WHERE branch_id = ? AND entity_type = ? AND entity_id = ?"
_NO_DIGEST = "UPDATE branch SET collections_digest = NULL WHERE id = ?"


class _Source(NamedTuple):
    """A claim as it is stored."""

    path: bytes
    entity_type: str
    entity_id: str
    label: str | None
    description: str | None
    sha: str
    digest: str
    stale: bool


def apply(db: Database, branch_id: int, change: EntityChange, *, commit_sha: str, now: datetime) -> EntityNews:
    """Make the entities of a branch those of ``change``, read at ``commit_sha``; which are others now.

    A change of some paths that was read under other rules than those in force is not applied: everything is then
    marked to be read again.
    """
    if change.paths is not None and not _same_rules(db, branch_id, change):
        db.execute(_NO_DIGEST, (branch_id,))
        return EntityNews()
    if change.paths == ():
        return EntityNews()
    news = _Election(db, branch_id, commit_sha, now).hold(change)
    if change.paths is None:
        db.execute("UPDATE branch SET collections_digest = ? WHERE id = ?", (change.collections_digest, branch_id))
    return news


def _same_rules(db: Database, branch_id: int, change: EntityChange) -> bool:
    row = db.execute("SELECT collections_digest FROM branch WHERE id = ?", (branch_id,)).fetchone()
    return bool(row[0] == change.collections_digest)


class _Election:
    """One change of a branch's claims, and what follows for the ids that it touches."""

    def __init__(self, db: Database, branch_id: int, commit_sha: str, now: datetime) -> None:
        self._db = db
        self._branch = branch_id
        self._commit = commit_sha
        self._now = instant_text(now)
        self._added: list[EntityName] = []
        self._modified: list[EntityName] = []
        self._removed: list[EntityName] = []

    def hold(self, change: EntityChange) -> EntityNews:
        stored = {(source.path, source.entity_type): source for source in self._stored(change.paths)}
        said = {(file.path, file.entity_type): _storable(file) for file in change.parsed}
        good = [file for place, file in said.items() if file.error is None and _differs(file, stored.get(place))]
        bad = [file for file in said.values() if file.error is not None]
        gone = [place for place in stored if place not in said]
        touched = {(file.entity_type, file.entity_id) for file in good}
        changed = [*gone, *((file.path, file.entity_type) for file in (*good, *bad))]
        touched |= {(stored[place].entity_type, stored[place].entity_id) for place in changed if place in stored}
        self._move_claims(good, bad, gone)
        self._note_errors(change, bad, touched)
        names = sorted(touched)
        while chunk := names[:_CHUNK]:
            del names[:_CHUNK]
            self._elect(chunk)
        return EntityNews(tuple(self._added), tuple(self._modified), tuple(self._removed))

    # -- claims -----------------------------------------------------------------------------------

    def _stored(self, paths: Sequence[bytes] | None) -> Iterator[_Source]:
        if paths is None:
            yield from (_Source(*row) for row in self._db.execute(_SOURCES, (self._branch,)).fetchall())
            return
        for chunk in _chunks(paths):
            sql = f"{_SOURCES} AND path IN ({','.join('?' * len(chunk))})"
            yield from (_Source(*row) for row in self._db.execute(sql, (self._branch, *chunk)).fetchall())

    def _move_claims(self, good: Sequence[ParsedFile], bad: Sequence[ParsedFile], gone: Sequence[_Place]) -> None:
        where = "WHERE branch_id = ? AND path = ? AND entity_type = ?"
        self._db.executemany(f"DELETE FROM entity_source {where}", [(self._branch, *place) for place in gone])  # noqa: S608
        self._db.executemany(
            f"UPDATE entity_source SET stale = TRUE {where}",  # noqa: S608 - a constant
            [(self._branch, file.path, file.entity_type) for file in bad],
        )
        self._db.executemany(_STORE, [self._source_row(file) for file in good])

    def _source_row(self, file: ParsedFile) -> tuple[Any, ...]:
        named = (self._branch, file.path, file.entity_type, file.entity_id, file.label, file.description)
        return (*named, file.sha, self._commit, file.digest, file.data)

    # -- errors -----------------------------------------------------------------------------------

    def _note_errors(self, change: EntityChange, bad: Sequence[ParsedFile], touched: Iterable[EntityName]) -> None:
        forget = "DELETE FROM entity_error WHERE branch_id = ? AND entity_id IS NULL"
        if change.paths is None:
            self._db.execute(forget, (self._branch,))
        else:
            self._db.executemany(f"{forget} AND path = ?", [(self._branch, path) for path in change.paths])
        self._db.executemany(_FORGET_DUPLICATE, [(self._branch, *name) for name in touched])
        self._db.executemany(
            _ERROR,
            [(self._branch, f.path, f.entity_type, display_path(f.path), None, f.line, f.column, f.error) for f in bad],
        )

    # -- who has an id ----------------------------------------------------------------------------

    def _elect(self, names: Sequence[EntityName]) -> None:
        claims = {name: list(rows) for name, rows in groupby(self._of(_CLAIMS, names), key=itemgetter(0, 1))}
        current = {(row[0], row[1]): row for row in self._of(_CURRENT, names)}
        winners = {name: rows[0] for name, rows in claims.items()}
        hidden = {name: row[9] for name, row in current.items() if name not in winners and not row[8]}
        self._hide(list(hidden.values()))
        self._removed.extend(hidden)
        shown = {name: row for name, row in winners.items() if name not in current or not _same(row, current[name])}
        self._show(shown, current)
        losers = [(winners[name][2], row) for name, rows in claims.items() for row in rows[1:]]
        self._db.executemany(_ERROR, [self._duplicate(path, row) for path, row in losers])

    def _of(self, sql: str, names: Sequence[EntityName]) -> list[Any]:
        return [row for chunk in self._chunks(names) for row in self._named(sql, chunk)]

    def _chunks(self, names: Sequence[EntityName]) -> Iterator[Sequence[EntityName]]:
        """How many names one statement is about."""
        # SQLite reads all claims of the branch for a list of pairs, and PostgreSQL takes a round trip a statement.
        size = len(names) if self._db.shared else 1
        return (names[start : start + size] for start in range(0, len(names), max(size, 1)))

    def _named(self, sql: str, names: Sequence[EntityName], *before: Any) -> Cursor:
        marks = ",".join(["(?, ?)"] * len(names))
        return self._db.execute(sql.format(names=marks), (*before, self._branch, *chain.from_iterable(names)))

    def _hide(self, keys: Sequence[int]) -> None:
        self._db.executemany(_CLOSE_VERSION, [(self._now, key) for key in keys])
        self._db.executemany(_HIDE, [(self._now, key) for key in keys])

    def _show(self, shown: dict[EntityName, Any], current: dict[EntityName, Any]) -> None:
        self._db.executemany(_SHOW, [self._entity_row(row) for row in shown.values()])
        changed = [name for name, row in shown.items() if name not in current or _says_else(row, current[name])]
        closed = [(self._now, current[name][9]) for name in changed if name in current]
        self._db.executemany(_CLOSE_VERSION, closed)
        for chunk in self._chunks(changed):
            self._named(_OPEN_VERSION, chunk, self._now)
        for name, row in shown.items():
            if name not in current or current[name][8]:
                self._added.append(name)
            elif _shows_else(row, current[name]):
                self._modified.append(name)

    def _entity_row(self, row: Any) -> tuple[Any, ...]:
        entity_type, entity_id, path, *rest = row
        return (self._branch, entity_type, entity_id, path, display_path(path), *rest, self._now, self._now)

    def _duplicate(self, winner: bytes, row: Any) -> tuple[Any, ...]:
        entity_type, entity_id, path = row[:3]
        shown, first = display_path(path), display_path(winner)
        error = f'the {entity_type} "{entity_id[:200]}" is in {first} already, which comes first; {shown} is left out'
        return (self._branch, path, entity_type, shown, entity_id, None, None, error)


def _storable(file: ParsedFile) -> ParsedFile:
    """Names as every database takes them; ``data`` is ASCII already."""
    return ParsedFile(
        file.path,
        file.entity_type,
        file.sha,
        plain(file.entity_id),
        optional_plain(file.label),
        optional_plain(file.description),
        file.data,
        file.digest,
        optional_plain(file.error),
        file.line,
        file.column,
    )


def _differs(file: ParsedFile, source: _Source | None) -> bool:
    if source is None or source.stale:
        return True
    said = (file.entity_id, file.label, file.description, file.sha, file.digest)
    return said != (source.entity_id, source.label, source.description, source.sha, source.digest)


def _same(claim: Any, entity: Any) -> bool:
    """Whether the entity shows that claim already: everything but whether it is deleted, and its row."""
    return tuple(claim) == tuple(entity[:8]) and not entity[8]


def _says_else(claim: Any, entity: Any) -> bool:
    """Whether its data is another now, or it comes back."""
    return bool(claim[5] != entity[5] or entity[8])


def _shows_else(claim: Any, entity: Any) -> bool:
    """Whether a reader sees anything else than before; another commit with the same words is nothing."""
    return (*claim[2:6], claim[7]) != (*entity[2:6], entity[7])


def _chunks(paths: Sequence[bytes]) -> Iterator[list[bytes]]:
    rest = iter(paths)
    while chunk := list(islice(rest, _CHUNK)):
        yield chunk
