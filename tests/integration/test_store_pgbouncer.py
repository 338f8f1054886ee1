"""The store by way of PgBouncer in transaction mode: each transaction may have another session than the one before."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from harness import wait_for
from pgbouncer import Bouncer
from store_bench import NOW, Bench, blob, change, delivery, in_threads, later, result, rule

from daemon.clock import Clock
from daemon.errors import LeaseLost, StoreInterrupted
from daemon.model import DeliveryStatus, Topic, Trigger
from daemon.store.connections import connect
from daemon.store.postgres import PostgresDatabase

SECONDS = 30.0


@pytest.fixture
def make(bouncer: Bouncer, postgres_url: str, tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    """Nodes on one database, by way of the pooler unless told otherwise."""
    made: list[Bench] = []

    def make(*, url: str | None = None) -> Bench:
        database = PostgresDatabase.at(url or bouncer.through(postgres_url), clock=Clock())
        made.append(Bench.on(database, tmp_path / "store.db"))
        return made[-1]

    yield make
    for bench in made:
        bench.db.close()


@pytest.fixture
def nodes(make: Callable[..., Bench]) -> tuple[Bench, Bench]:
    return make().begin(), make()


def test_writes_take_turns_over_all_sessions(nodes: tuple[Bench, Bench]) -> None:
    def count(node: Bench) -> None:
        for _ in range(25):
            with node.db.write():
                (token,) = node.db.execute("SELECT token FROM job").fetchone()
                node.db.execute("UPDATE job SET token = ?", (token + 1,))

    assert in_threads(*[lambda node=node: count(node) for node in nodes * 3]) == [None] * 6
    assert nodes[0].value("SELECT token FROM job") == 150


def test_deliveries_at_two_nodes_are_synced_once_under_a_lease_that_ends(nodes: tuple[Bench, Bench]) -> None:
    first, second = nodes
    calls = [lambda node=node: node.history.store_deliveries([delivery()], now=NOW) for node in nodes * 4]
    told = [outcome[0] for outcome in in_threads(*calls)]
    assert sorted(told) == [DeliveryStatus.ACCEPTED, *[DeliveryStatus.DUPLICATE] * 7]
    taken = [claim for claim in in_threads(first.claim, second.claim) if claim is not None]
    assert len(taken) == 1
    assert second.claim(now=later(59)) is None
    over = second.claim(now=later(61))
    assert over is not None
    assert (over.generation, over.token) == (1, 2)
    second.apply(change("head 1", added=(blob(b"a", b"1"),)), claim=over, contents=(b"1",), now=later(62))
    with pytest.raises(LeaseLost):
        first.jobs.finished(taken[0], result(), now=later(62), record=True, served=(), head=None)
    assert first.snapshots.entries(1) == [blob(b"a", b"1")]


def test_many_jobs_are_claimed_once_each_by_nodes_that_claim_at_once(nodes: tuple[Bench, Bench]) -> None:
    nodes[0].repositories.track([rule("octo/data", *(f"b{number}" for number in range(40)))], now=NOW)
    ids = [row[0] for row in nodes[0].rows("SELECT id FROM branch WHERE name LIKE 'b%'")]
    nodes[0].jobs.want(ids, Trigger.MANUAL, now=NOW)

    def drain(node: Bench) -> list[int]:
        claimed = []
        while (claim := node.claim()) is not None or node.jobs.counts(NOW).pending:
            claimed += [claim.branch_id] if claim else []
        return claimed

    told = in_threads(*[lambda node=node: drain(node) for node in nodes * 2])
    assert sorted(branch_id for one in told for branch_id in one) == sorted(ids)


def test_no_session_keeps_anything_of_a_transaction(
    bouncer: Bouncer, postgres_url: str, nodes: tuple[Bench, Bench]
) -> None:
    in_threads(*[lambda node=node: node.history.store_deliveries([delivery()], now=NOW) for node in nodes * 4])
    with nodes[0].db.read(), nodes[1].db.read():  # so there are two sessions at least
        pass
    seen = set()
    for _ in range(12):
        with closing(connect(bouncer.through(postgres_url), None)) as connection:
            kept = connection.execute(
                "SELECT (SELECT count(*) FROM pg_prepared_statements), (SELECT count(*) FROM pg_listening_channels()),"
                " (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'), current_setting('lock_timeout'),"
                " current_setting('statement_timeout'), current_setting('idle_in_transaction_session_timeout'),"
                " current_setting('default_transaction_read_only'), pg_backend_pid()"
            ).fetchone()
        assert kept is not None
        assert kept[:7] == (0, 0, 0, "0", "0", "0", "off")
        seen.add(kept[7])
    assert len(seen) > 1


def test_a_session_that_ends_inside_a_write_leaves_nothing_of_it_and_deliveries_are_stored_by_another(
    nodes: tuple[Bench, Bench], make: Callable[..., Bench], postgres_url: str
) -> None:
    node, beside = nodes[0], make(url=postgres_url)

    def end_all() -> None:
        beside.rows(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

    def cut_off() -> None:
        with node.db.write():
            node.db.execute("UPDATE job SET priority = 7")
            end_all()
            node.db.execute("UPDATE job SET priority = 8")

    with pytest.raises(StoreInterrupted):
        cut_off()
    assert beside.value("SELECT priority FROM job") == 1
    ended: list[bool] = []

    def cut_once(text: str, _seconds: float) -> None:
        if text.lstrip().startswith("INSERT INTO delivery") and not ended:
            ended.append(True)
            end_all()

    node.db._on_statement = cut_once
    assert node.history.store_deliveries([delivery(1), delivery(2)], now=NOW) == [DeliveryStatus.ACCEPTED] * 2
    assert beside.value("SELECT count(*) FROM delivery") == 2


def test_what_a_node_behind_it_stores_is_heard_by_one_that_is_not(
    bouncer: Bouncer, postgres_url: str, make: Callable[..., Bench], capsys: pytest.CaptureFixture[str]
) -> None:
    behind, beside = make().begin(), make(url=postgres_url)
    heard = threading.Event()
    listeners = [behind.db.listener({Topic.JOB: lambda: None}), beside.db.listener({Topic.CHANGE: heard.set})]
    for listener in listeners:
        assert listener is not None
        listener.start()
    assert heard.wait(SECONDS)  # once, as it begins to listen
    heard.clear()
    behind.apply(change("one", added=(blob(b"a", b"1"),)), contents=(b"1",))
    assert heard.wait(SECONDS)
    said: list[str] = []
    wait_for(lambda: said.append(capsys.readouterr().out) or "store.not_listening" in "".join(said), "it to be said")
    for listener in listeners:
        assert listener is not None
        listener.stop()
    assert "a connection pooler is between" in "".join(said)
    assert "not linked" not in bouncer.log()  # what PgBouncer says of a LISTEN that stayed behind
