"""The admin listener from outside, over a real store: its guards, its lists, its bytes."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import web_peer
from engines import open_store
from web_peer import Reply

from daemon.clock import Clock
from daemon.errors import StoreUnavailable
from daemon.model import (
    EMPTY_TREE_SHA,
    MODE_EXECUTABLE,
    MODE_FILE,
    MODE_SUBMODULE,
    MODE_SYMLINK,
    Commit,
    CommitChange,
    Delivery,
    DeliveryStatus,
    Entry,
    NodeRecord,
    Outcome,
    RemoteRepository,
    RunResult,
    SnapshotChange,
    SyncProgress,
    Trigger,
)
from daemon.store.actions import Actions
from daemon.store.database import Database
from daemon.store.entities import Entities
from daemon.store.feed import Feed
from daemon.store.history import History
from daemon.store.jobs import Jobs
from daemon.store.repositories import Repositories
from daemon.store.search import Search
from daemon.store.snapshots import Snapshots
from daemon.web.admin import AdminDeps, make_admin_app, routes
from daemon.web.openapi import PATHS, SCHEMAS, document
from daemon.web.stream import Hub

NOW = datetime(2026, 11, 23, 21, 40, 41, 123000, tzinfo=UTC)
TOKEN = "correct horse"
DEMO = "/api/v1/repositories/octo/demo"
LATIN = "dir/caf\xe9".encode("latin-1")

FILES = {
    b"a.txt": (MODE_FILE, "grüße\n".encode()),
    b"bin": (MODE_EXECUTABLE, b"\x00\x01\x02"),
    b"dir/a b%.html": (MODE_FILE, b"<script>alert(1)</script>"),
    LATIN: (MODE_FILE, b"\xff latin"),
    b"dir/empty": (MODE_FILE, b""),
    b"link": (MODE_SYMLINK, b"../a.txt"),
}


@dataclass
class Rule:
    owner: str
    name: str
    branches: tuple[str, ...] = ()


@dataclass
class Admin:
    """An admin listener over a store, and the facts a test may change."""

    database: Database
    token: str | None = None
    hosts: tuple[str, ...] = ("localhost", "127.0.0.1", "::1")
    now: datetime = NOW
    reasons: list[str] = field(default_factory=list)
    configured: bool = True
    status: Any = field(default_factory=lambda: {"version": "1", "promises_kept": True})
    syncs: list[SyncProgress] = field(default_factory=list)
    nodes: list[NodeRecord] = field(default_factory=list)
    wanted: list[list[int]] = field(default_factory=list)
    looks: list[int] = field(default_factory=list)
    stream_limits: dict[str, Any] = field(default_factory=dict)
    port: int = 0

    def __post_init__(self) -> None:
        self.repositories = Repositories(self.database)
        self.jobs = Jobs(self.database)
        self.snapshots = Snapshots(self.database)
        self.history = History(self.database)
        self.feed = Feed(self.database)
        self.search = Search(self.database)

    def deps(self, executor: Executor) -> AdminDeps:
        self.hub = Hub(self.feed, executor=executor, loop=asyncio.get_running_loop(), **self.stream_limits)
        return AdminDeps(
            token=lambda: self.token,
            allowed_hosts=lambda: self.hosts,
            database=self.database,
            repositories=self.repositories,
            jobs=self.jobs,
            snapshots=self.snapshots,
            history=self.history,
            entities=Entities(self.database),
            actions=Actions(self.database),
            retry_actions=lambda _key: 0,
            feed=self.feed,
            hub=self.hub,
            search=self.search,
            node="this",
            nodes=lambda: self.nodes,
            executor=executor,
            promise=lambda _: 60.0,
            syncs=lambda: self.syncs,
            ready=lambda: self.reasons,
            status=self._status,
            want=self._want,
            prune=lambda _name: False,
            look_at_webhook=self.looks.append,
            configured=lambda: self.configured,
            metrics=lambda: b"# HELP x\n",
            now=lambda: self.now,
        )

    def _status(self) -> dict[str, Any]:
        if isinstance(self.status, Exception):
            raise self.status
        return dict(self.status)

    def _want(self, branch_ids: list[int], _trigger: Trigger) -> None:
        self.wanted.append(branch_ids)
        self.jobs.want(branch_ids, Trigger.MANUAL, now=self.now)

    # -- what is stored ---------------------------------------------------------------------------

    def sync(self, files: dict[bytes, tuple[str, bytes]], *, head: str, removed: tuple[bytes, ...] = ()) -> None:
        """Make ``files`` the changed part of the next snapshot of the branch whose turn it is."""
        entries = [Entry(path, mode, blob_sha(content), len(content), True) for path, (mode, content) in files.items()]
        self.snapshots.store_blobs([(blob_sha(content), content) for _, content in files.values()], now=self.now)
        for branch in self.repositories.branches(self.repositories.by_name("octo", "demo") or 0):
            self.jobs.want([branch.id], Trigger.WEBHOOK, now=self.now)
        claim = self.jobs.claim("test", now=self.now, lease_seconds=60)
        assert claim is not None
        known = {entry.path for entry in self.snapshots.entries(claim.branch_id)}
        commit = Commit(
            head,
            EMPTY_TREE_SHA,
            (),
            "Ann",
            "ann@example.org",
            "2026-01-01T00:00:00Z",
            "2026-01-02T00:00:00Z",
            f"to {head[:4]}",
        )
        change = SnapshotChange(
            head_sha=head,
            tree_sha=EMPTY_TREE_SHA,
            added=tuple(entry for entry in entries if entry.path not in known),
            modified=tuple(entry for entry in entries if entry.path in known),
            removed=removed,
            tree_verified=True,
            tree_error=None,
            rules_digest="r",
        )
        result = RunResult(Outcome.UPDATED, None, head, self.now, self.now, added=len(change.added), requests=3)
        self.snapshots.apply(
            claim,
            change,
            result,
            commits=CommitChange((commit,), replace=False),
            now=self.now,
            read_at=self.now,
            served=(),
        )

    # -- asking -----------------------------------------------------------------------------------

    def ask(self, path: str, *lines: str, method: str = "GET", host: str | None = "localhost") -> Reply:
        head = [f"{method} {path} HTTP/1.1", *([] if host is None else [f"Host: {host}"]), *lines, "", ""]
        reply = web_peer.talk(self.port, "\r\n".join(head).encode("latin-1"), method)
        assert reply is not None
        return reply

    def walk(self, path: str, limit: int) -> list[Any]:
        """Every item of a list, page by page."""
        items: list[Any] = []
        mark = ""
        while True:
            page = self.ask(f"{path}{'&' if '?' in path else '?'}limit={limit}{mark}").json
            assert page["has_next"] is (page["next_cursor"] is not None)
            assert len(page["items"]) <= limit
            items += page["items"]
            if not page["has_next"]:
                return items
            mark = f"&cursor={page['next_cursor']}"


def blob_sha(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0%s" % (len(content), content)).hexdigest()


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Admin]:
    """A listener over a store that tracks octo/demo and has never synced it."""
    admin = Admin(open_store(tmp_path / "test.db", clock=Clock()))
    admin.repositories.track([Rule("octo", "demo")], now=NOW)
    with web_peer.serve(lambda executor: make_admin_app(admin.deps(executor))) as admin.port:
        yield admin
    admin.database.close()


@pytest.fixture
def admin(bare: Admin) -> Admin:
    """The same, with octo/demo synced at one commit."""
    repository_id = bare.repositories.by_name("octo", "demo")
    assert repository_id is not None
    bare.repositories.identify(repository_id, RemoteRepository(77, "Octo", "Demo", "main"), now=NOW)
    bare.sync(FILES, head="1" * 40)
    return bare


# -- guards ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "127.0.0.1:8788", "[::1]", "[::1]:8788"])
def test_a_known_host_is_answered_whatever_the_port(bare, host):
    assert bare.ask("/healthz", host=host).status == 200


@pytest.mark.parametrize(
    "host", ["", "evil.example", "localhost.evil", "127.0.0.1.nip.io", "localhost.", "[::2]", "::1:", "[::1", ":8788"]
)
def test_another_host_is_refused_wherever_it_asks(bare, host):
    for path in ("/healthz", "/readyz", "/", "/api/v1/status", "/nowhere"):
        assert bare.ask(path, host=host).status == 403


def test_http_1_0_without_a_host_is_refused(bare):
    reply = web_peer.talk(bare.port, b"GET /healthz HTTP/1.0\r\n\r\n")
    assert reply is not None
    assert reply.status == 403


def test_allowed_hosts_may_be_written_with_port_and_brackets(bare):
    bare.hosts = ("Admin.Example:8788", "[fd00::1]")
    assert bare.ask("/healthz", host="admin.example").status == 200
    assert bare.ask("/healthz", host="[fd00::1]:1").status == 200
    assert bare.ask("/healthz").status == 403


@pytest.mark.parametrize(
    "line",
    [
        None,
        "Authorization: Bearer wrong",
        "Authorization: Bearer",
        "Authorization: Bearer correct horse x",
        "Authorization: Basic correct horse",
        "Authorization: Bearer \xe9\xff",
        "Authorization: correct horse",
    ],
)
def test_a_missing_or_wrong_token_is_a_401_everywhere_but_on_the_probes(bare, line):
    bare.token = "correct-horse"
    lines = [] if line is None else [line]
    for path in ("/", "/metrics", "/api/v1/status", "/api/v1/openapi.json", "/nowhere", DEMO):
        reply = bare.ask(path, *lines)
        assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer")
        assert set(reply.json) == {"detail"}
    assert bare.ask(f"{DEMO}/sync", *lines, method="POST").status == 401
    assert bare.ask("/healthz").status == 200
    assert bare.ask("/readyz").status == 200


def test_the_right_token_opens_everything(bare):
    bare.token = "t\xf6ken"
    given = "Authorization: bearer " + bare.token.encode().decode("latin-1")
    assert bare.ask("/api/v1/status", given).status == 200
    assert bare.ask("/api/v1/status", given, given).status == 401


@pytest.mark.parametrize(
    "lines",
    [
        ("Origin: http://evil.example",),
        ("Origin: null",),
        ("Origin: http://localhost:8789",),
        ("Origin: http://localhost",),
        ("Origin: https://localhost:8788",),
        ("Origin: http://localhost:8788", "Origin: http://evil.example"),
        ("Sec-Fetch-Site: cross-site",),
        ("Sec-Fetch-Site: same-site",),
        ("Sec-Fetch-Site: same-site", "Origin: http://localhost:8788"),
        ("Sec-Fetch-Site: same-origin", "Origin: http://evil.example"),
    ],
)
def test_a_change_from_another_origin_is_refused_token_or_not(admin, lines):
    for token in (None, TOKEN.replace(" ", "-")):
        admin.token = token
        given = [] if token is None else [f"Authorization: Bearer {token}"]
        assert admin.ask(f"{DEMO}/sync", *lines, *given, method="POST", host="localhost:8788").status == 403
    assert admin.wanted == []


@pytest.mark.parametrize(
    "lines",
    [
        (),
        ("Origin: http://localhost:8788",),
        ("Origin: http://LocalHost:8788",),
        ("Sec-Fetch-Site: same-origin", "Origin: https://localhost:8788"),
        ("Sec-Fetch-Site: none",),
    ],
)
def test_a_change_from_its_own_origin_or_from_a_program_is_done(admin, lines):
    assert admin.ask(f"{DEMO}/sync", *lines, method="POST", host="localhost:8788").status == 202


def test_reading_from_another_origin_is_no_change(admin):
    assert admin.ask("/api/v1/status", "Origin: http://evil.example").status == 200


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_another_method_is_a_405_that_names_the_right_ones(admin, method):
    assert admin.ask("/api/v1/status", method=method).headers["allow"] == "GET, HEAD"
    assert admin.ask(f"{DEMO}/sync", method=method).headers["allow"] == "POST"


def test_a_webhook_that_was_changed_is_to_be_looked_at(admin):
    reply = admin.ask(f"{DEMO}/webhook", method="POST")
    assert (reply.status, reply.json) == (202, {"repository": "Octo/Demo"})
    assert admin.looks == [admin.repositories.by_name("octo", "demo")]
    assert admin.ask("/api/v1/repositories/octo/none/webhook", method="POST").status == 404
    assert len(admin.looks) == 1


def test_nothing_changes_by_get(admin):
    assert admin.ask(f"{DEMO}/sync").status == 405
    assert admin.wanted == []


def test_an_unknown_path_is_a_404(admin):
    for path in ("/nowhere", "/api/v1/repositories/", f"{DEMO}/", f"{DEMO}/files/", "//healthz", "/api/v1/status%00"):
        assert (admin.ask(path).status, admin.ask(path).json) == (404, {"detail": "Not found"})


def test_every_answer_carries_the_guards(admin):
    for path in ("/", "/healthz", "/metrics", "/api/v1/status", "/nowhere", f"{DEMO}/files", f"{DEMO}/raw/a.txt"):
        headers = admin.ask(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["server"] == "headwater"
    assert admin.ask("/api/v1/status").headers["cache-control"] == "no-store"


def test_a_body_that_nobody_asked_for_is_bounded(admin):
    with web_peer.connect(admin.port) as connection:
        connection.sendall(b"POST /api/v1/status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000000\r\n\r\n")
        reply = web_peer.read_reply(connection)
    assert reply is not None
    assert reply.status == 405
    form = ["Content-Type: multipart/form-data; boundary=x", "Content-Length: 0"]
    assert admin.ask(f"{DEMO}/sync", *form, method="POST").status == 202


# -- the daemon as a whole ------------------------------------------------------------------------


def test_ready_says_why_not(admin):
    assert (admin.ask("/readyz").status, admin.ask("/readyz").json) == (200, {"status": "ready"})
    admin.reasons = ["a worker has died"]
    reply = admin.ask("/readyz")
    assert (reply.status, reply.json["reasons"]) == (503, ["a worker has died"])


def test_fresh_readiness_asks_every_branch_and_names_none(bare):
    never = bare.ask("/readyz?fresh=1")
    assert never.status == 503
    assert "never synced" in never.json["reasons"][0]
    assert bare.ask("/readyz").status == 200
    repository_id = bare.repositories.by_name("octo", "demo")
    bare.repositories.identify(repository_id, RemoteRepository(77, "octo", "demo", "main"), now=NOW)
    assert bare.ask("/readyz?fresh=1").status == 503
    bare.sync(FILES, head="1" * 40)
    assert bare.ask("/readyz?fresh=1").status == 200
    bare.now = NOW + timedelta(seconds=67)
    stale = bare.ask("/readyz?fresh=1")
    assert (stale.status, "staler" in stale.json["reasons"][0]) == (503, True)
    assert b"octo" not in stale.body


def test_status_and_metrics_are_what_the_daemon_says(admin):
    assert admin.ask("/api/v1/status").json == {"version": "1", "promises_kept": True}
    metrics = admin.ask("/metrics")
    assert (metrics.body, metrics.headers["content-type"]) == (
        b"# HELP x\n",
        "text/plain; version=0.0.4; charset=utf-8",
    )


@pytest.mark.parametrize(
    ("error", "status"), [(StoreUnavailable("database is locked: /srv/x.db"), 503), (RuntimeError("/srv/secret"), 500)]
)
def test_an_error_inside_tells_strangers_nothing(admin, error, status):
    admin.status = error
    reply = admin.ask("/api/v1/status")
    assert (reply.status, set(reply.json)) == (status, {"detail"})
    assert b"/srv" not in reply.body
    assert reply.headers.get("retry-after") == ("5" if status == 503 else None)


def test_the_first_page_links_the_api_and_holds_no_inline_script(admin):
    page = admin.ask("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert b'href="/api/v1/repositories"' in page.body
    assert page.body.count(b"<script") == page.body.count(b'<script src="/static/') == page.body.count(b"></script>")


def test_head_is_get_without_the_body(admin):
    for path in ("/healthz", "/api/v1/repositories", f"{DEMO}/raw/a.txt"):
        got, head = admin.ask(path), admin.ask(path, method="HEAD")
        assert (head.status, head.body) == (got.status, b"")
        assert head.headers["content-length"] == got.headers["content-length"]


# -- repositories ---------------------------------------------------------------------------------


def test_a_repository_tells_what_is_known_of_it(admin):
    assert admin.ask(DEMO.upper().replace("/API/V1/REPOSITORIES", "/api/v1/repositories")).status == 200
    found = admin.ask(DEMO).json
    assert found["full_name"] == "Octo/Demo"
    assert (found["id"], found["default_branch"], found["state"]) == (77, "main", "fresh")
    assert (found["webhook"], found["missed_webhooks"], found["last_error"]) == ("unknown", 0, None)
    (branch,) = found["branches"]
    assert branch["name"] == "main"
    assert (branch["head_sha"], branch["remote_sha"], branch["tree_sha"]) == ("1" * 40, "1" * 40, EMPTY_TREE_SHA)
    assert branch["confirmed_at"] == branch["synced_at"] == "2026-11-23T21:40:41.123Z"
    assert (branch["tree_verified"], branch["tree_error"], branch["state"]) == (True, None, "fresh")


def test_a_branch_gets_stale_once_the_promise_is_broken(admin):
    admin.now = NOW + timedelta(seconds=65)
    assert admin.ask(DEMO).json["branches"][0]["state"] == "fresh"
    admin.now = NOW + timedelta(seconds=67)
    assert admin.ask(DEMO).json["state"] == "stale"


def test_a_running_sync_tells_how_far_it_has_come(admin):
    number = admin.repositories.by_name("octo", "demo")
    admin.syncs = [SyncProgress(number + 1, "octo/other", "main", "head", 0, 1)]
    assert admin.ask(DEMO).json["progress"] is None
    admin.syncs.append(SyncProgress(number, "octo/demo", "main", "content", 1500, 7000))
    told = {"repository": "octo/demo", "branch": "main", "phase": "content", "done": 1500, "total": 7000}
    assert admin.ask(DEMO).json["progress"] == told


def test_a_repository_that_never_synced_has_a_state_and_no_branch(bare):
    found = bare.ask(DEMO).json
    assert (found["branches"], found["default_branch"], found["state"]) == ([], None, "stale")


def test_an_unknown_repository_or_branch_is_a_404(admin):
    for path in ("", "/files", "/commits", "/runs", "/raw/a.txt"):
        assert admin.ask(f"/api/v1/repositories/octo/other{path}").json == {"detail": "Repository not found"}
    for path in ("/files", "/commits", "/raw/a.txt"):
        for branch in ("other", "Main", "%ff", "%00", "'--"):
            reply = admin.ask(f"{DEMO}{path}?branch={branch}")
            assert (reply.status, reply.json) == (404, {"detail": "Branch not found"})


def test_a_repository_without_a_branch_yet_has_no_files(bare):
    assert bare.ask(f"{DEMO}/files").json == {"detail": "Branch not found"}
    assert bare.ask(f"{DEMO}/files?branch=").json == {"detail": "Branch not found"}


def test_odd_names_are_unknown_and_no_error(admin):
    for name in ("%ff/%fe", "%00/%00", "a%2Fb/c", "\xe9/\xff", "%ed%a0%80/x"):
        assert admin.ask(f"/api/v1/repositories/{name}").status == 404


def test_repositories_come_by_name_page_by_page(admin):
    names = [f"octo/r{number:02}" for number in range(7)]
    admin.repositories.track([Rule(*name.split("/")) for name in ["octo/demo", *names]], now=NOW)
    for limit in (1, 3, 8, 1000):
        assert [one["full_name"] for one in admin.walk("/api/v1/repositories", limit)] == ["Octo/Demo", *names]


# -- files ----------------------------------------------------------------------------------------


def test_files_come_by_path_with_bytes_where_text_cannot_say_it(admin):
    page = admin.ask(f"{DEMO}/files")
    assert page.headers["x-commit-sha"] == "1" * 40
    assert page.headers["x-confirmed-at"] == "2026-11-23T21:40:41.123Z"
    assert [item["path"] for item in page.json["items"]] == [
        "a.txt",
        "bin",
        "dir/a b%.html",
        "dir/caf\N{REPLACEMENT CHARACTER}",
        "dir/empty",
        "link",
    ]
    odd = page.json["items"][3]
    assert base64.b64decode(odd["path_base64"]) == LATIN
    assert [item["mode"] for item in page.json["items"]] == ["100644", "100755", "100644", "100644", "100644", "120000"]
    content = FILES[b"a.txt"][1]
    assert page.json["items"][0] == {
        "path": "a.txt",
        "mode": "100644",
        "sha": blob_sha(content),
        "size": len(content),
        "stored": True,
    }


@pytest.mark.parametrize("limit", [1, 2, 3, 6, 1000])
def test_pages_of_files_are_the_whole_and_nothing_twice(admin, limit):
    assert [item["path"] for item in admin.walk(f"{DEMO}/files", limit)] == [
        item["path"] for item in admin.ask(f"{DEMO}/files").json["items"]
    ]


def test_a_prefix_is_bytes(admin):
    paths = [item["path"] for item in admin.walk(f"{DEMO}/files?prefix=dir/", 2)]
    assert paths == ["dir/a b%.html", "dir/caf\N{REPLACEMENT CHARACTER}", "dir/empty"]
    assert len(admin.walk(f"{DEMO}/files?prefix=dir/caf%E9", 2)) == 1
    assert admin.walk(f"{DEMO}/files?prefix=nothing", 2) == []
    assert len(admin.walk(f"{DEMO}/files?prefix=", 2)) == len(FILES)


def test_a_reader_that_pages_during_a_sync_sees_one_commit(admin):
    first = admin.ask(f"{DEMO}/files?limit=2")
    admin.sync({b"a.txt": (MODE_FILE, b"new"), b"zz": (MODE_FILE, b"z")}, head="2" * 40, removed=(b"dir/empty",))
    rest = admin.ask(f"{DEMO}/files?cursor={first.json['next_cursor']}")
    assert [item["path"] for item in rest.json["items"]][-2:] == ["dir/empty", "link"]
    assert rest.headers["x-commit-sha"] == "1" * 40
    assert admin.ask(f"{DEMO}/files").headers["x-commit-sha"] == "2" * 40


def test_a_cursor_into_a_snapshot_that_is_gone_is_a_410(admin):
    cursor = admin.ask(f"{DEMO}/files?limit=2").json["next_cursor"]
    admin.now = NOW + timedelta(seconds=1)
    admin.sync({b"a.txt": (MODE_FILE, b"new")}, head="2" * 40)
    admin.snapshots.sweep(now=NOW + timedelta(hours=1), keep_seconds=60.0)
    reply = admin.ask(f"{DEMO}/files?cursor={cursor}")
    assert (reply.status, set(reply.json)) == (410, {"detail"})


def test_a_submodule_has_neither_size_nor_content(admin):
    admin.jobs.want([admin.repositories.branches(1)[0].id], Trigger.MANUAL, now=NOW)
    claim = admin.jobs.claim("test", now=NOW, lease_seconds=60)
    assert claim is not None
    link = Entry(b"sub", MODE_SUBMODULE, "5" * 40, None)
    change = SnapshotChange("2" * 40, EMPTY_TREE_SHA, (link,), (), (), True, None, "r")
    result = RunResult(Outcome.UPDATED, "1" * 40, "2" * 40, NOW, NOW)
    admin.snapshots.apply(claim, change, result, commits=None, now=NOW, read_at=NOW, served=())
    (entry,) = admin.ask(f"{DEMO}/files?prefix=sub").json["items"]
    assert (entry["size"], entry["stored"], entry["mode"]) == (None, False, "160000")
    assert admin.ask(f"{DEMO}/raw/sub").status == 404


# -- bytes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a.txt", b"a.txt"),
        ("bin", b"bin"),
        ("dir/a%20b%25.html", b"dir/a b%.html"),
        ("dir%2Fa%20b%25.html", b"dir/a b%.html"),
        ("dir/caf%E9", LATIN),
        ("dir/caf\xe9", LATIN),
        ("dir/empty", b"dir/empty"),
        ("link", b"link"),
    ],
)
def test_raw_is_the_bytes_whatever_the_path_is_made_of(admin, path, name):
    reply = admin.ask(f"{DEMO}/raw/{path}")
    content = FILES[name][1]
    assert (reply.status, reply.body) == (200, content)
    assert reply.headers["etag"] == f'"{blob_sha(content)}"'
    assert reply.headers["x-commit-sha"] == "1" * 40
    assert reply.headers["x-confirmed-at"] == "2026-11-23T21:40:41.123Z"
    assert reply.headers["content-security-policy"].startswith("sandbox; default-src 'none'")


def test_raw_is_text_or_bytes_and_never_html(admin):
    kinds = {path: admin.ask(f"{DEMO}/raw/{path}").headers["content-type"] for path in ("a.txt", "bin", "dir/caf%E9")}
    assert kinds == {
        "a.txt": "text/plain; charset=utf-8",
        "bin": "application/octet-stream",
        "dir/caf%E9": "application/octet-stream",
    }
    assert admin.ask(f"{DEMO}/raw/dir/a%20b%25.html").headers["content-type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize(
    "path", ["dir", "dir/", "nothing", "../demo", "%2e%2e/x", "a.txt%00", "a.txt/", "A.TXT", "dir//empty"]
)
def test_what_is_no_stored_file_is_a_404(admin, path):
    reply = admin.ask(f"{DEMO}/raw/{path}")
    assert (reply.status, reply.json) == (404, {"detail": "File not found"})


@pytest.mark.parametrize("template", ['"{}"', 'W/"{}"', '"x", "{}"', "*"])
def test_a_blob_the_reader_has_is_a_304(admin, template):
    sha = blob_sha(FILES[b"a.txt"][1])
    reply = admin.ask(f"{DEMO}/raw/a.txt", f"If-None-Match: {template.format(sha)}")
    assert (reply.status, reply.body) == (304, b"")
    assert reply.headers["etag"] == f'"{sha}"'
    assert reply.headers["x-commit-sha"] == "1" * 40


@pytest.mark.parametrize("value", ['"x"', "", "{}", '"{}x"'])
def test_another_blob_is_sent(admin, value):
    sha = blob_sha(FILES[b"a.txt"][1])
    assert admin.ask(f"{DEMO}/raw/a.txt", f"If-None-Match: {value.format(sha)}").status == 200


@pytest.mark.parametrize(
    ("template", "status"),
    [('"{}"', 200), ('"x", "{}"', 200), ("*", 200), ('"x"', 412), ('W/"{}"', 412), ("{}", 412), ("", 412)],
)
def test_a_file_that_is_another_one_than_was_wanted_is_a_412(admin, template, status):
    sha = blob_sha(FILES[b"a.txt"][1])
    for more in ((), ("Range: bytes=0-1",), (f'If-None-Match: "{sha}"',)):
        reply = admin.ask(f"{DEMO}/raw/a.txt", f"If-Match: {template.format(sha)}", *more)
        assert (reply.status == 412) is (status == 412)
    assert reply.headers["etag"] == f'"{sha}"'
    assert reply.headers["x-commit-sha"] == "1" * 40


def test_a_range_is_of_get_alone(admin):
    reply = admin.ask(f"{DEMO}/raw/a.txt", "Range: bytes=0-1", method="HEAD")
    assert (reply.status, reply.headers["content-length"]) == (200, str(len(FILES[b"a.txt"][1])))
    assert "content-range" not in reply.headers


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        ("bytes=0-0", slice(0, 1)),
        ("bytes=2-4", slice(2, 5)),
        ("bytes=2-", slice(2, None)),
        ("bytes=-3", slice(-3, None)),
        ("bytes=-999", slice(None)),
        ("bytes=0-999", slice(None)),
        ("Bytes=1-2", slice(1, 3)),
    ],
)
def test_one_range_is_a_206(admin, asked, part):
    content = FILES[b"a.txt"][1]
    reply = admin.ask(f"{DEMO}/raw/a.txt", f"Range: {asked}")
    assert (reply.status, reply.body) == (206, content[part])
    first = content.index(content[part])
    assert reply.headers["content-range"] == f"bytes {first}-{first + len(reply.body) - 1}/{len(content)}"
    assert reply.headers["etag"] == f'"{blob_sha(content)}"'


@pytest.mark.parametrize(("path", "asked"), [("a.txt", "bytes=8-"), ("a.txt", "bytes=-0"), ("dir/empty", "bytes=0-")])
def test_a_range_of_nothing_is_a_416(admin, path, asked):
    reply = admin.ask(f"{DEMO}/raw/{path}", f"Range: {asked}")
    size = 0 if path == "dir/empty" else 8
    assert (reply.status, reply.headers["content-range"]) == (416, f"bytes */{size}")


@pytest.mark.parametrize(
    "asked",
    ["bytes=0-1,3-4", "bytes=4-2", "bytes=-", "bytes=a-b", "lines=0-1", "bytes=--1", "bytes=" + "9" * 400 + "-"],
)
def test_a_range_that_makes_no_sense_is_ignored(admin, asked):
    assert admin.ask(f"{DEMO}/raw/a.txt", f"Range: {asked}").status == 200


def test_a_range_of_another_version_is_the_whole(admin):
    sha = blob_sha(FILES[b"a.txt"][1])
    assert admin.ask(f"{DEMO}/raw/a.txt", "Range: bytes=0-1", f'If-Range: "{sha}"').status == 206
    assert admin.ask(f"{DEMO}/raw/a.txt", "Range: bytes=0-1", 'If-Range: "x"').status == 200


# -- commits, runs, deliveries ----------------------------------------------------------------------


def test_commits_runs_and_deliveries_come_newest_first_page_by_page(admin):
    for digit in "234":
        admin.sync({b"a.txt": (MODE_FILE, digit.encode())}, head=digit * 40)
    for number in range(5):
        admin.history.store_deliveries([_delivery(f"g{number}")], now=NOW)
    for limit in (1, 2, 5, 1000):
        assert [one["sha"][0] for one in admin.walk(f"{DEMO}/commits", limit)] == ["4", "3", "2", "1"]
        assert [one["after"][0] for one in admin.walk(f"{DEMO}/runs", limit)] == ["4", "3", "2", "1"]
        assert [one["after"][0] for one in admin.walk("/api/v1/runs", limit)] == ["4", "3", "2", "1"]
        assert [one["guid"] for one in admin.walk("/api/v1/deliveries", limit)] == ["g4", "g3", "g2", "g1", "g0"]


def _delivery(guid: str) -> Delivery:
    return Delivery(guid, "d", "ping", None, "octo/demo", None, None, None, NOW, DeliveryStatus.IGNORED, "because")


def test_a_commit_a_run_and_a_delivery_tell_what_the_contract_lists(admin):
    admin.history.store_deliveries([_delivery("g")], now=NOW)
    commit = admin.ask(f"{DEMO}/commits")
    assert commit.headers["x-commit-sha"] == "1" * 40
    assert commit.json["items"][0] == {
        "sha": "1" * 40,
        "tree_sha": EMPTY_TREE_SHA,
        "parents": [],
        "author": {"name": "Ann", "email": "ann@example.org", "date": "2026-01-01T00:00:00Z"},
        "committed_at": "2026-01-02T00:00:00Z",
        "message": "to 1111",
    }
    run = admin.ask("/api/v1/runs").json["items"][0]
    assert set(SCHEMAS["Run"]["properties"]) == set(run)
    assert (run["repository"], run["branch"], run["outcome"], run["requests"]) == ("Octo/Demo", "main", "updated", 3)
    assert run["started_at"] == "2026-11-23T21:40:41.123Z"
    delivery = admin.ask("/api/v1/deliveries").json["items"][0]
    assert set(SCHEMAS["Delivery"]["properties"]) == set(delivery)
    assert (delivery["status"], delivery["reason"], delivery["attempts"]) == ("ignored", "because", 1)


def test_runs_of_one_repository_are_its_own(admin):
    admin.repositories.track([Rule("octo", "demo"), Rule("octo", "other")], now=NOW)
    assert admin.ask("/api/v1/repositories/octo/other/runs").json["items"] == []


LISTS = [
    "/api/v1/repositories",
    f"{DEMO}/files",
    f"{DEMO}/commits",
    f"{DEMO}/runs",
    "/api/v1/runs",
    "/api/v1/deliveries",
    "/api/v1/entities/thing",
    "/api/v1/entity-errors",
    "/api/v1/changes",
    "/api/v1/search?q=x",
]


@pytest.mark.parametrize("path", LISTS)
def test_a_limit_out_of_bounds_is_a_422(admin, path):
    for limit in ("0", "-1", "1001", "x", "", "1.5", "9" * 5000, "%D9%A1"):
        reply = admin.ask(f"{path}{'&' if '?' in path else '?'}limit={limit}")
        assert (reply.status, set(reply.json)) == (422, {"detail"})
    for limit in ("1", "1000"):
        assert admin.ask(f"{path}{'&' if '?' in path else '?'}limit={limit}").status == 200


def pack(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize("path", LISTS)
def test_a_bad_cursor_is_a_422(admin, path):
    kind = path.rpartition("/")[2].partition("?")[0]
    made_up = [
        [],
        {},
        1,
        None,
        ["x", 1],
        [kind],
        [kind, None],
        [kind, -1],
        [kind, 2**63],
        [kind, True],
        [kind, 1.0],
        [kind, "\ud800"],
        [kind, 1, 2, 3, 4],
        [kind, 1, 1, "\u0100"],
        [kind, 999, 1],
        [kind, 999, 1, "x"],
    ]
    bad = [pack(value) for value in made_up]
    for cursor in [
        "",
        "x",
        "%%%",
        "\xe9",
        "AAAA",
        pack("x" * 3000),
        pack([[]] * 500),
        base64.b64encode(b"[" * 9000).decode(),
        *bad,
    ]:
        reply = admin.ask(f"{path}{'&' if '?' in path else '?'}cursor={cursor}")
        assert (reply.status, set(reply.json)) == (422, {"detail"}), cursor


def test_a_cursor_of_one_list_does_not_fit_another(admin):
    cursor = pack(["runs", 1])
    assert admin.ask(f"/api/v1/runs?cursor={cursor}").status == 200
    assert admin.ask(f"/api/v1/deliveries?cursor={cursor}").status == 422


# -- syncs ----------------------------------------------------------------------------------------


def test_a_sync_is_wanted_durably_before_it_is_answered(admin):
    reply = admin.ask(f"{DEMO}/sync", method="POST")
    branch_id = admin.repositories.branches(1)[0].id
    assert reply.status == 202
    assert admin.wanted == [[branch_id]]
    job = reply.json["job"]
    assert (job["repository"], job["branch"], job["state"], job["triggers"]) == (
        "Octo/Demo",
        "main",
        "pending",
        ["manual"],
    )
    assert (reply.json["id"], reply.json["state"]) == (job["id"], "pending")
    assert set(SCHEMAS["Job"]["properties"]) == set(job)
    assert admin.ask(DEMO).json["state"] == "syncing"


def test_a_sync_takes_a_branch(admin):
    admin.repositories.track([Rule("octo", "demo", ("main", "dev"))], now=NOW)
    assert admin.ask(f"{DEMO}/sync?branch=dev", method="POST").json["job"]["branch"] == "dev"
    assert len(admin.ask(f"{DEMO}/sync", method="POST").json["jobs"]) == 2
    assert admin.ask(f"{DEMO}/sync?branch=other", method="POST").status == 404
    assert admin.ask("/api/v1/repositories/octo/other/sync", method="POST").status == 404


def test_a_sync_of_a_branch_whose_name_is_not_known_yet(bare):
    assert bare.ask(f"{DEMO}/sync", method="POST").status == 202
    assert len(bare.wanted[0]) == 1


def test_without_a_way_to_ask_github_a_sync_is_a_503(admin):
    admin.configured = False
    reply = admin.ask(f"{DEMO}/sync", method="POST")
    assert (reply.status, reply.json) == (503, {"detail": "GitHub integration not configured"})
    assert admin.wanted == []


def test_an_old_name_leads_to_the_new_one(admin):
    repository_id = admin.repositories.by_name("octo", "demo")
    admin.repositories.identify(repository_id, RemoteRepository(77, "Nova", "Demo2", "main"), now=NOW)
    for path in (DEMO, "/api/v1/repositories/OCTO/Demo"):
        reply = admin.ask(path)
        assert (reply.status, reply.headers["location"]) == (301, "/api/v1/repositories/Nova/Demo2")
    assert admin.ask("/api/v1/repositories/nova/demo2").json["full_name"] == "Nova/Demo2"
    assert admin.ask(f"{DEMO}/sync", method="POST").status == 202


# -- the description ------------------------------------------------------------------------------


def test_every_route_is_described_and_every_description_has_a_route(admin):
    served = {(route.template, method.lower()) for route in routes() for method in route.functions}
    described = {(path, method) for path, methods in PATHS.items() for method in methods}
    assert served == described
    assert admin.ask("/api/v1/openapi.json").json == json.loads(json.dumps(document()))


def test_every_described_parameter_of_a_path_is_in_the_path():
    for path, methods in PATHS.items():
        for operation in methods.values():
            named = {parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "path"}
            assert named == {part[1:-1] for part in path.split("/") if part.startswith("{")}


def test_what_is_open_without_a_token_is_described_so():
    for route in routes():
        for method in route.functions:
            assert (PATHS[route.template][method.lower()].get("security") == []) is route.open


def test_every_reference_leads_somewhere():
    for name in json.dumps(document()).split("#/components/schemas/")[1:]:
        assert name.partition('"')[0] in SCHEMAS


def test_a_repository_answers_with_exactly_what_is_described(admin):
    found = admin.ask("/api/v1/repositories").json["items"][0]
    assert set(found) == set(SCHEMAS["Repository"]["properties"])
    assert set(found["branches"][0]) == set(SCHEMAS["Branch"]["properties"])


# -- size -----------------------------------------------------------------------------------------


def test_a_large_file_is_served_in_full(admin):
    content = bytes(range(256)) * 80_000
    admin.sync({b"large": (MODE_FILE, content)}, head="9" * 40)
    assert admin.ask(f"{DEMO}/raw/large").body == content
