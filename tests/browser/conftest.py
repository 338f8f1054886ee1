"""A real browser, Debian's Chromium, and a watch over everything that a page must never do."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from harness import Daemon
from page_watch import SLOWEST_MS, Watch
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
REPORT = """
document.addEventListener("securitypolicyviolation", (event) =>
  console.error(`CSP: ${event.effectiveDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`));
"""


@pytest.fixture(scope="module")  # no longer: its event loop runs in this thread, where others then can run none
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium")
    assert path, "these tests drive Debian's Chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture
def watch() -> Iterator[Watch]:
    """No page of the test may have a problem, at its end the latest."""
    watch = Watch()
    yield watch
    assert watch.problems == []


@pytest.fixture
def visit(browser: Browser, watch: Watch) -> Iterator[Callable[..., Page]]:
    """Opens a page of a daemon in a context of its own; keywords are those of the context."""
    contexts: list[BrowserContext] = []

    def open_page(daemon: Daemon, path: str = "/", **settings: Any) -> Page:
        context = browser.new_context(base_url=daemon.admin_url, **settings)
        contexts.append(context)
        context.set_default_timeout(SLOWEST_MS)
        context.add_init_script(REPORT)
        context.on("page", watch.page)
        page = context.new_page()
        page.goto(path)
        return page

    yield open_page
    for context in contexts:
        context.close()
