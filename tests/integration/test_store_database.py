"""The file, the lock and the transactions."""

from __future__ import annotations

import gc
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import ModuleType

import pytest
from harness import Stopwatch
from store_bench import NOW, Bench, delivery, in_threads, rule

from daemon.clock import Clock
from daemon.errors import StoreError, StoreIncompatible, StoreLocked, StoreUnavailable
from daemon.store import models
from daemon.store.database import Database


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path / "store.db")
    yield bench.begin()
    bench.db.close()


@pytest.fixture
def impatient(bench: Bench) -> Bench:
    """The same, but no write of it waits longer than half a second."""
    bench.db._busy_seconds = 0.5
    return bench


def reopen(path: Path) -> Database:
    return Database.open(path, clock=Clock())


# -- the file ---------------------------------------------------------------------------------------


def test_a_new_store_is_for_its_owner_only(bench: Bench) -> None:
    for name in ("store.db", "store.db-wal", "store.db.lock"):
        assert stat.S_IMODE((bench.path.parent / name).stat().st_mode) == 0o600, name


@pytest.mark.parametrize(
    ("pragma", "value"),
    [("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1), ("wal_autocheckpoint", 4000)],
)
def test_what_durability_rests_on_is_in_force_in_every_thread(bench: Bench, pragma: str, value: object) -> None:
    assert bench.db.pragma(pragma) == value
    assert in_threads(lambda: bench.db.pragma(pragma)) == [value]


def test_a_file_system_that_cannot_keep_the_promise_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Database, "pragma", lambda _self, name: {"journal_mode": "delete"}.get(name))
    with pytest.raises(StoreIncompatible, match="journal_mode=delete"):
        reopen(tmp_path / "store.db")


def test_what_is_stored_is_there_after_reopening(bench: Bench) -> None:
    bench.db.close()
    database = reopen(bench.path)
    with database.read():
        assert database.execute("SELECT full_name FROM repository").fetchall() == [("octo/data",)]
    database.close()


def test_a_file_that_is_no_database_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    image = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40
    path.write_bytes(image)
    with pytest.raises(StoreIncompatible, match="not a database"):
        reopen(path)
    assert path.read_bytes() == image
    assert Database.locked_by(path) is None


def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.touch()
    database = reopen(path)
    assert database.integrity() == "ok"
    database.close()


@pytest.mark.parametrize("kept", [100, 2048, 4096, 20000])
def test_a_cut_file_is_refused_and_left_as_it_was(bench: Bench, kept: int) -> None:
    bench.db.close()
    cut = bench.path.read_bytes()[:kept]
    bench.path.write_bytes(cut)
    with pytest.raises(StoreIncompatible, match="aside"):
        reopen(bench.path)
    assert bench.path.read_bytes() == cut


def test_another_programs_database_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE recipe (name TEXT)")
    before = path.read_bytes()
    with pytest.raises(StoreIncompatible, match="another program"):
        reopen(path)
    assert path.read_bytes() == before


def test_a_store_of_a_newer_program_is_refused(bench: Bench) -> None:
    with bench.db.write():
        bench.db.execute("INSERT INTO schema_migration (name, applied) VALUES ('0999_future', '2030-01-01 00:00:00')")
    bench.db.close()
    with pytest.raises(StoreIncompatible, match=r"newer headwater.*0999_future"):
        reopen(bench.path)


def test_a_first_start_killed_before_its_tables_were_made_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "CREATE TABLE schema_migration (id INTEGER NOT NULL PRIMARY KEY, name VARCHAR(255) NOT NULL, "
            "applied DATETIME NOT NULL)"
        )
    database = reopen(path)
    with database.read():
        assert database.execute("SELECT count(*) FROM job").fetchone() == (0,)
    database.close()


def test_a_migration_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import daemon.store.database as module

    broken = tmp_path / "migrations"
    broken.mkdir()
    source = (module.MIGRATIONS / "0001_initial.py").read_text()
    (broken / "0001_initial.py").write_text(source + "    raise ValueError('half way')\n")
    monkeypatch.setattr(module, "MIGRATIONS", broken)
    with pytest.raises(ValueError, match="half way"):
        reopen(tmp_path / "store.db")
    monkeypatch.undo()
    reopen(tmp_path / "store.db").close()


def test_a_missing_folder_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(StoreIncompatible, match="nowhere does not exist"):
        reopen(tmp_path / "nowhere" / "store.db")


def test_a_folder_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store.db").mkdir()
    with pytest.raises(StoreIncompatible):
        reopen(tmp_path / "store.db")


def _tables(module: ModuleType) -> list[type[models.Table]]:
    return [
        one
        for one in vars(module).values()
        if isinstance(one, type) and issubclass(one, models.Table) and one is not models.Table
    ]


@pytest.mark.parametrize("table", _tables(models), ids=lambda table: table.__name__)
def test_the_models_say_what_the_migrations_made(bench: Bench, table: type[models.Table]) -> None:
    meta = table._meta  # type: ignore[attr-defined]
    rows = bench.rows(f"SELECT name, \"notnull\" FROM pragma_table_info('{meta.table_name}')")
    declared = {field.column_name: int(not field.null) for field in meta.sorted_fields}
    assert dict(rows) == declared


# -- one process -------------------------------------------------------------------------------------


def test_a_second_opener_is_told_who_has_the_store(bench: Bench) -> None:
    with pytest.raises(StoreLocked, match=str(os.getpid())):
        reopen(bench.path)


def test_a_store_that_was_closed_can_be_opened(bench: Bench) -> None:
    bench.db.close()
    assert Database.locked_by(bench.path) is None
    reopen(bench.path).close()


def test_what_is_noted_in_the_lock_is_read_by_others(bench: Bench) -> None:
    bench.db.lock_note(admin_url="http://127.0.0.1:1")
    facts = Database.locked_by(bench.path)
    assert facts is not None
    assert (facts["pid"], facts["admin_url"]) == (os.getpid(), "http://127.0.0.1:1")


def test_a_killed_owner_leaves_the_store_to_the_next_with_all_it_committed(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    script = (
        "import sys; sys.path[:0] = sys.argv[2:]\n"
        "from pathlib import Path\nfrom store_bench import Bench, delivery, NOW\n"
        "bench = Bench(Path(sys.argv[1])).begin()\n"
        "bench.history.store_deliveries([delivery()], now=NOW)\n"
        "print('stored', flush=True)\nsys.stdin.read()\n"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", script, str(path), *map(str, Path(__file__).parents[:2])],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    with owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"stored\n"
        with pytest.raises(StoreLocked, match=str(owner.pid)):
            reopen(path)
        owner.send_signal(signal.SIGKILL)
    database = reopen(path)
    assert database.integrity() == "ok"
    with database.read():
        assert database.execute("SELECT guid FROM delivery").fetchall() == [("guid-1",)]
        assert database.execute("SELECT wanted_generation FROM job").fetchall() == [(1,)]
    database.close()


# -- beside the owner --------------------------------------------------------------------------------


def test_a_reader_beside_the_owner_sees_what_is_committed(bench: Bench) -> None:
    beside = Database.open_read_only(bench.path, clock=Clock())
    bench.repositories.track([rule("octo/data"), rule("octo/more")], now=NOW)
    with beside.read():
        assert beside.execute("SELECT count(*) FROM repository").fetchone() == (2,)
    beside.close()


def test_a_reader_beside_the_owner_cannot_write(bench: Bench) -> None:
    beside = Database.open_read_only(bench.path, clock=Clock())
    with pytest.raises(StoreError), beside.write():
        beside.execute("UPDATE repository SET name = 'x'")
    beside.close()


def test_there_is_nothing_to_read_where_no_store_is(tmp_path: Path) -> None:
    with pytest.raises(StoreIncompatible, match="there is no database"):
        Database.open_read_only(tmp_path / "store.db", clock=Clock())
    assert not (tmp_path / "store.db").exists()


def test_a_reader_refuses_a_store_that_needs_migrating(bench: Bench) -> None:
    with bench.db.write():
        bench.db.execute("DELETE FROM schema_migration")
    with pytest.raises(StoreIncompatible, match="older schema"):
        Database.open_read_only(bench.path, clock=Clock())


# -- transactions ------------------------------------------------------------------------------------


def rename_and_raise(bench: Bench, name: str) -> None:
    with bench.db.write():
        bench.db.execute("UPDATE repository SET name = ?", (name,))
        raise KeyError


def test_a_block_that_raises_writes_nothing(bench: Bench) -> None:
    with pytest.raises(KeyError):
        rename_and_raise(bench, "changed")
    assert bench.value("SELECT name FROM repository") == "data"


def test_an_inner_block_that_raises_is_undone_alone(bench: Bench) -> None:
    with bench.db.write():
        bench.db.execute("UPDATE repository SET name = 'outer'")
        with pytest.raises(KeyError):
            rename_and_raise(bench, "inner")
    assert bench.value("SELECT name FROM repository") == "outer"


def test_a_write_inside_a_read_is_a_mistake(bench: Bench) -> None:
    with bench.db.read(), pytest.raises(RuntimeError, match="inside a read"), bench.db.write():
        pass


def test_a_statement_outside_a_transaction_is_a_mistake(bench: Bench) -> None:
    with pytest.raises(RuntimeError, match="outside"):
        bench.db.execute("SELECT 1")
    with pytest.raises(RuntimeError, match="outside"):
        bench.db.run(models.Repository.select())


def test_a_read_sees_one_instant_while_others_write(bench: Bench) -> None:
    with bench.db.read():
        before = bench.db.execute("SELECT name FROM repository").fetchone()
        in_threads(lambda: bench.repositories.track([rule("octo/other")], now=NOW))
        assert bench.db.execute("SELECT name FROM repository ORDER BY id").fetchall() == [before]
    assert len(bench.rows("SELECT id FROM repository")) == 2


def test_writers_in_many_threads_all_get_their_turn(bench: Bench) -> None:
    def bump() -> None:
        for _ in range(20):
            with bench.db.write():
                bench.db.execute("UPDATE repository SET missed_webhooks = missed_webhooks + 1")

    assert in_threads(*[bump] * 8) == [None] * 8
    assert bench.value("SELECT missed_webhooks FROM repository") == 160


# -- trouble -----------------------------------------------------------------------------------------


def test_a_database_locked_by_another_program_is_unavailable_in_time(impatient: Bench) -> None:
    with closing(sqlite3.connect(impatient.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        started = time.monotonic()
        with Stopwatch() as watch, pytest.raises(StoreUnavailable, match="locked"):
            impatient.history.store_deliveries([delivery()], now=NOW)
        assert time.monotonic() - started > 0.4
        assert watch.seconds < 3
        assert impatient.rows("SELECT 1") == [(1,)]
        other.execute("ROLLBACK")
    impatient.history.store_deliveries([delivery()], now=NOW)


def test_writers_that_queue_behind_a_locked_database_are_all_refused_in_time(impatient: Bench) -> None:
    with closing(sqlite3.connect(impatient.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with Stopwatch() as watch:
            outcomes = in_threads(*[lambda: impatient.history.store_deliveries([delivery()], now=NOW)] * 6)
        assert watch.seconds < 3
    assert {type(outcome) for outcome in outcomes} == {StoreUnavailable}


def test_a_lock_that_is_given_up_in_time_is_waited_for(bench: Bench) -> None:
    with closing(sqlite3.connect(bench.path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        timer = threading.Timer(0.1, lambda: other.execute("ROLLBACK"))
        timer.start()
        bench.history.store_deliveries([delivery()], now=NOW)
        timer.join()


def test_a_full_disk_is_unavailable_and_heals_by_itself(bench: Bench) -> None:
    pages = bench.db.pragma("page_count")
    bench.db.pragma(f"max_page_count = {pages}")
    many = [delivery(number, reason="x" * 3000) for number in range(100)]
    with pytest.raises(StoreUnavailable, match="disk is full"):
        bench.history.store_deliveries(many, now=NOW)
    assert bench.value("SELECT count(*) FROM delivery") == 0
    assert bench.value("SELECT wanted_generation FROM job") == 0
    bench.db.pragma("max_page_count = 1000000")
    bench.history.store_deliveries(many, now=NOW)
    assert bench.value("SELECT count(*) FROM delivery") == 100
    assert bench.db.integrity() == "ok"


def rolled_back_by_itself(bench: Bench) -> None:
    """What SQLite may do by itself when a page cannot be written: https://sqlite.org/lang_transaction.html"""
    with bench.db.write():
        bench.db.execute("ROLLBACK")
        raise sqlite3.OperationalError("the very cause")


def test_an_error_that_ended_the_transaction_itself_is_told_as_it_is(bench: Bench) -> None:
    with pytest.raises(StoreError, match="the very cause"):
        rolled_back_by_itself(bench)
    bench.history.store_deliveries([delivery()], now=NOW)


def test_a_file_that_was_removed_or_replaced_takes_no_more_writes(bench: Bench) -> None:
    aside = bench.path.with_name("aside.db")
    bench.path.rename(aside)
    with pytest.raises(StoreUnavailable, match="cannot be found"):
        bench.history.store_deliveries([delivery()], now=NOW)
    bench.path.write_bytes(b"")
    with pytest.raises(StoreUnavailable, match="replaced"):
        bench.history.store_deliveries([delivery()], now=NOW)
    with pytest.raises(StoreUnavailable):
        bench.db.check()
    bench.path.unlink()
    aside.rename(bench.path)
    bench.db.check()


def test_a_thread_that_connects_after_the_file_was_removed_makes_no_new_one(bench: Bench) -> None:
    bench.path.unlink()

    def read() -> None:
        with pytest.raises(StoreUnavailable, match="cannot be opened"):
            bench.rows("SELECT 1")

    in_threads(read)
    assert not bench.path.exists()


def test_after_a_flush_that_failed_nothing_is_taken_until_a_new_process_begins(bench: Bench) -> None:
    """That the error comes so is shown with a disk that fails, in the fault suite."""
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC

    def fail() -> None:
        with bench.db.write():
            raise error

    with pytest.raises(StoreUnavailable):
        fail()
    for use in (bench.db.read, bench.db.write, bench.db.check, bench.db.checkpoint):
        with pytest.raises(StoreUnavailable, match="restart"):
            use() if use in (bench.db.check, bench.db.checkpoint) else use().__enter__()
    bench.db.close()
    reopened = reopen(bench.path)
    reopened.check()
    reopened.close()


@pytest.mark.parametrize("name", ["100% a?b#c.db", "\udcff.db"])
def test_a_store_may_have_any_name(tmp_path: Path, name: str) -> None:
    bench = Bench(tmp_path / name).begin()
    bench.db.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, f"{name}.lock"])


def test_a_damaged_page_is_unavailable_not_garbage(bench: Bench) -> None:
    bench.db.close()
    content = bytearray(bench.path.read_bytes())
    for page in range(4096, len(content), 4096):
        content[page : page + 64] = b"\xff" * 64
    bench.path.write_bytes(content)
    with pytest.raises((StoreIncompatible, StoreUnavailable), match="damaged"):
        Bench(bench.path).begin()


def test_a_store_with_hardly_any_space_left_says_so(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.db.check()
    real = os.statvfs(bench.path)
    fields = list(real)
    fields[4] = 10  # f_bavail
    monkeypatch.setattr(os, "statvfs", lambda _path: os.statvfs_result(fields))
    with pytest.raises(StoreUnavailable, match="full"):
        bench.db.check()


def test_a_closed_store_is_unavailable(bench: Bench) -> None:
    bench.db.close()
    bench.db.close()
    for use in (bench.db.read, bench.db.write):
        with pytest.raises(StoreUnavailable, match="closed"), use():
            pass


def test_closing_waits_for_a_transaction_under_way(bench: Bench) -> None:
    inside, go = threading.Event(), threading.Event()

    def write() -> None:
        with bench.db.write():
            inside.set()
            go.wait(10)
            bench.db.execute("UPDATE repository SET name = 'last words'")

    writer = threading.Thread(target=write)
    writer.start()
    inside.wait(10)
    threading.Timer(0.05, go.set).start()
    bench.db.close()
    writer.join(10)
    database = reopen(bench.path)
    with database.read():
        assert database.execute("SELECT name FROM repository").fetchone() == ("last words",)
    database.close()


def test_a_thread_can_close_its_connection_and_go_on(bench: Bench) -> None:
    bench.db.close_thread()
    assert bench.rows("SELECT 1") == [(1,)]


def test_connections_of_threads_that_ended_are_closed(bench: Bench) -> None:
    for _ in range(3):
        in_threads(*[lambda: bench.rows("SELECT 1")] * 10)
    gc.collect()
    assert len(bench.db._sqlite.opened) == 1


# -- care --------------------------------------------------------------------------------------------


def test_a_checkpoint_moves_the_log_into_the_database(bench: Bench) -> None:
    bench.history.store_deliveries([delivery(number) for number in range(50)], now=NOW)
    assert bench.db.checkpoint() == 0


def test_a_checkpoint_beside_a_reader_waits_for_nobody(bench: Bench) -> None:
    with bench.db.read():
        bench.db.execute("SELECT * FROM delivery").fetchall()
        left = in_threads(lambda: (bench.history.store_deliveries([delivery()], now=NOW), bench.db.checkpoint())[1])
    assert left[0] > 0
    assert bench.db.checkpoint() == 0


def test_every_statement_is_told(tmp_path: Path) -> None:
    seen: list[tuple[str, float]] = []
    bench = Bench(tmp_path / "store.db", on_statement=lambda sql, seconds: seen.append((sql, seconds))).begin()
    seen.clear()
    bench.repositories.tracked()
    bench.snapshots.store_blobs([("a" * 40, b"x")], now=NOW)
    bench.db.close()
    assert any("SELECT" in sql for sql, _ in seen)
    assert any("INSERT INTO blob" in sql for sql, _ in seen)
    assert all(seconds >= 0 for _, seconds in seen)
