"""FAULTS F7, F9: some hundred requests that the API's own description allows, or forbids, get answers that it describes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import requests
import schemathesis
from harness import Daemon
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import InvalidArgument, Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks

from daemon.demo.standin.gitrepo import GitRepo

EXAMPLES = 8  # requests made of each kind for each operation
KNOWN = {"owner": "octo", "name": "data"}  # or nearly all would be 404
ENDLESS = "/api/v1/events"
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]


def operations(daemon: Daemon) -> list[Any]:
    """Every described operation but the stream, which does not end."""
    schema = schemathesis.openapi.from_dict(daemon.get("/api/v1/openapi.json").json())
    found = [result.ok() for result in schema.get_all_operations()]
    return [one for one in found if one.path != ENDLESS]


def problems(daemon: Daemon, operation: Any, mode: GenerationMode, seen: Counter[int]) -> list[str]:
    """What is answered otherwise than described, or with a 5xx, of requests that are as described or just not."""

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(mode, path_parameters=KNOWN if "{owner}" in operation.path else None))
    def ask(case: Any) -> None:
        with suppress(requests.exceptions.InvalidHeader, requests.exceptions.InvalidURL):  # cannot even be sent
            answer = case.call(base_url=daemon.admin_url, session=daemon.session, timeout=10)
            seen[answer.status_code] += 1
            case.validate_response(answer, checks=CHECKS)

    try:
        with suppress(Unsatisfiable, InvalidArgument):  # nothing can be said that is not described
            ask()
    except FailureGroup as group:
        return [f"{operation.label}: {group}"]
    return []


@pytest.mark.timeout(180)
def test_what_is_asked_as_described_or_not_is_answered_as_described(
    repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    daemon = make_daemon().start()
    daemon.wait_head(repo.head())
    seen: Counter[int] = Counter()
    found = [
        problem
        for operation in operations(daemon)
        for mode in GenerationMode
        for problem in problems(daemon, operation, mode, seen)
    ]
    assert found == []
    assert seen.total() > 100
    assert {200, 404, 422} <= set(seen)
    assert "Traceback" not in daemon.log.read_text(encoding="utf-8", errors="replace")
