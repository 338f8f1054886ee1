"""A store is moved from one engine to another, and back, with every row; nothing is claimed that is not so."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from engines import Engine, Server
from store_bench import NOW, Bench, blob, change, commit, delivery, later, sha

from daemon.clock import Clock
from daemon.commands.copying import copy_store
from daemon.errors import HeadwaterError, StoreError, StoreIncompatible, StoreLocked
from daemon.model import CommitChange, NodeRecord, Trigger
from daemon.store import copying
from daemon.store.database import Database
from daemon.store.feed import Feed
from daemon.store.nodes import Nodes
from daemon.sync.gitobjects import root_tree


@pytest.fixture
def postgresql(postgres: Server) -> Iterator[Engine]:
    engine = Engine(postgres)
    yield engine
    engine.close()


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A SQLite store that has a bit of everything, its newest change swept."""
    bench = Bench(tmp_path / "from.db").begin()
    odd = blob(b"caf\xe9 'quoted' %s ?", b"\x00\xff'%s\\", mode="100755")
    bench.history.store_deliveries([delivery(), delivery(2, guid=None)], now=NOW)
    bench.apply(change("one", added=(odd, blob(b"a", b"1")), tree_verified=False), contents=(b"\x00\xff'%s\\", b"1"))
    commits = CommitChange((commit("two", message="L'été\n'; --\n%s"),), replace=False)
    bench.apply(change("two", removed=(b"a",), tree_verified=False), now=later(1), before=sha("one"), commits=commits)
    bench.want(Trigger.POLL)
    Feed(bench.db).sweep(now=later(1e6), keep_seconds=1.0)
    bench.db.close()
    return bench.path


def quiet(_table: str, _rows: int) -> None:
    """Nobody looks on."""


def test_a_store_comes_back_from_postgresql_as_it_was(filled: Path, postgresql: Engine, tmp_path: Path) -> None:
    between, back = postgresql.url(tmp_path / "between"), tmp_path / "back.db"
    there = copy_store(f"sqlite:///{filled}", between, told=quiet)
    here = copy_store(between, f"sqlite:///{back}", told=quiet)
    assert there == here
    assert there["rows"] > 10
    one, other = Bench(filled), Bench(back)
    for table in one.tables():
        if not table.startswith(("schema_", "search_", "sqlite_")):
            rows = sorted(one.rows(f'SELECT * FROM "{table}"'), key=repr)
            assert sorted(other.rows(f'SELECT * FROM "{table}"'), key=repr) == rows, table
    one.db.close()
    other.db.close()


def test_ids_go_on_where_they_were(filled: Path, postgresql: Engine, tmp_path: Path) -> None:
    copy_store(f"sqlite:///{filled}", postgresql.url(tmp_path / "to"), told=quiet)
    copied = Bench.on(postgresql.open(tmp_path / "to"), tmp_path / "to")
    assert Feed(copied.db).newest() == 2
    copied.history.store_deliveries([delivery(9)], now=NOW)
    assert copied.rows("SELECT id FROM delivery ORDER BY id") == [(1,), (2,), (3,)]
    run_id = copied.apply(change("three"), now=later(2), before=sha("two"))
    assert run_id == 3
    copied.db.close()


def test_a_snapshot_that_was_proven_is_proven_again(tmp_path: Path, postgresql: Engine) -> None:
    bench = Bench(tmp_path / "from.db").begin()
    entry = blob(b"a", b"1")
    root = root_tree([(entry.path, entry.mode, entry.sha)])
    made = change("one", added=(entry,), tree_sha=root)
    bench.apply(made, contents=(b"1",))
    bench.db.close()
    assert copy_store(f"sqlite:///{bench.path}", postgresql.url(tmp_path / "to"), told=quiet)["trees"] == 1
    with_wrong = Bench(bench.path)
    with with_wrong.db.write():
        with_wrong.db.execute("UPDATE branch SET tree_sha = ?", (sha("another"),))
    with_wrong.db.close()
    with pytest.raises(StoreError, match="octo/data@main is not its tree"):
        copy_store(f"sqlite:///{bench.path}", f"sqlite:///{tmp_path}/to.db", told=quiet)


def test_rows_that_differ_are_told_apart(filled: Path, tmp_path: Path) -> None:
    database = Database.open(filled, clock=Clock())
    with database.write():
        before = copying.summed(database, "entry", ["path", "mode"])
        database.execute("UPDATE entry SET mode = '100644' WHERE mode = '100755'")
        after = copying.summed(database, "entry", ["path", "mode"])
    assert before.rows == after.rows
    assert before.digest != after.digest
    database.close()


def test_a_store_that_holds_something_is_not_copied_into(filled: Path, tmp_path: Path) -> None:
    full = Bench(tmp_path / "full.db").begin()
    full.db.close()
    with pytest.raises(StoreIncompatible, match="not empty"):
        copy_store(f"sqlite:///{filled}", f"sqlite:///{full.path}", told=quiet)


def test_a_store_that_is_not_there_is_not_made_to_be_copied(tmp_path: Path) -> None:
    with pytest.raises(HeadwaterError, match=r"from\.db does not exist: .*four slashes"):
        copy_store(f"sqlite:///{tmp_path}/from.db", f"sqlite:///{tmp_path}/to.db", told=quiet)
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_a_daemon_uses_is_not_copied(filled: Path, postgresql: Engine, tmp_path: Path) -> None:
    used = postgresql.open(tmp_path / "used")
    now = used.shared_clock().now()
    Nodes(used).beat(NodeRecord("node", "host", 42, "1", now, now, "digest", None))
    used.close()
    with pytest.raises(StoreLocked, match="process 42 on host"):
        copy_store(postgresql.url(tmp_path / "used"), f"sqlite:///{tmp_path}/to.db", told=quiet)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("postgresql://u:hunter2@127.0.0.1/db", "command line"),
        ("mysql://u@h/db", "write sqlite:///"),
        ("sqlite:////nowhere/at/all.db", "does not exist"),
    ],
)
def test_a_url_that_cannot_be_used_says_why_and_shows_no_password(tmp_path: Path, url: str, why: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "daemon", "copy-store", url, f"sqlite:///{tmp_path}/to.db"],
        capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[2], check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    assert why in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "hunter2" not in ended.stderr


def test_the_command_tells_what_it_did(filled: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "daemon", "copy-store", f"sqlite:///{filled}", f"sqlite:///{tmp_path}/to.db"]
    ended = subprocess.run(
        [*command, "--json"], capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[2], check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["rows"] > 10
