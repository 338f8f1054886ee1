"""``owner/*`` as its users have it: found at the start, on events and by commands; kept when gone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import SECRET, Daemon, wait_for

from daemon.demo.standin import StandIn
from daemon.demo.standin.gitrepo import GitRepo

EXCLUDED = 'exclude_repositories = ["*-old"]\nforks = false'


@pytest.fixture
def owner(tmp_path: Path, github: StandIn, repo: GitRepo) -> Iterator[Daemon]:
    """A daemon, not started, that follows all of octo; there are three, two of which it wants."""
    github.add("octo/more", repo.path)
    github.add("octo/very-old", repo.path)
    daemon = Daemon(tmp_path, github.url, repositories=("octo/*",), extra=EXCLUDED)
    yield daemon
    daemon.end()


def names(daemon: Daemon) -> list[str]:
    return [one["full_name"] for one in daemon.items("/api/v1/repositories")]


def state(daemon: Daemon, name: str) -> str:
    return str(daemon.repository(name)["state"])


def test_what_an_owner_has_is_kept_and_what_comes_is_found_by_its_events(
    owner: Daemon, github: StandIn, repo: GitRepo
) -> None:
    owner.start()
    for name in ("octo/data", "octo/more"):
        owner.wait_head(repo.head(), name=name)
    assert names(owner) == ["octo/data", "octo/more"]
    assert owner.repository("octo/more")["found_by"] == "octo/*"
    fresh = github.add("octo/fresh", repo.path)
    github.hook("octo/fresh", owner.webhook_url, SECRET)
    answered = github.event("octo/fresh", "repository", {"action": "created"})
    assert answered is not None
    assert answered.json() == {"status": "ignored", "event": "repository"}
    owner.wait_head(repo.head(), name="octo/fresh")
    github.add("octo/pushed", repo.path)
    github.hook("octo/pushed", owner.webhook_url, SECRET)
    answered = github.push("octo/pushed", "main", None, repo.head())
    assert answered is not None
    assert answered.json()["status"] == "ignored"
    assert "octo/*" in answered.json()["reason"]
    owner.wait_head(repo.head(), name="octo/pushed", seconds=60)
    (looks,) = owner.get("/api/v1/status").json()["discovery"]
    assert (looks["owner"], looks["repositories"], looks["last_error"]) == ("octo/*", 4, None)
    github.remove("octo/fresh")
    owner.deliver(
        {"action": "removed", "installation": {"account": {"login": "octo"}}}, event="installation_repositories"
    )
    wait_for(lambda: state(owner, "octo/fresh") == "gone", "octo/fresh to be gone", seconds=60)
    assert owner.get("/api/v1/repositories/octo/fresh/files").json()["items"]
    github.add("octo/fresh", repo.path, github_id=fresh.id)
    owner.deliver(
        {"action": "publicized", "repository": {"id": fresh.id, "full_name": "octo/fresh"}}, event="repository"
    )
    wait_for(lambda: state(owner, "octo/fresh") == "fresh", "octo/fresh to be back", seconds=60)


def test_a_reload_takes_up_an_owner_and_lets_it_go(owner: Daemon, github: StandIn, repo: GitRepo) -> None:
    owner.write_config(repositories=("octo/data",), extra="")
    owner.start()
    owner.wait_head(repo.head())
    owner.write_config(repositories=("octo/*",), extra=EXCLUDED)
    owner.hangup()
    owner.wait_head(repo.head(), name="octo/more")
    assert names(owner) == ["octo/data", "octo/more"]
    owner.write_config(repositories=("octo/data",), extra="")
    owner.hangup()
    wait_for(lambda: names(owner) == ["octo/data"], "octo/more not to be tracked")
    assert owner.get("/api/v1/repositories/octo/more").status_code == 404


def test_the_commands_work_with_what_was_found(owner: Daemon, github: StandIn, repo: GitRepo) -> None:
    check = owner.cli("check", "--online")
    assert "octo/*: 3 repositories visible, 2 of them taken" in check.stdout
    assert "not_supported" not in check.stdout + check.stderr
    synced = json.loads(owner.cli("sync", "--json").stdout)["runs"]
    assert {one["repository"]: one["head_sha"] for one in synced} == dict.fromkeys(
        ["octo/data", "octo/more"], repo.head()
    )
    assert owner.cli("sync", "octo/very-old").returncode == 2
    assert owner.cli("sync", "octo/nothing").returncode == 1
    assert owner.cli("sync", "else/where").returncode == 2
    shown = json.loads(owner.cli("status", "--json").stdout)["branches"]
    assert [(one["repository"], one["head_sha"]) for one in shown] == [
        (name, repo.head()) for name in ("octo/data", "octo/more")
    ]
    proven = json.loads(owner.cli("verify", "--json").stdout)["branches"]
    assert [(one["repository"], one["ok"]) for one in proven] == [("octo/data", True), ("octo/more", True)]
    assert owner.cli("ls", "octo/more").returncode == 0
    owner.start()
    head = repo.commit({"next.md": b"next\n"})
    asked = owner.cli("sync", "octo/more")
    assert asked.returncode == 0, asked.stderr
    assert owner.head(name="octo/more") == head
    assert owner.cli("sync").returncode == 0
    assert owner.head(name="octo/data") == head


def test_a_sync_says_so_when_the_owner_cannot_be_looked_at(owner: Daemon, github: StandIn) -> None:
    github.token = "another"
    ended = owner.cli("sync")
    assert ended.returncode == 1
    assert "github.token" in ended.stderr
