"""Entities out of stored contents: of the files that a sync changed, or of all, without asking GitHub for any."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from daemon.clock import Clock
from daemon.model import (
    MODE_EXECUTABLE,
    MODE_FILE,
    BranchFacts,
    Collection,
    EntityChange,
    Entry,
    ParsedFile,
    SnapshotChange,
)
from daemon.store.entities import Entities
from daemon.store.snapshots import Snapshots
from daemon.sync.documents import MAX_BYTES
from daemon.sync.entities import Collections, parse_file, refused

Checked = Callable[[], None]
_BATCH = 200  # contents in memory at a time, each of MAX_BYTES at most
_ATTEMPTS = 3


def of_change(
    snapshots: Snapshots, collections: Collections, facts: BranchFacts, change: SnapshotChange, check: Checked
) -> EntityChange:
    """What a sync does to the entities; all files are read again when the rules have changed meanwhile."""
    if facts.collections_digest != collections.digest:
        entries = {entry.path: entry for entry in snapshots.entries(facts.id)}
        for path in change.removed:
            entries.pop(path, None)
        entries |= {entry.path: entry for entry in (*change.added, *change.modified)}
        return of_all(snapshots, collections, list(entries.values()), check)
    changed = (*change.added, *change.modified)
    paths = (*(entry.path for entry in changed), *change.removed) if collections.digest else ()
    return EntityChange(collections.digest, tuple(_parsed(snapshots, collections, changed, check)), paths)


def of_all(snapshots: Snapshots, collections: Collections, entries: Sequence[Entry], check: Checked) -> EntityChange:
    """What all files of a snapshot say."""
    return EntityChange(collections.digest, tuple(_parsed(snapshots, collections, entries, check)), None)


def _parsed(
    snapshots: Snapshots, collections: Collections, entries: Sequence[Entry], check: Checked
) -> Iterator[ParsedFile]:
    rest = iter(
        (entry, rule)
        for entry in entries
        if entry.mode in (MODE_FILE, MODE_EXECUTABLE)
        for rule in collections.rules_of(entry.path)
    )
    while batch := list(islice(rest, _BATCH)):
        check()
        contents = snapshots.blobs({entry.sha for entry, _ in batch if entry.stored and _fits(entry)})
        for entry, rule in batch:
            if (file := _file(entry, rule, contents.get(entry.sha))) is not None:
                yield file


def _fits(entry: Entry) -> bool:
    return (entry.size or 0) <= MAX_BYTES


def _file(entry: Entry, rule: Collection, content: bytes | None) -> ParsedFile | None:
    if content is not None:
        return parse_file(entry.path, entry.sha, content, rule)
    if not _fits(entry):
        reason = f"the file has {entry.size} bytes; entities are read from files of at most {MAX_BYTES}"
        return refused(entry.path, entry.sha, rule, reason)
    if entry.stored:
        return refused(entry.path, entry.sha, rule, "the file's content is missing in the store; `headwater verify`")
    return None  # its content is not to be kept: then it is no entity either


class Harvest:
    """Reads all files of a branch again when its collections have changed. Asks GitHub for nothing."""

    def __init__(self, snapshots: Snapshots, entities: Entities, *, clock: Clock) -> None:
        self._snapshots = snapshots
        self._entities = entities
        self._clock = clock

    def renew(self, branch_id: int, collections: Collections, *, check: Checked = lambda: None) -> bool:
        """Bring one branch in line with its rules; whether that is done, or was needed no more.

        A sync that moves the branch meanwhile has it done over; after three times it is left for the next call.
        """
        for _ in range(_ATTEMPTS):
            facts = self._snapshots.facts(branch_id)
            if facts.head_sha is None or facts.collections_digest == collections.digest:
                return True
            change = of_all(self._snapshots, collections, self._snapshots.entries(branch_id), check)
            check()
            if self._entities.remake(branch_id, facts.snapshot, change, now=self._clock.now()):
                return True
        return False
