"""The heads of many repositories in one GraphQL query: building it and reading its answer. Pure.

A hundred aliased repositories that only read refs cost one point
(https://docs.github.com/graphql/overview/rate-limits-and-query-limits-for-the-graphql-api). An alias that is absent
from the answer is unknown, never deleted: answers without any alias have been reported.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from daemon.errors import BadAnswer, Forbidden, GitHubError, GraphQLUnavailable, RepositoryNotFound, RepositoryReplaced
from daemon.github import shapes
from daemon.github.protocol import Overloaded, quoted
from daemon.model import HeadsQuery, RemoteRepository, RepositoryHeads, RepositoryRef

MAX_REPOSITORIES = 100
LISTED_WEIGHT = 4  # of a list of branches, in refs: each is one connection, and a hundred of them cost one point
MAX_REFS = 500  # in one request, so that a repository with thousands of tracked branches costs requests, not time-outs

_LIMITED = frozenset({"RATE_LIMITED", "RATE_LIMIT"})
_HEAVY = frozenset({"RESOURCE_LIMITS_EXCEEDED", "MAX_NODE_LIMIT_EXCEEDED", "LOADING", "TIMEOUT"})
_FORBIDDEN = frozenset({"FORBIDDEN", "INSUFFICIENT_SCOPES", "UNAUTHORIZED"})
_LISTED = (
    f' refs(refPrefix: "{shapes.HEADS}", first: 100) {{ nodes {{ name target {{ oid }} }} pageInfo {{ hasNextPage }} }}'
)
_FACTS = "databaseId nameWithOwner isArchived isPrivate defaultBranchRef { name target { oid } }"


def batches(queries: Sequence[HeadsQuery], *, most: int = MAX_REPOSITORIES) -> list[Sequence[HeadsQuery]]:
    """``queries`` in order, cut into groups of at most ``most`` that one request can answer."""
    cut: list[Sequence[HeadsQuery]] = []
    start, refs = 0, 0
    for index, query in enumerate(queries):
        weight = 1 + (LISTED_WEIGHT if query.every else len(query.branches))
        apart = query.fragile != queries[start].fragile
        if index > start and (apart or index - start >= most or refs + weight > MAX_REFS):
            cut.append(queries[start:index])
            start, refs = index, 0
        refs += weight
    return [*cut, queries[start:]] if queries else []


def heads_body(queries: Sequence[HeadsQuery]) -> bytes:
    """The JSON body that asks for all of ``queries``; repository *i* is alias ``r<i>``, its branch *j* ``b<j>``."""
    fields = " ".join(_repository_field(index, query) for index, query in enumerate(queries))
    return json.dumps({"query": f"query {{ {fields} }}"}).encode("ascii")


def is_limited(value: object) -> bool:
    """Whether an answer says that the rate limit is used up: status 200 and an error of that type."""
    return any(_type_of(error) in _LIMITED for error in _errors(value))


def read_heads(value: object, queries: Sequence[HeadsQuery]) -> list[RepositoryHeads]:
    """One result per query, in order, with what is wrong with a single repository inside it.

    Raises Overloaded when the query was too much, GraphQLUnavailable when nothing in the answer can be used.
    """
    data = value.get("data") if isinstance(value, dict) else None
    if not isinstance(data, dict):
        raise _unusable(value)
    errors = _errors(value)
    return [_one(query, f"r{index}", data, errors) for index, query in enumerate(queries)]


def _repository_field(index: int, query: HeadsQuery) -> str:
    refs = (
        _LISTED
        if query.every
        else "".join(
            f" b{number}: ref(qualifiedName: {_string(shapes.HEADS + branch)}) {{ target {{ oid }} }}"
            for number, branch in enumerate(query.branches)
        )
    )
    owner, name = _string(query.repository.owner), _string(query.repository.name)
    return f"r{index}: repository(owner: {owner}, name: {name}, followRenames: true) {{ {_FACTS}{refs} }}"


_LITERAL = json.JSONEncoder(ensure_ascii=False)  # made once: `dumps` makes one for each string


def _string(text: str) -> str:
    """A GraphQL string literal; JSON's escapes are a part of GraphQL's, and other characters stand for themselves."""
    return _LITERAL.encode(text)


def _errors(value: object) -> list[dict[str, Any]]:
    errors = value.get("errors") if isinstance(value, dict) else None
    return [error for error in errors if isinstance(error, dict)] if isinstance(errors, list) else []


def _type_of(error: dict[str, Any]) -> str:
    extensions = error.get("extensions")
    code = extensions.get("code") if isinstance(extensions, dict) else None
    named = error.get("type") or code
    return named.upper() if isinstance(named, str) else ""


def _message_of(errors: Iterable[dict[str, Any]]) -> str:
    said = [quoted(text) for error in errors if isinstance(text := error.get("message"), str)]
    return said[0] if said else "no reason given"


def _unusable(value: object) -> GitHubError:
    errors = _errors(value)
    said = _message_of(errors)
    words = said.lower()
    if any(_type_of(error) in _HEAVY for error in errors) or "timeout" in words or "something went wrong" in words:
        return Overloaded(f"the heads of all repositories: GitHub's GraphQL gave up ({said}); asked again in parts")
    return GraphQLUnavailable(f"GraphQL cannot be used here ({said}); heads are asked for by REST instead")


def _path_of(error: dict[str, Any]) -> tuple[object, ...]:
    path = error.get("path")
    return tuple(path) if isinstance(path, list) else ()


def _one(query: HeadsQuery, alias: str, data: dict[str, Any], errors: list[dict[str, Any]]) -> RepositoryHeads:
    own = [error for error in errors if _path_of(error)[:1] == (alias,)]
    ref = query.repository
    try:
        body = data.get(alias)
        if not isinstance(body, dict):
            raise _absent(ref, own, answered=alias in data and body is None)
        broken = [path[1] for error in own if len(path := _path_of(error)) > 1]
        repository = _repository(ref, body, broken)
        heads = _heads(query, repository, body, broken)
        if not query.every:
            return RepositoryHeads(repository, heads)
        listed, complete = _listed(ref, body, broken)
        return RepositoryHeads(repository, {**listed, **heads}, complete=complete)
    except GitHubError as error:
        return RepositoryHeads(None, error=error)


def _absent(ref: RepositoryRef, errors: list[dict[str, Any]], *, answered: bool) -> GitHubError:
    types = {_type_of(error) for error in errors}
    said = _message_of(errors)
    if answered and types == {"NOT_FOUND"}:
        return RepositoryNotFound(
            f"{ref.full_name}: GitHub cannot find it: it was deleted, is private, or the token may not see it ({said})"
        )
    if types & _FORBIDDEN:
        return Forbidden(f"{ref.full_name}: GitHub refuses access: the token lacks a permission ({said})")
    return BadAnswer(f"{ref.full_name}: GitHub's answer leaves the repository out ({said}); it is asked again later")


def _repository(ref: RepositoryRef, body: dict[str, Any], broken: list[object]) -> RemoteRepository:
    asked = ref.full_name
    github_id = shapes.count_of(body.get("databaseId"), "databaseId", asked=asked)
    owner, name = shapes.split_name(body.get("nameWithOwner"), asked=asked)
    if ref.github_id not in {None, github_id}:
        raise RepositoryReplaced(
            f"{asked} is another repository now (id {github_id}, it was {ref.github_id}); "
            "correct the name in the configuration, the stored copy is kept"
        )
    if "defaultBranchRef" not in body or "defaultBranchRef" in broken:
        raise BadAnswer(f"{asked}: GitHub's answer leaves the default branch out; it is asked again later")
    default = body["defaultBranchRef"]
    return RemoteRepository(
        github_id=github_id,
        owner=owner,
        name=name,
        default_branch=None if default is None else _branch_name(default, asked=asked),
        archived=body.get("isArchived") is True,
        private=body.get("isPrivate") is True,
    )


def _branch_name(default: object, *, asked: str) -> str:
    return shapes.text_of(shapes.object_of(default, asked=asked).get("name"), "name of a branch", asked=asked)


def _heads(
    query: HeadsQuery, repository: RemoteRepository, body: dict[str, Any], broken: list[object]
) -> dict[str, str | None]:
    asked = query.repository.full_name
    heads: dict[str, str | None] = {}
    for number, branch in enumerate(() if query.every else query.branches):
        alias = f"b{number}"
        if alias in body and alias not in broken:
            heads[branch] = None if body[alias] is None else _oid(body[alias], asked=asked)
    if repository.default_branch is not None:
        heads[repository.default_branch] = _oid(body["defaultBranchRef"], asked=asked)
    return heads


def _listed(ref: RepositoryRef, body: dict[str, Any], broken: list[object]) -> tuple[dict[str, str | None], bool]:
    """The first hundred branches with their heads, and whether these are all."""
    asked = f"{ref.full_name} branches"
    if "refs" not in body or "refs" in broken:
        raise BadAnswer(f"{asked}: GitHub's answer leaves them out; they are asked for again later")
    refs = shapes.object_of(body["refs"], asked=asked)
    nodes = shapes.list_of(refs.get("nodes"), asked=asked)
    more = shapes.object_of(refs.get("pageInfo"), asked=asked).get("hasNextPage")
    return {_branch_name(node, asked=asked): _oid(node, asked=asked) for node in nodes}, more is False


def _oid(ref: object, *, asked: str) -> str:
    target = shapes.object_of(shapes.object_of(ref, asked=asked).get("target"), asked=asked)
    return shapes.sha_of(target.get("oid"), "head", asked=asked)
