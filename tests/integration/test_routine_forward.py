"""The short way: what a comparison tells, proven on the touched folders alone, else left to the long way."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from bench import Bench
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.demo.standin.answers import Answer
from daemon.demo.standin.faults import Html, Replace, Status
from daemon.demo.standin.gitrepo import Submodule, Symlink, executable
from daemon.model import Outcome, Trigger
from daemon.sync.gitobjects import tree_ids
from daemon.sync.patterns import rules

LONG_WAY = ("/git/trees/", "/tarball/", "/codeload/")


def push(bench: Bench, changes: dict[Any, Any]) -> list[str]:
    """Commit and sync; what GitHub was asked for."""
    after = bench.repo.commit(changes)
    bench.github.requests.clear()
    result = bench.sync()
    assert (result.outcome, result.after) == (Outcome.UPDATED, after), result.error
    assert result.requests == len(bench.requests())
    bench.assert_equal_to_git(contents=False)
    assert_folders(bench)
    return bench.requests()


def assert_folders(bench: Bench) -> None:
    """The stored ids are those of the stored rows, all of them and no others."""
    facts = bench.facts()
    entries = bench.snapshots.entries(facts.id)
    with bench.database.read():
        rows = bench.database.execute("SELECT path, parent, tree_sha FROM folder").fetchall()
    assert {row[0]: row[2] for row in rows} == tree_ids((one.path, one.mode, one.sha) for one in entries)
    assert all(parent == path.rpartition(b"/")[0] for path, parent, _ in rows)


def took_the_long_way(paths: list[str]) -> bool:
    return any(part in path for path in paths for part in LONG_WAY)


@pytest.fixture
def stocked(bench: Bench) -> Bench:
    """A stored snapshot with every kind of entry, folders in folders, and names that sort before the slash."""
    bench.repo.commit(
        {
            "a/b/c/deep.txt": b"deep\n",
            "a/b.txt": b"beside\n",
            "a-b/x": b"x\n",
            "a/b-c/y": b"y\n",
            "run.sh": executable(b"#!/bin/sh\n"),
            "link": Symlink(b"run.sh"),
            "vendor/lib": Submodule("1" * 40),
            "long.txt": b"a line that makes it long enough to be found again\n" * 20,
        }
    )
    bench.sync()
    bench.assert_equal_to_git()
    assert_folders(bench)
    return bench


def test_a_changed_file_costs_a_head_a_comparison_and_a_blob(stocked: Bench) -> None:
    asked = push(stocked, {"a/b/c/deep.txt": b"deeper\n"})
    assert len(asked) == 3
    assert not took_the_long_way(asked)
    stocked.assert_equal_to_git()
    assert stocked.snapshots.commit_shas(stocked.facts().id) == stocked.repo.log()


@pytest.mark.parametrize(
    "changes",
    [
        {"new/folder/file.txt": b"new\n"},
        {"a/b/c/deep.txt": None},
        {"a/b/c/deep.txt": None, "a/b.txt": None, "a/b-c/y": None},
        {"a/b/c/deep.txt": None, "a/b": b"a file where a folder was\n", "a/b-c/y": b"z\n"},
        {"a-b/x": None, "a-b": Symlink(b"a")},
        {"run.sh": b"#!/bin/sh\n"},
        {"a/b.txt": executable(b"beside\n")},
        {"tool": executable(b"#!/bin/sh\necho\n")},
        {"a/link": Symlink(b"../run.sh")},
        {"link": b"run.sh"},
        {"vendor/lib": Submodule("2" * 40)},
        {"vendor/other": Submodule("3" * 40)},
        {"vendor/lib": None},
        {"long.txt": None, "moved/long.txt": b"a line that makes it long enough to be found again\n" * 20},
        {"long.txt": None, "moved.txt": b"a line that makes it long enough to be found again\n" * 20 + b"end\n"},
        {"empty": b""},
    ],
    ids=str,
)
def test_whatever_changes_is_proven_without_listing_the_tree(stocked: Bench, changes: dict[str, Any]) -> None:
    assert not took_the_long_way(push(stocked, changes))
    stocked.assert_equal_to_git()


_NAMES = st.lists(st.sampled_from(["a", "a-", "a0", "b", "é"]), min_size=1, max_size=3).map("/".join)
_KINDS = st.sampled_from([None, b"1", b"2", executable(b"1"), Symlink(b"1"), Submodule("1" * 40)])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15, deadline=None)
@given(st.lists(st.dictionaries(_NAMES, _KINDS, min_size=1, max_size=4), min_size=1, max_size=3))
def test_any_row_of_pushes_ends_with_the_rows_of_git(bench: Bench, pushes: list[dict[str, Any]]) -> None:
    for changes in pushes:
        before = bench.repo.tree_sha()
        # git would have a path and one below it at once; the later one replaces the earlier one
        after = bench.repo.commit(changes)
        bench.sync()
        assert bench.facts().head_sha == after
        bench.assert_equal_to_git(contents=before != bench.repo.tree_sha())
        assert_folders(bench)


def test_several_commits_arrive_with_one_comparison(stocked: Bench) -> None:
    for number in range(5):
        stocked.repo.commit({f"n/{number}": b"%d" % number})
    assert not took_the_long_way(push(stocked, {"n/0": b"last"}))
    assert stocked.snapshots.commit_shas(stocked.facts().id) == stocked.repo.log()


def test_a_merge_has_its_commits_listed_and_no_tree(stocked: Bench) -> None:
    base = stocked.repo.head() or ""
    stocked.repo.reset("side", base)
    side = stocked.repo.commit({"side.txt": b"side\n"}, branch="side")
    stocked.repo.commit({"main.txt": b"main\n"})
    stocked.repo.merge(side, changes={"side.txt": b"side\n"})
    stocked.github.requests.clear()
    stocked.sync()
    stocked.assert_equal_to_git()
    assert not took_the_long_way(stocked.requests())
    assert stocked.snapshots.commit_shas(stocked.facts().id) == stocked.repo.log()


def test_three_hundred_files_may_be_more_and_take_the_long_way(stocked: Bench) -> None:
    assert took_the_long_way(push(stocked, {f"many/{number}": b"%d" % number for number in range(301)}))
    assert not took_the_long_way(push(stocked, {f"many/{number}": None for number in range(299)}))


def test_many_new_contents_are_fetched_as_an_archive(stocked: Bench) -> None:
    assert any("/tarball/" in path for path in push(stocked, {f"n/{number}": b"%d" % number for number in range(101)}))


def test_a_path_that_json_cannot_name_takes_the_long_way(stocked: Bench) -> None:
    assert took_the_long_way(push(stocked, {b"caf\xe9": b"1"}))


def test_a_content_over_the_limit_takes_the_long_way(stocked: Bench) -> None:
    stocked.content = rules((), (), 100_000)
    stocked.sync()
    asked = push(stocked, {"large": b"x" * 100_001})
    assert took_the_long_way(asked)
    assert not next(one for one in stocked.snapshots.entries(stocked.facts().id) if one.path == b"large").stored


def test_files_outside_the_rules_keep_their_sizes(stocked: Bench) -> None:
    stocked.content = rules((), ("*.psd",), 5_000_000)
    stocked.sync()
    push(stocked, {"image.psd": b"pixels"})
    assert not took_the_long_way(push(stocked, {"image.psd": None, "moved.psd": b"pixels"}))
    stored = {one.path: one.stored for one in stocked.snapshots.entries(stocked.facts().id)}
    assert not stored[b"moved.psd"]
    assert not took_the_long_way(push(stocked, {"moved.psd": None, "kept.txt": b"pixels"}))
    stocked.assert_equal_to_git()


def _without_a_file(answer: Answer) -> Answer:
    told = json.loads(answer.body)
    return replace(answer, body=json.dumps(told | {"files": told["files"][1:]}).encode())


def _another_blob(answer: Answer) -> Answer:
    told = json.loads(answer.body)
    told["files"][0]["sha"] = "d" * 40
    return replace(answer, body=json.dumps(told).encode())


def _ahead_of_another(answer: Answer) -> Answer:
    told = json.loads(answer.body)
    told["merge_base_commit"]["sha"] = "d" * 40
    return replace(answer, body=json.dumps(told).encode())


def _without_ids(answer: Answer) -> Answer:
    told = json.loads(answer.body)
    told["files"][0]["sha"] = None
    return replace(answer, body=json.dumps(told).encode())


def _unknown_status(answer: Answer) -> Answer:
    told = json.loads(answer.body)
    told["files"][0]["status"] = "teleported"
    return replace(answer, body=json.dumps(told).encode())


@pytest.mark.parametrize(
    "fault",
    [
        Html(),
        Status(200, {}),
        Status(404, {"message": "Not Found"}),
        Status(422, {"message": "This diff is taking too long to generate."}),
        Status(502),
        Replace(_without_a_file),
        Replace(_another_blob),
        Replace(_ahead_of_another),
        Replace(_without_ids),
        Replace(_unknown_status),
    ],
    ids=[
        "html",
        "empty",
        "404",
        "422",
        "502",
        "a-file-less",
        "another-blob",
        "another-base",
        "no-ids",
        "unknown-status",
    ],
)
def test_a_comparison_that_is_no_use_costs_the_long_way_and_nothing_else(stocked: Bench, fault: Any) -> None:
    stocked.github.faults.add("/compare/", fault)
    assert took_the_long_way(push(stocked, {"a/b.txt": b"1\n", "a/b/c/deep.txt": b"2\n"}))
    stocked.assert_equal_to_git()


@pytest.mark.parametrize(
    ("statement", "path"),
    [
        ("UPDATE entry SET mode = '100755' WHERE path = ?", b"a/b.txt"),  # beside what changes
        ("UPDATE folder SET tree_sha = replace(tree_sha, substr(tree_sha, 1, 1), 'x') WHERE path = ?", b"a-b"),
        ("DELETE FROM folder WHERE path >= ?", b""),
        ("UPDATE folder SET tree_sha = '1111111111111111111111111111111111111111' WHERE path = ?", b""),
    ],
)
def test_rows_that_were_damaged_do_not_pass_the_proof(stocked: Bench, statement: str, path: bytes) -> None:
    with stocked.database.write():
        assert stocked.database.execute(statement, (path,)).rowcount
    assert took_the_long_way(push(stocked, {"a/b/c/deep.txt": b"deeper\n"}))
    stocked.assert_equal_to_git()


def test_a_folder_that_has_lost_its_id_gets_it_back(stocked: Bench) -> None:
    with stocked.database.write():
        stocked.database.execute("DELETE FROM folder WHERE path = ?", (b"a-b",))
    assert not took_the_long_way(push(stocked, {"a/b/c/deep.txt": b"deeper\n"}))


def test_the_cost_of_a_push_does_not_grow_with_the_repository(bench: Bench) -> None:
    bench.repo.commit(
        {f"d{i}/e{j}/f{k}": b"%d %d %d" % (i, j, k) for i in range(10) for j in range(10) for k in range(5)}
    )
    bench.sync()
    seen: list[int] = []
    fetch = _counting_rows(bench, seen)
    assert not took_the_long_way(push_only(bench, {"d3/e4/f1": b"changed"}))
    fetch()
    assert sum(seen) < 60  # of 600


def push_only(bench: Bench, changes: dict[str, Any]) -> list[str]:
    bench.repo.commit(changes)
    bench.github.requests.clear()
    bench.sync()
    return bench.requests()


def _counting_rows(bench: Bench, seen: list[int]) -> Callable[[], None]:
    """How many rows the store gives of folders and entries, as the sync asks for them."""
    ask = bench.snapshots.folders

    def counted(*arguments: Any) -> Any:
        answer = ask(*arguments)
        seen.extend(len(one.entries) + len(one.folders) for one in answer.values())
        return answer

    bench.snapshots.folders = counted  # type: ignore[method-assign]
    bench.snapshots.entries = _never  # type: ignore[method-assign, assignment]

    def stop() -> None:
        del bench.snapshots.folders, bench.snapshots.entries

    return stop


def _never(_branch_id: int) -> None:
    raise AssertionError("the stored entries were read whole")


def test_what_an_audit_distrusts_is_not_stepped_from(stocked: Bench) -> None:
    with stocked.database.write():
        stocked.database.execute("UPDATE blob SET content = ? WHERE sha = ?", (b"\0", stocked.tree()[0][1]))
    stocked.repo.commit({"a/b.txt": b"1\n"})
    stocked.sync(Trigger.AUDIT)
    stocked.assert_equal_to_git()
    assert_folders(stocked)
