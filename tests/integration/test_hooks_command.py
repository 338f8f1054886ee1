"""`headwater hooks` against a stand-in: what it finds, what it changes, and what it leaves alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from click.testing import CliRunner, Result
from harness import SECRET, Daemon

from daemon.cli import cli
from daemon.clock import Clock
from daemon.commands.hooks import doubts
from daemon.demo.standin import StandIn
from daemon.demo.standin.deliveries import Hook
from daemon.demo.standin.gitrepo import GitRepo
from daemon.store.database import Database

BASE = "http://127.0.0.1:1"  # nobody listens there
URL = BASE + "/api/v1/webhooks/github"
PUBLIC = {"webhook": f'public_url = "{BASE}"'}
NAME = "octo/data"


class Bench:
    """The command with a configuration of its own, and what GitHub has of hooks afterwards."""

    def __init__(self, github: StandIn, daemon: Daemon) -> None:
        self.github = github
        self.daemon = daemon

    def run(self, *arguments: str, answer: str | None = None) -> Result:
        self.github.requests.clear()
        return CliRunner().invoke(cli, ["-c", str(self.daemon.config), "hooks", *arguments], input=answer)

    def rows(self, *arguments: str, code: int = 0) -> list[dict[str, Any]]:
        ended = self.run(*arguments, "--json")
        assert ended.exit_code == code, ended.output
        return list(json.loads(ended.stdout)["hooks"])

    def states(self, *arguments: str, code: int = 0) -> list[tuple[str, str]]:
        return [(row["repository"], row["state"]) for row in self.rows(*arguments, code=code)]

    def hooks(self, name: str = NAME) -> list[Hook]:
        return self.github.deliveries.hooks(self.github.repository(name).id)

    def writes(self) -> list[str]:
        return [one.method for one in self.github.requests.all() if one.method != "GET"]


@pytest.fixture
def make(github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon]) -> Callable[..., Bench]:
    return lambda **settings: Bench(github, make_daemon(**{"sections": PUBLIC, **settings}))


@pytest.fixture
def bench(make: Callable[..., Bench]) -> Bench:
    return make()


# -- install ----------------------------------------------------------------------------------------


def test_a_hook_is_made_with_json_the_secret_and_both_events(bench: Bench) -> None:
    assert bench.states("install") == [(NAME, "created")]
    (hook,) = bench.hooks()
    assert (hook.url, hook.secret, hook.content_type) == (URL, SECRET, "json")
    assert (hook.events, hook.active) == (("push", "repository"), True)


def test_a_second_install_writes_nothing_and_says_so(bench: Bench) -> None:
    bench.run("install")
    assert bench.states("install") == [(NAME, "unchanged")]
    assert bench.writes() == []
    assert "as it should be" in bench.run("install").stdout


@pytest.mark.parametrize(
    "spoil",
    [
        {"events": ("push",)},
        {"events": ("issues",)},
        {"content_type": "form"},
        {"active": False},
        {"secret": None},
    ],
)
def test_a_hook_that_is_wrong_is_corrected_and_keeps_its_other_events(bench: Bench, spoil: dict[str, Any]) -> None:
    bench.run("install")
    (hook,) = bench.hooks()
    for name, value in spoil.items():
        setattr(hook, name, value)
    assert bench.states("list") == [(NAME, "wrong")]
    assert bench.states("install") == [(NAME, "corrected")]
    assert bench.writes() == ["PATCH"]
    assert (hook.url, hook.secret, hook.content_type, hook.active) == (URL, SECRET, "json", True)
    assert set(hook.events) == {*spoil.get("events", ()), "push", "repository"}
    assert bench.states("list") == [(NAME, "ok")]


def test_a_store_that_is_just_being_opened_costs_a_warning_and_not_the_webhook(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemon.commands.sync.STARTING_SECONDS", 0.0)
    with closing(Database.open(bench.daemon.database, clock=Clock())):
        ended = bench.run("install")
    assert ended.exit_code == 0
    assert "created" in ended.stdout
    assert "warning: `headwater status` may tell the old state" in ended.stderr
    assert bench.run("install").stderr == ""


def test_the_secret_is_sent_again_only_when_asked(bench: Bench) -> None:
    bench.run("install")
    (hook,) = bench.hooks()
    hook.secret = "an old one"
    assert bench.states("install") == [(NAME, "unchanged")]  # GitHub shows ******** of any
    assert bench.states("install", "--rotate-secret") == [(NAME, "corrected")]
    assert hook.secret == SECRET


def test_without_a_secret_no_hook_is_made(make: Callable[..., Bench]) -> None:
    bench = make(secret=None)
    ended = bench.run("install")
    assert ended.exit_code == 1
    assert "webhook.secret_file" in str(ended.exception)
    assert bench.hooks() == []


def test_without_a_token_nothing_is_managed(make: Callable[..., Bench]) -> None:
    ended = make(token=None, sections={**PUBLIC, "github": "anonymous = true"}).run("list")
    assert ended.exit_code == 1
    assert "github.token" in str(ended.exception)


def test_nothing_that_is_printed_holds_a_secret(bench: Bench) -> None:
    for arguments in (("install",), ("list",), ("list", "--json"), ("redeliver",), ("remove", "--yes")):
        assert SECRET not in bench.run(*arguments).output


def test_what_github_rejects_is_told_in_its_words(bench: Bench) -> None:
    bench.run("install")
    (hook,) = bench.hooks()
    hook.url = "http://127.0.0.1:1/elsewhere"
    bench.github.faults.add(r"/hooks$", _reject(), method="POST")
    ended = bench.run("install")
    assert ended.exit_code == 1
    assert "isn't reachable over the public Internet" in ended.stdout


def _reject() -> Any:
    from daemon.demo.standin.faults import Status

    words = "url is not supported because it isn't reachable over the public Internet (127.0.0.1)"
    return Status(422, {"message": "Validation Failed", "errors": [{"resource": "Hook", "message": words}]})


@pytest.mark.parametrize("url", ["https://h.example/x", "http://localhost:1/x", "http://[::1]/x"])
def test_tls_and_loopback_are_beyond_doubt(url: str) -> None:
    assert doubts(url) is None


def test_plain_http_over_a_network_is_warned_about(bench: Bench) -> None:
    ended = bench.run("install", "--url", "http://hooks.example")
    assert "plain http" in ended.stderr
    assert bench.hooks()[0].url == "http://hooks.example/api/v1/webhooks/github"


# -- list -------------------------------------------------------------------------------------------


def test_other_hooks_are_shown_and_ours_is_said_to_be_missing(bench: Bench) -> None:
    bench.github.hook(NAME, "https://ci.example/hook", None, events=("push",))
    other, missing = bench.rows("list")
    assert (other["state"], other["url"], other["events"]) == ("other", "https://ci.example/hook", ["push"])
    assert (missing["state"], missing["repository"]) == ("missing", NAME)
    assert "headwater hooks install" in bench.run("list").stdout


def test_the_last_response_is_shown(bench: Bench) -> None:
    bench.github.hook(NAME, URL, SECRET)
    bench.github.deliveries.fail(403)
    bench.github.ping(NAME)
    (row,) = bench.rows("list")
    assert (row["active"], row["content_type"], row["secret"]) == (True, "json", True)
    assert "403" in row["last_response"]
    assert "active, json, *, last response 403" in bench.run("list").stdout


@pytest.mark.parametrize("scopes", ["repo", None])
def test_who_may_not_look_is_told_what_it_takes(bench: Bench, scopes: str | None) -> None:
    bench.github.scopes = scopes
    bench.github.repository(NAME).admin = False
    (row,) = bench.rows("list", code=1)
    assert row["state"] == "failed"
    assert "admin:repo_hook" in row["message"]


def test_one_repository_that_is_not_there_does_not_keep_the_others_from_theirs(
    make: Callable[..., Bench], github: StandIn, repo: GitRepo
) -> None:
    bench = make(repositories=("octo/none", "octo/data"))
    assert bench.states("install", code=1) == [("octo/none", "failed"), ("octo/data", "created")]


def test_a_renamed_repository_is_managed_under_its_new_name(bench: Bench) -> None:
    bench.github.rename(NAME, "octo/new")
    assert bench.states("install") == [("octo/new", "created")]
    assert bench.states("remove", "--yes") == [("octo/new", "removed")]


# -- which ones -------------------------------------------------------------------------------------


def test_names_narrow_and_one_that_is_not_configured_is_wrong_usage(
    make: Callable[..., Bench], github: StandIn, repo: GitRepo
) -> None:
    github.add("octo/two", repo.path)
    bench = make(repositories=("octo/data", "octo/two"))
    assert bench.states("list", "OCTO/two") == [("octo/two", "missing")]
    assert len(bench.states("list")) == 2
    ended = bench.run("list", "octo/other")
    assert ended.exit_code == 2
    assert "octo/data, octo/two" in ended.stderr


def test_an_organisation_has_hooks_of_its_own(bench: Bench) -> None:
    assert bench.states("install", "--org", code=1) == [("octo/*", "failed")]
    bench.github.scopes = "repo, admin:org_hook"
    assert bench.states("install", "--org") == [("octo/*", "created")]
    assert bench.states("install", "--org") == [("octo/*", "unchanged")]
    assert bench.writes() == []
    assert bench.states("list") == [(NAME, "missing")]
    assert bench.states("remove", "--org", "--yes") == [("octo/*", "removed")]


def test_all_of_an_owner_is_an_organisation_and_one_of_them_a_repository(make: Callable[..., Bench]) -> None:
    bench = make(repositories=("octo/*",))
    bench.github.scopes = "repo, admin:org_hook"
    assert bench.states("list") == [("octo/*", "missing")]
    assert bench.states("list", NAME) == [(NAME, "missing")]


@pytest.mark.parametrize("command", ["list", "install", "test", "redeliver", "remove"])
def test_without_a_url_it_is_wrong_usage_that_says_what_to_set(make: Callable[..., Bench], command: str) -> None:
    ended = make(sections={}).run(command)
    assert ended.exit_code == 2
    assert "webhook.public_url" in ended.stderr


@pytest.mark.parametrize("url", ["nonsense", "https://user:hunter2@h.example"])
def test_a_url_that_is_none_is_wrong_usage(bench: Bench, url: str) -> None:
    ended = bench.run("list", "--url", url)
    assert ended.exit_code == 2
    assert "hunter2" not in ended.output


# -- remove -----------------------------------------------------------------------------------------


def test_only_hooks_that_lead_here_are_removed_and_on_a_terminal_only_when_confirmed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemon.cli_hooks._on_terminal", lambda: True)
    bench.run("install")
    other = bench.github.hook(NAME, "https://ci.example/hook", None)
    for answer in ("n\n", ""):
        assert bench.run("remove", answer=answer).exit_code == 1
        assert len(bench.hooks()) == 2
    ended = bench.run("remove", answer="y\n")
    assert ended.exit_code == 0
    assert "removed" in ended.stdout
    assert bench.hooks() == [other]
    assert bench.states("remove") == [(NAME, "nothing")]
    assert bench.writes() == []


def test_where_nobody_can_be_asked_they_are_removed(bench: Bench) -> None:
    bench.run("install")
    assert bench.states("remove") == [(NAME, "removed")]
    assert bench.hooks() == []


# -- redeliver --------------------------------------------------------------------------------------


def failed_and_good(bench: Bench) -> list[str]:
    """Two deliveries that failed (one of them twice) around one that did not; the GUIDs of the failed, newest first."""
    bench.github.hook(NAME, URL, SECRET)
    guids = []
    for outcome in ("timed out", 200, 503):
        bench.github.deliveries.fail(outcome)
        result = bench.github.ping(NAME)
        assert result is not None
        guids.append(result.guid)
    bench.github.deliveries.fail("timed out")
    bench.github.redeliver(guids[0])
    return [guids[0], guids[2]]


def test_what_failed_is_sent_again_once(bench: Bench) -> None:
    failed = failed_and_good(bench)
    rows = bench.rows("redeliver", "--dry-run")
    assert ([row["guid"] for row in rows], bench.writes()) == (failed, [])
    bench.github.deliveries.fail(200, times=2)
    rows = bench.rows("redeliver")
    assert [(row["guid"], row["status"]) for row in rows] == [
        (failed[0], "timed out"),
        (failed[1], "Invalid HTTP Response: 503"),
    ]
    assert bench.writes() == ["POST", "POST"]
    bench.github.deliveries.close()
    assert bench.states("redeliver") == [(NAME, "nothing")]


def test_a_redelivery_that_failed_is_sent_again_as_well(bench: Bench) -> None:
    failed_and_good(bench)
    bench.github.deliveries.fail(503, times=2)
    bench.run("redeliver")
    bench.github.deliveries.close()
    assert len(bench.rows("redeliver", "--dry-run")) == 2


# -- test -------------------------------------------------------------------------------------------


def test_a_test_without_a_daemon_says_so(bench: Bench) -> None:
    ended = bench.run("test")
    assert ended.exit_code == 1
    assert "no daemon runs" in str(ended.exception)
    assert bench.writes() == []
