"""The JSON that GitHub's REST API makes of repositories, commits and files."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any

from daemon.demo.standin.objects import CommitObject, FileChange, Signature
from daemon.demo.standin.repositories import ServedRepository
from daemon.model import ZERO_SHA

_STATUS_OF_LETTER = {"A": "added", "D": "removed", "M": "modified", "R": "renamed", "C": "copied", "T": "changed"}


def instant(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def node_id(kind: str, key: object) -> str:
    return base64.b64encode(f"{len(kind):03}:{kind}{key}".encode()).decode()


class Shapes:
    """Builds the shapes with URLs below ``url``, the base that the request was sent to."""

    def __init__(self, url: str) -> None:
        self.url = url

    def repository_url(self, repository: ServedRepository) -> str:
        return f"{self.url}/repos/{repository.full_name}"

    def owner(self, repository: ServedRepository) -> dict[str, Any]:
        return {
            "login": repository.owner,
            "id": repository.owner_id,
            "node_id": node_id("User", repository.owner_id),
            "url": f"{self.url}/users/{repository.owner}",
            "html_url": f"{self.url}/{repository.owner}",
            "type": repository.owner_type,
            "site_admin": False,
        }

    def repository(self, repository: ServedRepository) -> dict[str, Any]:
        url = self.repository_url(repository)
        return {
            "id": repository.id,
            "node_id": node_id("Repository", repository.id),
            "name": repository.name,
            "full_name": repository.full_name,
            "private": repository.private,
            "owner": self.owner(repository),
            "html_url": f"{self.url}/{repository.full_name}",
            "description": None,
            "fork": repository.fork,
            "topics": list(repository.topics),
            "url": url,
            "archive_url": f"{url}/{{archive_format}}{{/ref}}",
            "commits_url": f"{url}/commits{{/sha}}",
            "trees_url": f"{url}/git/trees{{/sha}}",
            "created_at": instant(repository.created_at),
            "updated_at": instant(repository.pushed_at),
            "pushed_at": instant(repository.pushed_at),
            "size": 0,
            "archived": repository.archived,
            "disabled": repository.disabled,
            "visibility": "private" if repository.private else "public",
            "default_branch": repository.default_branch,
            "permissions": {
                "admin": repository.admin,
                "maintain": repository.admin,
                "push": repository.admin,
                "triage": True,
                "pull": True,
            },
        }

    def git_commit(self, repository: ServedRepository, commit: CommitObject) -> dict[str, Any]:
        """The shape of ``git/commits/{sha}``."""
        url = self.repository_url(repository)
        return {
            "sha": commit.sha,
            "node_id": node_id("Commit", f"{repository.id}:{commit.sha}"),
            "url": f"{url}/git/commits/{commit.sha}",
            "html_url": f"{self.url}/{repository.full_name}/commit/{commit.sha}",
            "author": _person(commit.author),
            "committer": _person(commit.committer),
            "tree": {"sha": commit.tree, "url": f"{url}/git/trees/{commit.tree}"},
            "message": commit.message,
            "parents": [
                {
                    "sha": sha,
                    "url": f"{url}/git/commits/{sha}",
                    "html_url": f"{self.url}/{repository.full_name}/commit/{sha}",
                }
                for sha in commit.parents
            ],
            "verification": {
                "verified": False,
                "reason": "unsigned",
                "signature": None,
                "payload": None,
                "verified_at": None,
            },
        }

    def commit(self, repository: ServedRepository, commit: CommitObject) -> dict[str, Any]:
        """The shape of ``commits`` and ``commits/{ref}``; author and committer are accounts, unknown here."""
        url = self.repository_url(repository)
        plain = self.git_commit(repository, commit)
        return {
            "sha": commit.sha,
            "node_id": plain["node_id"],
            "commit": {
                **{key: plain[key] for key in ("author", "committer", "message", "tree", "url", "verification")},
                "comment_count": 0,
            },
            "url": f"{url}/commits/{commit.sha}",
            "html_url": plain["html_url"],
            "comments_url": f"{url}/commits/{commit.sha}/comments",
            "author": None,
            "committer": None,
            "parents": [{**parent, "url": f"{url}/commits/{parent['sha']}"} for parent in plain["parents"]],
        }

    def file(self, repository: ServedRepository, change: FileChange, ref: str) -> dict[str, Any]:
        """One file of a comparison or a commit. There is no mode in it, on GitHub neither."""
        url, page = self.repository_url(repository), f"{self.url}/{repository.full_name}"
        path = change.path.decode("utf-8", "replace")
        shape: dict[str, Any] = {
            "sha": change.old_sha if change.new_sha == ZERO_SHA else change.new_sha,
            "filename": path,
            "status": _STATUS_OF_LETTER.get(change.status, "changed"),
            "additions": change.additions,
            "deletions": change.deletions,
            "changes": change.additions + change.deletions,
            "blob_url": f"{page}/blob/{ref}/{path}",
            "raw_url": f"{page}/raw/{ref}/{path}",
            "contents_url": f"{url}/contents/{path}?ref={ref}",
        }
        if change.previous is not None:
            shape["previous_filename"] = change.previous.decode("utf-8", "replace")
        return shape

    def ref(self, repository: ServedRepository, name: str, sha: str, kind: str) -> dict[str, Any]:
        url = self.repository_url(repository)
        folder = {"commit": "commits", "tag": "tags"}.get(kind, f"{kind}s")
        return {
            "ref": name,
            "node_id": node_id("Ref", f"{repository.id}:{name}"),
            "url": f"{url}/git/{name}",
            "object": {"sha": sha, "type": kind, "url": f"{url}/git/{folder}/{sha}"},
        }


def _person(signature: Signature) -> dict[str, str]:
    return {"name": signature.name, "email": signature.email, "date": signature.utc()}
