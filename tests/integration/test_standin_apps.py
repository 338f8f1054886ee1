"""The stand-in as GitHub is to an App: what it verifies, what it shows to whom, and whose limits it counts."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
import requests
from app_key import AppKey, make_key

from daemon.clock import Clock
from daemon.demo.standin import GitRepo, Installation, StandIn

NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
GOOD = {"iat": -60, "exp": 540, "iss": "7"}


class Hands:
    """A clock that a test turns."""

    seconds = 0.0

    def clock(self) -> Clock:
        return Clock(now=lambda: NOW + timedelta(seconds=self.seconds), monotonic=lambda: self.seconds)


@pytest.fixture
def hands() -> Hands:
    return Hands()


@pytest.fixture
def github(hands: Hands, app_key: AppKey, tmp_path: Path) -> Iterator[StandIn]:
    with StandIn(token="the plain token", clock=hands.clock()) as standin:
        standin.apps.register("7", app_key.public)
        repo = GitRepo.init(tmp_path / "served.git")
        repo.commit({"README.md": b"# Data\n"})
        for name in ("octo/data", "octo/more", "acme/site"):
            standin.add(name, repo.path)
        yield standin


@pytest.fixture
def octo(github: StandIn) -> Installation:
    return github.apps.install("octo", ["data"])


def ask(github: StandIn, path: str, token: str, *, method: str = "GET", **options: Any) -> requests.Response:
    headers = {"Authorization": f"Bearer {token}", "User-Agent": "tests"}
    return requests.request(method, github.url + path, headers=headers, timeout=10, **options)


def signed(key: AppKey, **changes: Any) -> str:
    claims = GOOD | changes
    times = {name: int(NOW.timestamp()) + claims[name] for name in ("iat", "exp") if claims[name] is not None}
    return jwt.encode({"iss": claims["iss"], **times}, key.private, algorithm="RS256")


def token_of(github: StandIn, key: AppKey, installation: Installation) -> str:
    path = f"/app/installations/{installation.id}/access_tokens"
    answer = ask(github, path, signed(key), method="POST")
    assert answer.status_code == 201
    return str(answer.json()["token"])


def test_a_good_assertion_shows_the_app_and_its_installations(
    github: StandIn, app_key: AppKey, octo: Installation
) -> None:
    assertion = signed(app_key)
    assert ask(github, "/app", assertion).json()["slug"] == "headwater-app"
    (listed,) = ask(github, "/app/installations", assertion).json()
    assert (listed["id"], listed["account"]["login"]) == (octo.id, "octo")
    assert listed["repository_selection"] == "selected"
    assert ask(github, f"/app/installations/{octo.id}", assertion).json() == listed
    assert ask(github, "/repos/octo/data/installation", assertion).json() == listed
    for path in ("/app/installations/1", "/repos/octo/more/installation", "/repos/acme/site/installation"):
        assert ask(github, path, assertion).status_code == 404
    assert ask(github, "/repos/octo/data", assertion).status_code == 403


@pytest.mark.parametrize(
    "changes",
    [{"iss": "8"}, {"exp": -1}, {"exp": 601}, {"exp": None}, {"iat": 1}, {"iat": None}],
)
def test_an_assertion_with_a_wrong_claim_is_refused(github: StandIn, app_key: AppKey, changes: dict[str, Any]) -> None:
    assert ask(github, "/app", signed(app_key)).status_code == 200
    assert ask(github, "/app", signed(app_key, **changes)).status_code == 401


def test_an_assertion_of_another_key_or_algorithm_is_refused(github: StandIn, app_key: AppKey) -> None:
    assert ask(github, "/app", signed(make_key())).status_code == 401
    claims = {"iss": "7", "iat": int(NOW.timestamp()), "exp": int(NOW.timestamp()) + 60}
    assert ask(github, "/app", jwt.encode(claims, "x" * 32, algorithm="HS256")).status_code == 401
    assert ask(github, "/app", jwt.encode(claims, None, algorithm="none")).status_code == 401
    assert ask(github, "/app", "the plain token").status_code == 401


def test_an_installations_token_sees_what_the_installation_was_given(
    github: StandIn, app_key: AppKey, octo: Installation
) -> None:
    token = token_of(github, app_key, octo)
    assert ask(github, "/repos/octo/data", token).status_code == 200
    for name in ("octo/more", "acme/site"):
        assert ask(github, f"/repos/{name}", token).status_code == 404
    listed = ask(github, "/installation/repositories", token).json()
    assert [one["full_name"] for one in listed["repositories"]] == ["octo/data"]
    query = 'query { a: repository(owner: "octo", name: "data") { databaseId } b: repository(owner: "acme", name: "site") { databaseId } }'
    answer = ask(github, "/graphql", token, method="POST", json={"query": query}).json()
    assert answer["data"]["a"] is not None
    assert (answer["data"]["b"], answer["errors"][0]["type"]) == (None, "NOT_FOUND")
    assert "x-oauth-scopes" not in ask(github, "/repos/octo/data", token).headers


def test_a_token_begins_late_and_ends(github: StandIn, app_key: AppKey, octo: Installation, hands: Hands) -> None:
    github.apps.late_seconds, github.apps.lifetime_seconds = 5.0, 60.0
    token = token_of(github, app_key, octo)
    seen = []
    for at in (0.0, 4.9, 5.0, 59.9, 60.0):
        hands.seconds = at
        seen.append(ask(github, "/repos/octo/data", token).status_code)
    assert seen == [401, 401, 200, 200, 401]


def test_suspended_and_removed_installations_get_no_token(github: StandIn, app_key: AppKey, octo: Installation) -> None:
    token = token_of(github, app_key, octo)
    path = f"/app/installations/{octo.id}/access_tokens"
    octo.suspended_at = NOW
    assert ask(github, path, signed(app_key), method="POST").status_code == 403
    github.apps.uninstall(octo)
    assert ask(github, path, signed(app_key), method="POST").status_code == 404
    assert ask(github, "/repos/octo/data", token).status_code == 401


def test_every_installation_has_limits_of_its_own(github: StandIn, app_key: AppKey, octo: Installation) -> None:
    acme = github.apps.install("acme")
    github.limit(remaining=1, reset_in=60, installation=octo)
    mine, other = token_of(github, app_key, octo), token_of(github, app_key, acme)
    assert ask(github, "/repos/octo/data", mine).headers["x-ratelimit-remaining"] == "0"
    assert ask(github, "/repos/octo/data", mine).status_code == 403
    assert ask(github, "/rate_limit", mine).json()["resources"]["core"]["remaining"] == 0
    for path, token in (("/repos/acme/site", other), ("/repos/octo/data", "the plain token")):
        assert int(ask(github, path, token).headers["x-ratelimit-remaining"]) > 4000
