"""`headwater verify`: recompute everything from what is stored, and hold it against GitHub's tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from daemon.clock import Clock
from daemon.commands.sync import SyncResult, every_name, sync_now
from daemon.config import Config
from daemon.core import client_settings
from daemon.errors import GitHubError
from daemon.github.client import GitHubClient
from daemon.github.governor import Governor
from daemon.model import BranchFacts, RepositoryRef, Trigger
from daemon.store.opening import open_to_read
from daemon.store.repositories import Repositories
from daemon.store.snapshots import Snapshots
from daemon.sync.audit import compare_with_github, examine


@dataclass(frozen=True, slots=True)
class Report:
    """What was found of one branch: ``drift`` has a sentence for each difference, ``error`` why it was not compared."""

    repository: str
    branch: str
    head_sha: str | None
    entries: int
    drift: tuple[str, ...]
    error: str | None = None

    @property
    def drifted(self) -> bool:
        return bool(self.drift)

    @property
    def ok(self) -> bool:
        return not self.drift and self.error is None

    def text(self) -> str:
        where = f"{self.repository}@{self.branch or '(default branch)'}"
        if self.ok and self.head_sha is None:
            return f"{where}  not synced yet: there is nothing to verify"
        if self.ok:
            return f"{where}  ok: {self.entries} entries prove {self.head_sha}"
        error = [] if self.error is None else [f"not compared with GitHub: {self.error}"]
        if not self.drift:
            return f"{where}  {error[0]}"
        return "\n".join([f"{where}  DRIFT", *(f"  {sentence}" for sentence in (*self.drift, *error))])

    def as_json(self) -> dict[str, Any]:
        return {
            "repository": self.repository,
            "branch": self.branch,
            "head_sha": self.head_sha,
            "entries": self.entries,
            "ok": self.ok,
            "drift": list(self.drift),
            "error": self.error,
        }


def verify_stored(config: Config, names: Sequence[str], *, repair: bool) -> list[Report]:
    """A report for each stored branch (none named: of all); with ``repair``, after having synced anew what had drifted.

    Works beside a running daemon. Raises StoreError without a store.
    """
    reports = _examine_all(config, names)
    drifted = sorted({report.repository for report in reports if report.drifted})
    if not repair or not drifted:
        return reports
    failed: list[SyncResult] = [result for result in sync_now(config, drifted, trigger=Trigger.AUDIT) if result.failed]
    after = _examine_all(config, names)
    return after + [
        Report(result.repository, result.branch, result.head, 0, (f"could not be mended: {result.error}",))
        for result in failed
    ]


def _examine_all(config: Config, names: Sequence[str]) -> list[Report]:
    clock = Clock()
    database = open_to_read(config.storage, clock=clock)
    client = GitHubClient(client_settings(config), clock=clock, governor=Governor(clock=clock))
    try:
        repositories, snapshots = Repositories(database), Snapshots(database)
        reports: list[Report] = []
        for name in names or every_name(config, repositories):
            repository_id = repositories.by_name(*name.split("/", 1))
            branches = [] if repository_id is None else repositories.branches(repository_id)
            reports += [
                _examine(client, snapshots, repositories.ref(facts.repository_id), facts, ask=config.github.configured)
                for facts in branches
            ] or [Report(name, "", None, 0, ())]  # not to be taken for one that was found in order
        return reports
    finally:
        database.close()


def _examine(
    client: GitHubClient, snapshots: Snapshots, repository: RepositoryRef, facts: BranchFacts, *, ask: bool
) -> Report:
    drift = examine(snapshots, facts)
    sentences, why = list(drift.sentences), None
    if ask:
        try:
            sentences += compare_with_github(client, repository, facts, snapshots.entries(facts.id))
        except GitHubError as error:
            why = str(error)
    return Report(repository.full_name, facts.name, facts.head_sha, drift.entries, tuple(sentences), why)
