"""`headwater check --online` against a stand-in: what is told of the token, the repositories and their webhooks."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from click.testing import CliRunner
from harness import SECRET, Daemon

from daemon.cli import cli
from daemon.demo.standin import StandIn
from daemon.demo.standin.deliveries import Hook
from daemon.demo.standin.gitrepo import GitRepo

BASE = "http://127.0.0.1:1"
URL = BASE + "/api/v1/webhooks/github"
NAME = "octo/data"


class Check:
    def __init__(self, github: StandIn, daemon: Daemon) -> None:
        self.github = github
        self.daemon = daemon

    def run(self, *, code: int = 0) -> dict[str, dict[str, Any]]:
        """The findings by subject."""
        self.github.requests.clear()
        ended = CliRunner().invoke(cli, ["-c", str(self.daemon.config), "check", "--online", "--json"])
        assert ended.exit_code == code, ended.output
        report = json.loads(ended.stdout)
        assert report["ok"] is (code == 0)
        return {finding["subject"]: finding for finding in report["findings"]}

    def webhook(self) -> dict[str, Any]:
        return dict(self.run()[NAME]["webhook"])

    def hook(self, **changes: Any) -> Hook:
        hook = self.github.hook(NAME, URL, SECRET, events=("push", "repository"))
        for name, value in changes.items():
            setattr(hook, name, value)
        return hook


@pytest.fixture
def make(github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon]) -> Callable[..., Check]:
    public = {"webhook": f'public_url = "{BASE}"'}
    return lambda **settings: Check(github, make_daemon(**{"sections": public, **settings}))


@pytest.fixture
def check(make: Callable[..., Check]) -> Check:
    return make()


# -- the token --------------------------------------------------------------------------------------


def test_the_token_is_told_with_its_numbers(check: Check) -> None:
    check.github.scopes = "repo, read:org"
    found = check.run()["github"]
    assert found["scopes"] == ["repo", "read:org"]
    assert set(found["rate_limits"]) == {"core", "graphql"}
    assert found["rate_limits"]["core"]["limit"] == 5000
    assert (found["token_expires_at"], found["warning"]) == (None, False)
    assert "core: 5000 of 5000 left" in found["message"]


@pytest.mark.parametrize(("days", "warned"), [(13, True), (15, False), (-1, True)])
def test_a_token_that_ends_soon_is_warned_about(check: Check, days: int, warned: bool) -> None:
    end = datetime.now(UTC) + timedelta(days=days)
    check.github.token_expires = f"{end:%Y-%m-%d %H:%M:%S} UTC"
    found = check.run()["github"]
    assert found["warning"] is warned
    assert found["token_expires_at"] == f"{end:%Y-%m-%dT%H:%M:%S}.000Z"
    assert ("the token ends on" in found["message"]) is warned


def test_a_refused_token_fails_and_nothing_more_is_asked(make: Callable[..., Check]) -> None:
    check = make(token="ghp_Wrong")
    found = check.run(code=1)
    said = found["github"]["message"]
    assert said.startswith("GitHub does not accept the token (401)")
    assert "make a new one" in said
    assert check.github.requests.paths() == ["/rate_limit"]


def test_a_github_that_is_not_there_has_its_address_told(check: Check) -> None:
    check.github.stop()
    said = check.run(code=1)["github"]["message"]
    assert said.startswith("GitHub cannot be reached")
    assert said.endswith(f"is github.api_url ({check.github.url}) right?")


# -- repositories -----------------------------------------------------------------------------------


def test_a_repository_is_told_with_what_the_token_may_do(check: Check) -> None:
    check.github.repository(NAME).admin = False
    found = check.run()[NAME]
    assert (found["visible"], found["permissions"], found["default_branch"]) == (True, ["triage", "pull"], "main")


def test_one_that_cannot_be_seen_fails_and_says_what_404_may_mean(check: Check) -> None:
    check.github.scopes = "read:user"
    check.github.remove(NAME)
    found = check.run(code=1)[NAME]
    assert (found["ok"], found["visible"]) == (False, False)
    for words in ("private", "scope repo", "read:user", "Contents", "single sign-on"):
        assert words in found["message"]


def test_one_that_is_blocked_fails(check: Check) -> None:
    check.github.repository(NAME).blocked = 451
    assert "blocked" in check.run(code=1)[NAME]["message"]


def test_a_new_name_is_told(check: Check) -> None:
    check.github.rename(NAME, "octo/new")
    found = check.run()[NAME]
    assert found["full_name"] == "octo/new"
    assert "now named octo/new" in found["message"]


# -- webhooks ---------------------------------------------------------------------------------------


def test_a_missing_hook_is_a_warning_because_polling_keeps_the_promise(check: Check) -> None:
    found = check.run()[NAME]
    assert (found["ok"], found["warning"], found["webhook"]["state"]) == (True, True, "absent")
    assert "headwater hooks install" in found["message"]


def test_a_hook_that_delivers_is_well(check: Check) -> None:
    check.hook()
    assert check.webhook()["last_delivery"] is None
    check.github.deliveries.fail(200)
    check.github.ping(NAME)
    found = check.run()[NAME]
    assert found["warning"] is False
    assert (found["webhook"]["state"], found["webhook"]["url"]) == ("present", URL)
    assert (found["webhook"]["last_delivery"]["ok"], found["webhook"]["last_delivery"]["event"]) == (True, "ping")


@pytest.mark.parametrize(
    ("outcome", "status", "advice"),
    [
        (403, "Invalid HTTP Response: 403", "--rotate-secret"),
        (404, "Invalid HTTP Response: 404", "webhook.path"),
        (502, "Invalid HTTP Response: 502", "logs"),
        ("timed out", "timed out", "cannot reach"),
        ("failed to connect to host", "failed to connect to host", "cannot reach"),
    ],
)
def test_a_last_delivery_that_failed_is_told_with_githubs_reason_and_what_to_do(
    check: Check, outcome: str | int, status: str, advice: str
) -> None:
    check.hook()
    check.github.deliveries.fail(outcome)
    check.github.ping(NAME)
    found = check.run()[NAME]
    assert (found["ok"], found["warning"]) == (True, True)
    assert (found["webhook"]["last_delivery"]["status"], found["webhook"]["last_delivery"]["ok"]) == (status, False)
    assert status in found["message"]
    assert advice in found["message"]


def test_a_hook_that_is_wrong_is_a_warning(check: Check) -> None:
    check.hook(active=False, content_type="form")
    found = check.run()[NAME]
    assert (found["warning"], found["webhook"]["state"]) == (True, "wrong")
    assert "switched off; its content type is form" in found["message"]


@pytest.mark.parametrize("scopes", ["repo", None])
def test_who_may_not_look_is_told_so_without_a_warning(check: Check, scopes: str | None) -> None:
    check.github.scopes = scopes
    check.github.repository(NAME).admin = False
    found = check.run()[NAME]
    assert (found["ok"], found["warning"], found["webhook"]["state"]) == (True, False, "unknown")
    assert "admin:repo_hook" in found["message"]


def test_an_organisations_hook_serves_its_repositories(
    make: Callable[..., Check], github: StandIn, repo: GitRepo
) -> None:
    github.add("octo/two", repo.path)
    github.scopes = "repo, admin:org_hook"
    check = make(repositories=("octo/data", "octo/two", "octo/*"))
    github.deliveries.add_hook(
        github.repository(NAME).owner_id,
        URL,
        SECRET,
        content_type="json",
        events=("*",),
        target_type="organization",
    )
    found = check.run()
    assert [found[name]["webhook"]["state"] for name in (NAME, "octo/two", "octo/*")] == ["present"] * 3
    assert check.github.requests.paths().count("/orgs/octo/hooks") == 1


def test_without_a_public_url_hooks_are_not_asked_about(make: Callable[..., Check]) -> None:
    check = make(sections={})
    found = check.run()
    assert "webhook" not in found[NAME]
    assert found["webhook.public_url"]["warning"] is True
    assert not any("hooks" in path for path in check.github.requests.paths())


def test_anonymous_requests_are_not_spent_on_hooks(make: Callable[..., Check], github: StandIn) -> None:
    github.token = None
    check = make(token=None, sections={"github": "anonymous = true", "webhook": f'public_url = "{BASE}"'})
    assert check.webhook()["state"] == "unknown"
    assert not any("hooks" in path for path in check.github.requests.paths())
