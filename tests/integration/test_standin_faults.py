"""GitHub on a bad day: the script of faults, held-back heads and limits."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import pytest
import requests
from harness import TOKEN, Stopwatch

from daemon.clock import Clock
from daemon.demo.standin import CutBody, Delay, Drip, Drop, GitRepo, Hold, Html, Pass, Raw, Replace, StandIn, Status

REPOSITORY = "/repos/octo/data"
HEAD = f"{REPOSITORY}/commits/heads/main"
SHA = {"Accept": "application/vnd.github.sha"}


class Api:
    def __init__(self, url: str) -> None:
        self.url = url
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.headers["Authorization"] = f"Bearer {TOKEN}"

    def get(self, path: str = REPOSITORY, **headers: str) -> requests.Response:
        return self.session.get(self.url + path, headers=headers, timeout=10, allow_redirects=False)

    def status(self, path: str = REPOSITORY) -> int:
        return self.get(path).status_code

    def head(self) -> str:
        return self.get(HEAD, **SHA).text

    def heads(self) -> tuple[str | None, str | None]:
        """By GraphQL: the default branch, and the ref by its name."""
        query = '{ r: repository(owner: "octo", name: "data") { defaultBranchRef { target { oid } } '
        query += 'ref(qualifiedName: "refs/heads/main") { target { oid } } } }'
        answer = self.session.post(f"{self.url}/graphql", json={"query": query}, timeout=10).json()["data"]["r"]
        default, named = (each and each["target"]["oid"] for each in (answer["defaultBranchRef"], answer["ref"]))
        return default, named


@pytest.fixture
def api(github: StandIn, repo: GitRepo) -> Iterator[Api]:
    api = Api(github.url)
    with api.session:
        yield api


@dataclass
class Time:
    """A clock that only moves when told to."""

    at: datetime = datetime(2030, 1, 1, tzinfo=UTC)
    seconds: float = 0.0

    def clock(self) -> Clock:
        return Clock(now=lambda: self.at + timedelta(seconds=self.seconds), monotonic=lambda: self.seconds)


@pytest.fixture
def moment() -> Time:
    return Time()


@pytest.fixture
def timed(moment: Time, repo: GitRepo) -> Iterator[StandIn]:
    """A stand-in that lives by the clock of the test."""
    with StandIn(token=TOKEN, clock=moment.clock()) as standin:
        standin.add("octo/data", repo.path)
        yield standin


@pytest.fixture
def timed_api(timed: StandIn) -> Iterator[Api]:
    api = Api(timed.url)
    with api.session:
        yield api


# The script


def test_faults_are_used_up_in_the_order_they_were_added(api: Api, github: StandIn) -> None:
    github.faults.add(r"^/repos/octo/data$", Status(503), times=2)
    github.faults.add(r"data", Pass(), times=1)
    last = github.faults.add(r"data", Status(429, {"message": "slow"}, {"retry-after": "7"}))
    assert [api.status() for _ in range(5)] == [503, 503, 200, 429, 429]
    answer = api.get(f"{REPOSITORY}/commits")
    assert (answer.json(), answer.headers["Retry-After"]) == ({"message": "slow"}, "7")
    assert api.status("/user") == 200
    assert last.hits == 3
    github.faults.remove(last)
    assert api.status() == 200


def test_a_fault_can_be_for_one_method_and_see_the_query(api: Api, github: StandIn) -> None:
    github.faults.add(r"page=2", Status(500))
    github.faults.add(r"/repos", Status(500), method="POST")
    assert api.status(f"{REPOSITORY}/commits?page=1") == 200
    assert api.status(f"{REPOSITORY}/commits?page=2") == 500
    github.faults.clear()
    assert api.status(f"{REPOSITORY}/commits?page=2") == 200


@pytest.mark.parametrize("body", ["null", b"\xff\x00", [], {"a": 1}, ""])
def test_a_status_comes_with_any_body(api: Api, github: StandIn, body: object) -> None:
    github.faults.add(".", Status(200, body))
    assert api.get().content in {b"null", b"\xff\x00", b"[]", b'{"a": 1}', b""}


def test_a_page_for_people_is_html_with_200(api: Api, github: StandIn) -> None:
    github.faults.add(".", Html())
    answer = api.get()
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert answer.text.startswith("<!DOCTYPE html>")


@pytest.mark.parametrize("reset", [False, True])
def test_a_dropped_request_gets_no_byte(api: Api, github: StandIn, reset: bool) -> None:
    github.faults.add(".", Drop(reset=reset), times=1)
    expected = ConnectionResetError if reset else http.client.RemoteDisconnected
    connection = http.client.HTTPConnection("127.0.0.1", int(github.url.rpartition(":")[2]), timeout=30)
    connection.request("GET", REPOSITORY)
    with pytest.raises(expected):
        connection.getresponse()
    connection.close()
    assert github.requests.all()[-1].status == 0
    assert api.status() == 200


def read_raw(github: StandIn, path: str) -> bytes:
    """Everything that comes until the connection ends."""
    with socket.create_connection(("127.0.0.1", int(github.url.rpartition(":")[2])), timeout=30) as connection:
        head = f"GET {path} HTTP/1.1\r\nHost: x\r\nUser-Agent: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
        connection.sendall(head.encode())
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize("count", [0, 10])
def test_a_cut_body_has_its_full_length_in_the_head(github: StandIn, repo: GitRepo, count: int) -> None:
    github.faults.add("data$", CutBody(count))
    head, _, body = read_raw(github, REPOSITORY).partition(b"\r\n\r\n")
    assert body == b'{"id":3000'[:count]
    assert int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]) > 100


def test_a_cut_archive_ends_without_its_last_chunk(api: Api, github: StandIn, repo: GitRepo) -> None:
    path = f"/codeload/octo/data/legacy.tar.gz/{repo.head()}"
    whole = api.get(path).content
    github.faults.add("codeload", CutBody(50), times=1)
    raw = read_raw(github, path)
    assert raw.endswith(b"\r\n\r\n32\r\n" + whole[:50] + b"\r\n")
    github.faults.add("codeload", CutBody(50), times=1)
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        api.get(path)


def test_a_cut_without_length_or_chunks_looks_whole(api: Api, github: StandIn, repo: GitRepo) -> None:
    github.faults.add("codeload", CutBody(50, close_delimited=True))
    answer = api.get(f"/codeload/octo/data/legacy.tar.gz/{repo.head()}")
    assert (answer.status_code, len(answer.content)) == (200, 50)
    assert {"content-length", "transfer-encoding"}.isdisjoint(answer.headers)


def test_a_dripping_body_comes_slowly_and_whole(api: Api, github: StandIn) -> None:
    github.faults.add("commits", Drip(100))
    started = time.monotonic()
    assert len(api.head()) == 40
    assert time.monotonic() - started > 0.3


def test_a_delay_keeps_the_answer_back(api: Api, github: StandIn) -> None:
    github.faults.add("data", Delay(0.2), times=1)
    started = time.monotonic()
    assert api.status() == 200
    assert time.monotonic() - started >= 0.2


def test_a_stop_ends_what_is_slow_at_once(github: StandIn, repo: GitRepo, caplog: pytest.LogCaptureFixture) -> None:
    github.faults.add("commits", Drip(0.05))
    github.faults.add("data$", Delay(60))
    hold = Hold()
    github.faults.add("user", hold)
    with ThreadPoolExecutor() as pool:
        asked = [pool.submit(read_raw, github, path) for path in (REPOSITORY, HEAD, "/user")]
        assert github.requests.wait_for(lambda entries: len(entries) >= 1)
        assert hold.reached.wait(10)
        with Stopwatch() as watch:
            github.stop()
            for each in asked:
                each.exception(timeout=30)  # cut off or reset, whatever the moment made of it
    assert watch.seconds < 5
    assert caplog.records == []


@pytest.mark.parametrize("late", [False, True])
def test_a_held_request_answers_what_was_true_when_it_came_or_when_it_goes(
    api: Api, github: StandIn, repo: GitRepo, late: bool
) -> None:
    before = repo.head()
    hold = Hold(late=late)
    github.faults.add("commits", hold, times=1)
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(api.head)
        assert hold.reached.wait(10)
        after = repo.commit({"new": "1"})
        hold.release()
        assert answer.result(10) == (after if late else before)


def test_any_answer_can_be_replaced_by_a_function_of_the_genuine_one(api: Api, github: StandIn) -> None:
    github.faults.add(
        "data", Replace(lambda answer: replace(answer.with_headers(x_ratelimit_remaining="0"), status=203))
    )
    answer = api.get()
    assert (answer.status_code, answer.headers["X-RateLimit-Remaining"]) == (203, "0")
    assert answer.json()["full_name"] == "octo/data"


def test_raw_bytes_are_sent_as_they_are(api: Api, github: StandIn) -> None:
    github.faults.add("data", Raw(b"HTTP/1.0 200 Fine\r\nX: 1\r\n\r\nold"))
    answer = api.get()
    assert (answer.raw.version, answer.text) == (10, "old")


def test_the_connection_is_kept_when_nothing_went_wrong(github: StandIn, repo: GitRepo) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", int(github.url.rpartition(":")[2]), timeout=30)
    headers = {"Authorization": f"Bearer {TOKEN}", "User-Agent": "x", "If-None-Match": f'"{repo.head()}"', **SHA}
    ports = set()
    for path in (REPOSITORY, "/repos/octo/nope", HEAD, f"/codeload/octo/data/legacy.tar.gz/{repo.head()}", HEAD):
        connection.request("GET", path, headers=headers)
        connection.getresponse().read()
        assert connection.sock is not None, path
        ports.add(connection.sock.getsockname())
    connection.close()
    assert len(ports) == 1


# Heads that are held back


def test_a_stale_head_is_told_for_so_many_reads_by_every_way_to_ask(api: Api, github: StandIn, repo: GitRepo) -> None:
    old = repo.head()
    new = repo.commit({"new": "1"})
    github.stale("octo/data", "main", old, reads=5)
    assert api.head() == old
    assert api.heads() == (old, old)
    assert api.get(f"{REPOSITORY}/git/matching-refs/heads/m").json()[0]["object"]["sha"] == old
    assert api.get(f"{REPOSITORY}/commits?sha=main").json()[0]["sha"] == old
    assert api.head() == new
    assert api.heads() == (new, new)


def test_a_stale_head_is_told_for_so_long(timed_api: Api, timed: StandIn, repo: GitRepo, moment: Time) -> None:
    old = repo.head()
    new = repo.commit({"new": "1"})
    timed.stale("octo/data", "main", old, seconds=5)
    moment.seconds = 4.9
    assert timed_api.head() == old
    assert timed_api.get(f"{REPOSITORY}/git/commits/{new}").status_code == 200
    moment.seconds = 5.1
    assert timed_api.head() == new


def test_a_head_held_back_without_end_is_told_until_lifted(api: Api, github: StandIn, repo: GitRepo) -> None:
    old = repo.head()
    github.stale("octo/data", "main", old)
    new = repo.commit({"new": "1"})
    assert [api.head() for _ in range(3)] == [old] * 3
    github.fresh("octo/data", "main")
    assert api.head() == new


def test_a_new_branch_can_be_held_back_and_others_are_not(api: Api, github: StandIn, repo: GitRepo) -> None:
    github.stale("octo/data", "new", None, reads=2)
    repo.reset("new", repo.head() or "")
    assert api.status(f"{REPOSITORY}/commits/heads/new") == 422
    assert [r["ref"] for r in api.get(f"{REPOSITORY}/git/matching-refs/heads/").json()] == ["refs/heads/main"]
    assert api.status(f"{REPOSITORY}/commits/heads/new") == 200


def test_the_objects_of_a_push_can_be_held_back_with_its_head(api: Api, github: StandIn, repo: GitRepo) -> None:
    old = repo.head() or ""
    github.stale("octo/data", "main", old, reads=1, objects=True)
    new = repo.commit({"docs/new": "unheard of"})
    blob = next(entry.sha for entry in repo.ls_tree() if entry.path == b"docs/new")
    missing = {
        f"/commits/{new}": 422,
        f"/git/commits/{new}": 404,
        f"/git/trees/{new}": 404,
        f"/git/trees/{repo.tree_sha(new)}": 404,
        f"/git/blobs/{blob}": 404,
        f"/compare/{old}...{new}": 404,
        f"/tarball/{new}": 404,
    }
    assert {path: api.status(REPOSITORY + path) for path in missing} == missing
    assert api.status(f"/codeload/octo/data/legacy.tar.gz/{new}") == 404
    assert api.status(f"{REPOSITORY}/git/trees/{repo.tree_sha(old)}") == 200
    assert api.head() == old
    assert {api.status(REPOSITORY + path) for path in missing} == {200, 302}
    assert api.head() == new


# Limits


def test_requests_run_out_and_come_back_at_the_reset(timed_api: Api, timed: StandIn, moment: Time) -> None:
    timed.limit(remaining=2, reset_in=30)
    assert [timed_api.status() for _ in range(3)] == [200, 200, 403]
    answer = timed_api.get()
    assert answer.json()["message"].startswith("API rate limit exceeded")
    assert answer.headers["X-RateLimit-Remaining"] == "0"
    assert int(answer.headers["X-RateLimit-Reset"]) == int(moment.at.timestamp()) + 30
    assert "Retry-After" not in answer.headers
    assert parsedate_to_datetime(answer.headers["Date"]) == moment.at
    assert timed_api.get("/rate_limit").json()["resources"]["core"]["remaining"] == 0
    moment.seconds = 30
    assert timed_api.get().headers["X-RateLimit-Remaining"] == "4999"


def test_not_modified_is_free_for_those_with_a_token_only(api: Api, github: StandIn, repo: GitRepo) -> None:
    github.limit(remaining=10, reset_in=60)
    known = {"If-None-Match": f'"{repo.head()}"', **SHA}
    assert [api.get(HEAD, **known).headers["X-RateLimit-Remaining"] for _ in range(3)] == ["10"] * 3
    github.token = None
    del api.session.headers["Authorization"]
    assert [api.get(HEAD, **known).headers["X-RateLimit-Remaining"] for _ in range(3)] == ["9", "8", "7"]


def test_rest_and_graphql_have_budgets_of_their_own(api: Api, github: StandIn) -> None:
    github.limit(remaining=0, reset_in=60, resource="graphql")
    assert api.status() == 200
    answer = api.session.post(f"{github.url}/graphql", json={"query": "{ viewer { login } }"}, timeout=10)
    assert answer.json()["errors"][0]["type"] == "RATE_LIMITED"


@pytest.mark.parametrize(("status", "retry_after"), [(403, None), (429, 60), (403, 0)])
def test_the_secondary_limit_refuses_the_next_requests(
    api: Api, github: StandIn, status: int, retry_after: float | None
) -> None:
    github.secondary_limit(2, retry_after=retry_after, status=status)
    answer = api.get()
    assert answer.status_code == status
    assert "secondary rate limit" in answer.json()["message"]
    assert answer.headers.get("Retry-After") == (None if retry_after is None else str(retry_after))
    assert int(answer.headers["X-RateLimit-Remaining"]) > 0
    graphql = api.session.post(f"{github.url}/graphql", json={"query": "{ viewer { login } }"}, timeout=10)
    assert (graphql.status_code, graphql.json()["errors"][0]["type"]) == (200, "RATE_LIMITED")
    assert api.status() == 200


def test_enterprise_server_knows_no_limits(api: Api, github: StandIn) -> None:
    github.limits.enabled = False
    github.limit(remaining=0, reset_in=60)
    answer = api.get()
    assert answer.status_code == 200
    assert not any(name.startswith("x-ratelimit") for name in answer.headers)
    assert api.get("/rate_limit").json()["message"] == "Rate limiting is not enabled."
