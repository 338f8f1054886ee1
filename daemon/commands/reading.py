"""`headwater ls`, `cat`, `log`, `changes`: what is stored, read from the store beside a running daemon."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

from daemon.clock import Clock
from daemon.config import Config
from daemon.errors import HeadwaterError
from daemon.model import (
    BranchRecord,
    ChangeRecord,
    Commit,
    EntityRecord,
    Entry,
    FilesPage,
    RawFile,
    SearchHit,
    SearchPosition,
)
from daemon.store.database import Database
from daemon.store.entities import Entities
from daemon.store.feed import Feed
from daemon.store.opening import open_to_read
from daemon.store.repositories import Repositories
from daemon.store.search import Search
from daemon.store.snapshots import Snapshots
from daemon.web.answers import change_json, chosen_branch, commit_json, content_json, entry_json, hit_json, iso
from daemon.web.entities import entity_json

PAGE = 1000
SHORT = 10
UNSAFE = re.compile(r'[\x00-\x1f\x7f-\x9f"\\\ud800-\udfff]')


class NothingThere(HeadwaterError):
    """What was asked for is not stored; ``str()`` says what, and why it may be so."""


@dataclass(frozen=True, slots=True)
class Reader:
    """One branch of the store, open to be read in one transaction."""

    snapshots: Snapshots
    repository: str
    branch: BranchRecord

    def about(self) -> dict[str, Any]:
        """What every answer about the branch begins with."""
        return {
            "repository": self.repository,
            "branch": self.branch.name,
            "commit_sha": self.branch.head_sha,
            "confirmed_at": iso(self.branch.confirmed_at),
        }

    def entries(self, prefix: bytes) -> Iterator[Entry]:
        """The entries under a prefix, by path. Raises NothingThere when a prefix that is not empty has none."""
        page = self._page(prefix, None)
        if prefix and not page.entries:
            raise NothingThere(f"{self.repository}@{self.branch.name} has nothing under {quoted(prefix)}")
        while page.entries:
            yield from page.entries
            page = self._page(prefix, page.entries[-1].path)

    def _page(self, prefix: bytes, after: bytes | None) -> FilesPage:
        return self.snapshots.files(self.branch.id, snapshot=None, prefix=prefix, after=after, limit=PAGE)

    def content(self, path: bytes) -> RawFile:
        """The stored content of a path. Raises NothingThere."""
        found = self.snapshots.raw(self.branch.id, path)
        if found is None:
            raise NothingThere(f"{self.repository}@{self.branch.name}: {quoted(path)} {self._why_not(path)}")
        return found

    def _why_not(self, path: bytes) -> str:
        known = self.snapshots.files(self.branch.id, snapshot=None, prefix=path, after=None, limit=1).entries
        if not known:
            return "does not exist"
        if known[0].path != path:
            return "is no file" if known[0].path.startswith(path.rstrip(b"/") + b"/") else "does not exist"
        return "is a submodule" if known[0].size is None else "is kept without content (too large, or left out)"

    def commits(self, count: int) -> Iterator[Commit]:
        """At most ``count`` commits, newest first."""
        before: int | None = None
        while count and (page := self.snapshots.commits(self.branch.id, before=before, limit=min(count, PAGE))):
            yield from (commit for _, commit in page)
            count, before = count - len(page), page[-1][0]


@contextmanager
def reading(config: Config) -> Iterator[Database]:
    """The store, in one read transaction. Raises StoreError without one."""
    database = open_to_read(config.storage, clock=Clock())
    try:
        with database.read():
            yield database
    finally:
        database.close()


@contextmanager
def reading_branch(config: Config, name: str, branch: str | None) -> Iterator[Reader]:
    """One branch of a repository; the default one when not named. Raises NothingThere, and StoreError."""
    with reading(config) as database:
        owner, _, bare = name.partition("/")
        record = Repositories(database).record(owner, bare)
        found = chosen_branch(record, branch) if record else None
        if record is None or found is None:
            wanted = f"branch {branch}" if branch else "branch yet"
            raise NothingThere(f"{name} has no {wanted} in the store; `headwater status` shows what there is")
        yield Reader(Snapshots(database), record.full_name, found)


def files(reader: Reader, prefix: bytes, *, as_json: bool) -> bytes:
    """What `ls` prints."""
    entries = reader.entries(prefix)
    if as_json:
        return _json(reader.about() | {"files": [entry_json(entry) for entry in entries]})
    return _lines(entry_line(entry) for entry in entries)


def content(reader: Reader, path: bytes, *, as_json: bool) -> bytes:
    """What `cat` prints: the bytes as they are."""
    found = reader.content(path)
    return _json(reader.about() | content_json(path, found)) if as_json else found.content


def commits(reader: Reader, count: int, *, as_json: bool) -> bytes:
    """What `log` prints."""
    found = reader.commits(count)
    if as_json:
        return _json(reader.about() | {"commits": [commit_json(commit) for commit in found]})
    return _lines(commit_line(commit) for commit in found)


def changes(database: Database, since: int | None, *, as_json: bool) -> bytes:
    """What `changes` prints."""
    every = _changes(database, since)
    if as_json:
        return _json({"changes": [change_json(record) for record in every]})
    return _lines(change_line(record) for record in every)


def _changes(database: Database, since: int | None) -> Iterator[ChangeRecord]:
    """Every change after ``since``, oldest first. Raises NothingThere when some of them are not kept any more."""
    more = True
    while more:
        try:
            page = Feed(database).page(since, limit=PAGE)
        except LookupError as error:
            raise NothingThere(f"{error}: read the branches anew, then start without --since") from None
        yield from page.items
        more, since = page.more, page.items[-1].id if page.items else since


def search(database: Database, text: str, name: str | None, prefix: bytes, *, count: int, as_json: bool) -> bytes:
    """What `search` prints: as grep -n does."""
    hits = list(islice(_hits(database, text, name, prefix), count))
    if as_json:
        return _json({"items": [hit_json(hit) for hit in hits]})
    return _lines(hit_line(hit) for hit in hits)


def _hits(database: Database, text: str, name: str | None, prefix: bytes) -> Iterator[SearchHit]:
    repository_id = Repositories(database).by_name(*name.partition("/")[::2]) if name else None
    if name and repository_id is None:
        raise NothingThere(f"{name} is not in the store yet; `headwater status` shows what there is")
    position: SearchPosition | None = None
    while True:
        page = Search(database).find(text, repository_id=repository_id, prefix=prefix, after=position, limit=PAGE)
        yield from page.items
        position = page.position
        if position is None:
            return


def entities(database: Database, entity_type: str, entity_id: str | None, *, count: int, as_json: bool) -> bytes:
    """What `entities` prints: those of a type by id, or one whole. Raises NothingThere, but not for a list as JSON."""
    store = Entities(database)
    branches = store.branches()
    if entity_id is not None:
        found = store.one(branches, entity_type, entity_id)
        if found is None:
            raise NothingThere(_no_entity(store.counts(branches), entity_type, entity_id))
        return _json(entity_json(found))
    records: list[EntityRecord] = []
    more, after = True, None
    while more and len(records) < count:
        page, more = store.page(branches, entity_type, after=after, limit=min(PAGE, count - len(records)))
        records += page
        after = (page[-1].entity_id, page[-1].branch_id) if page else None
    if as_json:
        return _json({"items": [entity_json(one) for one in records]})
    if count and not records:
        raise NothingThere(_no_entity(store.counts(branches), entity_type))
    return _lines(
        UNSAFE.sub("?", f"{one.entity_id}  {one.label or ''}  {one.repository}@{one.branch}") for one in records
    )


def _no_entity(counts: Sequence[tuple[str, int]], entity_type: str, entity_id: str | None = None) -> str:
    """Why there is none, as far as the numbers of entities by type tell."""
    known = [name for name, _ in counts]
    if not known:
        return "there are no entities: no [[repositories.collections]] is configured, or none has been synced yet"
    if entity_id is not None and entity_type in known:
        return f"there is no {entity_type} with the id {entity_id}"
    return f"there are no entities of the type {printable(entity_type)}; the types are {', '.join(known)}"


def show(printed: bytes) -> None:
    """Write it to standard output; a reader that has seen enough (`| head`) is no error.

    Called when the store is closed: a pager may take hours, and an open read keeps the write-ahead log from shrinking.
    """
    try:
        sys.stdout.buffer.write(printed)
        sys.stdout.flush()
    except BrokenPipeError:
        # Older versions of click would exit 1; and what is still buffered would fail again when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=2).encode("ascii") + b"\n"


def _lines(lines: Iterable[str]) -> bytes:
    return b"".join(line.encode("utf-8", "replace") + b"\n" for line in lines)


# -- as text --------------------------------------------------------------------------------------


def entry_line(entry: Entry) -> str:
    """As `git ls-tree -r -l` shows it."""
    size = "-" if entry.size is None else str(entry.size)
    return f"{entry.mode} {entry.sha} {size:>8}  {quoted(entry.path)}"


def commit_line(commit: Commit) -> str:
    subject = printable(commit.message.partition("\n")[0])
    return f"{commit.sha[:SHORT]}  {commit.committed_at}  {printable(commit.author_name)}  {subject}"


def hit_line(hit: SearchHit) -> str:
    where = f"{hit.repository}@{printable(hit.branch)}:{quoted(hit.path.encode())}"
    return f"{where}:{hit.line}: {printable(hit.excerpt)}"


def change_line(change: ChangeRecord) -> str:
    """One change; the counts are of paths added, modified, removed, and of entities where there are any."""
    counts = f"+{len(change.added)} ~{len(change.modified)} -{len(change.removed)}"
    if news := change.entities:
        counts += f"  entities +{len(news.added)} ~{len(news.modified)} -{len(news.removed)}"
    moved = f"{(change.before or 'nothing')[:SHORT]} -> {change.after[:SHORT]}"
    where = f"{change.repository}@{printable(change.branch)}"
    return f"{change.id}  {iso(change.created_at)}  {where}  {moved}  {counts}"


def quoted(path: bytes) -> str:
    """A path on one line: as it is, or in quotes with escapes as git writes it when a terminal could not show it."""
    text = path.decode("utf-8", "surrogateescape")
    if not UNSAFE.search(text):
        return text
    return '"' + UNSAFE.sub(_escaped, text) + '"'


def _escaped(found: re.Match[str]) -> str:
    character = found[0]
    if character in '"\\':
        return f"\\{character}"
    return "".join(f"\\{byte:03o}" for byte in character.encode("utf-8", "surrogateescape"))


def printable(text: str) -> str:
    """Text from outside without what would steer a terminal."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
