from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from daemon import __version__
from daemon.metrics import ENDPOINTS, Metrics
from daemon.model import BranchState, Claim, DeliveryStatus, Outcome, RepositoryRef, RunResult, Trigger, WebhookHealth

NOW = datetime(2025, 1, 2, tzinfo=UTC)
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Seen:
    endpoint: str
    status: int | None


def samples(metrics):
    families = text_string_to_metric_families(metrics.render().decode())
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value for family in families for sample in family.samples
    }


def claim(*triggers):
    return Claim(
        job_id=1,
        branch_id=1,
        repository_id=1,
        repository=RepositoryRef("a", "b"),
        branch="main",
        token=1,
        generation=1,
        triggers=triggers,
        attempt=1,
        wanted_at=NOW,
    )


@pytest.mark.parametrize(
    ("name", "label", "values"),
    [
        ("headwater_deliveries_total", "outcome", [*DeliveryStatus, "refused", "unavailable"]),
        ("headwater_polls_total", "outcome", ["changed", "unchanged", "failed"]),
        ("headwater_branches", "state", list(BranchState)),
        ("headwater_sync_files_total", "change", ["added", "modified", "removed"]),
        ("headwater_repositories", "webhook", list(WebhookHealth)),
        ("headwater_database_statement_seconds_count", "kind", ["select", "insert", "update", "delete", "other"]),
    ],
)
def test_every_label_value_is_there_from_the_start(name, label, values):
    found = samples(Metrics())
    assert [found[name, (label, str(value))] for value in values] == [0.0] * len(values)


def test_every_trigger_and_outcome_of_runs_is_there_from_the_start():
    found = samples(Metrics())
    for trigger in Trigger:
        for outcome in Outcome:
            assert found["headwater_runs_total", ("outcome", outcome.value), ("trigger", trigger.value)] == 0


def test_the_names_without_labels_are_there_from_the_start():
    found = samples(Metrics())
    for name in (
        "missed_webhooks_total",
        "queue_pending",
        "queue_running",
        "queue_failed",
        "queue_oldest_seconds",
        "stalest_seconds",
        "branches_stale",
        "actions_failing",
        "loop_lag_seconds_count",
    ):
        assert found[(f"headwater_{name}",)] == 0


def test_a_budget_that_was_never_read_is_unknown_and_not_exhausted():
    assert math.isnan(samples(Metrics())["headwater_rate_limit_remaining", ("resource", "core")])


def test_the_build_is_named():
    assert any(key[0] == "headwater_build_info" and ("version", __version__) in key for key in samples(Metrics()))


def test_a_request_counts_by_endpoint_and_status():
    metrics = Metrics()
    for status in (200, 200, 304, None):
        metrics.request_seen(Seen("head", status))
    found = samples(metrics)
    counts = {
        dict(key[1:])["status"]: value
        for key, value in found.items()
        if key[0] == "headwater_github_requests_total" and ("endpoint", "head") in key
    }
    assert counts == {"200": 2, "304": 1, "none": 1}
    assert metrics.requests_seen() == 4


def test_a_run_counts_by_its_first_trigger_with_its_time_and_files():
    metrics = Metrics()
    result = RunResult(Outcome.UPDATED, None, None, NOW, NOW + timedelta(seconds=2), added=3, modified=2, removed=1)
    metrics.run_finished(claim(Trigger.WEBHOOK, Trigger.POLL), result)
    found = samples(metrics)
    assert found["headwater_runs_total", ("outcome", "updated"), ("trigger", "webhook")] == 1
    assert found["headwater_runs_total", ("outcome", "updated"), ("trigger", "poll")] == 0
    assert found["headwater_run_duration_seconds_sum", ("outcome", "updated"), ("trigger", "webhook")] == 2
    assert found["headwater_sync_files_total", ("change", "added")] == 3


def test_a_clock_that_was_set_back_makes_no_negative_duration():
    metrics = Metrics()
    metrics.run_finished(claim(Trigger.POLL), RunResult(Outcome.UNCHANGED, None, None, NOW, NOW - timedelta(hours=1)))
    key = ("headwater_run_duration_seconds_sum", ("outcome", "unchanged"), ("trigger", "poll"))
    assert samples(metrics)[key] == 0


def test_two_daemons_in_one_process_count_apart():
    one, other = Metrics(), Metrics()
    one.missed_webhooks.inc()
    assert samples(other)[("headwater_missed_webhooks_total",)] == 0


def test_every_endpoint_that_is_asked_is_there_from_the_start():
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "daemon" / "github").glob("*.py")]
    asked = {name for source in sources for name in re.findall(r'(?:_call\(|_json\(|_ask\(|endpoint=)"(\w+)"', source)}
    assert asked
    assert asked - set(ENDPOINTS) == set(), "add it to ENDPOINTS in daemon/metrics.py"
    assert samples(Metrics())["headwater_github_requests_total", ("endpoint", "head"), ("status", "none")] == 0


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("SELECT 1", "select"),
        ("\n  insert INTO x", "insert"),
        ("PRAGMA x", "other"),
        ("", "other"),
        ("WITH x", "other"),
    ],
)
def test_a_statement_counts_by_its_first_word(sql, kind):
    metrics = Metrics()
    metrics.statement_seen(sql, 0.5)
    assert samples(metrics)["headwater_database_statement_seconds_sum", ("kind", kind)] == 0.5


# -- what is documented -----------------------------------------------------------------------------


def exposed() -> dict[str, str]:
    """Name and type of every metric of the daemon, as Prometheus knows them."""
    types = re.findall(r"^# TYPE (\S+) (\w+)$", Metrics().render().decode(), re.MULTILINE)
    return {name: kind for name, kind in types if name.startswith("headwater_") and not name.endswith("_created")}


def test_what_the_readme_documents_is_what_is_exposed():
    table = (ROOT / "README.md").read_text(encoding="utf-8").partition("<!-- metrics -->")[2]
    documented = re.findall(r"^\| `(headwater_\w+)` \| (\w+) \|", table, re.MULTILINE)
    assert dict(documented) == exposed()
    assert len(documented) == len(dict(documented))


@pytest.mark.parametrize("file", ["prometheus-alerts.yml", "grafana-dashboard.json"])
def test_what_alerts_and_plots_ask_for_is_exposed(file):
    text = (ROOT / "systemd" / file).read_text(encoding="utf-8")
    names = {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"headwater_\w+", text)}
    assert names
    assert names - set(exposed()) == set()


def test_the_names_say_what_they_are_of():
    for name, kind in exposed().items():
        assert re.fullmatch(r"headwater_[a-z]+(_[a-z]+)*", name)
        assert name.endswith("_total") == (kind == "counter")
        assert name.endswith("_seconds") or kind != "histogram"
