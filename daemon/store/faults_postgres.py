"""PostgreSQL's errors in the daemon's words, as ``faults`` has SQLite's.

https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

from __future__ import annotations

import psycopg

from daemon.errors import StoreError, StoreIncompatible, StoreInterrupted, StoreUnavailable

_INTERRUPTED = {
    "40001": "ended a transaction that met another",
    "40P01": "ended a transaction that met another",
    "57P01": "ended the connection",
    "57P02": "crashed",
    "57P03": "is starting or stopping",
    "25P03": "ended a transaction in which this process stood still",
    "25P04": "ended a transaction that took too long",
}
_UNAVAILABLE = {
    "55P03": "was busy with other writes",
    "57014": "took too long for a statement",
    "25006": "is read-only: it is a standby, or has been made so",
    "53100": "has a full disk; free some space, nothing else is needed",
    "53200": "is out of memory",
    "53300": "has no connection left; raise max_connections, or run fewer daemons",
}
_UNAVAILABLE_CLASSES = {
    "08": "cannot be reached",
    "53": "is out of something",
    "58": "met an I/O error",
    "XX": "is damaged",
}
_NOT_ALLOWED = "42501"
# https://www.postgresql.org/docs/current/limits.html; what repeats itself is compressed first, and may be longer
_TOO_LONG = "54000"


def explained(error: psycopg.Error, name: str) -> StoreError:
    """What ``error`` means for whoever wanted something of the store called ``name``."""
    code, told = error.sqlstate or "", words(error)
    if code in _INTERRUPTED:
        return StoreInterrupted(f"{name} {_INTERRUPTED[code]} ({told})")
    if not code and isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return StoreInterrupted(f"{name} was cut off ({told})")
    if reason := _UNAVAILABLE.get(code) or _UNAVAILABLE_CLASSES.get(code[:2]):
        return StoreUnavailable(f"{name} {reason} ({told})")
    if code == _TOO_LONG:
        why = "a path, or a folder's with its parent's, or an entity's id has more than some 2,600 bytes, which"
        return StoreError(f"{why} PostgreSQL cannot index; a store on SQLite takes it ({told})")
    return StoreError(f"{name} refused a statement: {told}")


def unreachable(error: psycopg.Error, name: str) -> StoreUnavailable:
    """Nothing was begun: there is no connection, or no turn to write."""
    code = error.sqlstate or ""
    reason = _UNAVAILABLE.get(code) or _UNAVAILABLE_CLASSES.get(code[:2], "cannot be reached")
    return StoreUnavailable(f"{name} {reason} ({words(error)})")


def explained_at_start(error: psycopg.Error, name: str) -> StoreError:
    """The same before anything was stored: what cannot get better by waiting is StoreIncompatible."""
    if error.sqlstate == _NOT_ALLOWED:
        why = "does not let this user make its tables; the user must own the database, or a schema of its own"
        return StoreIncompatible(f"{name} {why} ({words(error)})")
    return explained(error, name)


def words(error: psycopg.Error) -> str:
    """What the server or the driver says, in one line."""
    return error.diag.message_primary or " ".join(str(error).split())
