"""The stand-in's webhooks: what is sent, how it is signed, and the log of it."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
import requests
from harness import TOKEN

from daemon.demo.standin import GitRepo, StandIn, signature
from daemon.model import ZERO_SHA

SECRET = "It's a Secret to Everybody"
NAME = "octo/data"


@dataclass
class Received:
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """A listener that keeps what it gets and answers as told; ``answer`` None never answers."""

    status: int = 200
    answer: bytes | None = b'{"status": "accepted"}'
    got: list[Received] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)
    arrived: threading.Condition = field(default_factory=threading.Condition)
    url: str = ""

    def add(self, received: Received) -> None:
        with self.arrived:
            self.got.append(received)
            self.arrived.notify_all()

    def wait(self, count: int) -> list[Received]:
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.got) >= count, 10)
            return list(self.got)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.add(Received({name.lower(): value for name, value in self.headers.items()}, body))
            if receiver.answer is None:
                receiver.closing.wait(20)
                return
            self.send_response(receiver.status)
            self.send_header("Content-Length", str(len(receiver.answer)))
            self.end_headers()
            self.wfile.write(receiver.answer)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    receiver.url = f"http://127.0.0.1:{server.server_address[1]}/hook?x=1"
    yield receiver
    receiver.closing.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        session.headers["Authorization"] = f"Bearer {TOKEN}"
        yield session


@pytest.fixture
def hooked(github: StandIn, repo: GitRepo, receiver: Receiver) -> StandIn:
    github.hook(NAME, receiver.url, SECRET)
    return github


def payload_of(received: Received) -> dict[str, Any]:
    return dict(json.loads(received.body))


def test_the_published_vector_verifies() -> None:
    digest = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    assert signature(SECRET, b"Hello, World!") == f"sha256={digest}"


# What is sent


def test_a_push_is_sent_with_githubs_headers_and_signed_over_its_bytes(
    hooked: StandIn, repo: GitRepo, receiver: Receiver
) -> None:
    before = repo.head()
    result = hooked.push(NAME, "main", before, repo.commit({"\u00e9\u2028\U0001f600": "1"}, "\u65e5\u672c"))
    assert result is not None
    assert (result.status, result.ok, result.json()) == (200, True, {"status": "accepted"})
    (got,) = receiver.got
    assert got.headers["x-github-event"] == "push"
    assert got.headers["x-github-delivery"] == result.guid
    assert got.headers["user-agent"].startswith("GitHub-Hookshot/")
    assert got.headers["content-type"] == "application/json"
    digest = hmac.new(SECRET.encode(), got.body, hashlib.sha256).hexdigest()
    assert got.headers["x-hub-signature-256"] == f"sha256={digest}"
    assert got.headers["x-hub-signature"].startswith("sha1=")
    assert "\u65e5\u672c".encode() in got.body


def test_a_push_says_what_git_says(hooked: StandIn, repo: GitRepo, receiver: Receiver) -> None:
    before = repo.head() or ""
    first = repo.commit({"a": "1", "docs/page.md": None, "README.md": "new"}, "One", date="1700000000 +0530")
    second = repo.commit({"b": "1", "a": None}, "Two\n\nwith a body")
    hooked.push(NAME, "main", before, second, guid="my-guid")
    payload = payload_of(receiver.got[0])
    assert receiver.got[0].headers["x-github-delivery"] == "my-guid"
    assert (payload["ref"], payload["before"], payload["after"]) == ("refs/heads/main", before, second)
    assert (payload["created"], payload["deleted"], payload["forced"]) == (False, False, False)
    assert [commit["id"] for commit in payload["commits"]] == [first, second]
    one, two = payload["commits"]
    assert (one["added"], one["modified"], one["removed"]) == (["a"], ["README.md"], ["docs/page.md"])
    assert (two["added"], two["modified"], two["removed"]) == (["b"], [], ["a"])
    assert one["timestamp"] == "2023-11-15T03:43:20+05:30"
    assert two["message"] == "Two\n\nwith a body"
    assert payload["head_commit"] == two
    repository = payload["repository"]
    assert repository["id"] == hooked.repository(NAME).id
    assert (repository["full_name"], repository["name"], repository["owner"]["login"]) == (NAME, "data", "octo")
    assert (repository["default_branch"], type(repository["pushed_at"])) == ("main", int)


def test_creation_deletion_force_and_tags_have_their_marks(hooked: StandIn, repo: GitRepo, receiver: Receiver) -> None:
    head = repo.head() or ""
    repo.reset("new", head)
    hooked.push(NAME, "new", None, head)
    fresh = repo.commit({"x": "1"}, branch="other", parents=[head])
    hooked.push(NAME, "other", None, fresh)
    hooked.push(NAME, "other", fresh, None)
    rewritten = repo.commit({"y": "1"}, parents=[repo.log()[-1]])
    hooked.push(NAME, "main", head, rewritten)
    tag = repo.tag("v1", head, annotation="x")
    hooked.push(NAME, "", None, tag, ref="refs/tags/v1")
    marks = [
        (p["created"], p["deleted"], p["forced"], [c["id"] for c in p["commits"]])
        for p in map(payload_of, receiver.got)
    ]
    assert marks == [
        (True, False, False, []),
        (True, False, False, [fresh]),
        (False, True, False, []),
        (False, False, True, [rewritten]),
        (True, False, False, []),
    ]
    deletion, tagged = payload_of(receiver.got[2]), payload_of(receiver.got[4])
    assert (deletion["after"], deletion["head_commit"]) == (ZERO_SHA, None)
    assert (tagged["ref"], tagged["after"]) == ("refs/tags/v1", tag)


def test_a_merge_lists_the_paths_it_brings(hooked: StandIn, repo: GitRepo, receiver: Receiver) -> None:
    base = repo.head() or ""
    side = repo.commit({"side": "1"}, branch="side", parents=[base])
    merged = repo.merge(side, changes={"side": "1"})
    hooked.push(NAME, "main", base, merged)
    payload = payload_of(receiver.got[0])
    assert [(c["id"], c["added"]) for c in payload["commits"]] == [(side, ["side"]), (merged, ["side"])]


def test_paths_that_are_not_utf8_come_with_replacement_characters(
    hooked: StandIn, repo: GitRepo, receiver: Receiver
) -> None:
    hooked.push(NAME, "main", repo.head(), repo.commit({b"\xe9": "1"}))
    assert payload_of(receiver.got[0])["commits"][0]["added"] == ["\ufffd"]


def test_a_form_is_signed_as_it_is_sent(github: StandIn, repo: GitRepo, receiver: Receiver) -> None:
    github.hook(NAME, receiver.url, SECRET, content_type="form")
    github.push(NAME, "main", repo.log()[-1], repo.head())
    (got,) = receiver.got
    assert got.headers["content-type"] == "application/x-www-form-urlencoded"
    assert got.headers["x-hub-signature-256"] == signature(SECRET, got.body)
    assert json.loads(parse_qs(got.body.decode())["payload"][0])["after"] == repo.head()


def test_without_a_secret_there_is_no_signature(github: StandIn, repo: GitRepo, receiver: Receiver) -> None:
    github.hook(NAME, receiver.url, None)
    github.ping(NAME)
    assert not any(name.startswith("x-hub-signature") for name in receiver.got[0].headers)
    assert payload_of(receiver.got[0])["repository"]["full_name"] == NAME


def test_every_hook_that_wants_the_event_gets_it_under_one_guid(
    github: StandIn, repo: GitRepo, receiver: Receiver
) -> None:
    assert github.push(NAME, "main", repo.log()[-1], repo.head()) is None
    github.hook(NAME, receiver.url, "one")
    github.hook(NAME, receiver.url, "two", events=("push",))
    github.hook(NAME, receiver.url, "three", events=("issues",))
    github.push(NAME, "main", repo.log()[-1], repo.head())
    assert len({got.headers["x-github-delivery"] for got in receiver.got}) == 1
    assert len(receiver.got) == 2
    github.event(NAME, "issues", {"action": "opened"})
    assert len(receiver.got) == 4


def test_a_rename_and_a_new_default_branch_are_reported_when_asked(
    hooked: StandIn, repo: GitRepo, receiver: Receiver
) -> None:
    repo.rename_branch("main", "trunk")
    hooked.set_default_branch(NAME, "trunk", deliver=True)
    hooked.rename(NAME, "octo/new", deliver=True)
    hooked.rename("octo/new", "other/new", deliver=True)
    hooked.rename("other/new", "other/newer")
    seen = [(p["action"], p.get("changes"), p["repository"]["full_name"]) for p in map(payload_of, receiver.got)]
    assert [action for action, _, _ in seen] == ["edited", "renamed", "transferred"]
    assert seen[0][1] == {"default_branch": {"from": "main"}} or seen[0][1] == {"default_branch": {"from": "trunk"}}
    assert seen[1][1:] == ({"repository": {"name": {"from": "data"}}}, "octo/new")
    assert payload_of(receiver.got[0])["repository"]["default_branch"] == "trunk"
    assert isinstance(payload_of(receiver.got[0])["repository"]["pushed_at"], str)


# What became of it


def test_a_redelivery_is_the_same_bytes_under_the_same_guid(hooked: StandIn, repo: GitRepo, receiver: Receiver) -> None:
    result = hooked.push(NAME, "main", repo.log()[-1], repo.head())
    assert result is not None
    repo.commit({"later": "1"})
    hooked.redeliver(result.guid)
    first, second = receiver.got
    assert (first.body, first.headers) == (second.body, second.headers)
    assert [each.redelivery for each in hooked.deliveries.records()] == [True, False]
    with pytest.raises(KeyError):
        hooked.redeliver("unknown")


def test_a_lost_delivery_can_be_sent_late(hooked: StandIn, repo: GitRepo, receiver: Receiver) -> None:
    assert hooked.push(NAME, "main", repo.log()[-1], repo.head(), guid="lost", deliver=False) is None
    assert receiver.got == []
    assert hooked.redeliver("lost").ok
    assert [got.headers["x-github-delivery"] for got in receiver.got] == ["lost"]
    assert [each.redelivery for each in hooked.deliveries.records()] == [False]


@pytest.mark.parametrize("status", [403, 503])
def test_an_answer_that_says_no_is_recorded_and_never_retried(
    hooked: StandIn, repo: GitRepo, receiver: Receiver, status: int
) -> None:
    receiver.status, receiver.answer = status, b"no"
    result = hooked.push(NAME, "main", repo.log()[-1], repo.head())
    assert result is not None
    assert (result.status, result.ok, result.body) == (status, False, b"no")
    assert hooked.deliveries.records()[0].outcome == f"Invalid HTTP Response: {status}"
    assert len(receiver.got) == 1


def test_no_answer_in_time_and_no_listener_are_told_apart(
    hooked: StandIn, repo: GitRepo, receiver: Receiver, github: StandIn
) -> None:
    receiver.answer = None
    hooked.deliveries.timeout_seconds = 0.1
    late = hooked.ping(NAME)
    assert late is not None
    assert (late.status, late.error) == (None, "timed out")
    for hook in hooked.deliveries.hooks(hooked.repository(NAME).id):
        hooked.deliveries.remove_hook(hook.id)
    hooked.hook(NAME, "http://127.0.0.1:1/", None)
    refused = hooked.ping(NAME)
    assert refused is not None
    assert (refused.status, refused.error) == (None, "failed to connect to host")


def test_what_is_over_25_mib_is_never_sent(hooked: StandIn, repo: GitRepo, receiver: Receiver) -> None:
    result = hooked.event(NAME, "push", {"padding": "x" * (25 * 1024 * 1024)})
    assert (result, receiver.got, hooked.deliveries.records()) == (None, [], [])


# Hooks over the API


def test_hooks_are_made_changed_and_removed_over_the_api(
    github: StandIn, repo: GitRepo, receiver: Receiver, session: requests.Session
) -> None:
    url = f"{github.url}/repos/{NAME}/hooks"
    body = {"name": "web", "events": ["push"], "config": {"url": receiver.url, "secret": SECRET}}
    made = session.post(url, json=body, timeout=10)
    assert made.status_code == 201
    hook = made.json()
    assert hook["config"] == {"url": receiver.url, "content_type": "form", "insecure_ssl": "0", "secret": "********"}
    ping = receiver.wait(1)[0]
    assert ping.headers["x-github-event"] == "ping"
    assert ping.headers["x-hub-signature-256"] == signature(SECRET, ping.body)
    assert session.post(url, json=body, timeout=10).status_code == 422
    assert session.post(url, json={"config": {}}, timeout=10).status_code == 422
    assert session.post(url, data=b"[", timeout=10).status_code == 400
    changed = session.patch(hook["url"], json={"config": {"url": receiver.url, "content_type": "json"}}, timeout=10)
    assert "secret" not in changed.json()["config"]
    changed = session.patch(hook["url"], json={"add_events": ["repository"], "active": False}, timeout=10)
    assert (changed.json()["events"], changed.json()["active"]) == (["push", "repository"], False)
    assert github.push(NAME, "main", repo.log()[-1], repo.head()) is None
    assert [each["id"] for each in session.get(url, timeout=10).json()] == [hook["id"]]
    assert session.delete(hook["url"], timeout=10).status_code == 204
    assert session.get(hook["url"], timeout=10).status_code == 404
    assert session.get(url, timeout=10).json() == []


def test_a_hook_can_be_pinged_and_tested_over_the_api(
    hooked: StandIn, repo: GitRepo, receiver: Receiver, session: requests.Session
) -> None:
    hook = session.get(f"{hooked.url}/repos/{NAME}/hooks", timeout=10).json()[0]
    assert session.post(hook["ping_url"], timeout=10).status_code == 204
    receiver.wait(1)
    assert session.post(f"{hook['url']}/tests", timeout=10).status_code == 204
    assert [got.headers["x-github-event"] for got in receiver.wait(2)] == ["ping", "push"]
    assert payload_of(receiver.got[1])["after"] == repo.head()


def test_the_log_lists_deliveries_newest_first_by_cursor(
    hooked: StandIn, repo: GitRepo, receiver: Receiver, session: requests.Session
) -> None:
    guids = [hooked.ping(NAME).guid for _ in range(5)]  # type: ignore[union-attr]
    hooked.push(NAME, "main", repo.log()[-1], repo.head(), deliver=False)
    hook = session.get(f"{hooked.url}/repos/{NAME}/hooks", timeout=10).json()[0]
    url, seen = f"{hook['deliveries_url']}?per_page=2", []
    while url:
        page = session.get(url, timeout=10)
        seen += page.json()
        url = page.links.get("next", {}).get("url", "")
    assert [each["guid"] for each in seen] == guids[::-1]
    assert {(each["status"], each["status_code"], each["event"]) for each in seen} == {("OK", 200, "ping")}
    assert seen[0]["repository_id"] == hooked.repository(NAME).id
    detail = session.get(f"{hook['deliveries_url']}/{seen[0]['id']}", timeout=10).json()
    assert detail["request"]["payload"] == payload_of(receiver.got[-1])
    assert detail["request"]["headers"]["X-GitHub-Delivery"] == guids[-1]
    assert detail["response"]["payload"] == '{"status": "accepted"}'
    assert session.get(f"{hook['deliveries_url']}?cursor=nonsense", timeout=10).status_code == 422


def test_a_filter_by_failure_misses_what_got_no_answer(
    hooked: StandIn, repo: GitRepo, receiver: Receiver, session: requests.Session
) -> None:
    hooked.ping(NAME)
    receiver.status = 503
    hooked.ping(NAME)
    receiver.answer, hooked.deliveries.timeout_seconds = None, 0.1
    hooked.ping(NAME)
    hook = session.get(f"{hooked.url}/repos/{NAME}/hooks", timeout=10).json()[0]
    assert hook["last_response"]["status"] == "connection_error"

    def statuses(query: str) -> list[str]:
        return [each["status"] for each in session.get(hook["deliveries_url"] + query, timeout=10).json()]

    assert statuses("") == ["timed out", "Invalid HTTP Response: 503", "OK"]
    assert statuses("?status=failure") == ["Invalid HTTP Response: 503"]
    assert statuses("?status=success") == ["OK"]


def test_a_delivery_is_attempted_again_over_the_api(
    hooked: StandIn, repo: GitRepo, receiver: Receiver, session: requests.Session
) -> None:
    hooked.ping(NAME)
    hook = session.get(f"{hooked.url}/repos/{NAME}/hooks", timeout=10).json()[0]
    delivery = session.get(hook["deliveries_url"], timeout=10).json()[0]
    answer = session.post(f"{hook['deliveries_url']}/{delivery['id']}/attempts", timeout=10)
    assert answer.status_code == 202
    first, second = receiver.wait(2)
    assert (first.body, first.headers) == (second.body, second.headers)


def test_hooks_are_nobodys_business_without_a_token(github: StandIn, repo: GitRepo, tmp_path: Path) -> None:
    github.token = None
    with requests.Session() as session:
        session.trust_env = False
        for path in ("", "/1", "/1/deliveries"):
            assert session.get(f"{github.url}/repos/{NAME}/hooks{path}", timeout=10).status_code == 404


@pytest.mark.parametrize(("scopes", "status"), [("repo", 404), (None, 403)])
def test_who_does_not_administer_a_repository_may_not_see_its_hooks(
    hooked: StandIn, repo: GitRepo, session: requests.Session, scopes: str | None, status: int
) -> None:
    hooked.scopes = scopes
    url = f"{hooked.url}/repos/{NAME}"
    assert session.get(f"{url}/hooks", timeout=10).status_code == 200
    hooked.repository(NAME).admin = False
    assert session.get(f"{url}/hooks", timeout=10).status_code == status
    assert session.get(url, timeout=10).json()["permissions"]["admin"] is False
    hooked.repository(NAME).admin, hooked.scopes = True, "read:user"
    assert session.get(f"{url}/hooks", timeout=10).status_code == 404


def test_a_hook_of_an_organisation_gets_the_events_of_its_repositories(
    github: StandIn, repo: GitRepo, receiver: Receiver, session: requests.Session
) -> None:
    url, body = f"{github.url}/orgs/octo/hooks", {"config": {"url": receiver.url, "content_type": "json"}}
    assert session.post(url, json=body, timeout=10).status_code == 404
    github.scopes = "repo, admin:org_hook"
    hook = session.post(url, json=body, timeout=10).json()
    assert (hook["type"], hook["url"]) == ("Organization", f"{url}/{hook['id']}")
    assert payload_of(receiver.wait(1)[0])["organization"]["login"] == "octo"
    github.push(NAME, "main", repo.log()[-1], repo.head())
    assert receiver.wait(2)[1].headers["x-github-hook-installation-target-type"] == "organization"
    log = session.get(f"{url}/{hook['id']}/deliveries", timeout=10).json()
    assert [(each["event"], each["repository_id"]) for each in log] == [
        ("push", github.repository(NAME).id),
        ("ping", None),
    ]
    assert session.get(f"{github.url}/orgs/nobody/hooks", timeout=10).status_code == 404


def test_an_attempt_ends_as_it_was_scripted_and_is_not_sent(hooked: StandIn, repo: GitRepo, receiver: Receiver) -> None:
    hooked.deliveries.fail("timed out")
    hooked.deliveries.fail(403, times=2)
    for _ in range(4):
        hooked.ping(NAME)
    outcomes = [each.outcome for each in hooked.deliveries.records()]
    assert outcomes == ["OK", "Invalid HTTP Response: 403", "Invalid HTTP Response: 403", "timed out"]
    assert len(receiver.got) == 1


def test_a_token_that_expires_is_told_with_every_answer(
    github: StandIn, repo: GitRepo, session: requests.Session
) -> None:
    github.token_expires = "2026-12-01 00:00:00 UTC"
    answer = session.get(f"{github.url}/rate_limit", timeout=10)
    assert answer.headers["github-authentication-token-expiration"] == github.token_expires
