"""Counters, gauges and histograms in Prometheus' words. Every known label value is there from the start.

A series that appears with its first event hides that event: the increase from nothing to one is not seen.
"""

from __future__ import annotations

import platform
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector, generate_latest

from daemon import __version__
from daemon.model import BranchState, Claim, DeliveryStatus, Outcome, RunResult, Trigger

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
DELIVERY_OUTCOMES = (*(status.value for status in DeliveryStatus), "refused", "unavailable")
POLL_OUTCOMES = ("changed", "unchanged", "failed")
RESOURCES = ("core", "graphql")
ACTION_KINDS = ("command", "url", "publish")
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
        for outcome in DELIVERY_OUTCOMES:
            self.deliveries.labels(outcome=outcome)
        for outcome in POLL_OUTCOMES:
            self.polls.labels(outcome=outcome)

    def _count_work(self, registry: CollectorRegistry) -> None:
        self.runs = Counter(
            "headwater_runs", "Runs by first trigger and outcome.", ["trigger", "outcome"], registry=registry
        )
        self.run_seconds = Histogram(
            "headwater_run_seconds", "How long runs take.", buckets=RUN_SECONDS, registry=registry
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
        self.rate_limit_remaining = Gauge(
            "headwater_rate_limit_remaining", "Requests left until GitHub's limit.", ["resource"], registry=registry
        )
        self.polling_needed = Gauge(
            "headwater_polling_needed_per_hour", "Requests or points that the promise costs.", registry=registry
        )
        self.polling_available = Gauge(
            "headwater_polling_available_per_hour", "Requests or points that polling may use.", registry=registry
        )
        for state in BranchState:
            self.branches.labels(state=state.value)
        for resource in RESOURCES:
            self.rate_limit_remaining.labels(resource=resource).set(UNKNOWN)

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
        self.run_seconds.observe(max(0.0, (result.finished_at - result.started_at).total_seconds()))
        for change in ("added", "modified", "removed"):
            self.sync_files.labels(change=change).inc(getattr(result, change))

    def action_ended(self, kind: str, failed: bool) -> None:
        """Count one execution of an action."""
        self.action_runs.labels(kind=kind, outcome="failed" if failed else "done").inc()

    def render(self) -> bytes:
        """All of it in Prometheus' text format, see CONTENT_TYPE."""
        return generate_latest(self.registry)
