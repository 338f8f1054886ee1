"""`/api/v1/openapi.json` describes every route exactly: each is asked for real, and its answer held against it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest
import requests
from events import Stream
from harness import Daemon

from daemon.demo.standin import StandIn
from daemon.demo.standin.gitrepo import GitRepo

KINDS: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "null": lambda value: value is None,
}
KEYWORDS = (
    *("description", "default"),
    *("type", "enum", "pattern", "format", "minimum", "maximum"),
    *("properties", "required", "items", "additionalProperties", "$ref", "anyOf", "oneOf"),
)
SEGMENTS = {"owner": "octo", "name": "data", "path": "docs/page.md", "type": "thing", "id": "a?history=1&x="}
COLLECTIONS = '[[repositories.collections]]\ntype = "thing"\nfiles = "things/*"'


class Description:
    """The part of JSON Schema and OpenAPI that the description uses; a keyword that it does not know is an error."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self.schemas = document["components"]["schemas"]

    def problems(self, value: Any, schema: dict[str, Any], at: str = "") -> Iterator[str]:
        assert set(schema) <= set(KEYWORDS), schema
        if "$ref" in schema:
            schema = self.schemas[schema["$ref"].rpartition("/")[2]]
        if any(word in schema for word in ("anyOf", "oneOf")):
            choices = schema.get("anyOf") or schema["oneOf"]
            if all(any(self.problems(value, choice)) for choice in choices):
                yield f"{at}: {value!r} is none of the choices"
        kinds = schema.get("type", [])
        kinds = [kinds] if isinstance(kinds, str) else kinds
        if kinds and not any(KINDS[kind](value) for kind in kinds):
            yield f"{at}: {value!r} is not {kinds}"
            return
        if "enum" in schema and value not in schema["enum"]:
            yield f"{at}: {value!r} is not one of {schema['enum']}"
        if isinstance(value, str):
            yield from self._text_problems(value, schema, at)
        if isinstance(value, dict) and "properties" in schema:
            yield from self._object_problems(value, schema, at)
        if isinstance(value, list) and "items" in schema:
            for number, item in enumerate(value):
                yield from self.problems(item, schema["items"], f"{at}[{number}]")

    def _text_problems(self, value: str, schema: dict[str, Any], at: str) -> Iterator[str]:
        if "pattern" in schema and not re.search(schema["pattern"], value):
            yield f"{at}: {value!r} does not match {schema['pattern']}"
        if schema.get("format") == "date-time" and datetime.fromisoformat(value).tzinfo is None:
            yield f"{at}: {value!r} has no time zone"

    def _object_problems(self, value: dict[str, Any], schema: dict[str, Any], at: str) -> Iterator[str]:
        for name in schema.get("required", []):
            if name not in value:
                yield f"{at}.{name} is missing"
        for name, item in value.items():
            if name in schema["properties"]:
                yield from self.problems(item, schema["properties"][name], f"{at}.{name}")
            elif not schema.get("additionalProperties"):
                yield f"{at}.{name} is not described"

    def check(self, template: str, method: str, answer: requests.Response) -> None:
        """Status, media type, headers and body of an answer are among those described for its route."""
        told = self.document["paths"][template][method]["responses"]
        where = f"{method} {answer.url} -> {answer.status_code}"
        assert str(answer.status_code) in told, f"{where}: {answer.text[:200]}"
        response = told[str(answer.status_code)]
        for name in response.get("headers", {}):
            assert name in answer.headers, f"{where}: {name}"
        if "content" not in response:
            assert answer.content == b"", where
            return
        media = answer.headers["Content-Type"].partition(";")[0]
        assert media in response["content"], where
        if media == "application/json":
            assert list(self.problems(answer.json(), response["content"][media]["schema"])) == [], where


def filled(template: str, **segments: str) -> str:
    """A path to ask for; a segment that nobody knows a value for is called ``nothing``."""
    return re.sub(r"\{(\w+)\}", lambda found: ({**SEGMENTS, **segments}).get(found[1], "nothing"), template)


@pytest.fixture
def daemon(github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon]) -> Daemon:
    """A daemon with a bit of everything in its store: runs, a delivery, odd paths, a failed repository."""
    daemon = make_daemon(repositories=("octo/data", "octo/absent"), extra=COLLECTIONS).start()
    daemon.wait_head(repo.head())
    github.hook("octo/data", daemon.webhook_url, daemon.secret)
    before = repo.head()
    things = {
        b"things/a.json": b'{"x": 1}',
        b"things/\xe9.json": b"[",
        b"things/b.yaml": b'a: "\n',
        b"things/\xe8.json": b"{}",
    }
    after = repo.commit(
        {b"caf\xe9.txt": b"latin\n", "empty": b"", "docs/page.md": b"another\n", "docs/index.md": None, **things}
    )
    github.push("octo/data", "main", before, after)
    github.ping("octo/data")
    daemon.wait_head(after)
    return daemon


def test_every_route_answers_as_it_is_described(daemon: Daemon) -> None:
    description = Description(daemon.get("/api/v1/openapi.json").json())
    walked = 0
    for template, methods in description.document["paths"].items():
        for method in methods:
            call = getattr(daemon.session, method)
            for query in ("", "?limit=1", "?limit=0", "?cursor=x", "?branch=nothing", "?since=9", "?q=page"):
                with call(daemon.admin_url + filled(template) + query, timeout=10, stream=True) as answer:
                    if answer.headers["Content-Type"].startswith("text/event-stream"):
                        description.check(template, method, answer)
                        continue
                    assert answer.content is not None
                    description.check(template, method, answer)
                walked += 1
    assert walked > 50


def test_what_is_refused_is_described_too(daemon: Daemon) -> None:
    description = Description(daemon.get("/api/v1/openapi.json").json())
    for template, methods in description.document["paths"].items():
        for method in methods:
            for headers in (
                {"Host": "evil.example"},
                {"Range": "bytes=999999-", "Origin": "http://evil.example"},
                {"If-None-Match": "*"},
                {"Last-Event-ID": "x"},
            ):
                with daemon.session.request(
                    method, daemon.admin_url + filled(template, name="absent"), headers=headers, timeout=10, stream=True
                ) as answer:
                    if answer.headers["Content-Type"].startswith("text/event-stream"):
                        continue
                    description.check(template, method, answer)


def test_lists_are_not_empty_where_there_is_something_to_describe(daemon: Daemon) -> None:
    for path in (
        "repositories",
        "runs",
        "deliveries",
        "changes",
        "entities/thing",
        "entity-errors",
        "repositories/octo/data/files",
    ):
        assert daemon.get(f"/api/v1/{path}").json()["items"], path


def test_the_data_of_each_kind_of_event_is_described(github: StandIn, repo: GitRepo, daemon: Daemon) -> None:
    description = Description(daemon.get("/api/v1/openapi.json").json())
    schemas = {
        "branch.changed": "Change",
        "delivery": "DeliveryEvent",
        "sync.started": "SyncStarted",
        "sync.finished": "SyncFinished",
    }
    told = set()
    with Stream(daemon.admin_url) as stream:
        events = iter(stream)
        while told != set(schemas):  # a stream that has just been opened is told of what comes after that
            before = repo.head()
            after = repo.commit({"told": str(before).encode()})
            github.push("octo/data", "main", before, after)
            for event in events:
                schema = description.schemas[schemas[event.name]]
                assert list(description.problems(event.data, schema)) == []
                told.add(event.name)
                if event.name == "branch.changed" and event.data["after"] == after:
                    break  # the one that no stream misses
