"""`headwater copy-store`: everything that one store keeps, put into another and proven to have arrived."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pydantic

from daemon.clock import Clock
from daemon.errors import HeadwaterError, StoreError, StoreLocked
from daemon.settings import StorageSettings
from daemon.store import copying
from daemon.store.database import Database
from daemon.store.nodes import Nodes
from daemon.store.opening import open_store
from daemon.store.repositories import Repositories
from daemon.store.snapshots import Snapshots
from daemon.sync import planning
from daemon.values import url_passwords


def copy_store(source: str, target: str, *, told: Callable[[str, int], None]) -> dict[str, Any]:
    """Copy between two `storage.url`s; how many rows, and how many snapshots whose tree was computed again.

    Raises StoreError when a store cannot be used or the copy is not the same, HeadwaterError for a wrong URL.
    """
    _assert_there(_settings(source))
    with _opened(source) as one, _opened(target) as other:
        rows = copying.copy(one, other, told=told)
        return {"rows": rows, "trees": _proven(other)}


def _assert_there(source: StorageSettings) -> None:
    """Opening would make it, and a copy of nothing is what nobody asks for."""
    if not source.is_postgres and not source.sqlite_path.exists():
        raise HeadwaterError(
            f"{source.sqlite_path} does not exist: there is nothing to copy; an absolute path has four slashes, as in "
            "sqlite:////var/lib/headwater/headwater.db"
        )


@contextmanager
def _opened(url: str) -> Iterator[Database]:
    clock = Clock()
    with closing(open_store(_settings(url), clock=clock)) as database:
        _refuse_used(database)
        yield database


def _settings(url: str) -> StorageSettings:
    try:
        settings = pydantic.TypeAdapter(StorageSettings).validate_python({"url": url})
    except pydantic.ValidationError as error:
        raise HeadwaterError(f"the URL of a store {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None
    if url_passwords(url):
        raise HeadwaterError(
            "a password on the command line can be read by every user of this machine; put it into ~/.pgpass or "
            "PGPASSWORD, and leave it out of the URL"
        )
    return settings


def _refuse_used(database: Database) -> None:
    """A daemon that goes on writing would have its changes lost."""
    if living := Nodes(database).living():
        names = ", ".join(f"process {node.pid} on {node.host}" for node in living)
        raise StoreLocked(f"{database.name} is in use by {names}; stop it first")


def _proven(database: Database) -> int:
    """Recompute the tree of every proven snapshot from the copied rows; how many there are. Raises StoreError."""
    repositories, snapshots = Repositories(database), Snapshots(database)
    proven = 0
    for repository in repositories.every():
        for branch in repository.branches:
            if branch.tree_sha and branch.tree_verified:
                proof = planning.prove(snapshots.entries(branch.id), branch.tree_sha)
                if not proof.verified:
                    raise StoreError(f"the copy of {repository.full_name}@{branch.name} is not its tree: {proof.error}")
                proven += 1
    return proven
