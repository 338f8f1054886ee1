"""The repositories that tests are made of, held against git itself."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from daemon.demo.standin import File, GitRepo, Person, Submodule, Symlink, executable
from daemon.demo.standin.gitprocess import GitFailed
from daemon.demo.standin.refs import Refs, git_directory

EVERY_KIND = {
    "a.txt": "text",
    "bin/tool": executable(b"#!/bin/sh\n"),
    "link": Symlink(b"../outside"),
    "vendor/lib": Submodule("1" * 40),
    "d/\u00e9": b"\x00\xff",
    b"d/\xff\xfe\n\"\\q'": b"raw",
    " lead and trail ": b"",
}


def git(path: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", path, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def repo(tmp_path: Path) -> GitRepo:
    return GitRepo.init(tmp_path / "repo.git")


def test_the_same_calls_make_the_same_ids(repo: GitRepo, tmp_path: Path) -> None:
    other = GitRepo.init(tmp_path / "other", bare=False)
    for each in (repo, other):
        each.commit(EVERY_KIND, "One")
        each.commit({"a.txt": "more"}, "Two")
    assert repo.head() == other.head()
    assert git(repo.path, "fsck", "--strict") == ""


def test_every_kind_of_entry_is_listed_with_its_bytes(repo: GitRepo) -> None:
    repo.commit(EVERY_KIND)
    listed = {entry.path: entry for entry in repo.ls_tree()}
    assert sorted(listed) == sorted(key.encode() if isinstance(key, str) else key for key in EVERY_KIND)
    assert (listed[b"bin/tool"].mode, listed[b"link"].mode) == ("100755", "120000")
    assert (listed[b"vendor/lib"].sha, listed[b"vendor/lib"].size) == ("1" * 40, None)
    assert repo.cat(listed[b"link"].sha) == b"../outside"
    assert repo.cat(listed[b"d/\xff\xfe\n\"\\q'"].sha) == b"raw"
    assert listed[b" lead and trail "].size == 0


def test_a_commit_builds_on_the_branch_and_removes_what_is_none(repo: GitRepo) -> None:
    first = repo.commit({"a": "1", "d/b": "2"})
    second = repo.commit({"a": None, "d": None, "e": "3"})
    assert repo.log() == [second, first]
    assert [entry.path for entry in repo.ls_tree()] == [b"e"]


def test_a_fresh_commit_starts_from_nothing_and_other_parents_rewrite_the_branch(repo: GitRepo) -> None:
    first = repo.commit({"a": "1"})
    repo.commit({"b": "2"})
    rewritten = repo.commit({"c": "3"}, parents=[first])
    assert repo.log() == [rewritten, first]
    orphan = repo.commit({"z": "1"}, parents=[], fresh=True)
    assert repo.log() == [orphan]
    assert [entry.path for entry in repo.ls_tree()] == [b"z"]


def test_dates_people_and_messages_are_as_given(repo: GitRepo) -> None:
    repo.commit({"a": "1"}, "S\u00fcbject\n\nbody", date="86400 -0930", author=Person("J\u00f6rg", "j@example.org"))
    assert git(repo.path, "log", "-1", "--format=%an|%ae|%ct|%ci|%B").startswith(
        "J\u00f6rg|j@example.org|86400|1970-01-01 14:30:00 -0930|S\u00fcbject\n\nbody"
    )


def test_a_merge_has_two_parents(repo: GitRepo) -> None:
    base = repo.commit({"a": "1"})
    side = repo.commit({"b": "1"}, branch="side", parents=[base])
    head = repo.commit({"c": "1"})
    merged = repo.merge(side, changes={"b": "1"})
    assert git(repo.path, "rev-parse", f"{merged}^1", f"{merged}^2").split() == [head, side]


def test_a_tree_that_git_would_refuse_can_be_written(repo: GitRepo) -> None:
    blob = repo.write_blob(b"x")
    tree = repo.write_tree([("100644", b"..", blob), ("100644", b".git", blob)])
    repo.commit_tree(tree)
    assert repo.tree_sha() == tree
    assert [entry.path for entry in repo.ls_tree()] == [b"..", b".git"]


def test_branches_tags_and_the_default_branch_are_gits(repo: GitRepo) -> None:
    head = repo.commit({"a": "1"})
    repo.reset("feature/x", head)
    annotated = repo.tag("v1", head, annotation="First")
    repo.tag("light", head)
    repo.rename_branch("main", "trunk")
    assert repo.branches() == {"feature/x": head, "trunk": head}
    assert repo.refs("refs/tags/") == {"refs/tags/light": head, "refs/tags/v1": annotated}
    assert git(repo.path, "symbolic-ref", "HEAD") == "refs/heads/trunk"
    assert git(repo.path, "cat-file", "-t", "v1") == "tag"


def test_a_copy_has_the_refs_and_the_objects_and_nothing_else(repo: GitRepo, tmp_path: Path) -> None:
    head = repo.commit(EVERY_KIND)
    repo.tag("v1", head, annotation="First")
    repo.reset("feature/x", head)
    marker = tmp_path / "ran"
    hook = repo.git.directory / "hooks" / "reference-transaction"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {marker}\n")
    hook.chmod(0o755)
    repo.reset("hooked", head)
    copied = GitRepo.copy(repo.path, tmp_path / "copy.git")
    assert copied.refs("refs/") == repo.refs("refs/")
    assert copied.ls_tree() == repo.ls_tree()
    assert copied.head_branch() == "main"
    assert git(copied.path, "fsck") == ""
    assert not marker.exists()


def test_an_empty_repository_is_copied_as_one(repo: GitRepo, tmp_path: Path) -> None:
    repo.set_head("trunk")
    copied = GitRepo.copy(repo.path, tmp_path / "copy.git")
    assert (copied.branches(), copied.head_branch()) == ({}, "trunk")


def test_a_linked_work_tree_and_a_shallow_clone_are_copied(repo: GitRepo, tmp_path: Path) -> None:
    for number in range(3):
        repo.commit({"a": str(number)})
    git(tmp_path, "clone", "--quiet", "--depth=1", f"file://{repo.path}", "shallow")
    git(tmp_path / "shallow", "worktree", "add", "--quiet", "../linked")
    copied = GitRepo.copy(tmp_path / "linked", tmp_path / "copy.git")
    assert copied.log() == [repo.head()]
    assert copied.ls_tree() == repo.ls_tree()


def test_git_sees_nothing_of_the_machine_around_it(
    repo: GitRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".gitconfig").write_text("[user]\nname = Somebody\n[core]\nautocrlf = true\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_AUTHOR_NAME", "Intruder")
    repo.commit({"a": b"1\r\n"})
    assert repo.cat(repo.ls_tree()[0].sha) == b"1\r\n"
    with pytest.raises(GitFailed):
        repo.git.run("config", "user.name")


def every_ref(repo: GitRepo) -> dict[str, str]:
    listing = git(repo.path, "for-each-ref", "--format=%(refname) %(objectname)", "refs/heads/", "refs/tags/")
    return dict(line.split(" ") for line in listing.splitlines())


def test_refs_are_read_as_git_reads_them_loose_packed_and_symbolic(repo: GitRepo) -> None:
    refs = Refs(repo.git.directory)
    head = repo.commit({"a": "1"})
    for name in ("b", "a/b", "a-b", "deep/er/still"):
        repo.reset(name, head)
    repo.tag("v1", head, annotation="x")
    assert refs.under("refs/") == every_ref(repo)
    repo.git.run("pack-refs", "--all")
    assert refs.under("refs/") == every_ref(repo)
    repo.delete_branch("b")
    newer = repo.commit({"a": "2"})
    repo.git.run("symbolic-ref", "refs/heads/alias", "refs/heads/main")
    assert refs.get("refs/heads/alias") == newer
    assert refs.under("refs/") == every_ref(repo)
    assert list(refs.under("refs/heads/")) == [name for name in every_ref(repo) if name.startswith("refs/heads/")]


@pytest.mark.parametrize("name", ["refs/heads/../../config", "/etc/passwd", "refs/heads/a\0b", "refs/heads", "x" * 300])
def test_a_name_that_is_no_ref_is_no_way_to_a_file(repo: GitRepo, name: str) -> None:
    repo.commit({"a": "1"})
    (repo.git.directory / "config").write_text("1" * 40)
    assert Refs(repo.git.directory).get(name) is None


def test_what_cannot_be_served_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no git repository"):
        git_directory(tmp_path)
    subprocess.run(["git", "init", "--quiet", "--object-format=sha256", tmp_path / "new"], check=True)
    with pytest.raises(ValueError, match="SHA-256"):
        git_directory(tmp_path / "new")
    (tmp_path / "new" / ".git" / "reftable").mkdir()
    with pytest.raises(ValueError, match="reftable"):
        git_directory(tmp_path / "new")


def test_a_file_may_have_any_mode_git_knows(repo: GitRepo) -> None:
    repo.commit({"x": File(b"1", "100755")})
    assert repo.ls_tree()[0].mode == "100755"
    repo.commit({"x": b"1"})
    assert repo.ls_tree()[0].mode == "100644"
