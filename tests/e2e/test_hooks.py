"""A webhook's whole life: installed, tested, refused by a proxy, found out through GitHub's log, and well again."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests
from harness import Daemon, wait_for

from daemon.demo.standin import StandIn
from daemon.demo.standin.gitrepo import GitRepo

NAME = "octo/data"


class Proxy:
    """What stands before headwater on the internet: hands on to ``target``, or answers ``refuse`` by itself."""

    def __init__(self) -> None:
        self.target = ""
        self.refuse: int | None = None
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, answer = proxy.hand_on(dict(self.headers), body)
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def hand_on(self, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        if self.refuse is not None:
            return self.refuse, b"no"
        with requests.Session() as session:
            session.trust_env = False
            answer = session.post(self.target, data=body, headers=headers, timeout=10)
            return answer.status_code, answer.content

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    proxy = Proxy()
    yield proxy
    proxy.close()


@pytest.fixture
def daemon(repo: GitRepo, proxy: Proxy, make_daemon: Callable[..., Daemon]) -> Daemon:
    """Running behind the proxy, with its webhook installed."""
    daemon = make_daemon(sections={"webhook": f'public_url = "{proxy.url}"'}).start()
    proxy.target = daemon.webhook_url
    daemon.wait_head(repo.head())
    ended = daemon.cli("hooks", "install")
    assert ended.returncode == 0, ended.stderr
    return daemon


def push(github: StandIn, repo: GitRepo, content: str) -> str:
    before = repo.head()
    after = repo.commit({"pushed.txt": content})
    github.push(NAME, "main", before, after)
    return after


PAST = "2000-01-01T00:00:00.000000Z"


def an_hour_passes(daemon: Daemon) -> None:
    """Make the log due, if it was read since."""
    with closing(sqlite3.connect(daemon.database, timeout=10, isolation_level=None)) as connection:
        if connection.execute("SELECT hook_log_due_at FROM repository").fetchone()[0] != PAST:
            connection.execute("UPDATE repository SET hook_log_due_at = ?", (PAST,))


def log_is_not_due(daemon: Daemon) -> bool:
    with closing(sqlite3.connect(daemon.database, timeout=10)) as connection:
        return connection.execute("SELECT hook_log_due_at FROM repository").fetchone()[0] != PAST


def log_was_read(daemon: Daemon) -> bool:
    with closing(sqlite3.connect(daemon.database, timeout=10)) as connection:
        return connection.execute("SELECT hook_log_until FROM repository").fetchone()[0] is not None


def test_a_test_tells_the_whole_round_trip(daemon: Daemon) -> None:
    ended = daemon.cli("hooks", "test", "--json")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (row,) = json.loads(ended.stdout)["hooks"]
    assert row["state"] == "ok"
    assert 0 <= row["round_trip_ms"] < 30_000
    assert row["guid"] in {one["guid"] for one in daemon.items("/api/v1/deliveries") if one["event"] == "ping"}


def test_a_test_that_github_cannot_deliver_here_tells_why_and_what_to_do(daemon: Daemon, proxy: Proxy) -> None:
    for status, words in ((403, "--rotate-secret"), (404, "webhook.path"), (502, "logs")):
        proxy.refuse = status
        ended = daemon.cli("hooks", "test")
        assert ended.returncode == 1
        assert f"Invalid HTTP Response: {status}" in ended.stdout
        assert words in ended.stdout
    proxy.refuse = 200
    ended = daemon.cli("hooks", "test")
    assert ended.returncode == 1
    assert "did not arrive here" in ended.stdout


def test_a_secret_that_github_does_not_have_is_found_by_the_test_and_mended_by_install(
    github: StandIn, daemon: Daemon
) -> None:
    (hook,) = github.deliveries.hooks(github.repository(NAME).id)
    hook.secret = "another"
    assert "--rotate-secret" in daemon.cli("hooks", "test").stdout
    assert daemon.cli("hooks", "install", "--rotate-secret").returncode == 0
    assert daemon.cli("hooks", "test").returncode == 0
    assert daemon.cli("hooks", "remove", "--yes").returncode == 0
    ended = daemon.cli("hooks", "test")
    assert ended.returncode == 1
    assert "headwater hooks install" in ended.stdout


def test_what_a_person_has_just_mended_is_not_told_any_more(daemon: Daemon, proxy: Proxy) -> None:
    def reason() -> str | None:
        return daemon.repository()["webhook_reason"]

    assert daemon.cli("hooks", "remove", "--yes").returncode == 0
    assert "hooks install" in wait_for(reason, "the missing webhook to be told")
    proxy.refuse = 503  # no ping arrives: what ends it is the command
    assert daemon.cli("hooks", "install").returncode == 0
    assert reason() is None
    assert daemon.cli("hooks", "remove", "--yes").returncode == 0
    wait_for(reason, "the missing webhook to be told")
    proxy.refuse = None
    assert daemon.stop() == 0
    ended = daemon.cli("hooks", "install")
    assert (ended.returncode, ended.stderr) == (0, "")
    (row,) = json.loads(daemon.cli("status", "--json").stdout)["branches"]
    assert row["webhook_reason"] is None


@pytest.mark.timeout(240)  # what GitHub may still be sending is left alone for 20 s
def test_a_refused_delivery_is_found_in_the_log_recovered_and_told_until_one_arrives(
    github: StandIn, repo: GitRepo, daemon: Daemon, proxy: Proxy
) -> None:
    first = push(github, repo, "announced")
    daemon.wait_head(first)
    wait_for(lambda: daemon.repository()["webhook"] == "healthy", "the webhook to be healthy")
    wait_for(lambda: log_was_read(daemon) or an_hour_passes(daemon), "the first look into the log")
    proxy.refuse = 503
    lost = push(github, repo, "refused")

    def recovered() -> bool:
        an_hour_passes(daemon)
        return daemon.head() == lost

    wait_for(recovered, "the recovery", seconds=90)
    wait_for(lambda: log_is_not_due(daemon), "the last look for an hour")  # one more would tell of it again
    assert daemon.runs()[0]["trigger"] == "recovery"
    found = wait_for(
        lambda: daemon.repository() if daemon.repository()["webhook_reason"] else None, "the reason to be told"
    )
    assert (found["webhook"], found["missed_webhooks"]) == ("missing", 1)
    assert found["webhook_reason"] == "Invalid HTTP Response: 503"
    assert "webhook: Invalid HTTP Response: 503" in daemon.cli("status").stdout
    (row,) = json.loads(daemon.cli("status", "--json").stdout)["branches"]
    assert row["webhook_reason"] == "Invalid HTTP Response: 503"
    proxy.refuse = None
    daemon.wait_head(push(github, repo, "announced again"))
    wait_for(lambda: daemon.repository()["webhook"] == "healthy", "the webhook to be well again")
    assert daemon.repository()["webhook_reason"] is None


def test_what_was_refused_is_redelivered(github: StandIn, repo: GitRepo, daemon: Daemon, proxy: Proxy) -> None:
    proxy.refuse = 503
    lost = push(github, repo, "refused")
    proxy.refuse = None
    ended = daemon.cli("hooks", "redeliver")
    assert ended.returncode == 0, ended.stderr
    assert "sent again" in ended.stdout
    daemon.wait_head(lost)
    assert daemon.runs()[0]["trigger"] == "webhook"
