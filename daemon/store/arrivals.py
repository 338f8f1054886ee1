"""Deliveries on their way in: the hot path, one statement a delivery. Inside ``write``.

What belongs to a branch (its wish, the webhook health) is read once a transaction, changed in memory by each delivery
and written once by ``flush``: a thousand pushes to one branch cost a thousand inserts and one update.

``together`` with the deliveries of other daemons, a transaction changes deliveries and jobs and nothing else. The jobs
are locked before anything is written, in the order of their branches, so that nobody waits for somebody who waits for
him; one GUID at two daemons meets in the unique index. Whatever needs more, a new branch or a first sign that webhooks
work, is seldom, and raises NeedsTurn: it is done again alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from daemon.model import Delivery, DeliveryStatus, Topic, Trigger, WebhookHealth
from daemon.store import branches, owners, wishes
from daemon.store.database import Database
from daemon.store.fields import instant_text, optional_plain, plain
from daemon.store.wishes import Wish

# A delivery stored as ignored or skipped asked for nothing; the same one accepted later does.
_INSERT = """
    INSERT INTO delivery (guid, body_digest, event, action, repository, ref, "before", "after", received_at, status,
                          reason, repository_id, branch_id, generation)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (guid, body_digest) DO UPDATE SET attempts = delivery.attempts + 1
    RETURNING id, status, attempts
"""
_REVISE = """
    UPDATE delivery SET status = 'accepted', reason = NULL, event = ?, action = ?, repository = ?, ref = ?,
                        "before" = ?, "after" = ?, repository_id = ?, branch_id = ?, generation = ?
    WHERE id = ?
"""
_FACTS = """
    SELECT branch.remote_sha, repository.webhook = 'healthy', repository.webhook_reason IS NOT NULL,
           repository.suspect_sha
    FROM branch JOIN repository ON repository.id = branch.repository_id WHERE branch.id = ?
"""
_HEALTHY = "UPDATE repository SET webhook = ? WHERE id = ?"
_EXCUSED = "SELECT 1 FROM repository WHERE id = ? AND webhook_reason IS NOT NULL"
_ARRIVED = "UPDATE repository SET webhook_reason = NULL WHERE id = ? AND webhook_reason IS NOT NULL"
_ANNOUNCED = """
    UPDATE repository SET suspect_sha = NULL, suspect_branch = NULL, suspect_at = NULL WHERE id = ? AND suspect_sha = ?
"""


class NeedsTurn(Exception):
    """What a delivery changes cannot be written together with other daemons' deliveries."""


@dataclass(slots=True)
class _Target:
    """A branch that deliveries of this transaction are for."""

    wish: Wish
    repository_id: int
    remote_sha: str | None
    well: bool  # as it was before
    excused: bool  # it was told why no delivery would arrive
    suspect_sha: str | None
    calls: bool = False
    healthy: bool = False
    announced: bool = False

    def announce(self, after: str | None) -> None:
        """A delivery is known to arrive when it announces a head before a poll saw it, or soon after."""
        found = self._found(after)
        self.announced = self.announced or found
        self.healthy = self.healthy or found or after != self.remote_sha

    def learns(self, after: str | None) -> bool:
        """Whether that delivery would change what is known of the webhook."""
        return self.excused or self._found(after) or (not self.well and after != self.remote_sha)

    def _found(self, after: str | None) -> bool:
        return after is not None and after == self.suspect_sha


class Arrivals:
    """The deliveries of one transaction."""

    def __init__(self, db: Database, now: datetime, *, together: bool = False) -> None:
        self._db = db
        self._now = now
        self._together = together
        self._targets: dict[tuple[int, str], _Target] = {}
        self._looks: set[int] = set()
        self._heard_of: set[int] = set()
        self._owners: dict[str, bool] = {}

    def expect(self, deliveries: Sequence[Delivery]) -> None:
        """Lock the jobs that deliveries are for which are stored ``together``. Raises NeedsTurn."""
        keys: dict[tuple[int, str], int] = {}
        heads: list[tuple[tuple[int, str], str | None]] = []
        for delivery in deliveries:
            if delivery.hint_repository_id is not None or delivery.hint_owner is not None:
                raise NeedsTurn
            if delivery.status is DeliveryStatus.ACCEPTED:
                key = _key(delivery)
                heads.append((key, delivery.after))
                if key not in keys:
                    keys[key] = self._known_branch_id(*key)
        for key, branch_id in sorted(keys.items(), key=lambda item: item[1]):
            self._targets[key] = self._at(branch_id) or self._load(key[0], branch_id)
        if any(self._targets[key].learns(after) for key, after in heads):
            raise NeedsTurn
        others = {one.repository_id for one in deliveries if one.status is not DeliveryStatus.ACCEPTED} - {None}
        if any(self._db.execute(_EXCUSED, (id_,)).fetchone() for id_ in others):
            raise NeedsTurn

    def store(self, delivery: Delivery) -> DeliveryStatus:
        """Store one delivery; what became of it, were the transaction committed."""
        accepted = delivery.status is DeliveryStatus.ACCEPTED
        target = self._target(delivery) if accepted else None
        if delivery.repository_id is not None:
            self._heard_of.add(delivery.repository_id)
        row = _row(delivery, target)
        ((id_, status, attempts),) = self._db.execute(_INSERT, row).fetchall()
        if attempts > 1 and (status == DeliveryStatus.ACCEPTED or not accepted):
            return _repeated(status, delivery.status)
        if attempts > 1 and target is not None:
            self._db.execute(_REVISE, (*row[2:8], *row[11:], id_))
        if target is not None:
            before = target.wish.open_from
            target.wish.ask(Trigger.WEBHOOK, self._now)
            target.calls = target.calls or target.wish.opens_sooner(before)
            target.announce(delivery.after)
        if delivery.hint_repository_id is not None:
            self._looks.add(delivery.hint_repository_id)
        if delivery.hint_owner is not None:
            # An App that is installed, or let in again, ends the refusals that looks had been put off for.
            mends = delivery.event == "installation" or self._owners.get(delivery.hint_owner, False)
            self._owners[delivery.hint_owner] = mends
        return delivery.status

    def flush(self) -> None:
        """Write what the deliveries changed besides themselves."""
        for target in self._targets.values():
            wishes.save(self._db, target.wish)
            if target.calls:  # not for each push of a burst
                self._db.tell(Topic.JOB)
            if target.healthy and not target.well:
                self._db.execute(_HEALTHY, (WebhookHealth.HEALTHY.value, target.repository_id))
            if target.announced:
                self._db.execute(_ANNOUNCED, (target.repository_id, target.suspect_sha))
        if not self._together:
            # Whatever was said to keep deliveries away, here is one: a ping and a late one, too.
            self._db.executemany(_ARRIVED, [(id_,) for id_ in sorted(self._heard_of)])
        self._db.executemany(
            "UPDATE repository SET next_poll_at = NULL, hinted = TRUE WHERE id = ?",
            [(id_,) for id_ in sorted(self._looks)],
        )
        for key, mends in self._owners.items():
            owners.hint(self._db, key, self._now, mends=mends)

    def _target(self, delivery: Delivery) -> _Target:
        key = _key(delivery)
        if key not in self._targets:
            branch_id = self._branch_id(*key)
            self._targets[key] = self._at(branch_id) or self._load(key[0], branch_id)
        return self._targets[key]

    def _at(self, branch_id: int) -> _Target | None:
        return next((known for known in self._targets.values() if known.wish.branch_id == branch_id), None)

    def _load(self, repository_id: int, branch_id: int) -> _Target:
        wish = wishes.load(self._db, branch_id, self._now, lock=self._together)
        remote_sha, well, excused, suspect_sha = self._db.execute(_FACTS, (branch_id,)).fetchone()
        return _Target(wish, repository_id, remote_sha, bool(well), bool(excused), suspect_sha)

    def _branch_id(self, repository_id: int, name: str) -> int:
        """The branch a push is for: while the default branch is unknown, any push may be for it."""
        default_branch, named = self._repository(repository_id, name)
        if named:
            return branches.ensure(self._db, repository_id, name)
        default = branches.default_id(self._db, repository_id)
        return (
            branches.settle_default(self._db, repository_id, default_branch or "", now=self._now)
            if default is None
            else default
        )

    def _known_branch_id(self, repository_id: int, name: str) -> int:
        """The same where it is there already. Raises NeedsTurn."""
        _, named = self._repository(repository_id, name)
        known = branches.find(self._db, repository_id, name) if named else None
        if known is None:
            raise NeedsTurn
        return known

    def _repository(self, repository_id: int, name: str) -> tuple[str | None, bool]:
        """Its default branch, and whether a push to ``name`` is for the branch of that name."""
        row = self._db.execute(
            "SELECT default_branch, patterns FROM repository WHERE id = ?", (repository_id,)
        ).fetchone()
        if row is None:
            raise LookupError(f"there is no repository {repository_id}")
        return row[0], bool(name and (row[0] is not None or json.loads(row[1])))


def _key(delivery: Delivery) -> tuple[int, str]:
    """The repository and the branch of an accepted delivery."""
    if delivery.repository_id is None:
        raise ValueError(f"delivery {delivery.guid} is accepted for no repository")
    return delivery.repository_id, delivery.branch or ""


def _row(delivery: Delivery, target: _Target | None) -> tuple[object, ...]:
    """The parameters of ``_INSERT``; the generation is the one that asking will give."""
    key = (optional_plain(delivery.guid), delivery.body_digest, plain(delivery.event), optional_plain(delivery.action))
    push = (delivery.repository, delivery.ref, delivery.before, delivery.after)
    outcome = (instant_text(delivery.received_at), delivery.status.value, optional_plain(delivery.reason))
    branch = (target.wish.branch_id, target.wish.wanted + 1) if target else (None, None)
    return (*key, *map(optional_plain, push), *outcome, delivery.repository_id, *branch)


def _repeated(stored: str, given: DeliveryStatus) -> DeliveryStatus:
    """An event that is ignored again is answered as it was; whatever asked for something is a duplicate."""
    ignored = stored == given == DeliveryStatus.IGNORED
    return given if ignored else DeliveryStatus.DUPLICATE
