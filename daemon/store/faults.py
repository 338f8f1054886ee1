"""SQLite's errors in the daemon's words: which mean "try again later", and what a person can do."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from peewee import PeeweeException

from daemon.errors import StoreError, StoreIncompatible, StoreUnavailable

DATABASE_ERRORS = (PeeweeException, sqlite3.Error)

_PRIMARY = 0xFF  # extended codes carry the primary one in their low byte: https://sqlite.org/rescode.html
_UNAVAILABLE = {
    sqlite3.SQLITE_BUSY: "is locked by another program; `fuser` tells which",
    sqlite3.SQLITE_LOCKED: "is locked by another program; `fuser` tells which",
    sqlite3.SQLITE_PROTOCOL: "is locked by another program; `fuser` tells which",
    sqlite3.SQLITE_FULL: "cannot grow: the disk is full; free some space, nothing else is needed",
    sqlite3.SQLITE_IOERR: "met an I/O error; look at the disk and the kernel's log",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened; look at the permissions of the file and its folder",
    sqlite3.SQLITE_PERM: "cannot be opened; look at the permissions of the file and its folder",
    sqlite3.SQLITE_READONLY: "is read-only; look at the permissions of the file, its folder and its mount",
    sqlite3.SQLITE_NOMEM: "cannot be used: out of memory",
}
_DAMAGED = {
    sqlite3.SQLITE_NOTADB: "is not a database",
    sqlite3.SQLITE_CORRUPT: "is damaged",
}
# What failed to reach the disk may be marked as written all the same, and the next attempt then succeeds without it
# (Rebello and others, "Can Applications Recover from fsync Failures?", USENIX ATC 2020).
_UNSURE = {sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC}
_ASIDE = "; move it (with its -wal and -shm) aside, and headwater fetches everything from GitHub again"


def explained(error: Exception, path: Path) -> StoreError:
    """What ``error`` means for whoever wanted something of the store at ``path``."""
    code = _code(error)
    if code in _UNAVAILABLE:
        return StoreUnavailable(f"{path} {_UNAVAILABLE[code]} ({error})")
    if code in _DAMAGED:
        return StoreUnavailable(f"{path} {_DAMAGED[code]}{_ASIDE} ({error})")
    return StoreError(f"{path} refused a statement: {error}")


def explained_at_start(error: Exception, path: Path) -> StoreError:
    """The same before anything was stored: what cannot get better by waiting is StoreIncompatible."""
    code = _code(error)
    if code in _DAMAGED:
        return StoreIncompatible(f"{path} {_DAMAGED[code]}{_ASIDE} ({error})")
    if code in {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY}:
        return StoreIncompatible(f"{path} {_UNAVAILABLE[code]} ({error})")
    return explained(error, path)


def is_unsure(error: Exception) -> bool:
    """Whether after ``error`` nobody can tell what is on the disk."""
    return _extended_code(error) in _UNSURE


def _code(error: Exception) -> int:
    return _extended_code(error) & _PRIMARY


def _extended_code(error: Exception) -> int:
    cause = getattr(error, "orig", error)  # peewee keeps the driver's error there
    return int(getattr(cause, "sqlite_errorcode", 0))
