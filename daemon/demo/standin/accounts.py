"""The endpoints about the caller, owners and their repositories, and the service itself."""

from __future__ import annotations

from typing import Any

from daemon.demo.standin.answers import Answer, Problem, json_answer, not_found
from daemon.demo.standin.calls import Call, Route, route
from daemon.demo.standin.repositories import LOGIN, ServedRepository


def routes() -> tuple[Route, ...]:
    return (
        route("GET", r"/meta", get_meta),
        route("GET", r"/rate_limit", get_rate_limit),
        route("GET", r"/user", get_user),
        route("GET", r"/user/repos", list_own),
        route("GET", r"/users/([^/]+)", get_owner),
        route("GET", r"/users/([^/]+)/repos", list_of_user),
        route("GET", r"/orgs/([^/]+)/repos", list_of_organisation),
        route("GET", r"/installation/repositories", list_of_installation),
    )


def get_meta(call: Call) -> Answer:
    hooks = call.world.options.hook_addresses
    named = {} if hooks is None else {"hooks": hooks}
    return json_answer({"verifiable_password_authentication": False, **named})


def get_rate_limit(call: Call) -> Answer:
    limits = call.world.limits
    if not limits.enabled:
        raise Problem(404, "Rate limiting is not enabled.")
    account = call.caller.account
    core = limits.shape("core" if call.authorized else "anonymous", account=account)
    return json_answer({"resources": {"core": core, "graphql": limits.shape("graphql", account=account)}, "rate": core})


def get_user(call: Call) -> Answer:
    if not call.authorized:
        raise Problem(401, "Requires authentication")
    return json_answer({"login": LOGIN, "id": 1, "type": "User", "url": f"{call.shapes.url}/users/{LOGIN}"})


def get_owner(call: Call) -> Answer:
    """The account of the caller is a user, every other owner an organisation."""
    owner = call.parts[0].lower()
    repositories = [each for each in call.world.registry.all() if each.owner.lower() == owner]
    if not repositories and owner != LOGIN:
        raise not_found()
    kind = "User" if owner == LOGIN else "Organization"
    login = repositories[0].owner if repositories else LOGIN
    return json_answer({"login": login, "id": repositories[0].owner_id if repositories else 1, "type": kind})


def list_own(call: Call) -> Answer:
    if not call.authorized:
        raise Problem(401, "Requires authentication")
    every = call.world.registry.all()
    only_owned = "owner" in call.request.query.get("affiliation", "").split(",")
    return _list(call, [one for one in every if not only_owned or one.owner.lower() == LOGIN], "/user/repos")


def list_of_user(call: Call) -> Answer:
    """The public ones, also for those who may see more: GitHub lists private ones elsewhere."""
    owned = [each for each in _owned(call) if not each.private]
    return _list(call, owned, f"/users/{call.parts[0]}/repos")


def list_of_organisation(call: Call) -> Answer:
    if call.parts[0].lower() == LOGIN:
        raise not_found()
    owned = [each for each in _owned(call) if call.authorized or not each.private]
    return _list(call, owned, f"/orgs/{call.parts[0]}/repos")


def list_of_installation(call: Call) -> Answer:
    repositories = [each for each in call.world.registry.all() if call.caller.sees(each)]
    chosen, links = call.page(repositories, "/installation/repositories")
    return json_answer({"total_count": len(repositories), "repositories": _shapes(call, chosen)}, headers=links)


def _owned(call: Call) -> list[ServedRepository]:
    owned = [each for each in call.world.registry.all() if each.owner.lower() == call.parts[0].lower()]
    if not owned and call.parts[0].lower() != LOGIN:
        raise not_found()
    return owned


def _list(call: Call, repositories: list[ServedRepository], path: str) -> Answer:
    chosen, links = call.page(sorted(repositories, key=lambda each: each.full_name), path)
    return json_answer(_shapes(call, chosen), headers=links)


def _shapes(call: Call, repositories: list[ServedRepository]) -> list[dict[str, Any]]:
    return [call.shapes.repository(each) for each in repositories]
