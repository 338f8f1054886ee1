"""GitHub's JSON checked and turned into the model's values. Pure.

Nothing is indexed unchecked: HTML, null, a wrong type or another object's data is a BadAnswer that names what was
asked.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import ipaddress
import json
import re
from datetime import UTC, datetime
from typing import Any, NoReturn

from daemon.errors import BadAnswer
from daemon.github.protocol import is_sha, quoted
from daemon.model import ChangedFile, Commit, Comparison, Difference, RemoteEntry, RemoteRepository, RemoteTree
from daemon.values import Network

HEADS = "refs/heads/"

_ENTRY_TYPES = ("blob", "tree", "commit")  # not a set: what is looked up may be a list, which has no hash
_STATUSES = ("ahead", "behind", "identical", "diverged")
_MODE = re.compile(r"[0-7]{6}")
_SURROGATES = re.compile(r"[\ud800-\udfff]")


def object_of(value: object, *, asked: str) -> dict[str, Any]:
    """``value`` as a JSON object."""
    return value if isinstance(value, dict) else _bad(asked, "no JSON object")


def list_of(value: object, *, asked: str) -> list[Any]:
    """``value`` as a JSON array."""
    return value if isinstance(value, list) else _bad(asked, "no JSON array")


def text_of(value: object, what: str, *, asked: str) -> str:
    """``value`` as a non-empty string that can be encoded: a lone surrogate becomes U+FFFD."""
    return _SURROGATES.sub("\ufffd", value) if isinstance(value, str) and value else _bad(asked, f"no {what}")


def sha_of(value: object, what: str, *, asked: str) -> str:
    """``value`` as an object id."""
    return value if isinstance(value, str) and is_sha(value) else _bad(asked, f"no {what} of 40 hex digits")


def count_of(value: object, what: str, *, asked: str) -> int:
    """``value`` as an integer of 0 up to what 64 bits hold; true and 1e400 are none."""
    valid = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63
    return value if valid and isinstance(value, int) else _bad(asked, f"no {what}")


def networks(value: object, *, asked: str) -> tuple[Network, ...]:
    """The networks in ``hooks`` of what ``GET /meta`` answers; all of them or BadAnswer."""
    hooks = object_of(value, asked=asked).get("hooks")
    try:
        found = tuple(ipaddress.ip_network(one) for one in list_of(hooks, asked=asked) if isinstance(one, str))
    except ValueError:
        found = ()
    # An empty list would shut GitHub out, and Enterprise Server has none.
    return found or _bad(asked, "no networks (GitHub Enterprise Server has none to tell)")


def instant_of(value: object, what: str, *, asked: str) -> datetime:
    """``value`` as an instant in ISO 8601, in UTC unless it says otherwise."""
    try:
        instant = datetime.fromisoformat(value if isinstance(value, str) else "")
        return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        _bad(asked, f"no {what}")


def split_name(full_name: object, *, asked: str) -> tuple[str, str]:
    """``owner/name`` in its two halves."""
    owner, slash, name = text_of(full_name, "full name", asked=asked).partition("/")
    if not (owner and slash and name) or "/" in name:
        _bad(asked, "no full name")
    return owner, name


def repository(value: object, *, asked: str) -> RemoteRepository:
    """A repository as REST describes it. ``default_branch`` is named even before the first commit."""
    body = object_of(value, asked=asked)
    owner, name = split_name(body.get("full_name"), asked=asked)
    granted = body.get("permissions")
    return RemoteRepository(
        github_id=count_of(body.get("id"), "id", asked=asked),
        owner=owner,
        name=name,
        default_branch=text_of(body.get("default_branch"), "default_branch", asked=asked),
        archived=body.get("archived") is True,
        private=body.get("private") is True,
        permissions=tuple(quoted(name) for name, given in _optional(granted).items() if given is True),
    )


def branches(value: object, *, asked: str) -> dict[str, str]:
    """``git/matching-refs/heads/`` as branch → head."""
    heads: dict[str, str] = {}
    for item in list_of(value, asked=asked):
        ref = text_of(object_of(item, asked=asked).get("ref"), "ref", asked=asked)
        if not ref.startswith(HEADS) or ref == HEADS:
            _bad(asked, "a ref that is no branch")
        heads[ref.removeprefix(HEADS)] = sha_of(
            object_of(item.get("object"), asked=asked).get("sha"), "sha", asked=asked
        )
    return heads


def tree(value: object, tree_sha: str, *, asked: str) -> RemoteTree:
    """A tree listing. The ``sha`` it echoes is not relied on: it may be the commit's, the proof is in the entries."""
    body = object_of(value, asked=asked)
    truncated = body.get("truncated", False)
    if not isinstance(truncated, bool):
        _bad(asked, "no truncated flag")
    entries = tuple(_entry(item, asked=asked) for item in list_of(body.get("tree"), asked=asked))
    return RemoteTree(tree_sha, entries, truncated)


def commit(value: object, *, asked: str) -> Commit:
    """A commit as REST lists it; names and dates may be missing in damaged history, ids may not."""
    body = object_of(value, asked=asked)
    detail = object_of(body.get("commit"), asked=asked)
    author = _optional(detail.get("author"))
    parents = list_of(body.get("parents"), asked=asked)
    return Commit(
        sha=sha_of(body.get("sha"), "sha", asked=asked),
        tree_sha=sha_of(object_of(detail.get("tree"), asked=asked).get("sha"), "tree sha", asked=asked),
        parents=tuple(sha_of(object_of(p, asked=asked).get("sha"), "parent sha", asked=asked) for p in parents),
        author_name=_words(author.get("name")),
        author_email=_words(author.get("email")),
        authored_at=_words(author.get("date")),
        committed_at=_words(_optional(detail.get("committer")).get("date")),
        message=_words(detail.get("message")),
    )


def comparison(value: object, base: str, *, asked: str) -> Comparison:
    """How two commits relate, checked to be about ``base``."""
    body = object_of(value, asked=asked)
    status = _relation(body, base, asked=asked)
    ahead = count_of(body.get("ahead_by"), "ahead_by", asked=asked)
    return Comparison(status, ahead, count_of(body.get("behind_by"), "behind_by", asked=asked))


def difference(value: object, base: str, *, asked: str) -> Difference:
    """The first page of a comparison, checked to be about ``base``; ``ahead`` is a change of ``base`` itself."""
    body = object_of(value, asked=asked)
    status = _relation(body, base, asked=asked)
    if status == "ahead" and object_of(body.get("merge_base_commit"), asked=asked).get("sha") != base:
        _bad(asked, "a comparison that is ahead of another commit")
    return Difference(
        status,
        count_of(body.get("total_commits"), "total_commits", asked=asked),
        tuple(commit(item, asked=asked) for item in list_of(body.get("commits"), asked=asked)),
        tuple(_file(item, asked=asked) for item in list_of(body.get("files"), asked=asked)),
    )


def _relation(body: dict[str, Any], base: str, *, asked: str) -> str:
    if body.get("status") not in _STATUSES:
        _bad(asked, "no status")
    if object_of(body.get("base_commit"), asked=asked).get("sha") != base:
        _bad(asked, "a comparison with another base")
    return str(body["status"])


def _file(value: object, *, asked: str) -> ChangedFile:
    item = object_of(value, asked=asked)
    sha, previous = item.get("sha"), item.get("previous_filename")
    return ChangedFile(
        path=text_of(item.get("filename"), "filename", asked=asked),
        status=text_of(item.get("status"), "status of a file", asked=asked),
        sha=None if sha is None else sha_of(sha, "sha", asked=asked),
        previous=None if previous is None else text_of(previous, "previous filename", asked=asked),
    )


def blob(body: bytes, sha: str, *, asked: str) -> bytes:
    """The content with the id ``sha``: the body itself, or what its JSON holds as base64 (an API that ignores raw)."""
    if blob_sha(body) == sha:
        return body
    content = _base64_content(body)
    if content is not None and blob_sha(content) == sha:
        return content
    return _bad(asked, "content with another id")


def blob_sha(content: bytes) -> str:
    """The git object id of ``content`` as a blob."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _entry(value: object, *, asked: str) -> RemoteEntry:
    item = object_of(value, asked=asked)
    mode, size = item.get("mode"), item.get("size")
    if item.get("type") not in _ENTRY_TYPES or not isinstance(mode, str) or not _MODE.fullmatch(mode):
        _bad(asked, "an entry of unknown type or mode")
    return RemoteEntry(
        path=text_of(item.get("path"), "path", asked=asked),
        mode=mode,
        sha=sha_of(item.get("sha"), "sha", asked=asked),
        size=None if size is None else count_of(size, "size", asked=asked),
    )


def _base64_content(body: bytes) -> bytes | None:
    try:
        value = json.loads(body)
        if not isinstance(value, dict) or value.get("encoding") != "base64":
            return None
        return base64.b64decode(value["content"])
    except (ValueError, TypeError, KeyError, RecursionError, binascii.Error):
        return None


def _optional(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _words(value: object) -> str:
    return _SURROGATES.sub("\ufffd", value) if isinstance(value, str) else ""


def _bad(asked: str, what: str) -> NoReturn:
    raise BadAnswer(f"{asked}: GitHub's answer holds {what}; it is not used, and asked for again later")
