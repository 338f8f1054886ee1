"""The repositories that are served, by name and by numeric id, with GitHub's rules for renaming."""

from __future__ import annotations

import itertools
import threading
import zlib
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from daemon.demo.standin.gitprocess import Git, GitObject, ObjectReader
from daemon.demo.standin.objects import CommitObject, parse_commit
from daemon.demo.standin.refs import Refs, git_directory

# Beyond 2**31, as GitHub's ids will be: whoever keeps them in 32 bits should notice here.
FIRST_ID = 3_000_000_001
# The account of whoever has the token: the one owner that is a user, all others are organisations.
LOGIN = "octocat"


@dataclass(eq=False)
class ServedRepository:
    """A local git repository as GitHub shows it. Flags may be changed while it is served."""

    id: int
    owner: str
    name: str
    path: Path
    created_at: datetime
    pushed_at: datetime
    default: str | None = None  # None: whatever HEAD of the repository names
    private: bool = False
    archived: bool = False
    disabled: bool = False
    fork: bool = False
    topics: tuple[str, ...] = ()
    blocked: int | None = None  # 451 or 403: answers that access is blocked
    admin: bool = True  # whether the caller may see and change its webhooks
    git: Git = field(init=False)
    refs: Refs = field(init=False)
    _reader: ObjectReader = field(init=False)

    def __post_init__(self) -> None:
        self.git = Git(git_directory(self.path))
        self.refs = Refs(self.git.directory)
        self._reader = ObjectReader(self.git)

    @property
    def full_name(self) -> str:
        return f"{self.owner}/{self.name}"

    @property
    def owner_id(self) -> int:
        return zlib.crc32(self.owner.lower().encode())

    @property
    def owner_type(self) -> str:
        return "User" if self.owner.lower() == LOGIN else "Organization"

    @property
    def default_branch(self) -> str:
        """The default branch's name; an empty repository has one too."""
        return self.default or self.refs.head_branch() or next(iter(self.branches()), "main")

    @property
    def empty(self) -> bool:
        return not self.branches()

    def branches(self) -> dict[str, str]:
        """Branch names and heads as they are on disk."""
        return {name.removeprefix("refs/heads/"): sha for name, sha in self.refs.under("refs/heads/").items()}

    def object(self, sha: str) -> GitObject | None:
        return self._reader.read(sha)

    def commit(self, sha: str) -> CommitObject | None:
        """A commit by id; None when there is no such object or it is something else."""
        found = self._reader.read(sha)
        return parse_commit(found.sha, found.content) if found is not None and found.type == "commit" else None

    def close(self) -> None:
        self._reader.close()


class Registry:
    """Names are looked up without regard to case; a renamed repository is still found under its old names."""

    def __init__(self) -> None:
        self._by_id: dict[int, ServedRepository] = {}
        self._names: dict[str, int] = {}
        self._former: dict[str, int] = {}
        self._ids = itertools.count(FIRST_ID)
        self._lock = threading.Lock()

    def next_id(self) -> int:
        return next(self._ids)

    def add(self, repository: ServedRepository) -> None:
        """Serve a repository; a former name that it takes redirects no more. Raises ValueError when taken."""
        with self._lock:
            name = repository.full_name.lower()
            if name in self._names or repository.id in self._by_id:
                raise ValueError(f"{repository.full_name} or its id {repository.id} is already served")
            self._by_id[repository.id] = repository
            self._names[name] = repository.id
            self._former.pop(name, None)

    def rename(self, repository: ServedRepository, owner: str, name: str) -> None:
        with self._lock:
            new = f"{owner}/{name}".lower()
            if self._names.get(new, repository.id) != repository.id:
                raise ValueError(f"{owner}/{name} is already served")
            old = repository.full_name.lower()
            del self._names[old]
            self._former[old] = repository.id
            self._former.pop(new, None)
            self._names[new] = repository.id
            repository.owner, repository.name = owner, name

    def remove(self, repository: ServedRepository) -> None:
        with self._lock:
            del self._by_id[repository.id]
            del self._names[repository.full_name.lower()]
            self._former = {name: each for name, each in self._former.items() if each != repository.id}
        repository.close()

    def by_id(self, github_id: int) -> ServedRepository | None:
        return self._by_id.get(github_id)

    def named(self, full_name: str) -> ServedRepository | None:
        """The repository that has this name now."""
        return self._by_id.get(self._names.get(full_name.lower(), 0))

    def formerly(self, full_name: str) -> ServedRepository | None:
        """The repository that had this name, if nobody has it now."""
        return self._by_id.get(self._former.get(full_name.lower(), 0))

    def require(self, full_name: str) -> ServedRepository:
        """The repository with this name; KeyError when none is served."""
        found = self.named(full_name)
        if found is None:
            raise KeyError(f"{full_name} is not served")
        return found

    def all(self) -> list[ServedRepository]:
        with self._lock:
            return list(self._by_id.values())
