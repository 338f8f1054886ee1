"""Deliveries become durable together, and their futures tell the truth."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import pytest
from engines import Engine
from harness import wait_for
from store_bench import Bench, delivery, sha

from daemon.clock import Clock
from daemon.errors import StoreUnavailable
from daemon.model import DeliveryStatus
from daemon.triggers.writer import DeliveryWriter

SECONDS = 30.0


class Writing:
    """A writer over a real store, and how many commits held an accepted delivery."""

    def __init__(self, bench: Bench, engine: Engine, **options: int) -> None:
        self.bench = bench
        self.engine = engine
        self.commits = 0
        self.writer = DeliveryWriter(bench.history, clock=Clock(), on_stored=self._count, **options)

    def _count(self) -> None:
        self.commits += 1

    @contextmanager
    def held(self) -> Iterator[None]:
        """The writer is inside a commit that cannot go on: another write has its turn."""
        with self.bench.db.write():
            self.first = self.writer.submit(delivery(1))
            wait_for(self.first.running, "the writer to take up the first delivery")
            yield

    def seen_outside(self) -> list[str]:
        """The GUIDs that another connection finds in the store."""
        return [row[0] for row in self.engine.outside(self.bench.path, "SELECT guid FROM delivery ORDER BY id")]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path / "store.db", busy_seconds=SECONDS)
    yield bench.begin()
    bench.db.close()


@pytest.fixture
def impatient(tmp_path: Path, engine: Engine) -> Iterator[Writing]:
    """A writer over a store that gives a lock up soon; not started yet."""
    writing = Writing(Bench(tmp_path / "impatient.db", busy_seconds=0.2).begin(), engine)
    yield writing
    writing.writer.stop(SECONDS)
    writing.bench.db.close()


@pytest.fixture
def make(bench: Bench, engine: Engine) -> Iterator[Callable[..., Writing]]:
    made: list[Writing] = []

    def make(**options: int) -> Writing:
        made.append(Writing(bench, engine, **options))
        made[-1].writer.start()
        return made[-1]

    yield make
    for writing in made:
        writing.writer.stop(SECONDS)
        assert not writing.writer.alive()


@pytest.fixture
def writing(make: Callable[..., Writing]) -> Writing:
    return make()


def statuses(futures: list[Future[DeliveryStatus]]) -> list[DeliveryStatus]:
    return [future.result(SECONDS) for future in futures]


# -- together ---------------------------------------------------------------------------------------


def test_what_arrives_during_a_commit_shares_the_next_one(writing: Writing) -> None:
    with writing.held():
        waiting = [writing.writer.submit(delivery(number)) for number in range(2, 102)]
    assert statuses([writing.first, *waiting]) == [DeliveryStatus.ACCEPTED] * 101
    wait_for(lambda: writing.commits == 2, "two commits to be told")
    assert writing.seen_outside() == [f"guid-{number}" for number in range(1, 102)]
    assert writing.bench.jobs.record(1).wanted_generation == 101


def test_a_transaction_holds_no_more_than_a_batch(make: Callable[..., Writing]) -> None:
    writing = make(batch=4)
    with writing.held():
        waiting = [writing.writer.submit(delivery(number)) for number in range(2, 12)]
    statuses(waiting)
    writing.writer.ping().result(SECONDS)
    assert writing.commits == 1 + 3


def test_a_delivery_alone_waits_for_no_other(writing: Writing) -> None:
    assert writing.writer.submit(delivery(1)).result(SECONDS) is DeliveryStatus.ACCEPTED


def test_one_that_is_ignored_wakes_nobody(writing: Writing) -> None:
    ignored = delivery(1, status=DeliveryStatus.IGNORED, repository_id=None, branch=None)
    assert writing.writer.submit(ignored).result(SECONDS) is DeliveryStatus.IGNORED
    assert writing.writer.submit(delivery(2)).result(SECONDS) is DeliveryStatus.ACCEPTED
    assert writing.writer.submit(delivery(2)).result(SECONDS) is DeliveryStatus.DUPLICATE
    writing.writer.ping().result(SECONDS)
    assert writing.commits == 1


# -- the promise of an answer -----------------------------------------------------------------------


def test_a_future_resolves_after_its_delivery_is_on_disk(writing: Writing) -> None:
    seen: list[list[str]] = []
    told = threading.Event()

    def look(_: object) -> None:
        seen.append(writing.seen_outside())
        told.set()

    with writing.held():
        writing.first.add_done_callback(look)
        assert writing.seen_outside() == []
        assert not writing.first.done()
    assert told.wait(SECONDS)
    assert seen == [["guid-1"]]


def test_what_was_answered_is_there_after_the_store_is_opened_again(writing: Writing) -> None:
    writing.writer.submit(delivery(1)).result(SECONDS)
    writing.writer.stop(SECONDS)
    writing.bench.db.close()
    again = Bench(writing.bench.path)
    assert again.value('SELECT "after" FROM delivery') == sha("head 1")
    assert again.jobs.record(1).triggers == ("webhook",)
    again.db.close()


def test_a_delivery_whose_request_gave_up_is_not_stored(writing: Writing) -> None:
    with writing.held():
        given_up, kept = writing.writer.submit(delivery(2)), writing.writer.submit(delivery(3))
        assert given_up.cancel()
    assert kept.result(SECONDS) is DeliveryStatus.ACCEPTED
    assert writing.seen_outside() == ["guid-1", "guid-3"]


def test_a_delivery_that_is_being_stored_cannot_be_given_up(writing: Writing) -> None:
    with writing.held():
        assert not writing.first.cancel()
    assert writing.first.result(SECONDS) is DeliveryStatus.ACCEPTED


# -- refusals ---------------------------------------------------------------------------------------


def test_beyond_its_capacity_a_delivery_is_refused_at_once(make: Callable[..., Writing]) -> None:
    writing = make(capacity=2)
    with writing.held():
        waiting = [writing.writer.submit(delivery(number)) for number in (2, 3)]
        refused = writing.writer.submit(delivery(4))
        assert refused.done()
        with pytest.raises(StoreUnavailable, match="too many"):
            refused.result()
    assert statuses(waiting) == [DeliveryStatus.ACCEPTED] * 2
    assert writing.seen_outside() == ["guid-1", "guid-2", "guid-3"]


@pytest.mark.parametrize("poison", [{"repository_id": None}, {"repository_id": 99}])
def test_a_delivery_that_the_store_cannot_take_costs_only_itself(writing: Writing, poison: dict[str, object]) -> None:
    with writing.held():
        before, bad, after = (writing.writer.submit(one) for one in (delivery(2), delivery(3, **poison), delivery(4)))
        ping = writing.writer.ping()
    assert statuses([writing.first, before, after]) == [DeliveryStatus.ACCEPTED] * 3
    with pytest.raises((ValueError, LookupError)):
        bad.result(SECONDS)
    assert ping.result(SECONDS) is DeliveryStatus.IGNORED
    assert writing.seen_outside() == ["guid-1", "guid-2", "guid-4"]
    assert writing.writer.alive()


def test_while_the_store_is_locked_deliveries_are_refused_and_afterwards_taken(impatient: Writing) -> None:
    impatient.writer.start()
    with impatient.engine.locked(impatient.bench.path):
        for future in [impatient.writer.submit(delivery(number)) for number in (1, 2)]:
            with pytest.raises(StoreUnavailable):
                future.result(SECONDS)
    assert impatient.seen_outside() == []
    assert impatient.writer.submit(delivery(1)).result(SECONDS) is DeliveryStatus.ACCEPTED
    assert impatient.seen_outside() == ["guid-1"]


def test_a_ping_fails_with_the_commit_it_shares(impatient: Writing) -> None:
    with impatient.engine.locked(impatient.bench.path):
        shared = impatient.writer.submit(delivery(1)), impatient.writer.ping()
        impatient.writer.start()  # only now: it takes up both together, however slowly they were handed over
        for future in shared:
            with pytest.raises(StoreUnavailable):
                future.result(SECONDS)
    assert impatient.writer.ping().result(SECONDS) is DeliveryStatus.IGNORED


# -- its end ----------------------------------------------------------------------------------------


def test_stopping_stores_what_waits(writing: Writing) -> None:
    with writing.held():
        waiting = [writing.writer.submit(delivery(number)) for number in range(2, 22)]
        stopping = threading.Thread(target=writing.writer.stop, args=(SECONDS,))
        stopping.start()
    stopping.join(SECONDS)
    assert not writing.writer.alive()
    assert all(future.done() for future in waiting)
    assert len(writing.seen_outside()) == 21


def test_stopping_an_idle_writer_ends_it_at_once(writing: Writing) -> None:
    writing.writer.stop(SECONDS)
    assert not writing.writer.alive()


def test_stopping_gives_up_after_its_time_also_when_as_many_wait_as_may(make: Callable[..., Writing]) -> None:
    writing = make(capacity=1)
    with writing.held():
        waiting = writing.writer.submit(delivery(2))
        ended = threading.Event()

        def stop() -> None:
            writing.writer.stop(0.05)
            ended.set()

        threading.Thread(target=stop, daemon=True).start()
        assert ended.wait(SECONDS / 2)  # the writer itself would wait twice as long for its turn
    assert waiting.result(SECONDS) is DeliveryStatus.ACCEPTED
