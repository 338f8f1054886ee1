"""The stand-in's REST API: GitHub's shapes and statuses, with git as the oracle of what they say."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from harness import TOKEN
from urllib3.util import SKIP_HEADER

from daemon.demo.standin import GitRepo, StandIn, Submodule, Symlink, executable

SHA = {"Accept": "application/vnd.github.sha"}
RAW = {"Accept": "application/vnd.github.raw+json"}
UNKNOWN = "f" * 40


class Api:
    """Asks the stand-in as a client with the token does."""

    def __init__(self, url: str, token: str | None = TOKEN) -> None:
        self.url = url
        self.session = requests.Session()
        self.session.trust_env = False
        if token is not None:
            self.session.headers["Authorization"] = f"Bearer {token}"

    def ask(self, path: str, *, method: str = "GET", **more: Any) -> requests.Response:
        url = path if path.startswith("http") else self.url + path
        return self.session.request(method, url, timeout=10, allow_redirects=False, **more)

    def get(self, path: str, **headers: str) -> requests.Response:
        return self.ask(path, headers=headers)

    def json(self, path: str) -> Any:
        answer = self.get(path)
        assert answer.status_code == 200, (path, answer.status_code, answer.text)
        return answer.json()


@pytest.fixture
def api(github: StandIn) -> Iterator[Api]:
    api = Api(github.url)
    with api.session:
        yield api


@pytest.fixture
def anonymous(github: StandIn) -> Iterator[Api]:
    api = Api(github.url, None)
    with api.session:
        yield api


def fails(answer: requests.Response, status: int, message: str) -> None:
    assert (answer.status_code, answer.json()["message"]) == (status, message)


def git(repo: GitRepo, *arguments: str) -> str:
    return repo.git.run(*arguments).decode().strip()


# Who may ask


@pytest.mark.parametrize(
    "given", [None, "Bearer wrong", "Bearer", f"Basic {TOKEN}", f"Bearer {TOKEN} x", "Bearer \xe9"]
)
def test_without_the_token_nothing_is_answered(anonymous: Api, repo: GitRepo, given: str | None) -> None:
    answer = anonymous.ask("/repos/octo/data", headers={"Authorization": given} if given else {})
    fails(answer, 401, "Bad credentials" if given else "Requires authentication")


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "token"])
def test_the_token_comes_under_either_scheme(anonymous: Api, repo: GitRepo, scheme: str) -> None:
    assert anonymous.get("/repos/octo/data", Authorization=f"{scheme} {TOKEN}").status_code == 200


def test_a_changed_token_makes_the_old_one_wrong_and_voids_json_etags(api: Api, repo: GitRepo, github: StandIn) -> None:
    etag = api.get("/repos/octo/data").headers["ETag"]
    assert api.ask("/repos/octo/data", headers={"If-None-Match": etag}).status_code == 304
    github.token = "other"
    fails(api.get("/repos/octo/data"), 401, "Bad credentials")
    api.session.headers["Authorization"] = "token other"
    assert api.ask("/repos/octo/data", headers={"If-None-Match": etag}).status_code == 200


def test_without_a_token_of_its_own_public_repositories_are_anyones(
    anonymous: Api, github: StandIn, repo: GitRepo
) -> None:
    github.token = None
    answer = anonymous.get("/repos/octo/data")
    assert (answer.status_code, answer.headers["X-RateLimit-Limit"]) == (200, "60")
    fails(anonymous.get("/repos/octo/data", Authorization="Bearer any"), 401, "Bad credentials")
    github.repository("octo/data").private = True
    for path in ("", "/commits", "/tarball"):
        fails(anonymous.get(f"/repos/octo/data{path}"), 404, "Not Found")


def test_a_request_without_a_user_agent_is_forbidden(api: Api, repo: GitRepo) -> None:
    answer = api.ask("/repos/octo/data", headers={"User-Agent": SKIP_HEADER})
    assert answer.status_code == 403


# One repository


def test_a_repository_has_githubs_shape(api: Api, repo: GitRepo, github: StandIn) -> None:
    served = github.repository("octo/data")
    served.archived = True
    shape = api.json("/repos/Octo/DATA")
    assert (shape["id"], shape["full_name"], shape["name"]) == (served.id, "octo/data", "data")
    assert (shape["default_branch"], shape["archived"], shape["private"]) == ("main", True, False)
    assert shape["owner"]["login"] == "octo"
    assert isinstance(shape["pushed_at"], str)
    assert served.id > 2**31
    assert api.json(f"/repositories/{served.id}") == shape
    assert api.json("/api/v3/repos/octo/data")["url"] == f"{github.url}/api/v3/repos/octo/data"


def test_an_old_name_redirects_to_the_id_until_somebody_takes_it(api: Api, repo: GitRepo, github: StandIn) -> None:
    served = github.repository("octo/data")
    github.rename("octo/data", "new/name")
    moved = api.get("/repos/octo/data/commits?per_page=1")
    fails(moved, 301, "Moved Permanently")
    assert moved.headers["Location"] == f"{github.url}/repositories/{served.id}/commits?per_page=1"
    assert api.json(moved.headers["Location"])[0]["sha"] == repo.head()
    assert api.ask("/repos/octo/data/hooks", method="POST", json={}).status_code == 307
    assert api.json(f"/repositories/{served.id}")["full_name"] == "new/name"
    taken = github.add("octo/data", repo.path)
    assert api.json("/repos/octo/data")["id"] == taken.id != served.id
    github.remove("octo/data")
    fails(api.get("/repos/octo/data"), 404, "Not Found")


def test_a_repository_that_is_removed_or_made_anew_is_another_one(api: Api, repo: GitRepo, github: StandIn) -> None:
    old = github.repository("octo/data").id
    new = github.recreate("octo/data").id
    assert api.json("/repos/octo/data")["id"] == new != old
    fails(api.get(f"/repositories/{old}"), 404, "Not Found")
    github.remove("octo/data")
    fails(api.get("/repos/octo/data"), 404, "Not Found")
    with pytest.raises(KeyError):
        github.repository("octo/data")


def test_two_repositories_cannot_have_one_name_or_id(repo: GitRepo, github: StandIn) -> None:
    with pytest.raises(ValueError, match="already served"):
        github.add("OCTO/data", repo.path)
    with pytest.raises(ValueError, match="already served"):
        github.add("octo/other", repo.path, github_id=github.repository("octo/data").id)
    github.add("octo/other", repo.path)
    with pytest.raises(ValueError, match="already served"):
        github.rename("octo/other", "octo/data")
    assert github.repository("octo/other").full_name == "octo/other"


@pytest.mark.parametrize("status", [403, 451])
def test_a_blocked_repository_says_so(api: Api, repo: GitRepo, github: StandIn, status: int) -> None:
    github.repository("octo/data").blocked = status
    fails(api.get("/repos/octo/data/commits/main"), status, "Repository access blocked")


@pytest.mark.parametrize(
    "path", ["/commits", "/commits/main", "/git/trees/main", "/git/blobs/" + UNKNOWN, "/git/matching-refs/heads/"]
)
def test_an_empty_repository_is_a_conflict(api: Api, github: StandIn, tmp_path: Path, path: str) -> None:
    github.add("octo/empty", GitRepo.init(tmp_path / "empty.git", branch="trunk").path)
    fails(api.get(f"/repos/octo/empty{path}"), 409, "Git Repository is empty.")
    assert api.json("/repos/octo/empty")["default_branch"] == "trunk"


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/repos",
        "/repos/octo",
        "/repos/octo/nope",
        "/repos/octo/data/nope",
        "/repos/octo/data/commits/%00",
        "/repos/octo/data/commits/" + "x" * 5000,
        "/repos/octo/data/commits/--help",
        "/repos/octo/data/git/trees/--help",
        "/repos/octo/data/git/trees/main:docs",
        "/repos/octo/data/git/ref/heads/..%2f..%2fconfig",
        "/repos/octo/data/compare/--a...--b",
        "/repos/octo/data/tarball/%FF",
        "/repos/octo/data/commits?sha=%00&page=9999999999999&per_page=-1",
        "/repos/octo/data/commits?path=%3A(top)",
        "/codeload/octo/data/legacy.tar.gz/main",
        "/codeload/../../etc/passwd",
        "/repositories/99999999999999999999",
    ],
)
def test_an_odd_request_gets_an_answer_and_nothing_breaks(api: Api, repo: GitRepo, path: str) -> None:
    assert api.get(path).status_code in {200, 404, 422}


# Commits


def test_commits_are_listed_as_git_lists_them_over_pages_by_id(api: Api, repo: GitRepo, github: StandIn) -> None:
    for number in range(5):
        repo.commit({"n": str(number)}, f"Number {number}\n\nbody")
    path, seen, pages = "/repos/octo/data/commits?per_page=3", [], 0
    while path:
        answer = api.get(path)
        assert answer.status_code == 200
        seen += answer.json()
        pages += 1
        path = answer.links.get("next", {}).get("url", "")
        assert not path or path.startswith(f"{github.url}/repositories/{github.repository('octo/data').id}/commits?")
    assert pages == 3
    assert [commit["sha"] for commit in seen] == repo.log()
    newest = seen[0]
    assert newest["commit"]["tree"]["sha"] == repo.tree_sha()
    assert newest["commit"]["message"] == "Number 4\n\nbody"
    assert newest["commit"]["author"] == {
        "name": "Ada Example",
        "email": "ada@example.com",
        "date": git(repo, "log", "-1", "--date=format:%Y-%m-%dT%H:%M:%SZ", "--format=%ad", repo.head() or ""),
    }
    assert [parent["sha"] for parent in newest["parents"]] == [repo.log()[1]]
    assert api.json("/repos/octo/data/commits?page=99") == []


def test_commits_start_anywhere_and_nowhere_is_404(api: Api, repo: GitRepo) -> None:
    first = repo.log()[-1]
    assert [each["sha"] for each in api.json(f"/repos/octo/data/commits?sha={first}")] == [first]
    fails(api.get(f"/repos/octo/data/commits?sha={UNKNOWN}"), 404, "Not Found")


def test_every_spelling_of_a_ref_names_its_commit(api: Api, repo: GitRepo) -> None:
    head = repo.head() or ""
    repo.reset("feature/\u00fc#%x", head)
    repo.tag("v1", head, annotation="First")
    names = ["main", "heads/main", "refs/heads/main", "HEAD", head, head[:8], "tags/v1", "v1"]
    for name in [*names, "heads/feature/%C3%BC%23%25x", "heads%2Fmain"]:
        answer = api.get(f"/repos/octo/data/commits/{name}", **SHA)
        assert (answer.status_code, answer.text) == (200, head), name


def test_a_head_as_a_bare_id_has_the_id_in_quotes_as_its_etag(api: Api, repo: GitRepo) -> None:
    head = repo.head() or ""
    answer = api.get("/repos/octo/data/commits/heads/main", **SHA)
    assert (answer.content, answer.headers["ETag"]) == (head.encode(), f'"{head}"')
    for asked, status in ((f'"{head}"', 304), (head, 200), (f'"{UNKNOWN}"', 200)):
        again = api.ask("/repos/octo/data/commits/heads/main", headers={**SHA, "If-None-Match": asked})
        assert again.status_code == status, asked
        assert again.headers["ETag"] == f'"{head}"'


@pytest.mark.parametrize("ref", ["nope", "heads/nope", UNKNOWN, "tags/main"])
def test_a_ref_that_is_not_there_is_422(api: Api, repo: GitRepo, ref: str) -> None:
    fails(api.get(f"/repos/octo/data/commits/{ref}"), 422, f"No commit found for SHA: {ref}")


def test_a_commit_is_still_there_by_id_after_a_force_push(api: Api, repo: GitRepo) -> None:
    lost = repo.head() or ""
    repo.reset("main", repo.log()[-1])
    assert api.json(f"/repos/octo/data/git/commits/{lost}")["tree"]["sha"] == repo.tree_sha(lost)


def test_odd_commits_are_shown_all_the_same(api: Api, repo: GitRepo) -> None:
    tree = repo.tree_sha()
    raw = f"tree {tree}\nauthor  <> 99999999999999 -1234\ncommitter X <x\nencoding nope\ngpgsig a\n b\n\n\xff".encode(
        "latin-1"
    )
    sha = repo._hash("commit", raw)
    repo.reset("odd", sha)
    shape = api.json("/repos/octo/data/git/commits/" + sha)
    assert shape["tree"]["sha"] == tree
    assert shape["author"]["date"] == "9999-12-30T23:59:59Z"
    assert shape["message"] == "\ufffd"


def test_a_commit_in_full_has_its_files(api: Api, repo: GitRepo) -> None:
    repo.commit({"docs/page.md": None, "docs/moved.md": b"a page\n", "new": b"1\n2\n"})
    shape = api.json("/repos/octo/data/commits/main")
    assert {(f["filename"], f["status"], f.get("previous_filename")) for f in shape["files"]} == {
        ("docs/moved.md", "renamed", "docs/page.md"),
        ("new", "added", None),
    }
    assert shape["stats"] == {"total": 2, "additions": 2, "deletions": 0}
    root = api.json(f"/repos/octo/data/commits/{repo.log()[-1]}")
    assert [f["status"] for f in root["files"]] == ["added", "added"]


# Trees and blobs


def ls_tree(repo: GitRepo, *options: str) -> list[dict[str, Any]]:
    entries = []
    for line in repo.git.run("ls-tree", "-l", "-z", *options, "main").split(b"\0"):
        if line:
            head, path = line.split(b"\t", 1)
            mode, kind, sha, size = head.decode().split()
            sized = {} if size == "-" else {"size": int(size)}
            entries.append({"path": path.decode("utf-8", "replace"), "mode": mode, "type": kind, "sha": sha, **sized})
    return entries


def test_a_tree_is_gits_listing(api: Api, repo: GitRepo) -> None:
    repo.commit(
        {
            "bin/tool": executable(b"#!"),
            "link": Symlink(b"x"),
            "vendor/lib": Submodule("1" * 40),
            "d/e/\u65e5\u672c": b"",
            b"d/\xe9": b"latin",
        }
    )
    for query, options in (("", ()), ("?recursive=1", ("-r", "-t")), ("?recursive=0", ("-r", "-t"))):
        shape = api.json(f"/repos/octo/data/git/trees/{repo.tree_sha()}{query}")
        assert (shape["sha"], shape["truncated"]) == (repo.tree_sha(), False)
        assert [{k: v for k, v in entry.items() if k != "url"} for entry in shape["tree"]] == ls_tree(repo, *options)
    submodule = next(entry for entry in shape["tree"] if entry["path"] == "vendor/lib")
    assert "url" not in submodule
    assert "size" not in submodule


def test_a_tree_by_commit_or_branch_calls_itself_by_the_commit(api: Api, repo: GitRepo) -> None:
    for name in (repo.head(), "main"):
        shape = api.json(f"/repos/octo/data/git/trees/{name}")
        assert shape["sha"] == repo.head()
        assert [entry["path"] for entry in shape["tree"]] == ["README.md", "docs"]
    fails(api.get(f"/repos/octo/data/git/trees/{UNKNOWN}"), 404, "Not Found")


@pytest.mark.parametrize(("setting", "value"), [("tree_limit", 7), ("tree_bytes_limit", 7 * 28 + 60)])
def test_a_long_recursive_listing_is_cut_and_says_so(
    api: Api, repo: GitRepo, github: StandIn, setting: str, value: int
) -> None:
    repo.commit({f"files/{number:02}": b"x" for number in range(20)})
    setattr(github, setting, value)
    whole = ls_tree(repo, "-r", "-t")
    shape = api.json("/repos/octo/data/git/trees/main?recursive=1")
    assert shape["truncated"] is True
    assert 0 < len(shape["tree"]) <= 7
    assert [e["path"] for e in shape["tree"]] == [e["path"] for e in whole][: len(shape["tree"])]
    flat = api.json(f"/repos/octo/data/git/trees/{repo.tree_sha()}")
    assert flat["truncated"] is False


@pytest.mark.parametrize("content", [b"", b"x", bytes(range(256)) * 300])
def test_a_blob_comes_in_base64_or_raw(api: Api, repo: GitRepo, content: bytes) -> None:
    sha = repo.write_blob(content)
    shape = api.json(f"/repos/octo/data/git/blobs/{sha}")
    assert (shape["encoding"], shape["size"], shape["sha"]) == ("base64", len(content), sha)
    assert base64.b64decode(shape["content"]) == content
    assert max(map(len, shape["content"].split("\n"))) <= 60
    raw = api.get(f"/repos/octo/data/git/blobs/{sha}", **RAW)
    assert (raw.status_code, raw.content) == (200, content)


def test_what_is_no_blob_is_not_given(api: Api, repo: GitRepo, github: StandIn) -> None:
    for sha in (UNKNOWN, repo.tree_sha(), repo.head()):
        fails(api.get(f"/repos/octo/data/git/blobs/{sha}"), 404, "Not Found")
    message = "The sha parameter must be exactly 40 characters and contain only [0-9a-f]."
    fails(api.get("/repos/octo/data/git/blobs/main"), 422, message)
    github.blob_limit_bytes = 3
    answer = api.get(f"/repos/octo/data/git/blobs/{repo.ls_tree()[0].sha}")
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (403, "too_large")


# Refs and comparisons


def test_matching_refs_match_by_prefix_and_have_no_pages(api: Api, repo: GitRepo) -> None:
    head = repo.head() or ""
    for number in range(120):
        repo.reset(f"feature/{number:03}", head)
    tag = repo.tag("v1", head, annotation="x")

    def names(prefix: str) -> list[str]:
        return [ref["ref"] for ref in api.json(f"/repos/octo/data/git/matching-refs/{prefix}")]

    assert names("heads/") == list(repo.refs("refs/heads/"))
    assert len(names("heads/feature/0")) == 100
    assert names("heads/mai") == ["refs/heads/main"]
    assert names("heads/none") == []
    assert api.json("/repos/octo/data/git/matching-refs/tags/")[0]["object"]["type"] == "tag"
    assert api.json("/repos/octo/data/git/ref/heads/main")["object"]["sha"] == head
    assert api.json("/repos/octo/data/git/ref/tags/v1")["object"]["sha"] == tag
    fails(api.get("/repos/octo/data/git/ref/heads/mai"), 404, "Not Found")


def test_branches_are_listed_in_pages(api: Api, repo: GitRepo) -> None:
    for number in range(3):
        repo.reset(f"b{number}", repo.head() or "")
    first = api.get("/repos/octo/data/branches?per_page=2")
    second = api.get(first.links["next"]["url"])
    assert [b["name"] for b in [*first.json(), *second.json()]] == ["b0", "b1", "b2", "main"]
    assert "next" not in second.links
    assert api.json("/repos/octo/data/branches/main")["commit"]["sha"] == repo.head()
    fails(api.get("/repos/octo/data/branches/none"), 404, "Branch not found")


def test_a_comparison_says_how_two_commits_relate(api: Api, repo: GitRepo) -> None:
    base = repo.head() or ""
    repo.reset("side", base)
    head = repo.commit({"a": "1"})
    side = repo.commit({"b": "1"}, branch="side")

    def compare(old: str, new: str) -> tuple[str, int, int, list[str], list[str]]:
        shape = api.json(f"/repos/octo/data/compare/{old}...{new}")
        commits = [commit["sha"] for commit in shape["commits"]]
        assert shape["merge_base_commit"]["sha"] == git(repo, "merge-base", old, new)
        return shape["status"], shape["ahead_by"], shape["behind_by"], commits, [f["filename"] for f in shape["files"]]

    assert compare(base, head) == ("ahead", 1, 0, [head], ["a"])
    assert compare(head, base) == ("behind", 0, 1, [], [])
    assert compare("main", "main") == ("identical", 0, 0, [], [])
    assert compare("side", "main") == ("diverged", 1, 1, [head], ["a"])
    assert compare(head, side) == ("diverged", 1, 1, [side], ["b"])


def test_a_comparison_names_what_changed_in_each_file(api: Api, repo: GitRepo) -> None:
    repo.commit({"keep": "1", "old": "content of some length\n" * 3, "gone": "1\n", "mode": "m", "kind": "k"})
    base = repo.head()
    repo.commit(
        {
            "keep": "2",
            "old": None,
            "moved": "content of some length\n" * 3,
            "gone": None,
            "new": "n",
            "mode": executable(b"m"),
            "kind": Symlink(b"k"),
            "vendor": Submodule("1" * 40),
        }
    )
    files = {f["filename"]: f for f in api.json(f"/repos/octo/data/compare/{base}...main")["files"]}
    blobs = {entry.path.decode(): entry.sha for entry in repo.ls_tree()}
    assert {name: f["status"] for name, f in files.items()} == {
        "keep": "modified",
        "moved": "renamed",
        "gone": "removed",
        "new": "added",
        "mode": "modified",
        "kind": "changed",
        "vendor": "added",
    }
    assert all(f["sha"] == blobs[name] for name, f in files.items() if name != "gone")
    assert files["gone"]["sha"] == repo.write_blob(b"1\n")
    assert files["moved"]["previous_filename"] == "old"
    assert not any("mode" in f for f in files.values())


def test_a_comparison_stops_at_300_files_without_a_word(api: Api, repo: GitRepo) -> None:
    base = repo.head()
    repo.commit({f"f/{number:03}": "x" for number in range(301)})
    shape = api.json(f"/repos/octo/data/compare/{base}...main")
    assert len(shape["files"]) == 300
    assert api.json(f"/repos/octo/data/compare/{base}...main?page=2")["files"] == []


def test_a_comparison_gives_the_latest_250_commits_or_pages_from_the_oldest(api: Api, repo: GitRepo) -> None:
    base = repo.head() or ""
    script = b"".join(
        b"commit refs/heads/main\ncommitter A <a@b> %d +0000\ndata 1\nx%s\n"
        % (1_800_000_000 + number, b"\nfrom refs/heads/main^0" if number == 0 else b"")
        for number in range(260)
    )
    repo.git.run("fast-import", "--quiet", "--force", data=script)
    oldest_first = repo.log()[::-1][-260:]
    shape = api.json(f"/repos/octo/data/compare/{base}...main")
    assert (shape["ahead_by"], shape["total_commits"]) == (260, 260)
    assert [commit["sha"] for commit in shape["commits"]] == oldest_first[-250:]
    page = api.json(f"/repos/octo/data/compare/{base}...main?per_page=100&page=2")
    assert [commit["sha"] for commit in page["commits"]] == oldest_first[100:200]


def test_a_comparison_of_what_is_unknown_or_unrelated_is_404(api: Api, repo: GitRepo) -> None:
    fails(api.get(f"/repos/octo/data/compare/{UNKNOWN}...main"), 404, "Not Found")
    repo.commit({"z": "1"}, branch="orphan", parents=[], fresh=True)
    fails(api.get("/repos/octo/data/compare/main...orphan"), 404, "No common ancestor between main and orphan.")


# Archives


def members(raw: bytes) -> dict[str, tuple[int, bytes, str]]:
    with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
        return {
            member.name: (member.mode, (archive.extractfile(member) or io.BytesIO()).read(), member.linkname)
            if member.isfile()
            else (member.mode, b"", member.linkname)
            for member in archive
        }


def test_an_archive_is_gits_own_with_the_commit_in_its_header(api: Api, repo: GitRepo, anonymous: Api) -> None:
    repo.commit(
        {
            ".gitattributes": b"secret export-ignore\nversion export-subst\n",
            "secret": b"x",
            "version": b"$Format:%H$",
            "bin/tool": executable(b"#!"),
            "link": Symlink(b"x"),
            "vendor": Submodule("1" * 40),
        }
    )
    head = repo.head() or ""
    moved = api.get(f"/repos/octo/data/tarball/{head}")
    assert (moved.status_code, moved.content) == (302, b"")
    assert moved.headers["Location"].endswith(f"/codeload/octo/data/legacy.tar.gz/{head}")
    archive = anonymous.get(moved.headers["Location"])
    assert archive.status_code == 200
    assert archive.headers["Transfer-Encoding"] == "chunked"
    assert "Content-Length" not in archive.headers
    assert "X-RateLimit-Limit" not in archive.headers
    wanted = subprocess.run(
        ["git", "-C", repo.path, "archive", f"--prefix=octo-data-{head[:7]}/", head], capture_output=True, check=True
    )
    found = members(archive.content)
    assert found == members(wanted.stdout)
    assert found[f"octo-data-{head[:7]}/version"][1] == head.encode()
    assert f"octo-data-{head[:7]}/secret" not in found
    with tarfile.open(fileobj=io.BytesIO(archive.content)) as opened:
        assert opened.pax_headers["comment"] == head


def test_the_link_to_a_private_archive_works_once(api: Api, repo: GitRepo, github: StandIn, anonymous: Api) -> None:
    github.repository("octo/data").private = True
    link = api.get("/repos/octo/data/tarball").headers["Location"]
    bare, _, token = link.partition("?token=")
    assert anonymous.get(bare).status_code == 404
    assert anonymous.get(f"{bare}?token={'0' * len(token)}").status_code == 404
    assert anonymous.get(link).status_code == 200
    assert anonymous.get(link).status_code == 404


def test_an_archive_of_nothing_is_404(api: Api, repo: GitRepo, github: StandIn) -> None:
    fails(api.get("/repos/octo/data/tarball/nope"), 404, "Not Found")
    assert api.get(f"/codeload/octo/data/legacy.tar.gz/{UNKNOWN}").status_code == 404
    assert api.get(f"/codeload/octo/none/legacy.tar.gz/{UNKNOWN}").status_code == 404


# The service


def test_every_answer_carries_the_limit_and_an_id(api: Api, repo: GitRepo) -> None:
    first, second = api.get("/repos/octo/data"), api.get("/repos/octo/nope")
    assert int(first.headers["X-RateLimit-Remaining"]) - int(second.headers["X-RateLimit-Remaining"]) == 1
    for answer in (first, second):
        assert answer.headers["X-RateLimit-Limit"] == "5000"
        assert answer.headers["X-RateLimit-Resource"] == "core"
        assert {"date", "x-github-request-id", "x-ratelimit-used", "x-ratelimit-reset"} <= set(answer.headers)
    assert first.headers["X-OAuth-Scopes"] == "repo, admin:repo_hook"


def test_a_fine_grained_token_has_no_scopes_header(api: Api, github: StandIn) -> None:
    github.scopes = None
    assert "X-OAuth-Scopes" not in api.get("/user").headers


def test_large_json_is_compressed_for_those_who_take_it(api: Api, repo: GitRepo) -> None:
    repo.commit({f"f/{number}": "x" for number in range(50)})
    path = "/repos/octo/data/git/trees/main?recursive=1"
    packed, plain = api.get(path), api.ask(path, headers={"Accept-Encoding": "identity"})
    assert (packed.headers.get("Content-Encoding"), plain.headers.get("Content-Encoding")) == ("gzip", None)
    assert packed.json() == plain.json()
    assert int(packed.headers["Content-Length"]) < len(plain.content)


def test_a_head_request_has_the_length_and_no_body(api: Api, repo: GitRepo) -> None:
    body = api.get("/repos/octo/data").content
    answer = api.ask("/repos/octo/data", method="HEAD")
    assert (answer.status_code, answer.headers["Content-Length"], answer.content) == (200, str(len(body)), b"")
    assert api.get("/repos/octo/data").content == body


def test_owners_list_their_repositories(api: Api, repo: GitRepo, github: StandIn) -> None:
    github.add("octo/secret", repo.path, private=True)
    github.add("octocat/mine", repo.path)

    def names(path: str) -> list[str]:
        return [each["full_name"] for each in api.json(path)]

    assert names("/orgs/Octo/repos") == ["octo/data", "octo/secret"]
    assert names("/users/octo/repos") == ["octo/data"]
    assert names("/user/repos?per_page=2&page=2") == ["octocat/mine"]
    assert api.json("/users/octo")["type"] == "Organization"
    assert api.json("/users/octocat")["type"] == "User"
    assert api.json("/user")["login"] == "octocat"
    fails(api.get("/orgs/octocat/repos"), 404, "Not Found")
    fails(api.get("/orgs/nobody/repos"), 404, "Not Found")
    assert api.json("/installation/repositories")["total_count"] == 3


def test_the_hook_addresses_are_published(api: Api) -> None:
    assert "192.30.252.0/22" in api.json("/meta")["hooks"]


def test_requests_are_logged_before_they_are_answered(api: Api, repo: GitRepo, github: StandIn) -> None:
    api.ask("/repos/octo/data/commits/main?x=1", headers={**SHA, "If-None-Match": '"a"'})
    entry = github.requests.all()[-1]
    assert (entry.method, entry.path, entry.query, entry.status) == ("GET", "/repos/octo/data/commits/main", "x=1", 200)
    assert entry.headers["if-none-match"] == '"a"'
    assert github.requests.count("/repos/octo/data") == 1
    assert github.requests.count("/repos", method="POST") == github.requests.count(status=404) == 0
    assert github.requests.wait_for(lambda entries: len(entries) == 1, timeout=0.1)
    github.requests.clear()
    assert (len(github.requests), github.requests.paths()) == (0, [])


def test_a_plain_work_tree_is_served_like_a_bare_repository(api: Api, github: StandIn, tmp_path: Path) -> None:
    plain = GitRepo.init(tmp_path / "plain", bare=False)
    head = plain.commit({"a": "1"})
    github.add("octo/plain", tmp_path / "plain")
    assert api.get("/repos/octo/plain/commits/main", **SHA).text == head
    plain.git.run("repack", "-a", "-d", "-q")
    plain.git.run("pack-refs", "--all")
    newer = plain.commit({"a": "2"})
    assert api.json("/repos/octo/plain/commits")[0]["sha"] == newer


def test_a_stopped_stand_in_refuses_and_comes_back_on_the_same_port(repo: GitRepo, github: StandIn) -> None:
    with Api(github.url).session as session:
        url = f"{github.url}/repos/octo/data"
        session.headers["Authorization"] = f"Bearer {TOKEN}"
        assert session.get(url, timeout=30).status_code == 200
        github.stop()
        with pytest.raises(requests.ConnectionError):
            session.get(url, timeout=30)
        github.start()
        assert session.get(url, timeout=30).json()["full_name"] == "octo/data"
        with pytest.raises(RuntimeError):
            github.start()


def test_json_bodies_are_githubs(api: Api, repo: GitRepo) -> None:
    answer = api.get("/repos/octo/nope")
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    assert json.loads(answer.content)["documentation_url"].startswith("https://docs.github.com")
