"""The stand-in as a whole: what tests and the demo hold in their hands."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from dataclasses import replace
from email.utils import format_datetime
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from daemon.clock import Clock
from daemon.demo.standin.answers import Answer, Problem, Request, compressed, conditional
from daemon.demo.standin.callers import Apps, Caller, Installation
from daemon.demo.standin.deliveries import ContentType, Deliveries, DeliveryResult, Hook, Message, new_guid
from daemon.demo.standin.faults import Exchange, Faults
from daemon.demo.standin.gitdata import codeload
from daemon.demo.standin.graphql import GraphQLApi
from daemon.demo.standin.limits import RateLimits, refuse_over_limit
from daemon.demo.standin.payloads import Push, hook_repository, push_payload, sender
from daemon.demo.standin.repositories import LOGIN, Registry, ServedRepository
from daemon.demo.standin.requestlog import RequestLog
from daemon.demo.standin.rest import RestApi
from daemon.demo.standin.server import Server
from daemon.demo.standin.shapes import Shapes
from daemon.demo.standin.staleness import Heads, Stale
from daemon.demo.standin.world import Options, World
from daemon.model import ZERO_SHA

_ENTERPRISE_REST = "/api/v3"
_ENTERPRISE_GRAPHQL = "/api/graphql"
_ARCHIVE = re.compile(r"/codeload/[^/]+/[^/]+/legacy\.tar\.gz/[0-9a-f]{40}")
NOT_MODIFIED = 304
_T = TypeVar("_T")


class _Option(Generic[_T]):
    """An attribute of the stand-in that is kept among the options its parts read."""

    def __set_name__(self, owner: type[StandIn], name: str) -> None:
        self._name = name

    def __get__(self, standin: StandIn, owner: type[StandIn]) -> _T:
        value: _T = getattr(standin.world.options, self._name)
        return value

    def __set__(self, standin: StandIn, value: _T) -> None:
        setattr(standin.world.options, self._name, value)


class StandIn:
    """GitHub's API on loopback over local git repositories, with a script of faults.

    It answers below its ``url`` as api.github.com does, and below ``/api/v3`` as Enterprise Server does.
    Without a token, REST may be read anonymously and GraphQL not at all.
    """

    token = _Option[str | None]()
    scopes = _Option[str | None]()
    token_expires = _Option[str | None]()
    graphql_enabled = _Option[bool]()
    tree_limit = _Option[int]()
    tree_bytes_limit = _Option[int]()
    blob_limit_bytes = _Option[int]()
    hook_addresses = _Option[tuple[str, ...] | None]()

    def __init__(self, *, port: int = 0, token: str | None = None, clock: Clock = Clock()) -> None:  # noqa: B008  # frozen
        self._clock = clock
        self._port = port
        self._server: Server | None = None
        self._closing = threading.Event()
        self.requests = RequestLog()
        self.faults = Faults()
        self.world = World(
            clock=clock,
            options=Options(token),
            registry=Registry(),
            heads=Heads(clock),
            limits=RateLimits(clock),
            deliveries=Deliveries(clock),
        )
        self._rest = RestApi(self.world)
        self._graphql = GraphQLApi(self.world)

    # ---- its life

    def start(self) -> None:
        """Listen; after a stop on the same port as before."""
        if self._server is not None:
            raise RuntimeError("the stand-in is running")
        self._server = Server(self._port, self._respond, self.requests)
        self._port = self._server.port
        self._closing = self._server.closing
        self._server.start()

    def stop(self) -> None:
        """End every connection and refuse new ones, as in an outage; what is served stays known."""
        server, self._server = self._server, None
        if server is not None:
            self.faults.release()
            server.stop()
        self.world.deliveries.close()
        for repository in self.world.registry.all():
            repository.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The REST base; GraphQL is at ``/graphql`` below it."""
        if not self._port:
            raise RuntimeError("the stand-in has no port before it was started")
        return f"http://127.0.0.1:{self._port}"

    # ---- what is served

    def add(
        self,
        full_name: str,
        path: Path,
        *,
        github_id: int | None = None,
        default_branch: str | None = None,
        private: bool = False,
        archived: bool = False,
        fork: bool = False,
        topics: Sequence[str] = (),
    ) -> ServedRepository:
        """Serve a git repository, bare or plain, which is only read. Raises ValueError when it cannot be."""
        owner, _, name = full_name.partition("/")
        now = self._clock.now()
        number = github_id if github_id is not None else self.world.registry.next_id()
        repository = ServedRepository(
            number,
            owner,
            name,
            path,
            now,
            now,
            default=default_branch,
            private=private,
            archived=archived,
            fork=fork,
            topics=tuple(topics),
        )
        self.world.registry.add(repository)
        return repository

    def repository(self, full_name: str) -> ServedRepository:
        """What is served under a name; KeyError when nothing is."""
        return self.world.registry.require(full_name)

    def remove(self, full_name: str) -> None:
        """Answer 404 for a repository from now on."""
        self.world.registry.remove(self.repository(full_name))

    def recreate(self, full_name: str, path: Path | None = None, *, github_id: int | None = None) -> ServedRepository:
        """Delete a repository and make another one with its name and a new id."""
        old = self.repository(full_name)
        self.remove(full_name)
        return self.add(full_name, path or old.path, github_id=github_id, private=old.private)

    def rename(self, old: str, new: str, *, deliver: bool = False) -> None:
        """Rename or transfer: the id stays, the old name redirects until somebody takes it."""
        repository = self.repository(old)
        owner, _, name = new.partition("/")
        before = repository.owner, repository.name
        self.world.registry.rename(repository, owner, name)
        if owner != before[0]:
            change: dict[str, Any] = {"owner": {"from": {"user": {"login": before[0]}}}}
            self.event(new, "repository", {"action": "transferred", "changes": change}, deliver=deliver)
        if name != before[1]:
            change = {"repository": {"name": {"from": before[1]}}}
            self.event(new, "repository", {"action": "renamed", "changes": change}, deliver=deliver)

    def set_default_branch(self, full_name: str, branch: str, *, deliver: bool = False) -> None:
        """Make another branch the default one, which GitHub reports as an edit of the repository."""
        repository = self.repository(full_name)
        change = {"default_branch": {"from": repository.default_branch}}
        repository.default = branch
        self.event(full_name, "repository", {"action": "edited", "changes": change}, deliver=deliver)

    @property
    def apps(self) -> Apps:
        """The GitHub App and its installations; there is none before it is registered."""
        return self.world.apps

    # ---- webhooks

    def hook(
        self,
        full_name: str,
        url: str,
        secret: str | None,
        *,
        content_type: ContentType = "json",
        events: Sequence[str] = ("*",),
    ) -> Hook:
        """Have a repository's events delivered to a URL, without a ping."""
        repository = self.repository(full_name)
        return self.world.deliveries.add_hook(repository.id, url, secret, content_type=content_type, events=events)

    def push(
        self,
        full_name: str,
        branch: str,
        before: str | None,
        after: str | None,
        *,
        guid: str | None = None,
        deliver: bool = True,
        ref: str | None = None,
        payload: dict[str, Any] | None = None,
    ) -> DeliveryResult | None:
        """Report a push that was made in the git repository; None for a creation or a deletion.

        With ``deliver`` False the delivery gets lost, but stays in the log for ``redeliver``. ``ref`` replaces
        the branch (a tag); ``payload`` replaces keys of what is sent. Returns what the first hook answered.
        """
        repository = self.repository(full_name)
        repository.pushed_at = self._clock.now()
        push = Push(ref or f"refs/heads/{branch}", before or ZERO_SHA, after or ZERO_SHA)
        body = push_payload(Shapes(self.url), repository, push, LOGIN)
        return self._send(repository, Message(guid or new_guid(), "push", {**body, **(payload or {})}), deliver=deliver)

    def event(
        self,
        full_name: str,
        event: str,
        payload: dict[str, Any] | None = None,
        *,
        guid: str | None = None,
        deliver: bool = True,
    ) -> DeliveryResult | None:
        """Deliver any event; the repository and the sender are added to the payload."""
        repository, shapes = self.repository(full_name), Shapes(self.url)
        body = {"repository": hook_repository(shapes, repository, push=False), "sender": sender(shapes, LOGIN)}
        return self._send(repository, Message(guid or new_guid(), event, {**body, **(payload or {})}), deliver=deliver)

    def ping(self, full_name: str) -> DeliveryResult | None:
        """What GitHub sends to a new hook."""
        return self.event(full_name, "ping", {"zen": "Keep it logically awesome.", "hook_id": 1})

    def redeliver(self, guid: str) -> DeliveryResult:
        """Send the same bytes under the same GUID again, or what got lost; KeyError when the GUID is unknown."""
        return self.world.deliveries.redeliver(guid)

    @property
    def deliveries(self) -> Deliveries:
        return self.world.deliveries

    def _send(self, repository: ServedRepository, message: Message, *, deliver: bool) -> DeliveryResult | None:
        deliveries = self.world.deliveries
        hooks = deliveries.hooks(repository.id) + deliveries.hooks(repository.owner_id, "organization")
        return deliveries.send(hooks, message, deliver=deliver)

    # ---- GitHub on a bad day

    def stale(
        self,
        full_name: str,
        branch: str,
        sha: str | None,
        *,
        seconds: float | None = None,
        reads: int | None = None,
        objects: bool = False,
    ) -> None:
        """Answer an old head (None: no such branch yet) for so long, for so many reads, or until ``fresh``.

        With ``objects`` the commits, trees and blobs that came with the new head are not there yet either.
        """
        heads = self.world.heads
        heads.hold_back(self.repository(full_name), branch, Stale(sha, heads.deadline(seconds), reads, objects))

    def fresh(self, full_name: str, branch: str) -> None:
        """Tell the truth about a branch again."""
        self.world.heads.lift(self.repository(full_name), branch)

    def limit(
        self,
        *,
        remaining: int,
        reset_in: float,
        resource: str | None = None,
        installation: Installation | None = None,
    ) -> None:
        """Leave so many requests until so many seconds from now; ``resource`` core, graphql or anonymous (all).

        It holds for the token, or for an installation of the App.
        """
        account = str(installation.id) if installation is not None else ""
        self.world.limits.set(remaining=remaining, reset_in=reset_in, resource=resource, account=account)

    def secondary_limit(self, times: int, *, retry_after: float | None = None, status: int = 403) -> None:
        """Refuse the next requests as too many at once."""
        self.world.limits.set_secondary(times, retry_after=retry_after, status=status)

    @property
    def limits(self) -> RateLimits:
        return self.world.limits

    # ---- one request

    def _respond(self, request: Request) -> Answer:
        action = self.faults.take(request)
        exchange = Exchange(request, lambda: self._genuine(request), self._closing)
        answer = exchange.genuine() if action is None else action.apply(exchange)
        # GitHub's clock need not be the daemon's, so it is the one that was passed in.
        date = format_datetime(self._clock.now(), usegmt=True)
        return compressed(replace(answer, headers={"date": date, **answer.headers}), request)

    def _genuine(self, request: Request) -> Answer:
        base, path = self.url, request.path
        if path.startswith(f"{_ENTERPRISE_REST}/"):
            base, path = base + _ENTERPRISE_REST, path.removeprefix(_ENTERPRISE_REST)
        request = replace(request, path="/graphql" if path == _ENTERPRISE_GRAPHQL else path)
        if path.startswith("/codeload/"):
            return self._archive(request)
        try:
            return self._let_in(request, base)
        except Problem as problem:
            return problem.answer()

    def _archive(self, request: Request) -> Answer:
        if not _ARCHIVE.fullmatch(request.path):
            return Problem(404, "Not Found").answer()
        return codeload(self.world, request.path, request.query.get("token", ""))

    def _let_in(self, request: Request, base: str) -> Answer:
        if "user-agent" not in request.headers:
            raise Problem(403, "Request forbidden by administrative rules. Please send a User-Agent header.")
        if "\0" in request.path + "".join(request.query.values()):
            raise Problem(404, "Not Found")
        caller = self.world.authenticate(request)
        if request.path != "/graphql":
            return self._metered(request, base, caller)
        if not self.graphql_enabled or request.method != "POST":
            raise Problem(404, "Not Found")
        if not caller.authorized or caller.is_app:
            raise Problem(401, "This endpoint requires you to be authenticated.")
        return self._graphql.answer(request, caller)

    def _metered(self, request: Request, base: str, caller: Caller) -> Answer:
        authorized, account = caller.authorized, caller.account
        resource, free = "core" if authorized else "anonymous", request.path == "/rate_limit"
        charge = self.world.limits.charge(resource, 0 if free else 1, account=account)
        headers = charge.headers
        try:
            refuse_over_limit(charge)
            answer = conditional(self._rest.answer(request, base, caller=caller), request)
        except Problem as problem:
            answer = problem.answer()
        if answer.status == NOT_MODIFIED and authorized:
            # Free of the primary limit only for those who say who they are.
            headers = self.world.limits.refund(resource, account=account)
        about = {"x-oauth-scopes": self.scopes, "github-authentication-token-expiration": self.token_expires}
        personal = authorized and not account
        token = {name: value for name, value in about.items() if personal and value is not None}
        common = {"x-github-media-type": "github.v3; format=json", "cache-control": "private, max-age=60, s-maxage=60"}
        return replace(answer, headers={**common, **token, **headers, **answer.headers})
