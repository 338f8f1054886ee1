"""The client against the stand-in, with git as the oracle."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon import errors
from daemon.clock import Clock
from daemon.demo.standin import GitRepo, StandIn
from daemon.github import ClientSettings, GitHubClient, Governor
from daemon.model import HeadsQuery, RepositoryRef

TOKEN = "ghp_standin"
REF = RepositoryRef("octo", "data")


@pytest.fixture
def standin() -> Iterator[StandIn]:
    with StandIn(token=TOKEN) as standin:
        yield standin


@pytest.fixture
def git(tmp_path: Path, standin: StandIn) -> GitRepo:
    git = GitRepo.init(tmp_path / "data.git")
    git.commit({"README.md": b"# Data\n", "docs/a/b.md": b"deep\n"}, "Begin")
    git.commit({"docs/page.md": b"caf\xc3\xa9\n\0", "empty": b""}, "Add")
    git.commit({"x": b"x"}, "Branch", branch="feature/x#1%ü")
    standin.add("octo/data", git.path, github_id=70)
    return git


@pytest.fixture(params=["", "/api/v3"], ids=["github.com", "enterprise"])
def client(standin: StandIn, request: pytest.FixtureRequest) -> Iterator[GitHubClient]:
    graphql = f"{standin.url}/api/graphql" if request.param else f"{standin.url}/graphql"
    clock = Clock()
    settings = ClientSettings(standin.url + request.param, graphql, 10.0, lambda: TOKEN)
    client = GitHubClient(settings, clock=clock, governor=Governor(clock))
    yield client
    client.close()


def test_what_is_read_is_what_git_has(git: GitRepo, client: GitHubClient) -> None:
    head = git.head()
    assert head is not None
    assert client.repository(REF).default_branch == "main"
    assert client.branches(REF) == git.branches()
    assert {name: client.head(REF, name) for name in git.branches()} == git.branches()
    assert client.head(REF, "main", known=head) == head
    history = client.commits(REF, head, limit=10)
    assert [commit.sha for commit in history] == git.log()
    assert history[0].tree_sha == git.tree_sha()
    listed = client.tree(REF, history[0].tree_sha, recursive=True)
    blobs = {entry.path: entry.sha for entry in listed.entries if entry.mode != "040000"}
    assert blobs == {entry.path.decode(): entry.sha for entry in git.ls_tree()}
    for sha in blobs.values():
        assert client.blob(REF, sha, max_bytes=1000) == git.cat(sha)


def test_an_archive_holds_the_files_of_the_commit(git: GitRepo, client: GitHubClient) -> None:
    head = git.head()
    assert head is not None
    with client.tarball(REF, head, max_bytes=10**6) as pieces:
        packed = b"".join(pieces)
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(packed))) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    assert names == {entry.path.decode() for entry in git.ls_tree()}


def test_two_commits_are_compared(git: GitRepo, client: GitHubClient) -> None:
    new, old = git.log()
    assert client.compare(REF, old, new).status == "ahead"
    assert client.compare(REF, new, old).status == "behind"
    assert client.compare(REF, new, new).status == "identical"
    with pytest.raises(errors.ObjectNotFound):
        client.compare(REF, "0" * 39 + "1", new)


def test_heads_are_the_same_by_graphql_and_by_rest(git: GitRepo, client: GitHubClient) -> None:
    query = HeadsQuery(REF, ("feature/x#1%ü", "gone"))
    expected = {"main": git.head(), "feature/x#1%ü": git.head("feature/x#1%ü"), "gone": None}
    (by_graphql,) = client.heads([query])
    by_rest = client.heads_by_rest(query)
    assert by_graphql.heads == by_rest.heads == expected
    assert by_graphql.repository == by_rest.repository


def test_a_renamed_repository_is_followed_and_a_new_one_under_its_name_is_not(
    git: GitRepo, standin: StandIn, client: GitHubClient
) -> None:
    known = RepositoryRef("octo", "data", 70)
    standin.rename("octo/data", "octo/renamed")
    assert client.repository(known).name == "renamed"
    assert client.head(known, "main") == git.head()
    (heads,) = client.heads([HeadsQuery(known)])
    assert heads.repository is not None
    assert heads.repository.name == "renamed"
    standin.add("octo/data", git.path, github_id=71)
    assert client.repository(known).name == "renamed"
    assert isinstance(client.heads([HeadsQuery(known)])[0].error, errors.RepositoryReplaced)
    (settled,) = client.settle([HeadsQuery(known)], client.heads([HeadsQuery(known)]))
    assert settled.repository is not None
    assert (settled.repository.name, settled.heads) == ("renamed", {"main": git.head()})
    standin.remove("octo/renamed")
    with pytest.raises(errors.RepositoryRecreated):
        client.repository(known)


def test_an_empty_and_a_missing_repository_are_told_apart(
    tmp_path: Path, standin: StandIn, client: GitHubClient
) -> None:
    standin.add("octo/empty", GitRepo.init(tmp_path / "empty.git").path)
    empty, missing = RepositoryRef("octo", "empty"), RepositoryRef("octo", "missing")
    with pytest.raises(errors.RepositoryEmpty):
        client.head(empty, "main")
    with pytest.raises(errors.RepositoryNotFound):
        client.head(missing, "main")
    nothing, nowhere = client.heads([HeadsQuery(empty), HeadsQuery(missing)])
    assert nothing.repository is not None
    assert nothing.repository.default_branch is None
    assert client.heads_by_rest(HeadsQuery(empty)).repository == nothing.repository
    assert isinstance(nowhere.error, errors.RepositoryNotFound)


def test_objects_that_are_not_there_are_told_apart(git: GitRepo, client: GitHubClient) -> None:
    with pytest.raises(errors.BranchNotFound):
        client.head(REF, "gone")
    with pytest.raises(errors.ObjectNotFound):
        client.tree(REF, "1" * 40, recursive=True)
    with pytest.raises(errors.ObjectNotFound), client.tarball(REF, "1" * 40, max_bytes=100):
        pass


def test_a_hundred_repositories_cost_one_request(git: GitRepo, standin: StandIn, client: GitHubClient) -> None:
    names = [f"r{i}" for i in range(100)]
    for name in names:
        standin.add(f"octo/{name}", git.path)
    with client.tally() as tally:
        heads = client.heads([HeadsQuery(RepositoryRef("octo", name)) for name in names])
    assert [one.heads for one in heads] == [{"main": git.head()}] * 100
    assert tally.requests == 1
    assert set(client.governor.snapshot()["resources"]) == {"graphql"}
