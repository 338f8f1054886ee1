"""The store as its keeper handles it: backups beside a running daemon, migrations, the schema."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import subprocess
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from harness import Daemon, stored_tree, wait_for
from peewee import SqliteDatabase
from playhouse.migrations import Runner

from daemon.demo.standin import StandIn
from daemon.demo.standin.gitrepo import GitRepo
from daemon.store.database import HISTORY_TABLE, MIGRATIONS

PUSH = {"ref": "refs/heads/main", "repository": {"full_name": "octo/data"}, "commits": []}
LATEST = max(path.stem for path in MIGRATIONS.glob("[0-9]*.py"))


@pytest.fixture
def stopped(repo: GitRepo, make_daemon: Callable[..., Daemon]) -> Daemon:
    """A daemon that has synced and ended, its store left."""
    daemon = make_daemon().start()
    daemon.wait_head(repo.head())
    daemon.wait_idle()
    assert daemon.stop() == 0
    return daemon


def guids(path: Path) -> set[str]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as copy:
        assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return {row[0] for row in copy.execute("SELECT guid FROM delivery")}


# -- backup -----------------------------------------------------------------------------------------


def test_a_backup_beside_a_busy_daemon_holds_what_was_accepted_before_it_began(
    repo: GitRepo, make_daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    daemon = make_daemon().start()
    daemon.wait_head(repo.head())
    folder = tmp_path / "backups"
    folder.mkdir()
    file = folder / "copy.db"
    for _ in range(3):
        accepted = {str(uuid.uuid4()) for _ in range(10)}
        for guid in accepted:
            assert daemon.deliver(PUSH, guid=guid).json()["status"] == "accepted"
        backing = subprocess.Popen(daemon.command("backup", str(file)), env=daemon.environ())
        while backing.poll() is None:
            daemon.deliver(PUSH)
        assert backing.returncode == 0
        assert accepted <= guids(file)
    assert os.listdir(folder) == ["copy.db"]  # noqa: PTH208
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert daemon.cli("run").returncode == 1  # the daemon's lock is still its own
    assert daemon.stop() == 0


def test_a_daemon_starts_from_a_backup_with_all_there_was(
    repo: GitRepo, stopped: Daemon, github: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = json.loads(stopped.cli("backup", "copy.db", "--json", timeout=60).stdout)
    file = Path(told["path"])
    assert file == tmp_path / "copy.db"
    assert told == {"path": str(file), "size": file.stat().st_size, "migration": LATEST, "integrity": "ok"}
    for left in stopped.folder.glob("headwater.db*"):
        left.unlink()
    file.rename(stopped.database)
    github.stop()
    stopped.start()
    assert stopped.head() == repo.head()
    assert len(stored_tree(stopped)) == 3
    github.start()


@pytest.mark.parametrize("kind", ["same", "link", "folder", "log", "absent folder"])
def test_a_place_where_a_backup_would_do_harm_is_refused(stopped: Daemon, tmp_path: Path, kind: str) -> None:
    target = tmp_path / "target"
    if kind == "same":
        target = stopped.database
    elif kind == "link":
        target.hardlink_to(stopped.database)
    elif kind == "folder":
        target.mkdir()
    elif kind == "log":
        (tmp_path / "target-wal").write_bytes(b"x")
    else:
        target = tmp_path / "absent" / "target"
    before = stopped.database.stat()
    ended = stopped.cli("backup", str(target))
    assert ended.returncode == 1
    assert str(target) in ended.stderr or str(target.parent) in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert stopped.database.stat().st_ino == before.st_ino
    assert stopped.integrity() == "ok"


def test_a_backup_that_cannot_be_finished_leaves_the_last_one(stopped: Daemon, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    file = folder / "copy.db"
    assert stopped.cli("backup", str(file)).returncode == 0
    before = file.read_bytes()
    (folder / ".copy.db.partial").write_bytes(b"of one that was killed")
    script = 'ulimit -f 100; exec "$@"'  # KiB that a file may have, as if the disk were full
    command = ["bash", "-c", script, "limited", *stopped.command("backup", str(file))]
    ended = subprocess.run(command, capture_output=True, text=True, env=stopped.environ(), check=False)
    assert ended.returncode == 1
    assert str(folder) in ended.stderr
    assert "Traceback" not in ended.stderr
    assert file.read_bytes() == before
    assert os.listdir(folder) == ["copy.db"]  # noqa: PTH208


@pytest.mark.parametrize("table", ["sqlite_master", "run"])
def test_no_backup_is_made_of_a_damaged_store(stopped: Daemon, tmp_path: Path, table: str) -> None:
    with closing(sqlite3.connect(stopped.database)) as store:
        row = store.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    with stopped.database.open("r+b") as file:
        file.seek(4096 * (row[0] - 1) if row else 100)  # the first page begins with the file's own header
        file.write(b"\xff" * 2000)
    file = tmp_path / "copy.db"
    file.write_text("the last good one")
    ended = stopped.cli("backup", str(file))
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert file.read_text() == "the last good one"


# -- migrations -------------------------------------------------------------------------------------


def older(daemon: Daemon) -> list[str]:
    """Put a store of the first version in place; the names of what it lacks."""
    database = SqliteDatabase(str(daemon.database))
    runner = Runner(database, str(MIGRATIONS), table_name=HISTORY_TABLE)
    names = [one.name for one in runner.status()]
    runner.up(names[0])
    database.close()
    return names[1:]


def test_an_older_store_is_told_kept_and_migrated(make_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    daemon = make_daemon()
    lacking = older(daemon)
    checked = daemon.cli("migrate", "--check")
    assert checked.returncode == 1
    assert all(name in checked.stdout for name in lacking)
    assert json.loads(daemon.cli("migrate", "--check", "--json").stdout) == {"applied": [], "pending": lacking}
    assert daemon.cli("backup", str(tmp_path / "before.db")).returncode == 0
    assert json.loads(daemon.cli("migrate", "--json").stdout) == {"applied": lacking, "pending": []}
    assert daemon.cli("migrate", "--check").returncode == 0
    assert daemon.cli("migrate").returncode == 0
    assert daemon.cli("status").returncode == 0


def test_what_is_no_current_store_is_no_success(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    absent = daemon.cli("migrate", "--check")
    assert (absent.returncode, "no database" in absent.stderr) == (1, True)
    assert daemon.cli("migrate").returncode == 0
    with closing(sqlite3.connect(daemon.database)) as store, store:
        store.execute(f"INSERT INTO {HISTORY_TABLE} (name, applied) VALUES ('9999_future', '2030-01-01 00:00:00')")
    newer = daemon.cli("migrate", "--check")
    assert (newer.returncode, "newer headwater" in newer.stderr) == (1, True)


def test_migrating_beside_a_daemon_is_refused(repo: GitRepo, make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon().start()
    wait_for(lambda: daemon.cli("migrate", "--check").returncode == 0, "the store to be there")
    ended = daemon.cli("migrate")
    assert ended.returncode == 1
    assert "in use" in ended.stderr


# -- schema -----------------------------------------------------------------------------------------


def test_the_schema_describes_every_column_that_there_is(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    assert daemon.cli("migrate").returncode == 0
    with closing(sqlite3.connect(daemon.database)) as store:
        names = [row[0] for row in store.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        internal = ("search_", "sqlite_", HISTORY_TABLE)
        real = {
            name: {row[1] for row in store.execute(f"PRAGMA table_info('{name}')")}
            for name in names
            if not name.startswith(internal)
        }
    told = json.loads(daemon.cli("schema", "--json").stdout)["tables"]
    assert {table["name"]: {column["name"] for column in table["columns"]} for table in told} == real
    assert all(table["sentence"] for table in told)
    text = daemon.cli("schema").stdout
    assert all(f"{name}: " in text for name in real)
    assert "repository_id" in daemon.cli("schema", "branch").stdout
    assert daemon.cli("schema", "nothing").returncode == 2
