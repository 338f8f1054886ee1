"""Search over stored text: an index that proposes, and the text itself that decides.

A content is indexed before the first snapshot shows it, in short transactions: whoever sees a snapshot can search it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from hashlib import sha1
from typing import Any

from daemon.model import SearchHit, SearchPage, SearchPosition
from daemon.store.database import Database
from daemon.store.fields import display_path
from daemon.store.models import CURRENT

TRIGRAM = 3
MOST_TRIGRAMS = 32  # more would find hardly less; the text decides
MOST_LOOKED_AT = 2000  # contents, for one page
MOST_READ_BYTES = 64 * 1024 * 1024
EXCERPT = 160
INDEXED_AT_ONCE = 500  # contents of one sync; more are indexed behind it
_INDEX_BYTES = 256 * 1024  # of text in one transaction, 50 ms: others wait to write meanwhile
_BATCH = 500
_ASCII_TERM = re.compile(r"[\x01-\x7f]{3,}")

_MISSING = """
    SELECT DISTINCT entry.sha FROM repository
    JOIN branch ON branch.repository_id = repository.id JOIN entry ON entry.branch_id = branch.id
    WHERE repository.search AND repository.tracked AND branch.tracked AND entry.stored AND entry.until = ?
      AND NOT EXISTS (SELECT 1 FROM search_blob WHERE search_blob.sha = entry.sha)
    LIMIT ?
"""
# Feeding the index another text than it was given would damage it: that is why the text is asked for here.
_ORPHANED = """
    SELECT search_blob.id, search_blob.sha, blob.content FROM search_blob JOIN blob ON blob.sha = search_blob.sha
    WHERE search_blob.sha = ? AND NOT EXISTS (SELECT 1 FROM entry WHERE entry.sha = search_blob.sha)
"""
_COLUMNS = """
    SELECT repository.full_name, repository.owner || '/' || repository.name, branch.name, branch.head_sha, entry.path,
           entry.sha, entry.size
"""
_BY_INDEX = """
    FROM search_index JOIN search_blob ON search_blob.id = search_index.rowid
    JOIN entry ON entry.sha = search_blob.sha JOIN branch ON branch.id = entry.branch_id
    JOIN repository ON repository.id = branch.repository_id
"""
# PostgreSQL's planner thinks the texts small, as long ones lie outside the table, and would read them all. For this
# transaction that way is closed, where there is another, and the tables are joined in the order in which they stand.
_BY_INDEX_FIRST = "SELECT set_config('enable_seqscan', 'off', TRUE), set_config('join_collapse_limit', '1', TRUE)"
# In this order, so that the first rows come without sorting them all.
_BY_SCAN = """
    FROM repository CROSS JOIN branch ON branch.repository_id = repository.id
    CROSS JOIN entry ON entry.branch_id = branch.id
"""
_WHERE = """
    WHERE entry.until = ? AND entry.stored AND branch.tracked AND repository.tracked AND repository.search
      AND (? OR repository.id = ?) AND substr(entry.path, 1, ?) = ?
      AND (repository.full_name, branch.name, entry.path) > (?, ?, ?)
"""
# What PostgreSQL has put aside while much came in is read by every search until the next vacuum.
_TIDY = "SELECT gin_clean_pending_list(oid) FROM pg_class WHERE oid = to_regclass('search_index_content')"
_ORDER = " ORDER BY repository.full_name, branch.name, entry.path"


class Search:
    """What the text of tracked branches says, as it is now."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def switch_off(self, names: Iterable[str]) -> None:
        """Leave these configured repositories, and only these, out of every answer."""
        with self._db.write():
            self._db.execute("UPDATE repository SET search = TRUE WHERE NOT search")
            self._db.executemany(
                "UPDATE repository SET search = FALSE WHERE configured_as = ?", [(name.lower(),) for name in names]
            )

    def catch_up(self, *, most: int = 1_000_000) -> int:
        """Index what is shown and is not indexed, as it came in bulk or while search was off; how many contents."""
        total = 0
        shas: list[str] = []
        while total < most:
            before = shas
            with self._db.read():
                shas = [row[0] for row in self._db.execute(_MISSING, (CURRENT, _BATCH))]
            if not shas or shas == before:  # the rest is damaged: the sync that mends it indexes it
                break
            index(self._db, shas)
            total += len(shas)
        if total and self._db.shared:
            with self._db.write():
                self._db.execute(_TIDY)
        return total

    def find(
        self, text: str, *, repository_id: int | None, prefix: bytes, after: SearchPosition | None, limit: int
    ) -> SearchPage:
        """The first place in each file that holds ``text``, whatever its case, by repository, branch and path.

        A page ends early when many files had to be looked at; it then goes on from ``SearchPage.position``.
        """
        place = after or SearchPosition("", "", b"")
        some = (CURRENT, repository_id is None, repository_id or 0, len(prefix), prefix)
        params = (*some, place.full_name, place.branch, place.path)
        with self._db.read():
            return self._looked(self._candidates(text, params), text, limit)

    def _candidates(self, text: str, params: tuple[Any, ...]) -> Iterable[Any]:
        condition, terms = _contained(text) if self._db.shared else _matched(text)
        if not terms:
            return self._db.rows(_COLUMNS + _BY_SCAN + _WHERE + _ORDER, params)
        if self._db.shared:
            self._db.execute(_BY_INDEX_FIRST)
        return self._db.rows(_COLUMNS + _BY_INDEX + _WHERE + condition + _ORDER, (*params, *terms))

    def _looked(self, rows: Iterable[Any], text: str, limit: int) -> SearchPage:
        wanted = re.compile(re.escape(text), re.IGNORECASE)
        hits: list[SearchHit] = []
        position: SearchPosition | None = None
        looked_at = read_bytes = 0
        for full_name, repository, branch, head_sha, path, sha, size in rows:
            if looked_at == MOST_LOOKED_AT or (looked_at and read_bytes > MOST_READ_BYTES):
                return SearchPage(tuple(hits), position)
            looked_at, read_bytes = looked_at + 1, read_bytes + size
            found = self._place(sha, wanted)
            if found and len(hits) == limit:  # there is a next page, and not only more to look at
                return SearchPage(tuple(hits), position)
            position = SearchPosition(full_name, branch, path)
            if found:
                hits.append(SearchHit(repository, branch, display_path(path), *found, head_sha))
        return SearchPage(tuple(hits), None)

    def _place(self, sha: str, wanted: re.Pattern[str]) -> tuple[int, str] | None:
        """The line and an excerpt of the first match."""
        row = self._db.execute("SELECT content FROM blob WHERE sha = ?", (sha,)).fetchone()
        text = text_of(row[0]) if row else None
        found = wanted.search(text) if text is not None else None
        if text is None or found is None:
            return None
        return text.count("\n", 0, found.start()) + 1, excerpt(text, found.start())


def index(db: Database, shas: Sequence[str]) -> None:
    """Index these contents, those that are not, in short transactions."""
    rest = iter(_unindexed(db, shas))
    sha = next(rest, None)
    while sha is not None:
        size = 0
        with db.write():
            while sha is not None and size < _INDEX_BYTES:
                size += _index_one(db, sha)
                sha = next(rest, None)


def _unindexed(db: Database, shas: Sequence[str]) -> list[str]:
    found: set[str] = set()
    with db.read():
        for start in range(0, len(shas), _BATCH):
            chunk = shas[start : start + _BATCH]
            marks = ",".join("?" * len(chunk))
            rows = db.execute(f"SELECT sha FROM search_blob WHERE sha IN ({marks})", chunk)  # noqa: S608 - marks
            found.update(row[0] for row in rows)
    return [sha for sha in shas if sha not in found]


def _index_one(db: Database, sha: str) -> int:
    row = db.execute("SELECT content FROM blob WHERE sha = ?", (sha,)).fetchone()
    if row is None or git_blob_id(row[0]) != sha:
        return 0  # gone or damaged: the sync that mends it indexes it
    text = text_of(row[0])
    made = db.execute("INSERT INTO search_blob (sha) VALUES (?) ON CONFLICT DO NOTHING RETURNING id", (sha,)).fetchall()
    if made and text is not None:
        db.execute("INSERT INTO search_index (rowid, content) VALUES (?, ?)", (made[0][0], text))
    return len(row[0])


def forget(db: Database, shas: Iterable[str]) -> None:
    """Take contents that nothing shows out of the index, before they are deleted. Inside ``write``."""
    for sha in shas:
        for number, name, content in db.execute(_ORPHANED, (sha,)).fetchall():
            text = text_of(content)
            # A damaged content is not what was indexed: then its entries stay, under a number that nothing has.
            if db.shared:
                db.execute("DELETE FROM search_index WHERE rowid = ?", (number,))
            elif text is not None and git_blob_id(content) == name:
                db.execute(
                    "INSERT INTO search_index (search_index, rowid, content) VALUES ('delete', ?, ?)", (number, text)
                )
            db.execute("DELETE FROM search_blob WHERE id = ?", (number,))


def searched(db: Database, repository_id: int) -> bool:
    """Whether the repository is to be searched. Inside ``read`` or ``write``."""
    row = db.execute("SELECT search FROM repository WHERE id = ?", (repository_id,)).fetchone()
    return bool(row and row[0])


def git_blob_id(content: bytes) -> str:
    return sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def text_of(content: bytes) -> str | None:
    """The text that a content is; None for one that is not UTF-8, or holds a NUL."""
    if b"\0" in content:
        return None
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None


def _matched(text: str) -> tuple[str, list[str]]:
    """What SQLite's index is asked, and with which parameters; none when it cannot say anything."""
    terms = trigrams(text)
    return " AND search_index MATCH ?", [" AND ".join(terms)] if terms else []


def _contained(text: str) -> tuple[str, list[str]]:
    """The same for PostgreSQL, where the index is over LIKE. What is not ASCII has other cases than it knows."""
    parts = [] if "\0" in text else _ASCII_TERM.findall(text)
    escaped = ["%" + re.sub(r"([\\%_])", r"\\\1", part) + "%" for part in parts]
    return r" AND search_index.content LIKE ? ESCAPE '\'" * len(parts), escaped


def trigrams(text: str) -> list[str]:
    """What the index is asked for, each term quoted: nothing in ``text`` is an operator. Empty for a short one."""
    if "\0" in text:
        return []
    every = dict.fromkeys(text[start : start + TRIGRAM] for start in range(len(text) - TRIGRAM + 1))
    chosen = list(every)[:MOST_TRIGRAMS]
    return [f'"{term.replace(chr(34), chr(34) * 2)}"' for term in chosen]


def excerpt(text: str, start: int) -> str:
    """The line around a match, cut when it is long, without what is not to be shown."""
    begin = text.rfind("\n", 0, start) + 1
    end = text.find("\n", start)
    line = text[max(begin, start - EXCERPT // 2) : min(end if end >= 0 else len(text), start + EXCERPT)]
    return line.strip()
