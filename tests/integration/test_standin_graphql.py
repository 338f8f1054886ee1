"""The stand-in's GraphQL API: what a reader of heads asks, with graphql-core as the oracle of the language."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import graphql
import pytest
import requests
from harness import TOKEN

from daemon.demo.standin import GitRepo, StandIn
from daemon.demo.standin.graphqlparser import Document, Field, Fragment, Spread, SyntaxProblem, Variable, parse

Ask = Callable[..., dict[str, Any]]


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        session.headers["Authorization"] = f"Bearer {TOKEN}"
        yield session


@pytest.fixture
def ask(session: requests.Session, github: StandIn) -> Ask:
    def ask(query: str, *, path: str = "/graphql", **variables: Any) -> dict[str, Any]:
        body = {"query": query, "variables": variables}
        answer = session.post(github.url + path, json=body, timeout=10)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    return ask


FACTS = "databaseId nameWithOwner isArchived isPrivate isEmpty isDisabled defaultBranchRef { name target { oid } }"


def test_many_aliases_are_answered_in_one_request_of_one_point(ask: Ask, github: StandIn, tmp_path: Path) -> None:
    repos = [GitRepo.init(tmp_path / f"{number}.git") for number in range(30)]
    for number, repo in enumerate(repos):
        repo.commit({"a": str(number)})
        github.add(f"octo/r{number}", repo.path, archived=number == 1, private=number == 2)
    fields = " ".join(f'r{n}: repository(owner: "octo", name: "r{n}") {{ {FACTS} }}' for n in range(30))
    data = ask(f"query {{ {fields} rateLimit {{ cost remaining limit used resetAt }} viewer {{ login }} }}")["data"]
    for number, repo in enumerate(repos):
        served = github.repository(f"octo/r{number}")
        assert data[f"r{number}"] == {
            "databaseId": served.id,
            "nameWithOwner": f"octo/r{number}",
            "isArchived": number == 1,
            "isPrivate": number == 2,
            "isEmpty": False,
            "isDisabled": False,
            "defaultBranchRef": {"name": "main", "target": {"oid": repo.head()}},
        }
    assert data["rateLimit"].pop("resetAt").endswith("Z")
    assert data["rateLimit"] == {"cost": 1, "remaining": 4999, "limit": 5000, "used": 1}
    assert data["viewer"] == {"login": "octocat"}
    assert len(github.requests) == 1


def test_a_missing_repository_is_null_with_an_error_of_its_alias(ask: Ask, repo: GitRepo) -> None:
    answer = ask(
        '{ a: repository(owner: "octo", name: "data") { databaseId }\n b: repository(owner: "x", name: "y") { id } }'
    )
    assert answer["data"]["b"] is None
    assert answer["data"]["a"] is not None
    assert answer["errors"] == [
        {
            "type": "NOT_FOUND",
            "path": ["b"],
            "locations": [{"line": 2, "column": 2}],
            "message": "Could not resolve to a Repository with the name 'x/y'.",
        }
    ]


def test_an_empty_repository_has_no_default_branch_and_a_missing_ref_is_null(
    ask: Ask, repo: GitRepo, github: StandIn, tmp_path: Path
) -> None:
    github.add("octo/empty", GitRepo.init(tmp_path / "empty.git").path)
    empty = ask('{ repository(owner: "octo", name: "empty") { isEmpty defaultBranchRef { name } } }')
    assert empty == {"data": {"repository": {"isEmpty": True, "defaultBranchRef": None}}}
    missing = ask('{ repository(owner: "octo", name: "data") { a: ref(qualifiedName: "refs/heads/no") { name } } }')
    assert missing == {"data": {"repository": {"a": None}}}


def test_a_former_name_is_followed_unless_it_must_not_be(ask: Ask, repo: GitRepo, github: StandIn) -> None:
    github.rename("octo/data", "new/name")
    query = (
        'query($follow: Boolean!) { repository(owner: "octo", name: "data", followRenames: $follow) { nameWithOwner } }'
    )
    assert ask(query, follow=True)["data"]["repository"] == {"nameWithOwner": "new/name"}
    assert ask(query, follow=False)["errors"][0]["type"] == "NOT_FOUND"


def test_refs_are_asked_by_name_variable_and_fragment(ask: Ask, repo: GitRepo) -> None:
    head = repo.head() or ""
    repo.reset('q"uote/\u00fc', head)
    repo.tag("v1", head)
    answer = ask(
        """
        query Heads($name: String!, $owner: String = "octo") {  # a comment, with } and "
          repository(owner: $owner, name: $name) {
            ...refs
            odd: ref(qualifiedName: "refs/heads/q\\"uote/\\u00fc") { name prefix target { oid } }
            tag: ref(qualifiedName: "refs/tags/v1") { name target { ... on Tag { oid } ... on Commit { oid } } }
          }
        }
        fragment refs on Repository {
          main: ref(qualifiedName: "main") { name target { __typename oid ... on Commit { tree { oid } committedDate } } }
        }
        """,
        name="data",
    )
    found = answer["data"]["repository"]
    assert found["main"]["target"] == {
        "__typename": "Commit",
        "oid": head,
        "tree": {"oid": repo.tree_sha()},
        "committedDate": "2024-01-01T00:01:00Z",
    }
    assert found["odd"] == {"name": 'q"uote/\u00fc', "prefix": "refs/heads/", "target": {"oid": head}}
    assert found["tag"] == {"name": "v1", "target": {"oid": head}}


def test_refs_come_in_pages_of_at_most_a_hundred(ask: Ask, repo: GitRepo, session: requests.Session) -> None:
    head = repo.head() or ""
    for number in range(120):
        repo.reset(f"b/{number:03}", head)
    query = """query($after: String) { repository(owner: "octo", name: "data") {
        refs(refPrefix: "refs/heads/", first: 100, after: $after) {
            totalCount nodes { name target { oid } } pageInfo { hasNextPage endCursor } } } }"""
    names, after, pages = [], None, 0
    while pages < 5:
        refs = ask(query, after=after)["data"]["repository"]["refs"]
        names += [node["name"] for node in refs["nodes"]]
        pages += 1
        after = refs["pageInfo"]["endCursor"]
        if not refs["pageInfo"]["hasNextPage"]:
            break
    assert (names, pages, refs["totalCount"]) == (list(repo.branches()), 2, 121)
    below = ask(
        '{ repository(owner: "octo", name: "data") { refs(refPrefix: "refs/heads/b/", first: 1) { nodes { name } } } }'
    )
    assert below["data"]["repository"]["refs"]["nodes"] == [{"name": "000"}]


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ('refPrefix: "refs/heads/"', "MISSING_PAGINATION_BOUNDARIES"),
        ('refPrefix: "refs/heads/", first: 101', "EXCESSIVE_PAGINATION"),
        ('refPrefix: "refs/heads/", first: 1, after: "nonsense"', "INVALID_CURSOR_ARGUMENTS"),
    ],
)
def test_pages_that_cannot_be_are_errors(ask: Ask, repo: GitRepo, arguments: str, kind: str) -> None:
    answer = ask(f'{{ repository(owner: "octo", name: "data") {{ refs({arguments}) {{ totalCount }} }} }}')
    assert answer["errors"][0]["type"] == kind
    assert answer["errors"][0]["path"] == ["repository", "refs"]


def test_an_object_is_found_by_id_or_expression(ask: Ask, repo: GitRepo) -> None:
    blob = repo.ls_tree()[0]
    query = (
        'query($e: String) { repository(owner: "octo", name: "data") { object(expression: $e) { __typename oid } } }'
    )
    assert ask(query, e="main:README.md")["data"]["repository"]["object"] == {"__typename": "Blob", "oid": blob.sha}
    assert ask(query, e="HEAD")["data"]["repository"]["object"] == {"__typename": "Commit", "oid": repo.head()}
    for nothing in ("main:nope", "nope", "main:\0", "\0"):
        assert ask(query, e=nothing)["data"]["repository"]["object"] is None
    by_id = ask(
        f'{{ repository(owner: "octo", name: "data") {{ object(oid: "{repo.tree_sha()}") {{ __typename }} }} }}'
    )
    assert by_id["data"]["repository"]["object"] == {"__typename": "Tree"}


def test_a_field_that_does_not_exist_leaves_no_data(ask: Ask, repo: GitRepo) -> None:
    answer = ask('{ repository(owner: "octo", name: "data") { nonsense } }')
    assert "data" not in answer
    assert answer["errors"][0]["extensions"] == {"code": "undefinedField"}
    assert answer["errors"][0]["message"] == "Field 'nonsense' doesn't exist on type 'Repository'"


@pytest.mark.parametrize(
    "query",
    [
        "{",
        "{}",
        "{ a",
        "{ a(b: ) }",
        "{ a(b: 1 }",
        "query",
        "",
        "{ a } }",
        "{ ? }",
        '{ a(b: "x) }',
        "{ ...missing }",
        "query B { a }",
    ],
)
def test_a_query_that_cannot_be_read_is_an_error_and_costs_nothing(
    session: requests.Session, github: StandIn, query: str
) -> None:
    body = {"query": query, "operationName": "A" if query.startswith("query B") else None}
    answer = session.post(f"{github.url}/graphql", json=body, timeout=10)
    assert answer.status_code == 200
    assert "data" not in answer.json()
    assert answer.json()["errors"][0]["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"query": 1}', b"\xff"])
def test_a_body_that_is_no_query_is_400(session: requests.Session, github: StandIn, body: bytes) -> None:
    answer = session.post(f"{github.url}/graphql", data=body, timeout=10)
    assert answer.status_code == 400
    assert answer.json()["message"]


def test_graphql_wants_a_token_and_can_be_switched_off(
    session: requests.Session, github: StandIn, ask: Ask, repo: GitRepo
) -> None:
    body = {"query": "{ viewer { login } }"}
    assert ask(body["query"], path="/api/graphql") == {"data": {"viewer": {"login": "octocat"}}}
    url = f"{github.url}/graphql"
    assert session.get(url, timeout=10).status_code == 404
    github.graphql_enabled = False
    assert session.post(url, json=body, timeout=10).status_code == 404
    github.graphql_enabled = True
    del session.headers["Authorization"]
    assert session.post(url, json=body, timeout=10).status_code == 401
    github.token = None
    assert session.post(url, json=body, timeout=10).status_code == 401


def test_a_limit_is_said_with_200(ask: Ask, github: StandIn, session: requests.Session) -> None:
    github.limit(remaining=1, reset_in=60)
    assert "data" in ask("{ viewer { login } }")
    answer = session.post(f"{github.url}/graphql", json={"query": "{ viewer { login } }"}, timeout=10)
    assert answer.status_code == 200
    assert [error["type"] for error in answer.json()["errors"]] == ["RATE_LIMITED"]
    assert "data" not in answer.json()
    assert (answer.headers["X-RateLimit-Remaining"], answer.headers["X-RateLimit-Resource"]) == ("0", "graphql")


def test_lists_with_pages_cost_a_point_a_hundred(ask: Ask, repo: GitRepo) -> None:
    field = 'repository(owner: "octo", name: "data") { refs(refPrefix: "refs/heads/", first: 1) { totalCount } }'
    fields = " ".join(f"r{number}: {field}" for number in range(200))
    assert ask(f"{{ {fields} rateLimit {{ cost }} }}")["data"]["rateLimit"] == {"cost": 2}


# The language, against an implementation of the whole of it


DOCUMENTS = [
    "{ a }",
    "query { a b c }",
    "query Name { a: b(c: 1, d: -2.5e3, e: true, f: null, g: ENUM) { h } }",
    'query ($x: [String!]! = ["a", "b"], $y: In = {a: 1, b: [B]}) @live { a(b: $x, c: {d: [1, [$y]], e: {}}) }',
    '{ a(b: "quote \\" slash \\\\ \\n \\u00e9 {}") , b(c: """block "quoted" text""") }',
    "# comment\n{ a # another }\n }",
    "query A { ...F ... on T { b } ... { c } ... @include(if: true) { d } } fragment F on T { a @skip(if: false) }",
    "mutation M { m { n } } query Q { q }",
    '\ufeff{ a(b:"",c:[]) }',
]


def theirs(document: graphql.DocumentNode) -> Any:
    """A document of graphql-core in the shape of ``ours``."""
    operations = [each for each in document.definitions if isinstance(each, graphql.OperationDefinitionNode)]
    fragments = [each for each in document.definitions if isinstance(each, graphql.FragmentDefinitionNode)]
    shown = {each.name.value: (each.type_condition.name.value, their_fields(each.selection_set)) for each in fragments}
    return [their_operation(each) for each in operations], shown


def their_operation(node: graphql.OperationDefinitionNode) -> Any:
    variables = node.variable_definitions or ()
    defaults = {each.variable.name.value: their_value(each.default_value) for each in variables if each.default_value}
    names = {each.variable.name.value for each in variables}
    return node.operation.value, node.name and node.name.value, names, defaults, their_fields(node.selection_set)


def their_fields(node: graphql.SelectionSetNode | None) -> list[Any]:
    return [their_selection(each) for each in node.selections] if node else []


def their_selection(node: graphql.SelectionNode) -> Any:
    if isinstance(node, graphql.FragmentSpreadNode):
        return node.name.value
    if isinstance(node, graphql.InlineFragmentNode):
        return node.type_condition and node.type_condition.name.value, their_fields(node.selection_set)
    arguments = {each.name.value: their_value(each.value) for each in node.arguments or ()}
    line, column = graphql.get_location(node.loc.source, node.loc.start)
    key = node.alias.value if node.alias else node.name.value
    return node.name.value, key, arguments, their_fields(node.selection_set), line, column


def their_value(node: graphql.ValueNode) -> Any:
    match node:
        case graphql.VariableNode():
            return Variable(node.name.value)
        case graphql.ListValueNode():
            return [their_value(each) for each in node.values]
        case graphql.ObjectValueNode():
            return {each.name.value: their_value(each.value) for each in node.fields}
        case _:
            return graphql.value_from_ast_untyped(node)


def ours(document: Document) -> Any:
    operations = [
        (o.kind, o.name, set(o.variables), dict(o.defaults), shown(o.selections)) for o in document.operations
    ]
    return operations, {name: (each.type, shown(each.selections)) for name, each in document.fragments.items()}


def shown(selections: tuple[Any, ...]) -> list[Any]:
    found: list[Any] = []
    for each in selections:
        match each:
            case Field():
                found.append((each.name, each.key, each.arguments, shown(each.selections), each.line, each.column))
            case Fragment():
                found.append((each.type, shown(each.selections)))
            case Spread():
                found.append(each.name)
    return found


@pytest.mark.parametrize("source", DOCUMENTS)
def test_documents_are_read_as_graphql_core_reads_them(source: str) -> None:
    assert ours(parse(source)) == theirs(graphql.parse(source))


@pytest.mark.parametrize("source", ["{ a(b: $) }", "{ a b: }", "{ a(: 1) }", "fragment F { a }", "{ a @ }", "{ 1 }"])
def test_what_graphql_core_refuses_is_refused(source: str) -> None:
    with pytest.raises(graphql.GraphQLSyntaxError):
        graphql.parse(source)
    with pytest.raises(SyntaxProblem):
        parse(source)
