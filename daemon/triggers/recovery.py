"""Recovery: reads GitHub's log of what it delivered, and looks where a push was announced in vain.

Nothing is ever sent twice by GitHub on its own, so a delivery that failed stays failed. Polling would find the change
as well: this finds it sooner where webhooks are thought to work, and tells why they do not.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from daemon.clock import Clock
from daemon.errors import (
    Forbidden,
    GitHubError,
    RateLimited,
    RepositoryNotFound,
    StoreUnavailable,
    Unauthorized,
    Unreachable,
)
from daemon.github.client import GitHubClient
from daemon.github.hooks import (
    Attempts,
    HookPlace,
    LoggedDelivery,
    PlacedHook,
    by_guid,
    leads_to,
    of_organisation,
    of_repository,
)
from daemon.logs import get_logger
from daemon.model import BranchFacts, Trigger
from daemon.store.hooklog import HookLog, LogTarget
from daemon.store.jobs import Jobs
from daemon.store.repositories import Repositories

log = get_logger()

# One repository a round, two or three requests as a rule: that spreads them over the hour and bounds them.
# Beyond 450 repositories each is read less often than hourly, whoever waits longest first.
# A few more where somebody waits to be told: a hundred new repositories are through in three minutes.
ROUND_SECONDS = 8.0
MOST_A_ROUND = 5
INTERVAL_SECONDS = 3600.0
REFUSED_SECONDS = 86400.0
PAUSE_SECONDS = 300.0  # after GitHub could not be asked at all
# GitHub waits ten seconds for an answer: what is younger may not have ended, or not be in the log yet.
SETTLED_SECONDS = 20.0
MOST_PAGES = 5
MOST_LOOKED_UP = 5  # pushes whose ref is asked for, where several branches are tracked

NO_HOOK = "no webhook of the repository leads to webhook.public_url: `headwater hooks install` makes one"
SWITCHED_OFF = "the webhook is switched off on GitHub: `headwater hooks install` switches it on"
NOT_HERE = "delivered (OK), but it did not arrive here: does webhook.public_url lead to this daemon?"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a log tells: the pushes that were missed, why the newest delivery is not here, and what is too fresh."""

    missed: tuple[LoggedDelivery, ...]
    reason: str | None
    unsettled: bool


def judge(
    attempts: Sequence[Attempts], arrived: Collection[str], *, since: datetime | None, until: datetime
) -> Verdict:
    """Judge deliveries (newest first) of which ``arrived`` are stored here.

    Those first sent after ``since`` count; without it none does, since nobody knows what came before. A failure
    younger than ``until`` is left for the next time.
    """
    settled = [one for one in attempts if one.newest.delivered_at <= until]
    absent = [one for one in settled if one.guid not in arrived]
    missed = [
        one.newest
        for one in absent
        if one.newest.event == "push" and since is not None and one.first and one.first.delivered_at > since
    ]
    fresh = [one for one in attempts if one.newest.delivered_at > until]
    newest = settled[0] if settled else None
    failed = newest is not None and newest in absent and (not newest.newest.ok or newest.newest in missed)
    mended = any(one.newest.ok and one.guid in arrived for one in fresh)
    unsettled = any(not one.newest.ok for one in fresh)
    return Verdict(tuple(missed), _reason(newest) if newest and failed and not mended else None, unsettled)


def _reason(attempts: Attempts) -> str:
    return NOT_HERE if attempts.newest.ok else attempts.newest.status or "GitHub does not say why"


class Recovery:
    """Reads one log a call, some more where somebody waits; called by the scheduler, one call at a time.

    ``url`` is where our hooks lead, None when nobody has told; ``interval_seconds`` how long a change may go unseen
    without webhooks. ``on_found`` is called when a branch was put into the queue, ``on_missed`` with the number of
    webhooks found missing.
    """

    def __init__(
        self,
        hook_log: HookLog,
        repositories: Repositories,
        jobs: Jobs,
        client: GitHubClient,
        *,
        clock: Clock,
        url: Callable[[], str | None],
        interval_seconds: Callable[[], float],
        on_found: Callable[[], None],
        on_missed: Callable[[int], None],
    ) -> None:
        self._hook_log = hook_log
        self._repositories = repositories
        self._jobs = jobs
        self._client = client
        self._clock = clock
        self._url = url
        self._interval_seconds = interval_seconds
        self._on_found = on_found
        self._on_missed = on_missed
        self._paused_until = 0.0
        self._forgetting = False
        self._closed_until: dict[str, float] = {}  # owners whose hooks the token may not see

    def forget_refusals(self) -> None:
        """Have the next call ask within the hour where the token might not look: it may be another one now."""
        self._forgetting = True

    def _forget(self) -> None:
        self._paused_until = 0.0
        self._closed_until.clear()
        self._hook_log.sooner(due_at=self._clock.now() + timedelta(seconds=INTERVAL_SECONDS))
        self._forgetting = False

    def tick(self) -> None:
        """Read the logs of those that wait, or the one that has been due for longest."""
        if self._forgetting:
            self._forget()
        url = self._url()
        if url is None:
            return
        for _ in range(MOST_A_ROUND):
            target = self._take()
            if target is None:
                return
            with self._client.background():
                self._try(target, url)
            if not target.waits:
                return

    def _take(self) -> LogTarget | None:
        """The next one, unless GitHub cannot be asked."""
        if self._clock.monotonic() < self._paused_until:
            return None
        try:
            permitted = self._client.hooks.permitted()
        except Unauthorized as error:
            self._pause(error)
            return None
        return self._hook_log.take(now=self._clock.now(), lease_seconds=PAUSE_SECONDS) if permitted else None

    def _try(self, target: LogTarget, url: str) -> None:
        try:
            self._look(target, url)
        except Unreachable as error:
            self._pause(error)
        except GitHubError as error:
            due = self._again_at(error)
            self._hook_log.later(target, due_at=due)
            name = target.repository.full_name
            log.info("hook_log.unreadable", repository=name, error=str(error), until=due.isoformat())

    def _again_at(self, error: GitHubError) -> datetime:
        """When to ask again about this one repository: the next may be of an owner who is asked with another token."""
        if isinstance(error, RateLimited):
            return error.until
        seconds = INTERVAL_SECONDS
        if isinstance(error, Unauthorized):
            seconds = PAUSE_SECONDS
        elif isinstance(error, Forbidden | RepositoryNotFound):
            seconds = REFUSED_SECONDS
        return self._clock.now() + timedelta(seconds=seconds)

    def _pause(self, error: GitHubError) -> None:
        self._paused_until = self._clock.monotonic() + PAUSE_SECONDS
        log.info("hook_log.paused", error=str(error), seconds=PAUSE_SECONDS)

    # -- one repository ---------------------------------------------------------------------------

    def _look(self, target: LogTarget, url: str) -> None:
        until = self._clock.now() - timedelta(seconds=SETTLED_SECONDS)
        placed = self._find(target, url)
        if placed is None or not placed.hook.active:
            due = self._clock.now() + timedelta(seconds=INTERVAL_SECONDS)
            reason = SWITCHED_OFF if placed else NO_HOOK
            if self._hook_log.unhooked(target, due_at=due, reason=reason):
                self._look_in_time(target)
            return
        attempts = by_guid(self._deliveries(target, placed))
        arrived = self._hook_log.arrived([one.guid for one in attempts])
        verdict = judge(attempts, arrived, since=target.until, until=until)
        if verdict.missed:
            self._recover(target, self._announced(target, placed, verdict.missed), verdict)
        self._conclude(target, verdict, until=until)

    def _find(self, target: LogTarget, url: str) -> PlacedHook | None:
        """The hook that leads here: the repository's own, else its organisation's."""
        owner = target.repository.owner
        own = self._ours(of_repository(target.repository), url)
        if own is not None or self._clock.monotonic() < self._closed_until.get(owner, 0.0):
            return own
        try:
            return self._ours(of_organisation(owner), url)
        except Forbidden:  # also when it is a user's account, which has no hooks
            self._closed_until[owner] = self._clock.monotonic() + REFUSED_SECONDS
            return None

    def _ours(self, place: HookPlace, url: str) -> PlacedHook | None:
        """The hook that leads here; an active one when there are several."""
        ours = [hook for hook in self._client.hooks.at(place) if leads_to(hook, url)]
        return PlacedHook(place, min(ours, key=lambda hook: not hook.active)) if ours else None

    def _deliveries(self, target: LogTarget, placed: PlacedHook) -> list[LoggedDelivery]:
        """What was sent for this repository: an organisation's log has that of all."""
        pages = 1 if target.until is None else MOST_PAGES
        sent = self._client.hooks.deliveries(placed.place, placed.hook.id, since=target.until, pages=pages)
        own = {None, target.repository.github_id}
        return [one for one in sent if one.repository_id in own] if placed.place.of_all else sent

    def _announced(self, target: LogTarget, placed: PlacedHook, missed: Sequence[LoggedDelivery]) -> list[BranchFacts]:
        """The tracked branches that were pushed to, all of them where asking would cost too much."""
        branches = self._repositories.branches(target.repository_id)
        if len(branches) <= 1 or len(missed) > MOST_LOOKED_UP:
            return branches
        refs = {self._client.hooks.ref(placed.place, placed.hook.id, delivery.id) for delivery in missed}
        return [branch for branch in branches if f"refs/heads/{branch.name}" in refs]

    def _recover(self, target: LogTarget, branches: Sequence[BranchFacts], verdict: Verdict) -> None:
        name, count, words = target.repository.full_name, len(verdict.missed), verdict.missed[0].status
        log.warning("webhook.failed", repository=name, count=count, github=words)
        if self._jobs.want([branch.id for branch in branches], Trigger.RECOVERY, now=self._clock.now()):
            self._on_found()
        self._look_in_time(target)

    def _look_in_time(self, target: LogTarget) -> None:
        """Its next poll was set for as long as webhooks were thought to work."""
        at = self._clock.now() + timedelta(seconds=self._interval_seconds())
        self._repositories.look_by(target.repository_id, at=at)

    def _conclude(self, target: LogTarget, verdict: Verdict, *, until: datetime) -> None:
        seconds = SETTLED_SECONDS if verdict.unsettled else INTERVAL_SECONDS
        news = self._hook_log.read(
            target,
            until=until,
            due_at=self._clock.now() + timedelta(seconds=seconds),
            missed=len(verdict.missed),
            reason=verdict.reason,
        )
        if news:
            self._on_missed(news)


def recover_safely(recovery: Recovery) -> None:
    """One call as the scheduler makes it: whatever goes wrong, the next one comes."""
    try:
        recovery.tick()
    except StoreUnavailable as error:
        log.warning("hook_log.store_unavailable", error=str(error))
    except Exception as error:
        log.error("hook_log.unexpected_error", exc_info=error)
