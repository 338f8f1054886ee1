"""`headwater prune`: removes what is stored of repositories that are gone or not tracked any more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from daemon.clock import Clock
from daemon.commands.sync import Asking
from daemon.config import Config
from daemon.errors import HeadwaterError
from daemon.model import PruneCandidate
from daemon.store.database import Database
from daemon.store.opening import open_store, open_to_read
from daemon.store.pruning import Pruning
from daemon.store.repositories import Repositories
from daemon.web.words import counted


def candidates(config: Config, names: Sequence[str]) -> list[PruneCandidate]:
    """What may be removed, or what of ``names`` may; HeadwaterError for a name that must not or is not there."""
    database = open_to_read(config.storage, clock=Clock())
    try:
        if not names:
            return Pruning(database).candidates()
        return [_candidate(database, name) for name in dict.fromkeys(name.lower() for name in names)]
    finally:
        database.close()


def _candidate(database: Database, name: str) -> PruneCandidate:
    found = Pruning(database).find(name)
    if found is not None:
        return found
    if Repositories(database).by_name(*name.partition("/")[::2]) is None:
        raise HeadwaterError(f"{name} is not in the store")
    raise HeadwaterError(
        f"{name} is tracked and not gone; remove it from the configuration and reload or restart the daemon first"
    )


def prune(config: Config, chosen: Sequence[PruneCandidate]) -> list[PruneCandidate]:
    """Remove them, or have the running daemon do it; those that were removed.

    One that is back meanwhile is left alone. Raises HeadwaterError when the daemon does not answer.
    """
    daemon = None if config.storage.is_postgres else Database.locked_by(config.storage.sqlite_path)
    if daemon and daemon.get("admin_url"):
        asking = Asking(config, str(daemon["admin_url"]))
        return [one for one in chosen if asking.prune(one.full_name)]
    database = open_store(config.storage, clock=Clock())
    try:
        pruning = Pruning(database)
        pruned = [one for one in chosen if pruning.forget(one.id)]
        pruning.sweep()
        return pruned
    finally:
        database.close()


def as_json(one: PruneCandidate) -> dict[str, Any]:
    return {
        "repository": one.full_name,
        "state": one.state.value,
        "tracked": one.tracked,
        "branches": one.branches,
        "entries": one.entries,
    }


def line(one: PruneCandidate) -> str:
    why = "gone" if one.state.value == "gone" else "not tracked"
    note = "; it is configured, and begins anew should GitHub have it again" if one.configured else ""
    stored = f"{counted(one.branches, 'branch', 'branches')}, {counted(one.entries, 'entry', 'entries')}"
    return f"{one.full_name}  {why}: {stored}{note}"
