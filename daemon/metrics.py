"""Counters, gauges and histograms in Prometheus' words. Every known label value is there from the start.

A series that appears with its first event hides that event: the increase from nothing to one is not seen.
"""

from __future__ import annotations

import platform
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector, generate_latest

from daemon.model import BranchState, Claim, DeliveryStatus, Outcome, RunResult, Trigger, WebhookHealth
from daemon.version import __version__

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
DELIVERY_OUTCOMES = (*(status.value for status in DeliveryStatus), "refused", "unavailable")
POLL_OUTCOMES = ("changed", "unchanged", "failed")
RESOURCES = ("core", "graphql")
ACTION_KINDS = ("command", "url", "publish")
ENDPOINTS = (
    *("app", "blob", "branches", "commits", "compare", "graphql", "head", "hook_change", "hook_create"),
    *("hook_deliveries", "hook_delivery", "hook_ping", "hook_redeliver", "hook_remove", "hooks", "installation"),
    *("installation_token", "installations", "meta", "owner", "rate_limit", "repositories", "repository"),
    *("tarball", "tree"),
)
USUAL_STATUSES = ("200", "304", "none")  # the others appear when they happen
STATEMENTS = ("select", "insert", "update", "delete", "other")
STATEMENT_SECONDS = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5)
LAG_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
RUN_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
UNKNOWN = float("nan")  # no comparison with it holds, so no alert fires before there is a first reading


class Request(Protocol):
    """One HTTP request to GitHub; ``status`` is None when no answer arrived."""

    @property
    def endpoint(self) -> str: ...
    @property
    def status(self) -> int | None: ...


class Metrics:
    """All metrics of one daemon, in a registry of their own. Any thread may use them."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        Info("headwater_build", "What is running.", registry=registry).info(
            {"version": __version__, "python": platform.python_version()}
        )
        self._count_arrivals(registry)
        self._count_work(registry)
        self._measure_state(registry)
        self._measure_process(registry)

    def _count_arrivals(self, registry: CollectorRegistry) -> None:
        self.deliveries = Counter(
            "headwater_deliveries", "Webhook requests by what became of them.", ["outcome"], registry=registry
        )
        self.polls = Counter(
            "headwater_polls", "Looks at a repository by what they found.", ["outcome"], registry=registry
        )
        self.missed_webhooks = Counter(
            "headwater_missed_webhooks", "Heads that a poll found and no delivery had announced.", registry=registry
        )
        self.requests = Counter(
            "headwater_github_requests",
            "HTTP requests to GitHub; status is none when no answer arrived.",
            ["endpoint", "status"],
            registry=registry,
        )
        for endpoint in ENDPOINTS:
            for status in USUAL_STATUSES:
                self.requests.labels(endpoint=endpoint, status=status)
        for outcome in DELIVERY_OUTCOMES:
            self.deliveries.labels(outcome=outcome)
        for outcome in POLL_OUTCOMES:
            self.polls.labels(outcome=outcome)

    def _count_work(self, registry: CollectorRegistry) -> None:
        self.runs = Counter(
            "headwater_runs", "Runs by first trigger and outcome.", ["trigger", "outcome"], registry=registry
        )
        self.run_seconds = Histogram(
            "headwater_run_duration_seconds",
            "How long runs take, by first trigger and outcome.",
            ["trigger", "outcome"],
            buckets=RUN_SECONDS,
            registry=registry,
        )
        self.sync_files = Counter(
            "headwater_sync_files", "Entries that runs have changed.", ["change"], registry=registry
        )
        self.action_runs = Counter(
            "headwater_action_runs", "Executions of actions by how they ended.", ["kind", "outcome"], registry=registry
        )
        for kind in ACTION_KINDS:
            for ended in ("done", "failed"):
                self.action_runs.labels(kind=kind, outcome=ended)
        for trigger in Trigger:
            for outcome in Outcome:
                self.runs.labels(trigger=trigger.value, outcome=outcome.value)
                self.run_seconds.labels(trigger=trigger.value, outcome=outcome.value)
        for change in ("added", "modified", "removed"):
            self.sync_files.labels(change=change)

    def _measure_state(self, registry: CollectorRegistry) -> None:
        self.queue_pending = Gauge("headwater_queue_pending", "Jobs that wait.", registry=registry)
        self.queue_running = Gauge("headwater_queue_running", "Jobs that are being worked on.", registry=registry)
        self.queue_failed = Gauge("headwater_queue_failed", "Jobs parked as failed.", registry=registry)
        self.queue_oldest_seconds = Gauge(
            "headwater_queue_oldest_seconds", "Age of the oldest wish not served yet.", registry=registry
        )
        self.branches = Gauge("headwater_branches", "Tracked branches by state.", ["state"], registry=registry)
        self.stalest_seconds = Gauge(
            "headwater_stalest_seconds", "Time since GitHub confirmed the stalest branch.", registry=registry
        )
        self.stale_branches = Gauge(
            "headwater_branches_stale", "Tracked branches that are staler than promised.", registry=registry
        )
        self.repositories = Gauge(
            "headwater_repositories",
            "Tracked repositories by the health of their webhooks.",
            ["webhook"],
            registry=registry,
        )
        self.actions_failing = Gauge(
            "headwater_actions_failing", "Branches on which an action failed and is tried again.", registry=registry
        )
        self.rate_limit_remaining = Gauge(
            "headwater_rate_limit_remaining", "Requests left until GitHub's limit.", ["resource"], registry=registry
        )
        self.polling_needed = Gauge(
            "headwater_polling_needed_per_hour", "Requests or points that the promise costs.", registry=registry
        )
        self.polling_available = Gauge(
            "headwater_polling_available_per_hour", "Requests or points that polling may use.", registry=registry
        )
        self.rate_limit_allowed = Gauge(
            "headwater_rate_limit_allowed", "Requests that GitHub's limit allows.", ["resource"], registry=registry
        )
        for state in BranchState:
            self.branches.labels(state=state.value)
        for resource in RESOURCES:
            self.rate_limit_remaining.labels(resource=resource).set(UNKNOWN)
            self.rate_limit_allowed.labels(resource=resource).set(UNKNOWN)
        for health in WebhookHealth:
            self.repositories.labels(webhook=health.value)
        self._name_branches(registry)

    def _name_branches(self, registry: CollectorRegistry) -> None:
        """What names repositories; empty with ``metrics.repository_labels = false``."""
        labels = ["repository", "branch"]
        self.branch_unconfirmed_seconds = Gauge(
            "headwater_branch_unconfirmed_seconds", "Time since GitHub confirmed the branch.", labels, registry=registry
        )
        self.branch_stale = Gauge(
            "headwater_branch_stale", "Whether the branch is staler than promised.", labels, registry=registry
        )
        self.repository_missed_webhooks = Gauge(
            "headwater_repository_missed_webhooks",
            "Heads of the repository that no delivery announced, ever.",
            ["repository"],
            registry=registry,
        )

    def _measure_process(self, registry: CollectorRegistry) -> None:
        self.loop_lag_seconds = Histogram(
            "headwater_loop_lag_seconds",
            "How late the event loop is, once a second.",
            buckets=LAG_SECONDS,
            registry=registry,
        )
        self.statement_seconds = Histogram(
            "headwater_database_statement_seconds",
            "How long statements take in the database, by kind.",
            ["kind"],
            buckets=STATEMENT_SECONDS,
            registry=registry,
        )
        self._statements = {kind: self.statement_seconds.labels(kind=kind) for kind in STATEMENTS}

    def request_seen(self, request: Request) -> None:
        """Count one HTTP request to GitHub."""
        status = "none" if request.status is None else str(request.status)
        self.requests.labels(endpoint=request.endpoint, status=status).inc()

    def requests_seen(self) -> int:
        """How many requests to GitHub there were, of whatever kind."""
        counts = (one for family in self.requests.collect() for one in family.samples if one.name.endswith("_total"))
        return int(sum(one.value for one in counts))

    def run_finished(self, claim: Claim, result: RunResult) -> None:
        """Count one run that reached an end."""
        trigger = claim.triggers[0] if claim.triggers else Trigger.MANUAL
        self.runs.labels(trigger=trigger.value, outcome=result.outcome.value).inc()
        # Started and finished are wall-clock times; a clock that was set back must not make a negative duration.
        took = max(0.0, (result.finished_at - result.started_at).total_seconds())
        self.run_seconds.labels(trigger=trigger.value, outcome=result.outcome.value).observe(took)
        for change in ("added", "modified", "removed"):
            self.sync_files.labels(change=change).inc(getattr(result, change))

    def statement_seen(self, sql: str, seconds: float) -> None:
        """Count one statement of the database by its first word."""
        kind = sql.lstrip()[:6].lower()
        self._statements.get(kind, self._statements["other"]).observe(seconds)

    def action_ended(self, kind: str, failed: bool) -> None:
        """Count one execution of an action."""
        self.action_runs.labels(kind=kind, outcome="failed" if failed else "done").inc()

    def render(self) -> bytes:
        """All of it in Prometheus' text format, see CONTENT_TYPE."""
        return generate_latest(self.registry)
