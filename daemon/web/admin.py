"""The admin listener: guards first, then the route's function on a reading thread."""

from __future__ import annotations

import asyncio
import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from tornado import httputil, routing, web

from daemon.errors import Refusal
from daemon.web import (
    api,
    dashboard_lists,
    dashboard_nodes,
    dashboard_overview,
    dashboard_repository,
    entities,
    login,
    series,
    static,
)
from daemon.web.api import AdminDeps, Call
from daemon.web.app import Answer, Handler
from daemon.web.dashboard import page

__all__ = ["AdminDeps", "Route", "make_admin_app", "pages", "routes"]

REPOSITORY = "/api/v1/repositories/{owner}/{name}"
REPOSITORY_PAGE = "/repositories/{owner}/{name}"
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^:\[\]]+))(?::[0-9]*)?")
BEARER = re.compile(r"bearer +(\S+)", re.IGNORECASE)
DEFAULT_PORTS = {"http": ":80", "https": ":443"}


@dataclass(frozen=True, slots=True)
class Route:
    """A path, as OpenAPI writes it, and what answers there. ``{path}`` and ``{id}`` take slashes; they come last."""

    template: str
    functions: Mapping[str, Callable[[Call], Answer]]
    open: bool = False  # answered without a token
    own_origin: bool = False  # another origin's page may not even open it: it would hold a connection
    page: bool = False  # for people: without a token a browser is led to the login

    @property
    def methods(self) -> tuple[str, ...]:
        return tuple(self.functions) + (("HEAD",) if "GET" in self.functions else ())

    def pattern(self) -> re.Pattern[str]:
        expression = re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(self.template))
        return re.compile(re.sub(r"\(\?P<(path|id)>\[\^/\]\+\)", r"(?P<\1>.+)", expression), re.DOTALL)


def routes() -> tuple[Route, ...]:
    """Everything the admin listener answers to programs, and the front page."""
    return (
        Route("/", {"GET": page(dashboard_overview.overview)}, page=True),
        Route("/healthz", {"GET": api.healthz}, open=True),
        Route("/readyz", {"GET": api.readyz}, open=True),
        Route("/metrics", {"GET": api.metrics}),
        Route("/api/v1/openapi.json", {"GET": api.description}),
        Route("/api/v1/status", {"GET": api.status}),
        Route("/api/v1/series", {"GET": series.series}),
        Route("/api/v1/repositories", {"GET": api.repositories}),
        Route(REPOSITORY, {"GET": api.repository}),
        Route(REPOSITORY + "/sync", {"POST": api.sync}),
        Route(REPOSITORY + "/prune", {"POST": api.prune}),
        Route(REPOSITORY + "/webhook", {"POST": api.webhook_changed}),
        Route(REPOSITORY + "/files", {"GET": api.files}),
        Route(REPOSITORY + "/raw/{path}", {"GET": api.content}),
        Route(REPOSITORY + "/commits", {"GET": api.commits}),
        Route(REPOSITORY + "/runs", {"GET": api.runs}),
        Route("/api/v1/runs", {"GET": api.runs}),
        Route("/api/v1/deliveries", {"GET": api.deliveries}),
        Route("/api/v1/entities", {"GET": entities.overview}),
        Route("/api/v1/entities/{type}", {"GET": entities.listing}),
        Route("/api/v1/entities/{type}/{id}", {"GET": entities.one}),
        Route("/api/v1/entity-errors", {"GET": entities.errors}),
        Route("/api/v1/nodes", {"GET": api.nodes}),
        Route("/api/v1/actions", {"GET": api.actions}),
        Route("/api/v1/actions/retry", {"POST": api.retry_actions}),
        Route("/api/v1/search", {"GET": api.search}),
        Route("/api/v1/changes", {"GET": api.changes}),
        Route("/api/v1/events", {"GET": api.events}, own_origin=True),
    )


def pages() -> tuple[Route, ...]:
    """What it answers to people. A page without a session leads to the login; styles and scripts are open to it."""
    sync = {"GET": page(dashboard_repository.gone_to_sync), "POST": page(dashboard_repository.sync)}
    return (
        Route("/login", {"GET": page(login.form), "POST": page(login.enter)}, open=True, page=True),
        Route("/logout", {"POST": page(login.leave)}, page=True),
        Route("/static/{path}", {"GET": static.serve}, open=True),
        Route("/deliveries", {"GET": page(dashboard_lists.deliveries)}, page=True),
        Route("/runs", {"GET": page(dashboard_lists.runs)}, page=True),
        Route("/entity-errors", {"GET": page(dashboard_lists.entity_errors)}, page=True),
        Route("/budget", {"GET": page(dashboard_overview.budget)}, page=True),
        Route("/nodes", {"GET": page(dashboard_nodes.nodes)}, page=True),
        Route(REPOSITORY_PAGE, {"GET": page(dashboard_repository.branches)}, page=True),
        Route(REPOSITORY_PAGE + "/sync", sync, page=True),
        Route(REPOSITORY_PAGE + "/files", {"GET": page(dashboard_repository.files)}, page=True),
        Route(REPOSITORY_PAGE + "/commits", {"GET": page(dashboard_repository.commits)}, page=True),
        Route(REPOSITORY_PAGE + "/entities", {"GET": page(dashboard_repository.entities)}, page=True),
        Route(REPOSITORY_PAGE + "/runs", {"GET": page(dashboard_repository.runs)}, page=True),
        Route(REPOSITORY_PAGE + "/actions", {"GET": page(dashboard_repository.actions)}, page=True),
    )


class RouteMatches(routing.Matcher):
    """Matches the path as it was sent: Tornado's own groups would decode bytes that are not text."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self._pattern = pattern

    def match(self, request: httputil.HTTPServerRequest) -> dict[str, Any] | None:
        return {} if self._pattern.fullmatch(request.path) else None


class Guarded(Handler):
    """Answers to known hosts, to its own pages, and to those who hold the token."""

    def initialize(self, deps: AdminDeps, route: Route | None = None) -> None:
        self._deps = deps
        self._route = route
        self._to_login = False
        self.methods = route.methods if route else ()

    def check_route(self) -> None:
        headers = self.request.headers
        check_host(headers.get_list("Host"), self._deps.allowed_hosts())
        if self.request.method not in SAFE_METHODS or (self._route is not None and self._route.own_origin):
            check_origin(headers, scheme=self.request.protocol)
        if self._route is None or not self._route.open:
            self._check_token()
        if self._route is None:
            raise Refusal(404, "Not found")
        super().check_route()

    def _check_token(self) -> None:
        """Let in who holds the token or a session; a browser that asks for a page is led to the login instead."""
        headers, token = self.request.headers, self._deps.token()
        if token and self._deps.sessions.holds(headers.get_list("Cookie"), token):
            return
        try:
            check_token(headers.get_list("Authorization"), token)
        except Refusal:
            if self._route is None or not self._route.page or "text/html" not in headers.get("Accept", ""):
                raise
            self._to_login = True

    async def respond(self, body: bytes) -> Answer:
        assert self._route is not None
        if self._to_login:
            return login.lead(self.request.uri or "/" if self.request.method == "GET" else "/")
        method = str(self.request.method)
        function = self._route.functions.get(method) or self._route.functions["GET"]
        matched = self._route.pattern().fullmatch(self.request.path)
        assert matched is not None
        segments = {name: unquote_to_bytes(value.encode("latin-1")) for name, value in matched.groupdict().items()}
        request = self.request
        source = request.remote_ip or ""
        call = Call(self._deps, segments, request.query_arguments, request.headers, body, source, method)
        return await asyncio.get_running_loop().run_in_executor(self._deps.executor, function, call)


def check_host(hosts: Sequence[str], allowed: Sequence[str]) -> None:
    """Answer only to the names this listener goes by, whatever the port. Raises Refusal 403.

    A page elsewhere can have its own name resolve to this address (DNS rebinding) and is then same-origin
    with itself: only the Host header gives it away. Tornado makes one up for HTTP/1.0, so the raw one counts.
    """
    names = {_host_name(name) or name.lower() for name in allowed}  # "::1" is written without brackets there
    if len(hosts) != 1 or _host_name(hosts[0]) not in names:
        raise Refusal(403, "Host not allowed")


def _host_name(host: str) -> str | None:
    """The name without port and brackets, in lower case; None when it is not written as a Host header is."""
    found = HOST.fullmatch(host.lower())
    return found and (found[1] or found[2])


def check_origin(headers: httputil.HTTPHeaders, *, scheme: str) -> None:
    """Refuse a change that another origin's page asks for; programs send neither header. Raises Refusal 403."""
    site = headers.get("Sec-Fetch-Site")
    origin = headers.get("Origin")
    host = headers.get("Host", "").lower()
    if site is not None and site not in ("same-origin", "none"):
        raise Refusal(403, "Cross-origin request refused")
    if origin is None:
        return
    # Behind a proxy that ends TLS the page's scheme is not ours; then the browser's own word has to do.
    schemes = ("http", "https") if site is not None else (scheme,)
    if origin.lower() not in {_origin(one, host) for one in schemes}:
        raise Refusal(403, "Cross-origin request refused")


def _origin(scheme: str, host: str) -> str:
    return f"{scheme}://{host.removesuffix(DEFAULT_PORTS[scheme])}"


def check_token(values: Sequence[str], token: str | None) -> None:
    """Ask for the bearer token, when there is one to ask for. Raises Refusal 401."""
    if not token:
        return
    given = BEARER.fullmatch(values[0]) if len(values) == 1 else None
    # Bytes: compare_digest raises TypeError for text beyond ASCII.
    if given is None or not hmac.compare_digest(given[1].encode("latin-1", "replace"), token.encode()):
        raise Refusal(401, "A valid token is needed: Authorization: Bearer …")


def make_admin_app(deps: AdminDeps) -> web.Application:
    """The application of the admin listener."""
    return web.Application(
        [
            routing.Rule(RouteMatches(one.pattern()), Guarded, {"deps": deps, "route": one})
            for one in (*routes(), *pages())
        ],
        default_handler_class=Guarded,
        default_handler_args={"deps": deps},
        log_function=lambda _: None,
    )
