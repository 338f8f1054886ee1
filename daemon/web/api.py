"""The JSON API, one function a route: a call in, a finished answer out.

Every function runs on a reading thread and may block. What belongs together is read in one transaction, so
that an answer describes one commit and names it in its headers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import quote

from tornado.httputil import HTTPHeaders

from daemon.errors import Refusal
from daemon.model import BranchRecord, NodeRecord, RepositoryRecord, Sample, SearchPosition, SyncProgress, Trigger
from daemon.store.actions import Actions
from daemon.store.database import Database
from daemon.store.entities import Entities
from daemon.store.feed import Feed
from daemon.store.history import History
from daemon.store.jobs import Jobs
from daemon.store.repositories import Repositories
from daemon.store.search import Search
from daemon.store.snapshots import Snapshots
from daemon.web import answers, cursor, openapi, raw
from daemon.web.app import Answer, encode
from daemon.web.sessions import Sessions
from daemon.web.stream import Hub

MOST_ITEMS = 1000
DEFAULT_ITEMS = 100
LARGEST_ID = 2**63 - 1
MOST_SEARCHED = 1000
STREAM_TYPE = "text/event-stream; charset=utf-8"
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"

SWEPT = "The changes after that id are not kept any more: read the branches anew, then start without it"

T = TypeVar("T")


@dataclass(frozen=True)
class AdminDeps:
    """What the admin listener is given. Callables are asked on each request, so that a reload applies.

    ``promise`` is the bound in seconds within which a repository is confirmed; ``syncs`` is what runs now; ``ready``
    and ``status`` may block; ``want`` asks for a sync of branches by id, ``prune`` for the removal of a repository by
    name, ``look_at_webhook`` for a look at a repository's by id, and they return once that is durable.
    """

    token: Callable[[], str | None]
    allowed_hosts: Callable[[], Sequence[str]]
    database: Database
    repositories: Repositories
    jobs: Jobs
    snapshots: Snapshots
    history: History
    entities: Entities
    actions: Actions
    retry_actions: Callable[[str | None], int]
    feed: Feed
    hub: Hub
    search: Search
    executor: Executor
    promise: Callable[[RepositoryRecord], float]
    syncs: Callable[[], Sequence[SyncProgress]]
    ready: Callable[[], list[str]]
    status: Callable[[], dict[str, Any]]
    want: Callable[[list[int], Trigger], None]
    prune: Callable[[str], bool]
    look_at_webhook: Callable[[int], None]
    configured: Callable[[], bool]
    metrics: Callable[[], bytes]
    now: Callable[[], datetime]
    samples: Callable[[], Sequence[Sample]] = tuple
    sessions: Sessions = field(default_factory=Sessions)
    node: str = ""  # the id of this one
    nodes: Callable[[], list[NodeRecord]] = list


@dataclass(frozen=True)
class Call:
    """One request: the segments of its path as bytes, its query, headers and body, where it came from, its method."""

    deps: AdminDeps
    segments: Mapping[str, bytes]
    query: Mapping[str, list[bytes]]
    headers: HTTPHeaders
    body: bytes = b""
    source: str = ""
    method: str = "GET"

    def text(self, name: str) -> str | None:
        """A query parameter; None when it is absent or empty."""
        value = self.query.get(name, [b""])[-1]
        return value.decode("utf-8", "replace") or None

    def limit(self) -> int:
        said = self.query.get("limit", [str(DEFAULT_ITEMS).encode()])[-1]
        if not re.fullmatch(rb"[0-9]{1,6}", said) or not 1 <= int(said) <= MOST_ITEMS:
            raise Refusal(422, f"limit must be a number from 1 to {MOST_ITEMS}")
        return int(said)

    def number(self, name: str) -> int | None:
        """A query parameter that is the id of a change; None when it is absent. Raises Refusal 422."""
        return None if name not in self.query else change_id(self.query[name][-1].decode("latin-1"), name)

    def position(self, kind: str, *shape: type[int | str]) -> tuple[Any, ...] | None:
        """Where the cursor says that the list goes on; None for its beginning. Raises Refusal 422."""
        if "cursor" not in self.query:
            return None
        return cursor.read(self.query["cursor"][-1].decode("latin-1"), kind, *shape)

    def repository(self) -> RepositoryRecord:
        """The repository that the path names. Raises Refusal 404."""
        owner, name = (self.segments[key].decode("utf-8", "replace") for key in ("owner", "name"))
        record = self.deps.repositories.record(owner, name)
        if record is None:
            raise Refusal(404, "Repository not found")
        return record

    def branch(self, record: RepositoryRecord) -> BranchRecord:
        """The branch asked for, else the default one, else the only one. Raises Refusal 404."""
        found = answers.chosen_branch(record, self.text("branch"))
        if found is None:
            raise Refusal(404, "Branch not found")
        return found


def change_id(text: str, name: str) -> int:
    """Raises Refusal 422 for what is no id."""
    if not re.fullmatch("[0-9]{1,19}", text, re.ASCII) or int(text) > LARGEST_ID:
        raise Refusal(422, f"{name} must be the id of a change")
    return int(text)


def healthz(call: Call) -> Answer:
    del call
    return encode({"status": "ok"})


def readyz(call: Call) -> Answer:
    reasons = call.deps.ready()
    if not reasons and call.text("fresh") in ("1", "true", "yes"):
        now = call.deps.now()
        reasons = answers.readiness([(one, call.deps.promise(one)) for one in call.deps.repositories.every()], now=now)
    if reasons:
        return encode({"status": "not ready", "reasons": reasons, "detail": "; ".join(reasons)}, status=503)
    return encode({"status": "ready"})


def metrics(call: Call) -> Answer:
    return Answer(call.deps.metrics(), headers={"Content-Type": METRICS_TYPE})


def status(call: Call) -> Answer:
    return encode(call.deps.status())


def description(call: Call) -> Answer:
    del call
    return encode(openapi.document())


def repositories(call: Call) -> Answer:
    limit = call.limit()
    position = call.position("repositories", str)
    found = call.deps.repositories.records(after=position[0] if position else None, limit=limit + 1)
    return _page(
        found, limit, tell=lambda one: _repository(call, one), at=lambda one: ("repositories", one.full_name.lower())
    )


def repository(call: Call) -> Answer:
    """One repository; under the name it had before, where it is found now."""
    record = call.repository()
    asked = "/".join(call.segments[key].decode("utf-8", "replace") for key in ("owner", "name"))
    if asked.lower() != record.full_name.lower():
        return _moved(f"/api/v1/repositories/{quote(record.full_name)}")
    return encode(_repository(call, record))


def _moved(path: str) -> Answer:
    return encode({"detail": f"Moved to {path}"}, status=301, headers={"Location": path})


def _repository(call: Call, record: RepositoryRecord) -> dict[str, Any]:
    return answers.repository_json(
        record, now=call.deps.now(), promised_seconds=call.deps.promise(record), syncs=call.deps.syncs()
    )


def sync(call: Call) -> Answer:
    """Ask for a sync; answered once the wish is durable."""
    record = call.repository()
    if record.replaced:
        raise Refusal(409, "Another repository has that name now: this copy is kept, and not synced any more")
    wanted = call.text("branch")
    repositories = call.deps.repositories
    chosen = [one.id for one in repositories.branches(record.id) if wanted is None or one.name == wanted]
    if call.deps.configured() and wanted is None and repositories.has_globs(record.id):
        repositories.look_by(record.id, at=call.deps.now())  # they may be for branches that are not known yet
    if not chosen:
        raise Refusal(404, "Branch not found")
    if not call.deps.configured():
        raise Refusal(503, "GitHub integration not configured")
    call.deps.want(chosen, _trigger(call))
    jobs = [answers.job_json(call.deps.jobs.record(branch_id)) for branch_id in chosen]
    return encode({"id": jobs[0]["id"], "state": jobs[0]["state"], "job": jobs[0], "jobs": jobs}, status=202)


def prune(call: Call) -> Answer:
    """Have what is stored of a repository removed that is gone or not tracked any more."""
    owner, name = (call.segments[key].decode("utf-8", "replace") for key in ("owner", "name"))
    if not call.deps.prune(f"{owner}/{name}"):
        if call.deps.repositories.by_name(owner, name) is None:
            raise Refusal(404, "Repository not found")
        raise Refusal(409, "It is tracked and not gone: only what is gone or not tracked any more is removed")
    return encode({"pruned": f"{owner}/{name}"}, status=202)


def webhook_changed(call: Call) -> Answer:
    """Its webhook was made or changed on GitHub: forget what was told of it, and look soon."""
    record = call.repository()
    call.deps.look_at_webhook(record.id)
    return encode({"repository": record.full_name}, status=202)


def _trigger(call: Call) -> Trigger:
    """``?trigger=audit`` has the stored content checked, and what is damaged fetched again. Raises Refusal 422."""
    name = call.text("trigger") or Trigger.MANUAL.value
    if name not in (Trigger.MANUAL, Trigger.AUDIT):
        raise Refusal(422, "trigger must be manual or audit")
    return Trigger(name)


def files(call: Call) -> Answer:
    limit = call.limit()
    position = call.position("files", int, int, str)
    with call.deps.database.read():
        branch = call.branch(call.repository())
        if position and position[0] != branch.id:
            raise Refusal(422, "cursor is not one of this list")
        try:
            page = call.deps.snapshots.files(
                branch.id,
                snapshot=position[1] if position else None,
                prefix=call.query.get("prefix", [b""])[-1],
                after=_path(position[2]) if position else None,
                limit=limit + 1,
            )
        except LookupError:
            raise Refusal(410, "That snapshot has been replaced: start again without a cursor") from None
    return _page(
        page.entries,
        limit,
        tell=answers.entry_json,
        at=lambda one: ("files", branch.id, page.snapshot, one.path.decode("latin-1")),
        headers=_about(page.head_sha, page.confirmed_at),
    )


def _path(text: str) -> bytes:
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        raise Refusal(422, "cursor is not one of this list") from None


def content(call: Call) -> Answer:
    with call.deps.database.read():
        branch = call.branch(call.repository())
        found = call.deps.snapshots.raw(branch.id, call.segments["path"])
    if found is None:
        raise Refusal(404, "File not found")
    headers = _about(found.head_sha, found.confirmed_at)
    return raw.serve(found.content, found.sha, request=call.headers, headers=headers, method=call.method)


def commits(call: Call) -> Answer:
    limit = call.limit()
    position = call.position("commits", int, int)
    with call.deps.database.read():
        branch = call.branch(call.repository())
        if position and position[0] != branch.id:
            raise Refusal(422, "cursor is not one of this list")
        found = call.deps.snapshots.commits(branch.id, before=position[1] if position else None, limit=limit + 1)
    return _page(
        found,
        limit,
        tell=lambda one: answers.commit_json(one[1]),
        at=lambda one: ("commits", branch.id, one[0]),
        headers=_about(branch.head_sha, branch.confirmed_at),
    )


def runs(call: Call) -> Answer:
    repository_id = call.repository().id if "owner" in call.segments else None
    limit = call.limit()
    position = call.position("runs", int)
    found = call.deps.history.runs(
        repository_id=repository_id, before_id=position[0] if position else None, limit=limit + 1
    )
    return _page(found, limit, tell=answers.run_json, at=lambda one: ("runs", one.id))


def deliveries(call: Call) -> Answer:
    limit = call.limit()
    position = call.position("deliveries", int)
    found = call.deps.history.deliveries(before_id=position[0] if position else None, limit=limit + 1)
    return _page(found, limit, tell=answers.delivery_json, at=lambda one: ("deliveries", one.id))


def changes(call: Call) -> Answer:
    limit = call.limit()
    since = call.number("since")
    position = call.position("changes", int)
    try:
        page = call.deps.feed.page(position[0] if position else since, limit=limit)
    except LookupError:
        raise Refusal(410, SWEPT) from None
    next_cursor = cursor.write("changes", page.items[-1].id) if page.more else None
    items = [answers.change_json(one) for one in page.items]
    return encode({"items": items, "next_cursor": next_cursor, "has_next": page.more})


def events(call: Call) -> Answer:
    """The stream from where the reader was, which its browser says when it comes back; else from now on."""
    said = call.headers.get("Last-Event-ID")
    since = change_id(said, "Last-Event-ID") if said else call.number("since")
    newest = call.deps.feed.newest()
    if since is None:
        since = newest
    elif since > newest:
        # Nothing would be sent until as many changes were made: the store was replaced, and must be read anew.
        raise Refusal(410, "No change has that id: the store was replaced, start again from /api/v1/changes")
    elif since < call.deps.feed.oldest() - 1:
        raise Refusal(410, SWEPT)
    hub, begin = call.deps.hub, since
    return Answer(b"", headers={"Content-Type": STREAM_TYPE}, stream=lambda sink: hub.serve(sink, begin))


def actions(call: Call) -> Answer:
    limit = call.limit()
    position = call.position("actions", str, int)
    found = call.deps.actions.records(after=position and (position[0], position[1]), limit=limit + 1)
    return _page(found, limit, tell=answers.action_json, at=lambda one: ("actions", one.action, one.branch_id or 0))


def nodes(call: Call) -> Answer:
    """The daemons that share the store, the oldest first."""
    limit = call.limit()
    position = call.position("nodes", str, str)
    every = call.deps.nodes()
    found = [one for one in every if position is None or _age(one) > position]
    own = own_digest(every, call.deps.node)

    def tell(one: NodeRecord) -> dict[str, Any]:
        return answers.node_json(one, this=call.deps.node, digest=own, now=call.deps.now())

    return _page(found, limit, tell=tell, at=lambda one: ("nodes", *_age(one)))


def own_digest(nodes: Iterable[NodeRecord], this: str) -> str | None:
    """That of the configuration of the node that answers."""
    return next((one.config_digest for one in nodes if one.id == this), None)


def _age(node: NodeRecord) -> tuple[str, str]:
    return node.started_at.isoformat(), node.id


def retry_actions(call: Call) -> Answer:
    """Have failed actions tried at once, without waiting out their backoff."""
    key = call.text("action")
    if key is not None and not call.deps.actions.knows(key):
        raise Refusal(404, "Action not found")
    return encode({"retried": call.deps.retry_actions(key)}, status=202)


def search(call: Call) -> Answer:
    text = call.text("q")
    if text is None or len(text) > MOST_SEARCHED:
        raise Refusal(422, f"q must be what to search for, at most {MOST_SEARCHED} characters")
    limit = call.limit()
    position = call.position("search", str, str, str)
    page = call.deps.search.find(
        text,
        repository_id=_named_repository(call),
        prefix=call.query.get("path", [b""])[-1],
        after=SearchPosition(position[0], position[1], _path(position[2])) if position else None,
        limit=limit,
    )
    place = page.position
    after = cursor.write("search", place.full_name, place.branch, place.path.decode("latin-1")) if place else None
    items = [answers.hit_json(one) for one in page.items]
    return encode({"items": items, "next_cursor": after, "has_next": after is not None})


def _named_repository(call: Call) -> int | None:
    """The repository that the query names, None when it names none. Raises Refusal 404."""
    name = call.text("repository")
    if name is None:
        return None
    repository_id = call.deps.repositories.by_name(*name.partition("/")[::2])
    if repository_id is None:
        raise Refusal(404, "Repository not found")
    return repository_id


def _page(
    found: Sequence[T],
    limit: int,
    *,
    tell: Callable[[T], dict[str, Any]],
    at: Callable[[T], tuple[Any, ...]],
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """A list of at most ``limit`` of what was found; one more than that was asked for, to know of a next page."""
    shown = found[:limit]
    has_next = len(found) > limit
    next_cursor = cursor.write(*at(shown[-1])) if has_next else None
    page = {"items": [tell(one) for one in shown], "next_cursor": next_cursor, "has_next": has_next}
    return encode(page, headers=headers)


def _about(head_sha: str | None, confirmed_at: datetime | None) -> dict[str, str]:
    told = {"X-Commit-Sha": head_sha, "X-Confirmed-At": answers.iso(confirmed_at)}
    return {name: value for name, value in told.items() if value is not None}
