"""`headwater doctor`: everything that a bug report needs, on one page and without secrets."""

from __future__ import annotations

import platform
import shutil
import sqlite3
from collections.abc import Iterator
from datetime import datetime
from importlib import metadata

from daemon.clock import Clock
from daemon.commands.check import check_config
from daemon.commands.findings import Finding
from daemon.commands.online import asking_client, check_online
from daemon.config import Config
from daemon.errors import StoreError
from daemon.redaction import Redactor
from daemon.store.database import Database
from daemon.store.history import History
from daemon.store.nodes import Nodes
from daemon.store.opening import open_to_read
from daemon.store.repositories import Repositories
from daemon.version import __version__
from daemon.web import words

LIBRARIES = ("tornado", "APScheduler", "requests", "tenacity", "peewee", "pydantic", "isal")
LITTLE_BYTES = 1_000_000_000
CLOCK_OFF_SECONDS = 60.0
NO_DAEMON = Finding("daemon", "does not run on this store", warning=True)


def examine(config: Config, *, online: bool) -> list[Finding]:
    """All findings, secrets removed. Reads the whole store; asks GitHub when ``online``."""
    clock = Clock()
    found = [*versions(), *check_config(config)]
    with asking_client(config, clock) as client:
        if online:
            found += check_online(config, client, clock)
        found.append(_clock(client.time_at_github(), clock.now()))
    found += [*_daemon(config), *_store(config, clock), *_disk(config)]
    redact = Redactor(config.secret_values)
    return [
        Finding(redact(words.visible(one.subject)), redact(words.visible(one.message)), one.ok, one.warning)
        for one in found
    ]


def versions() -> Iterator[Finding]:
    python = f"{platform.python_implementation()} {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    yield Finding("headwater", f"{__version__} on {python}, {platform.platform()}")
    yield Finding("libraries", ", ".join(f"{name} {metadata.version(name)}" for name in LIBRARIES))


def _clock(theirs: datetime | None, now: datetime) -> Finding:
    """The clock of this machine beside GitHub's, as its answers told it: the ages that are shown hang on it."""
    told = f"{now:%Y-%m-%d %H:%M:%S} UTC"
    if theirs is None:
        return Finding("clock", f"{told}, compared with nothing")
    ahead = (now - theirs).total_seconds()
    if abs(ahead) < CLOCK_OFF_SECONDS:
        return Finding("clock", f"{told}, as GitHub's to {abs(ahead):.0f} s")
    which = "ahead of" if ahead > 0 else "behind"
    return Finding("clock", f"{told}, {words.span(abs(ahead))} {which} GitHub's: set it (NTP)", ok=False)


def _daemon(config: Config) -> Iterator[Finding]:
    if config.storage.is_postgres:
        return  # the store itself says who uses it
    owner = Database.locked_by(config.storage.sqlite_path)
    if owner is None:
        yield NO_DAEMON
    else:
        at = owner.get("admin_url") or "no admin listener yet"
        yield Finding("daemon", f"runs as process {owner.get('pid')}, {at}")


def _store(config: Config, clock: Clock) -> Iterator[Finding]:
    storage = config.storage
    if not storage.is_postgres and not storage.sqlite_path.exists():
        yield Finding("store", f"there is none at {storage.sqlite_path} yet", warning=True)
        return
    try:
        database = open_to_read(storage, clock=clock)
        try:
            if database.shared:
                yield from _nodes(database)
            yield _contents(database)
            yield _integrity(database)
            yield from _failures(database)
        finally:
            database.close()
    except StoreError as error:
        yield Finding("store", str(error), ok=False)


def _nodes(database: Database) -> Iterator[Finding]:
    living = Nodes(database).living()
    if not living:
        yield NO_DAEMON
    for node in living:
        at = node.admin_url or "no admin listener yet"
        yield Finding("daemon", f"{node.version} runs as process {node.pid} on {node.host}, {at}")


def _contents(database: Database) -> Finding:
    repositories = list(Repositories(database).every())
    branches = sum(len(one.branches) for one in repositories)
    counted = words.counted(len(repositories), "repository", "repositories")
    counted += ", " + words.counted(branches, "branch", "branches")
    return Finding("store", f"{database.name}, {words.size(database.size_bytes())}, {counted}")


def _integrity(database: Database) -> Finding:
    told = database.integrity()
    if database.shared:
        return Finding("integrity", "it answers; pg_amcheck looks deeper, `headwater verify` at every git object id")
    if told == "ok":
        return Finding("integrity", "the database is sound; `headwater verify` also recomputes every git object id")
    first = told.splitlines()[0]
    return Finding("integrity", f"damaged: {first}; move the file aside and start: it is rebuilt from GitHub", ok=False)


def _failures(database: Database) -> Iterator[Finding]:
    """What the branches suffer from, and the newest run."""
    for repository in Repositories(database).every():
        errors = [repository.last_error, *(one.last_error or one.waiting_for for one in repository.branches)]
        for error in dict.fromkeys(error for error in errors if error):
            yield Finding(repository.full_name, error.removeprefix(f"{repository.full_name}: "), warning=True)
    for run in History(database).runs(before_id=None, limit=1):
        at = f"{run.finished_at:%Y-%m-%d %H:%M:%S} UTC"
        yield Finding("last run", f"{run.repository}@{run.branch} by {run.trigger}: {run.outcome}, {at}")


def _disk(config: Config) -> Iterator[Finding]:
    if config.storage.is_postgres:
        return
    folder = config.storage.sqlite_path.parent
    try:
        usage = shutil.disk_usage(folder)
    except OSError as error:
        yield Finding("disk", f"{folder}: {error.strerror}; create the folder", ok=False)
        return
    told = f"{words.size(usage.free)} of {words.size(usage.total)} free at {folder}"
    yield Finding("disk", told, warning=usage.free < LITTLE_BYTES)
