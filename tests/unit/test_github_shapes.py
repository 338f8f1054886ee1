from __future__ import annotations

import base64
import copy
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from daemon.errors import BadAnswer
from daemon.github import shapes
from daemon.model import Comparison, RemoteEntry, RemoteRepository

A, B, C = "a" * 40, "b" * 40, "c" * 40
REPOSITORY = {"id": 7, "full_name": "o/r", "default_branch": "main", "archived": True, "private": False, "owner": {}}
ENTRY = {"path": "src/a.py", "mode": "100644", "type": "blob", "sha": A, "size": 3, "url": "https://evil.example"}
TREE = {"sha": C, "tree": [ENTRY], "truncated": False}
COMMIT = {
    "sha": A,
    "parents": [{"sha": B}],
    "commit": {
        "tree": {"sha": C},
        "message": "subject\n\nbody",
        "author": {"name": "Ann", "email": "ann@example.org", "date": "2026-01-01T00:00:00Z"},
        "committer": {"name": "Bob", "date": "2026-01-02T00:00:00Z"},
    },
}
COMPARISON = {"status": "ahead", "ahead_by": 2, "behind_by": 0, "base_commit": {"sha": A}}


def changed(value: dict[str, Any], path: str, new: Any) -> dict[str, Any]:
    copied = copy.deepcopy(value)
    at: Any = copied
    *folders, last = path.split(".")
    for key in folders:
        at = at[int(key) if key.isdigit() else key]
    at[int(last) if last.isdigit() else last] = new
    return copied


def test_a_repository_is_read() -> None:
    assert shapes.repository(REPOSITORY, asked="x") == RemoteRepository(7, "o", "r", "main", archived=True)


@pytest.mark.parametrize("value", [None, [], "x", 7, {}, True])
@pytest.mark.parametrize("reader", ["repository", "branches", "commit", "tree", "comparison"])
def test_another_type_is_a_bad_answer_that_names_what_was_asked(reader: str, value: Any) -> None:
    if reader == "branches" and value == []:
        return
    extra = (A,) if reader in {"tree", "comparison"} else ()
    with pytest.raises(BadAnswer, match=r"^o/r thing: GitHub's answer holds "):
        getattr(shapes, reader)(value, *extra, asked="o/r thing")


@pytest.mark.parametrize(
    ("path", "new"),
    [
        ("id", -1),
        ("id", 2**63),
        ("id", True),
        ("id", 1.5),
        ("id", "7"),
        ("full_name", "r"),
        ("full_name", "/r"),
        ("default_branch", None),
        ("default_branch", ""),
        ("full_name", ["o", "r"]),
    ],
)
def test_a_repository_with_a_wrong_field_is_refused(path: str, new: Any) -> None:
    with pytest.raises(BadAnswer):
        shapes.repository(changed(REPOSITORY, path, new), asked="x")


def test_a_tree_is_read_and_its_echoed_sha_not_relied_on() -> None:
    got = shapes.tree(TREE, B, asked="x")
    assert (got.sha, got.truncated) == (B, False)
    assert got.entries == (RemoteEntry("src/a.py", "100644", A, 3),)


@pytest.mark.parametrize(
    ("path", "new"),
    [
        ("truncated", "false"),
        ("tree", None),
        ("tree.0", None),
        ("tree.0.path", ""),
        ("tree.0.path", 7),
        ("tree.0.mode", "644"),
        ("tree.0.mode", 100644),
        ("tree.0.type", "link"),
        ("tree.0.type", ["blob"]),
        ("tree.0.sha", A.upper()),
        ("tree.0.sha", A[:7]),
        ("tree.0.size", -1),
        ("tree.0.size", True),
        ("tree.0.size", "3"),
    ],
)
def test_a_tree_with_a_wrong_field_is_refused(path: str, new: Any) -> None:
    with pytest.raises(BadAnswer):
        shapes.tree(changed(TREE, path, new), A, asked="x")


def test_a_lone_surrogate_in_a_path_becomes_a_character_that_can_be_stored() -> None:
    got = shapes.tree(changed(TREE, "tree.0.path", "a\ud800b"), A, asked="x")
    assert got.entries[0].path == "a\ufffdb"


def test_a_commit_is_read() -> None:
    got = shapes.commit(COMMIT, asked="x")
    assert (got.sha, got.tree_sha, got.parents) == (A, C, (B,))
    assert (got.author_name, got.author_email, got.authored_at) == ("Ann", "ann@example.org", "2026-01-01T00:00:00Z")
    assert (got.committed_at, got.message) == ("2026-01-02T00:00:00Z", "subject\n\nbody")


def test_a_commit_of_damaged_history_may_lack_names_and_dates() -> None:
    got = shapes.commit(changed(changed(COMMIT, "commit.author", None), "commit.committer", 7), asked="x")
    assert (got.author_name, got.authored_at, got.committed_at) == ("", "", "")


@pytest.mark.parametrize(
    ("path", "new"),
    [("sha", "HEAD"), ("parents", None), ("parents", [A]), ("commit.tree", None), ("commit.tree.sha", A[:39])],
)
def test_a_commit_with_a_wrong_id_is_refused(path: str, new: Any) -> None:
    with pytest.raises(BadAnswer):
        shapes.commit(changed(COMMIT, path, new), asked="x")


def test_a_comparison_is_read_and_must_be_about_the_base_asked_for() -> None:
    assert shapes.comparison(COMPARISON, A, asked="x") == Comparison("ahead", 2, 0)
    with pytest.raises(BadAnswer):
        shapes.comparison(COMPARISON, B, asked="x")


@pytest.mark.parametrize(
    ("path", "new"), [("status", "sideways"), ("status", []), ("ahead_by", None), ("behind_by", -1)]
)
def test_a_comparison_with_a_wrong_field_is_refused(path: str, new: Any) -> None:
    with pytest.raises(BadAnswer):
        shapes.comparison(changed(COMPARISON, path, new), A, asked="x")


def test_branches_are_read_without_their_prefix() -> None:
    refs = [{"ref": "refs/heads/feature/x", "object": {"sha": A, "type": "commit"}}]
    assert shapes.branches(refs, asked="x") == {"feature/x": A}


@pytest.mark.parametrize(
    "item",
    [
        7,
        {"ref": "refs/tags/v1", "object": {"sha": A}},
        {"ref": "refs/heads/", "object": {"sha": A}},
        {"ref": "refs/heads/x"},
        {"ref": "refs/heads/x", "object": {"sha": "x"}},
    ],
)
def test_a_ref_that_is_no_branch_is_refused(item: Any) -> None:
    with pytest.raises(BadAnswer):
        shapes.branches([item], asked="x")


def test_a_blob_is_named_as_git_names_it(tmp_path: Path) -> None:
    content = b"caf\xc3\xa9\r\n\0\xff"
    (tmp_path / "f").write_bytes(content)
    out = subprocess.run(["git", "hash-object", "--no-filters", "f"], cwd=tmp_path, check=True, capture_output=True)
    assert shapes.blob_sha(content) == out.stdout.decode().strip()


def test_a_blob_may_come_raw_or_as_base64_and_must_have_its_id() -> None:
    content = b"hello\n" * 50
    sha = shapes.blob_sha(content)
    wrapped = json.dumps({"encoding": "base64", "content": base64.encodebytes(content).decode(), "sha": sha}).encode()
    assert shapes.blob(content, sha, asked="x") == content
    assert shapes.blob(wrapped, sha, asked="x") == content
    assert shapes.blob(wrapped, shapes.blob_sha(wrapped), asked="x") == wrapped


@pytest.mark.parametrize(
    "body",
    [
        b"other",
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"encoding": "base64"}',
        b'{"encoding": "base64", "content": 7}',
        b'{"encoding": "base64", "content": "=!"}',
        b'{"encoding": "utf-8", "content": "hello"}',
        b"[" * 100000,
    ],
)
def test_content_with_another_id_is_refused(body: bytes) -> None:
    with pytest.raises(BadAnswer, match="content with another id"):
        shapes.blob(body, A, asked="x")
