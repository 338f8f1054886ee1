"""Webhooks over the API, as the client has them: against the stand-in, and against answers that are not what they seem."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from engines import PATIENCE_SECONDS
from github_peer import Peer, http
from harness import TOKEN, wait_for

from daemon.clock import Clock
from daemon.demo.standin import StandIn
from daemon.demo.standin.gitrepo import GitRepo
from daemon.errors import BadAnswer, Forbidden, Rejected, RepositoryNotFound
from daemon.github.client import GitHubClient
from daemon.github.exchange import ClientSettings
from daemon.github.governor import Governor
from daemon.github.hooks import (
    EVENTS,
    Attempts,
    Hook,
    HookPlace,
    LoggedDelivery,
    by_guid,
    leads_to,
    of_organisation,
    of_repository,
    shortcomings,
    wanted_events,
)
from daemon.model import RepositoryRef

PLACE = of_repository(RepositoryRef("octo", "data"))
URL = "http://127.0.0.1:1/hook"
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def client_of(url: str) -> GitHubClient:
    settings = ClientSettings(url, f"{url}/graphql", PATIENCE_SECONDS, lambda: TOKEN)
    return GitHubClient(settings, clock=Clock(), governor=Governor(Clock()))


@pytest.fixture
def client(github: StandIn, repo: GitRepo) -> Iterator[GitHubClient]:
    client = client_of(github.url)
    yield client
    client.close()


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer()
    yield peer
    peer.close()


def attempt(number: int, guid: str = "g", *, redelivery: bool = False, status: str = "OK") -> LoggedDelivery:
    return LoggedDelivery(number, guid, "push", NOON + timedelta(minutes=number), redelivery, status, 0)


# -- pure -------------------------------------------------------------------------------------------


def test_attempts_of_one_delivery_are_one_group_whatever_their_order() -> None:
    first, lost, again = attempt(1, "a", status="timed out"), attempt(2, "b"), attempt(3, "a", redelivery=True)
    for order in ([first, lost, again], [again, lost, first], [lost, again, first]):
        assert by_guid(order) == [Attempts(again, first), Attempts(lost, lost)]


def test_a_delivery_of_which_only_redeliveries_were_read_has_no_first_attempt() -> None:
    again = attempt(3, redelivery=True)
    assert by_guid([again]) == [Attempts(again, None)]
    assert by_guid([]) == []


@pytest.mark.parametrize("url", ["https://h.example/x?y=1", "HTTPS://H.example/x?y=1"])
def test_the_case_of_a_host_does_not_make_another_url(url: str) -> None:
    assert leads_to(hook(url=url), "https://h.example/x?y=1")
    assert not leads_to(hook(url=url), "https://h.example/X?y=1")
    assert not leads_to(hook(url="http://[broken"), url)


def hook(**changes: object) -> Hook:
    facts = {"id": 1, "url": URL, "active": True, "events": EVENTS, "content_type": "json", "has_secret": True}
    return Hook(**{**facts, "insecure_ssl": "0", "last_response": "", **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ""),
        ({"events": ("*",)}, ""),
        ({"events": ("issues", "push", "repository")}, ""),
        ({"active": False}, "switched off"),
        ({"content_type": "form"}, "form"),
        ({"has_secret": False}, "no secret"),
        ({"events": ("push",)}, "repository events"),
    ],
)
def test_what_is_wrong_with_a_hook_is_told(changes: dict[str, object], words: str) -> None:
    told = "; ".join(shortcomings(hook(**changes)))
    assert words in told if words else told == ""


def test_events_that_somebody_else_wants_are_kept() -> None:
    assert wanted_events(("issues", "push")) == ("issues", "push", "repository")


@pytest.mark.parametrize("login", ["", ".", ".."])
def test_a_name_that_would_lead_elsewhere_is_refused(login: str) -> None:
    with pytest.raises(RepositoryNotFound):
        of_organisation(login)


# -- over the API -----------------------------------------------------------------------------------


def test_a_hook_is_made_corrected_and_removed(github: StandIn, client: GitHubClient) -> None:
    made = client.hooks.create(PLACE, URL, "s")
    assert (made.url, made.events, made.content_type, made.has_secret) == (URL, EVENTS, "json", True)
    (served,) = github.deliveries.hooks(github.repository("octo/data").id)
    served.active, served.events, served.content_type, served.secret = False, ("issues",), "form", None
    (found,) = client.hooks.at(PLACE)
    assert len(shortcomings(found)) == 4
    mended = client.hooks.correct(PLACE, found, "s2")
    assert (mended.events, shortcomings(mended), served.secret) == (("issues", *EVENTS), (), "s2")
    client.hooks.remove(PLACE, mended.id)
    assert client.hooks.at(PLACE) == []


def test_a_hook_that_is_there_already_is_rejected_with_githubs_words(client: GitHubClient) -> None:
    client.hooks.create(PLACE, URL, "s")
    with pytest.raises(Rejected, match="Hook already exists"):
        client.hooks.create(PLACE, URL, "s")


def test_an_organisations_hooks_are_another_place(github: StandIn, client: GitHubClient) -> None:
    place = of_organisation("octo")
    with pytest.raises(Forbidden, match="admin:org_hook"):
        client.hooks.at(place)
    github.scopes = "admin:org_hook, repo"
    made = client.hooks.create(place, URL, "s")
    assert client.hooks.at(place)[0].id == made.id
    assert client.hooks.at(PLACE) == []


def test_the_log_is_read_over_its_pages_until_an_instant(github: StandIn, client: GitHubClient) -> None:
    hook = github.hook("octo/data", URL, "s")
    github.deliveries.fail(403, times=5)
    for _ in range(5):
        github.ping("octo/data")
    read = client.hooks.deliveries(PLACE, hook.id, pages=9, size=2)
    assert [one.status for one in read] == ["Invalid HTTP Response: 403"] * 5
    assert [one.id for one in read] == sorted((one.id for one in read), reverse=True)
    assert len(client.hooks.deliveries(PLACE, hook.id, pages=2, size=2)) == 4
    github.requests.clear()
    assert len(client.hooks.deliveries(PLACE, hook.id, since=read[0].delivered_at, pages=9, size=2)) == 2
    assert len(github.requests.paths()) == 1


def test_what_a_push_was_about_is_in_its_payload(github: StandIn, repo: GitRepo, client: GitHubClient) -> None:
    hook = github.hook("octo/data", URL, "s")
    github.deliveries.fail("timed out", times=2)
    github.push("octo/data", "main", repo.log()[-1], repo.head())
    github.ping("octo/data")
    ping, push = client.hooks.deliveries(PLACE, hook.id)
    assert client.hooks.ref(PLACE, hook.id, push.id) == "refs/heads/main"
    assert client.hooks.ref(PLACE, hook.id, ping.id) is None
    github.deliveries.fail("timed out")
    client.hooks.redeliver(PLACE, hook.id, push.id)
    wait_for(lambda: client.hooks.deliveries(PLACE, hook.id)[0].redelivery, "the redelivery")


@pytest.mark.parametrize(
    "body",
    [{}, [7], [{"id": "x"}], [{"id": 1, "config": [], "events": []}], [{"id": 1, "config": {}, "events": 7}]],
)
def test_hooks_of_another_shape_are_a_bad_answer(peer: Peer, body: object) -> None:
    peer.on("/repos/octo/data/hooks?per_page=100&page=1", http(200, json.dumps(body)))
    client = client_of(peer.url)
    with pytest.raises(BadAnswer, match="octo/data webhooks"):
        client.hooks.at(PLACE)
    client.close()


@pytest.mark.parametrize("field", ["id", "guid", "delivered_at"])
def test_a_delivery_without_what_is_used_is_a_bad_answer(peer: Peer, field: str) -> None:
    whole = {"id": 1, "guid": "g", "delivered_at": "2026-05-01T12:00:00Z", "status": "OK", "event": "push"}
    peer.on("/repos/octo/data/hooks/1/deliveries?per_page=100", http(200, [{**whole, field: None}]))
    client = client_of(peer.url)
    with pytest.raises(BadAnswer):
        client.hooks.deliveries(PLACE, 1)
    client.close()


def test_a_link_to_another_host_is_not_followed_only_its_cursor_is_used(peer: Peer) -> None:
    one = {"id": 1, "guid": "g", "delivered_at": "2026-05-01T12:00:00Z", "status": "OK", "event": "push"}
    link = '<http://evil.example/steal?cursor=v1%2F7>; rel="next"'
    peer.on("/repos/octo/data/hooks/1/deliveries?per_page=100", http(200, [one], Link=link))
    peer.on("/repos/octo/data/hooks/1/deliveries?per_page=100&cursor=v1%2F7", http(200, [{**one, "id": 0}]))
    client = client_of(peer.url)
    assert [found.id for found in client.hooks.deliveries(PLACE, 1, pages=5)] == [1, 0]
    client.close()


def test_the_place_of_a_hook_is_known_by_name() -> None:
    assert HookPlace("octo/data", "/repos/octo/data", RepositoryRef("octo", "data")) == PLACE
    assert of_organisation("octo").name == "octo/*"
