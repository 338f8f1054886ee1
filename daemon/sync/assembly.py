"""From a commit to a proven change: learn what changed, fetch what is missing, recompute the tree id.

A commit that is ahead of the stored one is reached by a comparison where that suffices, else by its whole tree.

Nothing visible moves here. Either the rows that would be stored give exactly the commit's tree id,
or the run fails; the one exception is a path that GitHub's JSON cannot name (not UTF-8) and that the
archive does not hold either: then the snapshot says so (``tree_verified`` false and why).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from daemon.clock import Clock
from daemon.errors import ProofFailed
from daemon.github.client import GitHubClient
from daemon.model import (
    EMPTY_TREE_SHA,
    Commit,
    ContentRules,
    Difference,
    Entry,
    FolderChange,
    RemoteTree,
    RepositoryRef,
    SnapshotChange,
)
from daemon.store.snapshots import Snapshots
from daemon.sync import harvest, planning
from daemon.sync.attempt import Attempt
from daemon.sync.content import USELESS_ARCHIVE, Content, Wanted
from daemon.sync.entities import Collections
from daemon.sync.forward import Forward
from daemon.sync.patterns import compile_rules

# Of a tree that GitHub does not list as a whole: with every worker at it far from the hundred requests at once that
# GitHub allows (https://docs.github.com/rest/using-the-rest-api/rate-limits-for-the-rest-api).
TREES_AT_ONCE = 4


class Assembly:
    """Builds the change that turns the stored snapshot into the one of a commit."""

    def __init__(
        self,
        client: GitHubClient,
        snapshots: Snapshots,
        *,
        clock: Clock,
        rules: Callable[[RepositoryRef], ContentRules],
        collections: Callable[[RepositoryRef], Collections],
    ) -> None:
        self._client = client
        self._snapshots = snapshots
        self._rules = rules
        self._collections = collections
        self._content = Content(client, snapshots, clock=clock)
        self._forward = Forward(client, snapshots, self._content)

    def compare(self, attempt: Attempt, head: str) -> Difference | None:
        """What leads from the stored head to this one, when that may spare listing the tree."""
        return self._forward.compare(attempt, head, self._rules(attempt.repository))

    def build(self, attempt: Attempt, commit: Commit, difference: Difference | None) -> SnapshotChange:
        """The proven change to ``commit``, its contents already in the store, and what it does to the entities.

        Raises GitHubError, ArchiveBroken, StoreUnavailable and ProofFailed.
        """
        change = self._proven(attempt, commit, difference)
        attempt.progress("entities", 0, 1)
        collections = self._collections(attempt.repository)
        made = harvest.of_change(self._snapshots, collections, attempt.facts, change, attempt.check)
        return replace(change, entities=made)

    def _proven(self, attempt: Attempt, commit: Commit, difference: Difference | None) -> SnapshotChange:
        rules = self._rules(attempt.repository)
        facts = attempt.facts
        same_rows = facts.tree_sha == commit.tree_sha and facts.rules_digest == rules.digest
        if same_rows and facts.tree_verified:
            return SnapshotChange(commit.sha, commit.tree_sha, (), (), (), True, None, rules.digest)
        step = self._forward.step(attempt, commit, difference, rules) if difference is not None else None
        return step or self._whole(attempt, commit, rules)

    def _unpack(self, attempt: Attempt, commit: Commit, rules: ContentRules) -> list[Entry]:
        """The rows that the archive of a first sync gives, contents stored; none when it is not to be read whole."""
        everything = not (rules.include or rules.exclude) and commit.tree_sha != EMPTY_TREE_SHA
        if not everything or not self._snapshots.begin_archive(attempt.facts.id, commit.sha):
            return []
        attempt.check()
        try:
            return self._content.unpack(
                attempt.repository,
                commit.sha,
                max_file_bytes=rules.max_file_bytes,
                progress=attempt.progress,
                check=attempt.check,
            )
        except USELESS_ARCHIVE:
            return []  # asked for again once the tree says what is to be in it

    def _whole(self, attempt: Attempt, commit: Commit, rules: ContentRules) -> SnapshotChange:
        """The long way: every entry of the tree against every entry that is stored.

        A first sync need not even list it where the archive alone gives the commit's tree id.
        """
        unpacked = self._unpack(attempt, commit, rules)
        if unpacked and (proof := planning.prove(unpacked, commit.tree_sha)).verified:
            return _first(commit, unpacked, proof, rules)
        old = self._snapshots.entries(attempt.claim.branch_id)
        listing = self._list(attempt, commit.tree_sha, old)
        entries = planning.to_entries(
            listing, wanted=compile_rules(rules.include, rules.exclude), max_file_bytes=rules.max_file_bytes
        )
        entries = planning.mend_names(entries, planning.names_of([*old, *unpacked]))
        entries, proof = self._complete(attempt, commit, listing, entries, archive_read=bool(unpacked))
        error = None if proof.verified else _excuse(entries, listing, commit.tree_sha)
        added, modified, removed = planning.changes(old, entries)
        return SnapshotChange(
            head_sha=commit.sha,
            tree_sha=commit.tree_sha,
            added=tuple(added),
            modified=tuple(modified),
            removed=tuple(removed),
            tree_verified=error is None,
            tree_error=error,
            rules_digest=rules.digest,
            folders=FolderChange(proof.folders, whole=True),
        )

    def _list(self, attempt: Attempt, tree_sha: str, old: Sequence[Entry]) -> planning.Listing:
        attempt.progress("listing", 0, 1)
        walk = planning.walk(tree_sha, planning.known_folders(old), together=TREES_AT_ONCE)
        requests = next(walk)
        with ThreadPoolExecutor(TREES_AT_ONCE, thread_name_prefix="trees") as threads:  # none starts for one request
            while True:
                attempt.check()
                try:
                    requests = walk.send(self._trees(attempt, requests, threads))
                except StopIteration as end:
                    listing: planning.Listing = end.value
                    return listing

    def _trees(
        self, attempt: Attempt, requests: Sequence[planning.TreeRequest], threads: ThreadPoolExecutor
    ) -> list[RemoteTree]:
        """The answers, in order. Raises the first error of any, once all have ended."""

        def ask(request: planning.TreeRequest) -> RemoteTree:
            return self._client.tree(attempt.repository, request.tree_sha, recursive=request.recursive)

        if len(requests) == 1:
            return [ask(requests[0])]
        return list(threads.map(self._client.alongside(ask), requests))

    def _complete(
        self,
        attempt: Attempt,
        commit: Commit,
        listing: planning.Listing,
        entries: list[Entry],
        *,
        archive_read: bool,
    ) -> tuple[list[Entry], planning.Proof]:
        """Fetch what is missing, and give paths that JSON cannot carry their bytes back."""
        proof = planning.prove(entries, commit.tree_sha)
        blobs = planning.needed(entries)
        wanted = Wanted(
            repository=attempt.repository,
            commit=commit.sha,
            blobs=blobs,
            file_count=len(entries),
            total_bytes=sum(entry.size or 0 for entry in entries),
            largest_bytes=max(blobs.values(), default=0),
            archive_read=archive_read,
        )
        unnamed = not (proof.verified or archive_read) and planning.only_unnameable(entries, listing.folders)
        self._content.fetch(
            wanted,
            need_names=unnamed,
            insist=attempt.claim.attempt <= 1,  # what failed once may do so for ever: then each is asked for
            progress=attempt.progress,
            check=attempt.check,
        )
        if not unnamed:
            return entries, proof
        entries = planning.mend_names(entries, wanted.names)
        return entries, planning.prove(entries, commit.tree_sha)


def _first(commit: Commit, entries: list[Entry], proof: planning.Proof, rules: ContentRules) -> SnapshotChange:
    return SnapshotChange(
        head_sha=commit.sha,
        tree_sha=commit.tree_sha,
        added=tuple(entries),
        modified=(),
        removed=(),
        tree_verified=True,
        tree_error=None,
        rules_digest=rules.digest,
        folders=FolderChange(proof.folders, whole=True),
    )


def _excuse(entries: Sequence[Entry], listing: planning.Listing, tree_sha: str) -> str:
    """Why it cannot be told whether the rows give the commit's tree id. Raises ProofFailed when they just do not."""
    reason = planning.explain(entries, listing.folders)
    if planning.only_unnameable(entries, listing.folders):
        return f"GitHub's API cannot name a path that is not UTF-8: {reason}"
    raise ProofFailed(f"the recomputed tree differs from GitHub's {tree_sha}: {reason}")
