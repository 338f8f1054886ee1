"""The description of the admin API, held by hand beside the routes; a test walks both ways between them."""

from __future__ import annotations

from typing import Any

from daemon import __version__

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
        queue=_object(pending=NUMBER, running=NUMBER, failed=NUMBER, oldest_seconds={"type": ["number", "null"]}),
        webhooks={"type": "object"},
        polling={"type": "object"},
        stalest={"type": ["object", "null"]},
        promises_kept=BOOLEAN,
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
        state=STATE,
        last_error=TEXT_OR_NULL,
        webhook={"enum": ["unknown", "healthy", "missing"]},
        missed_webhooks=NUMBER,
        next_poll_at=INSTANT_OR_NULL,
        polled_at=INSTANT_OR_NULL,
        promised_seconds={"type": "number"},
        branches=_list(_ref("Branch")),
    ),
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
    304: "the blob that If-None-Match names",
    401: "the token is missing or wrong",
    403: "the host is not allowed, or the request came from another origin",
    404: "not found",
    410: "the snapshot of the cursor has been replaced",
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
        told[str(code)] = {"description": EXPLAINED[code]} | ({"content": _json(_ref("Error"))} if code != 304 else {})  # noqa: PLR2004
    operation: Schema = {"summary": summary, "parameters": list(parameters), "responses": told}
    return operation if security else operation | {"security": []}


def _page(
    summary: str, of: str, *parameters: Schema, errors: tuple[int, ...] = (), headers: Schema | None = None
) -> Schema:
    page = _object(items=_list(_ref(of)), next_cursor=TEXT_OR_NULL, has_next=BOOLEAN)
    return _operation(summary, _json(page), parameters=(*parameters, *PAGE), errors=(422, *errors), headers=headers)


ANY_BYTES: Schema = {"text/plain": {"schema": TEXT}, "application/octet-stream": {"schema": {"format": "binary"}}}

PATHS: dict[str, dict[str, Schema]] = {
    "/": {"get": _operation("a page of links", {"text/html": {"schema": TEXT}})},
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
    "/api/v1/repositories": {"get": _page("tracked repositories by name", "Repository")},
    "/api/v1/repositories/{owner}/{name}": {
        "get": _operation("one repository", _json(_ref("Repository")), parameters=OWNER_AND_NAME, errors=(301, 404))
    },
    "/api/v1/repositories/{owner}/{name}/sync": {
        "post": _operation(
            "sync now; without a branch all tracked ones",
            _json(_ref("SyncWanted")),
            parameters=(*OWNER_AND_NAME, BRANCH),
            errors=(404, 503),
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
            errors=(304, 404, 416),
            headers=ABOUT_BRANCH | {"ETag": {"schema": TEXT, "description": "the blob id"}},
        )
    },
    "/api/v1/repositories/{owner}/{name}/commits": {
        "get": _page("newest first", "Commit", *OWNER_AND_NAME, BRANCH, errors=(404,), headers=ABOUT_BRANCH)
    },
    "/api/v1/repositories/{owner}/{name}/runs": {
        "get": _page("runs of one repository, newest first", "Run", *OWNER_AND_NAME, errors=(404,))
    },
    "/api/v1/runs": {"get": _page("runs, newest first", "Run")},
    "/api/v1/deliveries": {"get": _page("verified deliveries, newest first", "Delivery")},
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
