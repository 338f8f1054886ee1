"""The pages for people from outside, over a real store: what they show, whom they let in, and what they never send."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import web_peer
from engines import open_store
from test_web_admin import FILES, NOW, Admin, Rule
from web_peer import Reply

from daemon.clock import Clock
from daemon.model import Delivery, DeliveryStatus, NodeRecord, RemoteRepository, Sample, Trigger
from daemon.store.glance import Glance
from daemon.store.hooklog import HookLog
from daemon.triggers.recovery import NO_HOOK
from daemon.version import __version__
from daemon.web import static
from daemon.web.admin import make_admin_app, pages
from daemon.web.sessions import COOKIE

TOKEN = "correct-horse"
HTML = "Accept: text/html,application/xhtml+xml"
OWN = "Origin: http://localhost:8788"
PAGE = "/repositories/Octo/Demo"
FORM = "Content-Type: application/x-www-form-urlencoded"
READ = ("/", "/deliveries", "/runs", "/entity-errors", "/budget", "/nodes", PAGE, f"{PAGE}/files", f"{PAGE}/commits")
READ += (f"{PAGE}/entities", f"{PAGE}/entities?type=x", f"{PAGE}/runs", f"{PAGE}/actions")
POLICY = {
    *("default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'", "img-src 'self'"),
    *("form-action 'self'", "frame-ancestors 'none'", "base-uri 'none'"),
}


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Admin]:
    admin = Admin(open_store(tmp_path / "test.db", clock=Clock()))
    with web_peer.serve(lambda executor: make_admin_app(admin.deps(executor))) as admin.port:
        yield admin
    admin.database.close()


@pytest.fixture
def admin(bare: Admin) -> Admin:
    bare.repositories.track([Rule("octo", "demo")], now=NOW)
    repository_id = bare.repositories.by_name("octo", "demo")
    assert repository_id is not None
    bare.repositories.identify(repository_id, RemoteRepository(77, "Octo", "Demo", "main"), now=NOW)
    bare.sync(FILES, head="1" * 40)
    return bare


def post(admin: Admin, path: str, *lines: str, host: str = "localhost:8788", **fields: str | bytes) -> Reply:
    body = urlencode(fields).encode()
    given = lines if any(line.startswith("Content-Type") for line in lines) else (FORM, *lines)
    head = [f"POST {path} HTTP/1.1", f"Host: {host}", f"Content-Length: {len(body)}", *given, "", ""]
    reply = web_peer.talk(admin.port, "\r\n".join(head).encode("latin-1") + body)
    assert reply is not None
    return reply


def log_in(admin: Admin, **fields: str) -> str:
    """The cookie of a session, as a header."""
    reply = post(admin, "/login", OWN, token=TOKEN, **fields)
    assert reply.status == 303
    return "Cookie: " + reply.headers["set-cookie"].partition(";")[0]


# -- what is sent -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [*READ, "/repositories/no/such", "/login"])
def test_every_page_is_html_that_runs_nothing_foreign(admin, path):
    reply = admin.ask(path)
    headers = reply.headers
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert set(headers["content-security-policy"].split("; ")) == POLICY
    assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")
    assert headers["cache-control"] == "no-store"
    assert re.search(rb"<script(?! src=\"/static/[\w./]+\" defer></script>)", reply.body) is None
    assert re.search(rb"<style|\sstyle=|\son\w+=|javascript:", reply.body) is None


@pytest.mark.parametrize("path", READ)
def test_every_page_has_one_heading_a_title_and_a_language(admin, path):
    body = admin.ask(path).body
    assert body.count(b"<h1") == 1
    assert b'<html lang="en">' in body
    assert b" \xc2\xb7 headwater</title>" in body


@pytest.mark.parametrize("path", READ)
def test_a_store_without_anything_still_has_its_pages(bare, path):
    assert bare.ask(path).status == (404 if path.startswith(PAGE) else 200)


def test_an_empty_overview_says_what_to_do_next(bare):
    body = bare.ask("/").body.decode()
    assert "Nothing is tracked yet" in body
    assert "[[repositories]]" in body


def test_what_is_not_there_is_told_as_a_page(admin):
    for path in (f"{PAGE}/files?path=nowhere", f"{PAGE}/files?branch=no", "/repositories/a/b"):
        reply = admin.ask(path)
        assert reply.status == 404
        assert b'href="/"' in reply.body
    assert admin.ask("/runs?before=x").status == 422
    assert admin.ask("/entity-errors?cursor=x").status == 422


def test_the_overview_tells_what_is_known_of_a_branch(admin):
    body = admin.ask("/").body.decode()
    for said in ("The branch is fresh", "1111111", "to 1111", "Ann", "webhook", "Sync now", "main"):
        assert said in body
    assert '<time datetime="2026-11-23T21:40:41.123Z" title="2026-11-23 21:40:41 UTC">' in body


def test_what_is_wrong_is_at_the_top_in_words(admin):
    admin.now = NOW + timedelta(hours=1)
    body = admin.ask("/").body.decode()
    assert "1 thing to look at" in body
    assert "GitHub was not seen to confirm it in time: `headwater check --online` and " in body
    admin.configured = False
    body = admin.ask("/").body.decode()
    assert "Set github.token" in body
    assert "Sync now" not in body


def test_a_sync_that_only_waits_and_breaks_the_promise_is_something_to_look_at(admin):
    (branch,) = admin.repositories.record("octo", "demo").branches
    admin.jobs.want([branch.id], Trigger.POLL, now=NOW)
    claim = admin.jobs.claim("here", now=NOW, lease_seconds=60.0)
    admin.jobs.waiting(claim, run_after=NOW + timedelta(hours=2), sighting=None, note="GitHub says 500", now=NOW)
    assert "1 thing to look at" not in admin.ask("/").body.decode()
    admin.now = NOW + timedelta(hours=1)
    body = admin.ask("/").body.decode()
    assert "1 thing to look at" in body
    assert '<span class="what">GitHub says 500</span>' in body


def test_missing_webhooks_are_told_with_their_number(admin):
    repository_id = admin.repositories.by_name("octo", "demo")
    admin.repositories.suspect(repository_id, branch="main", sha="2" * 40, at=NOW)
    assert admin.repositories.settle_suspects(before=NOW + timedelta(minutes=1), now=NOW) == 1
    body = admin.ask("/").body.decode()
    assert "Polling found 1 that no delivery announced" in body
    assert "see the webhook&#x27;s recent deliveries" in body or "see the webhook&#39;s recent deliveries" in body
    assert "1 missed" in body
    hook_log = HookLog(admin.database)
    target = hook_log.take(now=NOW, lease_seconds=60)
    assert target.repository_id == repository_id
    hook_log.unhooked(target, due_at=NOW, reason=NO_HOOK)
    body = admin.ask("/").body.decode()
    assert "`headwater hooks install` makes one</span>" in body
    assert "recent deliveries" not in body


def test_the_branches_are_filtered_by_name_and_state(admin):
    assert "No branch is like that" in admin.ask("/?q=nothing").body.decode()
    assert "No branch is like that" in admin.ask("/?state=failed").body.decode()
    assert 'id="row-Octo/Demo@main"' in admin.ask("/?q=DEMO&state=fresh").body.decode()
    assert admin.ask("/?begin=abc").status == 200


def test_folders_are_walked_and_files_lead_to_their_bytes(admin):
    top = admin.ask(f"{PAGE}/files").body.decode()
    assert top.count(">dir/</a>") == 1
    assert "symlink" in top
    inner = admin.ask(f"{PAGE}/files?path=dir").body.decode()
    links = re.findall(r'href="(/api/v1/[^"]+/raw/[^"]+)"', inner)
    assert links == [
        f"/api/v1/repositories/Octo/Demo/raw/dir/{one}?branch=main" for one in ("a%20b%25.html", "caf%E9", "empty")
    ]
    assert [admin.ask(link).status for link in links] == [200, 200, 200]


def test_a_delivery_is_shown_with_what_became_of_it(admin):
    delivery = Delivery(
        guid="a-guid",
        body_digest="d",
        event="push",
        action=None,
        repository="Octo/Demo",
        ref="refs/heads/main",
        before="1" * 40,
        after="3" * 40,
        received_at=NOW,
        status=DeliveryStatus.ACCEPTED,
        repository_id=admin.repositories.by_name("octo", "demo"),
        branch="main",
    )
    admin.history.store_deliveries([delivery], now=NOW)
    body = admin.ask("/deliveries").body.decode()
    for said in ("a-guid", "3333333", "accepted", "waits for its sync"):
        assert said in body


def test_lists_go_on_where_a_page_ends(admin):
    for number in range(2, 60):
        admin.sync({b"a.txt": ("100644", b"%d" % number)}, head=f"{number:040x}")
    first = admin.ask("/runs").body.decode()
    assert first.count('<tr id="run-') == 50
    older = re.search(r'href="(/runs\?before=\d+)">Older', first)
    assert older
    assert admin.ask(older[1]).body.decode().count('<tr id="run-') == 9
    commits = admin.ask(f"{PAGE}/commits").body.decode()
    assert re.search(r"commits\?branch=main&amp;before=\d+", commits)


def test_the_budget_is_told_by_resource_and_of_an_app_by_account_too(admin):
    one = {"limit": 5000, "remaining": 4321, "reset_at": "2026-11-23T22:00:00.000Z", "paused_until": None}
    admin.status = {
        "github": {"budget": {"paused_until": None, "resources": {"core": one}}},
        "polling": {"enabled": True, "needed_per_hour": 1234567.0, "sentence": "it fits"},
    }
    body = admin.ask("/budget").body.decode()
    assert ">core</th>" in body
    assert "4\u2009321" in body
    assert "<dd>yes</dd>" in body
    assert "<dd>1\u2009234\u2009567</dd>" in body
    assert "<p>it fits</p>" in body
    assert "<dt>sentence" not in body
    admin.status["github"]["budget"]["accounts"] = {"octo": {"resources": {"core": one}}}
    assert ">octo core</th>" in admin.ask("/budget").body.decode()


def test_the_nodes_tell_in_words_who_is_silent_and_who_does_not_do_the_same(admin):
    began = NOW - timedelta(hours=1)
    this = NodeRecord("this", "here", 1, __version__, began, NOW, "aaaa", "http://127.0.0.1:8788")
    other = NodeRecord("other", "<b>there</b>", 2, "0.0.1", began, NOW - timedelta(minutes=3), "bbbb", None)
    admin.nodes = [this, other]
    well, ill = re.findall(r'<tr><th scope="row".*?</tr>', admin.ask("/nodes").body.decode())
    assert ">alive<" in well
    assert "this one" in well
    assert "another" not in well
    assert ">silent<" in ill
    assert ">3 min ago<" in ill
    assert f"runs another version than this one, {__version__}" in ill
    assert "has another configuration than this one" in ill
    assert "&lt;b&gt;there&lt;/b&gt;" in ill


def test_a_later_page_of_the_list_of_nodes_still_knows_this_nodes_configuration(admin):
    admin.nodes = [NodeRecord(id_, "h", 1, __version__, NOW, NOW, "aaaa", None) for id_ in ("this", "zzz")]
    first = admin.ask("/api/v1/nodes?limit=1").json
    later = admin.ask(f"/api/v1/nodes?limit=1&cursor={first['next_cursor']}").json
    assert [(one["id"], one["same_config"]) for one in later["items"]] == [("zzz", True)]


# -- hostile content --------------------------------------------------------------------------------

XSS = '"><script>alert(1)</script><img src=x onerror=alert(1)>\u202e'


def test_what_a_repository_holds_is_never_markup(admin):
    path = XSS.encode()
    admin.sync({path: ("100644", b"x")}, head="2" * 40)
    repository_id = admin.repositories.by_name("octo", "demo")
    admin.repositories.poll_failed(
        repository_id, at=NOW, error=XSS, state=None, next_poll_at=NOW + timedelta(minutes=1)
    )
    admin.history.store_deliveries(
        [
            Delivery(
                guid=XSS,
                body_digest="e",
                event=XSS,
                action=XSS,
                repository=XSS,
                ref=XSS,
                before=XSS,
                after=XSS,
                received_at=NOW,
                status=DeliveryStatus.IGNORED,
                reason=XSS,
            )
        ],
        now=NOW,
    )
    with admin.database.write():
        admin.database.execute('UPDATE "commit" SET message = ?, author_name = ?, committed_at = ?', (XSS, XSS, XSS))
        admin.database.execute("UPDATE run SET error = ?", (XSS,))
        admin.database.execute("UPDATE branch SET name = ?, last_error = ?, last_trigger = ?", (XSS, XSS, XSS))
        admin.database.execute("UPDATE repository SET default_branch = ?", (XSS,))
    hostile = urlencode({"q": XSS, "state": XSS, "branch": XSS, "type": XSS, "next": XSS})
    for page in (*READ, *(f"{one.partition('?')[0]}?{hostile}" for one in READ)):
        body = admin.ask(page).body.decode()
        assert "<script>" not in body, page
        assert "<img src=x" not in body, page
        assert "\u202e" not in body, page
    assert "‹U+202E›" in admin.ask("/").body.decode()


# -- who is let in ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", READ)
def test_without_a_token_a_browser_is_led_to_the_login_and_a_program_is_refused(admin, path):
    admin.token = TOKEN
    led = admin.ask(path, HTML)
    assert (led.status, led.body) == (303, b"")
    assert led.headers["location"].startswith("/login")
    refused = admin.ask(path)
    assert (refused.status, refused.headers["www-authenticate"]) == (401, "Bearer")


def test_the_api_is_refused_to_browsers_too(admin):
    admin.token = TOKEN
    for path in ("/api/v1/status", "/api/v1/series", "/metrics", "/api/v1/events", "/nowhere"):
        assert admin.ask(path, HTML).status == 401


def test_the_login_and_what_it_looks_like_are_open(admin):
    admin.token = TOKEN
    for path in ("/login", "/static/style.css", "/static/icon.svg"):
        assert admin.ask(path).status == 200


def test_the_session_opens_everything_and_is_not_the_token(admin):
    admin.token = TOKEN
    cookie = log_in(admin)
    assert TOKEN not in cookie
    for path in ("/", "/api/v1/status", "/metrics", PAGE):
        assert admin.ask(path, cookie).status == 200


def test_the_cookie_is_out_of_reach_for_scripts_and_other_sites(admin):
    admin.token = TOKEN
    told = post(admin, "/login", OWN, token=TOKEN).headers["set-cookie"]
    assert re.fullmatch(rf"{COOKIE}=[\w-]{{43}}; Path=/; Max-Age=604800; HttpOnly; SameSite=Strict", told)


def test_the_cookie_is_for_tls_only_where_the_browser_came_by_tls(admin):
    admin.token = TOKEN
    by_tls = ("Origin: https://localhost:8788", "Sec-Fetch-Site: same-origin")
    assert "; Secure" in post(admin, "/login", *by_tls, token=TOKEN).headers["set-cookie"]


def test_every_login_gets_a_session_of_its_own(admin):
    admin.token = TOKEN
    first = log_in(admin)
    second = post(admin, "/login", OWN, first, token=TOKEN).headers["set-cookie"].partition(";")[0]
    assert second not in first
    assert admin.ask("/api/v1/status", first).status == 401
    assert admin.ask("/api/v1/status", f"Cookie: {second}").status == 200


def test_logging_out_ends_the_session_on_the_server(admin):
    admin.token = TOKEN
    cookie = log_in(admin)
    assert "Max-Age=0" in post(admin, "/logout", OWN, cookie).headers["set-cookie"]
    assert admin.ask("/api/v1/status", cookie).status == 401


def test_a_new_token_ends_the_sessions_of_the_old_one(admin):
    admin.token = TOKEN
    cookie = log_in(admin)
    admin.token = "another"
    assert admin.ask("/api/v1/status", cookie).status == 401


@pytest.mark.parametrize("given", ["wrong", "", "correct-hors", "t\xf6ken", "\udcff", "x" * 9000])
def test_a_wrong_token_gets_the_form_again(admin, given):
    admin.token = TOKEN
    reply = post(admin, "/login", OWN, token=given.encode("utf-8", "surrogateescape"))
    assert reply.status == 403
    assert b"That is not the token" in reply.body
    assert "set-cookie" not in reply.headers


def test_wrong_tokens_are_slowed_down_and_the_right_one_with_them(admin):
    admin.token = TOKEN
    assert {post(admin, "/login", OWN, token="no").status for _ in range(5)} == {403}
    assert post(admin, "/login", OWN, token="no").status == 429
    assert post(admin, "/login", OWN, token=TOKEN).status == 429


@pytest.mark.parametrize(
    ("target", "led"),
    [
        ("/runs?before=7", "/runs?before=7"),
        ("/repositories/o/n/files?path=a%2Fb", "/repositories/o/n/files?path=a%2Fb"),
        ("", "/"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("\\/evil.example", "/"),
        ("https://evil.example", "/"),
        ("javascript:alert(1)", "/"),
        ("/\t/evil.example", "/"),
        ("/a\r\nSet-Cookie: x=1", "/"),
        (" //evil.example", "/"),
        ("evil", "/"),
        ("/logout", "/"),
        ("/login?next=/runs", "/"),
    ],
)
def test_the_login_leads_nowhere_but_into_this_listener(admin, target, led):
    admin.token = TOKEN
    reply = post(admin, "/login", OWN, token=TOKEN, next=target)
    assert (reply.status, reply.headers["location"]) == (303, led)


def test_the_login_remembers_the_page(admin):
    admin.token = TOKEN
    led = admin.ask("/runs?before=7", HTML).headers["location"]
    assert led == "/login?next=%2Fruns%3Fbefore%3D7"
    assert b'name="next" value="/runs?before=7"' in admin.ask(led).body


def test_without_a_token_there_is_nothing_to_log_in_to(admin):
    assert admin.ask("/login").headers["location"] == "/"
    assert post(admin, "/login", OWN, token="x").headers["location"] == "/"


@pytest.mark.parametrize("path", ["/login", "/logout", f"{PAGE}/sync"])
@pytest.mark.parametrize("line", ["Origin: http://evil.example", "Origin: null", "Sec-Fetch-Site: cross-site"])
def test_another_origin_changes_nothing_session_or_not(admin, path, line):
    admin.token = TOKEN
    cookie = log_in(admin)
    assert post(admin, path, line, cookie, token=TOKEN).status == 403
    assert admin.ask("/api/v1/status", cookie).status == 200
    assert admin.wanted == []


def test_a_form_is_taken_as_forms_are_sent_only(admin):
    for kind in ("application/json", "text/plain", "multipart/form-data; boundary=x"):
        assert post(admin, f"{PAGE}/sync", OWN, f"Content-Type: {kind}", branch="main").status == 415
    assert post(admin, f"{PAGE}/sync", OWN, **{str(number): "x" for number in range(50)}).status == 422
    assert admin.wanted == []


# -- the button -------------------------------------------------------------------------------------


def test_the_button_wants_a_sync_and_leads_back(admin):
    reply = post(admin, f"{PAGE}/sync", OWN, branch="main", back="/?state=fresh")
    assert (reply.status, reply.headers["location"]) == (303, "/?state=fresh")
    assert len(admin.wanted) == 1
    assert post(admin, f"{PAGE}/sync", OWN, back="//evil.example").headers["location"] == PAGE
    assert post(admin, f"{PAGE}/sync", OWN, branch="no").status == 404


def test_the_button_says_why_nothing_can_be_synced(admin):
    admin.configured = False
    reply = post(admin, f"{PAGE}/sync", OWN, branch="main")
    assert reply.status == 503
    assert b"github.token" in reply.body
    assert admin.wanted == []


def test_a_button_that_a_session_no_longer_holds_leads_to_the_login(admin):
    admin.token = TOKEN
    reply = post(admin, f"{PAGE}/sync", OWN, HTML, branch="main")
    assert (reply.status, reply.headers["location"]) == (303, "/login")
    assert admin.wanted == []
    assert admin.ask(f"{PAGE}/sync", log_in(admin)).headers["location"] == PAGE


# -- what it is made of -----------------------------------------------------------------------------


def test_nothing_but_the_files_of_the_package_is_static(admin):
    for path in (
        "/static/",
        "/static/../api.py",
        "/static/%2e%2e/api.py",
        "/static/vendor/uPlot.txt",
        "/static//style.css",
    ):
        assert admin.ask(path).status == 404


def test_a_static_file_is_asked_again_and_mostly_unchanged(admin):
    first = admin.ask("/static/style.css")
    assert (first.status, first.headers["cache-control"]) == (200, "no-cache")
    assert admin.ask("/static/style.css", f"If-None-Match: {first.headers['etag']}").status == 304


def test_what_is_vendored_is_what_its_note_says():
    note = (static.FOLDER / "vendor" / "uPlot.txt").read_text(encoding="utf-8")
    assert "MIT License" in note
    told = dict(re.findall(r"^([0-9a-f]{64})  (\S+)$", note, re.MULTILINE))
    found = {
        hashlib.sha256(path.read_bytes()).hexdigest(): path.name
        for path in (static.FOLDER / "vendor").iterdir()
        if path.name != "uPlot.txt"
    }
    assert told == found


def test_no_page_is_described_as_part_of_the_api():
    assert {route.template for route in pages() if route.template.startswith("/api/")} == set()


# -- numbers for plots ------------------------------------------------------------------------------


def test_the_series_are_columns_of_one_length(admin):
    told: dict[str, Any] = admin.ask("/api/v1/series").json
    columns = [told["rates"]["times"], told["rates"]["deliveries"], *told["rates"]["runs"].values()]
    assert {len(column) for column in columns} == {1440}
    assert sum(told["rates"]["runs"]["webhook"]) == 1
    at = told["rates"]["runs"]["webhook"].index(1)
    assert told["rates"]["times"][at] == int(NOW.replace(second=0, microsecond=0).timestamp())


def test_the_latency_is_from_the_delivery_to_the_end_of_its_run(admin):
    with admin.database.write():
        admin.database.execute(
            "INSERT INTO delivery (body_digest, event, received_at, status, run_id)"
            " VALUES ('x', 'push', '2026-11-23T21:40:39.623000Z', 'accepted', 1)"
        )
    assert admin.ask("/api/v1/series").json["latency"] == {"times": [1795470039.623], "seconds": [1.5]}


def test_what_is_older_than_a_day_is_left_out(admin):
    admin.now = NOW + timedelta(days=1, minutes=1)
    assert sum(admin.ask("/api/v1/series").json["rates"]["runs"]["webhook"]) == 0


def test_samples_are_told_as_they_were_taken(tmp_path):
    sample = Sample(at=NOW, stalest_seconds=None, unwell=2, requests=3, remaining={"core": 4000})
    admin = Admin(open_store(tmp_path / "test.db", clock=Clock()))
    with web_peer.serve(
        lambda executor: make_admin_app(replace(admin.deps(executor), samples=lambda: (sample,)))
    ) as admin.port:
        told = admin.ask("/api/v1/series").json
    admin.database.close()
    times = [int(NOW.timestamp())]
    assert told["freshness"] == {"times": times, "stalest_seconds": [None], "unwell": [2]}
    assert told["budget"] == {"times": times, "requests": [3], "remaining": {"core": [4000], "graphql": [None]}}


# -- folders ----------------------------------------------------------------------------------------

TREE = [
    b"a",
    b"a.b",
    b"a0",
    b"b/c",
    b"b/d/e",
    b"b0",
    b"b!",
    b"c/\xff\xff",
    b"d/" + b"x/" * 50 + b"y",
    b"\xff\xffz",
    b"z",
]


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_a_folder_is_paged_without_loss_or_repeat(bare, limit):
    bare.repositories.track([Rule("octo", "demo")], now=NOW)
    repository_id = bare.repositories.by_name("octo", "demo")
    bare.repositories.identify(repository_id, RemoteRepository(77, "Octo", "Demo", "main"), now=NOW)
    bare.sync({path: ("100644", path) for path in TREE}, head="1" * 40)
    branch = bare.repositories.branches(repository_id)[0].id
    glance = Glance(bare.database)
    for folder in (b"", b"b", b"c", b"d"):
        prefix = folder + b"/" if folder else b""
        wanted = sorted({path[len(prefix) :].partition(b"/")[0] for path in TREE if path.startswith(prefix)})
        found, begin = [], None
        while True:
            page = glance.folder(branch, folder, begin=begin, limit=limit)
            found += [one.path[len(prefix) :] for one in page.items]
            begin = page.begin
            if begin is None:
                break
        assert sorted(found) == wanted
