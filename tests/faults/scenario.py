"""What is killed, or fails: one part of the daemon in a process of one thread, so that its N-th system call is always the same.

``python scenario.py PART FOLDER API_URL [--broken SWITCH]``. The first call to ``os.access`` of MARKER tells the runner
where the part begins: what Python does to start up is nobody's crash. ``FOLDER/ledger`` holds what was promised, a line
each, written after the promise. A SWITCH breaks the part on purpose, to show that the oracle sees it.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench import Bench

from daemon.actions.publish import Folder
from daemon.actions.runner import ActionRunner
from daemon.clock import Clock
from daemon.config import ActionRule
from daemon.errors import StoreUnavailable
from daemon.model import Entry
from daemon.store.actions import Actions
from daemon.store.database import Database
from daemon.store.feed import Feed

MARKER = "/headwater-begins-here"
DELIVERIES = 10
REFUSED = "refused"
SWITCHES = ("acknowledge-first", "no-transaction", "no-flip", "synchronous-normal", "go-on")


@dataclass(frozen=True)
class Peer:
    """All that a bench wants of the stand-in, which runs in the test's process."""

    url: str


def begin() -> None:
    os.access(MARKER, os.F_OK)


def promise(folder: Path, line: str) -> None:
    handle = os.open(folder / "ledger", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(handle, f"{line}\n".encode())
    os.close(handle)


def open_bench(folder: Path, api_url: str) -> Bench:
    return Bench(folder, Peer(api_url), None)  # type: ignore[arg-type]


def ingest(folder: Path, api_url: str, broken: str | None) -> None:
    """Deliveries, each answered after its commit; one that cannot be stored is refused, and the next one comes."""
    bench = open_bench(folder, api_url)
    if broken == "synchronous-normal":
        bench.database._sqlite.handle().execute("PRAGMA synchronous = NORMAL")
    begin()
    for number in range(DELIVERIES):
        guid = f"guid-{number}"
        if broken == "acknowledge-first":
            promise(folder, guid)
        try:
            bench.announce(None, f"{number:040x}", guid=guid)
        except StoreUnavailable:
            promise(folder, REFUSED)
            if broken == "go-on":
                bench.database.failure = None
        else:
            promise(folder, guid)
    bench.close()


def sync(folder: Path, api_url: str, broken: str | None) -> None:
    """Claim, fetch, apply, finish."""
    bench = open_bench(folder, api_url)
    if broken == "no-transaction":
        one_statement_at_a_time(bench.database)
    begin()
    with suppress(StoreUnavailable):  # a worker looks again in a second
        bench.work()
    bench.close()


def first(folder: Path, api_url: str, broken: str | None) -> None:
    """The first sync, out of an archive."""
    sync(folder, api_url, broken)


def act(folder: Path, api_url: str, broken: str | None) -> None:
    """A command that is told of the newest change, and the note that it was."""
    del broken
    bench = open_bench(folder, api_url)
    begin()
    act_on_all(bench, folder)
    bench.close()


def act_on_all(bench: Bench, folder: Path) -> None:
    """Carry out what the configured action has not acted on yet, without any thread."""
    actions = Actions(bench.database)
    runner = ActionRunner(actions, bench.snapshots, clock=bench.time.clock, environ={"HOME": str(folder)})
    runner.configure([ActionRule(command=("/bin/sh", "-c", 'echo "$HEADWATER_AFTER" >> "$HOME/acted"'))])
    while actions.scan(runner._concerns):
        pass
    for pair in actions.due(bench.time.at):
        while runner.step(pair):
            pass


def start(folder: Path, api_url: str, broken: str | None) -> None:
    """The first start: make the store, migrate it, track what is configured."""
    del broken
    begin()
    open_bench(folder, api_url).close()


def prune(folder: Path, api_url: str, broken: str | None) -> None:
    """Sweep what is too old, and move the log into the database."""
    del broken
    bench = open_bench(folder, api_url)
    begin()
    bench.time.advance(90 * 86400)
    with suppress(StoreUnavailable):  # the daemon sweeps again in a while
        bench.history.sweep(now=bench.time.at, delivery_retention_seconds=4 * 86400, run_keep=1)
        bench.snapshots.sweep(now=bench.time.at)
        Feed(bench.database).sweep(now=bench.time.at, keep_seconds=86400)
    with suppress(StoreUnavailable):
        bench.database.checkpoint()
    bench.close()


def publish(folder: Path, api_url: str, broken: str | None) -> None:
    """Build a version of the snapshot and flip to it."""
    bench = open_bench(folder, api_url)
    facts = bench.facts()
    entries = bench.snapshots.entries(facts.id)
    begin()
    if broken == "no-flip":
        write_in_place(folder / "site", entries, bench)
    else:
        Folder(folder / "site").publish(facts.head_sha or "", entries, bench.snapshots.blob, now=Clock().now())
    promise(folder, facts.head_sha or "")
    bench.close()


def write_in_place(site: Path, entries: list[Entry], bench: Bench) -> None:
    """What the publication must not be: files written over those that readers see."""
    for entry in entries:
        path = site / os.fsdecode(entry.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bench.snapshots.blob(entry.sha) or b"")


def one_statement_at_a_time(database: Database) -> None:
    """Every statement its own transaction, as a store that forgot ``BEGIN`` would have it."""
    kept = database.write

    @contextmanager
    def write(*, alone: bool = True, together: bool = False) -> Iterator[None]:
        if getattr(database._local, "mode", None) == "write":
            yield  # a part of a transaction that there is not
            return
        with kept(alone=alone, together=together):
            handle: Any = database._sqlite.handle()
            handle.execute("COMMIT")
            database._local.connection = handle
            yield
            handle.execute("BEGIN IMMEDIATE")

    database.write = write  # type: ignore[method-assign]


PARTS = {part.__name__: part for part in (ingest, first, sync, start, prune, publish, act)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("api_url")
    parser.add_argument("--broken", choices=SWITCHES)
    arguments = parser.parse_args()
    PARTS[arguments.part](arguments.folder, arguments.api_url, arguments.broken)


if __name__ == "__main__":
    main()
