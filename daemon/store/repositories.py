"""What is tracked, what GitHub last said of it, and when to ask again."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from daemon.globs import is_glob
from daemon.model import (
    BranchFacts,
    PollTarget,
    RemoteRepository,
    RepositoryRecord,
    RepositoryRef,
    RepositoryState,
    Topic,
    TrackedRepository,
    WebhookHealth,
)
from daemon.store import branches, identity, looks, owners, records
from daemon.store import models as tables
from daemon.store.database import Database
from daemon.store.fields import instant_text, json_text, optional_plain

_PAGE = 1000

_CREATE = """
    INSERT INTO repository (owner, name, full_name) VALUES (?, ?, ?)
    ON CONFLICT (full_name) DO UPDATE SET tracked = TRUE
    RETURNING id
"""
_TRACK = """
    UPDATE repository SET tracked = TRUE, configured_as = ?, patterns = ?, next_poll_at = NULL WHERE id = ?
"""
_FOUND = """
    SELECT id FROM repository
    WHERE tracked AND (configured_as = ? OR lower(owner) = ? AND coalesce(configured_as, '') NOT LIKE '%/*')
"""
_CONFIRM = """
    UPDATE branch SET confirmed_at = ?, gone = FALSE, empty = FALSE, last_error = NULL WHERE id = ? AND head_sha = ?
"""
# What is stored is served on, so its readers must not be told that GitHub is still seen to be there.
_MARK = """
    UPDATE branch SET gone = ?, empty = ?, confirmed_at = CASE WHEN head_sha IS NULL THEN ? ELSE confirmed_at END,
                      last_error = coalesce(?, last_error)
    WHERE id = ?
"""
_LOOK_BY = "UPDATE repository SET next_poll_at = ? WHERE id = ? AND next_poll_at > ?"
_POSTPONE = "UPDATE repository SET next_poll_at = ? WHERE id = ?"
_FORGET_LOOK = "UPDATE repository SET polled_at = NULL WHERE id = ? AND polled_at > ?"
_SUSPECT = """
    UPDATE repository SET suspect_sha = ?, suspect_branch = ?, suspect_at = ?
    WHERE id = ? AND suspect_sha IS NULL AND NOT EXISTS (
        SELECT 1 FROM delivery JOIN branch ON branch.id = delivery.branch_id
        WHERE branch.repository_id = repository.id AND branch.name = ? AND delivery."after" = ?
          AND delivery.status = 'accepted')
"""
_MISSED = """
    UPDATE repository SET missed_webhooks = missed_webhooks + 1, webhook = ?,
                          next_poll_at = CASE WHEN webhook = 'healthy' THEN ? ELSE next_poll_at END,
                          hook_log_due_at = CASE WHEN webhook <> 'missing' AND hook_log_until IS NOT NULL THEN NULL
                                                 ELSE hook_log_due_at END,
                          suspect_sha = NULL, suspect_branch = NULL, suspect_at = NULL
    WHERE suspect_at <= ?
"""


class Rule(Protocol):
    """What of a configured repository the store needs: the branches are names or globs."""

    @property
    def owner(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def branches(self) -> tuple[str, ...]: ...


class Repositories:
    """Repositories and their branches, but for what is in them."""

    def __init__(self, db: Database) -> None:
        self._db = db

    # -- what is tracked --------------------------------------------------------------------------

    def track(self, rules: Iterable[Rule], *, now: datetime) -> None:
        """Bring what is tracked in line with the configuration; all of it is due at once.

        What is no longer tracked keeps its rows. A repository is found by the name it is configured under, also when
        GitHub calls it by another now; a rule for ``owner/*`` goes on with what it has found.
        """
        every = list(rules)
        with self._db.write():
            kept = {self._track(rule, now) for rule in every if rule.name != "*"}
            for rule in every:
                if rule.name == "*":
                    kept.update(self._track_found(rule, kept, now))
            known = [row[0] for row in self._db.execute("SELECT id FROM repository WHERE tracked")]
            self._db.executemany(
                "UPDATE repository SET tracked = FALSE, configured_as = NULL WHERE id = ?",
                [(repository_id,) for repository_id in known if repository_id not in kept],
            )
            owners.configure(self._db, [f"{rule.owner}/*".lower() for rule in every if rule.name == "*"], now)
            self._db.tell(Topic.TRACKED)

    def _track(self, rule: Rule, now: datetime) -> int:
        key = f"{rule.owner}/{rule.name}".lower()
        row = self._db.execute("SELECT id FROM repository WHERE configured_as = ?", (key,)).fetchone()
        if row is None:
            row = self._db.execute(_CREATE, (rule.owner, rule.name, key)).fetchall()[0]
        self._follow(int(row[0]), key, rule, now)
        return int(row[0])

    def _track_found(self, rule: Rule, named: Collection[int], now: datetime) -> list[int]:
        """What the rule has found, and what an entry of its own named until now; the next look judges these."""
        key = f"{rule.owner}/*".lower()
        rows = self._db.execute(_FOUND, (key, rule.owner.lower())).fetchall()
        found = [int(row[0]) for row in rows if row[0] not in named]
        for repository_id in found:
            self._follow(repository_id, key, rule, now)
        return found

    def _follow(self, repository_id: int, key: str, rule: Rule, now: datetime) -> None:
        self._db.execute(_TRACK, (key, json_text(list(rule.branches)), repository_id))
        branches.track(self._db, repository_id, rule.branches, now=now)

    def tracked(self) -> tuple[TrackedRepository, ...]:
        """Every tracked repository, by name."""
        table = tables.Repository
        with self._db.read():
            rows = self._db.run(table.select().where(table.tracked).order_by(table.full_name).namedtuples())
            return tuple(_tracked(row) for row in rows)

    def by_name(self, owner: str, name: str) -> int | None:
        """The repository of that name, in any case, or that had it until nobody had it; None when there is none."""
        with self._db.read():
            return identity.by_name(self._db, owner, name)

    def ref(self, repository_id: int) -> RepositoryRef:
        """How to address it. Raises LookupError."""
        with self._db.read():
            row = self._db.execute(
                "SELECT owner, name, github_id FROM repository WHERE id = ?", (repository_id,)
            ).fetchone()
        if row is None:
            raise LookupError(f"there is no repository {repository_id}")
        return RepositoryRef(*row)

    def hinted(self, repository_id: int) -> bool:
        """Whether a delivery told of a change of its name or settings that no look has seen yet."""
        with self._db.read():
            row = self._db.execute("SELECT hinted FROM repository WHERE id = ?", (repository_id,)).fetchone()
        return bool(row and row[0])

    def has_globs(self, repository_id: int) -> bool:
        """Whether a branch that is new on GitHub may have to be tracked."""
        with self._db.read():
            row = self._db.execute("SELECT patterns FROM repository WHERE id = ?", (repository_id,)).fetchone()
        return row is not None and any(map(is_glob, json.loads(row[0])))

    def ensure_branch(self, repository_id: int, name: str) -> int:
        """The branch of that name, tracked, made when it is new."""
        with self._db.write():
            return branches.ensure(self._db, repository_id, name)

    def branches(self, repository_id: int) -> list[BranchFacts]:
        """The tracked branches, by name."""
        with self._db.read():
            return records.tracked_facts(self._db, [repository_id])

    def branches_of(self, repository_ids: Sequence[int]) -> dict[int, list[BranchFacts]]:
        """The tracked branches of each of these repositories that has some, by name."""
        with self._db.read():
            return looks.branches(self._db, repository_ids)

    # -- who it is --------------------------------------------------------------------------------

    def identify(
        self,
        repository_id: int,
        remote: RemoteRepository,
        *,
        heads: Mapping[str, str | None] | None = None,
        now: datetime,
    ) -> None:
        """Take over what GitHub says a repository is: id, names, default branch; the old name is remembered.

        ``heads`` are branches that were read with it: an old default branch that is still there was not renamed.
        Raises RepositoryReplaced, having written nothing, when it is not the repository it was, or when another
        configured one is it already.
        """
        with self._db.write():
            identity.identify(self._db, self.ref(repository_id), repository_id, remote, heads=heads or {}, now=now)

    def replace(self, repository_id: int, *, now: datetime) -> int:
        """Its name is another repository's: begin that one anew, and keep this as ``name~github_id``; the new id."""
        with self._db.write():
            return identity.replace(self._db, self.ref(repository_id), repository_id, now)

    # -- when to ask ------------------------------------------------------------------------------

    def due(self, *, now: datetime, limit: int, ahead_seconds: float = 0.0) -> list[PollTarget]:
        """The tracked repositories whose look is due, the one unseen for longest first.

        One whose last look is ahead of ``now`` is due too: the clock jumped back, its schedule means nothing.
        Where some are due, those due within ``ahead_seconds`` follow up to the limit.
        """
        with self._db.read():
            return looks.due(self._db, now=now, limit=limit, ahead_seconds=ahead_seconds)

    def count(self) -> int:
        """How many repositories are tracked."""
        with self._db.read():
            return int(self._db.execute("SELECT count(*) FROM repository WHERE tracked").fetchone()[0])

    def take(self, targets: Sequence[PollTarget], *, until: datetime, now: datetime) -> list[PollTarget]:
        """Those that no other daemon has taken up since they were read; to others they are not due before ``until``."""
        if not self._db.shared:
            return list(targets)
        with self._db.write():
            return looks.take(self._db, targets, until=until, now=now)

    def look_by(self, repository_id: int, *, at: datetime) -> None:
        """Look no later than ``at``; a look that is due before stays so."""
        with self._db.write():
            self._db.execute(_LOOK_BY, (instant_text(at), repository_id, instant_text(at)))

    def everything_due(self) -> None:
        """Look at all of them as soon as may be: after a start, a reload, an outage of ours."""
        with self._db.write():
            self._db.run(tables.Repository.update(next_poll_at=None))

    def polled(self, next_poll_at: Mapping[int, datetime], *, at: datetime, hinted: Collection[int] = ()) -> None:
        """Looks at these repositories succeeded; ``at`` is when they began, at ``hinted`` because of a hint.

        A hint that came while GitHub was being asked stays: the next look is due at once.
        """
        with self._db.write():
            looks.polled(self._db, next_poll_at, at=at, hinted=hinted)

    def postpone(self, repository_ids: Sequence[int], *, until: datetime) -> None:
        """Look at these later; nothing is wrong with them."""
        at = instant_text(until)
        with self._db.write():
            self._db.executemany(_POSTPONE, [(at, repository_id) for repository_id in repository_ids])

    def poll_failed(
        self,
        repository_id: int,
        *,
        at: datetime,
        error: str,
        state: RepositoryState | None,
        next_poll_at: datetime,
        count: bool = True,
    ) -> None:
        """A look failed; ``state`` is what that says of the repository, ``count`` whether it is to blame.

        A last look ahead of ``at`` is forgotten: the clock jumped back, and by it the look would be due for ever.
        """
        values: dict[str, Any] = {"last_error": optional_plain(error), "next_poll_at": next_poll_at}
        if state is not None:
            values["state"] = state.value
        if count:
            values["poll_failures"] = tables.Repository.poll_failures + 1
        with self._db.write():
            self._update(repository_id, **values)
            self._db.execute(_FORGET_LOOK, (repository_id, instant_text(at)))

    def _update(self, repository_id: int, **values: Any) -> None:
        table = tables.Repository
        self._db.run(table.update(**values).where(table.id == repository_id))

    # -- what was seen ----------------------------------------------------------------------------

    def confirm(self, branch_id: int, *, head: str, at: datetime) -> None:
        """GitHub was at ``head`` at that instant. Where that is what is stored, the branch is confirmed and well."""
        with self._db.write():
            self.saw(branch_id, head=head, at=at)
            self._db.execute(_CONFIRM, (instant_text(at), branch_id, head))

    def confirm_all(self, heads: Iterable[tuple[int, str]], *, at: datetime) -> None:
        """The same for many branches, each at the head that is stored of it."""
        with self._db.write():
            looks.confirm(self._db, heads, at=at)

    def saw(self, branch_id: int, *, head: str | None, at: datetime) -> None:
        """GitHub was at ``head`` (None: no such branch) at that instant; nothing is concluded from it."""
        with self._db.write():
            self._db.execute(
                "UPDATE branch SET remote_sha = ?, remote_read_at = ? WHERE id = ?", (head, instant_text(at), branch_id)
            )

    def mark_branch(
        self, branch_id: int, *, gone: bool = False, empty: bool = False, at: datetime, error: str | None
    ) -> None:
        """GitHub was asked and has no such branch, or no commit in it; without ``error`` the earlier one stays."""
        with self._db.write():
            self._db.execute(_MARK, (gone, empty, instant_text(at), optional_plain(error), branch_id))

    # -- webhook health ---------------------------------------------------------------------------

    def suspect(self, repository_id: int, *, branch: str, sha: str, at: datetime) -> None:
        """A poll found a head that no delivery announced yet. The first such head stays until it is settled."""
        with self._db.write():
            self._db.execute(_SUSPECT, (sha, branch, instant_text(at), repository_id, branch, sha))

    def settle_suspects(self, *, before: datetime, now: datetime) -> int:
        """Count every head found up to that instant, and not announced since, as a missed webhook; how many.

        One whose webhooks were thought to work is due at once: its next look was set for as long.
        So is GitHub's delivery log, where it could be read and has not told yet why.
        """
        with self._db.write():
            params = (WebhookHealth.MISSING.value, instant_text(now), instant_text(before))
            return self._db.execute(_MISSED, params).rowcount

    def set_health(self, repository_id: int, health: WebhookHealth) -> None:
        with self._db.write():
            self._update(repository_id, webhook=health.value)

    # -- for readers ------------------------------------------------------------------------------

    def records(self, *, after: str | None, limit: int) -> list[RepositoryRecord]:
        """Tracked repositories by lower-case full name, beyond ``after``."""
        with self._db.read():
            return records.repositories(self._db, tables.Repository.full_name > (after or "").lower(), limit)

    def every(self) -> Iterator[RepositoryRecord]:
        """Every tracked repository by lower-case full name, read a page at a time."""
        after = None
        while page := self.records(after=after, limit=_PAGE):
            yield from page
            after = page[-1].full_name

    def record(self, owner: str, name: str) -> RepositoryRecord | None:
        """One by its name, or by a name it had: tracked, or kept after another took its name; else None."""
        with self._db.read():
            found = self.by_name(owner, name)
            return None if found is None else records.repository(self._db, found)


def _tracked(row: Any) -> TrackedRepository:
    return TrackedRepository(
        id=row.id,
        github_id=row.github_id,
        owner=row.owner,
        name=row.name,
        default_branch=row.default_branch,
        branches=tuple(row.patterns),
        configured=row.configured_as or row.full_name,
    )
