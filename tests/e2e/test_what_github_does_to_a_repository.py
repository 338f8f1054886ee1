"""Rename, transfer, deletion, blocks, revoked tokens, limits: each ends in the right state, says why, and costs no data.

Requests are counted: whatever is wrong is asked about a few times, not without end.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Self

import pytest
from harness import SECRET, TOKEN, Daemon, assert_equal_to_git, stored_tree, wait_for

from daemon.demo.standin import StandIn
from daemon.demo.standin.gitrepo import GitRepo

MakeDaemon = Callable[..., Daemon]
DATA = "/api/v1/repositories/octo/data"


@pytest.fixture
def synced(make_daemon: MakeDaemon, github: StandIn, repo: GitRepo) -> Daemon:
    """A daemon that looks every second, in step, with a hook."""
    return start(make_daemon, github, repo, interval="1s", reconcile="1s")


@pytest.fixture
def idle(make_daemon: MakeDaemon, github: StandIn, repo: GitRepo) -> Daemon:
    """A daemon that looks once an hour: only what is delivered moves it."""
    return start(make_daemon, github, repo)


def start(make_daemon: MakeDaemon, github: StandIn, repo: GitRepo, **settings: str) -> Daemon:
    daemon = make_daemon(**settings).start()
    daemon.wait_head(repo.head())
    daemon.wait_idle()
    github.hook("octo/data", daemon.webhook_url, SECRET)
    return daemon


def state(daemon: Daemon, name: str = "octo/data") -> str:
    return str(daemon.repository(name)["state"])


def error(daemon: Daemon, name: str = "octo/data") -> str:
    return str(daemon.repository(name)["last_error"] or "")


def fresh(daemon: Daemon) -> bool:
    """Whether the promise is kept at this moment, which that of a second is not on a machine that stands still."""
    return daemon.get("/readyz?fresh=1").status_code == 200


class Counted:
    """How many requests GitHub got since the block began, held against the time that passed."""

    def __init__(self, github: StandIn) -> None:
        self._github = github

    def __enter__(self) -> Self:
        self._github.requests.clear()
        self._began = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.monotonic() - self._began
        self.requests = len(self._github.requests)


# -- names ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("new", ["octo/better", "neworg/data"])
@pytest.mark.parametrize("told", [True, False], ids=["event", "poll"])
def test_a_rename_or_a_transfer_keeps_the_data_and_the_old_name_leads_to_the_new(
    make_daemon: MakeDaemon, github: StandIn, repo: GitRepo, new: str, told: bool
) -> None:
    daemon = start(make_daemon, github, repo, **({} if told else {"interval": "1s", "reconcile": "1s"}))
    runs = daemon.runs()
    with Counted(github) as counted:
        github.rename("octo/data", new, deliver=told)
        wait_for(lambda: daemon.repository(new)["full_name"] == new if _there(daemon, new) else False, "the new name")
    assert counted.requests <= 3 + counted.seconds
    moved = daemon.get(DATA, allow_redirects=False)
    assert (moved.status_code, moved.headers["Location"]) == (301, f"/api/v1/repositories/{new}")
    assert daemon.runs(new) == [run | {"repository": new} for run in runs]
    assert_equal_to_git(daemon, repo, name=new)
    head = repo.commit({"after.md": b"after\n"})
    answered = github.push(new, "main", None, head)
    assert answered is not None
    assert answered.json()["status"] == "accepted"
    daemon.wait_head(head, name=new)
    daemon.stop()
    daemon.start()
    assert daemon.head(name=new) == head
    assert daemon.get(DATA, allow_redirects=False).status_code == 301


def _there(daemon: Daemon, name: str) -> bool:
    return daemon.get(f"/api/v1/repositories/{name}").status_code == 200


def test_a_deleted_repository_is_kept_marked_and_asked_for_ever_less(
    synced: Daemon, github: StandIn, repo: GitRepo
) -> None:
    served = github.repository("octo/data")
    with Counted(github) as counted:
        github.remove("octo/data")
        wait_for(lambda: len(synced.log_lines("poll.repository_failed")) >= 3, "three looks that find nothing")
    assert counted.requests <= 3 * 3 + counted.seconds
    assert state(synced) == "gone"
    assert "deleted, is private, or the token may not see it" in error(synced)
    assert_equal_to_git(synced, repo)
    (branch,) = synced.repository()["branches"]
    assert (branch["state"], branch["last_error"]) == ("gone", error(synced))
    assert "gone" in synced.cli("status").stdout
    head = repo.commit({"back.md": b"back\n"})
    github.add("octo/data", repo.path, github_id=served.id)
    assert synced.post(f"{DATA}/sync").status_code == 202
    synced.wait_head(head)
    wait_for(lambda: state(synced) == "fresh", "it to be back", seconds=60)
    assert error(synced) == ""


@pytest.mark.parametrize("told", [True, False], ids=["push", "poll"])
def test_a_new_repository_under_the_name_is_a_new_one_and_the_old_one_is_kept(
    make_daemon: MakeDaemon, github: StandIn, repo: GitRepo, tmp_path: Path, told: bool
) -> None:
    daemon = start(make_daemon, github, repo, **({} if told else {"interval": "1s", "reconcile": "1s"}))
    stored, number = stored_tree(daemon), github.repository("octo/data").id
    other = GitRepo.init(tmp_path / "other.git")
    head = other.commit({"other.md": b"another history\n"})
    with Counted(github) as counted:
        recreated = github.recreate("octo/data", other.path)
        if told:
            github.hook("octo/data", daemon.webhook_url, SECRET)
            github.push("octo/data", "main", None, head)
        daemon.wait_head(head)
        daemon.wait_idle()
    assert counted.requests <= 20 + 2 * counted.seconds
    assert_equal_to_git(daemon, other)
    wait_for(lambda: daemon.repository()["id"] == recreated.id, "the new number")
    assert error(daemon) == ""
    old = f"octo/data~{number}"
    assert stored_tree(daemon, name=old) == stored
    assert (daemon.repository(old)["id"], state(daemon, old)) == (number, "gone")
    assert "another repository is octo/data" in error(daemon, old)
    assert [one["full_name"] for one in daemon.items("/api/v1/repositories")] == ["octo/data"]
    assert daemon.post(f"/api/v1/repositories/{old}/sync").status_code == 409
    wait_for(lambda: fresh(daemon), "all to have been seen just now")


# -- the default branch -----------------------------------------------------------------------------


def test_a_deleted_branch_is_served_on_and_tells_when_it_was_last_seen(
    synced: Daemon, github: StandIn, repo: GitRepo
) -> None:
    head = repo.head()
    repo.reset("other", head)
    repo.delete_branch("main")
    github.push("octo/data", "main", head, None)
    wait_for(lambda: state(synced) == "gone", "the branch to be marked")
    marked = now_of(synced)
    wait_for(lambda: now_of(synced) > marked + timedelta(seconds=5), "looks that do not find it either")
    served = synced.get(f"{DATA}/raw/README.md")
    assert served.content == b"# Data\n"
    assert datetime.fromisoformat(served.headers["X-Confirmed-At"]) <= marked
    assert synced.branch()["confirmed_at"] == served.headers["X-Confirmed-At"]
    wait_for(lambda: fresh(synced), "what is told of it to have been seen just now")
    repo.reset("main", head)
    wait_for(lambda: state(synced) == "fresh", "the branch that was made again")
    assert datetime.fromisoformat(synced.branch()["confirmed_at"]) > marked


def now_of(daemon: Daemon) -> datetime:
    """When GitHub was looked at last."""
    return datetime.fromisoformat(daemon.repository()["polled_at"])


def test_a_renamed_default_branch_keeps_its_snapshot(idle: Daemon, github: StandIn, repo: GitRepo) -> None:
    runs = len(idle.runs())
    repo.rename_branch("main", "trunk")
    github.set_default_branch("octo/data", "trunk", deliver=True)
    wait_for(lambda: idle.repository()["default_branch"] == "trunk", "the new name of the branch")
    assert_equal_to_git(idle, repo, "trunk")
    assert len(idle.runs()) == runs
    assert idle.branch("main") is None
    head = repo.commit({"on.md": b"on\n"}, branch="trunk")
    github.push("octo/data", "trunk", None, head)
    idle.wait_head(head, "trunk")


@pytest.mark.parametrize("graphql", [True, False], ids=["graphql", "rest"])
def test_another_default_branch_is_another_branch_and_synced_at_once(
    make_daemon: MakeDaemon, github: StandIn, repo: GitRepo, graphql: bool
) -> None:
    github.graphql_enabled = graphql
    idle = start(make_daemon, github, repo)
    repo.reset("dev", repo.head() or "")
    head = repo.commit({"dev.md": b"only here\n"}, branch="dev")
    with Counted(github) as counted:
        github.set_default_branch("octo/data", "dev", deliver=True)
        idle.wait_head(head, "dev")
        idle.wait_idle()
    assert counted.requests <= 12
    assert idle.get(f"{DATA}/raw/dev.md").content == b"only here\n"
    assert idle.get(f"{DATA}/files").headers["X-Commit-Sha"] == head
    assert_equal_to_git(idle, repo, "dev")
    assert idle.branch("main") is None


# -- flags ------------------------------------------------------------------------------------------


def test_an_archived_repository_is_marked_and_served(idle: Daemon, github: StandIn, repo: GitRepo) -> None:
    assert idle.repository()["archived"] is False
    github.repository("octo/data").archived = True
    github.event("octo/data", "repository", {"action": "archived"})
    wait_for(lambda: idle.repository()["archived"], "it to be marked as archived")
    assert state(idle) == "fresh"
    assert_equal_to_git(idle, repo)


@pytest.mark.parametrize("graphql", [True, False], ids=["graphql", "rest"])
@pytest.mark.parametrize("status", [451, 403])
def test_a_blocked_repository_is_kept_and_says_so(
    make_daemon: MakeDaemon, github: StandIn, repo: GitRepo, status: int, graphql: bool
) -> None:
    github.graphql_enabled = graphql
    daemon = start(make_daemon, github, repo, interval="1s", reconcile="1s")
    with Counted(github) as counted:
        github.repository("octo/data").blocked = status
        wait_for(lambda: len(daemon.log_lines("poll.repository_failed")) >= 3, "three looks that are refused")
    assert counted.requests <= 3 * 3 + counted.seconds
    assert state(daemon) == "failed"
    assert "blocked" in error(daemon)
    assert_equal_to_git(daemon, repo)
    head = repo.commit({"more.md": b"more\n"})
    github.repository("octo/data").blocked = None
    assert daemon.post(f"{DATA}/sync").status_code == 202
    daemon.wait_head(head)
    wait_for(lambda: state(daemon) == "fresh", "it to be well", seconds=60)


def test_an_empty_repository_is_synced_from_its_first_push(
    make_daemon: MakeDaemon, github: StandIn, tmp_path: Path
) -> None:
    repo = GitRepo.init(tmp_path / "empty.git")
    github.add("octo/data", repo.path)
    daemon = make_daemon().start()
    wait_for(lambda: _there(daemon, "octo/data") and state(daemon) == "empty", "it to be empty")
    github.hook("octo/data", daemon.webhook_url, SECRET)
    head = repo.commit({"first.md": b"first\n"})
    with Counted(github) as counted:
        answered = github.push("octo/data", "main", None, head)
        daemon.wait_head(head)
        daemon.wait_idle()
    assert answered is not None
    assert answered.json()["status"] == "accepted"
    assert counted.requests <= 12
    assert (state(daemon), error(daemon)) == ("fresh", "")
    assert_equal_to_git(daemon, repo)


# -- who asks, and how much -------------------------------------------------------------------------


@pytest.fixture
def with_file(make_daemon: MakeDaemon, tmp_path: Path) -> tuple[Daemon, Path]:
    token = tmp_path / "token"
    token.write_text(TOKEN, encoding="utf-8")
    token.chmod(0o600)
    return make_daemon(token=None, sections={"github": f'token_file = "{token}"'}, interval="1s", reconcile="1s"), token


def test_a_revoked_token_is_told_and_a_new_one_is_used_without_a_restart(
    with_file: tuple[Daemon, Path], github: StandIn, repo: GitRepo
) -> None:
    daemon, token = with_file
    daemon.start()
    daemon.wait_head(repo.head())
    daemon.wait_idle()
    github.hook("octo/data", daemon.webhook_url, SECRET)
    with Counted(github) as counted:
        github.token = "ghp_Another" + "0" * 29
        head = repo.commit({"later.md": b"later\n"})
        answered = github.push("octo/data", "main", None, head)
        wait_for(lambda: "github.token" in error(daemon), "the token to be told")
        wait_for(lambda: len(daemon.log_lines("poll.put_off")) >= 3, "three looks that are put off")
    assert answered is not None
    assert answered.json()["status"] == "accepted"
    assert counted.requests <= 3 + counted.seconds / 5
    assert daemon.head() != head
    assert daemon.get("/readyz").status_code == 200
    token.write_text(github.token, encoding="utf-8")
    daemon.wait_head(head, seconds=90)
    wait_for(lambda: (state(daemon), error(daemon)) == ("fresh", ""), "all to be well", seconds=60)
    assert TOKEN not in daemon.log.read_text(encoding="utf-8")


LIMITS = {
    "primary": lambda github: github.limit(remaining=0, reset_in=4),
    "secondary 403": lambda github: github.secondary_limit(2, retry_after=4),
    "secondary 429": lambda github: github.secondary_limit(2, retry_after=4, status=429),
}


@pytest.mark.parametrize("graphql", [True, False], ids=["graphql", "rest"])
@pytest.mark.parametrize("kind", LIMITS)
def test_a_limit_silences_everything_until_its_end_and_costs_nothing(
    make_daemon: MakeDaemon, github: StandIn, repo: GitRepo, kind: str, graphql: bool
) -> None:
    github.graphql_enabled = graphql
    daemon = start(make_daemon, github, repo, interval="1s", reconcile="1s")
    head = repo.commit({"later.md": b"later\n"})
    LIMITS[kind](github)
    with Counted(github) as counted:
        answered = github.push("octo/data", "main", None, head)
        wait_for(lambda: "rate limit" in error(daemon), "the limit to be told")
        assert daemon.get(f"{DATA}/files").status_code == 200
        daemon.wait_head(head, seconds=90)
        daemon.wait_idle(seconds=60)
    assert answered is not None
    assert answered.json()["status"] == "accepted"
    assert counted.requests <= 20 + 2 * counted.seconds
    refused = [one for one in daemon.log_lines("run.waiting") if "rate limit" in one["error"]]
    assert len(refused) <= 4
    assert all(run["outcome"] != "failed" for run in daemon.runs())
    wait_for(lambda: (state(daemon), error(daemon)) == ("fresh", ""), "all to be well", seconds=60)
    assert_equal_to_git(daemon, repo)
