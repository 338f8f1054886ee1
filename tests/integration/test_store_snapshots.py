"""Snapshots: swapped whole, read at one commit, swept when nothing shows them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Stopwatch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_bench import NOW, Bench, blob, change, commit, delivery, later, rule, sha

from daemon.errors import StoreError
from daemon.model import CommitChange, Entry, FilesPage, RawFile, Trigger
from daemon.store.snapshots import _successor


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path / "store.db")
    yield bench.begin()
    bench.db.close()


def page(bench: Bench, snapshot: int | None = None, **changes: object) -> FilesPage:
    values: dict[str, object] = {"prefix": b"", "after": None, "limit": 1000}
    return bench.snapshots.files(1, snapshot=snapshot, **(values | changes))  # type: ignore[arg-type]


def paths(shown: FilesPage) -> list[bytes]:
    return [entry.path for entry in shown.entries]


A, B, C = blob(b"a", b"1"), blob(b"b", b"2"), blob(b"c", b"3")


# -- applying ----------------------------------------------------------------------------------------


def test_a_snapshot_holds_what_was_applied(bench: Bench) -> None:
    submodule = Entry(b"vendor/lib", "160000", sha("lib"), None)
    link = blob(b"link", b"a", mode="120000")
    run_id = bench.apply(change("one", added=(A, submodule, link)), contents=(b"1", b"a"))
    assert bench.snapshots.entries(1) == [A, link, submodule]
    facts = bench.snapshots.facts(1)
    assert (facts.head_sha, facts.tree_sha, facts.remote_sha) == (sha("one"), sha("tree of one"), sha("one"))
    assert (facts.snapshot, facts.rules_digest, facts.tree_verified, facts.remote_read_at) == (1, "rules", True, NOW)
    assert bench.jobs.record(1).state == "idle"
    run = bench.history.run(run_id)
    assert run is not None
    assert (run.outcome, run.after) == ("updated", sha("one"))


def test_a_change_adds_modifies_and_removes(bench: Bench) -> None:
    bench.apply(change("one", added=(A, B)), contents=(b"1", b"2"))
    changed = blob(b"a", b"changed")
    bench.apply(change("two", added=(C,), modified=(changed,), removed=(b"b",)), contents=(b"3", b"changed"))
    assert bench.snapshots.entries(1) == [changed, C]
    assert bench.snapshots.facts(1).snapshot == 2


def test_what_was_removed_can_come_back(bench: Bench) -> None:
    bench.apply(change("one", added=(A,)), contents=(b"1",))
    bench.apply(change("two", removed=(b"a",)))
    assert bench.snapshots.entries(1) == []
    bench.apply(change("three", added=(A,)))
    assert bench.snapshots.entries(1) == [A]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(st.sets(st.binary(min_size=1, max_size=40), max_size=30))
def test_paths_of_any_bytes_come_back_as_they_were_in_byte_order(bench: Bench, names: set[bytes]) -> None:
    old = tuple(entry.path for entry in bench.snapshots.entries(1))
    entries = tuple(blob(name, name, stored=False) for name in names)
    bench.apply(change("empty", removed=old))
    bench.apply(change("any", added=entries))
    assert [entry.path for entry in bench.snapshots.entries(1)] == sorted(names)
    assert paths(page(bench)) == sorted(names)


def test_a_path_is_also_kept_as_text_for_sql(bench: Bench) -> None:
    bench.apply(change("one", added=(blob(b"caf\xe9", b"", stored=False),)))
    assert bench.value("SELECT path_text FROM entry") == "caf\ufffd"


@pytest.mark.parametrize(
    "wrong",
    [
        change("two", added=(blob(b"a", b"again", stored=False),)),
        change("two", modified=(blob(b"z", b"new", stored=False),)),
        change("two", removed=(b"z",)),
    ],
    ids=["added twice", "modified but not there", "removed but not there"],
)
def test_a_change_planned_on_other_entries_is_refused_whole(bench: Bench, wrong: object) -> None:
    bench.apply(change("one", added=(A,)), contents=(b"1",))
    with pytest.raises(StoreError, match="other entries"):
        bench.apply(wrong)  # type: ignore[arg-type]
    assert bench.snapshots.entries(1) == [A]
    assert bench.snapshots.facts(1).head_sha == sha("one")
    assert bench.jobs.record(1).state == "running"


def test_a_snapshot_whose_contents_are_not_stored_is_refused(bench: Bench) -> None:
    with pytest.raises(StoreError, match="not stored"):
        bench.apply(change("one", added=(A,)))
    assert bench.snapshots.facts(1).snapshot == 0


def test_serving_ends_the_deliveries_that_the_snapshot_answers(bench: Bench) -> None:
    bench.history.store_deliveries([delivery(1), delivery(2)], now=NOW)
    claim = bench.claim()
    assert claim is not None
    run_id = bench.apply(change("head 2"), claim=claim, served=(1, 2))
    assert bench.jobs.announcements(1, generation=99) == []
    assert {one.run_id for one in bench.history.deliveries(before_id=None, limit=9)} == {run_id}


def test_a_synced_branch_is_well_again(bench: Bench) -> None:
    bench.repositories.mark_branch(1, gone=True, at=NOW, error="it is gone")
    bench.apply(change("one", tree_verified=False, tree_error="a path \0"), now=later(5))
    record = bench.repositories.record("octo", "data")
    assert record is not None
    branch = record.branches[0]
    assert (branch.gone, branch.last_error, branch.tree_verified, branch.tree_error) == (
        False, None, False, "a path \ufffd",
    )  # fmt: skip
    assert (branch.synced_at, branch.confirmed_at, branch.last_trigger) == (later(5), later(5), "webhook")


def test_a_change_is_announced_once_it_is_visible(bench: Bench) -> None:
    bench.apply(change("one", added=(A, blob(b"caf\xe9", b"", stored=False))), contents=(b"1",))
    bench.apply(change("two", removed=(b"a",)), before=sha("one"))
    assert bench.rows(
        'SELECT type, branch_id, "before", "after", added, modified, removed FROM outbox ORDER BY id'
    ) == [
        ("branch.changed", 1, None, sha("one"), '["a","caf\\ufffd"]', "[]", "[]"),
        ("branch.changed", 1, sha("one"), sha("two"), "[]", "[]", '["a"]'),
    ]


def test_the_same_commit_again_without_a_difference_is_not_announced(bench: Bench) -> None:
    bench.apply(change("one"))
    bench.apply(change("one", rules_digest="others"), before=sha("one"))
    assert bench.value("SELECT count(*) FROM outbox") == 1


def test_twenty_thousand_entries_are_applied_within_seconds(bench: Bench) -> None:
    entries = tuple(blob(b"folder %d/file %d" % (number % 200, number), b"%d" % number) for number in range(20_000))
    contents = [(entry.sha, b"%d" % number) for number, entry in enumerate(entries)]
    with Stopwatch() as watch:
        assert len(bench.snapshots.missing(entry.sha for entry in entries)) == 20_000
        for first in range(0, 20_000, 500):
            bench.snapshots.store_blobs(contents[first : first + 500], now=NOW)
        assert bench.snapshots.missing(entry.sha for entry in entries) == set()
        bench.apply(change("one", added=entries))
    assert watch.seconds < 8
    assert len(bench.snapshots.entries(1)) == 20_000


# -- contents ----------------------------------------------------------------------------------------


def test_a_content_stored_twice_is_stored_once(bench: Bench) -> None:
    for _ in range(2):
        bench.snapshots.store_blobs([(A.sha, b"1"), (A.sha, b"1")], now=NOW)
    assert bench.value("SELECT count(*) FROM blob") == 1
    assert bench.snapshots.missing([A.sha, B.sha]) == {B.sha}
    assert bench.snapshots.blob(A.sha) == b"1"
    assert bench.snapshots.blob(B.sha) is None


def test_the_raw_content_of_a_path(bench: Bench) -> None:
    unstored = blob(b"big", b"x" * 100, stored=False)
    submodule = Entry(b"lib", "160000", sha("lib"), None)
    bench.apply(change("one", added=(A, unstored, submodule)), contents=(b"1",))
    assert bench.snapshots.raw(1, b"a") == RawFile(A.sha, "100644", 1, sha("one"), NOW, b"1")
    for path in (b"big", b"lib", b"none", b""):
        assert bench.snapshots.raw(1, path) is None
    bench.apply(change("two", removed=(b"a",)))
    assert bench.snapshots.raw(1, b"a") is None


def test_what_is_distrusted_is_fetched_and_proven_anew(bench: Bench) -> None:
    bench.apply(change("one", added=(A, B)), contents=(b"1", b"2"))
    bench.snapshots.distrust(1, blobs=[A.sha])
    facts = bench.snapshots.facts(1)
    assert (facts.rules_digest, facts.tree_verified, facts.head_sha) == (None, None, sha("one"))
    assert bench.snapshots.missing([A.sha, B.sha]) == {A.sha}


# -- paging ------------------------------------------------------------------------------------------


def test_files_are_listed_by_prefix_and_in_pages(bench: Bench) -> None:
    names = [b"a", b"docs/1", b"docs/2", b"docs/3", b"docs0", b"z"]
    bench.apply(change("one", added=tuple(blob(name, name, stored=False) for name in names)))
    first = page(bench, prefix=b"docs/", limit=2)
    assert paths(first) == [b"docs/1", b"docs/2"]
    assert (first.snapshot, first.head_sha, first.confirmed_at) == (1, sha("one"), NOW)
    assert paths(page(bench, 1, prefix=b"docs/", after=b"docs/2")) == [b"docs/3"]
    assert paths(page(bench)) == names


@pytest.mark.parametrize("prefix", [b"\xff", b"\xff\xff", b"a\xff"])
def test_a_prefix_at_the_end_of_the_order_finds_its_paths(bench: Bench, prefix: bytes) -> None:
    bench.apply(change("one", added=(blob(prefix + b"x", b"", stored=False), blob(b"other", b"", stored=False))))
    assert paths(page(bench, prefix=prefix)) == [prefix + b"x"]


@given(st.binary(max_size=4), st.binary(max_size=6))
def test_the_end_of_a_prefix_is_beyond_all_that_begin_with_it(prefix: bytes, path: bytes) -> None:
    end = _successor(prefix)
    inside = path >= prefix and (end is None or path < end)
    assert inside == path.startswith(prefix)


def test_a_branch_without_a_snapshot_has_an_empty_page(bench: Bench) -> None:
    assert page(bench) == FilesPage(0, None, None, ())


def test_a_reader_that_pages_during_a_sync_stays_at_its_commit(bench: Bench) -> None:
    bench.apply(change("one", added=(A, B, C)), contents=(b"1", b"2", b"3"))
    first = page(bench, limit=1)
    bench.apply(
        change("two", added=(blob(b"a2", b"", stored=False),), modified=(blob(b"b", b"new", stored=False),),
               removed=(b"c",)),
        now=later(1),
    )  # fmt: skip
    rest = page(bench, first.snapshot, after=b"a")
    assert rest.entries == (B, C)
    assert (rest.head_sha, rest.confirmed_at) == (sha("one"), NOW)
    assert paths(page(bench)) == [b"a", b"a2", b"b"]


@pytest.mark.parametrize("snapshot", [0, 2, -1, 2**62])
def test_a_snapshot_that_is_not_kept_is_no_empty_page(bench: Bench, snapshot: int) -> None:
    bench.apply(change("one", added=(A,)), contents=(b"1",))
    with pytest.raises(LookupError):
        page(bench, snapshot)


def test_readers_see_one_commit_or_the_other_while_snapshots_are_swapped(bench: Bench) -> None:
    """Each commit writes its own name into every entry; no page may ever hold two names."""
    names = [b"%03d" % number for number in range(200)]
    bench.apply(change("0", added=tuple(blob(name, b"0", stored=False) for name in names)))
    done = threading.Event()
    mixtures: list[object] = []

    def read() -> None:
        while not done.is_set():
            with bench.db.read():
                head = bench.snapshots.facts(1).head_sha
                contents = {entry.sha for entry in bench.snapshots.entries(1)}
                shown = page(bench)
            if len(contents) != 1 or shown.head_sha != head or {entry.sha for entry in shown.entries} != contents:
                mixtures.append((head, contents))

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(1, 15):
        entries = tuple(blob(name, b"%d" % number, stored=False) for name in names)
        bench.apply(change(str(number), modified=entries))
    done.set()
    for reader in readers:
        reader.join(10)
    assert mixtures == []


# -- commits -----------------------------------------------------------------------------------------


def log(bench: Bench) -> list[str]:
    return [one.message for _, one in bench.snapshots.commits(1, before=None, limit=100)]


def store(bench: Bench, *names: str, replace: bool = False, keep_below: str | None = None) -> None:
    below = sha(keep_below) if keep_below else None
    commits = CommitChange(tuple(commit(name) for name in names), replace, below)
    bench.apply(change(names[0] if names else "none"), commits=commits)


def test_commits_are_listed_newest_first_and_in_pages(bench: Bench) -> None:
    store(bench, "2", "1")
    store(bench, "4", "3")
    assert log(bench) == ["4", "3", "2", "1"]
    first = bench.snapshots.commits(1, before=None, limit=2)
    assert [one.message for _, one in bench.snapshots.commits(1, before=first[-1][0], limit=9)] == ["2", "1"]
    assert bench.snapshots.commit_shas(1) == [sha(name) for name in "4321"]
    assert bench.snapshots.commit_shas(1, limit=1) == [sha("4")]
    assert bench.snapshots.has_commit(1, sha("3"))
    assert not bench.snapshots.has_commit(1, sha("5"))


def test_a_commit_comes_back_as_it_was(bench: Bench) -> None:
    whole = commit("x", parents=(sha("p1"), sha("p2")), message="día\n\nbody", author_name="日")
    bench.apply(change("x"), commits=CommitChange((whole,), replace=False))
    assert [one for _, one in bench.snapshots.commits(1, before=None, limit=1)] == [whole]


def test_what_no_database_can_store_in_a_commit_is_replaced(bench: Bench) -> None:
    bench.apply(change("x"), commits=CommitChange((commit("x", message="a\0b\ud800"),), replace=False))
    assert log(bench) == ["a\ufffdb\ufffd"]


def test_a_new_history_replaces_the_old(bench: Bench) -> None:
    store(bench, "3", "2", "1")
    store(bench, "c", "b", replace=True)
    assert log(bench) == ["c", "b"]


def test_a_new_history_keeps_what_is_older_than_where_it_joins(bench: Bench) -> None:
    store(bench, "4", "3", "2", "1")
    store(bench, "b", "a", "2", replace=True, keep_below="2")
    assert log(bench) == ["b", "a", "2", "1"]


def test_a_position_is_never_used_again(bench: Bench) -> None:
    store(bench, "3", "2", "1")
    top = bench.snapshots.commits(1, before=None, limit=1)[0][0]
    store(bench, "b", "a", replace=True)
    assert all(position > top for position, _ in bench.snapshots.commits(1, before=None, limit=9))


# -- branches ----------------------------------------------------------------------------------------


def test_a_branch_is_found_by_name_or_as_the_default(bench: Bench) -> None:
    bench.repositories.track([rule("octo/data", "main", "dev"), rule("octo/one", "only")], now=NOW)
    bench.repositories.identify(1, bench_remote(), now=NOW)
    assert bench.snapshots.branch_id(1, None) == bench.snapshots.branch_id(1, "main") == 1
    assert bench.snapshots.branch_id(1, "dev") not in (None, 1)
    assert bench.snapshots.branch_id(1, "gone") is None
    assert bench.snapshots.branch_id(2, None) == bench.snapshots.branch_id(2, "only")
    assert bench.snapshots.branch_id(99, None) is None


def bench_remote() -> object:
    from store_bench import remote

    return remote(default="main")


def test_an_unknown_branch_has_no_facts(bench: Bench) -> None:
    with pytest.raises(LookupError):
        bench.snapshots.facts(99)
    with pytest.raises(LookupError):
        bench.snapshots.files(99, snapshot=None, prefix=b"", after=None, limit=1)


# -- sweeping ----------------------------------------------------------------------------------------


def test_entries_are_swept_once_nobody_can_be_reading_them(bench: Bench) -> None:
    bench.apply(change("one", added=(A, B)), contents=(b"1", b"2"))
    bench.apply(change("two", removed=(b"a",)), now=later(100))
    bench.apply(change("three", removed=(b"b",)), now=later(650))
    assert bench.snapshots.sweep(now=later(699)) == 0
    assert paths(page(bench, 1)) == [b"a", b"b"]
    assert bench.snapshots.sweep(now=later(700)) == 1
    with pytest.raises(LookupError):
        page(bench, 1)
    assert paths(page(bench, 2)) == [b"b"]
    assert bench.snapshots.sweep(now=later(1250)) == 1
    assert bench.value("SELECT count(*) FROM entry") == 0


def test_contents_are_swept_once_nothing_shows_them_and_no_sync_may_want_them(bench: Bench) -> None:
    bench.apply(change("one", added=(A,)), contents=(b"1", b"2"))
    assert bench.snapshots.sweep(now=later(3600)) == 0
    assert bench.snapshots.sweep(now=later(3601), batch=1) == 1
    assert bench.snapshots.missing([A.sha, B.sha]) == {B.sha}


def test_a_content_that_another_branch_shows_is_kept(bench: Bench) -> None:
    bench.repositories.track([rule("octo/data"), rule("octo/more")], now=NOW)
    other = bench.snapshots.branch_id(2, None)
    assert other is not None
    bench.apply(change("one", added=(A,)), contents=(b"1",))
    bench.want(Trigger.MANUAL, branch=other)
    bench.apply(change("more", added=(A,)), claim=bench.claim())
    bench.apply(change("two", removed=(b"a",)), now=later(1))
    bench.snapshots.sweep(now=later(10**6))
    assert bench.snapshots.missing([A.sha]) == set()


def test_a_sweep_goes_in_short_steps_and_takes_all(bench: Bench) -> None:
    entries = tuple(blob(b"%d" % number, b"", stored=False) for number in range(25))
    bench.apply(change("one", added=entries))
    bench.apply(change("two", removed=tuple(entry.path for entry in entries)), now=later(1))
    assert bench.snapshots.sweep(now=later(1000), batch=10) == 25
