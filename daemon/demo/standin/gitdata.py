"""The endpoints that read commits, trees, blobs, refs, comparisons and archives."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from typing import Any

from daemon.demo.standin.answers import Answer, Problem, json_answer, not_found
from daemon.demo.standin.calls import RepositoryCall, RepositoryRoute, repository_route
from daemon.demo.standin.gitprocess import GitObject
from daemon.demo.standin.objects import CommitObject, TreeEntry, diff, list_tree
from daemon.demo.standin.repositories import ServedRepository
from daemon.demo.standin.world import World
from daemon.model import EMPTY_TREE_SHA

MOST_FILES = 300
MOST_COMPARED_COMMITS = 250
_SHA = re.compile(r"[0-9a-f]{40}")
_BASE64_LINE_BYTES = 45  # GitHub's lines of base64 are 60 characters long


def routes() -> tuple[RepositoryRoute, ...]:
    return (
        repository_route("GET", r"/commits", list_commits),
        repository_route("GET", r"/commits/(.+)", get_commit),
        repository_route("GET", r"/git/commits/([^/]+)", get_git_commit),
        repository_route("GET", r"/git/trees/(.+)", get_tree),
        repository_route("GET", r"/git/blobs/([^/]+)", get_blob),
        repository_route("GET", r"/git/matching-refs/(.*)", matching_refs),
        repository_route("GET", r"/git/refs?/(.+)", get_ref),
        repository_route("GET", r"/branches", list_branches),
        repository_route("GET", r"/branches/(.+)", get_branch),
        repository_route("GET", r"/compare/(.+)\.\.\.(.+)", compare),
        repository_route("GET", r"/tarball(?:/(.+))?", tarball),
    )


def require_commits(repository: ServedRepository) -> None:
    if repository.empty:
        raise Problem(409, "Git Repository is empty.")


def list_commits(call: RepositoryCall) -> Answer:
    require_commits(call.repository)
    start = call.world.resolve(call.repository, call.request.query.get("sha") or "HEAD")
    if start is None:
        raise not_found()
    size, page = call.request.page_size(), max(1, call.request.number("page", 1))
    window = (f"--skip={(page - 1) * size}", f"--max-count={size + 1}")
    shas = call.repository.git.run("rev-list", *window, start, "--", *_wanted_path(call)).decode().split()
    shown = [call.shapes.commit(call.repository, commit) for commit in commits(call.repository, shas[:size])]
    links = call.call.page_links(f"{call.path}/commits", more=len(shas) > size, page=page + 1)
    return json_answer(shown, headers=links)


def _wanted_path(call: RepositoryCall) -> list[str]:
    path = call.request.query.get("path")
    return [f":(literal){path}"] if path else []


def commits(repository: ServedRepository, shas: Iterable[str]) -> list[CommitObject]:
    return [commit for commit in map(repository.commit, shas) if commit is not None]


def get_commit(call: RepositoryCall) -> Answer:
    """A commit by any ref; with ``Accept: application/vnd.github.sha`` its id alone, which is its ETag too."""
    require_commits(call.repository)
    ref = call.parts[0]
    commit = call.world.commit(call.repository, ref)
    if commit is None:
        raise Problem(422, f"No commit found for SHA: {ref}")
    if call.request.accepts("sha"):
        headers = {"content-type": "application/vnd.github.sha; charset=utf-8", "etag": f'"{commit.sha}"'}
        return Answer(200, commit.sha.encode(), headers)
    files = _files(call, commit.parents[0] if commit.parents else EMPTY_TREE_SHA, commit.sha)
    additions, deletions = (sum(file[key] for file in files) for key in ("additions", "deletions"))
    stats = {"total": additions + deletions, "additions": additions, "deletions": deletions}
    shape = call.shapes.commit(call.repository, commit)
    return json_answer({**shape, "stats": stats, "files": files[:MOST_FILES]})


def _files(call: RepositoryCall, old: str, new: str) -> list[dict[str, Any]]:
    return [call.shapes.file(call.repository, change, new) for change in diff(call.repository.git, old, new)]


def get_git_commit(call: RepositoryCall) -> Answer:
    require_commits(call.repository)
    found = _object(call, call.parts[0], "commit")
    commit = call.repository.commit(found.sha)
    if commit is None:
        raise not_found()
    return json_answer(call.shapes.git_commit(call.repository, commit))


def _object(call: RepositoryCall, sha: str, kind: str) -> GitObject:
    if not _SHA.fullmatch(sha):
        raise Problem(422, "The sha parameter must be exactly 40 characters and contain only [0-9a-f].")
    found = call.repository.object(sha)
    if found is None or found.type != kind or call.world.heads.hides(call.repository, sha):
        raise not_found()
    return found


def get_tree(call: RepositoryCall) -> Answer:
    """A tree; asked for by commit or branch, its ``sha`` is the commit's, as on GitHub."""
    require_commits(call.repository)
    sha = _tree_ish(call.world, call.repository, call.parts[0])
    if sha is None:
        raise not_found()
    # Any value of ``recursive`` turns it on, "0" and "false" too.
    recursive = "recursive" in call.request.query
    url = call.shapes.repository_url(call.repository)
    entries, truncated = _shown(call, list_tree(call.repository.git, sha, recursive=recursive), recursive=recursive)
    return json_answer({"sha": sha, "url": f"{url}/git/trees/{sha}", "tree": entries, "truncated": truncated})


def _tree_ish(world: World, repository: ServedRepository, ref: str) -> str | None:
    if _SHA.fullmatch(ref) and (found := repository.object(ref)) is not None and found.type in {"tree", "commit"}:
        return None if world.heads.hides(repository, ref) else ref
    return world.resolve(repository, ref)


def _shown(call: RepositoryCall, entries: Iterable[TreeEntry], *, recursive: bool) -> tuple[list[dict[str, Any]], bool]:
    options = call.world.options
    url = call.shapes.repository_url(call.repository)
    shown: list[dict[str, Any]] = []
    total_bytes = 0
    for entry in entries:
        # GitHub counts entries and bytes; of what it does not say: here, of the tree objects themselves.
        total_bytes += len(entry.path) + 28
        if recursive and (len(shown) >= options.tree_limit or total_bytes > options.tree_bytes_limit):
            return shown, True
        shown.append(_entry(url, entry))
    return shown, False


def _entry(url: str, entry: TreeEntry) -> dict[str, Any]:
    # JSON cannot name a path that is not UTF-8: it comes with U+FFFD in it, and its bytes are lost.
    path = entry.path.decode("utf-8", "replace")
    shape: dict[str, Any] = {"path": path, "mode": entry.mode, "type": entry.type, "sha": entry.sha}
    if entry.size is not None:
        shape["size"] = entry.size
    if entry.type != "commit":
        shape["url"] = f"{url}/git/{entry.type}s/{entry.sha}"
    return shape


def get_blob(call: RepositoryCall) -> Answer:
    require_commits(call.repository)
    found = _object(call, call.parts[0], "blob")
    if len(found.content) > call.world.options.blob_limit_bytes:
        error = {"resource": "Blob", "field": "data", "code": "too_large"}
        raise Problem(403, "This blob is too large to fetch through the API.", errors=[error])
    if call.request.accepts("raw"):
        return Answer(200, found.content, {"content-type": "application/vnd.github.raw+json; charset=utf-8"})
    url = call.shapes.repository_url(call.repository)
    shape = {
        "sha": found.sha,
        "node_id": f"B_{found.sha}",
        "size": len(found.content),
        "url": f"{url}/git/blobs/{found.sha}",
        "content": _base64_lines(found.content),
        "encoding": "base64",
    }
    return json_answer(shape)


def _base64_lines(content: bytes) -> str:
    starts = range(0, len(content), _BASE64_LINE_BYTES)
    return "".join(base64.b64encode(content[at : at + _BASE64_LINE_BYTES]).decode() + "\n" for at in starts)


def matching_refs(call: RepositoryCall) -> Answer:
    """Every ref that starts with the given text, ``heads/fea`` as well as ``heads/``. There are no pages."""
    require_commits(call.repository)
    return json_answer([_ref(call, name, sha) for name, sha in _refs(call, f"refs/{call.parts[0]}").items()])


def _refs(call: RepositoryCall, prefix: str) -> dict[str, str]:
    heads = call.world.heads.all(call.repository, prefix.removeprefix("refs/heads/")) if _in(prefix, "heads") else {}
    tags = call.repository.refs.under("refs/tags/") if _in(prefix, "tags") else {}
    found = {**{f"refs/heads/{name}": sha for name, sha in heads.items()}, **tags}
    return {name: sha for name, sha in found.items() if name.startswith(prefix)}


def _in(prefix: str, folder: str) -> bool:
    return f"refs/{folder}/".startswith(prefix) or prefix.startswith(f"refs/{folder}/")


def _ref(call: RepositoryCall, name: str, sha: str) -> dict[str, Any]:
    found = call.repository.object(sha)
    return call.shapes.ref(call.repository, name, sha, found.type if found is not None else "commit")


def get_ref(call: RepositoryCall) -> Answer:
    require_commits(call.repository)
    name = f"refs/{call.parts[0]}"
    sha = (
        call.world.heads.get(call.repository, name.removeprefix("refs/heads/"))
        if name.startswith("refs/heads/")
        else call.repository.refs.get(name)
    )
    if sha is None:
        raise not_found()
    return json_answer(_ref(call, name, sha))


def list_branches(call: RepositoryCall) -> Answer:
    heads = sorted(call.world.heads.all(call.repository).items())
    chosen, links = call.call.page(heads, f"{call.path}/branches")
    url = call.shapes.repository_url(call.repository)
    shown = [
        {"name": name, "commit": {"sha": sha, "url": f"{url}/commits/{sha}"}, "protected": False}
        for name, sha in chosen
    ]
    return json_answer(shown, headers=links)


def get_branch(call: RepositoryCall) -> Answer:
    name = call.parts[0]
    sha = call.world.heads.get(call.repository, name)
    commit = call.repository.commit(sha) if sha is not None else None
    if commit is None:
        raise Problem(404, "Branch not found")
    shape = {"name": name, "commit": call.shapes.commit(call.repository, commit), "protected": False}
    return json_answer(shape)


def compare(call: RepositoryCall) -> Answer:
    """How two commits relate; the files are those changed since the merge base, and only on the first page."""
    require_commits(call.repository)
    names = [part.rpartition(":")[2] for part in call.parts]
    base, head = (call.world.commit(call.repository, name) for name in names)
    if base is None or head is None:
        raise not_found()
    found = call.repository.git.attempt("merge-base", base.sha, head.sha)
    if found is None:
        raise Problem(404, f"No common ancestor between {names[0]} and {names[1]}.")
    merge_base = call.repository.commit(found.decode().split()[0])
    assert merge_base is not None
    return json_answer(_comparison(call, base, merge_base, head))


def _comparison(call: RepositoryCall, base: CommitObject, merge_base: CommitObject, head: CommitObject) -> Any:
    repository, url = call.repository, call.shapes.repository_url(call.repository)
    counts = repository.git.run("rev-list", "--left-right", "--count", f"{base.sha}...{head.sha}").split()
    behind, ahead = map(int, counts)
    listing = repository.git.run("rev-list", "--reverse", f"{base.sha}..{head.sha}").decode().split()
    first_page = max(1, call.request.number("page", 1)) == 1
    return {
        "url": f"{url}/compare/{base.sha}...{head.sha}",
        "base_commit": call.shapes.commit(repository, base),
        "merge_base_commit": call.shapes.commit(repository, merge_base),
        "status": _relation(ahead, behind),
        "ahead_by": ahead,
        "behind_by": behind,
        "total_commits": ahead,
        "commits": [call.shapes.commit(repository, each) for each in commits(repository, _page(call, listing))],
        "files": _files(call, merge_base.sha, head.sha)[:MOST_FILES] if first_page else [],
    }


def _relation(ahead: int, behind: int) -> str:
    if ahead and behind:
        return "diverged"
    return "ahead" if ahead else "behind" if behind else "identical"


def _page(call: RepositoryCall, shas: list[str]) -> list[str]:
    """Without paging the latest 250 commits, else pages from the oldest on."""
    query = call.request.query
    if "page" not in query and "per_page" not in query:
        return shas[-MOST_COMPARED_COMMITS:]
    size, number = call.request.page_size(), max(1, call.request.number("page", 1))
    return shas[(number - 1) * size : number * size]


def tarball(call: RepositoryCall) -> Answer:
    """A redirect to where archives are served; a private one carries a token instead of a login."""
    repository = call.repository
    sha = call.world.resolve(repository, call.parts[0] or "HEAD")
    if sha is None:
        raise not_found()
    path = f"/codeload/{repository.full_name}/legacy.tar.gz/{sha}"
    token = f"?token={call.world.links.make(path)}" if repository.private else ""
    return Answer(302, b"", {"location": f"{call.shapes.url}{path}{token}", "content-type": "text/html;charset=utf-8"})


def codeload(world: World, path: str, token: str) -> Answer:
    """The archive itself, streamed as git makes it, without a length. No Authorization is looked at."""
    _, _, owner, name, _, sha = path.split("/")
    repository = world.registry.named(f"{owner}/{name}")
    if repository is None or (repository.private and not world.links.use(token, path)):
        return _no_archive()
    commit = repository.commit(sha)
    if commit is None or world.heads.hides(repository, sha):
        return _no_archive()
    top = f"{repository.owner}-{repository.name}-{sha[:7]}"
    headers = {
        "content-type": "application/x-gzip",
        "content-disposition": f"attachment; filename={top}.tar.gz",
        "etag": f'W/"{sha}"',
    }
    # The fastest compression: nobody is served by a stand-in that competes for the processor.
    body = repository.git.stream("archive", "--format=tar.gz", "-1", f"--prefix={top}/", sha)
    return Answer(200, body, headers)


def _no_archive() -> Answer:
    return Answer(404, b"404: Not Found", {"content-type": "text/plain; charset=utf-8"})
