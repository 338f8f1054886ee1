"""The dashboard as people have it: in a real browser, before a real daemon."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from harness import Daemon, wait_for
from page_watch import SLOWEST_MS, Watch
from playwright.sync_api import Page, Route, expect

from daemon.demo.standin import StandIn
from daemon.demo.standin.faults import Hold
from daemon.demo.standin.gitrepo import GitRepo, Person

pytestmark = pytest.mark.timeout(300)  # a dozen pages each, on machines that do other things too
expect.set_options(timeout=SLOWEST_MS)

Visit = Callable[..., Page]
TOKEN = "correct-horse-battery"
ROW = '[id="row-octo/data@main"]'
REPOSITORY = "/repositories/octo/data"
PAGES = ("/", "/deliveries", "/runs", "/entity-errors", "/budget", "/nodes", REPOSITORY, f"{REPOSITORY}/files")
PAGES += (f"{REPOSITORY}/files?path=docs", f"{REPOSITORY}/commits", f"{REPOSITORY}/entities?type=thing")
PAGES += (f"{REPOSITORY}/runs", f"{REPOSITORY}/actions")
EXTRA = 'branches = ["*"]\n[[repositories.collections]]\ntype = "thing"\nfiles = "things/**"\n'
ACTION = '[[actions]]\ncommand = ["/bin/false", "<img src=x onerror=alert(1)>"]\n'
HTML = '"><img src=x onerror=alert(1)><script>alert(2)</script>\u202e'
LOOKED = 'performance.getEntriesByType("resource").some((one) => one.name === location.href && one.responseEnd)'
AXE = Path(__file__).parent / "vendor" / "axe.min.js"


@pytest.fixture
def daemon(repo: GitRepo, github: StandIn, make_daemon: Callable[..., Daemon]) -> Daemon:
    """A daemon with octo/data stored, and its webhook set up."""
    daemon = make_daemon().start()
    daemon.wait_head(repo.head())
    daemon.wait_idle()
    github.hook("octo/data", daemon.webhook_url, daemon.secret)
    return daemon


@pytest.fixture
def hostile(repo: GitRepo, github: StandIn, make_daemon: Callable[..., Daemon]) -> Daemon:
    """A daemon whose repository, deliveries, errors and actions try to be markup, and to break every line."""
    daemon = make_daemon(repositories=("octo/data", "octo/absent"), extra=EXTRA)
    daemon.config.write_text(daemon.config.read_text() + ACTION)
    daemon.start().wait_head(repo.head())
    github.hook("octo/data", daemon.webhook_url, daemon.secret)
    files = {f"{HTML}/{HTML}.txt": b"x", "things/" + HTML.replace("/", "|"): b"{", "long/" + "x" * 200: b"x"}
    files |= {"things/good.json": b'{"id": "<b>bold</b>", "label": "<img src=x onerror=alert(3)>"}'}
    author = Person('<img src=x onerror="alert(4)">'.replace("<", "").replace(">", ""), "a@example.org")
    before = repo.head()
    after = repo.commit(files, f"{HTML} {'m' * 300}\n\n{HTML}", author=author)
    github.push("octo/data", "main", before, after)
    branch = 'x"><img/src=x/onerror=alert(5)>'
    other = repo.commit({"b": b"1"}, HTML, branch=branch, parents=[after])
    github.push("octo/data", branch, "0" * 40, other)
    daemon.deliver({"zen": HTML}, event=HTML.encode("ascii", "ignore").decode(), guid=HTML[:40])
    daemon.wait_head(after)
    wait_for(lambda: daemon.branch(branch), "the hostile branch")
    daemon.wait_head(other, branch)
    wait_for(lambda: any(one["last_error"] for one in daemon.items("/api/v1/actions")), "the action to fail")
    return daemon


def live(page: Page) -> Page:
    """The page, once its stream is open and it has looked for what was not told before.

    That look writes rows anew, also one that somebody is just pressing a button of.
    """
    expect(page.locator("#live")).to_have_attribute("data-state", "on")
    wait_for(lambda: page.evaluate(LOOKED), "the first look")
    return page


def test_a_push_shows_as_syncing_and_then_as_the_new_commit_without_a_reload(
    daemon: Daemon, repo: GitRepo, github: StandIn, visit: Visit
) -> None:
    page = live(visit(daemon))
    page.evaluate("window.unreloaded = true")
    expect(page.locator(ROW)).to_contain_text(str(repo.head())[:7])
    held = Hold()
    github.faults.add(r"/repos/octo/data/", held)
    before = repo.head()
    after = repo.commit({"new.txt": b"1"}, "Arrive by itself")
    github.push("octo/data", "main", before, after)
    expect(page.locator(f"{ROW} .state")).to_have_text("syncing")
    held.release()
    expect(page.locator(ROW)).to_contain_text("Arrive by itself")
    expect(page.locator(ROW)).to_contain_text(after[:7])
    expect(page.locator(f"{ROW} .state")).to_have_text("fresh")
    assert page.evaluate("window.unreloaded") is True


def test_what_is_said_beside_a_name_is_not_as_bold_as_the_name(daemon: Daemon, visit: Visit) -> None:
    node = visit(daemon, "/nodes").locator("th.name")
    for part in ("small", ".meta", ".branch"):
        expect(node.locator(part)).to_have_css("font-weight", "400")
    expect(node).to_have_css("font-weight", "550")


def test_a_daemon_that_does_not_answer_the_button_is_told_in_words(daemon: Daemon, visit: Visit, watch: Watch) -> None:
    watch.expected = ("ERR_FAILED",)
    page = live(visit(daemon))
    page.route("**/sync", lambda route: route.abort())
    page.get_by_role("button", name="Sync now: octo/data@main").click()
    expect(page.locator("#notice")).to_have_text("No sync was started. The daemon does not answer.")


def test_the_focus_stays_on_a_link_whose_row_is_written_anew(
    daemon: Daemon, repo: GitRepo, github: StandIn, visit: Visit
) -> None:
    page = live(visit(daemon))
    link = page.locator(f"{ROW} th a")
    link.focus()
    before = repo.head()
    github.push("octo/data", "main", before, repo.commit({"new.txt": b"1"}, "Arrive below"))
    expect(page.locator(ROW)).to_contain_text("Arrive below")
    expect(link).to_be_focused()


def test_a_list_that_has_become_empty_is_not_shown_any_more(daemon: Daemon, github: StandIn, visit: Visit) -> None:
    page = live(visit(daemon, "/?state=fresh"))
    expect(page.locator(ROW)).to_be_visible()
    github.remove("octo/data")
    assert daemon.post("/api/v1/repositories/octo/data/sync").status_code == 202
    expect(page.locator("main")).to_contain_text("No branch is like that")
    expect(page.locator(ROW)).to_have_count(0)


def test_what_is_being_typed_is_not_thrown_away_with_the_list(daemon: Daemon, github: StandIn, visit: Visit) -> None:
    page = live(visit(daemon, "/?state=fresh"))
    search = page.get_by_role("searchbox")
    search.fill("da")
    github.remove("octo/data")
    assert daemon.post("/api/v1/repositories/octo/data/sync").status_code == 202
    expect(page.locator("#glance")).to_contain_text("1 thing to look at")
    expect(search).to_have_value("da")
    expect(search).to_be_focused()


def test_files_and_commits_follow_the_branch(daemon: Daemon, repo: GitRepo, github: StandIn, visit: Visit) -> None:
    before = repo.head()
    after = repo.commit({"docs/one.txt": b"1"}, "First\n\nwith a body\nand more")
    github.push("octo/data", "main", before, after)
    daemon.wait_head(after)
    files, commits = live(visit(daemon, f"{REPOSITORY}/files")), live(visit(daemon, f"{REPOSITORY}/commits"))
    files.get_by_role("link", name="docs/").focus()
    commits.get_by_text("the whole message").click()
    last = repo.commit({"new.txt": b"1"}, "Second")
    github.push("octo/data", "main", after, last)
    expect(files.locator("#files")).to_contain_text(last[:7])
    expect(files.get_by_role("link", name="new.txt")).to_be_visible()
    expect(files.get_by_role("link", name="docs/")).to_be_focused()
    expect(commits.locator("#commits li").first).to_contain_text("Second")
    expect(commits.get_by_text("with a body")).to_be_visible()


def test_a_page_of_what_is_not_there_any_more_says_so(daemon: Daemon, visit: Visit, watch: Watch) -> None:
    watch.expected = ("404",)
    page = live(visit(daemon, REPOSITORY))
    daemon.write_config(repositories=("octo/other",))
    daemon.hangup()
    wait_for(lambda: daemon.get("/api/v1/repositories/octo/data").status_code == 404, "the reload")
    daemon.deliver({"zen": "Look."}, event="ping")
    expect(page.locator("#error")).to_be_visible()


def test_a_browser_whose_clock_is_off_tells_times_by_that_of_the_daemon(
    daemon: Daemon, repo: GitRepo, github: StandIn, visit: Visit
) -> None:
    page = visit(daemon)
    page.add_init_script("const now = Date.now; Date.now = () => now() + 7200000")
    page.reload()
    live(page)
    before = repo.head()
    github.push("octo/data", "main", before, repo.commit({"new.txt": b"1"}, "Arrive in time"))
    expect(page.locator(ROW)).to_contain_text("Arrive in time")
    expect(page.locator(f'{ROW} [data-label="Seen"]')).to_contain_text(" s ago")


def test_lists_grow_without_a_reload(daemon: Daemon, repo: GitRepo, github: StandIn, visit: Visit) -> None:
    runs, deliveries = live(visit(daemon, "/runs")), live(visit(daemon, "/deliveries"))
    before = repo.head()
    after = repo.commit({"new.txt": b"1"}, "More")
    github.push("octo/data", "main", before, after)
    expect(runs.locator("#runs tr").first).to_contain_text(after[:7])
    expect(deliveries.locator("#deliveries tr").first).to_contain_text("updated")


def test_the_button_syncs_where_it_is_and_keeps_the_focus(daemon: Daemon, visit: Visit) -> None:
    page = live(visit(daemon))
    page.evaluate("window.unreloaded = true")
    button = page.get_by_role("button", name="Sync now: octo/data@main")
    button.focus()
    page.keyboard.press("Enter")
    wait_for(lambda: "manual" in (daemon.branch() or {})["last_trigger"], "the manual sync")
    expect(page.locator(f'{ROW} [data-label="Last trigger"]')).to_have_text("manual")
    expect(button).to_be_focused()
    assert page.evaluate("window.unreloaded") is True


def test_the_button_keeps_the_focus_though_its_row_changes_before_the_answer(
    daemon: Daemon, repo: GitRepo, github: StandIn, visit: Visit
) -> None:
    page = live(visit(daemon))
    asked: list[Route] = []
    page.route("**/sync", lambda route: asked.append(route))
    button = page.get_by_role("button", name="Sync now: octo/data@main")
    button.focus()
    page.keyboard.press("Enter")
    expect(button).to_be_disabled()
    before = repo.head()
    after = repo.commit({"new.txt": b"1"}, "Arrive meanwhile")
    github.push("octo/data", "main", before, after)
    expect(page.locator(ROW)).to_contain_text("Arrive meanwhile")
    asked[0].continue_()
    expect(page.locator(f'{ROW} [data-label="Last trigger"]')).to_have_text("manual")
    expect(button).to_be_focused()


def test_a_button_that_is_being_pressed_is_not_replaced(
    daemon: Daemon, repo: GitRepo, github: StandIn, visit: Visit
) -> None:
    page = live(visit(daemon))
    page.clock.install()
    page.clock.pause_at(datetime.now(UTC) + timedelta(minutes=1))  # however slow the machine, a press is a short one
    page.get_by_role("button", name="Sync now: octo/data@main").hover()
    page.mouse.down()
    before = repo.head()
    after = repo.commit({"new.txt": b"1"}, "Arrive meanwhile")
    github.push("octo/data", "main", before, after)
    expect(page.locator(f"{ROW} .state")).to_have_text("syncing")  # as it was told, and now the page is to be looked at
    daemon.wait_head(after)
    with page.expect_response(f"{daemon.admin_url}/"):
        page.clock.run_for(1000)
    expect(page.locator(ROW)).not_to_contain_text("Arrive meanwhile")
    page.mouse.up()
    wait_for(lambda: "manual" in (daemon.branch() or {})["last_trigger"], "the manual sync")
    row = page.locator(ROW)
    wait_for(lambda: page.clock.run_for(500) or "Arrive meanwhile" in row.inner_text(), "another look")  # type: ignore[func-returns-value]


def test_a_row_whose_times_only_read_otherwise_stays(daemon: Daemon, visit: Visit) -> None:
    page = live(visit(daemon))
    page.clock.install()
    page.clock.pause_at(datetime.now(UTC) + timedelta(minutes=1))
    row = page.locator(ROW)
    row.evaluate("(row) => { row.mine = true; }")
    looked: list[str] = []
    page.on("requestfinished", lambda request: looked.append(request.url))
    for count in (1, 2):  # the second look comes once the first one is over
        daemon.deliver({"zen": "x"}, event="ping")  # of which the page is told, and which changes no row
        wait_for(lambda count=count: page.clock.run_for(500) or len(looked) >= count, "a look")  # type: ignore[misc]
    assert row.evaluate("(row) => row.mine") is True


def test_a_sync_that_cannot_be_is_explained(daemon: Daemon, visit: Visit, watch: Watch) -> None:
    watch.expected = ("503",)
    page = live(visit(daemon))
    before = daemon.get("/").text  # what a person sees who presses before the page has been looked at again
    page.route(f"{daemon.admin_url}/", lambda route: route.fulfill(content_type="text/html", body=before))
    daemon.write_config(token=None)
    daemon.reload()
    page.get_by_role("button", name="Sync now: octo/data@main").click()
    expect(page.get_by_role("alert")).to_contain_text("github.token")


def test_everything_can_be_read_and_synced_without_scripts(daemon: Daemon, visit: Visit, repo: GitRepo) -> None:
    page = visit(daemon, java_script_enabled=False)
    expect(page.locator(ROW)).to_contain_text(str(repo.head())[:7])
    page.get_by_role("button", name="Sync now: octo/data@main").click()
    expect(page).to_have_url(f"{daemon.admin_url}/")
    wait_for(lambda: (daemon.branch() or {})["last_trigger"] == "manual", "the manual sync")
    page.get_by_role("link", name="octo/data").click()
    page.get_by_role("link", name="Files").click()
    page.get_by_role("link", name="docs/").click()
    page.get_by_role("link", name="page.md").click()
    expect(page.locator("body")).to_have_text("a page")
    for path in PAGES:
        page.goto(path)
        expect(page.locator("h1")).to_be_visible()


def test_a_hostile_repository_executes_nothing(
    hostile: Daemon, visit: Visit, repo: GitRepo, github: StandIn, watch: Watch
) -> None:
    page = visit(hostile)
    for path in PAGES:
        page.goto(path)
        live(page)
        assert page.locator("main :is(img, script, b)").count() == 0, path
        assert "\u202e" not in page.locator("main").inner_text(), path
    page.goto("/")
    live(page)
    expect(page.locator(ROW)).to_contain_text("‹U+202E›")
    before = repo.head()
    after = repo.commit({"more": b"1"}, f"{HTML} again")
    github.push("octo/data", "main", before, after)
    expect(page.locator(ROW)).to_contain_text("again")
    assert page.locator("main :is(img, script, b)").count() == 0
    page.goto(f"{REPOSITORY}/files")
    live(page)
    page.get_by_role("link", name='"><img').click()
    page.locator("a.folder").click()
    assert watch.problems == []


def test_the_plots_are_drawn_within_the_policy(hostile: Daemon, visit: Visit) -> None:
    page = visit(hostile)
    expect(page.locator('[data-plot="rates"] canvas')).to_be_visible()
    expect(page.locator('[data-plot="freshness"] canvas')).to_be_visible()
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size({"width": 500, "height": 800})
    expect(page.locator('[data-plot="rates"] canvas')).to_be_visible()
    page.goto("/budget")
    expect(page.locator('[data-plot="budget"] canvas')).to_be_visible()
    page.goto("/deliveries")
    expect(page.locator('[data-plot="latency"] canvas')).to_be_visible()


# -- login ------------------------------------------------------------------------------------------


@pytest.fixture
def locked(repo: GitRepo, make_daemon: Callable[..., Daemon]) -> Daemon:
    daemon = make_daemon(sections={"admin": f'token = "{TOKEN}"'}).start()
    daemon.session.headers["Authorization"] = f"Bearer {TOKEN}"
    daemon.wait_head(repo.head())
    return daemon


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without scripts"])
def test_a_person_logs_in_and_out(locked: Daemon, visit: Visit, watch: Watch, *, scripts: bool) -> None:
    watch.expected = ("403",)
    page = visit(locked, "/runs", java_script_enabled=scripts)
    expect(page).to_have_url(re.compile(r"/login\?next=%2Fruns$"))
    expect(page.get_by_label("Admin token")).to_be_focused()
    page.get_by_label("Admin token").fill("wr\u00f6ng")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_contain_text("not the token")
    page.get_by_label("Admin token").fill(TOKEN)
    page.get_by_role("button", name="Log in").click()
    expect(page).to_have_url(f"{locked.admin_url}/runs")
    if scripts:
        live(page)
        assert page.evaluate("document.cookie") == ""
    page.get_by_role("link", name="Overview").click()
    expect(page).to_have_url(f"{locked.admin_url}/")
    if scripts:
        live(page)
    page.get_by_role("button", name="Sync now: octo/data@main").click()
    wait_for(lambda: (locked.branch() or {})["last_trigger"] == "manual", "the manual sync")
    page.get_by_role("button", name="Log out").click()
    expect(page).to_have_url(f"{locked.admin_url}/login")
    page.goto("/")
    expect(page).to_have_url(f"{locked.admin_url}/login")


def test_a_page_whose_session_ended_goes_to_the_login(locked: Daemon, visit: Visit, watch: Watch) -> None:
    watch.expected = ("401",)
    page = visit(locked)
    page.get_by_label("Admin token").fill(TOKEN)
    page.keyboard.press("Enter")
    live(page)
    page.context.clear_cookies()
    # The page may learn it by itself, when a poll is told of, and be at the login before the click.
    page.get_by_role("button", name="Sync now: octo/data@main").or_(page.get_by_label("Admin token")).click()
    expect(page).to_have_url(re.compile("/login"))


# -- for everybody ----------------------------------------------------------------------------------


def test_no_width_cuts_a_table_off(hostile: Daemon, visit: Visit) -> None:
    page = visit(hostile)
    for path in PAGES:
        page.goto(path)
        for width in (901, 1024, 1101):
            page.set_viewport_size({"width": width, "height": 800})
            cut = "[...document.querySelectorAll('.frame')].filter((one) => one.scrollWidth > one.clientWidth).length"
            assert page.evaluate(cut) == 0, f"{path} at {width}"


def test_a_state_is_a_word_and_no_more_whatever_its_name(
    github: StandIn, make_daemon: Callable[..., Daemon], visit: Visit, tmp_path: Path
) -> None:
    github.add("octo/empty", GitRepo.init(tmp_path / "empty").path)
    daemon = make_daemon(repositories=("octo/empty",)).start()
    wait_for(lambda: daemon.get("/api/v1/repositories/octo/empty").json().get("state") == "empty", "the first look")
    page = visit(daemon)
    for one in (page.locator(".state.empty").first, page.locator(".numbers .empty")):
        assert one.evaluate("(one) => getComputedStyle(one).padding + getComputedStyle(one).borderStyle") == "0pxnone"


def test_a_phone_needs_no_sideways_scroll(hostile: Daemon, visit: Visit) -> None:
    page = visit(hostile, viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    for path in PAGES:
        page.goto(path)
        live(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
        assert page.evaluate("window.innerWidth") == 390, path


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(hostile: Daemon, visit: Visit, scheme: str) -> None:
    page = visit(hostile, color_scheme=scheme)
    for path in PAGES:
        page.goto(path)
        live(page)
        assert serious(page) == [], path


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_in_the_login(locked: Daemon, visit: Visit, scheme: str) -> None:
    assert serious(visit(locked, color_scheme=scheme)) == []


def serious(page: Page) -> list[Any]:
    """The violations that keep somebody from using the page."""
    page.evaluate(AXE.read_text(encoding="utf-8"))  # by the debugger: the page's own policy would refuse it
    found = page.evaluate("axe.run()")["violations"]
    return [
        (one["id"], [node["html"][:200] for node in one["nodes"]])
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


def test_the_keyboard_reaches_the_content_at_once(daemon: Daemon, visit: Visit) -> None:
    page = visit(daemon)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.querySelector('main').contains(document.activeElement)")


def test_what_is_vendored_is_what_its_note_says() -> None:
    note = (AXE.parent / "axe-core.txt").read_text(encoding="utf-8")
    assert f"{hashlib.sha256(AXE.read_bytes()).hexdigest()}  axe.min.js" in note
    assert "Mozilla Public License" in note
