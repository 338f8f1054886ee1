"""What Prometheus is told, and what it is told to make of that, held against Prometheus' own tool."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import Daemon, wait_for

from daemon.demo.standin import StandIn
from daemon.demo.standin.gitrepo import GitRepo

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "systemd" / "prometheus-alerts.yml"
GRAFANA = ROOT / "systemd" / "grafana-dashboard.json"


def promtool(*arguments: str, given: bytes | None = None, cwd: Path | None = None) -> None:
    """Run it; it must find nothing, warnings included."""
    path = shutil.which("promtool")
    assert path, "these tests ask promtool: apt-get install prometheus"
    ended = subprocess.run([path, *arguments], input=given, capture_output=True, check=False, cwd=cwd)
    said = (ended.stdout + ended.stderr).decode()
    assert ended.returncode == 0, said
    assert "warn" not in said.lower()


@pytest.fixture
def busy(github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon]) -> Daemon:
    """A daemon that has had a delivery, and an action that fails."""
    daemon = make_daemon()
    daemon.config.write_text(daemon.config.read_text() + '[[actions]]\ncommand = ["/bin/false"]\n')
    daemon.start().wait_head(repo.head())
    daemon.wait_idle()
    github.hook("octo/data", daemon.webhook_url, daemon.secret)
    before, after = repo.head(), repo.commit({"new": b"1"})
    github.push("octo/data", "main", before, after)
    daemon.wait_head(after)
    wait_for(lambda: daemon.get("/api/v1/status").json()["actions"]["failed"], "the action to fail")
    return daemon


def test_a_scrape_of_a_busy_daemon_is_clean(busy: Daemon) -> None:
    scrape = busy.get("/metrics")
    assert scrape.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    for told in (
        'headwater_branch_stale{branch="main",repository="octo/data"} 0.0',
        'headwater_branch_unconfirmed_seconds{branch="main",repository="octo/data"}',
        'headwater_repository_missed_webhooks{repository="octo/data"} 0.0',
        'headwater_repositories{webhook="healthy"} 1.0',
        'headwater_deliveries_total{outcome="accepted"} 1.0',
        "headwater_actions_failing 1.0",
        "headwater_branches_stale 0.0",
        'headwater_rate_limit_allowed{resource="core"} 5000.0',
    ):
        assert told in scrape.text, told
    assert _value(scrape.text, 'headwater_database_statement_seconds_count{kind="select"}') > 0
    promtool("check", "metrics", given=scrape.content)


def test_no_repository_is_named_when_that_is_switched_off(busy: Daemon) -> None:
    busy.config.write_text(busy.config.read_text() + "[metrics]\nrepository_labels = false\n")
    busy.hangup()
    wait_for(lambda: "octo" not in busy.get("/metrics").text, "the names to go")
    assert "headwater_branches_stale 0.0" in busy.get("/metrics").text


def test_the_lag_of_the_loop_is_measured(busy: Daemon) -> None:
    wait_for(lambda: _value(busy.get("/metrics").text, "headwater_loop_lag_seconds_count") > 0, "a second")


def test_the_alert_rules_are_rules() -> None:
    promtool("check", "rules", str(ALERTS))


def test_the_alerts_fire_for_what_they_are_named_after_only(tmp_path: Path) -> None:
    shutil.copy(ALERTS, tmp_path)
    shutil.copy(Path(__file__).parent / "alerts.test.yml", tmp_path)
    promtool("test", "rules", "alerts.test.yml", cwd=tmp_path)


def test_every_alert_is_explained_in_the_readme() -> None:
    names = [line.split()[-1] for line in ALERTS.read_text(encoding="utf-8").splitlines() if "- alert:" in line]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert names
    assert [name for name in names if f"| `{name}` |" not in readme] == []


def test_what_the_grafana_dashboard_asks_is_promql(tmp_path: Path) -> None:
    panels: list[dict[str, Any]] = json.loads(GRAFANA.read_text(encoding="utf-8"))["panels"]
    asked = [target["expr"] for panel in panels for target in panel["targets"]]
    assert len({panel["id"] for panel in panels}) == len(panels)
    rules = [
        {"record": f"panel:{number}", "expr": expr.replace("$__rate_interval", "5m").replace("$job", ".+")}
        for number, expr in enumerate(asked)
    ]
    file = tmp_path / "panels.yml"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))  # JSON is YAML
    promtool("check", "rules", str(file))


def _value(text: str, series: str) -> float:
    return next(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(series + " "))
