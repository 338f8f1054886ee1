"""The daemon as a GitHub App with installations at several owners."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from app_key import AppKey, make_key
from harness import Daemon, assert_equal_to_git, wait_for

from daemon.demo.standin import StandIn
from daemon.demo.standin.faults import Status
from daemon.demo.standin.gitrepo import GitRepo

REPOSITORIES = ("octo/data", "acme/site", "lost/one")


@pytest.fixture
def github(app_key: AppKey) -> Iterator[StandIn]:
    with StandIn(token="nobody has this one") as standin:
        standin.apps.register("7", app_key.public)
        yield standin


@pytest.fixture
def repo(tmp_path: Path, github: StandIn) -> GitRepo:
    repo = GitRepo.init(tmp_path / "served.git")
    repo.commit({"README.md": b"# Data\n", "docs/index.md": b"welcome\n"}, "Begin")
    for name in REPOSITORIES:
        github.add(name, repo.path, private=True)
    return repo


@pytest.fixture
def daemon(tmp_path: Path, app_key: AppKey, make_daemon: Callable[..., Daemon], repo: GitRepo) -> Daemon:
    key = tmp_path / "app.pem"
    key.write_text(app_key.private)
    section = f'app_id = 7\nprivate_key_file = "{key}"'
    return make_daemon(token=None, interval="1s", repositories=REPOSITORIES, sections={"github": section})


def test_several_owners_are_synced_each_through_its_own_installation(
    github: StandIn, repo: GitRepo, daemon: Daemon
) -> None:
    octo, acme = github.apps.install("octo"), github.apps.install("acme")
    github.apps.late_seconds = 1.0
    daemon.start()
    for name in ("octo/data", "acme/site"):
        daemon.wait_head(repo.head(), name=name)
        assert_equal_to_git(daemon, repo, name=name)
    error = wait_for(lambda: daemon.repository("lost/one")["last_error"], "the owner without the App to be told")
    assert "GitHub App 7 is not installed for lost" in error
    github.apps.revoke_tokens()
    after = repo.commit({"docs/more.md": b"more\n"}, "More")
    for name in ("octo/data", "acme/site"):
        daemon.wait_head(after, name=name)
    accounts = daemon.get("/api/v1/status").json()["github"]["budget"]["accounts"]
    assert {f"installation {octo.id}", f"installation {acme.id}", "GitHub App 7"} == set(accounts)
    assert daemon.stop() == 0


def test_an_installation_at_its_limit_stops_no_other(github: StandIn, repo: GitRepo, daemon: Daemon) -> None:
    octo, _ = github.apps.install("octo"), github.apps.install("acme")
    daemon.start()
    for name in ("octo/data", "acme/site"):
        daemon.wait_head(repo.head(), name=name)
    github.limit(remaining=0, reset_in=3600, installation=octo)
    wait_for(lambda: "rate limit" in (daemon.repository("octo/data")["last_error"] or ""), "the limit to be noticed")
    before, after = repo.head(), repo.commit({"docs/more.md": b"more\n"}, "More")
    daemon.wait_head(after, name="acme/site")
    assert daemon.head(name="octo/data") == before


def test_check_names_the_app_its_installations_and_what_is_missing(
    github: StandIn, repo: GitRepo, daemon: Daemon
) -> None:
    octo = github.apps.install("octo", ["data"])
    github.apps.install("elsewhere")
    assert "GitHub App 7, with the installation of each repository's owner" in daemon.cli("check").stdout
    ended = daemon.cli("check", "--online", "--json")
    found = {one["subject"]: one for one in json.loads(ended.stdout)["findings"] if one["subject"] != "github"}
    assert ended.returncode == 1
    assert "GitHub App 7 (headwater-app), 2 installations" in ended.stdout
    shown = found[f"installation {octo.id}"]
    assert shown["message"].startswith("of octo, selected repositories; core: ")
    assert found["octo/data"]["ok"]
    assert "GitHub App 7 is not installed for acme" in found["acme/site"]["message"]
    assert sum(subject.startswith("installation ") for subject in found) == 1


def test_check_says_when_the_key_is_not_the_apps(github: StandIn, repo: GitRepo, daemon: Daemon) -> None:
    github.apps.register("7", make_key().public)
    ended = daemon.cli("check", "--online")
    assert ended.returncode == 1
    assert "check github.app_id, github.private_key_file and this machine's clock" in ended.stdout


def test_sync_and_verify_work_without_a_daemon(github: StandIn, repo: GitRepo, daemon: Daemon) -> None:
    github.apps.install("octo")
    assert daemon.cli("sync", "octo/data").returncode == 0
    assert "ok: 2 entries prove" in daemon.cli("verify", "octo/data").stdout


def test_a_token_beside_the_app_ends_with_78(daemon: Daemon) -> None:
    daemon.write_config(token="ghp_another")
    ended = daemon.cli("run")
    assert ended.returncode == 78
    assert "github.app_id: and github.token are both set" in ended.stderr


def test_neither_key_nor_tokens_are_shown_anywhere(
    github: StandIn, repo: GitRepo, daemon: Daemon, app_key: AppKey
) -> None:
    github.apps.install("octo")
    daemon.start()
    daemon.wait_head(repo.head())
    given = {one.headers.get("authorization", "").partition(" ")[2] for one in github.requests.all()} - {""}
    assert any(one.startswith("ghs_") for one in given)
    for one in given:  # errors that quote what they were about, also without what gives a token away
        echo = Status(403, {"message": f"no {one} and no {one[::-1]}"})
        github.faults.add("/graphql", echo, times=1)
        github.faults.add("/repos/octo/data/commits", echo, times=1)
    wait_for(lambda: github.requests.count("/repos/octo/data", status=403), "an error that quotes a token")
    repo.commit({"docs/more.md": b"more\n"}, "More")
    daemon.wait_head(repo.head())
    shown = "".join(daemon.get(f"/api/v1/{path}").text for path in ("status", "repositories", "runs", "deliveries"))
    assert daemon.process is not None
    shown += Path(f"/proc/{daemon.process.pid}/cmdline").read_bytes().decode()
    shown += daemon.cli("check", "--online").stdout
    assert daemon.stop() == 0
    shown += daemon.log.read_text(errors="replace")
    stored = daemon.database.read_bytes()
    secrets = [*given, *(line for line in app_key.private.splitlines() if len(line) > 40)]
    for secret in secrets:
        assert secret not in shown
        assert secret.encode() not in stored
