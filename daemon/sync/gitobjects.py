"""git's object ids, computed from rows alone: what the proof of a snapshot rests on.

Pure. An id is the SHA-1 of the type, the size, a NUL and the body (https://git-scm.com/book/en/v2/Git-Internals-Git-Objects).
"""

from __future__ import annotations

import hashlib
import re
from binascii import unhexlify
from collections.abc import Iterable

_SHA = re.compile(r"[0-9a-f]{40}")
_MODE = re.compile(r"[0-7]{5,6}")
_TREE_MODE = b"40000"
_IMPOSSIBLE_NAMES = frozenset((b"", b".", b".."))

_Row = tuple[bytes, bytes]  # (what git sorts by, the bytes in the tree object)


def is_sha(text: object) -> bool:
    """Whether ``text`` is a full SHA-1 id in git's spelling; SHA-256 and abbreviations are not."""
    return isinstance(text, str) and _SHA.fullmatch(text) is not None


def blob_hasher(size: int) -> hashlib._Hash:
    """A hash that gives the blob id once all ``size`` bytes were fed to it."""
    return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)


def blob_sha(content: bytes) -> str:
    hasher = blob_hasher(len(content))
    hasher.update(content)
    return hasher.hexdigest()


def root_tree(entries: Iterable[tuple[bytes, str, str]]) -> str:
    """The tree id of ``entries``, see `tree_ids`."""
    return tree_ids(entries)[b""]


def tree_ids(entries: Iterable[tuple[bytes, str, str]]) -> dict[bytes, str]:
    """The tree id of every folder, the root as ``b""``, from ``(path, mode, sha)`` in any order.

    Folders are implied by the paths. An entry of mode ``040000`` stands for a whole sub-tree (the
    empty one is the case in point: no path implies it). Raises ValueError for paths, modes and ids
    that no git tree holds.
    """
    paths: set[bytes] = set()
    rows: dict[bytes, list[_Row]] = {b"": []}
    modes: dict[str, tuple[bytes, bytes]] = {}
    for path, mode, sha in entries:
        if path in paths:
            raise ValueError(f"two entries have the path {path!r}")
        paths.add(path)
        folder, _, name = path.rpartition(b"/")
        if name in _IMPOSSIBLE_NAMES or b"\0" in name or path.startswith(b"/"):
            raise ValueError(f"git cannot hold the path {path!r}")
        if folder not in rows:
            _add_folders(rows, folder)
        if mode not in modes:
            modes[mode] = _mode(mode)
        spelled, mark = modes[mode]
        rows[folder].append((name + mark, b"%b %b\0%b" % (spelled, name, _raw(sha))))
    return _bottom_up(rows, paths)


def _add_folders(rows: dict[bytes, list[_Row]], folder: bytes) -> None:
    while folder not in rows:
        rows[folder] = []
        parent, _, name = folder.rpartition(b"/")
        if name in _IMPOSSIBLE_NAMES or b"\0" in name:
            raise ValueError(f"git cannot hold the folder {folder!r}")
        folder = parent


def _mode(mode: str) -> tuple[bytes, bytes]:
    """The mode as a tree object spells it (no leading zero), and what the name sorts with."""
    if not _MODE.fullmatch(mode):
        raise ValueError(f"{mode!r} is no mode")
    spelled = mode.lstrip("0").encode()
    return spelled, (b"/" if spelled == _TREE_MODE else b"")


def _raw(sha: str) -> bytes:
    raw = unhexlify(sha)
    if len(raw) != 20:  # noqa: PLR2004 - SHA-1; a tree holds no other
        raise ValueError(f"{sha!r} is no SHA-1 id")
    return raw


def _bottom_up(rows: dict[bytes, list[_Row]], paths: set[bytes]) -> dict[bytes, str]:
    ids: dict[bytes, str] = {}
    # A folder sorts before everything in it, so backwards every folder comes after its sub-folders.
    for folder in sorted(rows, reverse=True):
        if folder in paths:
            raise ValueError(f"{folder!r} is both a file and a folder")
        # git sorts folders as if their name ended in a slash (base_name_compare in git's read-cache.c).
        body = b"".join([row for _, row in sorted(rows[folder])])
        digest = hashlib.sha1(b"tree %d\0" % len(body) + body, usedforsecurity=False)
        ids[folder] = digest.hexdigest()
        if folder:
            parent, _, name = folder.rpartition(b"/")
            rows[parent].append((name + b"/", b"%b %b\0%b" % (_TREE_MODE, name, digest.digest())))
    return ids
