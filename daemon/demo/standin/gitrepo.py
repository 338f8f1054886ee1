"""Repositories made and edited through git's plumbing, for the demo and the tests.

Commits have a fixed identity and, unless told otherwise, dates that follow their parent's: the same
calls make the same commit ids on every machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from daemon.demo.standin.gitprocess import Git
from daemon.demo.standin.refs import Refs, git_directory
from daemon.model import MODE_EXECUTABLE, MODE_FILE, MODE_SUBMODULE, MODE_SYMLINK

FIRST_COMMIT_AT = 1_704_067_200  # 2024-01-01T00:00:00Z
BETWEEN_COMMITS_SECONDS = 60
_ESCAPED = frozenset(b'"\\')


@dataclass(frozen=True, slots=True)
class File:
    """A regular file; ``mode`` is 100644 or 100755."""

    content: bytes
    mode: str = MODE_FILE


@dataclass(frozen=True, slots=True)
class Symlink:
    """A symbolic link; the target is bytes, and need not exist."""

    target: bytes


@dataclass(frozen=True, slots=True)
class Submodule:
    """A link to a commit of another repository."""

    sha: str


def executable(content: bytes) -> File:
    return File(content, MODE_EXECUTABLE)


# None removes the path. Text is stored as UTF-8.
Change = bytes | str | File | Symlink | Submodule | None
Changes = Mapping[str | bytes, Change]


@dataclass(frozen=True, slots=True)
class Person:
    """An author or committer."""

    name: str = "Ada Example"
    email: str = "ada@example.com"


@dataclass(frozen=True, slots=True)
class ListedEntry:
    """One entry of ``git ls-tree -r -l``: no folders; ``size`` is None for a submodule."""

    mode: str
    sha: str
    size: int | None
    path: bytes


class GitRepo:
    """A git repository, bare or plain, that can be written without a work tree."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.git = Git(git_directory(path))
        self._refs = Refs(self.git.directory)

    @classmethod
    def init(cls, path: Path, *, branch: str = "main", bare: bool = True) -> GitRepo:
        """Make an empty repository whose HEAD names ``branch``."""
        path.mkdir(parents=True, exist_ok=True)
        shape = ("--bare",) if bare else ()
        target = Git(path if bare else path / ".git")
        target.run("init", "--quiet", *shape, "--template=", f"--initial-branch={branch}")
        return cls(path)

    @classmethod
    def copy(cls, source: Path, path: Path) -> GitRepo:
        """A bare copy of the branches and tags of another repository, which is only read.

        Objects travel as one pack: no hook, filter or configuration of the source has a say.
        """
        origin = cls(source)
        copied = cls.init(path, branch=origin.head_branch() or "main")
        shallow = origin.git.directory / "shallow"
        if shallow.is_file():
            (copied.git.directory / "shallow").write_bytes(shallow.read_bytes())
        refs = {**origin.refs("refs/heads/"), **origin.refs("refs/tags/")}
        if refs:
            wanted = "".join(f"{sha}\n" for sha in refs.values()).encode()
            pack = origin.git.run("pack-objects", "--revs", "--stdout", "--quiet", data=wanted)
            copied.git.run("index-pack", "--stdin", data=pack)
            commands = "".join(f"create {name} {sha}\n" for name, sha in refs.items())
            copied.git.run("update-ref", "--stdin", data=commands.encode("utf-8", "surrogateescape"))
        return copied

    def commit(
        self,
        changes: Changes,
        message: str | bytes = "Change",
        *,
        branch: str = "main",
        parents: Sequence[str] | None = None,
        fresh: bool = False,
        date: datetime | int | str | None = None,
        author: Person = Person(),  # frozen
    ) -> str:
        """Commit ``changes`` on top of a branch (made when it does not exist) and return the commit id.

        ``parents`` other than the branch's head rewrite it (a force push); ``fresh`` starts from an empty
        tree. ``date`` is an instant, epoch seconds, or git's raw ``"SECONDS +HHMM"``.
        """
        head = self.head(branch)
        above = list(parents) if parents is not None else [head] if head else []
        stamp = self._stamp(date, above)
        script = [
            b"feature done\n",
            b"commit refs/standin/new\nmark :1\n",
            f"author {author.name} <{author.email}> {stamp}\n".encode(),
            f"committer {author.name} <{author.email}> {stamp}\n".encode(),
            _data(message.encode() if isinstance(message, str) else message),
            *(f"{word} {sha}\n".encode() for word, sha in zip(["from", *["merge"] * 99], above, strict=False)),
            b"deleteall\n" if fresh else b"",
            *(_change(path, change) for path, change in changes.items()),
            b"\nget-mark :1\nreset refs/standin/new\n\ndone\n",
        ]
        answer = self.git.run("fast-import", "--quiet", "--force", "--date-format=raw", data=b"".join(script))
        sha = answer.decode().strip()
        self.reset(branch, sha)
        return sha

    def _stamp(self, date: datetime | int | str | None, parents: Sequence[str]) -> str:
        if isinstance(date, str):
            return date
        if date is None:
            date = FIRST_COMMIT_AT
            if parents:
                shown = self.git.run("log", "--no-walk", "--format=%ct", *parents)
                date = max(map(int, shown.split())) + BETWEEN_COMMITS_SECONDS
        seconds = date if isinstance(date, int) else int(date.timestamp())
        return f"{seconds} +0000"

    def merge(self, other: str, message: str = "Merge", *, branch: str = "main", changes: Changes | None = None) -> str:
        """A commit with two parents; its tree is the branch's own with ``changes``."""
        head = self.head(branch)
        assert head is not None
        return self.commit(changes or {}, message, branch=branch, parents=[head, other])

    def commit_tree(
        self, tree: str, message: str = "Tree", *, branch: str = "main", parents: Sequence[str] = ()
    ) -> str:
        """Commit a tree made elsewhere, say by ``write_tree``, and move the branch to it."""
        stamp = self._stamp(None, parents)
        person = f"{Person().name} <{Person().email}> {stamp}"
        lines = [f"tree {tree}", *(f"parent {sha}" for sha in parents), f"author {person}", f"committer {person}"]
        raw = "\n".join([*lines, "", message, ""]).encode()
        sha = self._hash("commit", raw)
        self.reset(branch, sha)
        return sha

    def write_tree(self, entries: Sequence[tuple[str, bytes, str]]) -> str:
        """Store a tree object of (mode, name, sha) as it stands, also one that git would not make itself."""
        raw = b"".join(
            mode.lstrip("0").encode() + b" " + name + b"\0" + bytes.fromhex(sha) for mode, name, sha in entries
        )
        return self._hash("tree", raw)

    def write_blob(self, content: bytes) -> str:
        return self._hash("blob", content)

    def _hash(self, kind: str, raw: bytes) -> str:
        return self.git.run("hash-object", "-t", kind, "-w", "--literally", "--stdin", data=raw).decode().strip()

    def reset(self, branch: str, sha: str) -> None:
        """Make or move a branch, forwards or not."""
        self.git.run("update-ref", f"refs/heads/{branch}", sha)

    def delete_branch(self, branch: str) -> None:
        self.git.run("update-ref", "-d", f"refs/heads/{branch}")

    def set_head(self, branch: str) -> None:
        """Make a branch the default one."""
        self.git.run("symbolic-ref", "HEAD", f"refs/heads/{branch}")

    def rename_branch(self, old: str, new: str) -> None:
        """Rename a branch, and HEAD with it when it was the default one."""
        default = self.head_branch() == old
        sha = self.head(old)
        assert sha is not None
        self.delete_branch(old)
        self.reset(new, sha)
        if default:
            self.set_head(new)

    def tag(self, name: str, sha: str, *, annotation: str | None = None) -> str:
        """A tag, annotated when there is an annotation; returns what the ref points to."""
        if annotation is not None:
            stamp = f"{Person().name} <{Person().email}> {FIRST_COMMIT_AT} +0000"
            raw = f"object {sha}\ntype commit\ntag {name}\ntagger {stamp}\n\n{annotation}\n"
            sha = self._hash("tag", raw.encode())
        self.git.run("update-ref", f"refs/tags/{name}", sha)
        return sha

    def head(self, branch: str = "main") -> str | None:
        return self._refs.get(f"refs/heads/{branch}")

    def head_branch(self) -> str | None:
        return self._refs.head_branch()

    def refs(self, prefix: str = "refs/heads/") -> dict[str, str]:
        """Full ref names and ids below a prefix."""
        return self._refs.under(prefix)

    def branches(self) -> dict[str, str]:
        return {name.removeprefix("refs/heads/"): sha for name, sha in self.refs().items()}

    def tree_sha(self, branch_or_sha: str = "main") -> str:
        start = self.head(branch_or_sha) or branch_or_sha
        return self.git.run("rev-parse", "--verify", f"{start}^{{tree}}").decode().strip()

    def ls_tree(self, branch_or_sha: str = "main") -> list[ListedEntry]:
        """Every blob, symlink and submodule of a branch or commit, in git's order."""
        listing = self.git.run("ls-tree", "-r", "-l", "-z", self.head(branch_or_sha) or branch_or_sha)
        return [_listed(line) for line in listing.split(b"\0") if line]

    def cat(self, sha: str) -> bytes:
        """The content of a blob."""
        return self.git.run("cat-file", "blob", sha)

    def log(self, branch_or_sha: str = "main") -> list[str]:
        """Commit ids, newest first, in the order GitHub lists them."""
        return self.git.run("rev-list", self.head(branch_or_sha) or branch_or_sha).decode().split()


def _listed(line: bytes) -> ListedEntry:
    head, path = line.split(b"\t", 1)
    mode, _, sha, size = head.decode().split()
    return ListedEntry(mode, sha, None if size == "-" else int(size), path)


def _change(path: str | bytes, change: Change) -> bytes:
    where = _quoted(path.encode() if isinstance(path, str) else path)
    match change:
        case None:
            return b"D " + where + b"\n"
        case Submodule(sha):
            return f"M {MODE_SUBMODULE} {sha} ".encode() + where + b"\n"
        case Symlink(target):
            return f"M {MODE_SYMLINK} inline ".encode() + where + b"\n" + _data(target)
        case File(content, mode):
            return f"M {mode} inline ".encode() + where + b"\n" + _data(content)
        case str() | bytes():
            return _change(path, File(change.encode() if isinstance(change, str) else change))


def _quoted(path: bytes) -> bytes:
    """A path as fast-import reads it whatever bytes it has: C-style quotes, octal for all but printable ASCII."""
    plain = (chr(byte) if 0x20 <= byte < 0x7F and byte not in _ESCAPED else f"\\{byte:03o}" for byte in path)  # noqa: PLR2004
    return b'"' + "".join(plain).encode() + b'"'


def _data(content: bytes) -> bytes:
    return b"data %d\n" % len(content) + content + b"\n"
