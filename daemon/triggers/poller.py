"""The poller: asks GitHub for the heads of whatever is due, and bumps what differs.

It fetches no content. With a token a hundred repositories cost one GraphQL request; without, or when
GraphQL cannot be had, each branch costs one conditional request that answers 304 while nothing moved.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from daemon.clock import Clock
from daemon.config import PollingSettings
from daemon.errors import (
    Forbidden,
    GitHubError,
    GraphQLUnavailable,
    Outage,
    RateLimited,
    RepositoryNotFound,
    RepositoryReplaced,
    StoreUnavailable,
    Unauthorized,
)
from daemon.github.client import GitHubClient
from daemon.logs import get_logger
from daemon.model import (
    BranchFacts,
    HeadsQuery,
    PollTarget,
    RemoteRepository,
    RepositoryHeads,
    RepositoryState,
    Trigger,
)
from daemon.store.database import Database
from daemon.store.jobs import Jobs
from daemon.store.repositories import Repositories
from daemon.sync.patterns import branch_matches, is_glob
from daemon.triggers.schedule import grace_seconds, next_poll_at

log = get_logger()

IDENTITY_SECONDS = 3600.0  # how long a new name or default branch may go unseen while only REST can be asked
REST_ONLY_SECONDS = 300.0  # how long to ask by REST after GraphQL could not be used
SHORTEST_OUTAGE_WAIT_SECONDS = 1.0
LONGEST_OUTAGE_WAIT_SECONDS = 60.0
LONGEST_ROUND_SECONDS = 300.0


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
        self._rest_until = 0.0
        self._outages: dict[str, float] = {}  # by account, since when
        self._looked_at: set[int] = set()
        self._identified_at: dict[int | None, float] = {}
        self._stopping = threading.Event()

    def stop(self) -> None:
        """End after the batch under way."""
        self._stopping.set()

    def forget_graphql_outage(self) -> None:
        """Try GraphQL again at once (the token or the base changed)."""
        self._rest_until = 0.0

    def tick(self) -> None:
        """Look at everything that is due, a batch at a time, then settle which webhooks were missed."""
        batch_size = self._settings().batch_size
        while not self._stopping.is_set():
            targets = self._repositories.due(now=self._clock.now(), limit=batch_size)
            # What one installation of an App may not ask now keeps no other from being asked.
            asked = [self._round(group) for group in self._accounts(targets)]
            if not any(asked):
                break
        self._settle_suspects()

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
        """Ask about one batch; False when GitHub cannot be asked at all right now."""
        read_at = self._clock.now()
        seen: list[tuple[PollTarget, RepositoryHeads]] = []
        outage: GitHubError | None = None
        try:
            with self._client.background():
                for target, answer in self._answers(targets):
                    seen.append((target, answer))
        except (Outage, Unauthorized) as error:
            outage = error
        except GitHubError as error:
            seen += [(target, RepositoryHeads(None, error=error)) for target in targets[len(seen) :]]
        if seen:
            self._outages.pop(self._account(targets), None)
            self._record(seen, read_at)
        if outage is not None:
            self._put_off(targets[len(seen) :], outage)
        return outage is None

    def _answers(self, targets: Sequence[PollTarget]) -> Iterator[tuple[PollTarget, RepositoryHeads]]:
        """Each target with its answer, as they come: a limit may allow some of a batch and not the rest."""
        for target, answer in zip(targets, self._heads([target.query for target in targets]), strict=True):
            # Where branches are tracked by glob, one more request lists all branches of the repository.
            globbed = any(map(is_glob, target.patterns))
            yield target, self._with_all_branches(target, answer) if globbed else answer

    def _heads(self, queries: Sequence[HeadsQuery]) -> Iterable[RepositoryHeads]:
        if self._clock.monotonic() >= self._rest_until:
            try:
                return self._client.heads(queries)
            except GraphQLUnavailable as error:
                log.info("poll.by_rest", reason=str(error), seconds=REST_ONLY_SECONDS)
                self._rest_until = self._clock.monotonic() + REST_ONLY_SECONDS
        return map(self._client.heads_by_rest, map(self._rest_query, queries))

    def _rest_query(self, query: HeadsQuery) -> HeadsQuery:
        """By REST a head costs nothing and says nothing of the repository: now and then that is asked as well."""
        at = self._identified_at.get(query.repository.github_id)
        fresh = at is not None and self._clock.monotonic() - at < IDENTITY_SECONDS
        return query if fresh else replace(query, identify=True)

    def _with_all_branches(self, target: PollTarget, answer: RepositoryHeads) -> RepositoryHeads:
        if answer.error is not None:
            return answer
        try:
            every = self._client.branches(target.query.repository)
        except (RateLimited, Unauthorized):
            raise
        except GitHubError as error:
            return RepositoryHeads(answer.repository, error=error)
        matching = {name: sha for name, sha in every.items() if branch_matches(name, target.patterns)}
        absent = {branch.name: every.get(branch.name) for branch in target.branches}
        return RepositoryHeads(answer.repository, heads={**absent, **matching})

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

    def _record(self, seen: Sequence[tuple[PollTarget, RepositoryHeads]], read_at: datetime) -> None:
        found = learnt = False
        with self._database.write():
            for target, answer in seen:
                if answer.error is not None or (answer.repository or target.known) is None:
                    self._failed(target, answer.error)
                    continue
                try:
                    learnt = self._identify(target, answer.repository, read_at) or learnt
                except RepositoryReplaced as error:
                    self._failed(target, error)
                    continue
                moved = self._observe(target, answer, read_at)
                self._on_polled("changed" if moved else "unchanged")
                found = moved or found
        if learnt:
            self._on_identity()
        if found:
            self._on_found()

    def _failed(self, target: PollTarget, error: Exception | None) -> None:
        gone = isinstance(error, RepositoryNotFound | RepositoryReplaced)
        state = RepositoryState.GONE if gone else RepositoryState.BLOCKED if isinstance(error, Forbidden) else None
        self._on_polled("failed")
        name = target.query.repository.full_name
        message = str(error) if error is not None else f"GitHub did not answer about {name}"
        now = self._clock.now()
        again = next_poll_at(now, target.health, self._settings(), failures=target.failures + 1)
        log.warning("poll.repository_failed", repository=name, error=message)
        self._repositories.poll_failed(target.repository_id, at=now, error=message, state=state, next_poll_at=again)

    def _identify(self, target: PollTarget, remote: RemoteRepository | None, read_at: datetime) -> bool:
        if remote is None:
            return False  # asked by REST, where the identity is only read now and then
        self._identified_at[remote.github_id] = self._clock.monotonic()
        if remote == target.known:
            return False
        self._repositories.identify(target.repository_id, remote, now=read_at)
        return True

    def _observe(self, target: PollTarget, answer: RepositoryHeads, read_at: datetime) -> bool:
        first = target.repository_id not in self._looked_at
        self._looked_at.add(target.repository_id)
        for name in answer.heads:
            if any(map(is_glob, target.patterns)) and branch_matches(name, target.patterns):
                self._repositories.ensure_branch(target.repository_id, name)
        found = False
        for branch in self._repositories.branches(target.repository_id):
            if branch.name in answer.heads:
                found = self._compare(target, branch, answer.heads[branch.name], read_at, first=first) or found
            elif not branch.name:
                self._repositories.mark_branch(
                    branch.id, empty=True, at=read_at, error=f"{target.query.repository.full_name} has no commit yet"
                )
        now = self._clock.now()
        self._repositories.polled(
            target.repository_id, at=read_at, next_poll_at=next_poll_at(now, target.health, self._settings())
        )
        return found

    def _compare(
        self, target: PollTarget, branch: BranchFacts, head: str | None, read_at: datetime, *, first: bool
    ) -> bool:
        """Confirm a head that has not moved; else put the branch into the queue. True when it did."""
        if _read_since(branch, read_at):
            return False  # a sync has read the head after we did: what we saw is older news
        if head == branch.head_sha and head is not None and branch.rules_digest == self._rules_digest(target):
            self._repositories.confirm(branch.id, head=head, at=read_at)
            # GitHub answers again: what failed for as long as it did not would stay parked until the next push.
            return self._jobs.revive(branch.id, Trigger.POLL, now=self._clock.now())
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
        before = self._clock.now() - timedelta(seconds=grace_seconds(self._settings()))
        missed = self._repositories.settle_suspects(before=before)
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
