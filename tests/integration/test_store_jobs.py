"""The queue: claims, leases, tokens and endings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from store_bench import NOW, Bench, blob, change, delivery, in_threads, later, result, rule, sha

from daemon.errors import LeaseLost
from daemon.model import Claim, DeliveryStatus, Outcome, RepositoryRef, Sighting, Trigger


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path / "store.db")
    yield bench.begin()
    bench.db.close()


def branches(bench: Bench, count: int) -> list[int]:
    """``count`` tracked branches."""
    bench.repositories.track([rule(f"octo/r{number}") for number in range(count)], now=NOW)
    return [branch.id for one in bench.repositories.tracked() for branch in bench.repositories.branches(one.id)]


def everything(bench: Bench) -> list[list[object]]:
    return [bench.rows(f'SELECT * FROM "{name}"') for name in bench.tables()]


def finish(bench: Bench, claim: Claim, *, record: bool = True, served: tuple[int, ...] = ()) -> int | None:
    return bench.jobs.finished(claim, result(Outcome.UNCHANGED), now=NOW, record=record, served=served, head=None)


# -- claiming ---------------------------------------------------------------------------------------


def test_a_claim_tells_all_that_a_sync_needs(bench: Bench) -> None:
    bench.want(Trigger.POLL)
    bench.want(Trigger.MANUAL, now=later(1))
    claim = bench.claim(now=later(2))
    assert claim == Claim(
        job_id=1, branch_id=1, repository_id=1, repository=RepositoryRef("octo", "data", 7), branch="main", token=1,
        generation=2, triggers=(Trigger.POLL, Trigger.MANUAL), attempt=1, wanted_at=NOW,
    )  # fmt: skip


def test_nothing_wanted_is_nothing_to_claim(bench: Bench) -> None:
    assert bench.claim() is None


def test_a_claimed_job_is_not_claimed_again(bench: Bench) -> None:
    bench.claimed()
    assert bench.claim(now=later(59)) is None


def test_many_claimers_never_get_one_job_twice(bench: Bench) -> None:
    ids = branches(bench, 40)
    bench.jobs.want(ids, Trigger.POLL, now=NOW)

    def drain(owner: str) -> list[int]:
        got = []
        while (claim := bench.claim(owner=owner)) is not None:
            got.append(claim.branch_id)
        return got

    shares = in_threads(*[lambda owner=f"w{number}": drain(owner) for number in range(8)])
    assert sorted(branch for share in shares for branch in share) == sorted(ids)


def test_pushes_and_people_go_before_polls_and_then_whoever_waits_longest(bench: Bench) -> None:
    ids = branches(bench, 5)
    order = [Trigger.POLL, Trigger.STARTUP, Trigger.MANUAL, Trigger.WEBHOOK]
    for second, (branch, trigger) in enumerate(zip(ids, order, strict=False)):
        bench.want(trigger, branch=branch, now=later(second))
    claims = [bench.claim(now=later(9)) for _ in order]
    assert [claim and claim.branch_id for claim in claims] == [ids[2], ids[3], ids[0], ids[1]]


def test_only_the_branches_that_are_asked_for_are_claimed(bench: Bench) -> None:
    ids = branches(bench, 3)
    bench.jobs.want(ids, Trigger.MANUAL, now=NOW)
    claim = bench.jobs.claim("w", now=NOW, lease_seconds=60, branch_ids=[ids[2]])
    assert claim is not None
    assert claim.branch_id == ids[2]
    assert bench.jobs.claim("w", now=NOW, lease_seconds=60, branch_ids=[ids[2]]) is None
    assert bench.jobs.claim("w", now=NOW, lease_seconds=60, branch_ids=[]) is None


def test_what_is_not_tracked_any_more_is_not_claimed(bench: Bench) -> None:
    bench.want()
    bench.repositories.track([rule("octo/other")], now=NOW)
    assert bench.claim() is None
    bench.repositories.track([rule("octo/data")], now=NOW)
    assert bench.claim() is not None


@pytest.mark.parametrize(
    "triggers",
    [
        "",
        "{",
        "null",
        "7",
        "[7]",
        "[[1]]",
        '[[1, "a newer kind", "2026-01-01T00:00:00.000000Z"]]',
        '[[1, "poll", "soon"]]',
    ],
)
def test_a_job_that_does_not_say_any_more_why_it_is_wanted_runs_all_the_same(bench: Bench, triggers: str) -> None:
    bench.want(Trigger.POLL)
    with bench.db.write():
        bench.db.execute("UPDATE job SET triggers = ?", (triggers,))
    assert bench.jobs.record(1).triggers == ()
    claim = bench.claim()
    assert claim is not None
    assert claim.triggers == (Trigger.RECOVERY,)
    finish(bench, claim)
    assert bench.jobs.record(1).state == "idle"


def test_a_delivery_is_taken_whatever_its_job_said_before(bench: Bench) -> None:
    with bench.db.write():
        bench.db.execute("UPDATE job SET triggers = '{'")
    assert bench.history.store_deliveries([delivery()], now=NOW) == [DeliveryStatus.ACCEPTED]
    claim = bench.claim()
    assert claim is not None
    assert claim.triggers == (Trigger.WEBHOOK,)


@pytest.mark.parametrize(("column", "value"), [("sighting", "{"), ("sighting", '["a", 1]'), ("wanted_at", "soon")])
def test_a_job_that_cannot_be_read_is_parked_with_the_reason_and_holds_up_no_other(
    bench: Bench, column: str, value: str
) -> None:
    bad, good = branches(bench, 2)
    bench.jobs.want([bad, good], Trigger.POLL, now=NOW)
    with bench.db.write():
        bench.db.execute(f"UPDATE job SET {column} = ?, priority = 0 WHERE branch_id = ?", (value, bad))
    claim = bench.claim()
    assert claim is not None
    assert claim.branch_id == good
    assert bench.claim() is None
    assert bench.jobs.record(bad).state == "failed"
    assert "cannot be read" in (bench.jobs.record(bad).last_error or "")
    bench.jobs.want([bad], Trigger.POLL, now=NOW)
    again = bench.claim()
    assert again is not None
    assert again.branch_id == bad


def test_a_job_is_not_claimed_before_its_time(bench: Bench) -> None:
    claim = bench.claimed()
    bench.jobs.waiting(claim, run_after=later(30), sighting=None, note=None, now=NOW)
    assert bench.claim(now=later(29)) is None
    assert bench.jobs.next_due(later(20)) == 10
    assert bench.claim(now=later(30)) is not None


def test_a_clock_that_jumped_back_does_not_hold_a_job_for_hours(bench: Bench) -> None:
    claim = bench.claimed()
    bench.jobs.waiting(claim, run_after=later(30), sighting=None, note=None, now=NOW)
    assert bench.jobs.next_due(later(-86400)) == 0
    assert bench.claim(now=later(-86400)) is not None


def test_a_clock_that_jumped_back_does_not_keep_a_dead_workers_lease(bench: Bench) -> None:
    bench.claimed()
    assert bench.claim(now=later(-86400)) is not None


def test_a_lease_that_ran_out_lets_another_take_over_and_counts(bench: Bench) -> None:
    first = bench.claimed()
    second = bench.claim(now=later(60))
    assert second is not None
    assert (second.token, second.attempt) == (first.token + 1, 2)
    assert second.triggers == first.triggers


def test_a_renewed_lease_holds(bench: Bench) -> None:
    claim = bench.claimed()
    assert bench.jobs.renew(claim, now=later(50), lease_seconds=60)
    assert bench.claim(now=later(109)) is None
    assert bench.claim(now=later(110)) is not None
    assert not bench.jobs.renew(claim, now=later(111), lease_seconds=60)


def test_a_start_takes_every_lease_back(bench: Bench) -> None:
    claim = bench.claimed()
    assert bench.jobs.recover(now=NOW) == 1
    assert bench.jobs.recover(now=NOW) == 0
    again = bench.claim()
    assert again is not None
    assert again.attempt == 2
    with pytest.raises(LeaseLost):
        bench.jobs.hand_back(claim, now=NOW)


# -- endings -----------------------------------------------------------------------------------------


ENDINGS: dict[str, Callable[[Bench, Claim], object]] = {
    "waiting": lambda bench, claim: bench.jobs.waiting(claim, run_after=later(9), sighting=None, note="stale", now=NOW),
    "hand_back": lambda bench, claim: bench.jobs.hand_back(claim, now=NOW),
    "failed": lambda bench, claim: bench.jobs.failed(
        claim, result(Outcome.FAILED, error="no"), run_after=NOW, park=True, now=NOW
    ),
    "finished": lambda bench, claim: finish(bench, claim, served=(1,)),
    "apply": lambda bench, claim: bench.apply(
        change("new", added=(blob(b"a", b"a", stored=False),)), claim=claim, served=(1,)
    ),
}


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)
def test_a_claim_that_was_taken_over_writes_nothing(bench: Bench, ending: Callable[[Bench, Claim], object]) -> None:
    bench.history.store_deliveries([delivery()], now=NOW)
    stale = bench.claim()
    assert stale is not None
    bench.claim(now=later(61))
    before = everything(bench)
    with pytest.raises(LeaseLost, match="octo/data@main"):
        ending(bench, stale)
    assert everything(bench) == before


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)
def test_a_claim_ends_once(bench: Bench, ending: Callable[[Bench, Claim], object]) -> None:
    claim = bench.claimed()
    ending(bench, claim)
    before = everything(bench)
    with pytest.raises(LeaseLost):
        ending(bench, claim)
    assert everything(bench) == before


def test_a_finished_job_is_idle(bench: Bench) -> None:
    finish(bench, bench.claimed())
    job = bench.jobs.record(1)
    assert (job.state, job.wanted_generation, job.done_generation, job.triggers) == ("idle", 1, 1, ())
    assert bench.claim() is None
    assert bench.jobs.next_due(NOW) is None


def test_what_is_asked_for_during_a_run_costs_exactly_one_more(bench: Bench) -> None:
    claim = bench.claimed()
    for _ in range(5):
        bench.want()
    finish(bench, claim)
    assert bench.jobs.record(1).state == "pending"
    assert bench.claim() is None  # first a quiet moment: these may not be the last
    again = bench.claim(now=later(1))
    assert again is not None
    finish(bench, again)
    assert bench.claim(now=later(9)) is None


def test_an_end_without_record_leaves_no_run(bench: Bench) -> None:
    assert finish(bench, bench.claimed(Trigger.POLL), record=False) is None
    assert bench.history.runs(before_id=None, limit=10) == []


def test_a_run_is_named_by_its_first_trigger(bench: Bench) -> None:
    bench.want(Trigger.POLL)
    bench.want(Trigger.WEBHOOK)
    claim = bench.claim()
    assert claim is not None
    run_id = finish(bench, claim)
    assert run_id is not None
    run = bench.history.run(run_id)
    assert run is not None
    assert (run.repository, run.branch, run.trigger, run.triggers) == (
        "octo/data", "main", "poll", ("poll", "webhook"),
    )  # fmt: skip


def test_waiting_costs_no_attempt_and_remembers_what_was_seen(bench: Bench) -> None:
    sighting = Sighting(sha("old"), NOW, 2)
    bench.jobs.waiting(bench.claimed(), run_after=later(1), sighting=sighting, note="stale API", now=NOW)
    assert bench.jobs.record(1).last_error == "stale API"
    again = bench.claim(now=later(1))
    assert again is not None
    assert (again.attempt, again.sighting, again.wanted_at) == (1, sighting, NOW)
    finish(bench, again)
    assert bench.claimed(now=later(9)).sighting is None
    assert bench.jobs.record(1).last_error is None


def test_a_job_handed_back_may_run_at_once_as_if_never_claimed(bench: Bench) -> None:
    bench.jobs.hand_back(bench.claimed(), now=NOW)
    again = bench.claim()
    assert again is not None
    assert again.attempt == 1


def test_a_failure_is_told_and_tried_again_later(bench: Bench) -> None:
    run_id = bench.jobs.failed(
        bench.claimed(), result(Outcome.FAILED, error="tree \0 differs"), run_after=later(5), park=False, now=NOW
    )
    run = bench.history.run(run_id)
    assert run is not None
    assert (run.outcome, run.error, run.attempt) == ("failed", "tree \ufffd differs", 1)
    job = bench.jobs.record(1)
    assert (job.state, job.last_error, job.run_after) == ("pending", "tree \ufffd differs", later(5))
    assert bench.value("SELECT last_error FROM branch") == "tree \ufffd differs"
    again = bench.claim(now=later(5))
    assert again is not None
    assert again.attempt == 2


def fail(bench: Bench, claim: Claim, *, park: bool) -> None:
    bench.jobs.failed(claim, result(Outcome.FAILED, error="no"), run_after=later(300), park=park, now=NOW)


def test_a_parked_job_waits_for_the_next_trigger(bench: Bench) -> None:
    fail(bench, bench.claimed(), park=True)
    assert bench.jobs.record(1).state == "failed"
    assert bench.claim(now=later(10**6)) is None
    assert bench.jobs.next_due(NOW) is None
    assert bench.want(Trigger.WEBHOOK)
    revived = bench.claim()
    assert revived is not None
    assert revived.attempt == 1


def test_a_poll_gives_a_parked_job_one_more_try(bench: Bench) -> None:
    claim: Claim | None = bench.claimed()
    for attempt in range(1, 4):
        assert claim is not None
        assert claim.attempt == attempt
        fail(bench, claim, park=attempt == 3)
        claim = bench.claim(now=later(300))
    assert claim is None
    assert bench.want(Trigger.POLL)
    claim = bench.claim()
    assert claim is not None
    assert claim.attempt == 3


def test_only_what_is_parked_is_revived(bench: Bench) -> None:
    assert not bench.jobs.revive([1], Trigger.POLL, now=NOW)
    assert bench.claim() is None
    fail(bench, bench.claimed(), park=True)
    assert bench.jobs.revive([1], Trigger.POLL, now=NOW)
    assert bench.claim() is not None


def test_a_push_during_the_last_attempt_is_not_parked_with_it(bench: Bench) -> None:
    claim = bench.claimed()
    bench.want(Trigger.WEBHOOK)
    fail(bench, claim, park=True)
    assert bench.jobs.record(1).state == "pending"
    again = bench.claim(now=later(300))
    assert again is not None
    assert again.attempt == 1


def test_a_poll_during_the_last_attempt_is_parked_with_it(bench: Bench) -> None:
    claim = bench.claimed()
    bench.want(Trigger.POLL)
    fail(bench, claim, park=True)
    assert bench.jobs.record(1).state == "failed"


# -- what was announced ------------------------------------------------------------------------------


def test_announcements_are_told_until_a_run_acts_on_them(bench: Bench) -> None:
    bench.history.store_deliveries([delivery(1), delivery(2)], now=NOW)
    claim = bench.claim()
    assert claim is not None
    bench.history.store_deliveries([delivery(3)], now=NOW)
    told = bench.jobs.announcements(1, generation=claim.generation)
    assert [item.after for item in told] == [sha("head 1"), sha("head 2")]
    run_id = finish(bench, claim, served=(told[0].delivery_id,))
    assert [item.after for item in bench.jobs.announcements(1, generation=99)] == [sha("head 2"), sha("head 3")]
    first = bench.history.deliveries(before_id=2, limit=1)[0]
    assert first.run_id == run_id


def test_a_head_is_known_once_it_was_acted_on_or_stored(bench: Bench) -> None:
    bench.history.store_deliveries([delivery(1)], now=NOW)
    assert not bench.jobs.acted_head(1, sha("head 1"))
    claim = bench.claim()
    assert claim is not None
    bench.apply(change("other"), claim=claim, served=(1,))
    assert bench.jobs.acted_head(1, sha("head 1"))
    assert bench.jobs.acted_head(1, sha("other"))
    assert not bench.jobs.acted_head(1, sha("never"))


def test_a_failed_run_makes_no_head_known(bench: Bench) -> None:
    claim = bench.claimed()
    bench.jobs.failed(claim, result(Outcome.FAILED, after=sha("x")), run_after=None, park=False, now=NOW)
    assert not bench.jobs.acted_head(1, sha("x"))


def test_the_branch_has_moved_away_from_what_a_delivery_left(bench: Bench) -> None:
    bench.history.store_deliveries([delivery(5), delivery(9, status=DeliveryStatus.IGNORED, branch=None)], now=NOW)
    assert bench.jobs.moved_away(1, sha("head 4"))
    assert not bench.jobs.moved_away(1, sha("head 5"))
    assert not bench.jobs.moved_away(1, sha("head 8"))


# -- counting ----------------------------------------------------------------------------------------


def test_the_queue_in_numbers(bench: Bench) -> None:
    ids = branches(bench, 4)
    for branch in ids[:3]:
        bench.want(Trigger.WEBHOOK, branch=branch)
    claim = bench.claim()
    assert claim is not None
    fail(bench, claim, park=True)
    bench.claim()
    counts = bench.jobs.counts(later(30))
    assert (counts.pending, counts.running, counts.failed, counts.oldest_seconds) == (1, 1, 1, 30)
    assert bench.jobs.counts(later(-30)).oldest_seconds == 0


def test_the_next_due_job_is_told_in_seconds(bench: Bench) -> None:
    assert bench.jobs.next_due(NOW) is None
    bench.want()
    assert bench.jobs.next_due(NOW) == 0
    bench.claim()
    assert bench.jobs.next_due(later(20)) == 40


def test_an_unknown_branch_has_no_job(bench: Bench) -> None:
    with pytest.raises(LookupError):
        bench.jobs.record(99)
    with pytest.raises(LookupError):
        bench.want(branch=99)


def test_a_claim_of_an_empty_queue_does_not_wait_for_writers(bench: Bench) -> None:
    with bench.db.write():
        assert in_threads(bench.claim) == [None]
