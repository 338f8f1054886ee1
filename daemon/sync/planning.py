"""From what is stored and what GitHub lists to what has to be fetched, changed and proven.

Pure. GitHub's JSON cannot name a path that is not UTF-8: it comes with U+FFFD where the bytes were
(here "unnameable"), and two such paths may look alike. Their bytes come back from the archive or from
the rows of an earlier snapshot, matched by what is shown of them and by their object id.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cache
from itertools import islice

from daemon.errors import SyncError
from daemon.model import (
    EMPTY_TREE_SHA,
    MODE_SUBMODULE,
    MODE_TREE,
    Commit,
    CommitChange,
    Entry,
    RemoteEntry,
    RemoteTree,
)
from daemon.sync.gitobjects import root_tree, tree_ids

MAX_ENTRIES = 1_000_000
MAX_ENTRIES_AHEAD = 200_000  # of neighbours that are held while folders before them are walked
MAX_PATH_CHARS = 4096  # of a walked tree; no file system takes more

FEW_BLOBS = 20
MANY_BLOBS = 100
SMALL_SHARE = 10  # one by one also while less than a tenth of the bytes is missing

_REPLACED = "\ufffd"
_REPLACED_BYTES = _REPLACED.encode()
_RUN_OF_REPLACED = re.compile(f"{_REPLACED}+")

Known = Callable[[str], Sequence[RemoteEntry] | None]
Names = dict[tuple[str, str], list[bytes]]


class Source(StrEnum):
    """Where missing blobs are fetched from."""

    ARCHIVE = "archive"
    BLOBS = "blobs"


@dataclass(frozen=True, slots=True)
class TreeRequest:
    """What `walk` wants to be told next: one tree, with everything below it or not."""

    tree_sha: str
    recursive: bool


@dataclass(slots=True)
class Listing:
    """A whole tree as GitHub lists it, in git's order.

    ``folders`` maps each folder to its id, the root as ``""``. A folder is an entry only when it is
    the empty tree, since no path implies that one.
    """

    entries: list[RemoteEntry] = field(default_factory=list)
    folders: dict[str, str] = field(default_factory=dict)

    def add(self, entry: RemoteEntry) -> None:
        if _is_folder(entry):
            self.folders[entry.path] = entry.sha
        else:
            self.entries.append(entry)


@dataclass(frozen=True, slots=True)
class Proof:
    """Whether the rows give the tree id that was asked for; if not, ``error`` says what they give.

    ``folders`` are the ids of all folders by path, the root as ``b""``; none unless verified.
    """

    verified: bool
    error: str | None
    folders: Mapping[bytes, str] = field(default_factory=dict)


# --- listing ---------------------------------------------------------------------------------------


def resolve(tree: RemoteTree) -> Listing:
    """The listing of one complete, recursive answer."""
    listing = Listing(folders={"": tree.sha})
    for entry in tree.entries:
        listing.add(entry)
    return listing


def _is_folder(entry: RemoteEntry) -> bool:
    return entry.mode == MODE_TREE and entry.sha != EMPTY_TREE_SHA


def join(prefix: str, entries: Iterable[RemoteEntry]) -> Iterator[RemoteEntry]:
    """``entries`` of the folder ``prefix`` with their paths from the root; SyncError when one is absurdly long."""
    for entry in entries:
        path = f"{prefix}/{entry.path}" if prefix else entry.path
        # Ten thousand nested folders are a few hundred kilobytes for git, gigabytes when spelled out, and
        # twenty thousand requests to walk.
        if len(path) > MAX_PATH_CHARS:
            raise SyncError(f"the tree has a path of more than {MAX_PATH_CHARS} characters: {path[:80]!a}…")
        yield RemoteEntry(path, entry.mode, entry.sha, entry.size)


def walk(
    root_sha: str, known: Known = lambda _sha: None, *, max_entries: int = MAX_ENTRIES, together: int = 1
) -> Generator[list[TreeRequest], Sequence[RemoteTree], Listing]:
    """List a tree: yields what to ask GitHub, is sent the answers in that order, returns the listing.

    One recursive request, unless the answer is truncated (over 100,000 entries or 7 MB); then each
    folder for itself, but those whose content ``known`` has already, up to ``together`` neighbours at
    once. Raises SyncError for a tree that cannot be listed.
    """
    (tree,) = yield [TreeRequest(root_sha, recursive=True)]
    if not tree.truncated:
        return resolve(replace(tree, sha=root_sha))
    listing = Listing(folders={"": root_sha})
    split = [_Level((yield from _one_level("", root_sha)), known)]
    while split:
        level = split[-1]
        entry = level.next()
        if entry is None:
            split.pop()
            continue
        listing.add(entry)
        if not _is_folder(entry):
            continue
        if (below := known(entry.sha)) is None:
            if entry.sha not in level.answers:
                ahead = sum(map(_Level.held, split)) < MAX_ENTRIES_AHEAD
                wanted = level.unknown(entry, together if ahead else 1)
                answers = yield [TreeRequest(sha, recursive=True) for sha in wanted]
                level.keep(wanted, answers)
            tree = level.answers.pop(entry.sha)
            if tree.truncated:
                split.append(_Level((yield from _one_level(entry.path, entry.sha)), known))
                continue
            below = tree.entries
        for nested in join(entry.path, below):
            listing.add(nested)
        _check_size(listing, max_entries)
    return listing


class _Level:
    """The entries of one folder that GitHub does not list as a whole, as `walk` comes to them."""

    def __init__(self, entries: Sequence[RemoteEntry], known: Known) -> None:
        self._entries = entries
        self._known = known
        self._place = 0
        self.answers: dict[str, RemoteTree] = {}  # asked for ahead

    def keep(self, wanted: Sequence[str], answers: Sequence[RemoteTree]) -> None:
        # What is cut off is asked for again, a level at a time.
        whole = [replace(tree, entries=()) if tree.truncated else tree for tree in answers]
        self.answers.update(zip(wanted, whole, strict=True))

    def held(self) -> int:
        """How many entries were asked for ahead and not used yet."""
        return sum(len(tree.entries) for tree in self.answers.values())

    def next(self) -> RemoteEntry | None:
        self._place += 1
        return self._entries[self._place - 1] if self._place <= len(self._entries) else None

    def unknown(self, entry: RemoteEntry, limit: int) -> list[str]:
        """The tree of ``entry``, and those of the folders behind it that have to be asked for as well."""
        found = {entry.sha: None}
        for other in islice(self._entries, self._place, None):
            if len(found) == limit:
                break
            if _is_folder(other) and other.sha not in self.answers and self._known(other.sha) is None:
                found[other.sha] = None
        return list(found)


def _one_level(path: str, sha: str) -> Generator[list[TreeRequest], Sequence[RemoteTree], list[RemoteEntry]]:
    (tree,) = yield [TreeRequest(sha, recursive=False)]
    if tree.truncated:
        raise SyncError(f"GitHub lists only a part of the folder {path!a}: it has too many entries")
    return list(join(path, tree.entries))


def _check_size(listing: Listing, max_entries: int) -> None:
    # A tree that holds the same sub-tree ten times, ten levels deep, is 1 KB for git and 10^10 entries here.
    if len(listing.entries) + len(listing.folders) > max_entries:
        raise SyncError(f"the tree has more than {max_entries} entries")


def known_folders(stored: Sequence[Entry]) -> Known:
    """What the stored rows can tell `walk` about a sub-tree by its id, computed when first asked."""

    @cache
    def index() -> _Index:
        return _Index.of(stored)

    return lambda sha: index().below(sha)


@dataclass(frozen=True, slots=True)
class _Index:
    rows: list[Entry]  # both sorted by path
    folders: list[tuple[bytes, str]]
    places: dict[str, bytes]

    @classmethod
    def of(cls, stored: Sequence[Entry]) -> _Index:
        rows = sorted(stored, key=_path)
        try:
            folders = sorted(tree_ids(_objects(rows)).items())
        except ValueError:  # made-up names of unnameable paths may clash; then nothing is known
            folders = []
        return cls(rows, folders, {sha: folder for folder, sha in folders if folder})

    def below(self, sha: str) -> list[RemoteEntry] | None:
        folder = self.places.get(sha)
        if folder is None:
            return None
        first, end = folder + b"/", folder + b"0"  # "0" is what follows the slash
        folders = self.folders[bisect_left(self.folders, (first, "")) : bisect_left(self.folders, (end, ""))]
        rows = self.rows[bisect_left(self.rows, first, key=_path) : bisect_left(self.rows, end, key=_path)]
        found = [_remote(path[len(first) :], MODE_TREE, tree_sha) for path, tree_sha in folders]
        return found + [_remote(row.path[len(first) :], row.mode, row.sha, row.size) for row in rows]


def _remote(path: bytes, mode: str, sha: str, size: int | None = None) -> RemoteEntry:
    # Surrogate escapes carry the bytes of names that were mended before; `to_entries` turns them back.
    return RemoteEntry(path.decode("utf-8", "surrogateescape"), mode, sha, size)


def _path(entry: Entry) -> bytes:
    return entry.path


# --- entries ---------------------------------------------------------------------------------------


def to_entries(listing: Listing, *, wanted: Callable[[bytes], bool], max_file_bytes: int) -> list[Entry]:
    """The listing as rows; ``stored`` where ``wanted`` takes the path and the size is within the limit."""
    entries = []
    for remote in listing.entries:
        path = _encode(remote.path)
        stored = (
            remote.size is not None
            and remote.size <= max_file_bytes
            and remote.mode not in (MODE_SUBMODULE, MODE_TREE)
            and wanted(path)
        )
        entries.append(Entry(path, remote.mode, remote.sha, remote.size, stored))
    return entries


def changes(old: Sequence[Entry], new: Sequence[Entry]) -> tuple[list[Entry], list[Entry], list[bytes]]:
    """What to add, to modify and to remove (paths), so that the rows ``old`` become ``new``."""
    before = {entry.path: entry for entry in old}
    after = {entry.path: entry for entry in new}
    added = [entry for path, entry in after.items() if path not in before]
    modified = [entry for path, entry in after.items() if path in before and before[path] != entry]
    return added, modified, [path for path in before if path not in after]


def needed(entries: Iterable[Entry]) -> dict[str, int]:
    """The blobs whose content the snapshot keeps, with their sizes in bytes."""
    return {entry.sha: entry.size or 0 for entry in entries if entry.stored}


def choose_source(*, missing_count: int, missing_bytes: int, total_count: int, total_bytes: int) -> Source:
    """Whether missing blobs are cheaper one by one or as an archive of the whole tree.

    ``total_count`` is how many are wanted at all, ``total_bytes`` what the whole tree has.
    """
    if missing_bytes * SMALL_SHARE < total_bytes and missing_count <= MANY_BLOBS:
        return Source.BLOBS
    few = 1 if missing_count == total_count else FEW_BLOBS  # an archive is one request too
    return Source.BLOBS if missing_count <= few else Source.ARCHIVE


# --- names that JSON cannot carry ------------------------------------------------------------------


def display_path(path: bytes) -> str:
    """A path as text, alike for all that may stand for the same bytes.

    How many U+FFFD stand for a run of bad bytes depends on who decodes: here it is always one.
    """
    return _RUN_OF_REPLACED.sub(_REPLACED, path.decode("utf-8", "replace"))


def names_of(entries: Iterable[Entry]) -> Names:
    """The paths of ``entries`` that JSON cannot carry, by what is shown of them and object id."""
    names: Names = defaultdict(list)
    for entry in entries:
        if not _is_text(entry.path):
            names[display_path(entry.path), entry.sha].append(entry.path)
    return dict(names)


def mend_names(entries: Sequence[Entry], members: Mapping[tuple[str, str], Sequence[bytes]]) -> list[Entry]:
    """``entries`` with the bytes of unnameable paths put back, as far as ``members`` tells them.

    ``members`` maps what is shown of a path, and its object id, to the paths that look so; ``entries``
    are in git's order. Every path of the result is distinct: what stays unnameable and looks alike gets
    a part of its id attached. What was mended before may be mended again by somebody who knows better.
    """
    rows = [row for row, entry in enumerate(entries) if not _is_text(entry.path)]
    if not rows:
        return list(entries)
    mended = list(entries)
    offers = _offers(members)
    rows = _mend_by_id(mended, rows, offers)
    rows = _mend_by_looks(mended, rows, offers)
    _mend_folders(mended, rows)
    return _distinct(mended)


_Offers = dict[tuple[str, str], deque[bytes]]


def _offers(members: Mapping[tuple[str, str], Sequence[bytes]]) -> _Offers:
    found: dict[tuple[str, str], set[bytes]] = defaultdict(set)
    for (_, sha), paths in members.items():
        for path in paths:
            found[display_path(path), sha].add(path)
    # The order of the paths' bytes is git's order of files.
    return {key: deque(sorted(paths)) for key, paths in found.items()}


def _mend_by_id(mended: list[Entry], rows: Sequence[int], offers: _Offers) -> list[int]:
    """Give each row a path that looks alike and has its id; returns the rows that got none."""
    left = []
    for row in rows:
        entry = mended[row]
        offered = offers.get((display_path(entry.path), entry.sha))
        if offered:
            mended[row] = replace(entry, path=offered.popleft())
        else:
            left.append(row)
    return left


def _mend_by_looks(mended: list[Entry], rows: Sequence[int], offers: _Offers) -> list[int]:
    """The same by looks alone, where as many rows as paths are left: the content is a changed one.

    (An archive changes content by ``export-subst``, a stored row tells the content of before.) A wrong
    guess cannot go unseen: the tree id is recomputed from what this gives.
    """
    looks: dict[str, list[bytes]] = defaultdict(list)
    for (shown, _), paths in offers.items():
        looks[shown].extend(paths)
    counts = Counter(display_path(mended[row].path) for row in rows)
    spare = {shown: deque(sorted(paths)) for shown, paths in looks.items() if len(paths) == counts[shown]}
    left = []
    for row in rows:
        shown = display_path(mended[row].path)
        if shown in spare:
            mended[row] = replace(mended[row], path=spare[shown].popleft())
        else:
            left.append(row)
    return left


def _mend_folders(mended: list[Entry], rows: Sequence[int]) -> None:
    """Mend at least the folders of rows that nothing names (submodules, ``export-ignore``), from their neighbours."""
    if not rows:
        return
    folders: dict[str, set[bytes]] = defaultdict(set)
    for entry in mended:
        for folder in _ancestors(entry.path):
            if not _is_text(folder) and _REPLACED_BYTES not in folder:
                folders[display_path(folder)].add(folder)
    for row in rows:
        path = mended[row].path
        for folder in _ancestors(path):
            raw = folders.get(display_path(folder), set())
            if _REPLACED_BYTES in folder and len(raw) == 1:
                mended[row] = replace(mended[row], path=next(iter(raw)) + path[len(folder) :])
                break


def _ancestors(path: bytes) -> Iterator[bytes]:
    """The folders a path is in, the deepest first, without the root."""
    while (slash := path.rfind(b"/")) > 0:
        path = path[:slash]
        yield path


def _distinct(entries: Sequence[Entry]) -> list[Entry]:
    taken = {folder for entry in entries if not _is_text(entry.path) for folder in _ancestors(entry.path)}
    result = []
    for entry in entries:
        path = entry.path
        if not _is_text(path):
            path = _free(entry, taken)
            taken.add(path)
        result.append(entry if path == entry.path else replace(entry, path=path))
    return result


def _free(entry: Entry, taken: set[bytes]) -> bytes:
    path, attempt = entry.path, 1
    while path in taken:
        path = b"%b~%b" % (entry.path, entry.sha[:8].encode()) + (b"~%d" % attempt if attempt > 1 else b"")
        attempt += 1
    return path


def _is_text(path: bytes) -> bool:
    return _REPLACED not in path.decode("utf-8", "replace")


def _encode(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a lone surrogate in the JSON: one more thing that names no path
        return re.sub("[\ud800-\udfff]", _REPLACED, text).encode()


# --- proof -----------------------------------------------------------------------------------------


def prove(entries: Iterable[Entry], tree_sha: str) -> Proof:
    """Recompute the tree id of ``entries`` and compare it with the commit's."""
    try:
        found = tree_ids(_objects(entries))
    except ValueError as error:
        return Proof(verified=False, error=str(error))
    if found[b""] == tree_sha:
        return Proof(verified=True, error=None, folders=found)
    return Proof(verified=False, error=f"the rows give the tree {found[b'']}, not {tree_sha}")


def explain(entries: Iterable[Entry], folders: Mapping[str, str]) -> str:
    """In a sentence: the deepest folder whose recomputed id is not the one that GitHub lists."""
    try:
        found = {display_path(folder): sha for folder, sha in tree_ids(_objects(entries)).items()}
    except ValueError as error:
        return str(error)
    listed = _shown(folders)
    wrong = [folder for folder in found.keys() | listed.keys() if found.get(folder) != listed.get(folder)]
    if not wrong:
        return "every folder is as GitHub lists it, but GitHub lists another tree than the commit's"
    folder = min(wrong, key=lambda path: (-_depth(path), path))
    name = f"the folder {folder!a}" if folder else "the root folder"
    return f"{name} is {found.get(folder, 'missing')} when recomputed, and {listed.get(folder, 'missing')} on GitHub"


def only_unnameable(entries: Iterable[Entry], folders: Mapping[str, str]) -> bool:
    """Whether unnameable paths alone can be why the tree id is not the commit's.

    Each folder is recomputed from its own entries and the ids that GitHub lists for its sub-folders.
    Only folders that are unnameable, or hold something unnameable themselves, may differ.
    """
    ids = _shown(folders)
    content: dict[str, list[tuple[bytes, str, str]]] = {folder: [] for folder in ids}
    excused: set[str] = set()
    listed = [(display_path(entry.path), entry.mode, entry.sha) for entry in entries]
    listed += [(folder, MODE_TREE, sha) for folder, sha in ids.items() if folder]
    for path, mode, sha in listed:
        folder, _, name = path.rpartition("/")
        if _REPLACED in path:
            excused.add(folder)
        else:
            content.setdefault(folder, []).append((name.encode(), mode, sha))
    return bool(excused) and all(_gives(content[folder], ids.get(folder)) for folder in content.keys() - excused)


def _shown(folders: Mapping[str, str]) -> dict[str, str]:
    return {display_path(_encode(folder)): sha for folder, sha in folders.items()}


def _gives(objects: Sequence[tuple[bytes, str, str]], tree_sha: str | None) -> bool:
    try:
        return root_tree(objects) == tree_sha
    except ValueError:
        return False


def _objects(entries: Iterable[Entry]) -> Iterator[tuple[bytes, str, str]]:
    return ((entry.path, entry.mode, entry.sha) for entry in entries)


def _depth(folder: str) -> int:
    return folder.count("/") + 1 if folder else 0


# --- history ---------------------------------------------------------------------------------------


def merge_history(stored: Sequence[str], listed: Sequence[Commit]) -> CommitChange:
    """What makes the stored history (ids) the one that starts with ``listed``; both newest first.

    New commits go on top when the rest agrees, or when each has the one below it for its only parent.
    Otherwise (a force push, a merge of older commits) the listed ones replace what is stored, down to the
    last of them; what is older stays.
    """
    if not listed:
        return CommitChange(prepend=(), replace=False)
    shas = [commit.sha for commit in listed]
    below = [*shas[1:], *stored[:1]]
    if len(below) == len(listed) and all(one.parents == (sha,) for one, sha in zip(listed, below, strict=True)):
        return CommitChange(prepend=tuple(listed), replace=False)
    if stored and stored[0] in shas:
        new = shas.index(stored[0])
        if all(ours == theirs for ours, theirs in zip(stored, shas[new:], strict=False)):
            return CommitChange(prepend=tuple(listed[:new]), replace=False)
    return CommitChange(prepend=tuple(listed), replace=True, keep_below=shas[-1] if shas[-1] in stored else None)
