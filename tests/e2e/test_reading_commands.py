"""`headwater ls`, `cat`, `log`, `changes`: the store on the command line, with or without a daemon beside."""

from __future__ import annotations

import base64
import json
import re
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from harness import Daemon, wait_for

from daemon.demo.standin.gitrepo import GitRepo, Symlink

LATIN = b"docs/caf\xe9.txt"
STEERING = b"docs/\x1b[2J\n.txt"


@pytest.fixture
def daemon(repo: GitRepo, make_daemon: Callable[..., Daemon]) -> Daemon:
    """A store with a few odd files; the daemon does not run."""
    binary = bytes(range(256))
    repo.commit({LATIN: b"latin\n", STEERING: b"x", "bin": binary, "link": Symlink(b"README.md"), "left/out": b"1"})
    daemon = make_daemon(extra='exclude = ["left/"]')
    assert daemon.cli("sync").returncode == 0
    return daemon


def raw(daemon: Daemon, *arguments: str | bytes) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*daemon.command(), *arguments], capture_output=True, env=daemon.environ(), check=False)


def test_ls_lists_as_git_does(repo: GitRepo, daemon: Daemon) -> None:
    ended = raw(daemon, "ls", "octo/data")
    assert ended.returncode == 0
    told = [line.split(None, 3) for line in ended.stdout.decode().splitlines()]
    by_git = [[entry.mode, entry.sha, str(entry.size)] for entry in repo.ls_tree()]
    assert sorted(line[:3] for line in told) == sorted(by_git)
    assert {line[3] for line in told} >= {"README.md", r'"docs/caf\351.txt"', r'"docs/\033[2J\012.txt"'}
    assert b"\x1b" not in ended.stdout
    some = raw(daemon, "ls", "OCTO/Data", "docs/").stdout.splitlines()
    assert len(some) == 4


def test_ls_in_json_is_the_apis_entries(repo: GitRepo, daemon: Daemon) -> None:
    told = json.loads(raw(daemon, "ls", "octo/data", "--json").stdout)
    assert (told["repository"], told["branch"], told["commit_sha"]) == ("octo/data", "main", repo.head())
    daemon.start()
    assert told["files"] == list(daemon.items("/api/v1/repositories/octo/data/files"))


def test_cat_writes_the_bytes_and_nothing_else(repo: GitRepo, daemon: Daemon) -> None:
    assert raw(daemon, "cat", "octo/data", "bin").stdout == bytes(range(256))
    assert raw(daemon, "cat", "octo/data", LATIN).stdout == b"latin\n"
    assert raw(daemon, "cat", "octo/data", "link").stdout == b"README.md"
    assert raw(daemon, "cat", "octo/data", "README.md", "--branch", "main").stdout == b"# Data\n"
    told = json.loads(raw(daemon, "cat", "octo/data", "bin", "--json").stdout)
    assert base64.b64decode(told["content_base64"]) == bytes(range(256))
    assert (told["path"], told["mode"], told["size"], told["commit_sha"]) == ("bin", "100644", 256, repo.head())
    assert json.loads(raw(daemon, "cat", "octo/data", "README.md", "--json").stdout)["content"] == "# Data\n"


def test_log_is_newest_first(repo: GitRepo, daemon: Daemon) -> None:
    lines = raw(daemon, "log", "octo/data").stdout.decode().splitlines()
    assert [line.split()[0] for line in lines] == [sha[:10] for sha in repo.log()]
    assert len(raw(daemon, "log", "octo/data", "-n", "1").stdout.splitlines()) == 1
    told = json.loads(raw(daemon, "log", "octo/data", "-n", "2", "--json").stdout)
    assert [commit["sha"] for commit in told["commits"]] == repo.log()[:2]
    assert raw(daemon, "log", "octo/data", "-n", "0").returncode == 2


def test_changes_are_the_feeds(repo: GitRepo, daemon: Daemon) -> None:
    before = repo.head()
    after = repo.commit({"more": b"1", "bin": None})
    assert daemon.cli("sync").returncode == 0
    first, second = raw(daemon, "changes").stdout.decode().splitlines()
    assert first.split()[0] == "1"
    assert second.split() == ["2", second.split()[1], "octo/data@main", before[:10], "->", after[:10], "+1", "~0", "-1"]
    assert raw(daemon, "changes", "--since", "1").stdout.decode().splitlines() == [second]
    assert raw(daemon, "changes", "--since", "99").stdout == b""
    told = json.loads(raw(daemon, "changes", "--json").stdout)
    daemon.start()
    assert told["changes"] == list(daemon.items("/api/v1/changes"))
    for wrong in ("x", "-1", "9" * 30):
        assert raw(daemon, "changes", "--since", wrong).returncode == 2


@pytest.mark.parametrize("name", ["octo/other", "data", "octo/", "/", "a/b/c"])
@pytest.mark.parametrize("command", [("ls",), ("cat", "README.md"), ("log",)])
def test_a_name_that_is_not_configured_is_wrong_usage(
    make_daemon: Callable[..., Daemon], repo: GitRepo, name: str, command: tuple[str, ...]
) -> None:
    ended = make_daemon().cli(command[0], name, *command[1:])
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("cat", "octo/data", "nothing"), "does not exist"),
        (("cat", "octo/data", "doc"), "does not exist"),
        (("cat", "octo/data", "docs"), "is no file"),
        (("cat", "octo/data", "docs/"), "is no file"),
        (("cat", "octo/data", "left/out"), "left out"),
        (("cat", "octo/data", "README.md", "--branch", "other"), "branch other"),
        (("ls", "octo/data", "nothing/"), "nothing under"),
        (("ls", "octo/data", "--branch", "other"), "branch other"),
        (("log", "octo/data", "--branch", "other"), "branch other"),
    ],
)
def test_what_is_not_there_is_one_line_and_one(daemon: Daemon, arguments: tuple[str, ...], word: str) -> None:
    for more in ((), ("--json",)):
        ended = raw(daemon, *arguments, *more)
        assert (ended.returncode, ended.stdout) == (1, b"")
        assert len(ended.stderr.splitlines()) == 1
        assert word in ended.stderr.decode()


def test_before_the_first_sync_there_is_nothing_to_read(repo: GitRepo, make_daemon: Callable[..., Daemon]) -> None:
    for command in (("ls", "octo/data"), ("cat", "octo/data", "x"), ("log", "octo/data"), ("changes",)):
        ended = make_daemon().cli(*command)
        assert ended.returncode == 1
        assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize("json_too", [(), ("--json",)])
def test_a_reader_that_has_seen_enough_is_no_error(
    repo: GitRepo, make_daemon: Callable[..., Daemon], json_too: tuple[str, ...]
) -> None:
    repo.commit({f"many/{number:05}.txt": b"" for number in range(3000)} | {"large": b"0123456789" * 100_000})
    daemon = make_daemon()
    assert daemon.cli("sync").returncode == 0
    for command in (("ls", "octo/data"), ("cat", "octo/data", "large")):
        with subprocess.Popen(
            daemon.command(*command, *json_too), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=daemon.environ()
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.read(10)
            process.stdout.close()
            assert process.stderr.read() == b""
            assert process.wait(30) == 0


@pytest.mark.parametrize("command", ["ls", "cat", "log", "changes"])
def test_the_new_commands_have_help(make_daemon: Callable[..., Daemon], command: str) -> None:
    ended = make_daemon().cli(command, "--help")
    assert (ended.returncode, "--json" in ended.stdout) == (0, True)


def test_entities_are_listed_by_id_and_shown_whole(repo: GitRepo, make_daemon: Callable[..., Daemon]) -> None:
    repo.commit({"things/b.json": b'{"id": "b", "label": "Bee"}', "things/a.json": b'{"id": "a\\u001b", "label": "A"}'})
    daemon = make_daemon(extra='[[repositories.collections]]\ntype = "thing"\nfiles = "things/*.json"')
    assert daemon.cli("sync").returncode == 0
    listed = raw(daemon, "entities", "thing").stdout
    assert [line.split() for line in listed.splitlines()] == [
        [b"a?", b"A", b"octo/data@main"],
        [b"b", b"Bee", b"octo/data@main"],
    ]
    told = json.loads(raw(daemon, "entities", "thing", "--json").stdout)
    assert [item["label"] for item in told["items"]] == ["A", "Bee"]
    one = json.loads(raw(daemon, "entities", "thing", "b").stdout)
    assert (one["data"], one["commit_sha"]) == ({"id": "b", "label": "Bee"}, repo.head())
    missing = daemon.cli("entities", "thing", "absent")
    assert missing.returncode == 1
    assert len(missing.stderr.splitlines()) == 1
    for arguments in (("thong",), ("thong", "b")):
        unknown = daemon.cli("entities", *arguments)
        assert (unknown.returncode, unknown.stdout) == (1, "")
        assert "no entities of the type thong; the types are thing" in unknown.stderr
    empty = daemon.cli("entities", "thong", "--json")
    assert (empty.returncode, json.loads(empty.stdout)) == (0, {"items": []})


def test_the_sql_of_the_readme_answers(repo: GitRepo, make_daemon: Callable[..., Daemon]) -> None:
    repo.commit({"docs/a.md": b"# A", "category/a.json": b'{"id": "a"}'})
    daemon = make_daemon(extra='[[repositories.collections]]\ntype = "category"\nfiles = "category/**/*.json"')
    assert daemon.cli("sync").returncode == 0
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    entities, files = re.findall(r"```sql\n(.*?)```", readme, re.DOTALL)
    with closing(sqlite3.connect(daemon.database)) as store:
        assert store.execute(entities).fetchall() == [("a", '{"id":"a"}')]
        assert ("docs/a.md", b"# A") in store.execute(files).fetchall()


def test_without_a_collection_there_is_no_type_to_name(daemon: Daemon) -> None:
    ended = daemon.cli("entities", "thing")
    assert ended.returncode == 1
    assert "no [[repositories.collections]] is configured" in ended.stderr


def test_a_first_sync_of_many_files_becomes_searchable_behind_it(
    repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    repo.commit({f"many/{number}.txt": b"the needle is number %d\n" % number for number in range(600)})
    daemon = make_daemon().start()
    daemon.wait_head(repo.head())
    wait_for(lambda: len(list(daemon.items("/api/v1/search", q="needle is number 59"))) == 11, "the text to be indexed")
