"""What an endpoint gets: the request, who sent it, and the world it asks about."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from daemon.demo.standin.answers import Answer, Problem, Request
from daemon.demo.standin.callers import Caller
from daemon.demo.standin.repositories import ServedRepository
from daemon.demo.standin.shapes import Shapes
from daemon.demo.standin.world import World


@dataclass(frozen=True, slots=True)
class Call:
    """One request to an endpoint; ``parts`` are the groups of the route's pattern."""

    world: World
    request: Request
    shapes: Shapes
    caller: Caller
    parts: tuple[str, ...] = ()

    @property
    def authorized(self) -> bool:
        return self.caller.authorized

    def body(self) -> dict[str, Any]:
        """The JSON object that was sent; an empty body counts as an empty one."""
        try:
            value = json.loads(self.request.body or b"{}")
        except ValueError:
            raise Problem(400, "Problems parsing JSON") from None
        if not isinstance(value, dict):
            raise Problem(400, "Body should be a JSON object")
        return value

    def page_links(self, path: str, *, more: bool, **parameters: str | int) -> dict[str, str]:
        """A ``Link`` header with the next page, when there is one."""
        if not more:
            return {}
        query = urlencode({**self.request.query, **{name: str(value) for name, value in parameters.items()}})
        return {"link": f'<{self.shapes.url}{path}?{query}>; rel="next"'}

    def page(self, items: Sequence[Any], path: str) -> tuple[list[Any], dict[str, str]]:
        """One page of a list that is all here, with its ``Link``."""
        size, number = self.request.page_size(), max(1, self.request.number("page", 1))
        chosen = list(items[(number - 1) * size : number * size])
        return chosen, self.page_links(path, more=len(items) > number * size, page=number + 1)


@dataclass(frozen=True, slots=True)
class RepositoryCall:
    """A call about one repository, which the caller may see."""

    call: Call
    repository: ServedRepository
    parts: tuple[str, ...] = ()

    @property
    def world(self) -> World:
        return self.call.world

    @property
    def request(self) -> Request:
        return self.call.request

    @property
    def shapes(self) -> Shapes:
        return self.call.shapes

    @property
    def path(self) -> str:
        """Where links between pages point: by id, as GitHub's do, not by the name that was asked for."""
        return f"/repositories/{self.repository.id}"


@dataclass(frozen=True, slots=True)
class Route:
    """An endpoint outside repositories."""

    method: str
    pattern: re.Pattern[str]
    endpoint: Callable[[Call], Answer]


@dataclass(frozen=True, slots=True)
class RepositoryRoute:
    """An endpoint below ``/repos/{owner}/{name}`` and ``/repositories/{id}``."""

    method: str
    pattern: re.Pattern[str]
    endpoint: Callable[[RepositoryCall], Answer]


def route(method: str, pattern: str, endpoint: Callable[[Call], Answer]) -> Route:
    return Route(method, re.compile(pattern), endpoint)


def repository_route(method: str, pattern: str, endpoint: Callable[[RepositoryCall], Answer]) -> RepositoryRoute:
    return RepositoryRoute(method, re.compile(pattern), endpoint)
