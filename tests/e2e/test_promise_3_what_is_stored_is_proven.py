"""The recomputed tree id equals the commit's; a run that cannot reach that changes nothing."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote_from_bytes

import pytest
from harness import Daemon, assert_equal_to_git, wait_for

from daemon.demo.standin import StandIn
from daemon.demo.standin.faults import Status
from daemon.demo.standin.gitrepo import Change, GitRepo, Submodule, Symlink, executable

FILES = 1100
COMMITS = 50


def hostile(folder: Path) -> GitRepo:
    """A thousand files and fifty commits, with everything a tree can hold that scripts trip over."""
    chance = random.Random(7)
    repo = GitRepo.init(folder / "hostile.git")
    changes: dict[str | bytes, Change] = {
        f"data/{n % 10}/{n % 7}/file-{n}.json": b'{"n": %d}\n' % n for n in range(FILES)
    }
    changes |= {
        ".gitattributes": b"gone.txt export-ignore\nstamp.txt export-subst\n*.crlf text eol=crlf\n",
        "gone.txt": b"not in archives\n",
        "stamp.txt": b"$Format:%H %an$\n",
        "lines.crlf": b"a\nb\n",
        "bin/run": executable(b"#!/bin/sh\nexit 0\n"),
        "current": Symlink(b"data/0"),
        "escape": Symlink(b"../../../../etc/passwd"),
        "lib": Submodule("d" * 40),
        "empty": b"",
        "random.bin": chance.randbytes(100_000),
        "<script>alert(1)<": b"markup in a name\n",
        "back\\slash": b"1\n",
        "trailing space ": b"2\n",
        "new\nline": b"3\n",
        "A": b"upper\n",
        "a": b"lower\n",
        "e\u0301": b"nfd\n",
        "\u00e9": b"nfc\n",
        "rtl\u202etxt": b"4\n",
        b"latin\xe9": b"5\n",
        "/".join(["deep"] * 60) + "/file": b"6\n",
        "x" * 200 + ".txt": b"long\n",
        "%2e%2e%2f": b"7\n",
        "q?x=1#y": b"8\n",
    }
    repo.commit(changes, "Begin")
    for n in range(COMMITS):
        repo.commit({f"data/{n % 10}/{n % 7}/file-{n}.json": b'{"n": %d, "again": true}\n' % n}, f"Edit {n}")
    return repo


def replay(repo: GitRepo, n: int, chance: random.Random) -> None:
    """One commit that adds, changes, removes and renames something."""
    listed = [entry for entry in repo.ls_tree() if entry.path.startswith(b"data/")]
    victim, moved = chance.sample(listed, 2)
    repo.commit(
        {
            f"replayed/{n}.txt": b"replayed %d\n" % n,
            f"replayed/{max(n - 3, 0)}.txt": b"changed at %d\n" % n,
            victim.path: None,
            moved.path: None,
            moved.path + b".moved": repo.cat(moved.sha),
        },
        f"Replay {n}",
    )


def assert_raw_equals_cat_file(daemon: Daemon, repo: GitRepo) -> None:
    for entry in repo.ls_tree():
        answer = daemon.get(f"/api/v1/repositories/octo/data/raw/{quote_from_bytes(entry.path)}")
        if entry.size is None:
            assert answer.status_code == 404
            continue
        assert answer.status_code == 200, entry.path
        assert answer.content == repo.cat(entry.sha), entry.path
        assert answer.headers["ETag"].strip('"') == entry.sha
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "html" not in answer.headers["Content-Type"]


@pytest.mark.timeout(400)
def test_a_hostile_repository_is_equal_to_git_after_every_replayed_commit(
    tmp_path: Path, github: StandIn, make_daemon: Callable[..., Daemon]
) -> None:
    repo = hostile(tmp_path)
    github.add("octo/data", repo.path)
    daemon = make_daemon(interval="1s", reconcile="1s").start()
    daemon.wait_head(repo.head())
    assert_equal_to_git(daemon, repo)
    assert_raw_equals_cat_file(daemon, repo)
    assert [commit["sha"] for commit in daemon.items("/api/v1/repositories/octo/data/commits")] == repo.log()
    chance = random.Random(11)
    github.hook("octo/data", daemon.webhook_url, daemon.secret)
    for n in range(COMMITS):
        before = repo.head()
        replay(repo, n, chance)
        by = ("webhook", "poll", "both")[n % 3]
        if by != "poll":
            github.push("octo/data", "main", before, repo.head())
        daemon.wait_head(repo.head())
        assert_equal_to_git(daemon, repo)
    assert daemon.branch()["tree_verified"] is True
    assert_raw_equals_cat_file(daemon, repo)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("by", ["webhook", "poll"])
def test_fifty_commits_by_one_way_only_are_each_equal_to_git(
    tmp_path: Path, github: StandIn, make_daemon: Callable[..., Daemon], by: str
) -> None:
    repo = hostile(tmp_path)
    github.add("octo/data", repo.path)
    settings = {"sections": {"polling": "enabled = false"}} if by == "webhook" else {"interval": "1s"}
    daemon = make_daemon(**settings).start()
    github.hook("octo/data", daemon.webhook_url, daemon.secret)
    chance = random.Random(12)
    for n in range(COMMITS):
        before = repo.head()
        replay(repo, n, chance)
        if by == "webhook":
            github.push("octo/data", "main", before, repo.head())
        daemon.wait_head(repo.head())
        assert_equal_to_git(daemon, repo)
    triggers = {run["trigger"] for run in daemon.runs()} - {"startup"}
    assert triggers <= {by}


def test_a_tree_that_does_not_prove_changes_nothing_and_says_why(
    github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    daemon = make_daemon(interval="1s").start()
    good = repo.head()
    daemon.wait_head(good)
    lie = {"sha": "a" * 40, "tree": [], "truncated": False}
    github.faults.add(r"/(compare|git/trees)/", Status(200, lie))
    after = repo.commit({"new.txt": b"1\n"})
    wait_for(lambda: (daemon.branch() or {})["last_error"], "the failure to be told")
    assert daemon.head() == good
    assert daemon.branch()["state"] == "failed"
    github.faults.clear()
    daemon.post("/api/v1/repositories/octo/data/sync")
    daemon.wait_head(after)
    assert_equal_to_git(daemon, repo)
