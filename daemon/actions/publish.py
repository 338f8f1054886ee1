"""Publishes a snapshot as a folder that flips atomically: a symlink, renamed over.

Beside ``/srv/site`` stands ``/srv/.site.headwater`` with a folder for each version and a manifest of it. A version is
built aside, made durable, and gets its name when it is whole; only then does the symlink move. So a kill leaves the old
version in force and at most something to clear away. Who reads while it flips opens ``/srv/site`` once (a folder's
handle, or its resolved path) and is then in one version; superseded ones stay for a while.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from pathlib import Path

from daemon.actions.links import LONGEST_TARGET, leads_outside
from daemon.errors import PublishError
from daemon.model import MODE_EXECUTABLE, MODE_SUBMODULE, MODE_SYMLINK, Entry

KEPT_VERSIONS = 2  # besides the one in force
GRACE_SECONDS = 10.0  # for readers of a version that was superseded just now
FEW_SYNCS = 256  # above it one sync of all file systems is cheaper than one of each file
MOST_SHOWN_BYTES = 200
MOST_NAMED = 5  # entries that a note names

_BUILDING = "building"
_NEXT = "next"
_MANIFEST = ".manifest"
_FILE_PERMISSIONS = 0o644
_EXECUTABLE_PERMISSIONS = 0o755
_FOLDER_PERMISSIONS = 0o755

Content = Callable[[str], bytes | None]


@dataclass(frozen=True, slots=True)
class Published:
    """What a publication did; ``version`` is in force."""

    version: str
    written: int
    linked: int
    note: str | None


@dataclass(frozen=True, slots=True)
class _File:
    """A file of a version as its manifest remembers it; written to since when its time differs."""

    mode: str
    sha: str
    mtime_ns: int


@dataclass(slots=True)
class _Work:
    """A version being built."""

    root: bytes
    previous: bytes | None
    known: Mapping[bytes, _File]
    folders: set[bytes] = field(default_factory=set)
    files: dict[bytes, _File] = field(default_factory=dict)
    written: list[bytes] = field(default_factory=list)
    linked: int = 0


class Folder:
    """One published folder: ``target`` is the symlink that readers follow."""

    def __init__(self, target: Path, *, grace_seconds: float = GRACE_SECONDS) -> None:
        self.target = target
        self.versions = target.parent / f".{target.name}.headwater"
        self._grace_seconds = grace_seconds

    def current(self) -> str | None:
        """The version in force; None before the first. Raises PublishError for what we did not make."""
        try:
            found = self.target.readlink()
        except FileNotFoundError:
            return None
        except OSError:
            what = "is a folder" if self.target.is_dir() else "exists"
            raise PublishError(f"{self.target} {what} that headwater did not make; move it away") from None
        if found.parent != Path(self.versions.name):
            raise PublishError(f"{self.target} is a symlink that headwater did not make; move it away")
        return found.name if (self.versions / found.name).is_dir() else None

    def publish(self, head_sha: str, entries: Sequence[Entry], content: Content, *, now: datetime) -> Published:
        """Make the folder these entries; without any writing when it is them already.

        ``content`` gives the bytes stored under an id. Raises PublishError and OSError: then nothing has changed.
        """
        self.current()  # refuse before anything is made
        self._prepare()
        current = self.current()
        version = f"{head_sha}-{_digest(entries)}"
        note = _note(entries)
        if current == version:
            return Published(version, 0, 0, note)
        work = None
        if not (self.versions / version).is_dir():
            work = self._build(version, entries, content, current)
        os.utime(self._manifest(version), (now.timestamp(), now.timestamp()))
        self._flip(version)
        self._remove_old(version, now)
        return Published(version, len(work.written) if work else 0, work.linked if work else 0, note)

    # -- building ---------------------------------------------------------------------------------

    def _prepare(self) -> None:
        """The folder of the versions, without what a kill has left."""
        self.versions.mkdir(parents=True, exist_ok=True)
        if self.versions.is_symlink():
            raise PublishError(f"{self.versions} is a symlink; versions are kept in a folder of that name")
        names = {path.name for path in self.versions.iterdir()}
        for name in names:
            whole = name.removesuffix(_MANIFEST)
            if name in (_BUILDING, _NEXT) or whole not in names or whole + _MANIFEST not in names:
                _remove(self.versions / name)

    def _build(self, version: str, entries: Sequence[Entry], content: Content, current: str | None) -> _Work:
        root = os.fsencode(self.versions / _BUILDING)
        previous = os.fsencode(self.versions / current) if current else None
        work = _Work(root, previous, self._read_manifest(current) if current else {})
        links = _checked_links(entries, content)
        os.mkdir(root)
        os.chmod(root, _FOLDER_PERMISSIONS)
        work.folders.add(b"")
        for entry in entries:
            _place(work, entry, content)
        for path, target in links.items():  # last, so that nothing is ever written through one
            _folders(work, path.rpartition(b"/")[0])
            os.symlink(target, _join(root, path))
        self._write_manifest(version, work.files)
        _make_durable(work)
        os.rename(root, os.fsencode(self.versions / version))
        _sync(os.fsencode(self.versions))
        return work

    def _flip(self, version: str) -> None:
        following = self.versions / _NEXT
        following.symlink_to(Path(self.versions.name) / version)
        following.rename(self.target)
        _sync(os.fsencode(self.target.parent))

    def _remove_old(self, current: str, now: datetime) -> None:
        """Keep the newest ones, and those superseded so lately that somebody may still be reading."""
        dated = {path: path.stat().st_mtime for path in self.versions.glob(f"*{_MANIFEST}")}
        newest_first = sorted(dated, key=lambda path: dated[path], reverse=True)
        for newer, old in zip(newest_first[KEPT_VERSIONS:], newest_first[KEPT_VERSIONS + 1 :], strict=False):
            if dated[newer] <= now.timestamp() - self._grace_seconds and old != self._manifest(current):
                old.unlink()  # first: a folder without its manifest is cleared away
                _remove(old.with_name(old.name.removesuffix(_MANIFEST)))

    # -- manifests --------------------------------------------------------------------------------

    def _manifest(self, version: str) -> Path:
        return self.versions / (version + _MANIFEST)

    def _write_manifest(self, version: str, files: Mapping[bytes, _File]) -> None:
        rows = (f"{one.mode} {one.sha} {one.mtime_ns} ".encode() + path for path, one in files.items())
        with self._manifest(version).open("wb") as out:
            out.write(b"\0".join(rows))
            out.flush()
            os.fsync(out.fileno())

    def _read_manifest(self, version: str) -> dict[bytes, _File]:
        try:
            rows = self._manifest(version).read_bytes().split(b"\0")
            parted = [row.split(b" ", 3) for row in rows if row]
            return {path: _File(mode.decode(), sha.decode(), int(at)) for mode, sha, at, path in parted}
        except (OSError, ValueError):
            return {}


def _digest(entries: Sequence[Entry]) -> str:
    """What tells two publications of one commit apart: other rules keep other contents."""
    found = sha256()
    for entry in entries:
        found.update(b"%s %s %d %s\0" % (entry.mode.encode(), entry.sha.encode(), entry.stored, entry.path))
    return found.hexdigest()[:12]


def _note(entries: Sequence[Entry]) -> str | None:
    """Which entries have no content to publish."""
    absent = [_shown(entry.path) for entry in entries if not entry.stored and entry.mode != MODE_SUBMODULE]
    if not absent:
        return None
    more = f" and {len(absent) - MOST_NAMED} more" if len(absent) > MOST_NAMED else ""
    return f"left out, because their content is not stored: {', '.join(absent[:MOST_NAMED])}{more}"


def _shown(path: bytes) -> str:
    return ascii(path.decode("utf-8", "replace"))


# -- entries --------------------------------------------------------------------------------------


def _checked_links(entries: Sequence[Entry], content: Content) -> dict[bytes, bytes]:
    """The symlinks with their targets. Raises PublishError naming one that leads outside or is none."""
    links = {entry.path: _content(entry, content) for entry in entries if entry.stored and entry.mode == MODE_SYMLINK}
    for path, target in links.items():
        if not target or b"\0" in target or len(target) > LONGEST_TARGET:
            raise PublishError(f"the symlink {_shown(path)} has no possible target; nothing is published")
        if leads_outside(path, links):
            there = _shown(target[:MOST_SHOWN_BYTES])
            raise PublishError(
                f"the symlink {_shown(path)} leads outside of the folder, to {there}; nothing is published"
            )
    return links


def _content(entry: Entry, content: Content) -> bytes:
    found = content(entry.sha)
    if found is None:
        raise PublishError(f"the content of {_shown(entry.path)} is not stored any more; a newer snapshot follows")
    return found


def _place(work: _Work, entry: Entry, content: Content) -> None:
    """One file, or the empty folder of a submodule; symlinks come later."""
    if not {b"", b".", b".."}.isdisjoint(entry.path.split(b"/")) or b"\0" in entry.path:
        raise PublishError(f"{_shown(entry.path)} is no path of a file; the snapshot is not published")
    if entry.mode == MODE_SUBMODULE:
        _folders(work, entry.path)
    elif entry.mode != MODE_SYMLINK and entry.stored:
        _folders(work, entry.path.rpartition(b"/")[0])
        if not _link(work, entry):
            _write(work, entry, _content(entry, content))


def _folders(work: _Work, path: bytes) -> None:
    if path not in work.folders:
        _folders(work, path.rpartition(b"/")[0])
        os.mkdir(_join(work.root, path))
        os.chmod(_join(work.root, path), _FOLDER_PERMISSIONS)
        work.folders.add(path)


def _link(work: _Work, entry: Entry) -> bool:
    """Take the file of the version in force when it has the same mode and content, and nobody wrote to it since."""
    old = work.known.get(entry.path)
    if work.previous is None or old is None or (old.mode, old.sha) != (entry.mode, entry.sha):
        return False
    source = _join(work.previous, entry.path)
    try:
        if not _is_untouched(os.lstat(source), entry, old):
            return False
        os.link(source, _join(work.root, entry.path), follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError:  # somebody removed it, or it has as many links as the file system takes
        return False
    work.files[entry.path] = old
    work.linked += 1
    return True


def _is_untouched(found: os.stat_result, entry: Entry, old: _File) -> bool:
    if not stat.S_ISREG(found.st_mode) or stat.S_IMODE(found.st_mode) != _permissions(entry.mode):
        return False
    return (found.st_size, found.st_mtime_ns) == (entry.size, old.mtime_ns)


def _permissions(mode: str) -> int:
    return _EXECUTABLE_PERMISSIONS if mode == MODE_EXECUTABLE else _FILE_PERMISSIONS


def _write(work: _Work, entry: Entry, content: bytes) -> None:
    path = _join(work.root, entry.path)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as out:
        out.write(content)
        out.flush()
        os.fchmod(descriptor, _permissions(entry.mode))
        mtime_ns = os.fstat(descriptor).st_mtime_ns
    work.files[entry.path] = _File(entry.mode, entry.sha, mtime_ns)
    work.written.append(entry.path)


# -- the disk -------------------------------------------------------------------------------------


def _make_durable(work: _Work) -> None:
    """Everything on disk before the version gets its name: a power cut must not leave a half one in force."""
    if len(work.written) + len(work.folders) > FEW_SYNCS:
        os.sync()
        return
    for path in _every(work):
        _sync(path)


def _every(work: _Work) -> Iterator[bytes]:
    yield from (_join(work.root, path) for path in work.written)
    yield from (_join(work.root, path) if path else work.root for path in work.folders)


def _sync(path: bytes) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _join(root: bytes, path: bytes) -> bytes:
    return root + b"/" + path


def _remove(path: Path) -> None:
    """Without following anything."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
