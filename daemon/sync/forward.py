"""The short way to a commit that is ahead of the stored one: one comparison, and the blobs that it names.

Neither the tree nor the stored entries are read whole. Whatever is odd about an answer, or does not give the
commit's tree id, is left to the long way; nothing is believed here that the proof does not hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from daemon.errors import BadAnswer, Forbidden, ObjectNotFound, Unreachable
from daemon.github.client import GitHubClient
from daemon.model import (
    MODE_SUBMODULE,
    MODE_TREE,
    Commit,
    ContentRules,
    Difference,
    Entry,
    FolderChange,
    SnapshotChange,
)
from daemon.store.snapshots import Snapshots
from daemon.sync import delta, planning
from daemon.sync.attempt import Attempt
from daemon.sync.content import Content
from daemon.sync.patterns import compile_rules

_ODD = (BadAnswer, Forbidden, ObjectNotFound)


class Forward:
    """Compares, plans and fetches one step ahead."""

    def __init__(self, client: GitHubClient, snapshots: Snapshots, content: Content) -> None:
        self._client = client
        self._snapshots = snapshots
        self._content = content

    def compare(self, attempt: Attempt, head: str, rules: ContentRules) -> Difference | None:
        """What leads from the stored head to this one; None when the stored rows cannot be stepped from."""
        facts = attempt.facts
        if facts.head_sha is None or not facts.tree_verified or facts.rules_digest != rules.digest:
            return None
        if self._snapshots.folder_tree(facts.id) != facts.tree_sha:
            return None
        attempt.check()
        attempt.progress("comparing", 0, 1)
        try:
            return self._client.difference(attempt.repository, facts.head_sha, head)
        except (*_ODD, Unreachable):  # some differences are too much for GitHub however often they are asked for
            return None

    def step(
        self, attempt: Attempt, commit: Commit, difference: Difference, rules: ContentRules
    ) -> SnapshotChange | None:
        """The proven change to ``commit``, its contents stored; None when it takes the long way to get there."""
        paths = delta.paths_of(difference.files)
        if difference.status != "ahead" or paths is None:
            return None
        folders = self._snapshots.folders(attempt.facts.id, delta.folders_of(paths))
        step = delta.settle(difference.files, folders, commit.tree_sha)
        rows = None if step is None else self._complete(attempt, step, rules)
        if step is None or rows is None:
            return None
        return SnapshotChange(
            head_sha=commit.sha,
            tree_sha=commit.tree_sha,
            added=tuple(row for row in rows if row.path not in step.before),
            modified=tuple(row for row in rows if row.path in step.before and step.before[row.path] != row),
            removed=tuple(path for path, row in step.rows.items() if row is None),
            tree_verified=True,
            tree_error=None,
            rules_digest=rules.digest,
            folders=FolderChange(step.folders, whole=False),
        )

    def _complete(self, attempt: Attempt, step: delta.Step, rules: ContentRules) -> list[Entry] | None:
        """The new rows with their sizes, which only contents tell; None when that is not worth it one by one."""
        rows = [row for row in step.rows.values() if row is not None]
        wanted = compile_rules(rules.include, rules.exclude)
        kept = {row.path for row in rows if row.mode not in (MODE_SUBMODULE, MODE_TREE) and wanted(row.path)}
        sizes = {row.sha: row.size for row in (*step.before.values(), *rows) if row.size is not None}
        fetched = {row.sha for row in rows if row.path in kept and sizes.get(row.sha, 0) <= rules.max_file_bytes}
        missing = self._snapshots.missing(fetched)
        if not self._few(attempt, missing) or not self._fetch(attempt, missing, rules):
            return None
        sizes |= self._snapshots.sizes({row.sha for row in rows})
        return _sized(rows, sizes, kept, rules)

    def _few(self, attempt: Attempt, missing: set[str]) -> bool:
        if len(missing) <= planning.FEW_BLOBS:
            return True
        small = len(missing) * planning.SMALL_SHARE < self._snapshots.count(attempt.facts.id)
        return small and len(missing) <= planning.MANY_BLOBS

    def _fetch(self, attempt: Attempt, missing: set[str], rules: ContentRules) -> bool:
        try:
            self._content.fetch_each(
                attempt.repository,
                missing,
                max_bytes=rules.max_file_bytes,
                progress=attempt.progress,
                check=attempt.check,
            )
        except _ODD:  # a file over the limit for one: its size stands in the tree, and that is all we want of it
            return False
        return True


def _sized(rows: list[Entry], sizes: Mapping[str, int], kept: set[bytes], rules: ContentRules) -> list[Entry] | None:
    done = []
    for row in rows:
        size = sizes.get(row.sha)
        if size is None and row.mode != MODE_SUBMODULE:
            return None
        stored = row.path in kept and size is not None and size <= rules.max_file_bytes
        done.append(replace(row, size=None if row.mode == MODE_SUBMODULE else size, stored=stored))
    return done
