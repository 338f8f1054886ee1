"""From a comparison of two commits to the rows that change: a change costs what it touches, not the tree.

Pure. A comparison names files and blob ids, and no modes (https://docs.github.com/rest/commits/commits#compare-two-commits).
What is not told is tried, and the tree id decides: it is recomputed from the rows of the touched folders and the
stored ids of the others. Whatever does not come out is None here, and the whole tree is listed instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from daemon.model import (
    MODE_EXECUTABLE,
    MODE_FILE,
    MODE_SUBMODULE,
    MODE_SYMLINK,
    MODE_TREE,
    ChangedFile,
    Commit,
    Difference,
    Entry,
    StoredFolder,
)
from daemon.sync.gitobjects import tree_ids

MOST_FILES = 299  # GitHub names at most 300 and does not tell whether there were more
MODES = (MODE_FILE, MODE_EXECUTABLE, MODE_SYMLINK, MODE_SUBMODULE)

_UNTOLD = ""  # a mode to be tried
_FLIPPED = {MODE_FILE: MODE_EXECUTABLE, MODE_EXECUTABLE: MODE_FILE}
_REPLACED = "\ufffd"

Rows = dict[bytes, Entry | None]  # what comes to stand at a path; None: nothing does


@dataclass(frozen=True, slots=True)
class Step:
    """A proven change: rows by path (None: gone; ``size`` None: not known), and the new tree ids of folders."""

    before: Mapping[bytes, Entry]
    rows: Mapping[bytes, Entry | None]
    folders: Mapping[bytes, str | None]


def chain(difference: Difference, base: str, head: str) -> list[Commit]:
    """Its commits, newest first, when they are all that lies between and each has one parent; else none."""
    commits = difference.commits
    parents = [base, *(commit.sha for commit in commits)]
    whole = len(commits) == difference.total_commits and parents[-1] == head
    single = all(commit.parents == (parent,) for commit, parent in zip(commits, parents, strict=False))
    return list(reversed(commits)) if whole and single else []


def paths_of(files: Sequence[ChangedFile]) -> set[bytes] | None:
    """Every path that changes; None when there may be more of them, or JSON cannot name one."""
    names = {name for file in files for name in (file.path, file.previous) if name is not None}
    if len(files) > MOST_FILES or any(_REPLACED in name for name in names):
        return None
    return {name.encode() for name in names}


def folders_of(paths: Iterable[bytes]) -> set[bytes]:
    """Every folder on the way to these paths; the root, ``b""``, is one in any case."""
    found = {b""}
    for path in paths:
        while (path := path.rpartition(b"/")[0]) not in found:
            found.add(path)
    return found


def settle(files: Sequence[ChangedFile], folders: Mapping[bytes, StoredFolder], tree_sha: str) -> Step | None:
    """The change that turns ``folders`` (all that are touched, as stored) into those of ``tree_sha``."""
    before = {path: entry for folder in folders.values() for path, entry in folder.entries.items()}
    rows = _rows(files, before)
    if rows is None:
        return None
    others = [
        (path, MODE_TREE, sha) for one in folders.values() for path, sha in one.folders.items() if path not in folders
    ]
    for tried in _tries(rows):
        ids = _ids(before, tried, others)
        if ids.get(b"") == tree_sha:
            return Step(before, tried, {**dict.fromkeys(folders), **ids})
    return None


def _rows(files: Sequence[ChangedFile], before: Mapping[bytes, Entry]) -> Rows | None:
    """What stands at each path afterwards; None when the comparison does not fit what is stored."""
    changing = [file for file in files if file.status != "unchanged"]
    left = [_left(file) for file in changing]
    rows: Rows = {path: None for path in left if path is not None}
    if any(path not in before for path in rows):
        return None
    for file in changing:
        if file.status == "removed":
            continue
        entry = _entry(file, before)
        if entry is None:
            return None
        rows[entry.path] = entry
    return rows


def _left(file: ChangedFile) -> bytes | None:
    """The path that a file leaves."""
    if file.status == "removed":
        return file.path.encode()
    return file.previous.encode() if file.status == "renamed" and file.previous is not None else None


def _entry(file: ChangedFile, before: Mapping[bytes, Entry]) -> Entry | None:
    path = file.path.encode()
    if file.sha is None:
        return None
    if file.status in ("added", "copied", "changed"):
        return Entry(path, _UNTOLD, file.sha, None)
    source = before.get(path if file.status == "modified" else (file.previous or "").encode())
    if source is None:
        return None
    if source.sha != file.sha:
        return Entry(path, source.mode, file.sha, None)
    # Modified, and yet the same content: then it is the executable bit.
    mode = _FLIPPED.get(source.mode, source.mode) if source.path == path else source.mode
    return Entry(path, mode, file.sha, source.size)


def _tries(rows: Rows) -> list[Rows]:
    """The rows with every mode that is not told; they are mostly alike, so one is tried for all of them."""
    untold = {path: row for path, row in rows.items() if row is not None and row.mode == _UNTOLD}
    if not untold:
        return [rows]
    return [{**rows, **{path: replace(row, mode=mode) for path, row in untold.items()}} for mode in MODES]


def _ids(before: Mapping[bytes, Entry], rows: Rows, others: Sequence[tuple[bytes, str, str]]) -> dict[bytes, str]:
    after = [row for row in {**before, **rows}.values() if row is not None]
    try:
        return tree_ids([*((row.path, row.mode, row.sha) for row in after), *others])
    except ValueError:
        return {}
