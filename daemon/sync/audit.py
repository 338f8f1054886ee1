"""Holds what is stored against itself and against GitHub: contents by their ids, rows by the tree id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from daemon.errors import ObjectNotFound
from daemon.github.client import GitHubClient
from daemon.model import BranchFacts, Entry, RepositoryRef
from daemon.store.snapshots import Snapshots
from daemon.sync import planning
from daemon.sync.gitobjects import blob_sha


@dataclass(frozen=True, slots=True)
class Drift:
    """What is wrong with a stored snapshot: contents that are not their id's, and sentences for a person."""

    bad_blobs: tuple[str, ...]
    sentences: tuple[str, ...]
    entries: int

    @property
    def found(self) -> bool:
        return bool(self.sentences)


def examine(snapshots: Snapshots, facts: BranchFacts) -> Drift:
    """Recompute every stored blob's id and the root tree's; asks nobody."""
    entries = snapshots.entries(facts.id)
    bad: list[str] = []
    sentences: list[str] = []
    for entry in entries:
        if entry.stored and (problem := _content_problem(snapshots, entry)):
            bad.append(entry.sha)
            sentences.append(f"{entry.path.decode('utf-8', 'replace')}: {problem}")
    if facts.tree_sha and facts.tree_verified:
        proof = planning.prove(entries, facts.tree_sha)
        if not proof.verified:
            sentences.append(f"the rows do not give the stored commit's tree {facts.tree_sha}: {proof.error}")
    return Drift(tuple(bad), tuple(sentences), len(entries))


def _content_problem(snapshots: Snapshots, entry: Entry) -> str | None:
    content = snapshots.blob(entry.sha)
    if content is None:
        return "its content is missing from the store"
    found = blob_sha(content)
    return None if found == entry.sha else f"its content has the id {found}, not {entry.sha}"


def compare_with_github(
    client: GitHubClient, repository: RepositoryRef, facts: BranchFacts, entries: Sequence[Entry]
) -> list[str]:
    """What GitHub's tree of the stored commit says differently; one request and the tree's listing.

    Raises GitHubError; a commit that GitHub no longer has is a difference too, a repository that it no longer has not.
    """
    if facts.head_sha is None:
        return []
    try:
        commit = client.commits(repository, facts.head_sha, limit=1, known=lambda _sha: True)[0]
    except ObjectNotFound:
        client.repository(repository)  # the 404 may be about all of it
        return [f"GitHub no longer has the stored commit {facts.head_sha}"]
    if commit.tree_sha == facts.tree_sha:
        return []
    proof = planning.prove(entries, commit.tree_sha)
    return [] if proof.verified else [f"GitHub's tree of {facts.head_sha} is {commit.tree_sha}: {proof.error}"]


def mend(snapshots: Snapshots, facts: BranchFacts) -> Drift:
    """Drop what cannot be trusted, so that the sync that follows fetches it again and rebuilds the rows."""
    drift = examine(snapshots, facts)
    if drift.found:
        snapshots.distrust(facts.id, blobs=drift.bad_blobs)
    return drift
