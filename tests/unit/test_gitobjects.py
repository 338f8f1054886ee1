"""Object ids are git's own: git is asked for each of them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.model import EMPTY_BLOB_SHA, EMPTY_TREE_SHA
from daemon.sync.gitobjects import blob_hasher, blob_sha, is_sha, root_tree, tree_ids

Object = tuple[bytes, str, str]
A, B = "a" * 40, "b" * 40


class Git:
    """A repository of its own; objects named in its index need not exist."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._index = count()
        self("init", "--quiet", "--bare")

    def __call__(self, *arguments: str, stdin: bytes = b"", index: str = "index") -> bytes:
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_DIR": str(self._folder),
            "GIT_INDEX_FILE": str(self._folder / index),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
        }
        done = subprocess.run(["git", *arguments], input=stdin, env=environment, capture_output=True, check=True)
        return done.stdout

    def tree_ids(self, objects: Iterable[Object]) -> dict[bytes, str]:
        """Every folder's id, as ``git write-tree`` makes them."""
        lines = b"".join(b"%b %b\t%b\0" % (mode.encode(), sha.encode(), path) for path, mode, sha in objects)
        index = f"index-{next(self._index)}"
        self("update-index", "-z", "--index-info", stdin=lines, index=index)
        root = self("write-tree", "--missing-ok", index=index).decode().strip()
        found = {b"": root}
        for line in self("ls-tree", "-r", "-t", "-d", "-z", root).split(b"\0")[:-1]:
            facts, _, path = line.partition(b"\t")
            if facts.split()[1] == b"tree":
                found[path] = facts.split()[2].decode()
        return found


@pytest.fixture(scope="module")
def git(tmp_path_factory: pytest.TempPathFactory) -> Git:
    return Git(tmp_path_factory.mktemp("repository"))


@pytest.mark.parametrize("content", [b"", b"\0", b"hello\n", bytes(range(256)) * 5000])
def test_a_blob_has_the_id_that_git_gives_it(git: Git, content: bytes) -> None:
    expected = git("hash-object", "--stdin", stdin=content).decode().strip()
    assert blob_sha(content) == expected


def test_a_blob_may_be_hashed_in_pieces() -> None:
    hasher = blob_hasher(6)
    hasher.update(b"abc")
    hasher.update(b"def")
    assert hasher.hexdigest() == blob_sha(b"abcdef")


def test_nothing_has_the_well_known_ids() -> None:
    assert blob_sha(b"") == EMPTY_BLOB_SHA
    assert root_tree([]) == EMPTY_TREE_SHA
    assert tree_ids([]) == {b"": EMPTY_TREE_SHA}


@pytest.mark.parametrize("text", ["0" * 40, "0123456789abcdef" * 2 + "01234567"])
def test_forty_lower_case_hex_digits_are_an_id(text: str) -> None:
    assert is_sha(text)


@pytest.mark.parametrize(
    "text", ["", "a" * 39, "a" * 41, "A" * 40, "g" * 40, "a" * 64, "a" * 40 + "\n", "\u0660" * 40, b"a" * 40, None, 5]
)
def test_anything_else_is_no_id(text: object) -> None:
    assert not is_sha(text)


AWKWARD: dict[str, list[Object]] = {
    "file before folder of the same stem": [
        (b"a", "100644", A),
        (b"a.b", "100644", A),
        (b"a-b/x", "100644", A),
        (b"a0", "100644", B),
    ],
    "folder between files": [(b"a/b", "100644", A), (b"a.b", "100644", A), (b"a0", "100644", A), (b"a-", "100644", A)],
    "folder with the shorter name": [(b"a/x", "100644", A), (b"a./x", "100644", A), (b"a.b", "120000", B)],
    "every mode": [(b"f", "100644", A), (b"x", "100755", A), (b"l", "120000", A), (b"m", "160000", B)],
    "submodule like a file": [(b"m", "160000", A), (b"m.x", "100644", A), (b"m-/x", "100644", A), (b"m0", "160000", B)],
    "not UTF-8": [(b"caf\xe9/\xff", "100644", A), (b"caf\xe8", "100644", A), (b"\xfe\xff", "100755", B)],
    "unicode twins": [("é".encode(), "100644", A), ("e\u0301".encode(), "100644", A), ("\ufffd".encode(), "100644", B)],
    "control characters": [
        (b"a\nb", "100644", A),
        (b"a\tb/\x01", "100644", A),
        (b" ", "100644", A),
        (b'"', "100644", A),
    ],
    "case twins": [(b"A/x", "100644", A), (b"a/x", "100644", A)],
    "dots that are names": [(b"...", "100644", A), (b"..a/.b", "100644", A), (b"a./b.", "100644", A)],
    "backslash": [(b"a\\b", "100644", A), (b"C:\\x/y", "100644", A)],
    "300 levels": [(b"/".join([b"d"] * 300 + [b"f"]), "100644", A), (b"d/d/f", "100644", B)],
    "a name of 255 bytes": [(b"n" * 255 + b"/" + b"m" * 255, "100644", A)],
}


@pytest.mark.parametrize("objects", AWKWARD.values(), ids=AWKWARD)
def test_every_folder_has_the_id_that_git_gives_it(git: Git, objects: list[Object]) -> None:
    assert tree_ids(objects) == git.tree_ids(objects)


def test_the_order_of_entries_does_not_matter() -> None:
    objects = [item for name in ("folder between files", "not UTF-8", "every mode") for item in AWKWARD[name]]
    assert tree_ids(objects) == tree_ids(reversed(objects)) == tree_ids(iter(sorted(objects)))


def test_each_fact_of_an_entry_is_part_of_the_id() -> None:
    seen = {
        root_tree([item])
        for item in [
            (b"a", "100644", A),
            (b"a", "100644", B),
            (b"a", "100755", A),
            (b"b", "100644", A),
            (b"a/a", "100644", A),
        ]
    }
    assert len(seen) == 5


def test_a_leading_zero_in_a_mode_is_not_part_of_the_id(git: Git) -> None:
    listing = f"100644 blob {A}\tf\x00040000 tree {EMPTY_TREE_SHA}\tf.d\x00".encode()
    expected = git("mktree", "-z", "--missing", stdin=listing).decode().strip()
    for mode in ("040000", "40000"):
        assert root_tree([(b"f", "100644", A), (b"f.d", mode, EMPTY_TREE_SHA)]) == expected


def test_a_folder_as_an_entry_sorts_as_a_folder(git: Git) -> None:
    listing = f"040000 tree {EMPTY_TREE_SHA}\ta\x00100644 blob {A}\ta.b\x00".encode()
    expected = git("mktree", "-z", "--missing", stdin=listing).decode().strip()
    assert root_tree([(b"a", "040000", EMPTY_TREE_SHA), (b"a.b", "100644", A)]) == expected


@pytest.mark.parametrize(
    "path",
    [
        b"", b"/", b"/a", b"a/", b"a//b", b"//a", b".", b"..", b"a/..", b"../a", b"a/../b", b"./a", b"a/./b", b"a/.",
        b"a\0b", b"a\0/b", b"/a/b",
    ],
)  # fmt: skip
def test_a_path_that_git_cannot_hold_is_refused(path: bytes) -> None:
    with pytest.raises(ValueError, match="git cannot hold"):
        tree_ids([(path, "100644", A)])


def test_two_entries_of_one_path_are_refused() -> None:
    with pytest.raises(ValueError, match="two entries"):
        tree_ids([(b"a/b", "100644", A), (b"c", "100644", A), (b"a/b", "100755", B)])


@pytest.mark.parametrize("mode", ["100644", "160000", "040000"])
@pytest.mark.parametrize("deeper", [b"a/b", b"a/b/c/d"])
def test_a_path_that_is_both_file_and_folder_is_refused(mode: str, deeper: bytes) -> None:
    # Nothing stands between "a" and "a/": they do not come next to each other when sorted.
    objects = [(b"a", mode, A), (b"a.b", "100644", A), (deeper, "100644", A)]
    for order in (objects, objects[::-1]):
        with pytest.raises(ValueError, match="both a file and a folder"):
            tree_ids(order)


@pytest.mark.parametrize("sha", ["", "a" * 39, "a" * 38, "a" * 42, "a" * 64, "g" * 40, "aa " * 20, "é" * 40])
def test_an_id_that_is_none_is_refused(sha: str) -> None:
    with pytest.raises(ValueError):
        tree_ids([(b"a", "100644", sha)])


@pytest.mark.parametrize("mode", ["", "-100644", "100648", "file", "1_0644", "0o100644", "100644\n", "\u0660" * 6])
def test_a_mode_that_is_none_is_refused(mode: str) -> None:
    with pytest.raises(ValueError, match="is no mode"):
        tree_ids([(b"a", mode, A)])


names = st.binary(min_size=1, max_size=4).filter(lambda name: not {0, 0x2F} & set(name)) | st.sampled_from(
    [b"a", b"a.", b"a.b", b"a-", b"a0", b"b", b"ab"]
)
paths = st.lists(names, min_size=1, max_size=4).map(b"/".join)
kinds = st.sampled_from(["100644", "100755", "120000", "160000"])


def plausible(path: bytes) -> bool:
    """Git's index refuses some more names than trees do: dots, and all that a file system may take for .git."""
    return not any(part in (b".", b"..") or b"git" in part.lower() or b"\\" in part for part in path.split(b"/"))


@settings(max_examples=60, deadline=None)
@given(data=st.dictionaries(paths.filter(plausible), st.tuples(kinds, st.sampled_from([A, B])), max_size=25))
def test_any_set_of_paths_has_gits_ids(git: Git, data: dict[bytes, tuple[str, str]]) -> None:
    objects = [
        (path, mode, sha)
        for path, (mode, sha) in data.items()
        if not any(other != path and other.startswith(path + b"/") for other in data)
    ]
    assert tree_ids(objects) == git.tree_ids(objects)
