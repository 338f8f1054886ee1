"""A published folder: whole, exact, and flipped at once."""

from __future__ import annotations

import os
import threading
from datetime import UTC, datetime
from hashlib import sha1
from pathlib import Path

import pytest
from harness import wait_for

from daemon.actions import publish
from daemon.actions.publish import Folder
from daemon.errors import PublishError
from daemon.model import Entry

NOW = datetime(2026, 11, 23, tzinfo=UTC)


class Tree:
    """Entries with their contents, as a store would give them."""

    def __init__(self):
        self.blobs = {}
        self.entries = {}

    def put(self, path, content=b"", mode="100644", *, stored=True):
        sha = sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
        self.blobs[sha] = content
        self.entries[path] = Entry(path, mode, sha, len(content), stored)
        return self

    def publish(self, folder, head="1" * 40, now=NOW):
        entries = [self.entries[path] for path in sorted(self.entries)]
        return folder.publish(head, entries, self.blobs.get, now=now)


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "srv" / "site", grace_seconds=0)


def test_files_folders_modes_links_and_submodules_are_as_the_snapshot_has_them(folder):
    old = os.umask(0o077)
    try:
        tree = Tree().put(b"a.txt", b"a").put(b"bin/run", b"#!/bin/sh\n", "100755").put(b"deep/er/x", b"x")
        tree.put(b"link", b"deep/er/x", "120000").put(b"deep/up", b"../a.txt", "120000").put(b"\xff\n", b"bytes")
        tree.entries[b"module"] = Entry(b"module", "160000", "9" * 40, None)
        published = tree.publish(folder)
    finally:
        os.umask(old)
    site = folder.target
    assert (published.written, published.linked, published.note) == (4, 0, None)
    assert (site / "a.txt").read_bytes() == b"a"
    assert [oct((site / name).stat().st_mode & 0o777) for name in ("a.txt", "bin/run", "bin", "deep/er")] == [
        "0o644",
        "0o755",
        "0o755",
        "0o755",
    ]
    assert (site / "link").readlink() == Path("deep/er/x")
    assert (site / "deep/up").read_bytes() == b"a"
    assert list((site / "module").iterdir()) == []
    assert (Path(os.fsdecode(os.fsencode(site) + b"/\xff\n"))).read_bytes() == b"bytes"
    assert site.is_symlink()


def test_a_flip_of_many_files_with_one_change_writes_one_file(folder):
    tree = Tree()
    for number in range(2000):
        tree.put(b"d%d/f%d" % (number % 20, number), b"%d" % number)
    tree.publish(folder)
    before = {path: (folder.target / path).stat().st_ino for path in map(os.fsdecode, tree.entries)}
    published = tree.put(b"d7/f7", b"changed").publish(folder, "2" * 40)
    after = {path: (folder.target / path).stat().st_ino for path in before}
    assert [path for path in before if before[path] != after[path]] == ["d7/f7"]
    assert (published.written, published.linked) == (1, 1999)
    assert (folder.target / "d7/f7").read_bytes() == b"changed"


def test_a_file_whose_mode_changed_is_written_anew_and_the_old_version_keeps_its_mode(folder):
    tree = Tree().put(b"run", b"x")
    tree.publish(folder)
    first = (folder.versions / str(folder.current())) / "run"
    tree.put(b"run", b"x", "100755").publish(folder, "2" * 40)
    assert (first.stat().st_mode & 0o777, (folder.target / "run").stat().st_mode & 0o777) == (0o644, 0o755)


def test_a_published_file_that_somebody_wrote_to_is_not_taken_over(folder):
    tree = Tree().put(b"a", b"good").put(b"b", b"1")
    tree.publish(folder)
    (folder.target / "a").write_bytes(b"evil")
    tree.put(b"b", b"2").publish(folder, "2" * 40)
    assert (folder.target / "a").read_bytes() == b"good"


@pytest.mark.parametrize("target", [b"/etc/passwd", b"../x", b"sub/../../x", b"../site/a"])
def test_a_symlink_that_leads_outside_is_refused_by_name_and_the_old_version_stays(folder, target):
    tree = Tree().put(b"a", b"1")
    tree.publish(folder)
    with pytest.raises(PublishError, match=r"'bad'.*outside"):
        tree.put(b"a", b"2").put(b"bad", target, "120000").publish(folder, "2" * 40)
    assert (folder.target / "a").read_bytes() == b"1"


@pytest.mark.parametrize("path", [b"../evil", b"a/../../evil", b"/evil", b"a//b", b"."])
def test_a_path_that_leads_outside_is_refused(folder, path):
    with pytest.raises(PublishError, match="no path of a file"):
        Tree().put(path, b"x").publish(folder)
    assert not (folder.target.parent / "evil").exists()


def test_nothing_is_written_through_a_symlink_of_the_same_snapshot(folder):
    with pytest.raises(OSError):
        Tree().put(b"a", b"b", "120000").put(b"a/x", b"evil").put(b"b/y", b"").publish(folder)
    assert not folder.target.exists()


def test_what_is_not_stored_is_left_out_and_named(folder):
    published = Tree().put(b"a", b"1").put(b"big.bin", b"2", stored=False).publish(folder)
    assert [path.name for path in folder.target.iterdir()] == ["a"]
    assert "big.bin" in str(published.note)


def test_other_contents_of_the_same_commit_are_another_version(folder):
    Tree().put(b"a", b"1").put(b"b", b"2", stored=False).publish(folder)
    Tree().put(b"a", b"1").put(b"b", b"2").publish(folder)
    assert (folder.target / "b").read_bytes() == b"2"


def test_what_is_published_already_is_not_touched(folder):
    tree = Tree().put(b"a", b"1")
    tree.publish(folder)
    inode = (folder.target / "a").stat().st_ino
    link = folder.target.lstat().st_ino
    assert tree.publish(folder).written == 0
    assert ((folder.target / "a").stat().st_ino, folder.target.lstat().st_ino) == (inode, link)


def test_two_previous_versions_are_kept_and_older_ones_go(folder):
    for number in range(6):
        Tree().put(b"a", b"%d" % number).publish(folder, f"{number}" * 40, NOW.replace(second=number))
    assert sorted(path.name[0] for path in folder.versions.iterdir() if path.is_dir()) == ["3", "4", "5"]
    assert len(list(folder.versions.iterdir())) == 6


def test_a_version_superseded_just_now_stays_for_those_who_read_it(tmp_path):
    folder = Folder(tmp_path / "site", grace_seconds=10)
    for number in range(6):
        Tree().put(b"a", b"%d" % number).publish(folder, f"{number}" * 40, NOW.replace(second=number * 3))
    assert sorted(path.name[0] for path in folder.versions.iterdir() if path.is_dir()) == ["1", "2", "3", "4", "5"]


def test_going_back_to_a_commit_that_is_kept_flips_to_it(folder):
    first = Tree().put(b"a", b"1")
    first.publish(folder)
    Tree().put(b"a", b"2").publish(folder, "2" * 40, NOW.replace(second=1))
    assert first.publish(folder, now=NOW.replace(second=2)).written == 0
    assert (folder.target / "a").read_bytes() == b"1"


@pytest.mark.parametrize("step", ["_write_manifest", "_flip", "_remove_old"])
def test_a_kill_at_any_step_leaves_the_old_version_or_the_new_one_and_is_mended(folder, monkeypatch, step):
    tree = Tree().put(b"a", b"1")
    tree.publish(folder)

    class Killed(BaseException):
        pass

    def die(*_args):
        raise Killed

    tree.put(b"a", b"2")
    with monkeypatch.context() as patched:
        patched.setattr(Folder, step, die)
        with pytest.raises(Killed):
            tree.publish(folder, "2" * 40)
    assert (folder.target / "a").read_bytes() == (b"2" if step == "_remove_old" else b"1")
    tree.publish(folder, "2" * 40)
    assert (folder.target / "a").read_bytes() == b"2"
    assert sum(path.is_dir() for path in folder.versions.iterdir()) * 2 == len(list(folder.versions.iterdir()))


def test_leftovers_of_a_kill_are_cleared_away(folder):
    Tree().put(b"a", b"1").publish(folder)
    (folder.versions / "building" / "half").mkdir(parents=True)
    (folder.versions / "next").symlink_to("nowhere")
    (folder.versions / "without-manifest").mkdir()
    (folder.versions / "without-folder.manifest").touch()
    Tree().put(b"a", b"2").publish(folder, "2" * 40)
    assert sorted(path.name[0] for path in folder.versions.iterdir()) == ["1", "1", "2", "2"]


def test_what_headwater_did_not_make_is_not_replaced(folder):
    folder.target.mkdir(parents=True)
    (folder.target / "mine").touch()
    with pytest.raises(PublishError, match="is a folder that headwater did not make"):
        Tree().put(b"a").publish(folder)
    assert [path.name for path in folder.target.parent.iterdir()] == ["site"]


@pytest.mark.parametrize("there", ["/etc", "other/1"])
def test_anothers_symlink_is_not_replaced(folder, there):
    folder.target.parent.mkdir(parents=True)
    folder.target.symlink_to(there)
    with pytest.raises(PublishError, match="symlink that headwater did not make"):
        Tree().put(b"a").publish(folder)


def test_versions_are_not_kept_through_a_symlink(folder, tmp_path):
    folder.versions.parent.mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    folder.versions.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PublishError, match="is a symlink"):
        Tree().put(b"a").publish(folder)


FOLDERS = [b"", b"a/", b"a/b/", b"c/", b"c/d/", b"c/d/e/"]


def test_a_reader_never_sees_a_mixture_during_two_hundred_flips(tmp_path, monkeypatch):
    monkeypatch.setattr(publish, "_sync", lambda _path: None)  # as fast as it goes, so that more is tried
    folder = Folder(tmp_path / "site")
    trees = [Tree() for _ in range(200)]
    for number, tree in enumerate(trees):
        for place in FOLDERS:
            tree.put(place + b"marker", b"%040x" % number).put(place + b"same", b"same")
    trees[0].publish(folder, f"{0:040x}")
    seen: list[set[bytes]] = []
    ended = threading.Event()

    def read():
        while not ended.is_set():
            top = os.open(folder.target, os.O_RDONLY | os.O_DIRECTORY)
            markers = []
            for _path, _folders, files, descriptor in os.fwalk(".", dir_fd=top):
                assert sorted(files) == ["marker", "same"]
                opened = os.open("marker", os.O_RDONLY, dir_fd=descriptor)
                markers.append(os.read(opened, 100))
                os.close(opened)
            os.close(top)
            seen.append({len(markers), *markers})

    failures: list[BaseException] = []

    def reader():
        try:
            read()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=reader) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for number, tree in enumerate(trees[1:], 1):
            tree.publish(folder, f"{number:040x}", datetime.now(UTC))
            if number % 8 == 0:  # now and then a reader gets there before the next flip, however seldom it has a turn
                shown = b"%040x" % number
                wait_for(lambda shown=shown: failures or any(shown in markers for markers in seen[-9:]), "a reader")
    finally:
        ended.set()
    for thread in threads:
        thread.join(30)
    assert failures == []
    assert all(len(markers) == 2 and 6 in markers for markers in seen)
    assert len({frozenset(markers) for markers in seen}) > 20
