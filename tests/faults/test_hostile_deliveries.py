"""FAULTS A17, A33, F13, E14: what a request may make the daemon do, however it is written and however often it comes."""

from __future__ import annotations

import hashlib
import hmac
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from bench import Bench
from harness import SECRET, Daemon
from httpfuzz import statuses
from test_http import address

from daemon.demo.standin import StandIn
from daemon.demo.standin.gitrepo import GitRepo


@pytest.fixture
def daemon(repo: GitRepo, make_daemon: Callable[..., Daemon]) -> Daemon:
    daemon = make_daemon().start()
    daemon.wait_head(repo.head())
    daemon.wait_idle()
    return daemon


# -- lines that end in LF alone (RFC 9112, 2.2 lets a recipient take them, and Tornado does) --------


def raw_delivery(
    body: bytes, guid: str, *, end: bytes, secret: str = SECRET, more: bytes = b"Connection: close"
) -> bytes:
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest().encode()
    lines = [
        b"POST /api/v1/webhooks/github HTTP/1.1",
        b"Host: 127.0.0.1",
        b"Content-Type: application/json",
        b"X-GitHub-Event: ping",
        b"X-GitHub-Delivery: " + guid.encode(),
        b"X-Hub-Signature-256: sha256=" + signature,
        b"Content-Length: %d" % len(body),
        more,
    ]
    return end.join(lines) + end * 2 + body


def answers(daemon: Daemon, data: bytes) -> list[int]:
    """The statuses of all answers until the daemon closes the connection, our half of it kept open."""
    with socket.create_connection(address(daemon.webhook_url), timeout=20) as peer:
        peer.sendall(data)
        return statuses(b"".join(iter(lambda: peer.recv(65536), b"")))


def guids(daemon: Daemon) -> set[str | None]:
    return {item["guid"] for item in daemon.items("/api/v1/deliveries")}


@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["lf", "crlf"])
def test_however_lines_end_the_signature_decides_and_the_length_ends_the_request(daemon: Daemon, end: bytes) -> None:
    inner = raw_delivery(b"{}", "smuggled", end=end)
    assert answers(daemon, raw_delivery(b"{}", "forged", end=end, secret="wrong")) == [403]
    assert answers(daemon, raw_delivery(inner, "outer", end=end)) == [400]  # signed, and no JSON: no second answer
    assert answers(daemon, raw_delivery(inner, "both", end=end, more=b"Transfer-Encoding: chunked")) == [400]
    assert answers(daemon, raw_delivery(b"{}", "whole", end=end)) == [200]
    assert guids(daemon) == {"whole"}


# -- addresses --------------------------------------------------------------------------------------


@pytest.fixture
def canary() -> Iterator[socket.socket]:
    """A port that nobody has any business with."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield listening


def full_of(url: str, payload: Any) -> Any:
    """The payload with every address in it, and some more, leading to ``url``."""
    if isinstance(payload, dict):
        return {key: url if key.endswith("url") else full_of(url, value) for key, value in payload.items()}
    return [full_of(url, item) for item in payload] if isinstance(payload, list) else payload


def test_addresses_in_a_delivery_are_never_asked(repo: GitRepo, daemon: Daemon, canary: socket.socket) -> None:
    url = f"http://127.0.0.1:{canary.getsockname()[1]}/"
    before = repo.head()
    after = repo.commit({"canary.txt": b"1\n"})
    names = ("url", "clone_url", "git_url", "ssh_url", "svn_url", "html_url", "trees_url", "archive_url", "commits_url")
    payload = {
        "ref": "refs/heads/main",
        "before": before,
        "after": after,
        "compare": url,
        "commits": [{"id": after, "url": url, "added": ["canary.txt"], "modified": [], "removed": []}],
        "repository": {"full_name": "octo/data", **dict.fromkeys(names, "")},
        "sender": {"avatar_url": "", "url": ""},
    }
    assert daemon.deliver(full_of(url, payload)).json()["status"] == "accepted"
    daemon.wait_head(after)
    daemon.wait_idle()
    with pytest.raises(BlockingIOError):
        canary.accept()


# -- however often ----------------------------------------------------------------------------------


def test_a_button_that_is_hammered_costs_a_few_runs(github: StandIn, daemon: Daemon) -> None:
    before, asked = len(daemon.runs()), github.requests.count()
    for _ in range(300):
        assert daemon.post("/api/v1/repositories/octo/data/sync").status_code == 202
    daemon.wait_idle()
    runs = len(daemon.runs()) - before
    assert 1 <= runs < 300
    assert github.requests.count() - asked <= 3 * runs


def test_a_branch_that_is_pushed_back_and_forth_without_end_converges_and_keeps_no_more_than_it_shows(
    tmp_path: Any, github: StandIn, repo: GitRepo
) -> None:
    bench = Bench(tmp_path, github, repo)
    bench.sync()
    base = repo.head()
    one = repo.commit({"a.txt": b"a\n"}, "One")
    repo.reset("main", base)
    other = repo.commit({"b.txt": b"b\n"}, "Other")
    for number in range(20):
        before, after = (one, other) if number % 2 else (other, one)
        repo.reset("main", after)
        bench.announce(before, after, guid=f"flip-{number}")
        bench.settle()
        bench.assert_equal_to_git()
    commits = [commit.sha for _, commit in bench.snapshots.commits(bench.facts().id, before=None, limit=100)]
    assert commits == repo.log()
    bench.time.advance(90 * 86400)
    bench.snapshots.sweep(now=bench.time.at)
    with bench.database.read():
        (rows,) = bench.database.execute("SELECT count(*) FROM entry").fetchone()
    assert rows == len(bench.tree())
    bench.close()
