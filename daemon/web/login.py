"""Logging in with a browser: the admin token once, then a cookie that is not the token."""

from __future__ import annotations

import hmac
import math

from daemon.errors import Refusal
from daemon.logs import get_logger
from daemon.web import dashboard, words
from daemon.web.api import Call
from daemon.web.app import Answer
from daemon.web.sessions import AGE_SECONDS, COOKIE

log = get_logger()


def lead(path: str) -> Answer:
    """To the login, and from there to ``path``."""
    return dashboard.redirect("/login" + words.query_text(next=path if path != "/" and _safe(path) else None))


def form(call: Call) -> Answer:
    """The form; without a token there is nothing to log in to."""
    if not call.deps.token():
        return dashboard.redirect("/")
    return _form(call, call.text("next"))


def enter(call: Call) -> Answer:
    """Open a session for the right token; a wrong one gets the form again. Raises Refusal 429, 422."""
    fields = dashboard.form(call)
    token, target = call.deps.token(), fields.get("next", "")
    if not token:
        return dashboard.redirect("/")
    sessions = call.deps.sessions
    if wait := sessions.brake.wait_seconds(call.source):
        raise Refusal(429, f"Too many wrong tokens; wait {math.ceil(wait)} s and try again")
    given = fields.get("token", "").strip()
    # Bytes: compare_digest raises TypeError for text beyond ASCII.
    if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), token.encode()):
        log.warning("login.refused", peer=call.source)
        return _form(call, target, code=403, wrong=True)
    sessions.brake.give_back(call.source)
    sessions.close(call.headers.get_list("Cookie"))  # one browser, one session
    log.info("login.done", peer=call.source)
    return dashboard.redirect(target if _safe(target) else "/", **{"Set-Cookie": _cookie(call, sessions.open(token))})


def leave(call: Call) -> Answer:
    """End the session, here and in the browser."""
    call.deps.sessions.close(call.headers.get_list("Cookie"))
    return dashboard.redirect("/login", **{"Set-Cookie": _cookie(call, "", age_seconds=0)})


def _form(call: Call, target: str | None, *, code: int = 200, wrong: bool = False) -> Answer:
    target = target if target and _safe(target) else ""
    return dashboard.render(call, "login.html", title="Log in", code=code, wrong=wrong, target=target)


def _safe(target: str) -> bool:
    return dashboard.is_local(target) and not target.startswith(("/login", "/logout"))


def _cookie(call: Call, value: str, *, age_seconds: float = AGE_SECONDS) -> str:
    """Secure when the browser says that it came over TLS; the Origin it says so in was held against the Host."""
    secure = "; Secure" if call.headers.get("Origin", "").startswith("https://") else ""
    return f"{COOKIE}={value}; Path=/; Max-Age={age_seconds:.0f}; HttpOnly; SameSite=Strict{secure}"
