"""Actions of a daemon: in order, at least once whatever is killed, and never in the way of anything else."""

from __future__ import annotations

import json
import random
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from action_peer import Receiver, receiver
from harness import Daemon, wait_for

from daemon.demo.standin import StandIn
from daemon.demo.standin.gitrepo import GitRepo

APPEND = "import json, sys, os; f = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT); os.write(f, json.dumps(json.load(sys.stdin)).encode() + b'\\n')"
KILLS = 8


@pytest.fixture
def peer() -> Iterator[Receiver]:
    with receiver("a secret of the receiver") as found:
        yield found


def action(**keys: Any) -> str:
    return "\n".join(["[[actions]]", *(f"{name} = {json.dumps(value)}" for name, value in keys.items())])


def command(script: str, *arguments: object, **keys: Any) -> str:
    return action(command=[sys.executable, "-c", script, *map(str, arguments)], **keys)


def told(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def actions_of(daemon: Daemon) -> list[dict[str, Any]]:
    return list(daemon.items("/api/v1/actions"))


def push(github: StandIn, repo: GitRepo, changes: dict[str, Any]) -> str:
    before = repo.head()
    after = repo.commit(changes)
    github.push("octo/data", "main", before, after)
    return after


def test_an_action_runs_after_the_restart_when_the_daemon_is_killed_between_commit_and_action(
    github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    log, go = tmp_path / "log", tmp_path / "go"
    script = f"import os, sys, time\nwhile not os.path.exists(sys.argv[2]): time.sleep(0.01)\n{APPEND}"
    daemon = make_daemon(extra=command(script, log, go)).start()
    daemon.wait_head(repo.head())
    wait_for(lambda: [one for one in actions_of(daemon) if one["state"] == "pending"], "the action to be wanted")
    daemon.kill()
    go.touch()
    daemon.start()
    wait_for(lambda: [one for one in actions_of(daemon) if one["state"] == "done"], "the action to be done")
    assert {one["after"] for one in told(log)} == {repo.head()}


@pytest.mark.timeout(300)
def test_every_commit_is_acted_on_in_order_over_kills(
    github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon], tmp_path: Path, peer: Receiver
) -> None:
    chance = random.Random(7)
    log, site = tmp_path / "log", tmp_path / "site"
    extra = [command(APPEND, log), action(url=peer.url, secret=peer.secret), action(publish=str(site))]
    daemon = make_daemon(extra="\n".join(extra)).start()
    hook = github.hook("octo/data", daemon.webhook_url, daemon.secret)
    for number in range(KILLS):
        for inner in range(3):
            push(github, repo, {f"f{inner}": b"%d" % number})
        time.sleep(chance.uniform(0.0, 0.3))  # the moment of the kill is what is random here
        daemon.kill()
        daemon.start()
        hook.url = daemon.webhook_url
    daemon.wait_head(push(github, repo, {"last": b"1"}))
    wait_for(lambda: {one["state"] for one in actions_of(daemon)} == {"done"}, "every action to be done")
    moves = [(one["before"], one["after"]) for one in daemon.items("/api/v1/changes")]
    for seen in (told(log), peer.received):
        found = list(dict.fromkeys((one["before"], one["after"]) for one in seen))
        assert found == moves  # each at least once, the first time in order
    assert all(one["verified"] for one in peer.received)
    assert (site / "last").read_bytes() == b"1"
    assert str(site.readlink()).startswith(f".site.headwater/{repo.head()}-")
    assert daemon.stop() == 0


def test_a_failing_action_is_seen_everywhere_blocks_nothing_and_is_retried(
    github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    log, go = tmp_path / "log", tmp_path / "go"
    script = "import os, sys\nprint('ghp_0123456789abcdefghij')\nsys.exit(0 if os.path.exists(sys.argv[1]) else 4)"
    daemon = make_daemon(extra="\n".join([command(script, go), command(APPEND, log)])).start()
    daemon.wait_head(repo.head())
    failing = wait_for(
        lambda: [one for one in actions_of(daemon) if one["state"] == "failed" and one["attempts"] >= 3],
        "three failures",
    )[0]
    assert len(told(log)) == 1
    assert (failing["repository"], failing["branch"], failing["output"]) == ("octo/data", "main", "[redacted]\n")
    assert "exit code 4" in failing["last_error"]
    assert daemon.get("/api/v1/status").json()["actions"] == {"configured": 2, "pending": 0, "failed": 1}
    metrics = daemon.get("/metrics").text
    assert 'headwater_action_runs_total{kind="command",outcome="done"} 1.0' in metrics
    trouble = re.search(r'<a href="/repositories/octo/data/actions"[^>]*>octo/data</a>(.*?)</li>', daemon.get("/").text)
    assert trouble is not None
    assert "1 failing action" in trouble[1]
    assert "exit code 4" in trouble[1]
    (branch,) = json.loads(daemon.cli("status", "--json").stdout)["branches"]
    assert {one["state"] for one in branch["actions"]} == {"done", "failed"}
    assert "exit code 4" in " ".join(daemon.cli("status").stdout.split())
    listed = json.loads(daemon.cli("actions", "list", "--json").stdout)["actions"]
    assert sorted(one["state"] for one in listed) == ["done", "failed"]
    by_line = daemon.cli("actions", "list").stdout.splitlines()
    row = by_line.index(f"{failing['action']}  command {failing['target']}") + 1
    assert by_line[row].split()[:3] == ["octo/data@main", "failed", "-"]
    assert "exit code 4" in by_line[row + 1]
    assert json.loads(daemon.cli("actions", "retry", failing["action"], "--json").stdout) == {"retried": 1}
    go.touch()  # not before: on a slow machine its own next try could come first
    wait_for(lambda: {one["state"] for one in actions_of(daemon)} == {"done"}, "the retry to succeed")
    assert daemon.post("/api/v1/actions/retry?action=nonsense").status_code == 404
    unknown = daemon.cli("actions", "retry", "nonsense")
    assert (unknown.returncode, unknown.stderr.count("there is no action nonsense; see `headwater actions list`")) == (
        1,
        1,
    )


def test_retry_without_a_daemon_clears_the_backoff_for_its_next_start(
    repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    daemon = make_daemon(extra=command("raise SystemExit(1)")).start()
    wait_for(lambda: [one for one in actions_of(daemon) if one["state"] == "failed"], "the failure")
    assert daemon.stop() == 0
    assert "1 tried again" in daemon.cli("actions", "retry").stdout
    assert "Traceback" not in daemon.log.read_text()


def test_retry_before_the_first_start_makes_no_store(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon(extra=command("pass"))
    ended = daemon.cli("actions", "retry")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "there is no database at" in ended.stderr
    assert not daemon.database.exists()


def test_an_action_that_nothing_has_changed_for_is_not_told_as_done(
    repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    daemon = make_daemon(extra=command("pass", paths=["nowhere/"])).start()
    daemon.wait_head(repo.head())
    wait_for(lambda: actions_of(daemon), "the action to be known")
    title, told = daemon.cli("actions", "list").stdout.splitlines()
    assert title.split()[1] == "command"
    assert told == "  has had nothing to do yet"


def test_actions_are_reloaded_live(
    github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    site, log = tmp_path / "sites" / "data", tmp_path / "log"
    daemon = make_daemon().start()
    daemon.wait_head(repo.head())
    github.hook("octo/data", daemon.webhook_url, daemon.secret)
    assert actions_of(daemon) == []
    daemon.write_config(extra="\n".join([action(publish=f"{tmp_path}/sites/{{name}}"), command(APPEND, log)]))
    daemon.hangup()
    wait_for((site / "README.md").exists, "the folder")
    daemon.wait_head(push(github, repo, {"README.md": b"new\n"}))
    wait_for(lambda: (site / "README.md").read_bytes() == b"new\n", "the flip")
    wait_for(
        lambda: [one["after"] for one in told(log)] == [repo.head()], "the command: the new commit and no older one"
    )
    daemon.write_config(extra="")
    daemon.hangup()
    wait_for(lambda: actions_of(daemon) == [], "the actions to be forgotten")


def test_a_published_folder_that_vanished_while_the_daemon_was_dead_is_made_again(
    repo: GitRepo, make_daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    site = tmp_path / "site"
    daemon = make_daemon(extra=action(publish=str(site))).start()
    wait_for((site / "docs" / "page.md").exists, "the folder")
    daemon.kill()
    site.unlink()
    daemon.start()
    wait_for((site / "docs" / "page.md").exists, "the folder again")


def test_a_folder_that_several_branches_would_share_is_a_problem_of_the_configuration(
    make_daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    extra = 'branches = ["main", "dev"]\n' + action(publish=str(tmp_path / "site"))
    ended = make_daemon(extra=extra).cli("check")
    assert ended.returncode == 78
    assert "actions[0].publish" in ended.stderr
    assert "{branch}" in ended.stderr
