"""Entities in the JSON API: what there is, lists, one with its history, and the files that are none."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

from daemon.errors import Refusal
from daemon.model import AskedBranch, EntityError, EntityRecord, EntityVersion
from daemon.web import cursor
from daemon.web.answers import iso
from daemon.web.api import Call
from daemon.web.app import Answer, encode


def overview(call: Call) -> Answer:
    """How many entities there are of each type."""
    with call.deps.database.read():
        branches = _asked(call)
        counts = call.deps.entities.counts(branches)
    types = [{"entity_type": name, "count": count} for name, count in counts]
    total = sum(count for _, count in counts)
    return encode({"types": types, "total": total}, headers=_about(branches))


def listing(call: Call) -> Answer:
    """Entities of a type by id; a type nobody has is an empty list."""
    limit = call.limit()
    position = call.position("entities", str, int)
    with call.deps.database.read():
        branches = _asked(call)
        found, more = call.deps.entities.page(
            branches,
            _segment(call, "type"),
            after=(position[0], position[1]) if position else None,
            limit=limit,
            q=call.text("q"),
        )
    next_cursor = cursor.write("entities", found[-1].entity_id, found[-1].branch_id) if more else None
    return _list([entity_json(one) for one in found], next_cursor, branches)


def one(call: Call) -> Answer:
    """One entity, with what it was before when that is asked for. Raises Refusal 404."""
    with call.deps.database.read():
        branches = _asked(call)
        found = call.deps.entities.one(branches, _segment(call, "type"), _segment(call, "id"))
        if found is None:
            raise Refusal(404, "Entity not found")
        told = entity_json(found)
        if call.text("history") in ("1", "true", "yes"):
            told["history"] = [version_json(version) for version in call.deps.entities.history(found.key)]
    return encode(told, headers=_about([branch for branch in branches if branch.id == found.branch_id]))


def errors(call: Call) -> Answer:
    """Files that a collection takes and that are no entity."""
    limit = call.limit()
    position = call.position("entity-errors", int, str, str)
    after = (position[0], _path(position[1]), position[2]) if position else None
    with call.deps.database.read():
        branches = _asked(call)
        found = call.deps.entities.errors(branches, after=after, limit=limit + 1)
    shown = found[:limit]
    next_cursor = None
    if len(found) > limit:
        last = shown[-1]
        next_cursor = cursor.write("entity-errors", last.branch_id, last.path.decode("latin-1"), last.entity_type)
    return _list([error_json(error) for error in shown], next_cursor, branches)


def _asked(call: Call) -> list[AskedBranch]:
    """The branches that the query names, all without a name. Raises Refusal 404 for names that nothing has."""
    repository, branch = call.text("repository"), call.text("branch")
    record = None
    if repository is not None:
        record = call.deps.repositories.record(*_owner_and_name(repository))
        if record is None:
            raise Refusal(404, "Repository not found")
    branches = call.deps.entities.branches(record.id if record else None, branch)
    if branch is not None and not branches:
        raise Refusal(404, "Branch not found")
    return branches


def _owner_and_name(full_name: str) -> tuple[str, str]:
    owner, _, name = full_name.partition("/")
    return owner, name


def _segment(call: Call, name: str) -> str:
    return call.segments[name].decode("utf-8", "replace")


def _path(text: str) -> bytes:
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        raise Refusal(422, "cursor is not one of this list") from None


def _list(items: list[dict[str, Any]], next_cursor: str | None, branches: Sequence[AskedBranch]) -> Answer:
    page: dict[str, Any] = {"items": items, "next_cursor": next_cursor, "has_next": next_cursor is not None}
    if len(branches) == 1:
        page["commit_sha"] = branches[0].head_sha
    return encode(page, headers=_about(branches))


def _about(branches: Sequence[AskedBranch]) -> Mapping[str, str]:
    """Which commit an answer about one branch describes, and how fresh that is."""
    if len(branches) != 1:
        return {}
    told = {"X-Commit-Sha": branches[0].head_sha, "X-Confirmed-At": iso(branches[0].confirmed_at)}
    return {name: value for name, value in told.items() if value is not None}


def entity_json(record: EntityRecord) -> dict[str, Any]:
    """One entity."""
    told = {
        "id": record.key,
        "entity_id": record.entity_id,
        "entity_type": record.entity_type,
        "label": record.label,
        "description": record.description,
        "data": json.loads(record.data),
        "repository": record.repository,
        "branch": record.branch,
        "path": record.path.decode("utf-8", "replace"),
        "commit_sha": record.commit_sha,
        "stale": record.stale,
        "created_at": iso(record.created_at),
        "updated_at": iso(record.updated_at),
    }
    return told | _exact(record.path)


def version_json(version: EntityVersion) -> dict[str, Any]:
    """What an entity was for a while."""
    return {
        "commit_sha": version.commit_sha,
        "data": json.loads(version.data),
        "valid_from": iso(version.valid_from),
        "valid_to": iso(version.valid_to),
    }


def error_json(error: EntityError) -> dict[str, Any]:
    """A file that is no entity."""
    told = {
        "repository": error.repository,
        "branch": error.branch,
        "path": error.path.decode("utf-8", "replace"),
        "entity_type": error.entity_type,
        "line": error.line,
        "column": error.column,
        "error": error.error,
    }
    return told | _exact(error.path)


def _exact(path: bytes) -> dict[str, Any]:
    """The bytes of a path that is not UTF-8."""
    if path.decode("utf-8", "replace").encode() == path:
        return {}
    return {"path_base64": base64.b64encode(path).decode("ascii")}
