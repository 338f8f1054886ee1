"""Discovery: what an `owner/*` of the configuration stands for, found by asking GitHub for the owner's list.

At the start, every hour, and soon after a delivery hinted at a change. A list that is not complete changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta

from daemon.clock import Clock
from daemon.config import RepositoryRule
from daemon.errors import GitHubError, Outage, RateLimited, StoreUnavailable, Unauthorized
from daemon.github.client import GitHubClient
from daemon.globs import matches_repository
from daemon.logs import get_logger
from daemon.model import ListedRepository, OwnerRecord, TrackedOwner
from daemon.store.owners import Owners

log = get_logger()

LOOK_SECONDS = 3600.0
AGAIN_SECONDS = 60.0  # after a look that a delivery asked for: GitHub's lists may lag behind its deliveries
FIRST_FAILURE_SECONDS = 15.0
LONGEST_OUTAGE_WAIT_SECONDS = 60.0


class Discovery:
    """Looks at the lists that are due; one call at a time. ``on_change`` is called when something was found or lost."""

    def __init__(
        self,
        owners: Owners,
        client: GitHubClient,
        *,
        clock: Clock,
        rules: Callable[[], Sequence[RepositoryRule]],
        on_change: Callable[[], None],
    ) -> None:
        self._owners = owners
        self._client = client
        self._clock = clock
        self._rules = rules
        self._on_change = on_change
        self._passed_over: dict[str, frozenset[int]] = {}

    def tracked_owners(self) -> list[TrackedOwner]:
        """What intake needs to know of each ``owner/*``."""
        return [
            TrackedOwner(rule.owner, rule.exclude_repositories, self._passed_over.get(key, frozenset()))
            for key, rule in self._patterns().items()
        ]

    def tick(self) -> None:
        """Look at every list that is due. Raises StoreUnavailable."""
        patterns = self._patterns()
        if not patterns:
            return
        for target in self._owners.due(self._clock.now()):
            if rule := patterns.get(target.configured_as):
                self._look(target, rule)

    def _patterns(self) -> dict[str, RepositoryRule]:
        return {rule.full_name.lower(): rule for rule in self._rules() if rule.is_pattern}

    def _look(self, target: OwnerRecord, rule: RepositoryRule) -> None:
        began = self._clock.now()
        try:
            with self._client.background():
                listed = self._client.repositories_of(rule.owner)
        except GitHubError as error:
            self._failed(target, error)
            return
        current = self._patterns().get(target.configured_as)
        if current is None:
            return
        rule = current  # a long list takes a while, and what a reload says meanwhile counts
        chosen = [one for one in listed if takes(rule, one)]
        passed_over = frozenset(one.github_id for one in listed) - {one.github_id for one in chosen}
        taken = self._owners.take(rule, chosen, listed, now=self._clock.now())
        self._owners.looked(
            target.configured_as,
            at=began,
            hinted_since=began - timedelta(seconds=AGAIN_SECONDS / 2),
            ended=self._clock.now(),
            again_at=began + timedelta(seconds=AGAIN_SECONDS),
            next_at=began + timedelta(seconds=LOOK_SECONDS),
        )
        counts = {"new": taken.new, "gone": taken.gone, "dropped": taken.dropped}
        log.info("discovery.looked", owner=rule.full_name, listed=len(listed), chosen=len(chosen), **counts)
        if any(counts.values()) or passed_over != self._passed_over.get(target.configured_as):
            self._passed_over[target.configured_as] = passed_over
            self._on_change()

    def _failed(self, target: OwnerRecord, error: GitHubError) -> None:
        again = self._again_at(target, error)
        log.warning("discovery.failed", owner=target.configured_as, error=str(error), until=again.isoformat())
        self._owners.failed(target.configured_as, error=str(error), next_at=again)

    def _again_at(self, target: OwnerRecord, error: GitHubError) -> datetime:
        if isinstance(error, RateLimited):
            return error.until
        longest = LONGEST_OUTAGE_WAIT_SECONDS if isinstance(error, Outage | Unauthorized) else LOOK_SECONDS
        seconds = min(FIRST_FAILURE_SECONDS * 2.0 ** min(target.failures, 16), longest)
        return self._clock.now() + timedelta(seconds=seconds)


def takes(rule: RepositoryRule, one: ListedRepository) -> bool:
    """Whether the rule's filters let a listed repository in."""
    if rule.exclude_repositories and matches_repository(one.full_name, rule.exclude_repositories):
        return False
    topics = {topic.lower() for topic in rule.topics}
    has_topic = not topics or not topics.isdisjoint(one.topics)
    return has_topic and (rule.archived or not one.archived) and (rule.forks or not one.fork)


def names_left_out(rules: Iterable[RepositoryRule], full_name: str) -> bool:
    """Whether no rule, by its name or its ``owner/*``, can be for a repository of this name.

    What another repository took the name of goes on as ``name~github_id``, under the same rule.
    """
    name = full_name.lower().partition("~")[0]
    return not any(_may_be_for(rule, name) for rule in rules)


def _may_be_for(rule: RepositoryRule, name: str) -> bool:
    if not rule.is_pattern:
        return rule.full_name.lower() == name
    excluded = rule.exclude_repositories and matches_repository(name, rule.exclude_repositories)
    return name.startswith(f"{rule.owner}/".lower()) and not excluded


def discover_safely(discovery: Discovery) -> None:
    """One tick as the scheduler calls it: whatever goes wrong, the next tick comes."""
    try:
        discovery.tick()
    except StoreUnavailable as error:
        log.warning("discovery.store_unavailable", error=str(error))
    except Exception as error:
        log.error("discovery.unexpected_error", exc_info=error)
