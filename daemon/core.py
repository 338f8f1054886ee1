"""Store, GitHub client and routine, joined: what a sync needs, with or without a daemon around it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import asdict

from daemon.appkey import PrivateKey
from daemon.clock import Clock
from daemon.config import Config, GitHubSettings
from daemon.errors import StoreError, StoreUnavailable
from daemon.github.apps import AppSettings
from daemon.github.client import GitHubClient
from daemon.github.exchange import ClientSettings
from daemon.github.governor import Governor
from daemon.logs import get_logger
from daemon.metrics import Metrics
from daemon.model import Collection, ContentRules, RepositoryRef, TrackedRepository
from daemon.node import Node
from daemon.store.actions import Actions
from daemon.store.budgets import Budgets
from daemon.store.entities import Entities
from daemon.store.feed import Feed
from daemon.store.history import History
from daemon.store.jobs import Jobs
from daemon.store.opening import open_store
from daemon.store.owners import Owners
from daemon.store.pruning import Pruning
from daemon.store.repositories import Repositories
from daemon.store.search import Search
from daemon.store.snapshots import Snapshots
from daemon.sync.entities import Collections
from daemon.sync.harvest import Harvest
from daemon.sync.patterns import rules as content_rules
from daemon.sync.routine import Routine
from daemon.triggers.discovery import Discovery
from daemon.triggers.intake import TrackingView

log = get_logger()


class Core:
    """Everything below the daemon, built from a configuration; ``close`` releases the store's lock."""

    def __init__(self, config: Config, *, clock: Clock, metrics: Metrics) -> None:
        self.config = config
        self.metrics = metrics
        self.database = open_store(config.storage, clock=clock, on_statement=metrics.statement_seen)
        self.clock = clock = self.database.shared_clock()
        self.node = Node(self.database, clock=clock, config=lambda: self.config)
        self.repositories = Repositories(self.database)
        self.jobs = Jobs(self.database)
        self.snapshots = Snapshots(self.database)
        self.history = History(self.database)
        self.entities = Entities(self.database)
        self.actions = Actions(self.database)
        self.feed = Feed(self.database)
        self.search = Search(self.database)
        self.pruning = Pruning(self.database)
        self.budgets = Budgets(self.database)
        self.governor = Governor(clock=clock, on_pause=self.share_budget)
        self.governor.hear(self.budgets.load())
        self._answers_shared = 0
        self.client = GitHubClient(
            client_settings(config), clock=clock, governor=self.governor, on_request=metrics.request_seen
        )
        self.owners = Owners(self.database)
        self.discovery = Discovery(
            self.owners,
            self.client,
            clock=clock,
            rules=lambda: self.config.repositories,
            on_change=self.refresh,
        )
        self._refreshing = threading.Lock()
        self.tracked: tuple[TrackedRepository, ...] = ()
        self.tracking = TrackingView(())
        self._rules: dict[str, ContentRules] = {}
        self._collections: dict[str, Collections] = {}
        self._harvest = Harvest(self.snapshots, self.entities, clock=clock)
        self.routine = Routine(
            self.client,
            self.repositories,
            self.jobs,
            self.snapshots,
            clock=clock,
            settings=lambda: self.config.sync,
            rules=self.rules_of,
            collections=self.collections_of,
            on_identity=self.refresh,
        )
        self.track()

    def recover(self) -> int:
        """Take back what a killed process was doing, where nobody else can be alive; how many jobs.

        Leases in a store that others share run out by themselves.
        """
        return 0 if self.database.shared else self.jobs.recover(now=self.clock.now())

    def adopt(self, config: Config) -> None:
        """Go on with another configuration; everything is due. Raises StoreError, and the old one stays."""
        before, self.config = self.config, config
        try:
            self.track()
        except StoreError:
            self.config = before
            raise

    def track(self) -> None:
        """Bring the stored set of repositories in line with the configuration."""
        rules = self.config.repositories
        self.repositories.track(rules, now=self.clock.now())
        self.search.switch_off(rule.full_name for rule in rules if not rule.search)
        self.refresh()

    def refresh(self) -> None:
        """Read again what is tracked, after a repository, a name or a default branch was learnt."""
        with self._refreshing:  # whoever reads last sets what counts
            self.tracked = self.repositories.tracked()
            self.tracking = TrackingView(self.tracked, self.discovery.tracked_owners())
            self._rules, self._collections = self._by_repository()

    def _by_repository(self) -> tuple[dict[str, ContentRules], dict[str, Collections]]:
        """The rules for content and the collections of each tracked repository, by its lower-case name."""
        configured = {rule.full_name.lower(): rule for rule in self.config.repositories}
        rules, collections = {}, {}
        for repository in self.tracked:
            rule = configured.get(repository.configured)
            include, exclude = (rule.include, rule.exclude) if rule else ((), ())
            rules[repository.full_name.lower()] = content_rules(include, exclude, self.config.sync.max_file_bytes)
            found = rule.collections if rule else ()
            collections[repository.full_name.lower()] = Collections([Collection(**asdict(one)) for one in found])
        return rules, collections

    def rules_of(self, repository: RepositoryRef) -> ContentRules:
        found = self._rules.get(repository.full_name.lower())
        return found or content_rules((), (), self.config.sync.max_file_bytes)

    def collections_of(self, repository: RepositoryRef) -> Collections:
        return self._collections.get(repository.full_name.lower()) or Collections(())

    def renew_entities(self, *, check: Callable[[], None] = lambda: None) -> int:
        """Make the entities of each branch anew whose collections have changed, from what is stored; how many did.

        ``check`` is called between steps and may raise to stop. Raises StoreUnavailable.
        """
        done = 0
        for branch_id, repository, digest in self.entities.made_by():
            collections = self.collections_of(repository)
            if digest != collections.digest:
                done += self._harvest.renew(branch_id, collections, check=check)
        return done

    def share_budget(self) -> None:
        """Write down what is left of the token's budget, and take in what other daemons have found of it."""
        answers = self.governor.answers
        try:
            if answers != self._answers_shared:
                self.budgets.save(self.governor.records(), now=self.clock.now())
                self._answers_shared = answers
            self.governor.hear(self.budgets.load())
        except StoreUnavailable as error:  # it is known here all the same, and written down a second later
            log.debug("budget.not_shared", error=str(error))

    def hear_budget(self) -> None:
        """Take in what another daemon has just found."""
        try:
            self.governor.hear(self.budgets.load())
        except StoreUnavailable as error:
            log.debug("budget.not_shared", error=str(error))

    def prune(self, full_name: str) -> bool:
        """Have a repository that is gone or not tracked any more removed; False where it is neither."""
        found = self.pruning.find(full_name)
        if found is None or not self.pruning.forget(found.id):
            return False
        if found.configured:
            self.track()  # begins anew, should GitHub have it again
        else:
            self.refresh()
        return True

    def close(self) -> None:
        self.share_budget()
        self.database.close()


def client_settings(config: Config) -> ClientSettings:
    github = config.github
    return ClientSettings(
        api_url=github.api_url,
        graphql_url=github.graphql_url,
        timeout_seconds=github.timeout_seconds,
        token=github.token,
        anonymous=github.anonymous,
        app=_app(github),
        secrets=config.secret_values,
    )


def _app(github: GitHubSettings) -> AppSettings | None:
    if github.app_id is None or github.private_key_file is None:
        return None
    return AppSettings(github.app_id, PrivateKey(github.private_key_file), github.installation_id)
