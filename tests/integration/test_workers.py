"""Pools of workers over the real queue: who runs what, and how every ending is written down."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from bench import Bench, Rule
from engines import Engine
from harness import wait_for
from structlog.testing import capture_logs

from daemon.clock import Clock
from daemon.demo.standin import StandIn
from daemon.demo.standin.faults import Hold, Html, Status
from daemon.demo.standin.gitrepo import GitRepo
from daemon.model import Claim, ContentRules, Outcome, RepositoryRef, RunResult, Trigger
from daemon.store.jobs import Jobs
from daemon.sync import workers as module
from daemon.sync.routine import Routine
from daemon.sync.workers import Workers

SECONDS = 10.0
COMMITS = r"/commits\?"


class Pool:
    """A pool of its own over the bench's store, on real time; what it ran."""

    def __init__(self, bench: Bench, owner: str, *, workers: int = 1, **options: Any) -> None:
        self.settings = replace(bench.sync_settings, workers=workers)
        self.ended: list[tuple[Claim, RunResult]] = []
        options.setdefault("clock", bench.time.clock)
        options.setdefault("routine", bench.routine)
        self.workers = Workers(
            options.pop("jobs", bench.jobs),
            owner=owner,
            settings=lambda: self.settings,
            on_run=lambda claim, result: self.ended.append((claim, result)),
            jitter=lambda: 0.5,
            **options,
        )

    def living(self) -> int:
        return sum(thread.is_alive() for thread in self.workers._threads.values())

    def resize(self, workers: int) -> None:
        self.settings = replace(self.settings, workers=workers)
        self.workers.resize()
        self.workers.wake()


@pytest.fixture
def make_pool(bench: Bench) -> Iterator[Callable[..., Pool]]:
    with ExitStack() as stack:

        def make(owner: str = "one", *, of: Bench = bench, **options: Any) -> Pool:
            pool = Pool(of, owner, **options)
            stack.callback(pool.workers.stop, SECONDS)
            pool.workers.start()
            return pool

        yield make
        bench.github.faults.clear()


@pytest.fixture
def other_bench(tmp_path: Path, github: StandIn, repo: GitRepo) -> Iterator[Callable[..., Bench]]:
    """A second bench over the same stand-in, with settings of its own."""
    folder = tmp_path / "other"
    folder.mkdir()
    with ExitStack() as stack:

        def make(**settings: Any) -> Bench:
            bench = Bench(folder, github, repo, **settings)
            stack.callback(bench.close)
            return bench

        yield make


@pytest.fixture
def held(bench: Bench) -> Hold:
    """Every sync stops at its commit list until it is let go."""
    held = Hold()
    bench.github.faults.add(COMMITS, held)
    return held


def state(bench: Bench) -> str:
    return bench.jobs.record(bench.facts().id).state


def lease(bench: Bench) -> tuple[str | None, str | None]:
    with bench.database.read():
        return bench.database.execute("SELECT lease_owner, lease_until FROM job").fetchone()


def runs(bench: Bench) -> list[tuple[str, str | None]]:
    return [(run.outcome, run.error) for run in bench.history.runs(before_id=None, limit=100)]


# -- waking and size --------------------------------------------------------------------------------


def test_a_pool_syncs_what_waits_when_it_starts(bench: Bench, make_pool: Callable[..., Pool]) -> None:
    bench.want()
    pool = make_pool()
    wait_for(lambda: pool.ended, "the run to end")
    bench.assert_equal_to_git()


def test_a_wake_is_followed_at_once(
    bench: Bench, make_pool: Callable[..., Pool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IDLE_SECONDS", 3600.0)
    pool = make_pool()
    for number in range(1, 4):
        bench.repo.commit({"n.md": b"%d\n" % number})
        bench.want()
        pool.workers.wake()
        wait_for(lambda ended=number: len(pool.ended) == ended, "the run to end", seconds=SECONDS)
    bench.assert_equal_to_git()


def test_a_wake_between_a_look_and_the_rest_after_it_is_not_lost(
    bench: Bench, make_pool: Callable[..., Pool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IDLE_SECONDS", 3600.0)
    pools: list[Pool] = []

    class Racing(Jobs):
        """A push arrives right after the first look has found nothing."""

        def claim(self, owner: str, **options: Any) -> Claim | None:
            found = super().claim(owner, **options)
            if found is None and not pools[0].ended:
                bench.want()
                pools[0].workers.wake()
            return found

    pools.append(Pool(bench, "one", jobs=Racing(bench.database)))
    pools[0].workers.start()
    try:
        wait_for(lambda: pools[0].ended, "the run to end", seconds=SECONDS)
    finally:
        pools[0].workers.stop(SECONDS)


def test_a_running_sync_tells_how_far_it_has_come(bench: Bench, make_pool: Callable[..., Pool], held: Hold) -> None:
    bench.want()
    pool = make_pool()
    assert held.reached.wait(SECONDS)
    (told,) = pool.workers.progress()
    assert (told.repository_id, told.repository) == (bench.repository_id, "octo/data")
    assert (told.phase, told.done, told.total) == ("head", 0, 1)
    held.release()
    wait_for(lambda: not pool.workers.progress(), "the run to end", seconds=SECONDS)


def test_what_was_put_into_the_queue_without_a_wake_is_found(bench: Bench, make_pool: Callable[..., Pool]) -> None:
    pool = make_pool()
    wait_for(pool.workers.alive, "the pool to live")
    bench.want()
    wait_for(lambda: pool.ended, "the run to end")


def test_a_pool_grows_and_shrinks_while_it_runs(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool(workers=1)
    assert (pool.living(), pool.workers.alive()) == (1, True)
    pool.resize(4)
    assert (pool.living(), pool.workers.alive()) == (4, True)
    pool.resize(2)
    wait_for(lambda: pool.living() == 2, "two threads to end")
    assert pool.workers.alive()
    pool.resize(3)
    assert (pool.living(), pool.workers.alive()) == (3, True)


def test_a_pool_that_shrinks_ends_what_it_runs(bench: Bench, make_pool: Callable[..., Pool], held: Hold) -> None:
    bench.want()
    pool = make_pool(workers=1)
    assert held.reached.wait(SECONDS)
    pool.resize(0)
    held.release()
    wait_for(lambda: pool.living() == 0, "the thread to end")
    bench.assert_equal_to_git()


# -- stopping ---------------------------------------------------------------------------------------


def test_what_runs_when_a_pool_stops_is_handed_back_and_another_pool_takes_it(
    bench: Bench, make_pool: Callable[..., Pool], held: Hold
) -> None:
    bench.want()
    first = make_pool("first")
    assert held.reached.wait(SECONDS)
    assert (first.workers.running(), lease(bench)[0]) == (1, "first")
    stopping = threading.Thread(target=first.workers.stop, args=(SECONDS,))
    stopping.start()
    wait_for(first.workers._stopping.is_set, "the stop to begin")
    held.release()
    stopping.join(SECONDS)
    assert (first.living(), first.workers.running(), first.ended) == (0, 0, [])
    assert (state(bench), bench.jobs.record(bench.facts().id).attempts) == ("pending", 0)
    second = make_pool("second")
    wait_for(lambda: second.ended, "the other pool to take it")
    bench.assert_equal_to_git()
    assert runs(bench) == [("updated", None)]


def test_what_does_not_end_in_time_is_handed_back_and_what_it_brings_later_is_dropped(
    bench: Bench, make_pool: Callable[..., Pool], held: Hold
) -> None:
    bench.want()
    first = make_pool("first")
    assert held.reached.wait(SECONDS)
    first.workers.stop(0.0)
    assert (state(bench), lease(bench)) == ("pending", (None, None))
    with capture_logs() as logged:
        held.release()
        wait_for(lambda: first.living() == 0, "the thread to end")
    assert [line["event"] for line in logged] == ["run.lease_lost"]
    assert (first.ended, runs(bench), bench.facts().head_sha) == ([], [], None)
    assert bench.jobs.record(bench.facts().id).attempts == 0


def test_a_stopped_pool_takes_nothing_more(bench: Bench, make_pool: Callable[..., Pool]) -> None:
    pool = make_pool()
    pool.workers.stop(SECONDS)
    bench.want()
    pool.workers.wake()
    pool.workers.resize()
    wait_for(lambda: pool.living() == 0, "its threads to end")
    assert (state(bench), pool.workers.alive()) == ("pending", False)


# -- leases -----------------------------------------------------------------------------------------


def test_a_lease_that_ran_out_is_taken_over_and_the_first_result_refused(
    bench: Bench, make_pool: Callable[..., Pool], held: Hold
) -> None:
    bench.want()
    first = make_pool("first")
    assert held.reached.wait(SECONDS)
    bench.time.advance(61)
    bench.github.faults.clear()  # lets the first one go too, to its end
    second = bench.claim()
    if second is not None:
        bench.workers.work(second)
    wait_for(lambda: first.workers.running() == 0, "the first run to end")
    bench.settle()
    bench.assert_equal_to_git()
    assert runs(bench) == [("updated", None)]


def test_a_run_that_lost_its_lease_writes_nothing(bench: Bench) -> None:
    bench.want()
    late = bench.claim()
    assert late is not None
    bench.time.advance(61)
    assert bench.work() is not None
    before = (bench.facts(), runs(bench), bench.jobs.record(late.branch_id), bench.tree())
    bench.repo.commit({"new.md": b"found by the late one only\n"})
    with capture_logs() as logged:
        assert bench.workers.work(late) is None
    assert [line["event"] for line in logged] == ["run.lease_lost"]
    assert (bench.facts(), runs(bench), bench.jobs.record(late.branch_id), bench.tree()) == before


@pytest.mark.parametrize("fault", [Html(), Status(503)])
def test_neither_does_one_that_failed_or_waits(bench: Bench, fault: object) -> None:
    bench.want()
    late = bench.claim()
    assert late is not None
    bench.time.advance(61)
    assert bench.work() is not None
    before = (runs(bench), bench.jobs.record(late.branch_id))
    bench.repo.commit({"new.md": b"new\n"})
    bench.github.faults.add(".*", fault)
    assert bench.workers.work(late) is None
    assert (runs(bench), bench.jobs.record(late.branch_id)) == before


@pytest.fixture
def short_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEASE_SECONDS", 1.2)  # renewed each quarter of it


def test_an_honest_slow_run_keeps_its_lease(
    bench: Bench, make_pool: Callable[..., Pool], held: Hold, short_leases: None
) -> None:
    bench.want()
    pool = make_pool()
    assert held.reached.wait(SECONDS)
    seen = {lease(bench)}
    for _ in range(8):  # four times as long as the lease that was taken
        bench.time.advance(module.LEASE_SECONDS / 2)
        seen.add(wait_for(lambda: {lease(bench)} - seen, "the lease to be renewed").pop())
        assert bench.jobs.claim("another", now=bench.time.at, lease_seconds=60) is None
    held.release()
    wait_for(lambda: pool.ended, "the run to end")
    bench.assert_equal_to_git()


def test_a_run_whose_lease_is_gone_stops_before_its_next_step(
    bench: Bench, make_pool: Callable[..., Pool], short_leases: None
) -> None:
    bench.repo.commit({f"{number}.md": b"%d\n" % number for number in range(3)})
    held = Hold()
    bench.github.faults.add("/tarball/", held)
    bench.want()
    pool = make_pool()
    assert held.reached.wait(SECONDS)
    running = next(iter(pool.workers._running.values()))
    assert bench.jobs.recover(now=bench.time.at) == 1  # somebody took the lease away
    assert running.lost.wait(SECONDS)
    bench.time.advance(1)
    other = bench.claim()
    assert other is not None
    held.release()
    wait_for(lambda: pool.workers.running() == 0, "the run to end")
    assert (pool.ended, runs(bench)) == ([], [])
    with bench.database.read():
        assert bench.database.execute("SELECT count(*) FROM blob").fetchone() == (0,)


@pytest.mark.sqlite  # the file is moved away
def test_a_heartbeat_that_cannot_be_stored_is_told_and_tried_again(
    bench: Bench, make_pool: Callable[..., Pool], held: Hold, short_leases: None
) -> None:
    bench.want()
    pool = make_pool(clock=Clock())
    assert held.reached.wait(SECONDS)
    path = bench.database.path
    aside = path.with_suffix(".aside")
    with capture_logs() as logged:
        path.rename(aside)  # the store refuses to write into a file that is not there any more
        wait_for(lambda: "run.lease_not_renewed" in {line["event"] for line in logged}, "a heartbeat to fail")
        aside.rename(path)
    before = lease(bench)
    wait_for(lambda: lease(bench) != before, "the lease to be renewed")
    held.release()
    wait_for(lambda: pool.ended, "the run to end")
    bench.assert_equal_to_git()


# -- hanging ----------------------------------------------------------------------------------------


def test_a_run_that_makes_no_step_any_more_loses_its_lease_and_ends_without_a_trace(
    bench: Bench, make_pool: Callable[..., Pool], held: Hold, short_leases: None
) -> None:
    bench.want()
    pool = make_pool()
    assert held.reached.wait(SECONDS)
    assert (pool.workers.hung(), pool.workers.moving()) == (0, True)
    with capture_logs() as logged:
        bench.time.advance(module.HUNG_SECONDS + 1)
        wait_for(lambda: "run.hangs" in {line["event"] for line in logged}, "the heartbeat to notice")
        assert next(iter(pool.workers._running.values())).lost.wait(SECONDS)
    assert (pool.workers.hung(), pool.workers.moving()) == (1, False)
    other = bench.claim()  # before the one that hung is let go, whose worker looks for a job next
    assert other is not None
    bench.github.faults.clear()
    wait_for(lambda: pool.workers.running() == 0, "the run that hung to end")
    assert (pool.ended, runs(bench)) == ([], [])
    assert bench.workers.work(other) is not None
    wait_for(pool.workers.moving, "the worker to be counted again")
    bench.assert_equal_to_git()


def test_a_pool_moves_while_one_of_its_workers_does(bench: Bench, make_pool: Callable[..., Pool], held: Hold) -> None:
    bench.want()
    pool = make_pool(workers=2)
    assert held.reached.wait(SECONDS)
    bench.time.advance(module.HUNG_SECONDS + 1)
    wait_for(lambda: pool.workers.hung() == 1, "the idle worker to make its next step")
    assert pool.workers.moving()


def test_a_long_run_that_makes_steps_does_not_hang(bench: Bench, make_pool: Callable[..., Pool]) -> None:
    moving: list[bool] = []

    class Slow(Routine):
        """The routine after an archive that takes hours to come in."""

        def run(self, claim: Claim, **options: Any) -> RunResult | None:
            for _ in range(5):
                options["check"]()
                bench.time.advance(module.HUNG_SECONDS - 60)
                moving.append(pool.workers.moving())
            return super().run(claim, **options)

    pool = make_pool(routine=routine_of(bench, kind=Slow))
    bench.want()
    pool.workers.wake()
    wait_for(lambda: pool.ended, "the run to end")
    assert moving == [True] * 5


# -- one at a time ----------------------------------------------------------------------------------


def test_two_pools_never_run_one_branch_at_once(
    other_bench: Callable[..., Bench], github: StandIn, repo: GitRepo, make_pool: Callable[..., Pool]
) -> None:
    count = 6
    for number in range(count):
        github.add(f"octo/r{number}", repo.path)
    bench = other_bench(repositories_rules=tuple(Rule(name=f"r{number}") for number in range(count)))
    under_way: Counter[str] = Counter()
    seen: list[int] = []
    lock = threading.Lock()

    class Watched(Routine):
        """The routine, and how many of it are in one branch."""

        def run(self, claim: Claim, **options: Any) -> RunResult | None:
            with lock:
                under_way[claim.repository.full_name] += 1
                seen.append(under_way[claim.repository.full_name])
            try:
                return super().run(claim, **options)
            finally:
                with lock:
                    under_way[claim.repository.full_name] -= 1

    routine = routine_of(bench, kind=Watched)
    pools = [make_pool(f"pool-{number}", of=bench, workers=3, routine=routine) for number in range(2)]
    ids = [bench.repositories.branches(one.id)[0].id for one in bench.repositories.tracked()]
    for _ in range(10):
        bench.jobs.want(ids, Trigger.MANUAL, now=bench.time.at)
        for pool in pools:
            pool.workers.wake()
        wait_for(lambda: seen, "a run to begin")
    wait_for(lambda: bench.jobs.next_due(bench.time.at) is None, "the queue to be empty")
    for pool in pools:
        pool.workers.stop(SECONDS)
    assert set(seen) == {1}
    assert len(seen) >= count
    assert {result.outcome for pool in pools for _, result in pool.ended} <= {Outcome.UPDATED, Outcome.UNCHANGED}


def test_a_wake_that_reaches_a_surplus_worker_is_passed_on(
    bench: Bench, make_pool: Callable[..., Pool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IDLE_SECONDS", 3600.0)
    looks: list[object] = []
    genuine = bench.jobs.next_due
    monkeypatch.setattr(bench.jobs, "next_due", lambda now: (genuine(now), looks.append(now))[0])
    pool = make_pool(workers=8)
    wait_for(lambda: len(looks) == 8, "every worker to rest")
    pool.settings = replace(pool.settings, workers=1)
    bench.want()
    pool.workers.wake()
    wait_for(lambda: pool.ended, "the run to end", seconds=SECONDS)
    bench.assert_equal_to_git()


def test_one_wake_brings_a_worker_for_each_job(
    other_bench: Callable[..., Bench],
    github: StandIn,
    repo: GitRepo,
    make_pool: Callable[..., Pool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "IDLE_SECONDS", 3600.0)
    for number in range(3):
        github.add(f"octo/r{number}", repo.path)
    bench = other_bench(repositories_rules=tuple(Rule(name=f"r{number}") for number in range(3)))
    together = threading.Barrier(3)

    class Meeting(Routine):
        """None goes on before all three are under way."""

        def run(self, claim: Claim, **options: Any) -> RunResult | None:
            together.wait(SECONDS)
            return super().run(claim, **options)

    looks: list[float] = []
    genuine = bench.jobs.next_due
    monkeypatch.setattr(bench.jobs, "next_due", lambda now: (looks.append(0.0), genuine(now))[1])
    pool = make_pool(of=bench, workers=3, routine=routine_of(bench, kind=Meeting))
    wait_for(lambda: len(looks) >= 3, "every worker to rest")
    ids = [bench.repositories.branches(one.id)[0].id for one in bench.repositories.tracked()]
    bench.jobs.want(ids, Trigger.MANUAL, now=bench.time.at)
    pool.workers.wake()
    wait_for(lambda: len(pool.ended) == 3, "all three to end", seconds=SECONDS)
    assert {result.outcome for _, result in pool.ended} == {Outcome.UPDATED}


def routine_of(
    bench: Bench, *, rules: Callable[[RepositoryRef], ContentRules] | None = None, kind: type[Routine] = Routine
) -> Routine:
    return kind(
        bench.client,
        bench.repositories,
        bench.jobs,
        bench.snapshots,
        clock=bench.time.clock,
        settings=lambda: bench.sync_settings,
        rules=rules or (lambda _ref: bench.content),
    )


# -- endings ----------------------------------------------------------------------------------------


def test_a_defect_in_a_run_costs_one_attempt_and_is_told(bench: Bench, make_pool: Callable[..., Pool]) -> None:
    def broken(_: RepositoryRef) -> ContentRules:
        raise RuntimeError("a defect")

    bench.want()
    with capture_logs() as logged:
        pool = make_pool(routine=routine_of(bench, rules=broken))
        wait_for(lambda: pool.ended, "the run to end")
    assert runs(bench) == [("failed", "unexpected RuntimeError: a defect")]
    job = bench.jobs.record(bench.facts().id)
    assert (job.attempts, job.state, job.last_error) == (1, "pending", "unexpected RuntimeError: a defect")
    assert job.run_after == bench.time.at + timedelta(seconds=5)
    assert [line["event"] for line in logged] == ["run.unexpected_error", "run.finished"]
    assert pool.workers.alive()
    pool.workers.stop(SECONDS)  # or it would try the same once more, whenever it looks next
    bench.time.advance(6)
    bench.settle()
    bench.assert_equal_to_git()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_worker_that_died_is_missed_and_replaced_and_its_job_taken_when_its_lease_ends(
    bench: Bench, make_pool: Callable[..., Pool]
) -> None:
    deadly = [True]

    def rules(_: RepositoryRef) -> ContentRules:
        if deadly.pop() if deadly else False:
            raise SystemExit
        return bench.content

    bench.want()
    pool = make_pool(routine=routine_of(bench, rules=rules))
    wait_for(lambda: not pool.workers.alive(), "the worker to die")
    assert pool.workers.running() == 0
    pool.workers.resize()
    assert pool.workers.alive()
    bench.time.advance(61)
    pool.workers.wake()
    wait_for(lambda: pool.ended, "the run to end")
    assert pool.ended[0][0].attempt == 2
    bench.assert_equal_to_git()


def test_waits_of_an_outage_grow_with_it_to_a_minute_and_cost_no_attempt(bench: Bench) -> None:
    bench.sync()
    bench.repo.commit({"new.md": b"new\n"})
    bench.github.faults.add(".*", Status(503))
    bench.want()
    waits = []
    for _ in range(14):
        assert bench.work() is None
        wait = bench.jobs.next_due(bench.time.at)
        assert wait is not None
        waits.append(wait)
        bench.time.advance(wait)
    assert waits[0] == pytest.approx(1, abs=1)
    assert waits == sorted(waits)
    assert waits[-1] == 60
    job = bench.jobs.record(bench.facts().id)
    assert (job.attempts, job.state) == (0, "pending")
    assert bench.record().branches[0].waiting_for == job.last_error


def test_failures_back_off_and_park_after_the_attempts_that_are_allowed(bench: Bench) -> None:
    bench.github.faults.add(COMMITS, Html())
    bench.want()
    for wait in (5, 10):
        result = bench.work()
        assert result is not None
        assert result.outcome is Outcome.FAILED
        assert bench.jobs.next_due(bench.time.at) == pytest.approx(wait)
        bench.time.advance(wait)
    assert bench.work() is not None
    assert (state(bench), bench.jobs.next_due(bench.time.at)) == ("failed", None)
    assert len(runs(bench)) == bench.sync_settings.max_attempts == 3


def test_a_push_during_the_last_attempt_is_not_parked_with_it(bench: Bench) -> None:
    bench.github.faults.add(COMMITS, Html())
    bench.sync_settings = replace(bench.sync_settings, max_attempts=1)
    bench.want()
    claim = bench.claim()
    assert claim is not None
    bench.want(Trigger.WEBHOOK)
    bench.workers.work(claim)
    bench.github.faults.clear()
    bench.settle()
    bench.assert_equal_to_git()


def test_an_object_that_is_not_there_yet_is_waited_for_and_later_a_failure(bench: Bench) -> None:
    bench.sync()
    bench.repo.commit({"new.md": b"new\n"})
    bench.github.faults.add(r"/(commits\?|compare/)", Status(404, {"message": "Not Found"}))
    bench.want()
    waited = 0.0
    while bench.work() is None:
        wait = bench.jobs.next_due(bench.time.at)
        assert wait is not None
        assert 1 <= wait <= 10
        bench.time.advance(wait)
        waited += wait
    assert waited == pytest.approx(300, abs=15)
    assert runs(bench)[0][0] == "failed"


def test_while_the_store_is_locked_a_pool_lives_and_goes_on_afterwards(
    other_bench: Callable[..., Bench], make_pool: Callable[..., Pool], engine: Engine
) -> None:
    bench = other_bench(busy_seconds=0.1)
    bench.want()
    with capture_logs() as logged:
        with engine.locked(bench.folder / "bench.db"):
            pool = make_pool(of=bench)
            wait_for(lambda: "worker.claim_failed" in {line["event"] for line in logged}, "a claim to fail")
            assert pool.workers.alive()
        pool.workers.wake()
        wait_for(lambda: pool.ended, "the run to end")
    bench.assert_equal_to_git()


def test_a_store_that_lost_its_tables_costs_no_worker_its_life(bench: Bench, make_pool: Callable[..., Pool]) -> None:
    bench.want()
    with bench.database.write():
        bench.database.execute("ALTER TABLE job RENAME TO job_aside")
    with capture_logs() as logged:
        pool = make_pool()
        wait_for(lambda: "worker.claim_failed" in {line["event"] for line in logged}, "a claim to fail")
    assert pool.workers.alive()
    with bench.database.write():
        bench.database.execute("ALTER TABLE job_aside RENAME TO job")
    pool.workers.wake()
    wait_for(lambda: pool.ended, "the run to end")
    bench.assert_equal_to_git()


@pytest.mark.sqlite  # the file is moved away
def test_an_end_that_cannot_be_stored_is_told_and_the_job_taken_again_when_its_lease_ends(bench: Bench) -> None:
    bench.want()
    claim = bench.claim()
    assert claim is not None
    path = bench.database.path
    aside = path.with_suffix(".aside")
    path.rename(aside)
    with capture_logs() as logged:
        assert bench.workers.work(claim) is None
    aside.rename(path)
    assert [line["event"] for line in logged] == ["run.waiting", "run.end_not_stored"]
    assert bench.claim() is None
    bench.time.advance(61)
    bench.settle()
    bench.assert_equal_to_git()


@pytest.mark.sqlite  # the file is moved away
def test_a_stop_that_cannot_be_stored_is_told(bench: Bench, make_pool: Callable[..., Pool], held: Hold) -> None:
    bench.want()
    pool = make_pool()
    assert held.reached.wait(SECONDS)
    path = bench.database.path
    aside = path.with_suffix(".aside")
    with capture_logs() as logged:
        path.rename(aside)
        pool.workers.stop(0.0)
        aside.rename(path)
        assert [line["event"] for line in logged] == ["run.not_handed_back"]
        held.release()
        wait_for(lambda: pool.living() == 0, "the thread to end")
    assert state(bench) == "pending"
