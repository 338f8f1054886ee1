"""What may be removed, that all of it goes, and that nothing else does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from store_bench import NOW, Bench, blob, change, delivery, remote, rule

from daemon.errors import LeaseLost
from daemon.model import RepositoryState
from daemon.store import pruning
from daemon.store.pruning import Pruning


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path / "store.db").begin()
    bench.history.store_deliveries([delivery()], now=NOW)
    claim = bench.claim()
    assert claim is not None
    added = tuple(blob(b"f%d" % number, b"%d" % number) for number in range(25))
    bench.apply(change("head 1", added=added), claim=claim, contents=tuple(b"%d" % number for number in range(25)))
    yield bench
    bench.db.close()


def mark_gone(bench: Bench) -> None:
    bench.repositories.poll_failed(1, at=NOW, error="404", state=RepositoryState.GONE, next_poll_at=NOW)


def left(bench: Bench) -> dict[str, int]:
    """How many rows speak of a branch or a repository, by table."""
    counts = {}
    for table in bench.tables():
        for column in bench.columns(table) & {"branch_id", "repository_id"}:
            counts[f"{table}.{column}"] = bench.value(f'SELECT count({column}) FROM "{table}"')
    return {name: count for name, count in counts.items() if count} | {
        "repository": bench.value("SELECT count(*) FROM repository")
    }


def test_what_is_tracked_and_well_is_never_removed(bench: Bench) -> None:
    store = Pruning(bench.db)
    assert store.candidates() == []
    assert store.find("octo/data") is None
    assert not store.forget(1)
    assert store.sweep() == 0
    assert len(bench.snapshots.entries(1)) == 25


@pytest.mark.parametrize("why", ["gone", "not tracked"])
def test_what_is_gone_or_not_tracked_goes_with_every_row_in_short_transactions(bench: Bench, why: str) -> None:
    store = Pruning(bench.db)
    bench.repositories.identify(1, remote("octo/newer"), now=NOW)
    if why == "gone":
        mark_gone(bench)
    else:
        bench.repositories.track([rule("octo/other")], now=NOW)
    (found,) = store.candidates()
    assert (found.full_name, found.branches, found.entries, found.tracked) == ("octo/newer", 1, 25, why == "gone")
    assert store.find("Octo/Newer") == found
    assert store.forget(found.id)
    assert store.candidates() == []
    assert bench.repositories.by_name("octo", "newer") is None
    assert bench.repositories.by_name("octo", "data") is None
    assert store.sweep(batch=7) > 25
    rest = left(bench)
    assert {name for name in rest if not name.startswith(("repository", "branch", "job"))} == set()
    assert bench.value("SELECT count(*) FROM repository WHERE pruned") == 0
    assert bench.value("SELECT count(*) FROM delivery") == 1


def test_the_name_and_the_number_are_free_at_once(bench: Bench) -> None:
    store = Pruning(bench.db)
    mark_gone(bench)
    assert store.forget(1)
    bench.repositories.track([rule("octo/data")], now=NOW)
    fresh = bench.repositories.by_name("octo", "data")
    assert fresh not in (None, 1)
    bench.repositories.identify(fresh or 0, remote(), now=NOW)
    store.sweep()
    assert [one.id for one in bench.repositories.tracked()] == [fresh]


def test_what_a_kill_leaves_is_taken_up_again(bench: Bench) -> None:
    store = Pruning(bench.db)
    mark_gone(bench)
    store.forget(1)
    steps: list[int] = []

    def killed_after_four() -> None:
        steps.append(1)
        if len(steps) > 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.sweep(check=killed_after_four, batch=5)
    assert 0 < bench.value("SELECT count(*) FROM entry") < 25
    store.sweep()
    assert left(bench) == {"repository": 0}


def test_a_run_that_is_under_way_stores_nothing_any_more(bench: Bench) -> None:
    store = Pruning(bench.db)
    claim = bench.claimed()
    mark_gone(bench)
    store.forget(1)
    store.sweep()
    with pytest.raises(LeaseLost):
        bench.apply(change("head 2"), claim=claim)
    assert left(bench) == {"repository": 0}


def test_a_kept_copy_of_a_replaced_repository_may_go_and_its_successor_stays(bench: Bench) -> None:
    fresh = bench.repositories.replace(1, now=NOW)
    store = Pruning(bench.db)
    (found,) = store.candidates()
    assert (found.id, found.full_name) == (1, "octo/data~7")
    assert store.forget(found.id)
    store.sweep()
    assert bench.repositories.record("octo", "data~7") is None
    assert bench.repositories.by_name("octo", "data") == fresh


def test_every_table_that_speaks_of_branches_is_swept(bench: Bench) -> None:
    swept = {found.strip('"') for sql in pruning._ROWS for found in re.findall(r"(?:DELETE FROM|UPDATE) (\S+)", sql)}
    having = {table for table in bench.tables() if "branch_id" in bench.columns(table)}
    assert "entry" in having
    assert having <= swept
