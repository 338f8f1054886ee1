"""PostgreSQL: what several daemons on one database, its failures and its own ways must not change."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from engines import Engine, Server, used
from harness import wait_for
from pgproxy import Proxy
from store_bench import NOW, Bench, blob, change, delivery, in_threads, later, rule, sha

from daemon.clock import Clock
from daemon.config import Config, StorageSettings
from daemon.core import Core
from daemon.errors import StoreError, StoreIncompatible, StoreInterrupted, StoreUnavailable
from daemon.metrics import Metrics
from daemon.model import Claim, DeliveryStatus, NodeRecord, Topic, Trigger
from daemon.store import listening
from daemon.store import postgres as postgres_module
from daemon.store.feed import Feed
from daemon.store.nodes import Nodes
from daemon.store.postgres import PostgresDatabase

SECONDS = 30.0
WRITE_IDLE_SECONDS = postgres_module._WRITE_IDLE_SECONDS  # as it is outside of tests


@pytest.fixture
def engine(postgres: Server) -> Iterator[Engine]:
    engine = Engine(postgres)
    with used(engine):
        yield engine
    engine.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def make(engine: Engine, path: Path) -> Iterator[Callable[..., Bench]]:
    """Nodes on one database."""
    made: list[Bench] = []

    def make(**options: Any) -> Bench:
        made.append(Bench(path, **options))
        return made[-1]

    yield make
    for bench in made:
        bench.db.close()


@pytest.fixture
def bench(make: Callable[..., Bench]) -> Bench:
    return make().begin()


@pytest.fixture
def through(postgres: Server, engine: Engine, path: Path, bench: Bench) -> Iterator[tuple[Proxy, Bench]]:
    """A node whose connections can be cut; the store is there already."""
    proxy = Proxy(postgres.folder)
    url = engine.url(path).replace(str(postgres.folder), str(proxy.folder))
    node = Bench.on(PostgresDatabase.at(url, clock=Clock()), path)
    yield proxy, node
    node.db.close()
    proxy.close()


def terminate(engine: Engine, path: Path) -> int:
    """End every connection of the store's, as a restart of the server does; how many there were."""
    ended = engine.outside(
        path,
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = 'headwater'",
    )
    return len(ended)


def guids(bench: Bench) -> list[str]:
    return [row[0] for row in bench.rows("SELECT guid FROM delivery ORDER BY id")]


# -- the connection -----------------------------------------------------------------------------------


def test_connections_that_were_ended_while_idle_are_replaced_unnoticed(
    bench: Bench, engine: Engine, path: Path
) -> None:
    in_threads(*[lambda: bench.jobs.record(1)] * 4)
    assert terminate(engine, path) >= 1
    assert bench.history.store_deliveries([delivery()], now=NOW) == [DeliveryStatus.ACCEPTED]
    assert bench.jobs.record(1).wanted_generation == 1


def test_a_connection_that_is_ended_inside_a_write_leaves_nothing_of_it(
    bench: Bench, engine: Engine, path: Path
) -> None:
    def cut_off() -> None:
        with bench.db.write():
            bench.db.execute("UPDATE job SET priority = 7")
            terminate(engine, path)
            bench.db.execute("UPDATE job SET priority = 8")

    with pytest.raises(StoreInterrupted):
        cut_off()
    assert bench.value("SELECT priority FROM job") == 1


def test_deliveries_whose_transaction_is_ended_are_stored_by_another(bench: Bench, engine: Engine, path: Path) -> None:
    ended: list[int] = []

    def cut_once(text: str, _seconds: float) -> None:
        if text.lstrip().startswith("INSERT INTO delivery") and not ended:
            ended.append(terminate(engine, path))

    bench.db._on_statement = cut_once
    assert bench.history.store_deliveries([delivery(1), delivery(2)], now=NOW) == [DeliveryStatus.ACCEPTED] * 2
    assert ended
    assert guids(bench) == ["guid-1", "guid-2"]


@pytest.mark.parametrize("guid", ["guid-1", None])
@pytest.mark.parametrize("passed_on", [True, False], ids=["after", "before"])
def test_a_connection_that_is_cut_at_its_commit_loses_nothing_and_stores_nothing_twice(
    through: tuple[Proxy, Bench], guid: str | None, passed_on: bool
) -> None:
    proxy, node = through
    proxy.cut(b"COMMIT\0", passed_on=passed_on)
    assert node.history.store_deliveries([delivery(guid=guid)], now=NOW) == [DeliveryStatus.ACCEPTED]
    assert proxy.cuts == 1
    assert node.rows("SELECT guid, attempts FROM delivery") == [(guid, 1)]
    assert node.jobs.record(1).wanted_generation == 1


def test_a_commit_of_which_nobody_can_tell_is_not_claimed(through: tuple[Proxy, Bench]) -> None:
    proxy, node = through
    settle = node.db._outcome  # type: ignore[attr-defined]

    def unreachable(number: str) -> str:
        settle(number)
        raise StoreUnavailable("gone")

    node.db._outcome = unreachable  # type: ignore[attr-defined]
    proxy.cut(b"COMMIT\0", passed_on=True)
    with pytest.raises(StoreUnavailable, match="gone"):
        node.history.store_deliveries([delivery()], now=NOW)


def test_a_server_that_is_down_is_unavailable_and_comes_back_by_itself() -> None:
    server = Server()
    node = Bench.on(PostgresDatabase.at(server.url("model"), clock=Clock()), Path("unused")).begin()
    try:
        server.stop()
        with pytest.raises(StoreUnavailable):
            node.history.store_deliveries([delivery()], now=NOW)
        with pytest.raises(StoreUnavailable):
            node.db.check()
        server.start()
        assert node.history.store_deliveries([delivery()], now=NOW) == [DeliveryStatus.ACCEPTED]
    finally:
        node.db.close()
        server.close()


def test_errors_name_the_database_and_never_its_password() -> None:
    with pytest.raises(StoreUnavailable, match=r"database things at 127\.0\.0\.1") as caught:
        PostgresDatabase.at("postgresql://u:hunter2@127.0.0.1:1/things?connect_timeout=2", clock=Clock())
    assert "hunter2" not in str(caught.value)
    with pytest.raises(StoreIncompatible, match="nonsense") as wrong:
        PostgresDatabase.at("postgresql://u:hunter2@127.0.0.1:1/things?nonsense=1", clock=Clock())
    assert "hunter2" not in str(wrong.value)


# -- turns ----------------------------------------------------------------------------------------------


def test_one_that_stands_still_inside_a_write_loses_it_before_others_give_up(
    make: Callable[..., Bench], engine: Engine, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(PostgresDatabase.at(engine.url(path), clock=Clock())) as usual:
        assert usual._busy_seconds > WRITE_IDLE_SECONDS
    frozen, other = make().begin(), make()
    inside, thawed = threading.Event(), threading.Event()

    def stand_still() -> None:
        with ExitStack() as stack:
            with monkeypatch.context() as soon:
                soon.setattr(postgres_module, "_WRITE_IDLE_SECONDS", 1)
                stack.enter_context(frozen.db.write())
            inside.set()
            frozen.db.execute("UPDATE job SET priority = 7")
            assert thawed.wait(SECONDS)

    def write() -> None:
        assert inside.wait(SECONDS)
        other.want(Trigger.MANUAL)
        thawed.set()

    lost, written = in_threads(stand_still, write)
    assert (type(lost), written) == (StoreInterrupted, None)
    assert other.value("SELECT priority FROM job") == 0


def test_whoever_waits_for_its_turn_gives_up_in_time(make: Callable[..., Bench], engine: Engine, path: Path) -> None:
    bench = make(busy_seconds=0.2).begin()
    with engine.locked(path), pytest.raises(StoreUnavailable, match="busy"):
        bench.want()
    bench.want()


def test_contents_are_stored_while_another_writes(make: Callable[..., Bench], engine: Engine, path: Path) -> None:
    bench = make(busy_seconds=0.5).begin()
    with engine.locked(path):
        bench.snapshots.store_blobs([(sha("x"), b"x")], now=NOW)
    assert bench.snapshots.blob(sha("x")) == b"x"


def test_a_refused_statement_that_is_passed_over_does_not_count_as_stored(bench: Bench) -> None:
    def careless() -> None:
        with bench.db.write():
            bench.db.execute("UPDATE job SET priority = 7")
            with pytest.raises(psycopg.Error):
                bench.db.execute("UPDATE nothing SET priority = 7")

    with pytest.raises(StoreError, match="refused"):
        careless()
    assert bench.value("SELECT priority FROM job") == 1


def test_a_commit_is_on_disk_although_the_server_is_set_not_to_wait(
    make: Callable[..., Bench], engine: Engine, path: Path
) -> None:
    name = engine.url(path).partition("@/")[2].partition("?")[0]
    engine.outside(path, f"ALTER DATABASE {name} SET synchronous_commit = off")
    bench = make().begin()
    with bench.db.write():
        assert bench.db.execute("SHOW synchronous_commit").fetchone()[0] == "on"
    with bench.db.read():
        assert bench.db.execute("SHOW synchronous_commit").fetchone()[0] == "off"
    engine.outside(path, f"ALTER DATABASE {name} RESET synchronous_commit")


def test_nothing_of_a_session_outlives_a_transaction(bench: Bench) -> None:
    bench.want()
    with bench.db.read():
        assert bench.db.execute("SELECT count(*) FROM pg_prepared_statements").fetchone()[0] == 0
        assert bench.db.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").fetchone()[0] == 0
        assert bench.db.execute("SHOW lock_timeout").fetchone()[0] == "0"


# -- several nodes --------------------------------------------------------------------------------------


def test_one_delivery_at_two_nodes_at_once_is_one_row(make: Callable[..., Bench]) -> None:
    nodes = [make().begin(), make()]
    calls = [lambda node=node: node.history.store_deliveries([delivery()], now=NOW) for node in nodes * 4]
    told = [outcome[0] for outcome in in_threads(*calls)]
    assert sorted(told) == [DeliveryStatus.ACCEPTED, *[DeliveryStatus.DUPLICATE] * 7]
    assert nodes[0].rows("SELECT guid, attempts FROM delivery") == [("guid-1", 8)]


def test_nodes_whose_clocks_differ_go_by_the_databases(make: Callable[..., Bench], engine: Engine, path: Path) -> None:
    ahead = Clock(now=lambda: datetime.now(UTC) + timedelta(minutes=5))
    behind = Clock(now=lambda: datetime.now(UTC) - timedelta(minutes=5))
    databases = [engine.open(path, clock=clock) for clock in (ahead, behind)]
    first, second = (database.shared_clock() for database in databases)
    assert abs((first.now() - second.now()).total_seconds()) < 60
    assert abs((first.now() - datetime.now(UTC)).total_seconds()) < 60
    for database in databases:
        database.close()


def test_a_daemon_goes_by_the_databases_clock(engine: Engine, path: Path) -> None:
    config = Config(storage=StorageSettings(url=engine.url(path)))
    core = Core(config, clock=Clock(now=lambda: datetime.now(UTC) + timedelta(minutes=5)), metrics=Metrics())
    assert abs((core.clock.now() - datetime.now(UTC)).total_seconds()) < 60
    core.close()


def test_a_look_that_one_node_took_is_due_to_no_other(make: Callable[..., Bench]) -> None:
    nodes = [make(), make()]
    nodes[0].repositories.track([rule(f"octo/r{number}") for number in range(20)], now=NOW)
    seen = nodes[0].repositories.due(now=NOW, limit=100)
    taken = in_threads(
        *[lambda node=node: node.repositories.take(seen, until=later(60), now=NOW) for node in nodes * 2]
    )
    assert sorted(map(len, taken)) == [0, 0, 0, 20]
    assert nodes[0].repositories.due(now=later(59), limit=100) == []
    assert len(nodes[1].repositories.due(now=later(60), limit=100)) == 20


def test_a_turn_is_one_nodes_until_it_ends_or_leaves(make: Callable[..., Bench]) -> None:
    nodes = [Nodes(make().db), Nodes(make().db)]
    won = in_threads(*[lambda n=n: nodes[n].take("sweep", f"node-{n}", seconds=60, now=NOW) for n in (0, 1)])
    assert sorted(won) == [False, True]
    winner, other = won.index(True), won.index(False)
    assert nodes[winner].take("sweep", f"node-{winner}", seconds=60, now=later(30))
    assert not nodes[other].take("sweep", f"node-{other}", seconds=60, now=later(89))
    assert nodes[other].take("sweep", f"node-{other}", seconds=60, now=later(90))
    nodes[other].leave(f"node-{other}")
    assert nodes[winner].take("sweep", f"node-{winner}", seconds=60, now=later(91))


def test_nodes_are_known_by_their_heartbeat_until_they_leave_or_a_day_has_passed(bench: Bench) -> None:
    nodes = Nodes(bench.db)
    first = NodeRecord("a", "host", 1, "1.0", NOW, NOW, "digest", None)
    second = NodeRecord("b", "host", 2, "1.0", later(1), later(1), "digest", "http://127.0.0.1:1")
    nodes.beat(first)
    nodes.beat(second)
    assert nodes.every() == [first, second]
    nodes.leave("b")
    assert nodes.every() == [first]
    nodes.beat(NodeRecord("c", "host", 3, "1.0", NOW, later(86401), "digest", None))
    assert [node.id for node in nodes.every()] == ["c"]


def test_the_ids_of_changes_have_no_hole_and_come_in_the_order_of_their_commits(make: Callable[..., Bench]) -> None:
    nodes = [make().begin(), make()]

    def undone() -> None:
        with nodes[0].db.write():
            nodes[0].db.execute(
                "INSERT INTO outbox (type, branch_id, after, added, modified, removed, created_at)"
                " VALUES ('branch.changed', 1, '', '[]', '[]', '[]', '')"
            )
            raise LookupError

    nodes[0].apply(change("one", added=(blob(b"a", b"1"),)), contents=(b"1",))
    with pytest.raises(LookupError):
        undone()
    nodes[1].apply(change("two", removed=(b"a",)), now=later(1), before=sha("one"))
    assert [one.id for one in Feed(nodes[0].db).page(None, limit=10).items] == [1, 2]
    assert Feed(nodes[1].db).newest() == 2


# -- claims -----------------------------------------------------------------------------------------------


def several(make: Callable[..., Bench], count: int, nodes: int = 2) -> list[Bench]:
    """Nodes with that many jobs that may be claimed."""
    made = [make().begin(), *(make() for _ in range(nodes - 1))]
    made[0].repositories.track([rule("octo/data", *(f"b{number:03}" for number in range(count)))], now=NOW)
    ids = [row[0] for row in made[0].rows("SELECT id FROM branch WHERE name LIKE 'b%' ORDER BY id")]
    made[0].jobs.want(ids, Trigger.MANUAL, now=NOW)
    return made


class Pause:
    """Stops a node inside the transaction that leases a job, until it is let go."""

    def __init__(self, node: Bench) -> None:
        self.inside, self.on = threading.Event(), threading.Event()
        node.db._on_statement = self._seen

    def _seen(self, text: str, _seconds: float) -> None:
        if text.lstrip().startswith("UPDATE job SET lease_owner") and not self.inside.is_set():
            self.inside.set()
            assert self.on.wait(SECONDS)


def test_nodes_that_claim_at_once_never_get_the_same_job(make: Callable[..., Bench]) -> None:
    nodes = several(make, 120, nodes=3)

    def drain(node: Bench) -> list[Claim]:
        claims = []
        while (claim := node.claim()) is not None or node.jobs.counts(NOW).pending:
            claims += [claim] if claim else []
        return claims

    told = in_threads(*[lambda node=node: drain(node) for node in nodes * 2])
    claims = [claim for one in told for claim in one]
    assert len(claims) == len({claim.branch_id for claim in claims}) == 120
    assert {claim.token for claim in claims} == {1}
    assert sum(bool(one) for one in told) > 1


def test_claims_wait_neither_for_each_other_nor_for_a_delivery(make: Callable[..., Bench]) -> None:
    first, second = several(make, 3)
    third = make()
    pause = Pause(first)
    second.db._busy_seconds = 0.5

    def others() -> tuple[Claim | None, Claim | None]:
        assert pause.inside.wait(SECONDS)
        try:
            with third.db.write(together=True):
                third.db.execute("SELECT id FROM job WHERE lease_owner IS NULL ORDER BY id DESC LIMIT 1 FOR UPDATE")
                return second.claim(), second.claim()
        finally:
            pause.on.set()

    taken, (other, none) = in_threads(first.claim, others)
    assert none is None
    assert taken.branch_id != other.branch_id


def test_a_push_while_its_job_is_being_claimed_is_not_lost_and_loses_nothing(
    make: Callable[..., Bench], engine: Engine, path: Path
) -> None:
    first, second = known(make)
    pause = Pause(first)

    def push() -> list[DeliveryStatus]:
        assert pause.inside.wait(SECONDS)
        return second.history.store_deliveries([delivery(2)], now=NOW)

    def let_go() -> None:
        wait_for(lambda: engine.outside(path, "SELECT 1 FROM pg_locks WHERE NOT granted"), "the delivery to wait")
        pause.on.set()

    claim, stored, _ = in_threads(first.claim, push, let_go)
    assert (claim.generation, stored) == (1, [DeliveryStatus.ACCEPTED])
    assert second.rows(
        "SELECT wanted_generation, claimed_generation, attempts, lease_owner FROM job WHERE branch_id = 1"
    ) == [(2, 1, 1, "worker")]
    assert turns(first) == []


def test_a_job_that_others_have_locked_whenever_it_is_looked_at_is_waited_for_in_the_end(
    make: Callable[..., Bench], engine: Engine, path: Path
) -> None:
    (node,) = several(make, 1, nodes=1)
    with psycopg.connect(engine.url(path)) as other:
        other.execute("SELECT id FROM job FOR UPDATE")
        assert [node.claim() for _ in range(20)] == [None] * 20
        with ThreadPoolExecutor(1) as thread:
            waiting = thread.submit(node.claim)
            wait_for(lambda: engine.outside(path, "SELECT 1 FROM pg_locks WHERE NOT granted"), "the claim to wait")
            other.rollback()
            assert waiting.result(SECONDS) is not None


# -- what nodes tell each other -----------------------------------------------------------------------


TOLD = set(Topic) - {Topic.BEAT}


class Ear:
    """A node that listens, and what it has heard."""

    def __init__(self, node: Bench) -> None:
        self.heard: queue.Queue[Topic] = queue.Queue()
        listener = node.db.listener({topic: partial(self.heard.put, topic) for topic in TOLD})
        assert listener is not None
        self.listener = listener
        self.listener.start()
        self.all()  # once, when it begins to hear: something may have been told before

    def all(self) -> None:
        assert {self.heard.get(timeout=SECONDS) for _ in TOLD} == TOLD

    def next(self) -> Topic:
        return self.heard.get(timeout=SECONDS)


@pytest.fixture
def hears(make: Callable[..., Bench]) -> Iterator[Callable[[Bench], Ear]]:
    ears: list[Ear] = []

    def hears(node: Bench) -> Ear:
        ears.append(Ear(node))
        return ears[-1]

    yield hears
    for ear in ears:
        ear.listener.stop()


def test_what_a_node_commits_is_heard_by_the_others_and_not_by_itself(
    make: Callable[..., Bench], hears: Callable[[Bench], Ear]
) -> None:
    teller, other = make().begin(), make()
    own, ear = hears(teller), hears(other)
    teller.history.store_deliveries([delivery()], now=NOW)
    assert ear.next() is Topic.JOB
    teller.apply(change("one"))  # the push that it begins with is one more to a job that was told of already
    assert ear.next() is Topic.CHANGE
    with suppress(LookupError), teller.db.write():
        teller.db.tell(Topic.TRACKED)
        raise LookupError
    with teller.db.write():
        teller.db.tell(Topic.BUDGET)
        teller.db.tell(Topic.BUDGET)
    assert ear.next() is Topic.BUDGET
    other.want(Trigger.MANUAL)
    assert own.next() is Topic.JOB
    assert own.heard.empty()


def test_a_listener_whose_connection_is_ended_hears_again_and_looks_at_everything_once(
    make: Callable[..., Bench], hears: Callable[[Bench], Ear], engine: Engine, path: Path
) -> None:
    teller = make().begin()
    ear = hears(make())
    connect, told = ear.listener._connect, threading.Event()
    ear.listener._connect = lambda: told.wait(SECONDS) and connect()  # type: ignore[assignment,return-value]
    assert terminate(engine, path) >= 1
    teller.want()  # nobody hears that
    told.set()
    ear.all()
    assert ear.listener.hears()
    teller.apply(change("one"))
    assert ear.next() is Topic.CHANGE


def test_where_nothing_can_be_heard_that_is_said_once_and_a_stop_does_not_wait(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(listening, "_PROOF_SECONDS", 0.05)
    monkeypatch.setattr(listening, "_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(listening, "_FIRST_WAIT_SECONDS", 0.01)
    tried: list[bool] = []
    heard: list[bool] = []
    listener = bench.db.listener({Topic.JOB: lambda: heard.append(True)})
    assert isinstance(listener, listening.Listening)

    def beat() -> None:  # as if a pooler had kept it to itself
        tried.append(True)
        if len(tried) > 3:
            listener._wait_seconds = 3600.0

    resting = threading.Event()

    class Stopping(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            if timeout == 3600.0:
                resting.set()
            return super().wait(timeout)

    listener._beat = beat
    listener._stopping = Stopping()
    listener.start()
    assert resting.wait(SECONDS)  # after some tries
    monkeypatch.setattr(listening, "_STOP_SECONDS", SECONDS)
    listener.stop()
    assert not listener._thread.is_alive()
    assert not listener.hears()
    assert capsys.readouterr().out.count("store.not_listening") == 1
    assert heard == []


# -- opening --------------------------------------------------------------------------------------------


def test_a_database_with_another_programs_tables_is_left_alone(engine: Engine, path: Path) -> None:
    with psycopg.connect(engine.url(path), autocommit=True) as connection:
        connection.execute("DROP TABLE schema_migration")
    with pytest.raises(StoreIncompatible, match="another program's table"):
        engine.open(path)


def test_a_schema_of_its_own_is_enough(engine: Engine, path: Path) -> None:
    with psycopg.connect(engine.url(path), autocommit=True) as connection:
        connection.execute("CREATE SCHEMA mine")
    url = engine.url(path) + "&options=-c%20search_path%3Dmine"
    node = Bench.on(PostgresDatabase.at(url, clock=Clock()), path).begin()
    node.want()
    node.db.close()
    with psycopg.connect(engine.url(path), autocommit=True) as connection:
        assert connection.execute("SELECT count(*) FROM public.job").fetchone() == (0,)
        assert connection.execute("SELECT count(*) FROM mine.job").fetchone() == (1,)


def test_a_newer_or_an_older_schema_is_refused_with_what_to_do(engine: Engine, path: Path) -> None:
    with psycopg.connect(engine.url(path), autocommit=True) as connection:
        connection.execute("INSERT INTO schema_migration (name) VALUES ('9999_later')")
    with pytest.raises(StoreIncompatible, match=r"newer headwater.*9999_later"):
        engine.open(path)
    with psycopg.connect(engine.url(path), autocommit=True) as connection:
        connection.execute("DELETE FROM schema_migration WHERE name >= '0013'")
    with pytest.raises(StoreIncompatible, match="older schema"):
        engine.open_read_only(path)


def test_nodes_that_start_at_once_on_an_empty_database_migrate_it_once(postgres: Server) -> None:
    with postgres.admin() as admin:
        admin.execute("DROP DATABASE IF EXISTS empty")
        admin.execute("CREATE DATABASE empty")
    opened = in_threads(*[lambda: PostgresDatabase.at(postgres.url("empty"), clock=Clock())] * 3)
    assert [type(database) for database in opened] == [PostgresDatabase] * 3
    for database in opened:
        database.close()


def test_a_store_opened_to_read_writes_nothing(bench: Bench, engine: Engine, path: Path) -> None:
    beside = engine.open_read_only(path)
    assert Bench.on(beside, path).jobs.record(1).wanted_generation == 0
    with beside.read(), pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        beside.execute("UPDATE job SET priority = 7")
    beside.close()


# -- deliveries at several nodes at once --------------------------------------------------------------


def known(make: Callable[..., Bench]) -> tuple[Bench, Bench]:
    """Two nodes whose webhooks are known to work, so that deliveries need no turn alone."""
    first = make().begin()
    first.repositories.track([rule("octo/data", "main", "other")], now=NOW)
    assert first.history.store_deliveries([delivery(1)], now=NOW) == [DeliveryStatus.ACCEPTED]
    return first, make()


def turns(bench: Bench) -> list[str]:
    """The kinds of turn that are held or waited for."""
    return [row[0] for row in bench.rows("SELECT mode FROM pg_locks WHERE locktype = 'advisory' ORDER BY mode")]


def test_deliveries_to_two_branches_do_not_wait_for_each_other(make: Callable[..., Bench]) -> None:
    first, second = known(make)
    with first.db.write(together=True):
        first.db.execute("SELECT id FROM job WHERE branch_id = 1 FOR UPDATE").fetchall()
        other = delivery(2, branch="other", ref="refs/heads/other")
        [stored] = in_threads(lambda: second.history.store_deliveries([other], now=NOW))
    assert stored == [DeliveryStatus.ACCEPTED]


def test_a_delivery_waits_for_a_write_that_is_alone_and_that_for_a_delivery(make: Callable[..., Bench]) -> None:
    first, second = known(make)
    second.db._busy_seconds = 0.1
    with first.db.write(), pytest.raises(StoreUnavailable, match="busy"):
        second.history.store_deliveries([delivery(2)], now=NOW)
    with first.db.write(together=True):
        assert turns(first) == ["ShareLock"]
        with pytest.raises(StoreUnavailable, match="busy"):
            second.want()
    assert guids(first) == ["guid-1"]


def test_the_same_deliveries_at_two_nodes_at_once_are_one_row_each(make: Callable[..., Bench]) -> None:
    nodes = known(make)
    for start in range(2, 102, 10):
        batch = [delivery(number) for number in range(start, start + 10)]
        orders = (batch, batch[::-1])
        outcomes = in_threads(
            *(lambda node=node, order=order: node.history.store_deliveries(order, now=NOW)
              for node, order in zip(nodes, orders, strict=True))
        )  # fmt: skip
        assert sorted(outcomes[0] + outcomes[1]) == [DeliveryStatus.ACCEPTED] * 10 + [DeliveryStatus.DUPLICATE] * 10
    assert nodes[0].value("SELECT count(*) FROM delivery") == 101
    assert nodes[0].value("SELECT sum(attempts) FROM delivery") == 201


def test_every_delivery_to_one_branch_counts_whichever_node_took_it(make: Callable[..., Bench]) -> None:
    nodes = known(make)

    def deliver(node: Bench, start: int) -> None:
        for number in range(start, start + 40):
            node.history.store_deliveries([delivery(number)], now=NOW)

    assert in_threads(lambda: deliver(nodes[0], 100), lambda: deliver(nodes[1], 200)) == [None, None]
    generations = [row[0] for row in nodes[0].rows("SELECT generation FROM delivery ORDER BY generation")]
    assert generations == list(range(1, 82))
    assert nodes[0].jobs.record(1).wanted_generation == 81


def test_ignored_deliveries_that_lock_each_other_out_are_stored_all_the_same(make: Callable[..., Bench]) -> None:
    nodes = known(make)
    batch = [
        delivery(number, status=DeliveryStatus.IGNORED, repository_id=None, branch=None, reason="x")
        for number in (2, 3)
    ]
    met = threading.Barrier(2)

    def wait_once(node: Bench) -> Callable[[str, float], None]:
        waited: list[bool] = []

        def seen(text: str, _seconds: float) -> None:
            if text.lstrip().startswith("INSERT INTO delivery") and not waited:
                waited.append(True)
                met.wait(SECONDS)

        return seen

    for node in nodes:
        node.db._on_statement = wait_once(node)
    outcomes = in_threads(
        lambda: nodes[0].history.store_deliveries(batch, now=NOW),
        lambda: nodes[1].history.store_deliveries(batch[::-1], now=NOW),
    )
    assert outcomes == [[DeliveryStatus.IGNORED] * 2] * 2
    assert sorted(nodes[0].rows("SELECT guid, attempts FROM delivery")) == [("guid-1", 1), ("guid-2", 2), ("guid-3", 2)]
