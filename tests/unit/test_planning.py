"""Plans lead from any stored snapshot to any listed one, and what is proven is what git has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.errors import SyncError
from daemon.model import EMPTY_TREE_SHA, Commit, CommitChange, Entry, RemoteEntry, RemoteTree
from daemon.sync import planning
from daemon.sync.gitobjects import blob_sha, root_tree, tree_ids
from daemon.sync.planning import Known, Listing, Source, TreeRequest

BAD = "\ufffd"


def sha(number: int) -> str:
    return blob_sha(str(number).encode())


def entry(path: bytes, number: int = 1, *, mode: str = "100644", stored: bool = True) -> Entry:
    size = None if mode in ("160000", "040000") else 10 * number
    return Entry(path, mode, sha(number), size, stored and size is not None)


def tree_of(entries: Sequence[Entry]) -> str:
    return root_tree((item.path, item.mode, item.sha) for item in entries)


def keep(_path: bytes) -> bool:
    return True


@dataclass
class GitHub:
    """Lists the trees of one snapshot as GitHub does: as text, and cut off behind ``limit`` entries."""

    entries: Sequence[Entry]
    limit: int = 100_000
    asked: list[TreeRequest] = field(default_factory=list)
    most_at_once: int = 0

    def __post_init__(self) -> None:
        self.folders = tree_ids((item.path, item.mode, item.sha) for item in self.entries)

    @property
    def root(self) -> str:
        return self.folders[b""]

    def tree(self, tree_sha: str, *, recursive: bool) -> RemoteTree:
        self.asked.append(TreeRequest(tree_sha, recursive))
        folder = next(path for path, found in self.folders.items() if found == tree_sha)
        prefix = folder + b"/" if folder else b""
        rows = [(item.path, item.path, item.mode, item.sha, item.size) for item in self.entries]
        rows += [(path + b"/", path, "040000", found, None) for path, found in self.folders.items() if path]
        below = [(path[len(prefix) :], *rest) for _, path, *rest in sorted(rows) if path.startswith(prefix)]
        seen = [row for row in below if recursive or b"/" not in row[0]]
        listed = tuple(RemoteEntry(path.decode("utf-8", "replace"), *rest) for path, *rest in seen[: self.limit])
        return RemoteTree(tree_sha, listed, truncated=len(seen) > self.limit)

    def listing(self, known: Known | None = None, **options: int) -> Listing:
        walk = planning.walk(self.root, known, **options) if known else planning.walk(self.root, **options)
        requests = next(walk)
        while True:
            self.most_at_once = max(self.most_at_once, len(requests))
            try:
                requests = walk.send([self.tree(one.tree_sha, recursive=one.recursive) for one in requests])
            except StopIteration as end:
                listing: Listing = end.value
                return listing

    def rows(self) -> list[Entry]:
        return planning.to_entries(self.listing(), wanted=keep, max_file_bytes=10**9)


SNAPSHOT = [
    entry(b"README.md"),
    entry(b"docs/a.md", 2),
    entry(b"docs/img/1.png", 3),
    entry(b"docs/img/2.png", 4),
    entry(b"lib", 5, mode="160000"),
    entry(b"link", 6, mode="120000"),
    entry(b"src/a/b/c/d.py", 7),
    entry(b"src/a/b/e.py", 8, mode="100755"),
    entry("src/ünï.py".encode(), 9),
]


# --- listing ---------------------------------------------------------------------------------------


def test_one_answer_that_is_whole_is_the_listing() -> None:
    github = GitHub(SNAPSHOT)
    listing = github.listing()
    assert github.asked == [TreeRequest(github.root, recursive=True)]
    assert [item.path.encode() for item in listing.entries] == [item.path for item in SNAPSHOT]
    assert {path.encode(): found for path, found in listing.folders.items()} == github.folders
    assert listing == planning.resolve(github.tree(github.root, recursive=True))


@pytest.mark.parametrize("limit", range(3, 16))
def test_a_truncated_tree_is_listed_by_folder(limit: int) -> None:
    whole = GitHub(SNAPSHOT).listing()
    if limit < 5:  # the root itself has five entries
        with pytest.raises(SyncError, match="too many entries"):
            GitHub(SNAPSHOT, limit).listing()
        return
    assert GitHub(SNAPSHOT, limit).listing() == whole


def test_only_what_is_truncated_is_split() -> None:
    github = GitHub([entry(b"a/%d" % n, n) for n in range(4)] + [entry(b"b/%d/%d" % (n, n), n) for n in range(4)], 4)
    github.listing()
    ids = github.folders
    assert github.asked == [
        TreeRequest(ids[b""], recursive=True),
        TreeRequest(ids[b""], recursive=False),
        TreeRequest(ids[b"a"], recursive=True),
        TreeRequest(ids[b"b"], recursive=True),
        TreeRequest(ids[b"b"], recursive=False),
        *[TreeRequest(ids[b"b/%d" % n], recursive=True) for n in range(4)],
    ]


@pytest.mark.parametrize("together", [2, 3, 10])
def test_neighbours_are_asked_for_together_each_once_and_the_listing_is_the_same(together: int) -> None:
    same = [entry(b"same%d/x" % n, 99) for n in range(3)]  # three folders with one id
    entries = [entry(b"a/%d" % n, n) for n in range(8)] + [entry(b"b/%d/%d" % (n, n), n) for n in range(8)] + same
    github = GitHub(sorted(entries, key=lambda item: item.path), 8)
    listing = github.listing(planning.known_folders([entry(b"z/3", 3)]), together=together)
    assert listing == GitHub(github.entries).listing()
    assert github.most_at_once == min(together, 7)
    asked = Counter(github.asked)
    assert asked.pop(TreeRequest(github.folders[b"same0"], recursive=True)) <= 3
    assert set(asked.values()) == {1}
    assert TreeRequest(github.folders[b"b/3"], recursive=True) not in asked


def test_a_folder_whose_content_is_stored_is_not_asked_for() -> None:
    github = GitHub([*SNAPSHOT, entry(b"new/x", 11)], 6)
    expected = GitHub([*SNAPSHOT, entry(b"new/x", 11)]).listing()
    listing = github.listing(planning.known_folders(SNAPSHOT))
    assert {request.tree_sha for request in github.asked} == {github.root, github.folders[b"new"]}
    assert listing.folders == expected.folders
    assert sorted(listing.entries, key=str) == sorted(expected.entries, key=str)


def test_a_folder_that_moved_is_still_known() -> None:
    moved = [replace(item, path=b"elsewhere/" + item.path) for item in SNAPSHOT if item.path.startswith(b"docs/")]
    github = GitHub([*moved, entry(b"elsewhere/more", 12), entry(b"x", 1)], 3)
    listing = github.listing(planning.known_folders(SNAPSHOT))
    assert github.folders[b"elsewhere/docs"] not in {request.tree_sha for request in github.asked}
    assert [item.path for item in listing.entries] == [
        "elsewhere/docs/a.md", "elsewhere/docs/img/1.png", "elsewhere/docs/img/2.png", "elsewhere/more", "x",
    ]  # fmt: skip


def test_known_folders_keep_names_that_json_cannot_carry() -> None:
    stored = [entry(b"d/caf\xe9/x", 1), entry(b"d/\xff", 2), entry(b"e", 3)]
    github = GitHub([*stored, entry(b"f", 4)], 3)
    rows = planning.to_entries(github.listing(planning.known_folders(stored)), wanted=keep, max_file_bytes=100)
    assert sorted(item.path for item in rows) == [b"d/caf\xe9/x", b"d/\xff", b"e", b"f"]
    assert planning.prove(rows, github.root).verified


def test_neighbours_that_sort_close_are_not_in_a_known_folder() -> None:
    stored = [
        entry(b"a-/x", 1),
        entry(b"a.b", 2),
        entry(b"a/x", 3),
        entry(b"a/y/z", 4),
        entry(b"a0", 5),
        entry(b"a0b/x", 6),
    ]
    ids = tree_ids((item.path, item.mode, item.sha) for item in stored)
    below = planning.known_folders(stored)(ids[b"a"])
    assert below is not None
    assert {item.path: item.sha for item in below} == {"x": sha(3), "y": ids[b"a/y"], "y/z": sha(4)}


def test_nothing_is_known_of_other_trees_nor_of_rows_that_are_no_tree() -> None:
    assert planning.known_folders(SNAPSHOT)(sha(1)) is None
    assert planning.known_folders([])(EMPTY_TREE_SHA) is None
    clash = [entry(b"a/x", 1), entry(b"a", 2)]
    assert planning.known_folders(clash)(tree_of([entry(b"x", 1)])) is None


def test_the_empty_tree_is_an_entry_and_not_asked_for() -> None:
    empty = Entry(b"a/empty", "040000", EMPTY_TREE_SHA, None)
    for limit in (2, 100):
        github = GitHub([entry(b"a/b/c"), empty, entry(b"d")], limit)
        listing = github.listing()
        assert RemoteEntry("a/empty", "040000", EMPTY_TREE_SHA, None) in listing.entries
        assert listing.folders.keys() == {"", "a", "a/b"}
        assert EMPTY_TREE_SHA not in {request.tree_sha for request in github.asked}
        rows = planning.to_entries(listing, wanted=keep, max_file_bytes=100)
        assert planning.prove(rows, github.root).verified
        assert [item.stored for item in rows if item.path == b"a/empty"] == [False]


def test_a_repository_without_files_has_an_empty_listing() -> None:
    listing = planning.resolve(RemoteTree(EMPTY_TREE_SHA, (), truncated=False))
    assert (listing.entries, listing.folders) == ([], {"": EMPTY_TREE_SHA})


def test_the_root_is_the_tree_that_was_asked_for_whatever_the_answer_calls_itself() -> None:
    walk = planning.walk(sha(1))
    next(walk)
    with pytest.raises(StopIteration) as end:
        walk.send([RemoteTree(sha(2), (), truncated=False)])
    assert end.value.value.folders == {"": sha(1)}


def test_a_folder_with_more_entries_than_github_lists_is_named() -> None:
    github = GitHub([entry(b"a/big\n/%d" % n, n) for n in range(9)], 5)
    with pytest.raises(SyncError, match=r"only a part of the folder 'a/big\\n'"):
        github.listing()


def bomb(request: TreeRequest) -> RemoteTree:
    """Every tree holds the same ten sub-trees, as deep as one cares to look."""
    folders = tuple(RemoteEntry(f"{n}", "040000", sha(n), None) for n in range(10))
    return RemoteTree(request.tree_sha, folders, truncated=request.recursive)


def drive(answer: Callable[[TreeRequest], RemoteTree], known: Known, **options: int) -> None:
    walk = planning.walk(sha(1), known, **options)
    requests = next(walk)
    for _ in range(100_000):
        requests = walk.send([answer(request) for request in requests])
    pytest.fail("the walk does not end")


def test_a_tree_that_unfolds_without_end_is_stopped_by_its_depth() -> None:
    with pytest.raises(SyncError, match="a path of more than"):
        drive(bomb, lambda _sha: None)


def test_a_path_that_a_file_system_takes_is_walked() -> None:
    deep = b"/".join([b"d" * 255] * 16)  # 4,095 bytes
    github = GitHub([entry(deep), entry(b"e", 2), entry(b"f", 3)], 4)
    assert [item.path.encode() for item in github.listing().entries] == [deep, b"e", b"f"]


def test_a_tree_that_unfolds_without_end_is_stopped_by_its_entries() -> None:
    ten = [RemoteEntry(f"{n}", "100644", sha(n), 1) for n in range(10)]
    github = GitHub([entry(b"%d/%d" % (n, m), n) for n in range(10) for m in range(10)], 20)
    assert len(github.listing(max_entries=111).entries) == 100
    with pytest.raises(SyncError, match="more than 110 entries"):
        github.listing(max_entries=110)
    with pytest.raises(SyncError, match="more than 50 entries"):
        drive(bomb, lambda _sha: ten, max_entries=50)


def test_what_is_asked_for_ahead_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "MAX_ENTRIES_AHEAD", 40)
    numbers, flat, held = count(2), set(), []
    files = tuple(RemoteEntry(f"{n}", "100644", sha(n), 1) for n in range(30))

    def nested(request: TreeRequest) -> RemoteTree:
        """Every folder has one that GitHub cuts off, and behind it three with thirty files each."""
        if request.tree_sha in flat:
            held.append(len(files))
            return RemoteTree(request.tree_sha, files, truncated=False)
        folders = tuple(RemoteEntry(name, "040000", sha(next(numbers)), None) for name in ("a", "x", "y", "z"))
        if not request.recursive:
            flat.update(folder.sha for folder in folders[1:])
        return RemoteTree(request.tree_sha, folders, truncated=request.recursive)

    with pytest.raises(SyncError, match="a path of more than"):
        drive(nested, lambda _sha: None, together=4)
    assert sum(held) <= 40 + 3 * 30


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_a_listing_is_the_same_however_often_it_is_truncated(data: st.DataObject) -> None:
    rows = data.draw(snapshots())
    whole = GitHub(rows).listing()
    widest = max(sum(1 for path in listed_in(rows, folder)) for folder in ["", *whole.folders])
    github = GitHub(rows, data.draw(st.integers(max(widest, 1), max(widest, 1) + 20)))
    assert github.listing() == whole
    stored = data.draw(st.lists(st.sampled_from(rows), unique=True)) if rows else []
    again = github.listing(planning.known_folders(stored))
    assert sorted(again.entries, key=str) == sorted(whole.entries, key=str)
    assert again.folders == whole.folders


def listed_in(rows: Sequence[Entry], folder: str) -> set[str]:
    prefix = f"{folder}/" if folder else ""
    texts = [item.path.decode() for item in rows]
    return {text[len(prefix) :].split("/")[0] for text in texts if text.startswith(prefix)}


# --- entries ---------------------------------------------------------------------------------------


def test_content_is_kept_where_the_rules_and_the_limit_allow() -> None:
    remote = [
        RemoteEntry("ok", "100644", sha(1), 100),
        RemoteEntry("big", "100644", sha(2), 101),
        RemoteEntry("empty", "100755", sha(3), 0),
        RemoteEntry("link", "120000", sha(4), 5),
        RemoteEntry("unwanted", "100644", sha(5), 5),
        RemoteEntry("module", "160000", sha(6), None),
        RemoteEntry("module-with-size", "160000", sha(6), 1),
        RemoteEntry("without-size", "100644", sha(7), None),
    ]
    rows = planning.to_entries(Listing(remote), wanted=lambda path: path != b"unwanted", max_file_bytes=100)
    assert [item.path.decode() for item in rows] == [item.path for item in remote]
    assert [item.path for item in rows if item.stored] == [b"ok", b"empty", b"link"]
    assert [(item.mode, item.sha, item.size) for item in rows] == [(item.mode, item.sha, item.size) for item in remote]


def test_a_lone_surrogate_from_json_becomes_an_unnameable_path() -> None:
    remote = [RemoteEntry("a\ud800b", "100644", sha(1), 1), RemoteEntry("\udcff\ud800", "100644", sha(1), 1)]
    rows = planning.to_entries(Listing(remote), wanted=keep, max_file_bytes=100)
    assert [item.path.decode() for item in rows] == [f"a{BAD}b", BAD * 2]


def test_needed_are_the_stored_blobs_with_their_sizes() -> None:
    rows = [entry(b"a", 1), entry(b"b", 1), entry(b"c", 2, stored=False), entry(b"d", 3), entry(b"m", 4, mode="160000")]
    assert planning.needed(rows) == {sha(1): 10, sha(3): 30}


@pytest.mark.parametrize(
    "changed",
    [
        entry(b"a", 2), entry(b"a", 1, mode="100755"), entry(b"a", 1, stored=False), Entry(b"a", "100644", sha(1), 11, True),
    ],
)  # fmt: skip
def test_an_entry_is_modified_when_any_fact_differs(changed: Entry) -> None:
    assert planning.changes([entry(b"a", 1)], [changed]) == ([], [changed], [])


def test_nothing_changes_between_the_same_rows() -> None:
    assert planning.changes(SNAPSHOT, SNAPSHOT[::-1]) == ([], [], [])


names = st.sampled_from([b"a", b"b", b"a.b", b"a-", b"ab", "\u00e9".encode(), "e\u0301".encode()])
modes = st.sampled_from(["100644", "100755", "120000", "160000"])


def without_clashes(rows: dict[bytes, Entry]) -> list[Entry]:
    return [rows[path] for path in sorted(rows) if not any(other.startswith(path + b"/") for other in rows)]


def snapshots(name: st.SearchStrategy[bytes] = names, *, contents: int = 5) -> st.SearchStrategy[list[Entry]]:
    path = st.lists(name, min_size=1, max_size=4).map(b"/".join)
    value = st.tuples(st.integers(1, contents), modes, st.booleans())
    return st.dictionaries(path, value, max_size=25).map(
        lambda rows: without_clashes(
            {path: entry(path, number, mode=mode, stored=stored) for path, (number, mode, stored) in rows.items()}
        )
    )


@given(snapshots(), snapshots())
def test_the_changes_lead_from_any_snapshot_to_any_other(old: list[Entry], new: list[Entry]) -> None:
    added, modified, removed = planning.changes(old, new)
    rows = {item.path: item for item in old}
    assert not {item.path for item in added} & rows.keys()
    assert {item.path for item in modified} <= rows.keys()
    for path in removed:
        del rows[path]
    rows |= {item.path: item for item in [*added, *modified]}
    assert rows == {item.path: item for item in new}
    assert not set(modified) & set(old)


@given(snapshots())
def test_what_is_listed_is_proven(rows: list[Entry]) -> None:
    github = GitHub(rows)
    proof = planning.prove(github.rows(), github.root)
    assert (proof.verified, proof.error, proof.folders[b""]) == (True, None, github.root)


# --- source ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("missing", "total", "expected"),
    [
        ((0, 0), (500, 10**6), Source.BLOBS),
        ((1, 10), (1, 10), Source.BLOBS),
        ((2, 10), (2, 10), Source.ARCHIVE),
        ((2, 10), (3, 10), Source.BLOBS),
        ((2, 10), (2, 10**6), Source.BLOBS),  # all that is wanted of a large tree
        ((20, 10**6), (500, 10**6), Source.BLOBS),
        ((21, 10**5), (500, 10**6), Source.ARCHIVE),
        ((21, 10**5 - 1), (500, 10**6), Source.BLOBS),
        ((100, 10**5 - 1), (500, 10**6), Source.BLOBS),
        ((101, 1), (500, 10**6), Source.ARCHIVE),
    ],
)
def test_the_source_is_the_cheaper_one(missing: tuple[int, int], total: tuple[int, int], expected: Source) -> None:
    source = planning.choose_source(
        missing_count=missing[0], missing_bytes=missing[1], total_count=total[0], total_bytes=total[1]
    )
    assert source is expected


# --- names that JSON cannot carry ------------------------------------------------------------------


def members_of(rows: Sequence[Entry]) -> dict[tuple[str, str], list[bytes]]:
    """What an archive says about rows, in the words of whoever decoded it."""
    found: dict[tuple[str, str], list[bytes]] = {}
    for item in rows:
        if item.mode != "160000":
            found.setdefault((item.path.decode("utf-8", "replace"), item.sha), []).append(item.path)
    return found


def mended(real: Sequence[Entry], members: dict[tuple[str, str], list[bytes]]) -> tuple[list[Entry], GitHub]:
    github = GitHub(real)
    rows = planning.mend_names(github.rows(), members)
    return rows, github


def check_mended(real: Sequence[Entry], members: dict[tuple[str, str], list[bytes]]) -> None:
    rows, github = mended(real, members)
    assert [(item.path, item.mode, item.sha) for item in rows] == [(item.path, item.mode, item.sha) for item in real]
    assert planning.prove(rows, github.root).verified


def test_what_is_text_stays_as_it_is() -> None:
    assert planning.mend_names(SNAPSHOT, {("README.md", sha(1)): [b"other"]}) == SNAPSHOT


@pytest.mark.parametrize(
    "real",
    [
        [entry(b"caf\xe9")],
        [entry(b"caf\xe9/x"), entry(b"caf\xe9/y", 2), entry(b"z")],
        [entry(b"\xfe", 1), entry(b"\xff", 2)],
        [entry(b"\xfe", 2), entry(b"\xff", 1)],
        [entry(b"\xfe", 1), entry(b"\xff", 1)],
        [entry(b"\xfe", 1), entry(b"\xff", 1, mode="100755")],
        [entry(b"\xfe", 1, mode="100755"), entry(b"\xff", 1)],
        [entry(b"\xe2\x82", 1), entry(b"\xe2\x82\xff\xff", 2), entry(BAD.encode(), 3)],
        [entry(b"\xfe/x", 1), entry(b"\xff/x", 1), entry(b"\xff/y", 1)],
        [entry(b"\xfd", 1), entry(b"\xfe/x", 1), entry(b"\xff/x", 2)],
    ],
)
def test_the_archive_gives_unnameable_paths_their_bytes_back(real: list[Entry]) -> None:
    real = sorted(real, key=lambda item: item.path)
    check_mended(real, members_of(real))
    check_mended(real, planning.names_of(real))


def test_who_decoded_the_archive_does_not_matter() -> None:
    real = [entry(b"a\xe2\x82\xe2\x82b")]
    for shown in (f"a{BAD}b", f"a{BAD * 4}b", "whatever"):
        check_mended(real, {(shown, sha(1)): [real[0].path]})


@settings(deadline=None, max_examples=200)
@given(snapshots(st.sampled_from([b"a", b"\xfe", b"\xff", b"a\xe9", BAD.encode(), b"\xfea"]), contents=3))
def test_any_names_come_back_from_an_archive_of_the_same_files(rows: list[Entry]) -> None:
    files = [item for item in rows if item.mode != "160000"]
    check_mended(files, members_of(files))
    check_mended(rows, planning.names_of(rows))


def test_a_file_that_the_archive_changed_is_known_by_its_looks() -> None:
    real = [entry(b"stamp\xff", 1), entry(b"x", 2)]
    check_mended(real, {(f"stamp{BAD}", sha(9)): [b"stamp\xff"]})


def test_files_that_the_archive_changed_are_told_apart_by_their_order() -> None:
    check_mended([entry(b"\xfe", 1), entry(b"\xff", 2)], {(BAD, sha(9)): [b"\xff", b"\xfe"]})


def test_the_id_goes_before_the_looks() -> None:
    real = [entry(b"\xfe", 1), entry(b"\xff", 2)]
    rows, _ = mended(real, {(BAD, sha(2)): [b"\xff"]})
    assert [item.path for item in rows] == [BAD.encode(), b"\xff"]


def test_a_file_that_is_gone_does_not_confuse_the_others() -> None:
    old = [entry(b"\xfd", 3), entry(b"\xfe", 1), entry(b"\xff", 2)]
    check_mended(old[1:], planning.names_of(old))


def test_two_that_look_alike_are_not_guessed_from_one() -> None:
    real = [entry(b"\xfe", 1), entry(b"\xff", 2)]
    rows, _ = mended(real, {(BAD, sha(9)): [b"\xff"]})
    assert {item.path for item in rows} == {BAD.encode(), BAD.encode() + b"~" + sha(2)[:8].encode()}


def test_a_submodule_gets_the_folder_of_its_neighbours() -> None:
    real = [entry(b"caf\xe9/deep/module", 1, mode="160000"), entry(b"caf\xe9/x", 2)]
    check_mended(real, {(f"caf{BAD}/x", sha(2)): [b"caf\xe9/x"]})


def test_a_folder_that_two_look_like_is_not_guessed() -> None:
    real = [entry(b"\xfe/m", 1, mode="160000"), entry(b"\xfe/x", 2), entry(b"\xff/x", 3)]
    rows, _ = mended(real, members_of(real))
    assert [item.path for item in rows] == [f"{BAD}/m".encode(), b"\xfe/x", b"\xff/x"]


def test_what_an_older_snapshot_guessed_wrong_an_archive_puts_right() -> None:
    old, real = [entry(b"\xfe", 1)], [entry(b"\xff", 2)]
    rows, github = mended(real, planning.names_of(old))
    assert not planning.prove(rows, github.root).verified
    again = planning.mend_names(rows, members_of(real))
    assert planning.prove(again, github.root).verified


def test_mending_again_without_news_changes_nothing() -> None:
    real = [entry(b"\xfe", 1), entry(b"\xff", 1), entry(b"a", 2)]
    rows, _ = mended(real, members_of(real))
    assert planning.mend_names(rows, {}) == rows


def test_paths_that_nothing_names_stay_distinct() -> None:
    real = [entry(b"\xfd", 1), entry(b"\xfe", 1), entry(b"\xfe\xfe", 1), entry(b"\xff/x", 2)]
    rows, _ = mended(real, {})
    paths = [item.path for item in rows]
    assert len(set(paths)) == 4
    plain, tail = BAD.encode(), b"~" + sha(1)[:8].encode()
    # There is a folder of that look too, so no file can have it.
    assert paths == [plain + tail, plain + tail + b"~2", plain * 2, f"{BAD}/x".encode()]
    assert planning.mend_names(rows, {}) == rows


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        (b"a/b", "a/b"),
        (b"a\xff\xfe/\xe9", f"a{BAD}/{BAD}"),
        (BAD.encode() * 3, BAD),
        (b"", ""),
        ("\u00e9".encode(), "\u00e9"),
    ],
)
def test_a_path_is_shown_with_one_mark_for_any_run_of_bad_bytes(path: bytes, shown: str) -> None:
    assert planning.display_path(path) == shown


# --- proof -----------------------------------------------------------------------------------------


def test_another_tree_is_not_verified_and_both_are_named() -> None:
    proof = planning.prove(SNAPSHOT[1:], tree_of(SNAPSHOT))
    assert not proof.verified
    assert proof.error is not None
    assert tree_of(SNAPSHOT) in proof.error
    assert tree_of(SNAPSHOT[1:]) in proof.error


def test_rows_that_are_no_tree_are_not_verified() -> None:
    proof = planning.prove([entry(b"a"), entry(b"a")], sha(1))
    assert proof == planning.Proof(verified=False, error="two entries have the path b'a'")


def test_the_explanation_names_the_deepest_folder_that_differs() -> None:
    github = GitHub(SNAPSHOT)
    rows = [replace(item, sha=sha(99)) if item.path == b"src/a/b/c/d.py" else item for item in SNAPSHOT]
    text = planning.explain(rows, github.listing().folders)
    assert text.startswith("the folder 'src/a/b/c' is ")
    assert github.folders[b"src/a/b/c"] in text
    assert tree_of([entry(b"d.py", 99)]) in text


def test_the_explanation_names_the_root_and_what_is_missing() -> None:
    folders = GitHub(SNAPSHOT).listing().folders
    assert planning.explain(SNAPSHOT[1:], folders).startswith("the root folder is ")
    without = [item for item in SNAPSHOT if not item.path.startswith(b"docs/img")]
    assert planning.explain(without, folders).startswith("the folder 'docs/img' is missing when recomputed, and ")
    more = [*SNAPSHOT, entry(b"docs/new/\n\xff/x")]
    assert planning.explain(more, folders).startswith(r"the folder 'docs/new/\n\ufffd' is ")
    assert planning.explain(more, folders).endswith("and missing on GitHub")


def test_the_explanation_of_rows_that_are_no_tree_says_why() -> None:
    assert planning.explain([entry(b"../a")], {}) == "git cannot hold the folder b'..'"


def test_the_explanation_says_when_every_folder_is_right() -> None:
    assert "another tree" in planning.explain(SNAPSHOT, GitHub(SNAPSHOT).listing().folders)


def test_an_unnameable_path_excuses_the_folders_it_is_in() -> None:
    for path in (b"\xff", b"docs/\xff", b"docs/img/\xff", b"d\xff/x/y", b"src/\xff/a/b"):
        real = sorted([*SNAPSHOT, entry(path, 20)], key=lambda item: item.path)
        github = GitHub(real)
        rows = github.rows()
        assert not planning.prove(rows, github.root).verified
        assert planning.only_unnameable(rows, github.listing().folders), path


def test_a_folder_that_was_mended_before_excuses_like_any_other() -> None:
    stored = [entry(b"d/caf\xe9/x", 1), entry(b"e", 3)]
    github = GitHub([*stored, entry(b"f/\xff", 4), entry(b"g/1", 5), entry(b"g/2", 5)], 4)
    listing = github.listing(planning.known_folders(stored))
    rows = planning.to_entries(listing, wanted=keep, max_file_bytes=100)
    assert not planning.prove(rows, github.root).verified
    assert planning.only_unnameable(rows, listing.folders)


def test_an_unnameable_path_does_not_excuse_what_else_is_wrong() -> None:
    github = GitHub(sorted([*SNAPSHOT, entry(b"docs/img/\xff", 20)], key=lambda item: item.path))
    rows, folders = github.rows(), github.listing().folders
    for path in (b"README.md", b"docs/a.md", b"src/a/b/c/d.py"):
        wrong = [replace(item, sha=sha(99)) if item.path == path else item for item in rows]
        assert not planning.only_unnameable(wrong, folders), path
        assert not planning.only_unnameable([item for item in rows if item.path != path], folders), path
    assert not planning.only_unnameable([*rows, entry(b"new/x")], folders)
    assert not planning.only_unnameable([*rows, entry(b"README.md")], folders)


def test_without_an_unnameable_path_there_is_no_excuse() -> None:
    folders = GitHub(SNAPSHOT).listing().folders
    assert not planning.only_unnameable(SNAPSHOT, folders)
    assert not planning.only_unnameable(SNAPSHOT, {**folders, "": sha(1)})
    assert not planning.only_unnameable([], {"": EMPTY_TREE_SHA})


@settings(deadline=None, max_examples=200)
@given(snapshots(st.sampled_from([b"a", b"b", b"\xfe", b"\xff\xff", b"a\xe9", BAD.encode()])), st.data())
def test_an_honest_listing_is_proven_or_excused(real: list[Entry], data: st.DataObject) -> None:
    some = data.draw(st.lists(st.sampled_from(real), unique=True)) if real else []
    rows, github = mended(real, members_of(some))
    assert len({item.path for item in rows}) == len(rows)
    assert planning.prove(rows, github.root).verified or planning.only_unnameable(rows, github.listing().folders)
    assert planning.explain(rows, github.listing().folders)


# --- history ---------------------------------------------------------------------------------------


def commits(text: str) -> list[Commit]:
    return [Commit(name, "", (), "", "", "", "", "") for name in text]


def after(stored: str, change: CommitChange) -> str:
    """What the store holds once it did what the change says."""
    new = "".join(commit.sha for commit in change.prepend)
    if not change.replace:
        return new + stored
    return new + (stored[stored.index(change.keep_below) + 1 :] if change.keep_below else "")


@pytest.mark.parametrize(
    ("stored", "listed", "replaced", "expected"),
    [
        ("", "", False, ""),
        ("", "cba", True, "cba"),
        ("ba", "", False, "ba"),
        ("cba", "cba", False, "cba"),
        ("cba", "c", False, "cba"),
        ("cba", "edcba", False, "edcba"),
        ("cba", "edc", False, "edcba"),
        ("cba", "edcbaz", False, "edcba"),
        ("cba", "b", True, "ba"),
        ("cba", "ba", True, "ba"),
        ("cba", "xyb", True, "xyba"),
        ("cba", "xy", True, "xy"),
        ("cba", "xyz", True, "xyz"),
        ("cba", "mcxb", True, "mcxba"),
        ("cba", "mcx", True, "mcx"),
        ("cba", "mxcb", False, "mxcba"),
    ],
)
def test_history_is_what_was_listed_and_what_is_older(stored: str, listed: str, replaced: bool, expected: str) -> None:
    change = planning.merge_history(list(stored), commits(listed))
    assert change.replace is replaced
    assert after(stored, change) == expected


@given(st.randoms(use_true_random=False), st.integers(0, 12), st.integers(0, 12), st.integers(0, 12))
def test_a_history_that_only_grew_is_whole_afterwards(random: Random, length: int, new: int, shown: int) -> None:
    history = "".join(random.sample("abcdefghijklmnopqrstuvwxyz", length + new))
    stored, listed = history[new:], history[: max(shown, new + 1)]
    assert after(stored, planning.merge_history(list(stored), commits(listed))) == (history if stored else listed)
