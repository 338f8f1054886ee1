from __future__ import annotations

import json
from typing import Any

import pytest
from graphql import parse
from graphql.language.ast import FieldNode, OperationDefinitionNode, StringValueNode
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon import errors
from daemon.github import queries
from daemon.github.protocol import Overloaded
from daemon.model import HeadsQuery, RemoteRepository, RepositoryHeads, RepositoryRef

A, B = "a" * 40, "b" * 40


def query(name: str = "o/r", *branches: str, github_id: int | None = None) -> HeadsQuery:
    owner, _, bare = name.partition("/")
    return HeadsQuery(RepositoryRef(owner, bare, github_id), branches)


def body(**changes: Any) -> dict[str, Any]:
    default = {"name": "main", "target": {"oid": A}}
    facts = {"databaseId": 7, "nameWithOwner": "o/r", "isArchived": False, "isPrivate": True}
    return facts | {"defaultBranchRef": default} | changes


def error(kind: str, *path: object) -> dict[str, Any]:
    return {"type": kind, "path": list(path), "message": "said"}


def read(data: Any, *errors_: dict[str, Any], of: HeadsQuery | None = None) -> RepositoryHeads:
    value = {"data": data} | ({"errors": list(errors_)} if errors_ else {})
    return queries.read_heads(value, [of or query()])[0]


@settings(deadline=None)  # a busy machine is no finding
@given(st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"])))
def test_names_of_any_characters_cannot_leave_their_string(owner: str, branch: str) -> None:
    text = json.loads(queries.heads_body([HeadsQuery(RepositoryRef(owner, "r"), (branch,))]))["query"]
    definition = parse(text).definitions[0]
    assert isinstance(definition, OperationDefinitionNode)
    (field,) = definition.selection_set.selections
    assert isinstance(field, FieldNode)
    assert isinstance(field.arguments[0].value, StringValueNode)
    assert field.arguments[0].value.value == owner
    ref = field.selection_set.selections[-1]
    assert ref.arguments[0].value.value == f"refs/heads/{branch}"


def test_a_repository_comes_with_its_default_branch_and_the_branches_asked_for() -> None:
    got = read({"r0": body(b0={"target": {"oid": B}}, b1=None)}, of=query("o/r", "dev", "gone"))
    assert got.repository == RemoteRepository(7, "o", "r", "main", archived=False, private=True)
    assert got.heads == {"main": A, "dev": B, "gone": None}
    assert got.error is None


def test_a_renamed_repository_comes_under_its_new_name() -> None:
    got = read({"r0": body(nameWithOwner="new/name")}, of=query("o/r", github_id=7))
    assert got.repository is not None
    assert (got.repository.owner, got.repository.name) == ("new", "name")


def test_another_id_under_the_name_is_a_replaced_repository() -> None:
    got = read({"r0": body()}, of=query("o/r", github_id=8))
    assert isinstance(got.error, errors.RepositoryReplaced)


def test_an_empty_repository_has_no_default_branch() -> None:
    got = read({"r0": body(defaultBranchRef=None, b0=None)}, of=query("o/r", "main"))
    assert got.repository is not None
    assert got.repository.default_branch is None
    assert got.heads == {"main": None}


@pytest.mark.parametrize("data", [{}, {"r1": None}])
def test_an_alias_that_is_absent_is_unknown_and_never_deleted(data: dict[str, Any]) -> None:
    assert isinstance(read(data).error, errors.BadAnswer)
    assert isinstance(read(data, error("NOT_FOUND", "r0")).error, errors.BadAnswer)


def test_null_without_a_reason_is_unknown_too() -> None:
    assert isinstance(read({"r0": None}).error, errors.BadAnswer)
    assert isinstance(read({"r0": None}, error("NOT_FOUND", "r1")).error, errors.BadAnswer)
    assert isinstance(read({"r0": None}, error("SERVICE_UNAVAILABLE", "r0")).error, errors.BadAnswer)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("NOT_FOUND", errors.RepositoryNotFound),
        ("FORBIDDEN", errors.Forbidden),
        ("INSUFFICIENT_SCOPES", errors.Forbidden),
    ],
)
def test_null_with_a_reason_is_that_error(kind: str, expected: type[Exception]) -> None:
    assert isinstance(read({"r0": None}, error(kind, "r0")).error, expected)


def test_a_branch_whose_alias_is_absent_or_broken_is_unknown_and_not_gone() -> None:
    got = read(
        {"r0": body(b0=None)},
        error("SERVICE_UNAVAILABLE", "r0", "b0"),
        error("X", "r0", ["list"]),
        of=query("o/r", "dev", "left-out"),
    )
    assert got.heads == {"main": A}
    assert got.error is None


@pytest.mark.parametrize(
    "broken",
    [
        "text",
        [],
        {},
        body(databaseId="7"),
        body(databaseId=True),
        body(databaseId=2**63),
        body(databaseId=-1),
        body(nameWithOwner="noslash"),
        body(nameWithOwner="a/b/c"),
        body(nameWithOwner=None),
        body(defaultBranchRef={"name": "main", "target": None}),
        body(defaultBranchRef={"name": "", "target": {"oid": A}}),
        body(defaultBranchRef={"name": "main", "target": {"oid": A[:39]}}),
        body(defaultBranchRef=7),
        body(b0={"target": {"oid": "HEAD"}}),
        body(b0=[]),
        {key: value for key, value in body().items() if key != "defaultBranchRef"},
    ],
)
def test_a_wrong_shape_costs_its_own_repository_only(broken: Any) -> None:
    value = {"data": {"r0": broken, "r1": body()}}
    first, second = queries.read_heads(value, [query("o/r", "dev"), query()])
    assert isinstance(first.error, errors.BadAnswer)
    assert second.heads == {"main": A}


def test_a_default_branch_that_came_with_an_error_is_unknown() -> None:
    got = read({"r0": body(defaultBranchRef=None)}, error("SERVICE_UNAVAILABLE", "r0", "defaultBranchRef"))
    assert isinstance(got.error, errors.BadAnswer)


@pytest.mark.parametrize(
    "value",
    [
        {
            "errors": [
                {"message": "Something went wrong while executing your query. This may be the result of a timeout"}
            ]
        },
        {"data": None, "errors": [{"type": "RESOURCE_LIMITS_EXCEEDED", "message": "x"}]},
        {"data": None, "errors": [{"extensions": {"code": "MAX_NODE_LIMIT_EXCEEDED"}, "message": "x"}]},
    ],
)
def test_a_query_that_was_too_much_may_be_asked_in_parts(value: Any) -> None:
    with pytest.raises(Overloaded):
        queries.read_heads(value, [query()])


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        "text",
        {},
        {"data": []},
        {"message": "Not Found"},
        {"errors": "no list"},
        {"errors": [None, 7]},
        {"errors": [{"message": "Field 'isArchived' doesn't exist on type 'Repository'"}]},
    ],
)
def test_an_answer_without_data_means_that_graphql_cannot_be_used(value: Any) -> None:
    with pytest.raises(errors.GraphQLUnavailable):
        queries.read_heads(value, [query()])


def test_a_limit_is_an_error_of_that_type_whatever_else_is_there() -> None:
    assert queries.is_limited({"data": {"r0": body()}, "errors": [{"type": "RATE_LIMITED", "message": "x"}]})
    assert not queries.is_limited({"errors": [{"type": ["RATE_LIMITED"]}, "RATE_LIMITED"]})
    assert not queries.is_limited(None)


def listed(*names: str, more: bool = False) -> dict[str, Any]:
    nodes = [{"name": name, "target": {"oid": B}} for name in names]
    return {"nodes": nodes, "pageInfo": {"hasNextPage": more}}


EVERY = HeadsQuery(RepositoryRef("o", "r"), ("dev",), every=True)


def test_all_branches_are_asked_for_in_one_list_instead_of_one_by_one() -> None:
    text = json.loads(queries.heads_body([EVERY]))["query"]
    parse(text)
    assert 'refs(refPrefix: "refs/heads/", first: 100)' in text
    assert "qualifiedName" not in text


def test_a_list_of_branches_says_whether_it_is_whole() -> None:
    got = read({"r0": body(refs=listed("dev", "x/1"))}, of=EVERY)
    assert (got.heads, got.complete) == ({"main": A, "dev": B, "x/1": B}, True)
    assert not read({"r0": body(refs=listed("dev", more=True))}, of=EVERY).complete
    assert not read({"r0": body(refs=listed("dev") | {"pageInfo": {}})}, of=EVERY).complete


@pytest.mark.parametrize(
    "refs", [{}, {"refs": None}, {"refs": {"nodes": [None], "pageInfo": {}}}, {"refs": {"nodes": {}, "pageInfo": {}}}]
)
def test_a_list_that_is_left_out_or_broken_is_unknown_and_not_empty(refs: dict[str, Any]) -> None:
    assert isinstance(read({"r0": body(**refs)}, of=EVERY).error, errors.BadAnswer)


def test_a_list_that_came_with_an_error_is_unknown() -> None:
    error = {"path": ["r0", "refs", "nodes", 0, "target"], "message": "no"}
    assert isinstance(read({"r0": body(refs=listed("dev"))}, error, of=EVERY).error, errors.BadAnswer)


def test_a_hundred_lists_of_branches_fit_into_one_request() -> None:
    assert [len(batch) for batch in queries.batches([EVERY] * 150)] == [100, 50]


def test_batches_keep_the_order_and_no_request_asks_too_much() -> None:
    many = [query(f"o/r{i}", *(f"b{j}" for j in range(i % 7))) for i in range(250)] + [
        query("o/huge", *(f"b{j}" for j in range(2000))),
        query("o/last"),
    ]
    cut = queries.batches(many)
    assert [one for batch in cut for one in batch] == many
    assert all(len(batch) <= 100 for batch in cut)
    assert all(len(batch) == 1 or sum(1 + len(one.branches) for one in batch) <= 500 for batch in cut)
    assert queries.batches([]) == []
