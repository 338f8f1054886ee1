"""The payload of a push, built from the commits themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from daemon.demo.standin.objects import CommitObject, Signature, Touched, touched
from daemon.demo.standin.repositories import ServedRepository
from daemon.demo.standin.shapes import Shapes
from daemon.model import ZERO_SHA

MOST_COMMITS = 2048


@dataclass(frozen=True, slots=True)
class Push:
    """One ref that moved: the zero id stands before a creation and after a deletion."""

    ref: str
    before: str
    after: str


def sender(shapes: Shapes, login: str) -> dict[str, Any]:
    return {"login": login, "id": 1, "type": "User", "url": f"{shapes.url}/users/{login}", "site_admin": False}


def hook_repository(shapes: Shapes, repository: ServedRepository, *, push: bool) -> dict[str, Any]:
    """The ``repository`` of a payload: in a push, and only there, the times are epoch seconds."""
    shape = shapes.repository(repository)
    if push:
        shape["created_at"] = int(repository.created_at.timestamp())
        shape["pushed_at"] = int(repository.pushed_at.timestamp())
        shape["owner"] = {**shape["owner"], "name": repository.owner, "email": None}
        shape["master_branch"] = repository.default_branch
        shape["stargazers"] = 0
    del shape["permissions"]
    return shape


def push_payload(shapes: Shapes, repository: ServedRepository, push: Push, login: str) -> dict[str, Any]:
    """What GitHub sends for this push: at most 2048 commits, oldest first, none for what other branches have."""
    commits = _new_commits(repository, push)
    head = repository.commit(push.after)
    wanted = [*commits, *([head] if head is not None else [])]
    paths = touched(repository.git, wanted)
    page = f"{shapes.url}/{repository.full_name}"
    listed = [_commit(page, commit, paths[commit.sha]) for commit in commits]
    return {
        "ref": push.ref,
        "before": push.before,
        "after": push.after,
        "repository": hook_repository(shapes, repository, push=True),
        "pusher": {"name": login, "email": f"{login}@example.com"},
        "sender": sender(shapes, login),
        "created": push.before == ZERO_SHA,
        "deleted": push.after == ZERO_SHA,
        "forced": _is_forced(repository, push),
        "base_ref": None,
        "compare": f"{page}/compare/{push.before[:12]}...{push.after[:12]}",
        "commits": listed,
        "head_commit": _commit(page, head, paths[head.sha]) if head is not None else None,
    }


def _new_commits(repository: ServedRepository, push: Push) -> list[CommitObject]:
    if push.after == ZERO_SHA or repository.commit(push.after) is None:
        return []
    if push.before == ZERO_SHA:
        known = [sha for name, sha in repository.refs.under("refs/heads/").items() if name != push.ref]
    else:
        known = [push.before]
    wanted = "\n".join([push.after, *(f"^{sha}" for sha in known), ""]).encode()
    listing = repository.git.run("rev-list", "--stdin", "--ignore-missing", f"--max-count={MOST_COMMITS}", data=wanted)
    shas = reversed(listing.decode().split())
    return [commit for commit in map(repository.commit, shas) if commit is not None]


def _is_forced(repository: ServedRepository, push: Push) -> bool:
    if ZERO_SHA in {push.before, push.after}:
        return False
    return repository.git.attempt("merge-base", "--is-ancestor", push.before, push.after) is None


def _commit(page: str, commit: CommitObject, paths: Touched) -> dict[str, Any]:
    return {
        "id": commit.sha,
        "tree_id": commit.tree,
        "distinct": True,
        "message": commit.message,
        "timestamp": commit.committer.local(),
        "url": f"{page}/commit/{commit.sha}",
        "author": _person(commit.author),
        "committer": _person(commit.committer),
        "added": list(paths.added),
        "removed": list(paths.removed),
        "modified": list(paths.modified),
    }


def _person(signature: Signature) -> dict[str, str]:
    return {"name": signature.name, "email": signature.email}
