"""An owner's list of repositories: whole, or an error."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from engines import PATIENCE_SECONDS
from github_peer import Peer, http, then_close

from daemon import errors
from daemon.clock import Clock
from daemon.github import listing
from daemon.github.client import GitHubClient
from daemon.github.exchange import ClientSettings
from daemon.github.governor import Governor

PAGES = "per_page=100&sort=created&direction=asc"
ORG = f"/orgs/octo/repos?type=all&{PAGES}"
USER = f"/users/octo/repos?type=owner&{PAGES}"
OWN = f"/user/repos?affiliation=owner&{PAGES}"


def item(number: int, name: str | None = None, **more: object) -> dict[str, object]:
    return {"id": number, "full_name": name or f"octo/r{number}", "private": False, "fork": False} | more


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer()
    peer.on("/users/octo", http(200, {"login": "octo", "type": "Organization"}))
    yield peer
    peer.close()


@pytest.fixture
def client(peer: Peer) -> Iterator[GitHubClient]:
    client = make(peer)
    yield client
    client.close()


def make(peer: Peer, *, token: str | None = "TOKEN") -> GitHubClient:
    settings = ClientSettings(peer.url, f"{peer.url}/graphql", PATIENCE_SECONDS, lambda: token, anonymous=True)
    clock = Clock(sleep=lambda _seconds: None)
    return GitHubClient(settings, clock=clock, governor=Governor(clock=clock))


def link(peer: Peer, path: str) -> str:
    return f'<{peer.url}{path}>; rel="next", <{peer.url}/organizations/1/repos?page=9>; rel="last"'


def numbers(client: GitHubClient) -> list[int]:
    return [one.github_id for one in client.repositories_of("octo")]


def test_every_page_is_read_an_empty_one_in_the_middle_too(peer: Peer, client: GitHubClient) -> None:
    peer.on(ORG, http(200, [item(1)], Link=link(peer, "/organizations/1/repos?page=2")))
    peer.on("/organizations/1/repos?page=2", http(200, [], Link=link(peer, "/organizations/1/repos?page=3")))
    peer.on("/organizations/1/repos?page=3", http(200, [item(3, topics=["Data"], archived=True, fork=True), item(1)]))
    first, last = client.repositories_of("octo")
    assert (first.github_id, last.github_id, last.topics) == (1, 3, frozenset({"data"}))
    assert (last.archived, last.fork, last.private) == (True, True, False)


def test_a_user_is_asked_for_by_name_and_the_tokens_own_by_its_token(peer: Peer, client: GitHubClient) -> None:
    peer.on("/users/octo", http(200, {"login": "octo", "type": "User"}))
    peer.on("/user", http(200, {"login": "somebody"}))
    peer.on(USER, http(200, [item(1)]))
    assert numbers(client) == [1]
    peer.on("/user", http(200, {"login": "Octo"}))
    peer.on(OWN, http(200, [item(2, private=True), item(3, "else/where")]))
    assert numbers(client) == [2]


def test_a_token_that_is_nobodys_and_no_token_see_a_user_from_outside(peer: Peer, client: GitHubClient) -> None:
    peer.on("/users/octo", http(200, {"login": "octo", "type": "User"}))
    peer.on("/user", http(403, {"message": "Resource not accessible by integration"}))
    peer.on(USER, http(200, [item(1)]))
    assert numbers(client) == [1]
    peer.requests.clear()
    nobody = make(peer, token=None)
    assert numbers(nobody) == [1]
    nobody.close()
    assert peer.paths() == ["/users/octo", USER]


def test_an_app_is_shown_what_it_is_installed_on(peer: Peer, client: GitHubClient) -> None:
    peer.on(
        "/installation/repositories?per_page=100",
        http(200, {"total_count": 2, "repositories": [item(1), item(2, "else/where")]}),
    )
    ask = client._exchange.ask
    listed = listing.repositories(ask, "octo", api_url=peer.url, installation=True, known_caller=False)
    assert [one.github_id for one in listed] == [1]


@pytest.mark.parametrize(
    "last",
    [
        http(500, {"message": "oops"}),
        http(200, {"message": "no list"}),
        http(200, [{"id": "x", "full_name": "octo/x"}]),
        http(200, [item(2, "no-slash")]),
        http(200, "<html>"),
        then_close(b"HTTP/1.1 200 X\r\nContent-Length: 999\r\n\r\n[]"),
    ],
)
def test_a_page_that_cannot_be_read_is_an_error_and_no_shorter_list(
    peer: Peer, client: GitHubClient, last: object
) -> None:
    peer.on(ORG, http(200, [item(1)], Link=link(peer, "/organizations/1/repos?page=2")))
    peer.on("/organizations/1/repos?page=2", last)
    with pytest.raises(errors.GitHubError):
        client.repositories_of("octo")


@pytest.mark.parametrize("back_to", [ORG, "/organizations/1/repos?page=2"])
def test_pages_that_lead_in_a_circle_are_an_error(peer: Peer, client: GitHubClient, back_to: str) -> None:
    peer.on(ORG, http(200, [item(1)], Link=link(peer, "/organizations/1/repos?page=2")))
    peer.on("/organizations/1/repos?page=2", http(200, [item(2)], Link=link(peer, back_to)))
    with pytest.raises(errors.BadAnswer, match="circle"):
        client.repositories_of("octo")
    assert len(peer.requests) == 3


def test_pages_without_end_are_an_error(peer: Peer, client: GitHubClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MAX_PAGES", 3)
    peer.on(ORG, http(200, [], Link=link(peer, "/p/1")))
    for number in range(1, 9):
        peer.on(f"/p/{number}", http(200, [], Link=link(peer, f"/p/{number + 1}")))
    with pytest.raises(errors.BadAnswer, match="more than 3 pages"):
        client.repositories_of("octo")
    assert len(peer.requests) == 4


@pytest.mark.parametrize(
    "url",
    [
        "https://api.github.com/orgs/octo/repos?page=2",
        "http://127.0.0.1:1/orgs/octo/repos?page=2",
        "http://localhost/x",
        "file:///etc/passwd",
        "//evil.example/x",
        "http://user@127.0.0.1/x",
    ],
)
def test_a_next_page_elsewhere_is_not_asked_for(peer: Peer, client: GitHubClient, url: str) -> None:
    peer.on(ORG, http(200, [item(1)], Link=f'<{url}>; rel="next"'))
    with pytest.raises(errors.BadAnswer, match="does not follow"):
        client.repositories_of("octo")
    assert peer.paths() == ["/users/octo", ORG]


def test_an_owner_that_is_not_there_is_told(peer: Peer, client: GitHubClient) -> None:
    peer.on("/users/octo", http(404, {"message": "Not Found"}))
    with pytest.raises(errors.RepositoryNotFound, match="owner octo"):
        client.repositories_of("octo")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("", None),
        ('<http://h/a?page=1>; rel="prev"', None),
        ('<http://h/a?page=1>; rel="prev", <http://h/a?page=3>; rel="next"', "http://h/a?page=3"),
        ("<http://h/a?page=3>; rel=next", "http://h/a?page=3"),
        ('<http://h/a?page=3>; title="x"; REL="next"', "http://h/a?page=3"),
        ('<http://h/a?page=3>; rel="nextish"', None),
        ("<<<>;;;,,rel", None),
    ],
)
def test_the_next_page_is_read_from_the_link_header(header: str | None, expected: str | None) -> None:
    assert listing.next_page(header, at="http://h/a", api_url="http://h", asked="x") == expected
