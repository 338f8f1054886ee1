"""What the client makes of answers that are whole; `test_github_wire` has those that are not."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from engines import PATIENCE_SECONDS
from github_peer import Peer, http

from daemon import errors
from daemon.clock import Clock
from daemon.github import ClientSettings, GitHubClient, Governor, RequestSeen
from daemon.github.shapes import blob_sha
from daemon.github.tokenfacts import expires_at
from daemon.model import EMPTY_BLOB_SHA, EMPTY_TREE_SHA, HeadsQuery, RemoteTree, RepositoryHeads, RepositoryRef

A, B, C = "a" * 40, "b" * 40, "c" * 40
REF = RepositoryRef("o", "r")
KNOWN = RepositoryRef("o", "r", 7)
REPOSITORY = {"id": 7, "full_name": "o/r", "default_branch": "main", "archived": False, "private": True}
HEAD = "/repos/o/r/commits/heads/main"
REFS = "/repos/o/r/git/matching-refs/heads/"

Make = Callable[..., GitHubClient]


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer()
    yield peer
    peer.close()


@pytest.fixture
def slept() -> list[float]:
    return []


@pytest.fixture
def make(peer: Peer, slept: list[float]) -> Iterator[Make]:
    made: list[GitHubClient] = []

    def make(**changes: object) -> GitHubClient:
        on_request = changes.pop("on_request", None)
        settings = {"api_url": peer.url, "graphql_url": f"{peer.url}/graphql", "timeout_seconds": PATIENCE_SECONDS}
        clock = Clock(sleep=slept.append)
        client = GitHubClient(
            ClientSettings(**(settings | {"token": lambda: "TOKEN"} | changes)),
            clock=clock,
            governor=Governor(clock),
            on_request=on_request,
        )
        made.append(client)
        return client

    yield make
    for client in made:
        client.close()


@pytest.fixture
def client(make: Make) -> GitHubClient:
    return make()


def commit(sha: str, *parents: str) -> dict:
    detail = {"tree": {"sha": C}, "message": "m", "author": None, "committer": None}
    return {"sha": sha, "parents": [{"sha": p} for p in parents], "commit": detail}


def graphql(*names: str) -> dict:
    fact = {"isArchived": False, "isPrivate": False, "defaultBranchRef": {"name": "main", "target": {"oid": A}}}
    return {"data": {f"r{i}": fact | {"databaseId": i + 1, "nameWithOwner": name} for i, name in enumerate(names)}}


def ids(count: int, start: int = 0) -> list[str]:
    return [f"{number:040x}" for number in range(start, start + count)]


# One repository


def test_a_request_says_who_asks_and_what_it_accepts(peer: Peer, client: GitHubClient) -> None:
    peer.on("/repos/o/r", http(200, REPOSITORY))
    client.repository(REF)
    headers = peer.requests[0].headers
    assert headers["authorization"] == "Bearer TOKEN"
    assert headers["user-agent"].startswith("headwater/")
    assert headers["accept"] == "application/vnd.github+json"
    assert headers["accept-encoding"] == "gzip"
    assert headers["x-github-api-version"] == "2022-11-28"
    assert "cookie" not in headers


def test_a_repository_comes_under_its_current_name(peer: Peer, client: GitHubClient) -> None:
    peer.on("/repos/o/r", http(301, {"message": "Moved"}, Location=f"{peer.url}/repositories/7"))
    peer.on("/repositories/7", http(200, REPOSITORY | {"full_name": "new/name"}))
    found = client.repository(KNOWN)
    assert (found.github_id, found.owner, found.name, found.default_branch) == (7, "new", "name", "main")
    assert peer.requests[1].headers["authorization"] == "Bearer TOKEN"


def test_a_repository_whose_name_is_gone_is_found_by_its_id(peer: Peer, client: GitHubClient) -> None:
    peer.on("/repos/o/r", http(404, {"message": "Not Found"}))
    peer.on("/repositories/7", http(200, REPOSITORY | {"full_name": "o/renamed"}))
    assert client.repository(KNOWN).name == "renamed"


def test_404_by_name_and_by_id_is_not_found_and_asked_once_each(peer: Peer, client: GitHubClient) -> None:
    peer.on("/repos/o/r", http(404, {"message": "Not Found"}))
    peer.on("/repositories/7", http(404, {"message": "Not Found"}))
    with pytest.raises(errors.RepositoryNotFound, match="deleted, is private, or the token may not see it"):
        client.repository(KNOWN)
    assert peer.paths() == ["/repos/o/r", "/repositories/7"]


def test_another_repository_under_the_name_is_replaced(peer: Peer, client: GitHubClient) -> None:
    peer.on("/repos/o/r", http(200, REPOSITORY | {"id": 8}))
    peer.on("/repositories/7", http(404, {"message": "Not Found"}))
    with pytest.raises(errors.RepositoryRecreated):
        client.repository(KNOWN)
    assert peer.paths() == ["/repos/o/r", "/repositories/7"]


def test_a_repository_whose_name_another_one_took_is_found_by_its_id(peer: Peer, client: GitHubClient) -> None:
    peer.on("/repos/o/r", http(200, REPOSITORY | {"id": 8}))
    peer.on("/repositories/7", http(200, REPOSITORY | {"full_name": "o/renamed"}))
    assert client.repository(KNOWN).name == "renamed"


def test_an_answer_by_id_about_another_repository_is_not_believed(peer: Peer, client: GitHubClient) -> None:
    peer.on("/repos/o/r", http(404, {"message": "Not Found"}))
    peer.on("/repositories/7", http(200, REPOSITORY | {"id": 8}))
    with pytest.raises(errors.BadAnswer):
        client.repository(KNOWN)


def test_a_token_that_sees_nothing_any_more_costs_no_request_for_each_repository(
    peer: Peer, client: GitHubClient
) -> None:
    queries = [HeadsQuery(RepositoryRef("o", f"r{number}", number)) for number in range(1, 31)]
    lost = [RepositoryHeads(None, error=errors.RepositoryNotFound("gone")) for _ in queries]
    for number in range(1, 31):
        peer.on(f"/repos/o/r{number}", http(404, {"message": "Not Found"}))
        peer.on(f"/repositories/{number}", http(404, {"message": "Not Found"}))
    assert all(isinstance(answer.error, errors.RepositoryNotFound) for answer in client.settle(queries, lost))
    assert len(peer.requests) == 20


@pytest.mark.parametrize("data", [{}, {"r0": None, "r1": None}, {"r0": {}, "r1": {"nameWithOwner": "o/r"}}])
def test_an_answer_that_is_of_no_use_for_any_repository_leaves_it_to_rest(
    peer: Peer, client: GitHubClient, data: dict
) -> None:
    peer.on("/graphql", http(200, {"data": data}))
    with pytest.raises(errors.GraphQLUnavailable, match="by REST"):
        client.heads([HeadsQuery(REF), HeadsQuery(RepositoryRef("o", "s"))])


def test_one_repository_that_is_left_out_of_an_answer_costs_the_others_nothing(
    peer: Peer, client: GitHubClient
) -> None:
    peer.on("/graphql", http(200, {"data": graphql("o/r", "o/s")["data"] | {"r1": None}}))
    one, other = client.heads([HeadsQuery(REF), HeadsQuery(RepositoryRef("o", "s"))])
    assert one.heads == {"main": A}
    assert isinstance(other.error, errors.BadAnswer)


def test_a_plain_404_for_a_branch_of_a_repository_that_is_there_is_about_the_branch(
    peer: Peer, client: GitHubClient
) -> None:
    peer.on("/repos/o/r", http(200, REPOSITORY))
    peer.on(HEAD, http(200, A))
    peer.on("/repos/o/r/commits/heads/gone", http(404, {"message": "Not Found"}))
    peer.on(REFS, http(200, [{"ref": "refs/heads/main", "object": {"sha": A}}]))
    answer = client.heads_by_rest(HeadsQuery(KNOWN, ("main", "gone")))
    assert answer.error is None
    assert answer.heads == {"main": A, "gone": None}


def test_a_redirect_to_another_repository_is_replaced(peer: Peer, client: GitHubClient) -> None:
    peer.on(HEAD, http(301, Location=f"{peer.url}/repositories/8/commits/heads/main"))
    with pytest.raises(errors.RepositoryReplaced):
        client.head(KNOWN, "main")
    assert peer.paths() == [HEAD]


@pytest.mark.parametrize("name", ["..", ".", ""])
def test_a_name_that_would_be_another_path_is_never_asked_for(peer: Peer, client: GitHubClient, name: str) -> None:
    with pytest.raises(errors.RepositoryNotFound):
        client.repository(RepositoryRef("o", name))
    assert peer.requests == []


# Heads


def test_a_head_is_asked_for_as_a_bare_id(peer: Peer, client: GitHubClient) -> None:
    peer.on(HEAD, http(200, A, Content_Type="application/vnd.github.sha"))
    assert client.head(REF, "main") == A
    assert peer.requests[0].headers["accept"] == "application/vnd.github.sha"
    assert "if-none-match" not in peer.requests[0].headers


def test_a_server_that_knows_no_bare_ids_may_tell_the_whole_commit(peer: Peer, client: GitHubClient) -> None:
    peer.on(HEAD, http(200, commit(A, B) | {"files": [{"patch": "x" * 50_000}]}))
    assert client.head(REF, "main") == A
    assert client.head(REF, "main", known=B) == A


def test_a_known_head_is_confirmed_by_its_id_in_quotes(peer: Peer, client: GitHubClient) -> None:
    peer.on(HEAD, http(304, ETag=f'"{A}"', Content_Length=None))
    assert client.head(REF, "main", known=A) == A
    assert peer.requests[0].headers["if-none-match"] == f'"{A}"'


@pytest.mark.parametrize("etag", [f'"{B}"', 'W/"something"', '""', "x" * 60_000])
def test_a_304_about_another_commit_is_not_believed(peer: Peer, client: GitHubClient, etag: str) -> None:
    peer.on(HEAD, http(304, ETag=etag, Content_Length=None), http(200, B))
    assert client.head(REF, "main", known=A) == B
    assert "if-none-match" not in peer.requests[1].headers


def test_a_304_that_nobody_asked_for_is_a_bad_answer(peer: Peer, client: GitHubClient) -> None:
    peer.on(HEAD, http(304, Content_Length=None))
    with pytest.raises(errors.BadAnswer):
        client.head(REF, "main")


@pytest.mark.parametrize("body", ["", A[:39], A.upper(), f"{A}{A}", "<html>", json.dumps({"sha": A}), "null"])
def test_a_head_that_is_no_commit_id_is_a_bad_answer(peer: Peer, client: GitHubClient, body: str) -> None:
    peer.on(HEAD, http(200, body))
    with pytest.raises(errors.BadAnswer, match="o/r branch 'main'"):
        client.head(REF, "main")


@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        (422, "No commit found for SHA: heads/main", errors.BranchNotFound),
        (409, "Git Repository is empty.", errors.RepositoryEmpty),
        (403, "Repository access blocked", errors.Forbidden),
        (451, "", errors.Forbidden),
    ],
)
def test_why_there_is_no_head_is_told_apart_and_not_asked_again(
    peer: Peer, client: GitHubClient, status: int, message: str, expected: type[Exception]
) -> None:
    peer.on(HEAD, http(status, {"message": message}))
    with pytest.raises(expected):
        client.head(REF, "main")
    assert len(peer.requests) == 1


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        (http(404, {"message": "Not Found"}), errors.RepositoryNotFound),
        (http(200, [{"ref": "refs/heads/main", "object": {"sha": A}}]), errors.RepositoryNotFound),
        (http(200, [{"ref": "refs/heads/other", "object": {"sha": A}}]), errors.BranchNotFound),
        (http(200, []), errors.BranchNotFound),
        (http(409, {"message": "Git Repository is empty."}), errors.RepositoryEmpty),
    ],
)
def test_what_a_404_for_a_head_is_about_is_told_by_the_list_of_branches(
    peer: Peer, client: GitHubClient, listed: bytes, expected: type[Exception]
) -> None:
    peer.on(HEAD, http(404, {"message": "Not Found"}))
    peer.on(REFS, listed)
    with pytest.raises(expected):
        client.head(REF, "main")
    assert len(peer.requests) == 2


@pytest.mark.parametrize(
    ("branch", "path"),
    [
        ("feature/x", "feature/x"),
        ("a#b?c", "a%23b%3Fc"),
        ("50%25", "50%2525"),
        ("ünï", "%C3%BCn%C3%AF"),
        ("raw\udcff", "raw%FF"),
        ("a b;c", "a%20b%3Bc"),
    ],
)
def test_a_branch_is_encoded_and_its_slashes_kept(peer: Peer, client: GitHubClient, branch: str, path: str) -> None:
    peer.on(f"/repos/o/r/commits/heads/{path}", http(200, A))
    assert client.head(REF, branch) == A


@pytest.mark.parametrize("branch", ["", "../../user", "a/./b", "a//b", "/a", "\ud800"])
def test_a_name_that_no_branch_can_have_is_never_asked_for(peer: Peer, client: GitHubClient, branch: str) -> None:
    with pytest.raises(errors.BranchNotFound):
        client.head(REF, branch)
    assert peer.requests == []


def test_heads_of_many_come_in_the_order_asked(peer: Peer, client: GitHubClient) -> None:
    peer.on("/graphql", http(200, graphql("o/a", "o/b", "o/c")))
    got = client.heads([HeadsQuery(RepositoryRef("o", name)) for name in "abc"])
    assert [heads.repository.name for heads in got if heads.repository] == ["a", "b", "c"]
    assert len(peer.requests) == 1
    assert peer.requests[0].headers["content-type"] == "application/json"


def test_no_heads_asked_for_is_no_request(peer: Peer, client: GitHubClient) -> None:
    assert client.heads([]) == []
    assert peer.requests == []


@pytest.mark.parametrize("status", [502, 504])
def test_a_batch_that_is_too_much_is_asked_in_halves(peer: Peer, client: GitHubClient, status: int) -> None:
    peer.on("/graphql", http(status), http(200, graphql("o/a")), http(200, graphql("o/b", "o/c")))
    got = client.heads([HeadsQuery(RepositoryRef("o", name)) for name in "abc"])
    assert [heads.repository.name for heads in got if heads.repository] == ["a", "b", "c"]
    assert len(peer.requests) == 3


def test_one_repository_that_is_too_much_costs_only_itself(peer: Peer, client: GitHubClient) -> None:
    # All three, then the first alone as often as anything is tried, then the others.
    peer.on("/graphql", *[http(502)] * 4, http(200, graphql("o/b", "o/c")))
    first, *others = client.heads([HeadsQuery(RepositoryRef("o", name)) for name in "abc"])
    assert isinstance(first.error, errors.Outage)
    assert [heads.repository.name for heads in others if heads.repository] == ["b", "c"]


def test_an_outage_is_not_mistaken_for_a_hundred_heavy_repositories(peer: Peer, client: GitHubClient) -> None:
    peer.on("/graphql", http(502))
    with pytest.raises(errors.Outage):
        client.heads([HeadsQuery(RepositoryRef("o", f"r{i}")) for i in range(100)])
    assert len(peer.requests) < 20


def test_graphqls_own_way_to_say_limited_pauses_it_and_leaves_rest_alone(peer: Peer, client: GitHubClient) -> None:
    reset = str(int(datetime.now(UTC).timestamp()) + 600)
    limited = http(
        200,
        {"errors": [{"type": "RATE_LIMITED", "message": "API rate limit exceeded"}]},
        X_RateLimit_Limit="5000",
        X_RateLimit_Remaining="0",
        X_RateLimit_Reset=reset,
        X_RateLimit_Resource="graphql",
    )
    peer.on("/graphql", limited)
    peer.on(HEAD, http(200, A))
    for _ in range(2):
        with pytest.raises(errors.RateLimited):
            client.heads([HeadsQuery(REF)])
    assert client.head(REF, "main") == A
    assert peer.paths() == ["/graphql", HEAD]


@pytest.mark.parametrize(
    "answer",
    [
        http(404, {"message": "Not Found"}),
        http(405, ""),
        http(400, {"message": "Problems parsing JSON"}),
        http(403, {"message": "Resource not accessible"}),
        http(200, "<html>maintenance</html>", Content_Type="text/html"),
        http(200, '{"data": {"r0'),
        http(200, "null"),
        http(200, {"errors": [{"message": "Field 'x' doesn't exist on type 'Query'"}]}),
        http(307, Location="/repos/o/r"),
    ],
)
def test_where_graphql_is_not_to_be_had_rest_is_asked_for(peer: Peer, client: GitHubClient, answer: bytes) -> None:
    peer.on("/graphql", answer)
    with pytest.raises(errors.GraphQLUnavailable):
        client.heads([HeadsQuery(REF)])
    assert len(peer.requests) == 1


def test_without_a_token_there_is_no_graphql(peer: Peer, make: Make) -> None:
    with pytest.raises(errors.GraphQLUnavailable):
        make(token=lambda: None, anonymous=True).heads([HeadsQuery(REF)])
    assert peer.requests == []


def test_a_refused_token_is_told_from_missing_graphql(peer: Peer, client: GitHubClient) -> None:
    peer.on("/graphql", http(401, {"message": "Bad credentials"}))
    with pytest.raises(errors.Unauthorized):
        client.heads([HeadsQuery(REF)])


def test_heads_by_rest_ask_nothing_but_what_is_known_to_be_there(peer: Peer, client: GitHubClient) -> None:
    peer.on(HEAD, http(304, Content_Length=None))
    peer.on("/repos/o/r/commits/heads/dev", http(200, B))
    got = client.heads_by_rest(HeadsQuery(KNOWN, ("main", "dev"), (("main", A),)))
    assert (got.repository, got.heads, got.error) == (None, {"main": A, "dev": B}, None)
    assert len(peer.requests) == 2


def test_heads_by_rest_learn_the_default_branch_when_nothing_is_known(peer: Peer, client: GitHubClient) -> None:
    peer.on("/repos/o/r", http(200, REPOSITORY))
    peer.on(HEAD, http(200, A))
    got = client.heads_by_rest(HeadsQuery(REF))
    assert got.repository is not None
    assert (got.repository.github_id, got.heads) == (7, {"main": A})


def test_heads_by_rest_learn_the_new_default_branch_when_a_branch_is_gone(peer: Peer, client: GitHubClient) -> None:
    peer.on("/repos/o/r/commits/heads/master", http(422, {"message": "No commit found for SHA: heads/master"}))
    peer.on("/repos/o/r", http(200, REPOSITORY))
    peer.on(HEAD, http(200, A))
    got = client.heads_by_rest(HeadsQuery(KNOWN, ("master",)))
    assert got.repository is not None
    assert got.heads == {"main": A, "master": None}


def test_heads_by_rest_of_an_empty_repository_are_none(peer: Peer, client: GitHubClient) -> None:
    peer.on("/repos/o/r", http(200, REPOSITORY))
    peer.on(HEAD, http(409, {"message": "Git Repository is empty."}))
    got = client.heads_by_rest(HeadsQuery(KNOWN, ("main",)))
    assert got.repository is not None
    assert (got.repository.default_branch, got.heads, got.error) == (None, {"main": None}, None)


def test_heads_by_rest_follow_a_repository_whose_name_is_gone(peer: Peer, client: GitHubClient) -> None:
    for path in (HEAD, REFS, "/repos/o/r"):
        peer.on(path, http(404, {"message": "Not Found"}))
    peer.on("/repositories/7", http(200, REPOSITORY | {"full_name": "o/new"}))
    peer.on("/repos/o/new/commits/heads/main", http(200, A))
    got = client.heads_by_rest(HeadsQuery(KNOWN, ("main",)))
    assert got.repository is not None
    assert (got.repository.name, got.heads) == ("new", {"main": A})


def test_heads_by_rest_hold_what_is_wrong_with_the_repository(peer: Peer, client: GitHubClient) -> None:
    peer.on("/repos/o/r", http(404, {"message": "Not Found"}))
    assert isinstance(client.heads_by_rest(HeadsQuery(REF)).error, errors.RepositoryNotFound)
    peer.on("/repos/o/r", http(200, REPOSITORY))
    peer.on("/repositories/8", http(404, {"message": "Not Found"}))
    assert isinstance(client.heads_by_rest(HeadsQuery(RepositoryRef("o", "r", 8))).error, errors.RepositoryRecreated)


# Objects


def test_branches_are_all_refs_below_heads(peer: Peer, client: GitHubClient) -> None:
    refs = [{"ref": f"refs/heads/{name}", "object": {"sha": A}} for name in ("main", "feature/x")]
    peer.on(REFS, http(200, refs))
    assert client.branches(REF) == {"main": A, "feature/x": A}


def chained(shas: list[str]) -> list[dict]:
    """The commits of a linear history, newest first."""
    return [
        commit(sha) | {"parents": [{"sha": parent}] if parent else []}
        for sha, parent in zip(shas, [*shas[1:], None], strict=True)
    ]


def test_history_is_read_in_pages_up_to_the_limit(peer: Peer, client: GitHubClient) -> None:
    every = ids(250)
    for page in (1, 2, 3):
        listed = chained(every)[(page - 1) * 100 : page * 100]
        peer.on(f"/repos/o/r/commits?sha={every[0]}&per_page=100&page={page}", http(200, listed))
    assert [c.sha for c in client.commits(REF, every[0], limit=220)] == every[:220]
    assert [c.sha for c in client.commits(REF, every[0], limit=900)] == every
    peer.on(f"/repos/o/r/commits?sha={every[0]}&per_page=2&page=1", http(200, [commit(s) for s in every[:2]]))
    assert [c.sha for c in client.commits(REF, every[0], limit=2)] == every[:2]
    assert client.commits(REF, every[0], limit=0) == []


def test_history_ends_with_the_page_that_meets_what_is_known(peer: Peer, client: GitHubClient) -> None:
    every = ids(300)
    every_commit = chained(every)
    for page in (1, 2, 3):
        listed = every_commit[(page - 1) * 100 : page * 100]
        peer.on(f"/repos/o/r/commits?sha={every[0]}&per_page=100&page={page}", http(200, listed))
    found = client.commits(REF, every[0], limit=500, known=lambda s: s == every[150])
    assert [c.sha for c in found] == every[:200]
    assert len(peer.requests) == 2


def test_a_merge_is_listed_until_all_it_brought_in_is_there(peer: Peer, client: GitHubClient) -> None:
    every = ids(200)
    listed = chained(every)
    # The head merges the known old head with a side branch whose commits are older, so on the second page.
    listed[0] |= {"parents": [{"sha": every[1]}, {"sha": every[120]}]}
    for page in (1, 2):
        peer.on(
            f"/repos/o/r/commits?sha={every[0]}&per_page=100&page={page}",
            http(200, listed[(page - 1) * 100 : page * 100]),
        )
    known = {*every[1:120], *every[130:]}
    found = client.commits(REF, every[0], limit=500, known=known.__contains__)
    assert [c.sha for c in found] == every


def test_pages_that_repeat_themselves_end(peer: Peer, client: GitHubClient) -> None:
    every = ids(101)
    page_of_them = chained(every)[:100]
    for page in range(1, 11):
        peer.on(f"/repos/o/r/commits?sha={every[0]}&per_page=100&page={page}", http(200, page_of_them))
    assert len(client.commits(REF, every[0], limit=1000)) == 100
    assert len(peer.requests) == 10


@pytest.mark.parametrize("listed", [[], [commit(B)]])
def test_history_that_starts_elsewhere_is_a_bad_answer(peer: Peer, client: GitHubClient, listed: list) -> None:
    peer.on(f"/repos/o/r/commits?sha={A}&per_page=1&page=1", http(200, listed))
    with pytest.raises(errors.BadAnswer):
        client.commits(REF, A, limit=1)


@pytest.mark.parametrize("status", [404, 409, 422])
def test_an_object_that_is_not_there_yet_is_told_apart(peer: Peer, client: GitHubClient, status: int) -> None:
    answer = http(status, {"message": "No commit found"})
    peer.on(f"/repos/o/r/commits?sha={A}&per_page=1&page=1", answer)
    peer.on(f"/repos/o/r/git/trees/{A}", answer)
    peer.on(f"/repos/o/r/git/blobs/{A}", answer)
    peer.on(f"/repos/o/r/tarball/{A}", answer)
    peer.on(f"/repos/o/r/compare/{A}...{B}?per_page=1&page=2", answer)
    for ask in (
        lambda: client.commits(REF, A, limit=1),
        lambda: client.tree(REF, A, recursive=False),
        lambda: client.blob(REF, A, max_bytes=9),
        lambda: client.tarball(REF, A, max_bytes=9).__enter__(),
        lambda: client.compare(REF, A, B),
    ):
        with pytest.raises(errors.ObjectNotFound):
            ask()


def test_a_tree_is_asked_for_recursively_or_not_at_all(peer: Peer, client: GitHubClient) -> None:
    entries = [{"path": "a", "mode": "040000", "type": "tree", "sha": B}]
    peer.on(f"/repos/o/r/git/trees/{A}?recursive=1", http(200, {"sha": A, "tree": entries, "truncated": True}))
    peer.on(f"/repos/o/r/git/trees/{A}", http(200, {"sha": A, "tree": [], "truncated": False}))
    assert client.tree(REF, A, recursive=True).truncated
    assert client.tree(REF, A, recursive=False) == RemoteTree(A, (), truncated=False)


def test_the_empty_tree_and_the_empty_blob_are_known(peer: Peer, client: GitHubClient) -> None:
    assert client.tree(REF, EMPTY_TREE_SHA, recursive=True).entries == ()
    assert client.blob(REF, EMPTY_BLOB_SHA, max_bytes=0) == b""
    assert peer.requests == []


def test_a_blob_is_asked_for_raw_and_proven(peer: Peer, client: GitHubClient) -> None:
    content = bytes(range(256)) * 4
    sha = blob_sha(content)
    path = f"/repos/o/r/git/blobs/{sha}"
    peer.on(path, http(200, content))
    assert client.blob(REF, sha, max_bytes=1024) == content
    assert peer.requests[0].headers["accept"] == "application/vnd.github.raw+json"
    peer.on(path, http(200, {"encoding": "base64", "content": base64.b64encode(content).decode()}))
    assert client.blob(REF, sha, max_bytes=1024) == content
    peer.on(path, http(200, content[:-1]))
    with pytest.raises(errors.BadAnswer):
        client.blob(REF, sha, max_bytes=1024)
    peer.on(path, http(200, content))
    with pytest.raises(errors.BadAnswer, match="larger than the 1023 bytes"):
        client.blob(REF, sha, max_bytes=1023)


def test_a_comparison_tells_how_two_commits_relate(peer: Peer, client: GitHubClient) -> None:
    value = {"status": "diverged", "ahead_by": 1, "behind_by": 2, "base_commit": {"sha": A}}
    peer.on(f"/repos/o/r/compare/{A}...{B}?per_page=1&page=2", http(200, value))
    got = client.compare(REF, A, B)
    assert (got.status, got.ahead_by, got.behind_by) == ("diverged", 1, 2)


@pytest.mark.parametrize("sha", ["main", "A" * 40, f"{A}/../..", ""])
def test_what_is_no_object_id_never_becomes_a_path(peer: Peer, client: GitHubClient, sha: str) -> None:
    for ask in (lambda: client.tree(REF, sha, recursive=True), lambda: client.compare(REF, A, sha)):
        with pytest.raises(ValueError, match="no object id"):
            ask()
    assert peer.requests == []


def test_the_token_tells_its_limits_scopes_and_end(peer: Peer, client: GitHubClient) -> None:
    core = {"limit": 5000, "remaining": 4999, "reset": 1790000000, "used": 1}
    told = {"X-OAuth-Scopes": "repo, read:org", "GitHub-Authentication-Token-Expiration": "2026-12-01 01:00:00 +0100"}
    peer.on("/rate_limit", http(200, {"resources": {"core": core}, "rate": core}, **told))
    facts = client.token_facts()
    assert facts.limits == {"core": {"limit": 5000, "remaining": 4999, "reset": 1790000000}}
    assert facts.scopes == ("repo", "read:org")
    assert facts.expires_at == datetime(2026, 12, 1, tzinfo=UTC)


def test_a_server_without_limits_and_a_token_without_scopes_tell_nothing(peer: Peer, client: GitHubClient) -> None:
    peer.on("/rate_limit", http(404, {"message": "Rate limiting is not enabled."}), http(200, {"resources": {}}))
    for _ in range(2):
        facts = client.token_facts()
        assert (facts.limits, facts.scopes, facts.expires_at) == ({}, None, None)


@pytest.mark.parametrize("text", ["2026-12-01 00:00:00 UTC", "2026-11-30 17:00:00 -0700", " 2026-12-01 00:00:00 +0000"])
def test_the_end_of_a_token_is_read_in_every_spelling(text: str) -> None:
    assert expires_at({"github-authentication-token-expiration": text}) == datetime(2026, 12, 1, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "soon", "2026-12-01", "9999999-01-01 00:00:00 UTC"])
def test_an_end_that_cannot_be_read_is_none(text: str) -> None:
    assert expires_at({"github-authentication-token-expiration": text}) is None


# Archives


def test_an_archive_comes_from_the_download_host_without_the_token(peer: Peer, client: GitHubClient) -> None:
    other = Peer()
    try:
        archive = bytes(range(256)) * 1000
        location = f"http://localhost:{other.port}/o/r/legacy.tar.gz/{A}?token=SECRET"
        peer.on(f"/repos/o/r/tarball/{A}", http(302, Location=location))
        other.on(f"/o/r/legacy.tar.gz/{A}?token=SECRET", http(200, archive, Content_Encoding="gzip"))
        with client.tarball(REF, A, max_bytes=10**6) as pieces:
            assert b"".join(pieces) == archive
        assert "authorization" not in other.requests[0].headers
        assert peer.requests[0].headers["authorization"] == "Bearer TOKEN"
    finally:
        other.close()


def test_an_archive_of_a_renamed_repository_keeps_the_token_up_to_the_download(
    peer: Peer, client: GitHubClient
) -> None:
    peer.on(f"/repos/o/r/tarball/{A}", http(301, Location=f"{peer.url}/repositories/7/tarball/{A}"))
    peer.on(f"/repositories/7/tarball/{A}", http(302, Location=f"{peer.url}/_codeload/x?token=SECRET"))
    peer.on("/_codeload/x?token=SECRET", http(200, b"bytes"))
    with client.tarball(KNOWN, A, max_bytes=100) as pieces:
        assert b"".join(pieces) == b"bytes"
    assert [("authorization" in seen.headers) for seen in peer.requests] == [True, True, False]


def test_an_archive_over_its_cap_ends_with_an_error(peer: Peer, client: GitHubClient) -> None:
    peer.on(f"/repos/o/r/tarball/{A}", http(200, b"x" * 200_000))
    with client.tarball(REF, A, max_bytes=150_000) as pieces, pytest.raises(errors.BadAnswer, match="150000 bytes"):
        list(pieces)


def test_an_expired_link_is_an_object_that_is_not_there_and_its_token_is_not_told(
    peer: Peer, client: GitHubClient
) -> None:
    peer.on(f"/repos/o/r/tarball/{A}", http(302, Location=f"{peer.url}/dl?token=SECRET"))
    peer.on("/dl?token=SECRET", http(404, "expired"))
    with pytest.raises(errors.ObjectNotFound) as raised, client.tarball(REF, A, max_bytes=100):
        pass
    assert "SECRET" not in str(raised.value)


# Token, limits, counting


def test_a_token_that_changed_is_tried_at_once(peer: Peer, make: Make, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("old\n")
    client = make(token=file.read_text)
    peer.on(HEAD, http(401, {"message": "Bad credentials"}), http(200, A))
    for _ in range(3):
        with pytest.raises(errors.Unauthorized) as raised:
            client.head(REF, "main")
        assert "old" not in str(raised.value)
    assert len(peer.requests) == 1
    file.write_text("new\n")
    assert client.head(REF, "main") == A
    assert [seen.headers["authorization"] for seen in peer.requests] == ["Bearer old", "Bearer new"]


def test_without_a_token_nothing_is_asked_unless_anonymous(peer: Peer, make: Make) -> None:
    peer.on(HEAD, http(200, A))
    with pytest.raises(errors.Unauthorized, match=r"set github\.token"):
        make(token=lambda: None).head(REF, "main")
    assert peer.requests == []
    assert make(token=lambda: "", anonymous=True).head(REF, "main") == A
    assert "authorization" not in peer.requests[0].headers


def test_a_token_file_that_cannot_be_read_is_said_so(make: Make, tmp_path: Path) -> None:
    with pytest.raises(errors.Unauthorized, match="cannot be read"):
        make(token=(tmp_path / "missing").read_text).head(REF, "main")


@pytest.mark.parametrize(
    "answer",
    [
        http(403, {"message": "You have exceeded a secondary rate limit."}),
        http(429, {}),
        http(429, {}, Retry_After="60"),
        http(403, {"message": "API rate limit exceeded"}, X_RateLimit_Remaining="0", X_RateLimit_Limit="60"),
    ],
)
def test_a_limit_is_met_once_by_all_threads_and_never_retried(
    peer: Peer, client: GitHubClient, slept: list[float], answer: bytes
) -> None:
    peer.on(HEAD, answer)
    asked = datetime.now(UTC)
    with pytest.raises(errors.RateLimited) as raised:
        client.head(REF, "main")
    assert asked + timedelta(seconds=55) < raised.value.until < datetime.now(UTC) + timedelta(seconds=70)
    caught: list[Exception] = []

    def ask() -> None:
        try:
            client.head(REF, "main")
        except errors.RateLimited as error:
            caught.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(caught) == 4
    assert len(peer.requests) == 1
    assert slept == []


def test_a_limit_of_a_second_is_waited_for(peer: Peer, make: Make) -> None:
    woken: list[float] = []
    peer.on(HEAD, http(429, {}, Retry_After="1"), http(200, A))
    seconds = [1000.0]

    def sleep(duration: float) -> None:
        woken.append(duration)
        seconds[0] += duration + 0.01

    clock = Clock(monotonic=lambda: seconds[0], sleep=sleep)
    settings = ClientSettings(peer.url, f"{peer.url}/graphql", PATIENCE_SECONDS, lambda: "TOKEN")
    client = GitHubClient(settings, clock=clock, governor=Governor(clock))
    assert client.head(REF, "main") == A
    assert 0.5 < woken[0] <= 2.0
    client.close()


def test_the_last_request_of_a_window_is_answered_and_the_next_not_made(peer: Peer, client: GitHubClient) -> None:
    reset = str(int(datetime.now(UTC).timestamp()) + 600)
    peer.on(HEAD, http(200, A, X_RateLimit_Limit="60", X_RateLimit_Remaining="0", X_RateLimit_Reset=reset))
    assert client.head(REF, "main") == A
    with pytest.raises(errors.RateLimited):
        client.head(REF, "main")
    assert len(peer.requests) == 1


def test_polling_stops_at_the_reserve_and_other_work_goes_on(peer: Peer, client: GitHubClient) -> None:
    reset = str(int(datetime.now(UTC).timestamp()) + 600)
    peer.on(HEAD, http(200, A, X_RateLimit_Limit="60", X_RateLimit_Remaining="12", X_RateLimit_Reset=reset))
    client.head(REF, "main")
    with client.background(), pytest.raises(errors.RateLimited):
        client.head(REF, "main")
    assert client.head(REF, "main") == A


def test_requests_are_counted_by_thread_and_seen_one_by_one(peer: Peer, make: Make) -> None:
    seen: list[RequestSeen] = []
    client = make(on_request=seen.append)
    peer.on("/repos/o/r", http(301, Location="/repositories/7"))
    peer.on("/repositories/7", http(200, REPOSITORY))
    with client.tally() as outer:
        client.repository(REF)
        with client.tally() as inner:
            client.repository(REF)
            thread = threading.Thread(target=client.repository, args=(REF,))
            thread.start()
            thread.join()
    client.repository(REF)
    assert (outer.requests, inner.requests) == (4, 2)
    assert [(one.endpoint, one.status, one.resource) for one in seen[:2]] == [
        ("repository", 301, "core"),
        ("repository", 200, "core"),
    ]
    assert all(one.seconds >= 0 for one in seen)


def test_settings_are_replaced_while_running(peer: Peer, client: GitHubClient) -> None:
    other = Peer()
    try:
        other.on(HEAD, http(200, B))
        peer.on(HEAD, http(200, A))
        assert client.head(REF, "main") == A
        client.reconfigure(ClientSettings(other.url, f"{other.url}/graphql", PATIENCE_SECONDS, lambda: "OTHER"))
        assert client.head(REF, "main") == B
        assert other.requests[0].headers["authorization"] == "Bearer OTHER"
    finally:
        other.close()


def test_one_connection_serves_many_requests_of_a_thread(peer: Peer, client: GitHubClient) -> None:
    peer.on(HEAD, http(200, A), http(304, Content_Length=None), http(422, {"message": "No commit found"}), http(200, A))
    client.head(REF, "main")
    client.head(REF, "main", known=A)
    with pytest.raises(errors.BranchNotFound):
        client.head(REF, "main")
    client.head(REF, "main")
    assert peer.connections == 1
