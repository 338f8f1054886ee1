"""Heads as the API tells them, which right after a push may not be what they are."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from daemon.clock import Clock
from daemon.demo.standin.gitprocess import GitFailed
from daemon.demo.standin.repositories import ServedRepository


@dataclass(slots=True)
class Stale:
    """One branch told as it was: until an instant of the monotonic clock, for so many reads, or until lifted."""

    sha: str | None  # None: the branch is not there yet
    until: float | None
    reads: int | None
    objects: bool


class Heads:
    """Every head read of the API comes through here."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._stale: dict[tuple[int, str], Stale] = {}
        self._hidden: dict[tuple[int, str, str], frozenset[str]] = {}

    def hold_back(self, repository: ServedRepository, branch: str, stale: Stale) -> None:
        with self._lock:
            self._stale[repository.id, branch] = stale

    def lift(self, repository: ServedRepository, branch: str) -> None:
        """Tell the truth about a branch again."""
        with self._lock:
            self._stale.pop((repository.id, branch), None)

    def deadline(self, seconds: float | None) -> float | None:
        return None if seconds is None else self._clock.monotonic() + seconds

    def get(self, repository: ServedRepository, branch: str) -> str | None:
        """The head of a branch; counts as one read of it."""
        stale = self._read(repository, branch)
        return stale.sha if stale is not None else repository.refs.get(f"refs/heads/{branch}")

    def all(self, repository: ServedRepository, prefix: str = "") -> dict[str, str]:
        """The heads of all branches whose name starts with ``prefix``; counts as one read of each, sorted."""
        found: dict[str, str | None] = {**repository.branches()}
        with self._lock:
            held = [branch for github_id, branch in self._stale if github_id == repository.id]
        for branch in held:
            if branch.startswith(prefix) and (stale := self._read(repository, branch)) is not None:
                found[branch] = stale.sha
        return {name: sha for name, sha in sorted(found.items()) if sha is not None and name.startswith(prefix)}

    def hides(self, repository: ServedRepository, sha: str) -> bool:
        """Whether an object is not there yet because the push that brought it is held back."""
        with self._lock:
            held = [
                (branch, stale)
                for (github_id, branch), stale in self._stale.items()
                if github_id == repository.id and stale.objects and self._holds(stale)
            ]
        return any(sha in self._new_objects(repository, branch, stale) for branch, stale in held)

    def _read(self, repository: ServedRepository, branch: str) -> Stale | None:
        with self._lock:
            stale = self._stale.get((repository.id, branch))
            if stale is None or not self._holds(stale):
                self._stale.pop((repository.id, branch), None)
                return None
            if stale.reads is not None:
                stale.reads -= 1
            return stale

    def _holds(self, stale: Stale) -> bool:
        in_time = stale.until is None or self._clock.monotonic() < stale.until
        return in_time and (stale.reads is None or stale.reads > 0)

    def _new_objects(self, repository: ServedRepository, branch: str, stale: Stale) -> frozenset[str]:
        head = repository.refs.get(f"refs/heads/{branch}")
        if head is None or head == stale.sha:
            return frozenset()
        key = (repository.id, head, stale.sha or "")
        if key not in self._hidden:
            others = [sha for name, sha in repository.branches().items() if name != branch]
            self._hidden[key] = _reachable(repository, head, [*others, *([stale.sha] if stale.sha else [])])
        return self._hidden[key]


def _reachable(repository: ServedRepository, head: str, known: list[str]) -> frozenset[str]:
    wanted = "\n".join([head, *(f"^{sha}" for sha in known), ""]).encode()
    try:
        listing = repository.git.run("rev-list", "--objects", "--ignore-missing", "--stdin", data=wanted)
    except GitFailed:
        return frozenset({head})
    return frozenset(line[:40].decode() for line in listing.splitlines())
