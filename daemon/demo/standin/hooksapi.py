"""The endpoints that manage the webhooks of repositories and organisations, and read the log of their deliveries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from daemon.demo.standin.answers import Answer, Problem, json_answer, not_found
from daemon.demo.standin.calls import Call, RepositoryCall, RepositoryRoute, Route, repository_route, route
from daemon.demo.standin.deliveries import DeliveryRecord, Hook, Message, new_guid
from daemon.demo.standin.payloads import Push, hook_repository, push_payload, sender
from daemon.demo.standin.repositories import LOGIN, ServedRepository
from daemon.demo.standin.shapes import instant
from daemon.model import ZERO_SHA

_SECRET_SHOWN = "********"  # noqa: S105  # what GitHub shows instead of it
_FIRST_FAILURE, _LAST_FAILURE = 400, 599
_REPOSITORY_SCOPES = frozenset({"repo", "admin:repo_hook"})
_ORGANISATION_SCOPES = frozenset({"admin:org_hook"})


@dataclass(frozen=True, slots=True)
class HookCall:
    """A call about the hooks of a repository or, without one, of an organisation; ``parts`` are numbers of hooks."""

    call: Call
    owner: str
    repository: ServedRepository | None
    parts: tuple[str, ...]

    @property
    def path(self) -> str:
        return f"/repositories/{self.repository.id}" if self.repository else f"/orgs/{self.owner}"

    @property
    def url(self) -> str:
        shapes = self.call.shapes
        return shapes.repository_url(self.repository) if self.repository else f"{shapes.url}/orgs/{self.owner}"

    def hooks(self) -> list[Hook]:
        """The hooks of the target; a caller who may not administer them is told that there is nothing."""
        deliveries = self.call.world.deliveries
        self._require_admin()
        if self.repository is not None:
            return deliveries.hooks(self.repository.id)
        return deliveries.hooks(self.target_id, "organization")

    @property
    def target_id(self) -> int:
        if self.repository is not None:
            return self.repository.id
        every = self.call.world.registry.all()
        owned = next((each for each in every if each.owner.lower() == self.owner.lower()), None)
        if owned is None or owned.owner_type != "Organization":
            raise not_found()
        return owned.owner_id

    def _require_admin(self) -> None:
        admin = self.repository is None or self.repository.admin
        scopes = None if self.call.caller.account else self.call.world.options.scopes  # an App has permissions instead
        if self.call.authorized and scopes is None and not admin:
            raise Problem(403, "Resource not accessible by personal access token")
        wanted = _REPOSITORY_SCOPES if self.repository else _ORGANISATION_SCOPES
        permitted = scopes is None or not wanted.isdisjoint(scopes.split(", "))
        if not (self.call.authorized and admin and permitted):
            raise not_found()


Endpoint = Callable[[HookCall], Answer]


def _endpoints() -> tuple[tuple[str, str, Endpoint], ...]:
    return (
        ("GET", r"/hooks", list_hooks),
        ("POST", r"/hooks", create_hook),
        ("GET", r"/hooks/(\d+)", get_hook),
        ("PATCH", r"/hooks/(\d+)", change_hook),
        ("DELETE", r"/hooks/(\d+)", delete_hook),
        ("POST", r"/hooks/(\d+)/pings", ping_hook),
        ("GET", r"/hooks/(\d+)/deliveries", list_deliveries),
        ("GET", r"/hooks/(\d+)/deliveries/(\d+)", get_delivery),
        ("POST", r"/hooks/(\d+)/deliveries/(\d+)/attempts", redeliver),
    )


def routes() -> tuple[RepositoryRoute, ...]:
    """Below a repository; there alone a hook can be tested with the latest push."""

    def about(endpoint: Endpoint) -> Callable[[RepositoryCall], Answer]:
        return lambda call: endpoint(HookCall(call.call, call.repository.owner, call.repository, call.parts))

    every = (*_endpoints(), ("POST", r"/hooks/(\d+)/tests", test_hook))
    return tuple(repository_route(method, pattern, about(endpoint)) for method, pattern, endpoint in every)


def organisation_routes() -> tuple[Route, ...]:
    def about(endpoint: Endpoint) -> Callable[[Call], Answer]:
        return lambda call: endpoint(HookCall(call, call.parts[0], None, call.parts[1:]))

    return tuple(
        route(method, r"/orgs/([^/]+)" + pattern, about(endpoint)) for method, pattern, endpoint in _endpoints()
    )


def ping(call: HookCall, hook: Hook) -> Message:
    shapes = call.call.shapes
    if call.repository is not None:
        about: dict[str, Any] = {"repository": hook_repository(shapes, call.repository, push=False)}
    else:
        about = {"organization": {"login": call.owner, "id": call.target_id}}
    zen = "Keep it logically awesome."
    payload = {"zen": zen, "hook_id": hook.id, "hook": _hook(call, hook), **about, "sender": sender(shapes, LOGIN)}
    return Message(new_guid(), "ping", payload)


def list_hooks(call: HookCall) -> Answer:
    hooks, links = call.call.page(call.hooks(), f"{call.path}/hooks")
    return json_answer([_hook(call, hook) for hook in hooks], headers=links)


def create_hook(call: HookCall) -> Answer:
    known, deliveries = call.hooks(), call.call.world.deliveries
    body = call.call.body()
    config = body.get("config")
    if not isinstance(config, dict) or not str(config.get("url", "")).startswith(("http://", "https://")):
        raise _invalid("config.url", "url is missing or no http(s) URL")
    events = tuple(body.get("events") or ("push",))
    if any(hook.url == config["url"] and set(hook.events) & set(events) for hook in known):
        raise _invalid(None, "Hook already exists on this repository")
    hook = deliveries.add_hook(
        call.target_id,
        config["url"],
        config.get("secret"),
        # A hook made through the API is a form unless it says json.
        content_type="json" if config.get("content_type") == "json" else "form",
        events=events,
        target_type="repository" if call.repository else "organization",
    )
    hook.active = bool(body.get("active", True))
    deliveries.send_in_background([hook], ping(call, hook))
    shape = _hook(call, hook)
    return json_answer(shape, status=201, headers={"location": shape["url"]})


def get_hook(call: HookCall) -> Answer:
    return json_answer(_hook(call, _require_hook(call)))


def change_hook(call: HookCall) -> Answer:
    hook, body = _require_hook(call), call.call.body()
    config = body.get("config")
    if isinstance(config, dict):
        hook.url = config.get("url", hook.url)
        # A configuration that comes without the secret takes it away.
        hook.secret = config.get("secret") or None
        hook.content_type = "json" if config.get("content_type") == "json" else "form"
    hook.active = bool(body.get("active", hook.active))
    events = [*body.get("events", hook.events), *body.get("add_events", [])]
    hook.events = tuple(event for event in events if event not in body.get("remove_events", []))
    return json_answer(_hook(call, hook))


def delete_hook(call: HookCall) -> Answer:
    call.call.world.deliveries.remove_hook(_require_hook(call).id)
    return Answer(204)


def ping_hook(call: HookCall) -> Answer:
    hook = _require_hook(call)
    call.call.world.deliveries.send_in_background([hook], ping(call, hook))
    return Answer(204)


def test_hook(call: HookCall) -> Answer:
    """Deliver the latest push of the default branch, if the hook wants pushes."""
    hook, repository, shapes = _require_hook(call), call.repository, call.call.shapes
    assert repository is not None
    head = repository.commit(repository.branches().get(repository.default_branch, ZERO_SHA))
    if head is not None:
        before = head.parents[0] if head.parents else ZERO_SHA
        push = Push(f"refs/heads/{repository.default_branch}", before, head.sha)
        payload = push_payload(shapes, repository, push, LOGIN)
        call.call.world.deliveries.send_in_background([hook], Message(new_guid(), "push", payload))
    return Answer(204)


def list_deliveries(call: HookCall) -> Answer:
    """The log, newest first, by cursor. ``status=failure`` finds answers of 400 to 599 only, no time-outs."""
    hook = _require_hook(call)
    query, size = call.call.request.query, call.call.request.page_size()
    records = [each for each in call.call.world.deliveries.records(hook.id) if each.result is not None]
    if wanted := query.get("status"):
        records = [each for each in records if _filter(each) == wanted]
    if cursor := query.get("cursor"):
        if not cursor.removeprefix("v1_").isdigit():
            raise Problem(422, "Invalid cursor")
        records = [each for each in records if each.id <= int(cursor.removeprefix("v1_"))]
    more = len(records) > size
    start = f"v1_{records[size].id}" if more else ""
    links = call.call.page_links(f"{call.path}/hooks/{hook.id}/deliveries", more=more, cursor=start)
    return json_answer([_delivery(each) for each in records[:size]], headers=links)


def _filter(record: DeliveryRecord) -> str:
    status = record.result.status if record.result is not None else None
    if status is None:
        return ""
    return "failure" if _FIRST_FAILURE <= status <= _LAST_FAILURE else "success"


def get_delivery(call: HookCall) -> Answer:
    """One delivery; the payload is parsed JSON, so its signature cannot be checked again."""
    record = _require_delivery(call)
    assert record.result is not None
    request = {"headers": dict(record.headers), "payload": record.message.payload}
    response = {"headers": dict(record.result.headers), "payload": record.result.body.decode("utf-8", "replace")}
    return json_answer({**_delivery(record), "url": record.hook.url, "request": request, "response": response})


def redeliver(call: HookCall) -> Answer:
    record = _require_delivery(call)
    call.call.world.deliveries.redeliver_in_background(record)
    return json_answer({}, status=202)


def _require_delivery(call: HookCall) -> DeliveryRecord:
    hook = _require_hook(call)
    wanted = int(call.parts[1])
    for record in call.call.world.deliveries.records(hook.id):
        if record.id == wanted and record.result is not None:
            return record
    raise not_found()


def _require_hook(call: HookCall) -> Hook:
    wanted = int(call.parts[0])
    for hook in call.hooks():
        if hook.id == wanted:
            return hook
    raise not_found()


def _invalid(field: str | None, message: str) -> Problem:
    error = {"resource": "Hook", "code": "custom", "message": message, **({"field": field} if field else {})}
    return Problem(422, "Validation Failed", errors=[error])


def _hook(call: HookCall, hook: Hook) -> dict[str, Any]:
    url = f"{call.url}/hooks/{hook.id}"
    config = {"url": hook.url, "content_type": hook.content_type, "insecure_ssl": "0"}
    return {
        "type": hook.target_type.capitalize(),
        "id": hook.id,
        "name": "web",
        "active": hook.active,
        "events": list(hook.events),
        "config": {**config, **({"secret": _SECRET_SHOWN} if hook.secret else {})},
        "updated_at": instant(hook.created_at),
        "created_at": instant(hook.created_at),
        "url": url,
        "test_url": f"{url}/test",
        "ping_url": f"{url}/pings",
        "deliveries_url": f"{url}/deliveries",
        "last_response": _last_response(call, hook),
    }


def _last_response(call: HookCall, hook: Hook) -> dict[str, Any]:
    results = (record.result for record in call.call.world.deliveries.records(hook.id) if record.result is not None)
    last = next(results, None)
    if last is None:
        return {"code": None, "status": "unused", "message": None}
    if last.status is None:
        return {"code": 0, "status": "connection_error", "message": last.error}
    return {"code": last.status, "status": "active" if last.ok else "invalid_http_response", "message": None}


def _delivery(record: DeliveryRecord) -> dict[str, Any]:
    assert record.result is not None
    repository = record.message.payload.get("repository")
    return {
        "id": record.id,
        "guid": record.guid,
        "delivered_at": instant(record.delivered_at),
        "redelivery": record.redelivery,
        "duration": round(record.seconds, 2),
        "status": record.outcome,
        "status_code": record.result.status or 0,
        "event": record.message.event,
        "action": record.message.payload.get("action"),
        "installation_id": None,
        "repository_id": repository["id"] if repository else None,
        "throttled_at": None,
    }
