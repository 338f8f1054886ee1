"""Snapshots: what each branch holds, swapped whole, readable at one commit while the next is written.

Entries are versioned: snapshot N shows the rows with ``since`` <= N < ``until``. So a reader that pages through a
listing while a sync finishes goes on at the commit it began with, until that snapshot is swept.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from daemon.errors import StoreError
from daemon.model import (
    BranchFacts,
    Claim,
    Commit,
    CommitChange,
    Entry,
    FilesPage,
    RawFile,
    RunResult,
    SnapshotChange,
    StoredFolder,
)
from daemon.store import applying, branches, folders, records, runs, search
from daemon.store.database import Database
from daemon.store.fields import instant_text, optional_value
from daemon.store.models import CURRENT

_CHUNK = 1000  # shas in one statement; SQLite takes 32,766 parameters at most
_ORPHAN_AGE = timedelta(hours=1)

_ENTRIES = f"SELECT path, mode, sha, size, stored FROM entry WHERE branch_id = ? AND until = {CURRENT} ORDER BY path"  # noqa: S608
_COUNT = f"SELECT count(*) FROM entry WHERE branch_id = ? AND until = {CURRENT}"  # noqa: S608
_BEGIN_ARCHIVE = """
    UPDATE branch SET archive_sha = ?
    WHERE id = ? AND NOT EXISTS (
        SELECT 1 FROM branch AS one WHERE one.repository_id = branch.repository_id
           AND (one.head_sha IS NOT NULL OR one.archive_sha IS NOT NULL))
"""
_PAGE = """
    SELECT path, mode, sha, size, stored FROM entry
    WHERE branch_id = ? AND path >= ? AND path > ? AND (path < ? OR ?) AND since <= ? AND until > ?
    ORDER BY path LIMIT ?
"""
_RAW = f"""
    SELECT entry.sha, entry.mode, blob.size, branch.head_sha, branch.confirmed_at, blob.content
    FROM entry JOIN branch ON branch.id = entry.branch_id JOIN blob ON blob.sha = entry.sha
    WHERE entry.branch_id = ? AND entry.path = ? AND entry.until = {CURRENT} AND entry.stored
"""  # noqa: S608 - a constant
_COMMITS = """
    SELECT position, sha, tree_sha, parents, author_name, author_email, authored_at, committed_at, message
    FROM "commit" WHERE branch_id = ? AND position < ? ORDER BY position DESC LIMIT ?
"""
_SWEEP_ENTRIES = f"""
    DELETE FROM entry WHERE (branch_id, path, since) IN (
        SELECT branch_id, path, since FROM entry WHERE branch_id = ? AND until <= ? AND until < {CURRENT} LIMIT ?)
"""  # noqa: S608 - a constant
_ORPHANS = """
    SELECT sha FROM blob
    WHERE sha > ? AND stored_at < ? AND NOT EXISTS (SELECT 1 FROM entry WHERE entry.sha = blob.sha)
    ORDER BY sha LIMIT ?
"""
# Asked again where nobody can write in between: a sync may have found the blob and shown it since.
_DELETE_ORPHAN = "DELETE FROM blob WHERE sha = ? AND NOT EXISTS (SELECT 1 FROM entry WHERE entry.sha = blob.sha)"


class Snapshots:
    """Entries, contents and commits of branches."""

    def __init__(self, db: Database) -> None:
        self._db = db

    # -- for a sync -------------------------------------------------------------------------------

    def facts(self, branch_id: int) -> BranchFacts:
        """What is stored of a branch. Raises LookupError."""
        with self._db.read():
            return records.facts(self._db, branch_id)

    def entries(self, branch_id: int) -> list[Entry]:
        """The current snapshot, by path."""
        with self._db.read():
            rows = self._db.execute(_ENTRIES, (branch_id,)).fetchall()
        return [_entry(row) for row in rows]

    def count(self, branch_id: int) -> int:
        """How many entries the current snapshot has."""
        with self._db.read():
            return int(self._db.execute(_COUNT, (branch_id,)).fetchone()[0])

    def folder_tree(self, branch_id: int) -> str | None:
        """The tree whose folders ``folders`` knows; None when it knows none."""
        with self._db.read():
            return folders.root(self._db, branch_id)

    def folders(self, branch_id: int, paths: Iterable[bytes]) -> dict[bytes, StoredFolder]:
        """What is directly in each of these folders (the root is ``b""``), by folder, empty where there is none."""
        with self._db.read():
            return {path: folders.content(self._db, branch_id, path) for path in paths}

    def begin_archive(self, branch_id: int, sha: str) -> bool:
        """Note that a commit's archive is about to be read whole; False when a part of it may be stored already."""
        with self._db.write():
            return self._db.execute(_BEGIN_ARCHIVE, (sha, branch_id)).rowcount == 1

    def missing(self, shas: Iterable[str]) -> set[str]:
        """Which of these blobs are not stored."""
        wanted = set(shas)
        with self._db.read():
            return wanted - stored_blobs(self._db, wanted)

    def store_blobs(self, batch: Sequence[tuple[str, bytes]], *, now: datetime) -> None:
        """Store contents by their ids, those that are not there yet, in one transaction."""
        at = instant_text(now)
        # In one order, so that two batches which share contents never wait for each other.
        rows = [(sha, len(content), at, content) for sha, content in sorted(batch)]
        with self._db.write(alone=False):
            self._db.executemany(
                "INSERT INTO blob (sha, size, stored_at, content) VALUES (?, ?, ?, ?) ON CONFLICT (sha) DO NOTHING",
                rows,
            )

    def blob(self, sha: str) -> bytes | None:
        """The content stored under an id; None when there is none."""
        with self._db.read():
            row = self._db.execute("SELECT content FROM blob WHERE sha = ?", (sha,)).fetchone()
        return None if row is None else bytes(row[0])

    def sizes(self, shas: Iterable[str]) -> dict[str, int]:
        """The sizes in bytes of those of these blobs that are stored."""
        with self._db.read():
            return blob_sizes(self._db, shas)

    def blobs(self, shas: Iterable[str]) -> dict[str, bytes]:
        """The contents stored under these ids."""
        found: dict[str, bytes] = {}
        with self._db.read():
            for chunk in _chunks(shas):
                marks = ",".join("?" * len(chunk))
                rows = self._db.execute(f"SELECT sha, content FROM blob WHERE sha IN ({marks})", chunk)  # noqa: S608
                found.update((row[0], bytes(row[1])) for row in rows)
        return found

    def distrust(self, branch_id: int, *, blobs: Sequence[str]) -> None:
        """Drop these contents, and what vouches for the branch's rows: the next sync fetches and proves all anew."""
        with self._db.write():
            self._db.executemany("DELETE FROM blob WHERE sha = ?", [(sha,) for sha in blobs])
            self._db.execute("UPDATE branch SET rules_digest = NULL, tree_verified = NULL WHERE id = ?", (branch_id,))
            folders.forget(self._db, branch_id)

    def apply(
        self,
        claim: Claim,
        change: SnapshotChange,
        result: RunResult,
        *,
        commits: CommitChange | None,
        now: datetime,
        read_at: datetime,
        served: Sequence[int],
    ) -> int:
        """Make ``change`` the branch's snapshot and end the claim, all in one transaction; the run's id.

        ``read_at`` is when GitHub was seen at ``change.head_sha``; ``served`` are the deliveries it acted on. Raises
        LeaseLost, and StoreError when the change does not fit what is stored: then nothing was written.
        """
        wanted = {entry.sha for entry in (*change.added, *change.modified) if entry.stored}
        with self._db.read():
            searched = search.searched(self._db, claim.repository_id)
        # Before anybody can see them, in short transactions: text takes longer than rows. A first sync would wait
        # for its text most of its time, so much text is left to ``Search.catch_up``.
        if searched and len(wanted) <= search.INDEXED_AT_ONCE:
            search.index(self._db, sorted(wanted))
        with self._db.write():
            if absent := wanted - stored_blobs(self._db, wanted):
                raise StoreError(f"{len(absent)} contents of {change.head_sha} are not stored, {min(absent)} for one")
            return applying.apply(
                self._db, claim, change, result, commits=commits, now=now, read_at=read_at, served=served
            )

    def commit_shas(self, branch_id: int, limit: int | None = None) -> list[str]:
        """The stored commits, newest first; all of them without ``limit``."""
        sql = 'SELECT sha FROM "commit" WHERE branch_id = ? ORDER BY position DESC'
        with self._db.read():
            if limit is None:
                return [row[0] for row in self._db.execute(sql, (branch_id,))]
            return [row[0] for row in self._db.execute(f"{sql} LIMIT ?", (branch_id, limit))]

    def has_commit(self, branch_id: int, sha: str) -> bool:
        with self._db.read():
            row = self._db.execute('SELECT 1 FROM "commit" WHERE branch_id = ? AND sha = ? LIMIT 1', (branch_id, sha))
            return row.fetchone() is not None

    # -- for readers ------------------------------------------------------------------------------

    def branch_id(self, repository_id: int, name: str | None) -> int | None:
        """The tracked branch of that name; without a name the default branch, or the only one. None: no such."""
        with self._db.read():
            if name is None:
                return branches.default_id(self._db, repository_id)
            row = self._db.execute(
                "SELECT id FROM branch WHERE tracked AND repository_id = ? AND name = ?", (repository_id, name)
            ).fetchone()
        return None if row is None else int(row[0])

    def files(
        self, branch_id: int, *, snapshot: int | None, prefix: bytes, after: bytes | None, limit: int
    ) -> FilesPage:
        """Entries under ``prefix`` beyond ``after``, by path, of one snapshot (None: the current one).

        Raises LookupError for a snapshot that was swept or never was, and for an unknown branch.
        """
        with self._db.read():
            number, head_sha, confirmed_at = self._snapshot(branch_id, snapshot)
            end = _successor(prefix)
            bounds = (prefix, after if after is not None else b"", end, end is None)
            rows = self._db.execute(_PAGE, (branch_id, *bounds, number, number, limit)).fetchall()
        return FilesPage(number, head_sha, confirmed_at, tuple(_entry(row) for row in rows))

    def _snapshot(self, branch_id: int, number: int | None) -> tuple[int, str | None, datetime | None]:
        row = self._db.execute(
            "SELECT snapshot, oldest_snapshot, head_sha, confirmed_at FROM branch WHERE id = ?", (branch_id,)
        ).fetchone()
        if row is None:
            raise LookupError(f"there is no branch {branch_id}")
        current, oldest, head_sha, confirmed_at = row
        if number is None or number == current:
            return current, head_sha, optional_value(confirmed_at)
        made = self._db.execute(
            'SELECT "after", started_at FROM run WHERE branch_id = ? AND snapshot = ?', (branch_id, number)
        ).fetchone()
        if made is None or not oldest <= number < current:
            raise LookupError(f"snapshot {number} of branch {branch_id} is not kept any more")
        return number, made[0], optional_value(made[1])

    def raw(self, branch_id: int, path: bytes) -> RawFile | None:
        """The content of one path now; None where there is none or it is not stored."""
        with self._db.read():
            row = self._db.execute(_RAW, (branch_id, path)).fetchone()
        if row is None:
            return None
        sha, mode, size, head_sha, confirmed_at, content = row
        return RawFile(sha, mode, size, head_sha, optional_value(confirmed_at), content)

    def commits(self, branch_id: int, *, before: int | None, limit: int) -> list[tuple[int, Commit]]:
        """Commits with their positions, newest first, below position ``before``."""
        below = CURRENT if before is None else before
        with self._db.read():
            rows = self._db.execute(_COMMITS, (branch_id, below, limit)).fetchall()
        return [(row[0], Commit(row[1], row[2], tuple(json.loads(row[3])), *row[4:])) for row in rows]

    # -- sweeping ---------------------------------------------------------------------------------

    def sweep(self, *, now: datetime, keep_seconds: float = 600.0, batch: int = 1000) -> int:
        """Drop entries that only snapshots superseded for ``keep_seconds`` show, and contents nothing shows.

        Many short transactions of at most ``batch`` rows; how many rows went.
        """
        with self._db.read():
            ids = [row[0] for row in self._db.execute("SELECT id FROM branch WHERE snapshot > oldest_snapshot")]
        superseded = now - timedelta(seconds=keep_seconds)
        return sum(self._sweep_branch(id_, superseded, batch) for id_ in ids) + self._sweep_blobs(now, batch)

    def _sweep_branch(self, branch_id: int, superseded: datetime, batch: int) -> int:
        with self._db.write():
            oldest = runs.newest_superseding(self._db, branch_id, superseded)
            # First of all: a reader must be told that its snapshot is gone, not be shown half of it.
            changed = self._db.execute(
                "UPDATE branch SET oldest_snapshot = ? WHERE id = ? AND oldest_snapshot < ?",
                (oldest, branch_id, oldest),
            ).rowcount
        return self._delete_batches(_SWEEP_ENTRIES, (branch_id, oldest), batch) if changed else 0

    def _delete_batches(self, sql: str, params: tuple[Any, ...], batch: int) -> int:
        total = 0
        while True:
            with self._db.write():
                gone = self._db.execute(sql, (*params, batch)).rowcount
            total += gone
            if gone < batch:
                return total

    def _sweep_blobs(self, now: datetime, batch: int) -> int:
        """A sync stores contents before it shows them, so young ones are let be."""
        total, last, young = 0, "", instant_text(now - _ORPHAN_AGE)
        while True:
            with self._db.read():
                shas = [row[0] for row in self._db.execute(_ORPHANS, (last, young, batch))]
            if not shas:
                return total
            with self._db.write():
                search.forget(self._db, shas)
                total += self._db.executemany(_DELETE_ORPHAN, [(sha,) for sha in shas])
            last = shas[-1]


def stored_blobs(db: Database, shas: Iterable[str]) -> set[str]:
    """Which of these blobs are stored. Inside ``read`` or ``write``."""
    return set(blob_sizes(db, shas))


def blob_sizes(db: Database, shas: Iterable[str]) -> dict[str, int]:
    """The sizes of those of these blobs that are stored. Inside ``read`` or ``write``."""
    found: dict[str, int] = {}
    for chunk in _chunks(shas):
        marks = ",".join("?" * len(chunk))
        found.update(db.execute(f"SELECT sha, size FROM blob WHERE sha IN ({marks})", chunk).fetchall())  # noqa: S608
    return found


def _chunks(shas: Iterable[str]) -> Iterator[list[str]]:
    rest = _ordered(shas)
    while chunk := list(islice(rest, _CHUNK)):
        yield chunk


def _ordered(shas: Iterable[str]) -> Iterator[str]:
    """In the order of the index, in small sorts: one of 100,000 holds the interpreter's lock for 50 ms."""
    beginnings: dict[str, list[str]] = {}
    for sha in shas:
        beginnings.setdefault(sha[:1], []).append(sha)
    for beginning in sorted(beginnings):
        yield from sorted(beginnings[beginning])


def _entry(row: Any) -> Entry:
    path, mode, sha, size, stored = row
    return Entry(path, mode, sha, size, bool(stored))


def _successor(prefix: bytes) -> bytes | None:
    """The first byte string beyond all that begin with ``prefix``; None when there is no end to them."""
    head = prefix.rstrip(b"\xff")
    return head[:-1] + bytes((head[-1] + 1,)) if head else None
