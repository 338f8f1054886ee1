"""GraphQL over the served repositories: the fields that a reader of heads asks for, with GitHub's errors.

An object is a mapping from field name to value, or to a function of the arguments that gives it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from daemon.demo.standin.answers import Answer, Problem, Request, json_answer
from daemon.demo.standin.callers import Caller
from daemon.demo.standin.graphqlparser import Document, Field, Fragment, Operation, Selection, SyntaxProblem, Variable
from daemon.demo.standin.graphqlparser import parse as parse_document
from daemon.demo.standin.limits import Charge
from daemon.demo.standin.objects import CommitObject
from daemon.demo.standin.repositories import LOGIN, ServedRepository
from daemon.demo.standin.shapes import instant, node_id
from daemon.demo.standin.world import World

MOST_PER_PAGE = 100
Arguments = Mapping[str, Any]
Node = Mapping[str, Any]


class FieldProblem(Exception):
    """A field that has no value: it is null in the data, and this stands in the errors."""

    def __init__(self, kind: str, message: str) -> None:
        self.kind = kind
        self.message = message
        super().__init__(message)


class GraphQLApi:
    """Answers ``POST /graphql`` for a caller that was let in."""

    def __init__(self, world: World) -> None:
        self._world = world

    def answer(self, request: Request, caller: Caller) -> Answer:
        """200 with data or errors: GraphQL says no with 200 too, a rate limit included."""
        query, variables, name = _parts(request)
        try:
            document = parse_document(query)
            return self._executed(document, _chosen(document, name), variables, caller)
        except SyntaxProblem as problem:
            charge = self._world.limits.charge("graphql", 0, account=caller.account)
            return json_answer({"errors": [{"message": str(problem)}]}, headers=charge.headers)

    def _executed(
        self, document: Document, operation: Operation, variables: Mapping[str, Any], caller: Caller
    ) -> Answer:
        cost = max(1, round(_connections(document) / 100))
        charge = self._world.limits.charge("graphql", cost, account=caller.account)
        if charge.refused_with:
            return _limited(charge)
        execution = Execution(document, {**operation.defaults, **variables}, operation)
        data = execution.run(_root(self._world, caller, cost))
        errors = {"errors": execution.errors} if execution.errors else {}
        return json_answer({**({"data": data} if execution.valid else {}), **errors}, headers=charge.headers)


def _parts(request: Request) -> tuple[str, dict[str, Any], str | None]:
    try:
        body = json.loads(request.body)
    except ValueError:
        raise Problem(400, "Problems parsing JSON") from None
    if not isinstance(body, dict) or not isinstance(body.get("query"), str):
        raise Problem(400, "A query attribute must be specified and must be a string.")
    return body["query"], body.get("variables") or {}, body.get("operationName")


def _chosen(document: Document, name: str | None) -> Operation:
    for operation in document.operations:
        if name in {None, operation.name}:
            return operation
    raise SyntaxProblem(f"No operation named {json.dumps(name)}")


def _limited(charge: Charge) -> Answer:
    body = {"errors": [{"type": "RATE_LIMITED", "message": charge.message}]}
    return json_answer(body, headers={**charge.headers, **charge.retry_headers()})


def _connections(document: Document) -> int:
    """How many lists with pages a document asks for: each counts one request towards the cost."""

    def count(selections: tuple[Selection, ...]) -> int:
        inner = (each.selections for each in selections if isinstance(each, Field | Fragment))
        own = sum(isinstance(each, Field) and bool({"first", "last"} & set(each.arguments)) for each in selections)
        return own + sum(map(count, inner))

    roots = [
        *(each.selections for each in document.operations),
        *(each.selections for each in document.fragments.values()),
    ]
    return sum(map(count, roots))


@dataclass(slots=True)
class Execution:
    """One operation being answered; ``errors`` fills up on the way."""

    document: Document
    variables: Mapping[str, Any]
    operation: Operation
    errors: list[dict[str, Any]] = field(default_factory=list)
    valid: bool = True  # False once a field was asked for that no such object has: then there is no data at all

    def run(self, root: Node) -> dict[str, Any]:
        return self._object(root, self.operation.selections, ())

    def _object(self, node: Node, selections: tuple[Selection, ...], path: tuple[str | int, ...]) -> dict[str, Any]:
        fields = self._fields(node, selections)
        return {each.key: self._value(node, each, (*path, each.key)) for each in fields}

    def _fields(self, node: Node, selections: tuple[Selection, ...]) -> Iterator[Field]:
        for each in selections:
            if isinstance(each, Field):
                yield each
                continue
            fragment = each if isinstance(each, Fragment) else self._fragment(each.name)
            if fragment.type in {None, node["__typename"], *node.get("__interfaces", ())}:
                yield from self._fields(node, fragment.selections)

    def _fragment(self, name: str) -> Fragment:
        if name not in self.document.fragments:
            raise SyntaxProblem(f"Fragment {name} was used, but not defined")
        return self.document.fragments[name]

    def _value(self, node: Node, wanted: Field, path: tuple[str | int, ...]) -> Any:
        if wanted.name not in node:
            self.valid = False
            message = f"Field '{wanted.name}' doesn't exist on type '{node['__typename']}'"
            self._error(wanted, path, message, extensions={"code": "undefinedField"})
            return None
        value = node[wanted.name]
        try:
            found = value(self._arguments(wanted)) if callable(value) else value
        except FieldProblem as problem:
            self._error(wanted, path, problem.message, type=problem.kind)
            return None
        return self._shown(found, wanted, path)

    def _shown(self, found: Any, wanted: Field, path: tuple[str | int, ...]) -> Any:
        if isinstance(found, list):
            return [self._shown(each, wanted, (*path, index)) for index, each in enumerate(found)]
        if isinstance(found, Mapping):
            return self._object(found, wanted.selections, path)
        return found

    def _arguments(self, wanted: Field) -> dict[str, Any]:
        return {name: self._filled(value) for name, value in wanted.arguments.items()}

    def _filled(self, value: Any) -> Any:
        if isinstance(value, Variable):
            if value.name not in self.operation.variables:
                raise FieldProblem("variableNotDefined", f"Variable ${value.name} is used but not declared")
            return self.variables.get(value.name)
        if isinstance(value, list):
            return [self._filled(each) for each in value]
        return value

    def _error(self, wanted: Field, path: tuple[str | int, ...], message: str, **more: Any) -> None:
        place = {"line": wanted.line, "column": wanted.column}
        self.errors.append({**more, "path": list(path), "locations": [place], "message": message})


def _root(world: World, caller: Caller, cost: int) -> Node:
    return {
        "__typename": "Query",
        "viewer": {"__typename": "User", "login": LOGIN, "databaseId": 1},
        "rateLimit": lambda _: _rate_limit(world, caller, cost),
        "repository": lambda arguments: _repository(world, _found(world, caller, arguments)),
    }


def _rate_limit(world: World, caller: Caller, cost: int) -> Node:
    budget = world.limits.shape("graphql", account=caller.account)
    reset_at = instant(datetime.fromtimestamp(budget["reset"], UTC))
    return {
        "__typename": "RateLimit",
        "cost": cost,
        "resetAt": reset_at,
        "nodeCount": 0,
        **{key: budget[key] for key in ("limit", "remaining", "used")},
    }


def _found(world: World, caller: Caller, arguments: Arguments) -> ServedRepository:
    full_name = f"{arguments.get('owner')}/{arguments.get('name')}"
    found = world.registry.named(full_name)
    if found is None and arguments.get("followRenames") is not False:
        found = world.registry.formerly(full_name)
    if found is None or not caller.sees(found):
        raise FieldProblem("NOT_FOUND", f"Could not resolve to a Repository with the name '{full_name}'.")
    if found.blocked is not None:
        raise FieldProblem("FORBIDDEN", "Repository access blocked")
    return found


def _repository(world: World, repository: ServedRepository) -> Node:
    return {
        "__typename": "Repository",
        "id": node_id("Repository", repository.id),
        "databaseId": repository.id,
        "name": repository.name,
        "nameWithOwner": repository.full_name,
        "owner": _owner(repository),
        "isArchived": repository.archived,
        "isPrivate": repository.private,
        "isDisabled": repository.disabled,
        "isFork": False,
        "isEmpty": lambda _: repository.empty,
        "visibility": "PRIVATE" if repository.private else "PUBLIC",
        "pushedAt": instant(repository.pushed_at),
        "updatedAt": instant(repository.pushed_at),
        "createdAt": instant(repository.created_at),
        "defaultBranchRef": lambda _: _head(world, repository, repository.default_branch),
        "ref": lambda arguments: _ref(world, repository, arguments),
        "refs": lambda arguments: _refs(world, repository, arguments),
        "object": lambda arguments: _object(world, repository, arguments),
    }


def _owner(repository: ServedRepository) -> Node:
    return {
        "__typename": repository.owner_type,
        "__interfaces": ("RepositoryOwner",),
        "login": repository.owner,
        "id": node_id("User", repository.owner_id),
    }


def _head(world: World, repository: ServedRepository, branch: str) -> Node | None:
    sha = world.heads.get(repository, branch)
    return None if sha is None else _ref_node(repository, "refs/heads/", branch, sha)


def _ref(world: World, repository: ServedRepository, arguments: Arguments) -> Node | None:
    """A ref by its full name, or a branch or tag by its short one; null when there is none, which is no error."""
    name = str(arguments.get("qualifiedName"))
    if name.startswith("refs/tags/"):
        sha = repository.refs.get(name)
        return _ref_node(repository, "refs/tags/", name.removeprefix("refs/tags/"), sha) if sha else None
    return _head(world, repository, name.removeprefix("refs/heads/"))


def _ref_node(repository: ServedRepository, prefix: str, name: str, sha: str) -> Node:
    return {
        "__typename": "Ref",
        "name": name,
        "prefix": prefix,
        "id": node_id("Ref", f"{repository.id}:{prefix}{name}"),
        "target": _target(repository, sha),
    }


def _refs(world: World, repository: ServedRepository, arguments: Arguments) -> Node:
    """A page of the refs below a prefix, in alphabetical order; the cursor is the name of the last one."""
    first = arguments.get("first")
    if not isinstance(first, int):
        raise FieldProblem(
            "MISSING_PAGINATION_BOUNDARIES",
            "You must provide a `first` or `last` value to properly paginate the `refs` connection.",
        )
    if not 0 < first <= MOST_PER_PAGE:
        raise FieldProblem(
            "EXCESSIVE_PAGINATION",
            f"Requesting {first} records on the `refs` connection exceeds the limit of {MOST_PER_PAGE} records.",
        )
    prefix = str(arguments.get("refPrefix"))
    found = _below(world, repository, prefix)
    after = _cursor_name(arguments.get("after"))
    rest = [(name, sha) for name, sha in found.items() if after is None or name > after]
    page = rest[:first]
    return {
        "__typename": "RefConnection",
        "totalCount": len(found),
        "nodes": [_ref_node(repository, prefix, name, sha) for name, sha in page],
        "edges": [
            {"__typename": "RefEdge", "cursor": _cursor(name), "node": _ref_node(repository, prefix, name, sha)}
            for name, sha in page
        ],
        "pageInfo": {
            "__typename": "PageInfo",
            "hasNextPage": len(rest) > first,
            "hasPreviousPage": after is not None,
            "startCursor": _cursor(page[0][0]) if page else None,
            "endCursor": _cursor(page[-1][0]) if page else None,
        },
    }


def _below(world: World, repository: ServedRepository, prefix: str) -> dict[str, str]:
    if prefix.startswith("refs/heads/"):
        folder = prefix.removeprefix("refs/heads/")
        return {name.removeprefix(folder): sha for name, sha in world.heads.all(repository, folder).items()}
    return {name.removeprefix(prefix): sha for name, sha in sorted(repository.refs.under(prefix).items())}


def _cursor(name: str) -> str:
    return base64.b64encode(b"cursor:" + name.encode("utf-8", "surrogateescape")).decode()


def _cursor_name(cursor: str | None) -> str | None:
    if cursor is None:
        return None
    try:
        raw = base64.b64decode(cursor, validate=True)
    except ValueError:
        raw = b""
    if not raw.startswith(b"cursor:"):
        raise FieldProblem("INVALID_CURSOR_ARGUMENTS", f"`{cursor}` does not appear to be a valid cursor.")
    return raw.removeprefix(b"cursor:").decode("utf-8", "surrogateescape")


def _target(repository: ServedRepository, sha: str) -> Node:
    """What a ref points to. Only the id is at hand; the object is read when a query looks into it."""
    return _LazyCommit(sha, lambda: _read(repository, sha))


def _read(repository: ServedRepository, sha: str) -> Node:
    commit = repository.commit(sha)
    if commit is not None:
        return _commit(commit)
    found = repository.object(sha)
    kind = found.type.capitalize() if found is not None else "Commit"
    return {"__typename": kind, **_git_object(sha)}


def _git_object(sha: str) -> dict[str, Any]:
    return {"__interfaces": ("GitObject",), "oid": sha, "abbreviatedOid": sha[:7], "id": node_id("Object", sha)}


def _commit(commit: CommitObject) -> Node:
    return {
        "__typename": "Commit",
        **_git_object(commit.sha),
        "tree": {"__typename": "Tree", **_git_object(commit.tree)},
        "message": commit.message,
        "messageHeadline": commit.message.partition("\n")[0],
        "committedDate": commit.committer.utc(),
        "authoredDate": commit.author.utc(),
    }


class _LazyCommit(Mapping[str, Any]):
    """A node whose ``oid`` costs nothing: a poll of a hundred repositories reads no object."""

    def __init__(self, sha: str, read: Callable[[], Node]) -> None:
        self._sha = sha
        self._read = read
        self._node: Node | None = None

    def __getitem__(self, key: str) -> Any:
        if key == "oid":
            return self._sha
        if self._node is None:
            self._node = self._read()
        return self._node[key]

    def __contains__(self, key: object) -> bool:
        return key == "oid" or key in list(self)

    def __iter__(self) -> Iterator[str]:
        if self._node is None:
            self._node = self._read()
        return iter(self._node)

    def __len__(self) -> int:
        return len(list(iter(self)))


def _object(world: World, repository: ServedRepository, arguments: Arguments) -> Node | None:
    """An object by ``oid``, or by the ``expression`` forms REV and REV:PATH."""
    if oid := arguments.get("oid"):
        sha: str | None = str(oid)
    else:
        sha = _expression(world, repository, str(arguments.get("expression")))
    if sha is None or repository.object(sha) is None or world.heads.hides(repository, sha):
        return None
    return _read(repository, sha)


def _expression(world: World, repository: ServedRepository, expression: str) -> str | None:
    revision, colon, path = expression.partition(":")
    sha = world.resolve(repository, revision)
    if sha is None or not colon or "\0" in path:
        return None if colon else sha
    found = repository.git.attempt("rev-parse", "--verify", "--quiet", f"{sha}:{path}")
    return found.decode().strip() if found is not None else None
