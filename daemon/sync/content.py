"""Brings the blobs a snapshot needs into the store: from one archive, or one by one.

An archive is not the tree (`export-ignore`, `export-subst`, `eol`: GITHUB.md), so it is only a fast
source: each member is hashed, kept when the tree asks for that id, and the rest is fetched singly.
What is stored here stays even when the run fails, so a later attempt does not fetch it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from daemon.clock import Clock
from daemon.errors import ArchiveBroken, BadAnswer, Forbidden, ObjectNotFound
from daemon.github.client import GitHubClient
from daemon.logs import get_logger
from daemon.model import EMPTY_BLOB_SHA, MODE_EXECUTABLE, MODE_FILE, MODE_SYMLINK, Entry, RepositoryRef
from daemon.store.snapshots import Snapshots
from daemon.sync.archive import ArchiveLimits, Member, read_archive
from daemon.sync.attempt import Progress
from daemon.sync.planning import Source, choose_source

log = get_logger()

# What an archive that does not help ends with: it is broken or no archive, missing, or refused.
USELESS_ARCHIVE = (ArchiveBroken, BadAnswer, Forbidden, ObjectNotFound)
BATCH_BYTES = 4 * 1024 * 1024
BATCH_BLOBS = 500
MOST_INSTEAD = 1000  # blobs that are asked for one by one because an archive was broken: a fifth of an hour's budget
MAX_ARCHIVE_BYTES = 64 * 2**30  # of one that is read before the tree is known
MEMBER_OVERHEAD_BYTES = 4096  # headers, padding and pax records of one member, generously

Names = dict[tuple[str, str], list[bytes]]


@dataclass(slots=True)
class Wanted:
    """What one run is after: ``blobs`` maps each needed id to its size in bytes."""

    repository: RepositoryRef
    commit: str
    blobs: Mapping[str, int]
    file_count: int
    total_bytes: int
    largest_bytes: int
    archive_read: bool = False  # then what is missing is not in there
    names: Names = field(default_factory=dict)  # raw paths by (display path, id), as the archive named them


class Content:
    """Fetches missing blobs and writes them in batches; memory is bounded by one batch and one file."""

    def __init__(self, client: GitHubClient, snapshots: Snapshots, *, clock: Clock) -> None:
        self._client = client
        self._snapshots = snapshots
        self._clock = clock

    def unpack(
        self,
        repository: RepositoryRef,
        commit: str,
        *,
        max_file_bytes: int,
        progress: Progress,
        check: Callable[[], None],
    ) -> list[Entry]:
        """Store the contents of a commit's archive, and tell what it holds; ``stored`` where it is within the limit.

        Raises GitHubError, ArchiveBroken, StoreUnavailable.
        """
        limits = ArchiveLimits(max_file_bytes=max_file_bytes, max_total_bytes=MAX_ARCHIVE_BYTES)
        batch = _Batch(self._snapshots, self._clock, progress, total=0)
        entries = []
        for member in self._members(repository, commit, limits):
            check()
            kept = member.content is not None
            entries.append(Entry(member.path, _mode(member), member.sha, member.size, stored=kept))
            if member.content is not None:
                batch.add(member.sha, member.content)
        batch.flush()
        return entries

    def fetch(
        self, wanted: Wanted, *, need_names: bool, insist: bool, progress: Progress, check: Callable[[], None]
    ) -> None:
        """Store every blob of ``wanted`` that is missing; ``check`` is called often and may raise to stop.

        With ``need_names`` the archive is read in any case, for the paths that JSON cannot name. Without ``insist``
        one that is of no use costs requests, if they are not too many, and not the sync.
        Raises GitHubError, ArchiveBroken, StoreUnavailable.
        """
        missing = self._snapshots.missing(wanted.blobs)
        batch = _Batch(self._snapshots, self._clock, progress, total=len(missing))
        if EMPTY_BLOB_SHA in missing:
            batch.add(EMPTY_BLOB_SHA, b"")
            missing.discard(EMPTY_BLOB_SHA)
        if need_names or self._source(wanted, missing) is Source.ARCHIVE:
            try:
                self._from_archive(wanted, missing, batch, check)
            except USELESS_ARCHIVE as error:
                # The tree was listed, so the commit is there: an archive that is missing or refused will stay so.
                lasting = isinstance(error, Forbidden | ObjectNotFound) and not need_names
                if not lasting and (insist or len(missing) > MOST_INSTEAD):
                    raise
                log.warning("sync.without_archive", error=str(error), blobs=len(missing))
        self._each(wanted.repository, missing, batch, wanted.blobs.__getitem__, check)
        batch.flush()

    def fetch_each(
        self,
        repository: RepositoryRef,
        shas: Iterable[str],
        *,
        max_bytes: int,
        progress: Progress,
        check: Callable[[], None],
    ) -> None:
        """Store these blobs, whose sizes nobody told, one by one. Raises BadAnswer for one above ``max_bytes``."""
        missing = set(shas)
        batch = _Batch(self._snapshots, self._clock, progress, total=len(missing))
        self._each(repository, missing, batch, lambda _sha: max_bytes, check)
        batch.flush()

    def _each(
        self,
        repository: RepositoryRef,
        shas: Iterable[str],
        batch: _Batch,
        max_bytes: Callable[[str], int],
        check: Callable[[], None],
    ) -> None:
        for sha in sorted(shas):
            check()
            batch.add(sha, self._client.blob(repository, sha, max_bytes=max_bytes(sha)))

    def _source(self, wanted: Wanted, missing: set[str]) -> Source:
        if wanted.archive_read:
            return Source.BLOBS
        return choose_source(
            missing_count=len(missing),
            missing_bytes=sum(wanted.blobs[sha] for sha in missing),
            total_count=len(wanted.blobs),
            total_bytes=wanted.total_bytes,
        )

    def _from_archive(self, wanted: Wanted, missing: set[str], batch: _Batch, check: Callable[[], None]) -> None:
        for member in self._members(wanted.repository, wanted.commit, _limits(wanted)):
            check()
            display = member.path.decode("utf-8", "replace")
            if "\ufffd" in display:
                wanted.names.setdefault((display, member.sha), []).append(member.path)
            if member.content is not None and member.sha in missing:
                batch.add(member.sha, member.content)
                missing.discard(member.sha)

    def _members(self, repository: RepositoryRef, commit: str, limits: ArchiveLimits) -> Iterator[Member]:
        with self._client.tarball(repository, commit, max_bytes=limits.max_total_bytes) as chunks:
            try:
                yield from read_archive(chunks, limits=limits)
            except ArchiveBroken as error:
                raise ArchiveBroken(f"the archive of {repository.full_name}: {error}") from error


def _limits(wanted: Wanted) -> ArchiveLimits:
    # The archive may hold what the tree does not say (export-subst grows a file, folders have
    # members of their own), so the caps leave room; what they stop is a bomb.
    count = 4 * wanted.file_count + 10_000
    return ArchiveLimits(
        max_members=count,
        max_file_bytes=wanted.largest_bytes,
        max_total_bytes=2 * wanted.total_bytes + count * MEMBER_OVERHEAD_BYTES,
    )


def _mode(member: Member) -> str:
    if member.kind == "symlink":
        return MODE_SYMLINK
    return MODE_EXECUTABLE if member.executable else MODE_FILE


class _Batch:
    """Collects blobs and writes them when enough have come together."""

    def __init__(self, snapshots: Snapshots, clock: Clock, progress: Progress, *, total: int) -> None:
        self._snapshots = snapshots
        self._clock = clock
        self._progress = progress
        self._total = total
        self._done = 0
        self._bytes = 0
        self._blobs: list[tuple[str, bytes]] = []

    def add(self, sha: str, content: bytes) -> None:
        self._blobs.append((sha, content))
        self._bytes += len(content)
        if self._bytes >= BATCH_BYTES or len(self._blobs) >= BATCH_BLOBS:
            self.flush()

    def flush(self) -> None:
        if not self._blobs:
            return
        self._snapshots.store_blobs(self._blobs, now=self._clock.now())
        self._done += len(self._blobs)
        self._progress("content", self._done, self._total)
        self._blobs = []
        self._bytes = 0
