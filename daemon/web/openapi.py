"""The description of the admin API, held by hand beside the routes; a test walks both ways between them."""

from __future__ import annotations

from typing import Any

from daemon.version import __version__

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
TEXT_OR_NULL: Schema = {"type": ["string", "null"]}
NUMBER: Schema = {"type": "integer"}
NUMBER_OR_NULL: Schema = {"type": ["integer", "null"]}
BOOLEAN: Schema = {"type": "boolean"}
BOOLEAN_OR_NULL: Schema = {"type": ["boolean", "null"]}
INSTANT: Schema = {"type": "string", "format": "date-time"}
INSTANT_OR_NULL: Schema = {"type": ["string", "null"], "format": "date-time"}
SHA: Schema = {"type": "string", "pattern": "^[0-9a-f]{40}$"}
SHA_OR_NULL: Schema = {"type": ["string", "null"], "pattern": "^[0-9a-f]{40}$"}
STATE: Schema = {"enum": ["fresh", "stale", "syncing", "failed", "gone", "empty"]}


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _list(of: Schema) -> Schema:
    return {"type": "array", "items": of}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


SCHEMAS: dict[str, Schema] = {
    "Error": _object(detail=TEXT),
    "Health": _object(status=TEXT),
    "Ready": {
        "type": "object",
        "properties": {"status": TEXT, "reasons": _list(TEXT), "detail": TEXT},
        "required": ["status"],
    },
    "Status": _object(
        version=TEXT,
        started_at=INSTANT,
        uptime_seconds={"type": "number"},
        github={"type": "object"},
        syncs=_list(_ref("SyncProgress")),
        queue=_object(pending=NUMBER, running=NUMBER, failed=NUMBER, oldest_seconds={"type": ["number", "null"]}),
        webhooks={"type": "object"},
        polling=_object(
            enabled=BOOLEAN,
            interval_seconds={"type": "number"},
            reconcile_interval_seconds={"type": "number"},
            means={"enum": ["graphql", "rest", "anonymous"]},
            needed_per_hour={"type": "number"},
            available_per_hour={"type": ["number", "null"]},
            can_keep_promise=BOOLEAN,
            sentence=TEXT,
        ),
        discovery=_list(
            _object(
                owner=TEXT,
                repositories=NUMBER,
                looked_at=INSTANT_OR_NULL,
                next_look_at=INSTANT_OR_NULL,
                last_error=TEXT_OR_NULL,
            )
        ),
        actions=_object(configured=NUMBER, pending=NUMBER, failed=NUMBER),
        stalest={"type": ["object", "null"]},
        promises_kept=BOOLEAN,
    ),
    "Series": _object(
        since=INSTANT,
        step_seconds=NUMBER,
        freshness=_object(
            times=_list(NUMBER), stalest_seconds=_list({"type": ["number", "null"]}), unwell=_list(NUMBER)
        ),
        rates=_object(
            times=_list(NUMBER), deliveries=_list(NUMBER), runs={"type": "object", "description": "a column a trigger"}
        ),
        budget=_object(
            times=_list(NUMBER),
            requests=_list(NUMBER),
            remaining=_object(core=_list(NUMBER_OR_NULL), graphql=_list(NUMBER_OR_NULL)),
        ),
        latency=_object(times=_list({"type": "number"}), seconds=_list({"type": "number"})),
    ),
    "Branch": _object(
        name=TEXT,
        head_sha=SHA_OR_NULL,
        tree_sha=SHA_OR_NULL,
        remote_sha=SHA_OR_NULL,
        synced_at=INSTANT_OR_NULL,
        confirmed_at=INSTANT_OR_NULL,
        tree_verified=BOOLEAN_OR_NULL,
        tree_error=TEXT_OR_NULL,
        state=STATE,
        last_error=TEXT_OR_NULL,
        last_trigger=TEXT_OR_NULL,
        next_poll_at=INSTANT_OR_NULL,
    ),
    "Repository": _object(
        id=NUMBER_OR_NULL,
        full_name=TEXT,
        default_branch=TEXT_OR_NULL,
        archived=BOOLEAN,
        found_by={**TEXT_OR_NULL, "description": "the owner/* that found it; null where it is configured by name"},
        state=STATE,
        last_error=TEXT_OR_NULL,
        progress={"anyOf": [_ref("SyncProgress"), {"type": "null"}]},
        webhook={"enum": ["unknown", "healthy", "missing"]},
        missed_webhooks=NUMBER,
        webhook_reason=TEXT_OR_NULL,
        next_poll_at=INSTANT_OR_NULL,
        polled_at=INSTANT_OR_NULL,
        promised_seconds={"type": "number"},
        branches=_list(_ref("Branch")),
    ),
    "SyncProgress": _object(repository=TEXT, branch=TEXT, phase=TEXT, done=NUMBER, total=NUMBER),
    "Job": _object(
        id=NUMBER,
        repository=TEXT,
        branch=TEXT,
        state={"enum": ["idle", "pending", "running", "failed"]},
        wanted_generation=NUMBER,
        done_generation=NUMBER,
        triggers=_list(TEXT),
        attempts=NUMBER,
        run_after=INSTANT_OR_NULL,
        last_error=TEXT_OR_NULL,
    ),
    "SyncWanted": _object(id=NUMBER, state=TEXT, job=_ref("Job"), jobs=_list(_ref("Job"))),
    "Entry": {
        "type": "object",
        "properties": {
            "path": TEXT,
            "path_base64": {**TEXT, "description": "the bytes of a path that is not UTF-8; else absent"},
            "mode": {"enum": ["100644", "100755", "120000", "160000"]},
            "sha": SHA,
            "size": NUMBER_OR_NULL,
            "stored": BOOLEAN,
        },
        "required": ["path", "mode", "sha", "size", "stored"],
    },
    "Commit": _object(
        sha=SHA,
        tree_sha=SHA,
        parents=_list(SHA),
        author=_object(name=TEXT, email=TEXT, date=INSTANT),
        committed_at=INSTANT,
        message=TEXT,
    ),
    "Run": _object(
        id=NUMBER,
        repository=TEXT,
        branch=TEXT,
        trigger=TEXT,
        triggers=_list(TEXT),
        outcome={"enum": ["updated", "unchanged", "failed"]},
        before=SHA_OR_NULL,
        after=SHA_OR_NULL,
        started_at=INSTANT,
        finished_at=INSTANT,
        added=NUMBER,
        modified=NUMBER,
        removed=NUMBER,
        entity_errors=NUMBER,
        requests=NUMBER,
        attempt=NUMBER,
        error=TEXT_OR_NULL,
    ),
    "Delivery": _object(
        id=NUMBER,
        guid=TEXT_OR_NULL,
        event=TEXT,
        action=TEXT_OR_NULL,
        repository=TEXT_OR_NULL,
        ref=TEXT_OR_NULL,
        before=SHA_OR_NULL,
        after=SHA_OR_NULL,
        received_at=INSTANT,
        status={"enum": ["accepted", "ignored", "skipped"]},
        reason=TEXT_OR_NULL,
        run_id=NUMBER_OR_NULL,
        attempts=NUMBER,
    ),
}

SCHEMAS["Action"] = _object(
    action={**TEXT, "description": "a digest of its definition"},
    kind={"enum": ["command", "url", "publish"]},
    target=TEXT,
    repository=TEXT_OR_NULL,
    branch={**TEXT_OR_NULL, "description": "null while nothing changed since the action exists"},
    state={"enum": ["done", "pending", "failed"]},
    attempts={**NUMBER, "description": "that failed since the last success"},
    run_after=INSTANT_OR_NULL,
    commit_sha=SHA_OR_NULL,
    last_error=TEXT_OR_NULL,
    note=TEXT_OR_NULL,
    output=TEXT_OR_NULL,
    finished_at=INSTANT_OR_NULL,
)
SCHEMAS["Node"] = _object(
    id=TEXT,
    host=TEXT,
    pid=NUMBER,
    version=TEXT,
    started_at=INSTANT,
    heartbeat_at=INSTANT,
    alive={**BOOLEAN, "description": "heard of within 30 s"},
    this={**BOOLEAN, "description": "whether it is the one that answers"},
    config_digest={**TEXT, "description": "of repositories, actions, polling and sync"},
    same_config={**BOOLEAN, "description": "whether it is configured as the one that answers"},
    admin_url=TEXT_OR_NULL,
)
SCHEMAS["ActionsRetried"] = _object(retried={**NUMBER, "description": "branches on which an action had failed"})
_ENTITY_NAMES = _list(_object(entity_type=TEXT, entity_id=TEXT))
SCHEMAS["Change"] = _object(
    id=NUMBER,
    type={"enum": ["branch.changed"]},
    repository=TEXT,
    branch=TEXT,
    before=SHA_OR_NULL,
    after=SHA,
    added=_list(TEXT),
    modified=_list(TEXT),
    removed=_list(TEXT),
    entities=_object(added=_ENTITY_NAMES, modified=_ENTITY_NAMES, removed=_ENTITY_NAMES),
    created_at=INSTANT,
)

SCHEMAS["Hit"] = _object(
    repository=TEXT,
    branch=TEXT,
    path=TEXT,
    line={"type": "integer", "minimum": 1},
    excerpt=TEXT,
    commit_sha=SHA,
)
SCHEMAS["DeliveryEvent"] = _object(
    guid=TEXT_OR_NULL,
    event=TEXT,
    action=TEXT_OR_NULL,
    repository=TEXT_OR_NULL,
    ref=TEXT_OR_NULL,
    before=SHA_OR_NULL,
    after=SHA_OR_NULL,
    received_at=INSTANT,
    status={"enum": ["accepted", "ignored", "skipped", "duplicate"]},
    reason=TEXT_OR_NULL,
)
STARTED: dict[str, Schema] = {
    "repository": TEXT,
    "branch": TEXT,
    "trigger": TEXT_OR_NULL,
    "triggers": _list(TEXT),
    "attempt": NUMBER,
}
SCHEMAS["SyncStarted"] = _object(**STARTED)
SCHEMAS["SyncFinished"] = _object(
    **STARTED,
    outcome={"enum": ["updated", "unchanged", "failed", None], "description": "null: put off, without having failed"},
    before=SHA_OR_NULL,
    after=SHA_OR_NULL,
    error=TEXT_OR_NULL,
    added=NUMBER,
    modified=NUMBER,
    removed=NUMBER,
    started_at=INSTANT_OR_NULL,
    finished_at=INSTANT_OR_NULL,
    requests=NUMBER,
)

SCHEMAS["EntityTypes"] = _object(types=_list(_object(entity_type=TEXT, count=NUMBER)), total=NUMBER)
SCHEMAS["Entity"] = _object(
    id=NUMBER,
    entity_id=TEXT,
    entity_type=TEXT,
    label=TEXT_OR_NULL,
    description=TEXT_OR_NULL,
    data={"type": "object"},
    repository=TEXT,
    branch=TEXT,
    path=TEXT,
    commit_sha=SHA,
    stale={**BOOLEAN, "description": "its file does not parse any more: this is what it said last"},
    created_at=INSTANT,
    updated_at=INSTANT,
)
SCHEMAS["EntityVersion"] = _object(
    commit_sha=SHA, data={"type": "object"}, valid_from=INSTANT, valid_to=INSTANT_OR_NULL
)
SCHEMAS["EntityError"] = _object(
    repository=TEXT,
    branch=TEXT,
    path=TEXT,
    entity_type=TEXT,
    line=NUMBER_OR_NULL,
    column=NUMBER_OR_NULL,
    error=TEXT,
)
for _name in ("Entity", "EntityError"):
    SCHEMAS[_name]["properties"]["path_base64"] = SCHEMAS["Entry"]["properties"]["path_base64"]
SCHEMAS["OneEntity"] = SCHEMAS["Entity"] | {
    "properties": SCHEMAS["Entity"]["properties"] | {"history": _list(_ref("EntityVersion"))}
}

OWNER_AND_NAME = (
    {"name": "owner", "in": "path", "required": True, "schema": TEXT},
    {"name": "name", "in": "path", "required": True, "schema": TEXT},
)
BRANCH = {
    "name": "branch",
    "in": "query",
    "schema": TEXT,
    "description": "a tracked branch; the default one without it",
}
PREFIX = {"name": "prefix", "in": "query", "schema": TEXT, "description": "only paths that begin with it"}
FRESH = {
    "name": "fresh",
    "in": "query",
    "schema": {"enum": ["1"]},
    "description": "also ask whether every promise is kept",
}
PATH = {
    "name": "path",
    "in": "path",
    "required": True,
    "schema": TEXT,
    "description": "percent-encoded bytes, with slashes",
}
ACTION = {"name": "action", "in": "query", "schema": TEXT, "description": "only this one; all without it"}
SEARCHED = (
    {"name": "q", "in": "query", "required": True, "schema": TEXT, "description": "plain text, whatever its case"},
    {"name": "repository", "in": "query", "schema": TEXT, "description": "only this one, owner/name"},
    {"name": "path", "in": "query", "schema": TEXT, "description": "only paths that begin with it"},
)
SINCE = {
    "name": "since",
    "in": "query",
    "schema": {"type": "integer", "minimum": 0},
    "description": "the id of the last change seen; only what came after it",
}
LAST_EVENT_ID = {
    "name": "Last-Event-ID",
    "in": "header",
    "schema": {"type": "integer", "minimum": 0},
    "description": "as `since`, and before it: what an EventSource sends when it comes back",
}
ENTITY_TYPE = {"name": "type", "in": "path", "required": True, "schema": TEXT}
ENTITY_ID = {
    "name": "id",
    "in": "path",
    "required": True,
    "schema": TEXT,
    "description": "percent-encoded; slashes may stand as they are",
}
OF_REPOSITORY = {"name": "repository", "in": "query", "schema": TEXT, "description": "owner/name; all without it"}
OF_BRANCH = {"name": "branch", "in": "query", "schema": TEXT, "description": "a tracked branch; all without it"}
ABOUT = {
    "name": "q",
    "in": "query",
    "schema": TEXT,
    "description": "only what has it in its id, label or description, whatever the case",
}
HISTORY = {"name": "history", "in": "query", "schema": {"enum": ["1"]}, "description": "also what it was before"}
PAGE = (
    {"name": "cursor", "in": "query", "schema": TEXT, "description": "next_cursor of the page before"},
    {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}},
)
ABOUT_BRANCH = {
    "X-Commit-Sha": {"schema": SHA, "description": "the commit that the answer describes"},
    "X-Confirmed-At": {"schema": INSTANT, "description": "when GitHub was last seen to be at that commit"},
}

EXPLAINED = {
    301: "found under another name now",
    303: "see the login",
    304: "the blob that If-None-Match names",
    401: "the token is missing or wrong",
    403: "the host is not allowed, or the request came from another origin",
    404: "not found",
    409: "not while it is in this state",
    410: "what the cursor or the id leads to is not kept any more",
    412: "the blob is none that If-Match names",
    416: "nothing of the range exists",
    422: "a parameter is out of bounds",
    503: "not now",
}


def _json(schema: Schema) -> Schema:
    return {"application/json": {"schema": schema}}


def _operation(
    summary: str,
    content: Schema,
    *,
    parameters: tuple[Schema, ...] = (),
    errors: tuple[int, ...] = (),
    status: int = 200,
    headers: Schema | None = None,
    security: bool = True,
) -> Schema:
    told: Schema = {
        str(status): {"description": "done", "content": content} | ({"headers": headers} if headers else {})
    }
    for code in sorted({*errors, 403, *((401,) if security else ())}):
        told[str(code)] = {"description": EXPLAINED[code]} | (
            {"content": _json(_ref("Error"))} if code not in (303, 304) else {}
        )
    operation: Schema = {"summary": summary, "parameters": list(parameters), "responses": told}
    return operation if security else operation | {"security": []}


def _page(
    summary: str,
    of: str,
    *parameters: Schema,
    errors: tuple[int, ...] = (),
    headers: Schema | None = None,
    sometimes: Schema | None = None,
) -> Schema:
    page = _object(items=_list(_ref(of)), next_cursor=TEXT_OR_NULL, has_next=BOOLEAN)
    page["properties"] |= sometimes or {}
    return _operation(summary, _json(page), parameters=(*parameters, *PAGE), errors=(422, *errors), headers=headers)


ANY_BYTES: Schema = {"text/plain": {"schema": TEXT}, "application/octet-stream": {"schema": {"format": "binary"}}}

PATHS: dict[str, dict[str, Schema]] = {
    "/": {
        "get": _operation(
            "the dashboard; a browser (one that accepts text/html) without a session is led to /login",
            {"text/html": {"schema": TEXT}},
            errors=(303,),
        )
    },
    "/healthz": {"get": _operation("the process lives", _json(_ref("Health")), security=False)},
    "/readyz": {
        "get": _operation(
            "it can store, and its scheduler and workers live",
            _json(_ref("Ready")),
            parameters=(FRESH,),
            errors=(503,),
            security=False,
        )
    },
    "/metrics": {"get": _operation("Prometheus metrics", {"text/plain": {"schema": TEXT}})},
    "/api/v1/openapi.json": {"get": _operation("this description", _json({"type": "object"}))},
    "/api/v1/status": {"get": _operation("the daemon as a whole", _json(_ref("Status")), errors=(503,))},
    "/api/v1/series": {
        "get": _operation(
            "the last day by the minute, in columns for plots; freshness and budget since the start of the daemon",
            _json(_ref("Series")),
        )
    },
    "/api/v1/repositories": {"get": _page("tracked repositories by name", "Repository")},
    "/api/v1/repositories/{owner}/{name}": {
        "get": _operation("one repository", _json(_ref("Repository")), parameters=OWNER_AND_NAME, errors=(301, 404))
    },
    "/api/v1/repositories/{owner}/{name}/sync": {
        "post": _operation(
            "sync now; without a branch all tracked ones",
            _json(_ref("SyncWanted")),
            parameters=(*OWNER_AND_NAME, BRANCH),
            errors=(404, 409, 503),
            status=202,
        )
    },
    "/api/v1/repositories/{owner}/{name}/prune": {
        "post": _operation(
            "remove what is stored of a repository that is gone or not tracked any more",
            _json(_object(pruned=TEXT)),
            parameters=OWNER_AND_NAME,
            errors=(404, 409),
            status=202,
        )
    },
    "/api/v1/repositories/{owner}/{name}/webhook": {
        "post": _operation(
            "its webhook was changed on GitHub: forget what was told of it, and look soon",
            _json(_object(repository=TEXT)),
            parameters=OWNER_AND_NAME,
            errors=(404,),
            status=202,
        )
    },
    "/api/v1/repositories/{owner}/{name}/files": {
        "get": _page(
            "entries of one snapshot by path, the same snapshot on every page",
            "Entry",
            *OWNER_AND_NAME,
            BRANCH,
            PREFIX,
            errors=(404, 410),
            headers=ABOUT_BRANCH,
        )
    },
    "/api/v1/repositories/{owner}/{name}/raw/{path}": {
        "get": _operation(
            "the bytes of a file, or a symlink's target; conditional and range requests",
            ANY_BYTES,
            parameters=(*OWNER_AND_NAME, PATH, BRANCH),
            errors=(304, 404, 412, 416),
            headers=ABOUT_BRANCH | {"ETag": {"schema": TEXT, "description": "the blob id"}},
        )
    },
    "/api/v1/repositories/{owner}/{name}/commits": {
        "get": _page("newest first", "Commit", *OWNER_AND_NAME, BRANCH, errors=(404,), headers=ABOUT_BRANCH)
    },
    "/api/v1/repositories/{owner}/{name}/runs": {
        "get": _page("runs of one repository, newest first", "Run", *OWNER_AND_NAME, errors=(404,))
    },
    "/api/v1/entities": {
        "get": _operation(
            "the types of entities, and how many there are of each",
            _json(_ref("EntityTypes")),
            parameters=(OF_REPOSITORY, OF_BRANCH),
            errors=(404,),
            headers=ABOUT_BRANCH,
        )
    },
    "/api/v1/entities/{type}": {
        "get": _page(
            "entities by entity_id, with the `commit_sha` of the list when one branch is asked; a page ends early "
            "where its data is large",
            "Entity",
            ENTITY_TYPE,
            OF_REPOSITORY,
            OF_BRANCH,
            ABOUT,
            errors=(404,),
            headers=ABOUT_BRANCH,
            sometimes={"commit_sha": SHA_OR_NULL},
        )
    },
    "/api/v1/entities/{type}/{id}": {
        "get": _operation(
            "one entity; of a default branch first, where several have it",
            _json(_ref("OneEntity")),
            parameters=(ENTITY_TYPE, ENTITY_ID, OF_REPOSITORY, OF_BRANCH, HISTORY),
            errors=(404,),
            headers=ABOUT_BRANCH,
        )
    },
    "/api/v1/entity-errors": {
        "get": _page(
            "files that a collection takes and that are no entity, and why",
            "EntityError",
            OF_REPOSITORY,
            OF_BRANCH,
            errors=(404,),
            headers=ABOUT_BRANCH,
            sometimes={"commit_sha": SHA_OR_NULL},
        )
    },
    "/api/v1/runs": {"get": _page("runs, newest first", "Run")},
    "/api/v1/nodes": {"get": _page("the daemons that share the store, the oldest first", "Node")},
    "/api/v1/actions": {"get": _page("actions by branch, with what became of them", "Action")},
    "/api/v1/actions/retry": {
        "post": _operation(
            "try failed actions again at once",
            _json(_ref("ActionsRetried")),
            parameters=(ACTION,),
            errors=(404,),
            status=202,
        )
    },
    "/api/v1/deliveries": {"get": _page("verified deliveries, newest first", "Delivery")},
    "/api/v1/search": {
        "get": _page(
            "files whose text holds q, by repository, branch and path, with the first place in each; a page may be "
            "short, even empty, and have a next one, when many files had to be looked at",
            "Hit",
            *SEARCHED,
            errors=(404,),
        )
    },
    "/api/v1/changes": {
        "get": _page("the change feed, oldest first; from the oldest kept", "Change", SINCE, errors=(410,))
    },
    "/api/v1/events": {
        "get": _operation(
            "the change feed as server-sent events, from now on: `branch.changed` with the id and data of a Change; "
            "between them, unnumbered, `delivery` (DeliveryEvent), `sync.started` and `sync.finished` (SyncStarted, "
            "SyncFinished)",
            {"text/event-stream": {"schema": TEXT}},
            parameters=(SINCE, LAST_EVENT_ID),
            errors=(410, 422, 503),
        )
    },
}


def document() -> Schema:
    """The whole description, OpenAPI 3.1."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "headwater", "version": __version__},
        "paths": PATHS,
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"bearer": []}, {}],
    }
