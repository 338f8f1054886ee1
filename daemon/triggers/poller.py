"""The poller: asks GitHub for the heads of whatever is due, and bumps what differs.

It fetches no content. With a token a hundred repositories cost one GraphQL request; without, or when
GraphQL cannot be had, each branch costs one conditional request that answers 304 while nothing moved.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from daemon.clock import Clock
from daemon.config import PollingSettings
from daemon.errors import (
    Forbidden,
    GitHubError,
    Outage,
    Paced,
    RateLimited,
    RepositoryNotFound,
    RepositoryRecreated,
    RepositoryReplaced,
    StoreUnavailable,
    Unauthorized,
)
from daemon.github.client import GitHubClient
from daemon.github.governor import CORE, GRAPHQL
from daemon.github.queries import MAX_REPOSITORIES
from daemon.logs import get_logger
from daemon.model import (
    BranchFacts,
    PollTarget,
    RepositoryHeads,
    RepositoryState,
    Trigger,
)
from daemon.store.database import Database
from daemon.store.jobs import Jobs
from daemon.store.repositories import Repositories
from daemon.triggers.heads import Heads, Seen
from daemon.triggers.schedule import (
    ahead_seconds,
    calm_requests,
    grace_seconds,
    is_pressing,
    next_poll_at,
    retry_at,
    turn_seconds,
)

log = get_logger()

SHORTEST_OUTAGE_WAIT_SECONDS = 1.0
LONGEST_OUTAGE_WAIT_SECONDS = 60.0
LONGEST_ROUND_SECONDS = 300.0


@dataclass(slots=True)
class _Round:
    """What the looks of one batch came to, written together at its end."""

    read_at: datetime
    confirmed: list[tuple[int, str]] = field(default_factory=list)  # branch, head
    looked: list[tuple[PollTarget, bool]] = field(default_factory=list)  # whether its head has moved
    found: bool = False


class Poller:
    """Looks at due repositories; called by the scheduler, one call at a time.

    ``on_found`` is called when a branch was put into the queue, ``on_missed`` with the number of webhooks found
    missing, ``on_polled`` with what each look found (``changed``, ``unchanged``, ``failed``), ``on_identity``
    when a repository's name or default branch was learnt.
    """

    def __init__(
        self,
        database: Database,
        repositories: Repositories,
        jobs: Jobs,
        client: GitHubClient,
        *,
        clock: Clock,
        settings: Callable[[], PollingSettings],
        rules_digest: Callable[[PollTarget], str],
        on_found: Callable[[], None],
        on_missed: Callable[[int], None] = lambda _count: None,
        on_polled: Callable[[str], None] = lambda _outcome: None,
        on_identity: Callable[[], None] = lambda: None,
    ) -> None:
        self._database = database
        self._repositories = repositories
        self._jobs = jobs
        self._client = client
        self._clock = clock
        self._settings = settings
        self._rules_digest = rules_digest
        self._on_found = on_found
        self._on_missed = on_missed
        self._on_polled = on_polled
        self._on_identity = on_identity
        self._heads = Heads(client, clock=clock)
        self._outages: dict[str, float] = {}  # by account, since when
        self._looked_at: set[int] = set()
        self._stopping = threading.Event()

    @property
    def by_rest(self) -> bool:
        """Whether each branch costs a request of its own at the moment."""
        return self._heads.by_rest

    def stop(self) -> None:
        """End after the batch under way."""
        self._stopping.set()

    def forget_graphql_outage(self) -> None:
        """Ask again at once, by GraphQL if it can be had: the token or the base has changed."""
        self._heads.forget_graphql_outage()

    def tick(self) -> None:
        """Look at everything that is due, a batch at a time, then settle which webhooks were missed."""
        requests = 0
        while not self._stopping.is_set():
            targets = self._due()
            if not targets or self._may_wait(targets, requests):
                break
            targets = self._taken(targets)
            # What one installation of an App may not ask now keeps no other from being asked.
            asked = [self._round(group) for group in self._accounts(targets)]
            if not any(asked):
                break
            requests += 1
        self._settle_suspects()

    def _due(self) -> list[PollTarget]:
        """Who is due, and with them who will be soon, where that costs no request of its own."""
        settings = self._settings()
        ahead = 0.0 if self._heads.by_rest else ahead_seconds(settings)
        return self._repositories.due(now=self._clock.now(), limit=self._batch_size(), ahead_seconds=ahead)

    def _taken(self, targets: Sequence[PollTarget]) -> list[PollTarget]:
        """Those that are for this daemon, of all that share the store."""
        now = self._clock.now()
        return self._repositories.take(targets, until=now + timedelta(seconds=turn_seconds(self._settings())), now=now)

    def _batch_size(self) -> int:
        return min(self._settings().batch_size, MAX_REPOSITORIES)

    def _may_wait(self, targets: Sequence[PollTarget], requests: int) -> bool:
        """Whether this tick has asked enough: looks that met by chance go apart again."""
        settings, now = self._settings(), self._clock.now()
        if requests < calm_requests(self._repositories.count(), self._batch_size()):
            return False
        return not any(is_pressing(now, target, settings) for target in targets)

    # -- one batch --------------------------------------------------------------------------------

    def _accounts(self, targets: Sequence[PollTarget]) -> Iterable[list[PollTarget]]:
        """The targets in groups that are asked about with one credential."""
        groups: dict[str, list[PollTarget]] = {}
        for target in targets:
            groups.setdefault(self._account([target]), []).append(target)
        return groups.values()

    def _account(self, targets: Sequence[PollTarget]) -> str:
        return self._client.account_of(targets[0].query.repository)

    def _round(self, targets: Sequence[PollTarget]) -> bool:
        """Ask about one batch; False when GitHub cannot be asked, or must not be, right now."""
        read_at = self._clock.now()
        seen: list[Seen] = []
        outage: GitHubError | None = None
        try:
            with self._client.background():
                for target, answer in self._heads.read(targets):
                    seen.append((target, answer))
        except (Outage, Unauthorized) as error:
            outage = error
        except GitHubError as error:
            seen += [(target, RepositoryHeads(None, error=error)) for target in targets[len(seen) :]]
        if seen:
            self._outages.pop(self._account(targets), None)
            self._record(seen, read_at)
        if isinstance(outage, Paced):
            log.debug("poll.paced", repositories=len(targets) - len(seen), until=outage.until.isoformat())
            self._repositories.postpone([target.repository_id for target in targets[len(seen) :]], until=outage.until)
        elif outage is not None:
            self._put_off(targets[len(seen) :], outage)
        return outage is None

    def _put_off(self, targets: Sequence[PollTarget], error: GitHubError) -> None:
        """GitHub cannot be asked: nobody's fault, so nobody backs off longer than the outage."""
        now = self._clock.now()
        started = self._outages.setdefault(self._account(targets), self._clock.monotonic())
        lasted = self._clock.monotonic() - started
        wait = min(max(lasted / 2, SHORTEST_OUTAGE_WAIT_SECONDS), LONGEST_OUTAGE_WAIT_SECONDS)
        again = error.until if isinstance(error, RateLimited) else now + timedelta(seconds=wait)
        log.warning("poll.put_off", repositories=len(targets), error=str(error), until=again.isoformat())
        with self._database.write():
            for target in targets:
                self._repositories.poll_failed(
                    target.repository_id, at=now, error=str(error), state=None, next_poll_at=again, count=False
                )

    # -- what was seen ----------------------------------------------------------------------------

    def _record(self, seen: Sequence[Seen], read_at: datetime) -> None:
        found = learnt = False
        with self._database.write():
            round_ = _Round(read_at)
            facts = self._repositories.branches_of([target.repository_id for target, _ in seen])
            for target, answer in seen:
                if isinstance(answer.error, RepositoryRecreated):
                    learnt = self._begin_anew(target, answer.error)
                    continue
                if answer.error is not None or (answer.repository or target.known) is None:
                    self._failed(target, answer.error)
                    continue
                try:
                    new = self._identify(target, answer, read_at)
                except RepositoryReplaced as error:
                    self._failed(target, error)
                    continue
                anew = self._ensure_branches(target, answer) or new
                own = self._repositories.branches(target.repository_id) if anew else facts.get(target.repository_id, [])
                same = answer.repository in (None, target.known)
                current = target if same else replace(target, known=answer.repository)
                self._observe(current, answer, own, round_)
                learnt = learnt or new
            found = self._conclude(round_)
        if learnt:
            self._on_identity()
        if found:
            self._on_found()

    def _conclude(self, round_: _Round) -> bool:
        """Write what most looks of a round end with, all at once. True when something came into the queue."""
        settings, now = self._settings(), self._clock.now()
        resource = CORE if self._heads.by_rest else GRAPHQL
        spare = bool(round_.looked) and self._client.has_spare(resource, round_.looked[0][0].query.repository)
        requests = self._repositories.count()
        if not self._heads.by_rest:
            requests = math.ceil(requests / self._batch_size())
        again = {
            target.repository_id: next_poll_at(now, target, settings, requests=requests, changed=moved, spare=spare)
            for target, moved in round_.looked
        }
        self._repositories.confirm_all(round_.confirmed, at=round_.read_at)
        hinted = {target.repository_id for target, _ in round_.looked if target.query.identify}
        self._repositories.polled(again, at=round_.read_at, hinted=hinted)
        # GitHub answers again: what failed for as long as it did not would stay parked until the next push.
        revived = self._jobs.revive([branch_id for branch_id, _ in round_.confirmed], Trigger.POLL, now=now)
        return round_.found or revived

    def _failed(self, target: PollTarget, error: Exception | None) -> None:
        gone = isinstance(error, RepositoryNotFound | RepositoryReplaced)
        state = RepositoryState.GONE if gone else RepositoryState.BLOCKED if isinstance(error, Forbidden) else None
        self._on_polled("failed")
        name = target.query.repository.full_name
        message = str(error) if error is not None else f"GitHub did not answer about {name}"
        now = self._clock.now()
        # What ends in a 5xx does so no longer than GitHub's trouble lasts: it is not put off without end.
        failures = min(target.failures + 1, 2) if isinstance(error, Outage) else target.failures + 1
        again = retry_at(now, target, self._settings(), failures=failures)
        log.warning("poll.repository_failed", repository=name, error=message)
        self._repositories.poll_failed(target.repository_id, at=now, error=message, state=state, next_poll_at=again)

    def _begin_anew(self, target: PollTarget, error: RepositoryRecreated) -> bool:
        self._on_polled("changed")
        log.warning("poll.repository_replaced", repository=target.query.repository.full_name, reason=str(error))
        self._repositories.replace(target.repository_id, now=self._clock.now())
        return True

    def _identify(self, target: PollTarget, answer: RepositoryHeads, read_at: datetime) -> bool:
        remote = answer.repository
        if remote is None:
            return False  # asked by REST, where the identity is only read now and then
        self._heads.identified(remote)
        if remote == target.known:
            return False
        self._repositories.identify(target.repository_id, remote, heads=answer.heads, now=read_at)
        return True

    def _ensure_branches(self, target: PollTarget, answer: RepositoryHeads) -> bool:
        """Track what matches a glob from the look that finds it; whether any is new."""
        known = {branch.name for branch in target.branches}
        new = [name for name, sha in answer.heads.items() if answer.complete and sha and name not in known]
        for name in new:
            self._repositories.ensure_branch(target.repository_id, name)
        return bool(new)

    def _observe(
        self, target: PollTarget, answer: RepositoryHeads, branches: Sequence[BranchFacts], round_: _Round
    ) -> None:
        first = target.repository_id not in self._looked_at
        self._looked_at.add(target.repository_id)
        moved = changed = False
        for branch in branches:
            if branch.name in answer.heads:
                head = answer.heads[branch.name]
                wanted = self._compare(target, branch, head, round_, first=first)
                moved = moved or wanted
                changed = changed or (None not in {head, branch.head_sha} and head != branch.head_sha)
            elif not branch.name:
                self._repositories.mark_branch(
                    branch.id,
                    empty=True,
                    at=round_.read_at,
                    error=f"{target.query.repository.full_name} has no commit yet",
                )
        self._on_polled("changed" if moved else "unchanged")
        round_.found = round_.found or moved
        round_.looked.append((target, changed))

    def _compare(
        self, target: PollTarget, branch: BranchFacts, head: str | None, round_: _Round, *, first: bool
    ) -> bool:
        """Confirm a head that has not moved; else put the branch into the queue. True when it did."""
        read_at = round_.read_at
        if _read_since(branch, read_at):
            return False  # a sync has read the head after we did: what we saw is older news
        if head == branch.head_sha and head is not None and branch.rules_digest == self._rules_digest(target):
            round_.confirmed.append((branch.id, head))
            return False
        if head is None and (branch.gone or branch.empty):
            self._repositories.mark_branch(branch.id, gone=branch.gone, empty=branch.empty, at=read_at, error=None)
            return False
        self._repositories.saw(branch.id, head=head, at=read_at)
        if head and branch.head_sha and head != branch.head_sha:
            self._repositories.suspect(target.repository_id, branch=branch.name, sha=head, at=read_at)
        return self._jobs.want([branch.id], Trigger.STARTUP if first else Trigger.POLL, now=self._clock.now())

    # -- webhook health ---------------------------------------------------------------------------

    def _settle_suspects(self) -> None:
        """A head that polling found and no delivery announced within the grace time was a missed webhook."""
        now = self._clock.now()
        before = now - timedelta(seconds=grace_seconds(self._settings()))
        missed = self._repositories.settle_suspects(before=before, now=now)
        if missed:
            self._on_missed(missed)
            log.warning("webhook.missed", count=missed)


def _read_since(branch: BranchFacts, read_at: datetime) -> bool:
    """Whether the head was read after ``read_at``; far after it means that the wall clock has jumped back."""
    at = branch.remote_read_at
    return at is not None and timedelta() < at - read_at < timedelta(seconds=LONGEST_ROUND_SECONDS)


def poll_safely(poller: Poller) -> None:
    """One tick as the scheduler calls it: whatever goes wrong, the next tick comes."""
    try:
        poller.tick()
    except StoreUnavailable as error:
        log.warning("poll.store_unavailable", error=str(error))
    except Exception as error:
        log.error("poll.unexpected_error", exc_info=error)
