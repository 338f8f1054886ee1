"""The REST API: finds the endpoint and the repository of a request, and asks one about the other."""

from __future__ import annotations

import re
from functools import cached_property

from daemon.demo.standin import accounts, apps, gitdata, hooksapi
from daemon.demo.standin.answers import Answer, Problem, Request, json_answer, not_found
from daemon.demo.standin.callers import Caller
from daemon.demo.standin.calls import Call, RepositoryCall, RepositoryRoute, Route, repository_route
from daemon.demo.standin.repositories import ServedRepository
from daemon.demo.standin.shapes import Shapes
from daemon.demo.standin.world import World

_BY_NAME = re.compile(r"/repos/([^/]+)/([^/]+)((?:/.*)?)")
_BY_ID = re.compile(r"/repositories/(\d+)((?:/.*)?)")


class RestApi:
    """Answers what is below the base URL, for a caller that was let in."""

    def __init__(self, world: World) -> None:
        self._world = world

    @cached_property
    def _routes(self) -> tuple[Route, ...]:
        return (*accounts.routes(), *apps.routes(), *hooksapi.organisation_routes())

    @cached_property
    def _repository_routes(self) -> tuple[RepositoryRoute, ...]:
        about = repository_route("GET", "", get_repository)
        return (about, *gitdata.routes(), *hooksapi.routes(), *apps.repository_routes())

    def answer(self, request: Request, base: str, *, caller: Caller) -> Answer:
        """The answer to one request; raises Problem."""
        call = Call(self._world, request, Shapes(base), caller)
        method = "GET" if request.method == "HEAD" else request.method
        if match := _BY_NAME.fullmatch(request.path):
            owner, name, rest = match.groups()
            return self._about(call, method, self._named(call, f"{owner}/{name}", rest), rest)
        if match := _BY_ID.fullmatch(request.path):
            found = self._world.registry.by_id(int(match[1]))
            return self._about(call, method, found, match[2])
        for route in self._routes:
            if route.method == method and (match := route.pattern.fullmatch(request.path)):
                return route.endpoint(Call(self._world, request, call.shapes, caller, match.groups()))
        raise not_found()

    def _named(self, call: Call, full_name: str, rest: str) -> ServedRepository | None:
        registry = self._world.registry
        found = registry.named(full_name)
        if found is None and (moved := registry.formerly(full_name)) is not None and call.caller.sees(moved):
            raise Moved(f"{call.shapes.url}/repositories/{moved.id}{rest}", call.request)
        return found

    def _about(self, call: Call, method: str, repository: ServedRepository | None, rest: str) -> Answer:
        if repository is None or not call.caller.sees(repository):
            raise not_found()
        if call.caller.is_app and rest != "/installation":
            raise Problem(403, "Resource not accessible by integration")
        if repository.blocked is not None:
            reason = "dmca" if repository.blocked == 451 else "tos"  # noqa: PLR2004
            raise Problem(repository.blocked, "Repository access blocked", block={"reason": reason})
        for route in self._repository_routes:
            if route.method == method and (match := route.pattern.fullmatch(rest)):
                return route.endpoint(RepositoryCall(call, repository, match.groups()))
        raise not_found()


class Moved(Problem):
    """A repository that has another name now: 301 for reads, 307 for writes."""

    def __init__(self, url: str, request: Request) -> None:
        query = request.target.partition("?")[2]
        self.url = f"{url}?{query}" if query else url
        super().__init__(301 if request.method in {"GET", "HEAD"} else 307, "Moved Permanently", url=self.url)

    def answer(self) -> Answer:
        return super().answer().with_headers(location=self.url)


def get_repository(call: RepositoryCall) -> Answer:
    return json_answer(call.shapes.repository(call.repository))
