"""The frame of the pages for people: templates in, an answer out that a browser runs nothing foreign from."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote

from tornado.template import Loader

from daemon.errors import Refusal
from daemon.version import __version__
from daemon.web import words
from daemon.web.api import Call
from daemon.web.app import Answer

MOST_FIELDS = 20
PAGE_ITEMS = 50

# No inline script or style anywhere: what a repository holds can never become either.
HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
}
EXPLAINED = {
    404: "There is nothing here",
    429: "Too many attempts",
    503: "Not now",
}


@cache
def templates() -> Loader:
    """The templates; everything that one writes goes through ``words.shown`` unless it is made by ``words`` itself."""
    namespace = {name: getattr(words, name) for name in ("shown", "short", "span", "duration", "size", "number")}
    namespace |= {name: getattr(words, name) for name in ("repository_url", "raw_url", "query_text", "first_line")}
    return Loader(str(Path(__file__).parent / "templates"), autoescape="shown", namespace=namespace)


def render(call: Call, template: str, *, title: str, code: int = 200, **values: Any) -> Answer:
    """A page. ``when`` in it tells instants from the now of this call."""
    now = call.deps.now()
    frame = {
        "title": title,
        "version": __version__,
        "now": now,
        "when": lambda instant: words.when(instant, now),
        "may_log_out": bool(call.deps.token()),
        "here": "",
        "query": {name: call.text(name) for name in call.query},
    }
    body = templates().load(template).generate(**{**frame, **values})
    return Answer(body, code, HEADERS)


def page(function: Callable[[Call], Answer]) -> Callable[[Call], Answer]:
    """The same function, its refusals told as a page."""

    def told(call: Call) -> Answer:
        try:
            return function(call)
        except Refusal as refusal:
            heading = EXPLAINED.get(refusal.status, "That did not work")
            return render(call, "error.html", title=heading, code=refusal.status, detail=refusal.detail)

    return told


def redirect(path: str, **headers: str) -> Answer:
    """Go on at a path of this listener, after a change or instead of a page."""
    return Answer(b"", 303, {**HEADERS, "Location": quote(path, safe="/?&=%#:@+,;~!$'()*"), **headers})


def is_local(path: str) -> bool:
    """Whether a path leads nowhere but to this listener, however a browser reads it: slashes of any kind name hosts."""
    plain = path.isprintable() and "\\" not in path and " " not in path
    return plain and path.startswith("/") and not path.startswith("//")


def form(call: Call) -> dict[str, str]:
    """The fields of a posted form. Raises Refusal 415, 422."""
    if call.headers.get("Content-Type", "").partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        raise Refusal(415, "This takes what its own form sends")
    try:
        # Latin-1 and back keeps every byte; surrogates stand for what is not UTF-8.
        pairs = parse_qsl(call.body.decode("latin-1"), max_num_fields=MOST_FIELDS, errors="surrogateescape")
    except ValueError:
        raise Refusal(422, "This takes what its own form sends") from None
    return dict(pairs)
