"""The endpoints of a GitHub App about itself and its installations."""

from __future__ import annotations

from typing import Any

from daemon.demo.standin.answers import Answer, Problem, json_answer, not_found
from daemon.demo.standin.callers import UNDECODED, Installation
from daemon.demo.standin.calls import Call, RepositoryCall, RepositoryRoute, Route, repository_route, route
from daemon.demo.standin.shapes import instant


def routes() -> tuple[Route, ...]:
    return (
        route("GET", r"/app", get_app),
        route("GET", r"/app/installations", list_installations),
        route("GET", r"/app/installations/(\d+)", get_installation),
        route("POST", r"/app/installations/(\d+)/access_tokens", create_token),
    )


def repository_routes() -> tuple[RepositoryRoute, ...]:
    return (repository_route("GET", "/installation", get_repository_installation),)


def get_app(call: Call) -> Answer:
    _require_app(call)
    app_id = call.world.apps.app_id
    return json_answer({"id": app_id, "slug": "headwater-app", "name": "headwater app", "events": ["push"]})


def list_installations(call: Call) -> Answer:
    _require_app(call)
    chosen, links = call.page(call.world.apps.all(), "/app/installations")
    return json_answer([_shape(call, one) for one in chosen], headers=links)


def get_installation(call: Call) -> Answer:
    _require_app(call)
    return json_answer(_shape(call, _found(call)))


def create_token(call: Call) -> Answer:
    _require_app(call)
    installation = _found(call)
    if installation.suspended_at is not None:
        raise Problem(403, "This installation has been suspended")
    token, expires_at = call.world.apps.make_token(installation)
    body = {"token": token, "expires_at": instant(expires_at), "permissions": {"contents": "read", "metadata": "read"}}
    return json_answer({**body, "repository_selection": _selection(installation)}, status=201)


def get_repository_installation(call: RepositoryCall) -> Answer:
    _require_app(call.call)
    installation = call.world.apps.of(call.repository)
    if installation is None:
        raise not_found()
    return json_answer(_shape(call.call, installation))


def _require_app(call: Call) -> None:
    if not call.caller.is_app:
        raise Problem(401, UNDECODED)


def _found(call: Call) -> Installation:
    installation = call.world.apps.by_id(int(call.parts[0]))
    if installation is None:
        raise not_found()
    return installation


def _selection(installation: Installation) -> str:
    return "all" if installation.repositories is None else "selected"


def _shape(call: Call, installation: Installation) -> dict[str, Any]:
    url = f"{call.shapes.url}/app/installations/{installation.id}"
    suspended = installation.suspended_at
    return {
        "id": installation.id,
        "account": {"login": installation.owner, "type": "Organization"},
        "app_id": call.world.apps.app_id,
        "repository_selection": _selection(installation),
        "access_tokens_url": f"{url}/access_tokens",
        "suspended_at": instant(suspended) if suspended is not None else None,
    }
