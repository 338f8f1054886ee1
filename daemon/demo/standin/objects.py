"""Git's objects and differences as values, read through plumbing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone

from daemon.demo.standin.gitprocess import Git

_PERSON = re.compile(rb"(.*?) ?<([^>]*)>(?: (-?\d+) ([+-]\d{4}))?")
_DAY_SECONDS = 86_400
_LAST_SECOND = 253_402_300_799  # 9999-12-31T23:59:59Z


@dataclass(frozen=True, slots=True)
class Signature:
    """Who and when: ``seconds`` since the epoch and the minutes east of UTC."""

    name: str
    email: str
    seconds: int
    offset_minutes: int

    def utc(self) -> str:
        """``2024-01-01T00:00:00Z``, as the REST API shows it."""
        return _instant(self.seconds).strftime("%Y-%m-%dT%H:%M:%SZ")

    def local(self) -> str:
        """With the offset it was made at, as push payloads show it."""
        shown = _instant(self.seconds).astimezone(timezone(timedelta(minutes=self.offset_minutes))).isoformat()
        return shown.replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class CommitObject:
    """One commit; ``message`` has no newline at its end, as GitHub shows it."""

    sha: str
    tree: str
    parents: tuple[str, ...]
    author: Signature
    committer: Signature
    message: str


def parse_commit(sha: str, raw: bytes) -> CommitObject:
    """A commit out of its object's content."""
    head, _, message = raw.partition(b"\n\n")
    headers = [line.split(b" ", 1) for line in head.split(b"\n") if b" " in line[1:] and not line.startswith(b" ")]
    single = {key: value for key, value in headers if key != b"parent"}
    encoding = single.get(b"encoding", b"utf-8").decode("ascii", "replace")
    return CommitObject(
        sha,
        single[b"tree"].decode(),
        tuple(value.decode() for key, value in headers if key == b"parent"),
        _signature(single.get(b"author", b""), encoding),
        _signature(single.get(b"committer", b""), encoding),
        _text(message, encoding).rstrip("\n"),
    )


def _signature(raw: bytes, encoding: str) -> Signature:
    match = _PERSON.match(raw)
    if match is None:
        return Signature(_text(raw, encoding), "", 0, 0)
    name, email, seconds, zone = match.groups(b"0")
    hours, minutes = divmod(int(zone), 100) if int(zone) >= 0 else (-(-int(zone) // 100), -(-int(zone) % 100))
    return Signature(_text(name, encoding), _text(email, encoding), int(seconds), hours * 60 + minutes)


def _text(raw: bytes, encoding: str) -> str:
    try:
        return raw.decode(encoding, "replace")
    except LookupError:
        return raw.decode("utf-8", "replace")


def _instant(seconds: int) -> datetime:
    # A day's distance from the ends, so that a local time exists too.
    return datetime.fromtimestamp(max(0, min(seconds, _LAST_SECOND - _DAY_SECONDS)), UTC)


@dataclass(frozen=True, slots=True)
class TreeEntry:
    """One entry of a tree as ``ls-tree -l`` lists it; ``size`` is None for folders and submodules."""

    mode: str
    type: str
    sha: str
    size: int | None
    path: bytes


def list_tree(git: Git, sha: str, *, recursive: bool) -> Iterator[TreeEntry]:
    """The entries of a tree in git's order; a recursive listing names the folders too."""
    deep = ("-r", "-t") if recursive else ()
    for line in git.run("ls-tree", "-l", "-z", *deep, sha).split(b"\0"):
        if line:
            head, path = line.split(b"\t", 1)
            mode, kind, entry_sha, size = head.decode().split()
            yield TreeEntry(mode, kind, entry_sha, None if size == "-" else int(size), path)


@dataclass(frozen=True, slots=True)
class FileChange:
    """One file in a difference; ``status`` is git's letter, ``previous`` the old path of a rename."""

    status: str
    path: bytes
    previous: bytes | None
    old_sha: str
    new_sha: str
    additions: int
    deletions: int


def diff(git: Git, old: str, new: str) -> list[FileChange]:
    """What turns one tree-ish into another, with renames found, in git's order."""
    output = git.run("diff-tree", "-r", "-z", "-M", "--raw", "--numstat", "--no-abbrev", old, new)
    fields = iter(output.split(b"\0"))
    raw: list[tuple[str, str, str, list[bytes]]] = []
    counts: list[tuple[int, int]] = []
    for item in fields:
        if item.startswith(b":"):
            _, _, old_sha, new_sha, letter = item.decode().split(" ")
            paths = [next(fields) for _ in range(2 if letter[0] in "RC" else 1)]
            raw.append((letter[0], old_sha, new_sha, paths))
        elif item:
            added, deleted, path = item.split(b"\t", 2)
            if not path:  # a rename: both names follow
                next(fields)
                next(fields)
            counts.append((_lines(added), _lines(deleted)))
    return [
        FileChange(letter, paths[-1], paths[0] if len(paths) > 1 else None, old_sha, new_sha, added, deleted)
        for (letter, old_sha, new_sha, paths), (added, deleted) in zip(raw, counts, strict=True)
    ]


def _lines(count: bytes) -> int:
    return 0 if count == b"-" else int(count)


@dataclass(frozen=True, slots=True)
class Touched:
    """The paths one commit touches, as push payloads list them: a rename is a removal and an addition."""

    added: tuple[str, ...]
    modified: tuple[str, ...]
    removed: tuple[str, ...]


def touched(git: Git, commits: Sequence[CommitObject]) -> dict[str, Touched]:
    """The paths of several commits, each against its first parent, in one process."""
    parents = {commit.sha: commit.parents[:1] for commit in commits}
    lines = "".join(" ".join([sha, *parent]) + "\n" for sha, parent in parents.items()).encode()
    output = git.run("diff-tree", "--stdin", "-r", "-z", "--root", "--no-renames", "--name-status", data=lines)
    found: dict[str, dict[str, list[str]]] = {sha: {"A": [], "M": [], "D": []} for sha in parents}
    current: dict[str, list[str]] = {}
    fields = iter(output.split(b"\0"))
    for item in fields:
        # A commit's line names its parent too when the input did.
        if len(item) >= 40:  # noqa: PLR2004
            current = found[item[:40].decode()]
        elif item:
            letter = item.decode()
            current["M" if letter == "T" else letter].append(next(fields).decode("utf-8", "replace"))
    return {sha: Touched(tuple(each["A"]), tuple(each["M"]), tuple(each["D"])) for sha, each in found.items()}
