"""The tree ids of a branch's folders, and what is directly in a folder. Inside ``read`` or ``write``.

The root is the folder ``b""``, its own parent; its row says which tree all the others belong to.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from daemon.model import Entry, FolderChange, StoredFolder
from daemon.store.database import Database
from daemon.store.models import CURRENT

_ROOT = "SELECT tree_sha FROM folder WHERE branch_id = ? AND parent = x'' AND path = x''"
_BELOW = "SELECT path, tree_sha FROM folder WHERE branch_id = ? AND parent = ? AND path <> x''"
_ALL = "SELECT path, tree_sha FROM folder WHERE branch_id = ?"
_FROM = f"""
    SELECT path, mode, sha, size, stored FROM entry WHERE branch_id = ? AND until = {CURRENT} AND path >= ?
"""  # noqa: S608 - a constant
_PUT = """
    INSERT INTO folder (branch_id, parent, path, tree_sha) VALUES (?, ?, ?, ?)
    ON CONFLICT (branch_id, parent, path) DO UPDATE SET tree_sha = excluded.tree_sha
"""
_DROP = "DELETE FROM folder WHERE branch_id = ? AND parent = ? AND path = ?"


def root(db: Database, branch_id: int) -> str | None:
    """The tree that the stored folders are of; None when none are stored."""
    row = db.execute(_ROOT, (branch_id,)).fetchone()
    return None if row is None else str(row[0])


def content(db: Database, branch_id: int, folder: bytes) -> StoredFolder:
    """What is directly in a folder of the current snapshot, at the cost of that alone; a folder nobody has is empty."""
    folders = {row[0]: str(row[1]) for row in db.execute(_BELOW, (branch_id, folder))}
    entries: dict[bytes, Entry] = {}
    for start, end in _gaps(folder, folders):
        for path, mode, sha, size, stored in _between(db, branch_id, start, end):
            entries[path] = Entry(path, mode, sha, size, bool(stored))
    return StoredFolder(entries, folders)


def _gaps(folder: bytes, folders: dict[bytes, str]) -> Iterator[tuple[bytes, bytes | None]]:
    """The ranges of paths in a folder that are in none of its sub-folders."""
    start = folder + b"/" if folder else b""
    for inside in sorted(path + b"/" for path in folders):
        yield start, inside
        start = inside[:-1] + b"0"  # what follows the slash
    yield start, folder + b"0" if folder else None


def _between(db: Database, branch_id: int, start: bytes, end: bytes | None) -> Iterator[Any]:
    if end is None:
        return iter(db.execute(_FROM, (branch_id, start)))
    return iter(db.execute(_FROM + " AND path < ?", (branch_id, start, end)))


def apply(db: Database, branch_id: int, change: FolderChange) -> None:
    """Make the stored ids those of ``change``; only rows that differ are written."""
    ids = dict(change.ids)
    if change.whole:
        before = {row[0]: row[1] for row in db.execute(_ALL, (branch_id,))}
        ids = {path: sha for path, sha in ids.items() if before.get(path) != sha} | {
            path: None for path in before if path not in change.ids
        }
    gone = [(branch_id, _parent(path), path) for path, sha in ids.items() if sha is None]
    db.executemany(_DROP, gone)
    db.executemany(_PUT, sorted((branch_id, _parent(path), path, sha) for path, sha in ids.items() if sha is not None))


def forget(db: Database, branch_id: int) -> None:
    """Drop what vouches for the rows: the next change takes the whole tree."""
    db.execute("DELETE FROM folder WHERE branch_id = ?", (branch_id,))


def _parent(path: bytes) -> bytes:
    return path.rpartition(b"/")[0]
