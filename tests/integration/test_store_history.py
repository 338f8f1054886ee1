"""Deliveries as they come, runs as they ended."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from engines import Engine
from store_bench import NOW, Bench, change, delivery, in_threads, later, remote, result, rule, sha

from daemon.model import DeliveryStatus, Outcome, Trigger, WebhookHealth
from daemon.store.hooklog import HookLog

ACCEPTED, IGNORED, SKIPPED, DUPLICATE = (
    DeliveryStatus.ACCEPTED, DeliveryStatus.IGNORED, DeliveryStatus.SKIPPED, DeliveryStatus.DUPLICATE,
)  # fmt: skip


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path / "store.db")
    yield bench.begin()
    bench.db.close()


def store(bench: Bench, *deliveries: object) -> list[DeliveryStatus]:
    return bench.history.store_deliveries(deliveries, now=NOW)  # type: ignore[arg-type]


def stored(bench: Bench) -> list[tuple[object, ...]]:
    return bench.rows("SELECT guid, status, attempts, branch_id, generation FROM delivery ORDER BY id")


def wanted(bench: Bench, branch: int = 1) -> int:
    return bench.jobs.record(branch).wanted_generation


# -- storing -----------------------------------------------------------------------------------------


def test_an_accepted_delivery_and_its_wish_are_stored_together(bench: Bench) -> None:
    assert store(bench, delivery()) == [ACCEPTED]
    assert stored(bench) == [("guid-1", "accepted", 1, 1, 1)]
    claim = bench.claim()
    assert claim is not None
    assert (claim.generation, claim.triggers) == (1, (Trigger.WEBHOOK,))


def test_what_was_answered_can_be_seen_by_another_process(bench: Bench, engine: Engine) -> None:
    store(bench, delivery())
    assert engine.outside(bench.path, "SELECT guid FROM delivery") == [("guid-1",)]
    assert engine.outside(bench.path, "SELECT wanted_generation FROM job") == [(1,)]


def test_deliveries_of_one_commit_each_have_a_generation(bench: Bench) -> None:
    assert store(bench, *[delivery(number) for number in range(1, 6)]) == [ACCEPTED] * 5
    assert [row[4] for row in stored(bench)] == [1, 2, 3, 4, 5]
    assert wanted(bench) == 5
    store(bench, delivery(6))
    assert wanted(bench) == 6
    assert len(bench.jobs.announcements(1, generation=6)) == 6


def test_many_deliveries_in_one_transaction_are_all_or_none(bench: Bench) -> None:
    with pytest.raises(LookupError):
        store(bench, delivery(1), delivery(2, repository_id=99))
    assert stored(bench) == []
    assert wanted(bench) == 0


def test_an_accepted_delivery_for_no_repository_is_a_mistake(bench: Bench) -> None:
    with pytest.raises(ValueError, match="for no repository"):
        store(bench, delivery(repository_id=None))


def test_what_is_ignored_or_skipped_is_stored_and_wants_nothing(bench: Bench) -> None:
    outcomes = store(bench, delivery(1, status=IGNORED, reason="a tag"), delivery(2, status=SKIPPED))
    assert outcomes == [IGNORED, SKIPPED]
    assert stored(bench) == [("guid-1", "ignored", 1, None, None), ("guid-2", "skipped", 1, None, None)]
    assert wanted(bench) == 0


def test_text_that_no_database_can_hold_is_stored_as_near_as_can_be(bench: Bench) -> None:
    store(bench, delivery(1, status=IGNORED, event="a\0b", ref="refs/heads/\ud800", reason="x" * 10**6))
    shown = bench.history.deliveries(before_id=None, limit=1)[0]
    assert (shown.event, shown.ref) == ("a\ufffdb", "refs/heads/\ufffd")


def test_writers_in_many_threads_lose_nothing(bench: Bench) -> None:
    calls = [lambda first=first: store(bench, *[delivery(first + n) for n in range(10)]) for first in range(0, 80, 10)]
    assert in_threads(*calls) == [[ACCEPTED] * 10] * 8
    assert wanted(bench) == 80
    assert sorted(row[4] for row in stored(bench)) == list(range(1, 81))


# -- repeated ----------------------------------------------------------------------------------------


def test_the_same_delivery_again_is_a_duplicate_and_wants_nothing(bench: Bench) -> None:
    assert store(bench, delivery()) == [ACCEPTED]
    assert store(bench, delivery(), delivery()) == [DUPLICATE, DUPLICATE]
    assert stored(bench) == [("guid-1", "accepted", 3, 1, 1)]
    assert wanted(bench) == 1


def test_a_duplicate_within_one_transaction_is_seen(bench: Bench) -> None:
    assert store(bench, delivery(), delivery()) == [ACCEPTED, DUPLICATE]
    assert wanted(bench) == 1


def test_the_same_guid_with_another_body_is_another_delivery(bench: Bench) -> None:
    assert store(bench, delivery(1), delivery(1, body_digest="f" * 64)) == [ACCEPTED, ACCEPTED]


def test_deliveries_without_a_guid_are_never_duplicates(bench: Bench) -> None:
    assert store(bench, delivery(guid=None), delivery(guid=None)) == [ACCEPTED, ACCEPTED]
    assert wanted(bench) == 2


def test_what_was_ignored_is_ignored_again(bench: Bench) -> None:
    assert store(bench, delivery(status=IGNORED), delivery(status=IGNORED)) == [IGNORED, IGNORED]
    assert stored(bench)[0][:3] == ("guid-1", "ignored", 2)


def test_what_was_skipped_twice_is_a_duplicate(bench: Bench) -> None:
    assert store(bench, delivery(status=SKIPPED), delivery(status=SKIPPED)) == [SKIPPED, DUPLICATE]


def test_an_accepted_one_is_a_duplicate_when_it_would_now_be_ignored(bench: Bench) -> None:
    assert store(bench, delivery(), delivery(status=IGNORED)) == [ACCEPTED, DUPLICATE]
    assert stored(bench)[0][1] == "accepted"


@pytest.mark.parametrize("first", [IGNORED, SKIPPED])
def test_what_was_not_processed_is_accepted_when_it_comes_again(bench: Bench, first: DeliveryStatus) -> None:
    store(bench, delivery(1, status=first, reason="not yet", repository_id=None))
    assert store(bench, delivery(1)) == [ACCEPTED]
    assert stored(bench) == [("guid-1", "accepted", 2, 1, 1)]
    assert bench.value("SELECT reason FROM delivery") is None
    assert [item.after for item in bench.jobs.announcements(1, generation=1)] == [sha("head 1")]
    assert store(bench, delivery(1)) == [DUPLICATE]


def test_what_is_accepted_under_another_event_is_told_as_that_event(bench: Bench) -> None:
    store(bench, delivery(1, status=IGNORED, event="ping", action="none", repository_id=None))  # no header is signed
    store(bench, delivery(1))
    shown = bench.history.deliveries(before_id=None, limit=1)[0]
    assert (shown.event, shown.action, shown.status) == ("push", None, "accepted")


# -- which branch ------------------------------------------------------------------------------------


def test_any_push_may_be_for_the_default_branch_while_that_is_unknown(bench: Bench) -> None:
    bench.repositories.track([rule("octo/new")], now=NOW)
    store(bench, delivery(1, repository_id=2, branch="main"), delivery(2, repository_id=2, branch="other"))
    names = bench.rows(
        "SELECT name, wanted_generation FROM branch JOIN job ON branch_id = branch.id WHERE repository_id = 2"
    )
    assert names == [("", 2)]


@pytest.mark.parametrize("branch", [None, ""])
def test_a_push_without_a_branch_is_for_the_default_one(bench: Bench, branch: str | None) -> None:
    store(bench, delivery(branch=branch))
    assert stored(bench)[0][3] == 1


def test_a_branch_that_a_glob_allows_is_made_by_its_first_push(bench: Bench) -> None:
    bench.repositories.track([rule("octo/data", "release/*")], now=NOW)
    store(bench, delivery(1, branch="release/1"), delivery(2, branch="release/2"), delivery(3, branch="release/1"))
    rows = bench.rows(
        "SELECT name, wanted_generation FROM branch JOIN job ON branch_id = branch.id WHERE tracked ORDER BY name"
    )
    assert rows == [("release/1", 2), ("release/2", 1)]


# -- webhook health ----------------------------------------------------------------------------------


def health(bench: Bench) -> tuple[WebhookHealth, int]:
    record = bench.repositories.record("octo", "data")
    assert record is not None
    return record.webhook, record.missed_webhooks


def test_a_delivery_that_comes_before_a_poll_shows_that_webhooks_work(bench: Bench) -> None:
    store(bench, delivery())
    assert health(bench) == (WebhookHealth.HEALTHY, 0)


def test_a_delivery_of_what_a_poll_saw_already_shows_nothing(bench: Bench) -> None:
    bench.repositories.saw(1, head=sha("head 1"), at=NOW)
    store(bench, delivery(1))
    assert health(bench) == (WebhookHealth.UNKNOWN, 0)


def test_a_delivery_soon_after_the_poll_shows_that_webhooks_work(bench: Bench) -> None:
    bench.repositories.saw(1, head=sha("head 1"), at=NOW)
    bench.repositories.suspect(1, branch="main", sha=sha("head 1"), at=NOW)
    store(bench, delivery(1))
    assert health(bench) == (WebhookHealth.HEALTHY, 0)
    assert bench.repositories.settle_suspects(before=later(100), now=later(100)) == 0


def test_a_head_that_no_delivery_announced_in_time_is_a_missed_webhook(bench: Bench) -> None:
    store(bench, delivery(1))
    bench.repositories.suspect(1, branch="main", sha=sha("head 2"), at=NOW)
    assert bench.repositories.settle_suspects(before=later(-1), now=NOW) == 0
    assert bench.repositories.settle_suspects(before=NOW, now=NOW) == 1
    assert health(bench) == (WebhookHealth.MISSING, 1)
    assert bench.repositories.settle_suspects(before=later(100), now=later(100)) == 0


@pytest.mark.parametrize(("health", "due"), [(WebhookHealth.HEALTHY, [1]), (WebhookHealth.MISSING, [])])
def test_a_repository_whose_webhooks_are_found_missing_is_due_at_once(
    bench: Bench, health: WebhookHealth, due: list[int]
) -> None:
    bench.repositories.set_health(1, health)
    bench.repositories.polled({1: later(900)}, at=NOW)  # as long as its webhooks were thought to work
    bench.repositories.suspect(1, branch="main", sha=sha("head 2"), at=NOW)
    bench.repositories.settle_suspects(before=NOW, now=NOW)
    assert [target.repository_id for target in bench.repositories.due(now=NOW, limit=10)] == due


def test_a_head_that_was_announced_before_the_poll_is_not_suspect(bench: Bench) -> None:
    store(bench, delivery(1))
    bench.repositories.suspect(1, branch="main", sha=sha("head 1"), at=NOW)
    assert bench.repositories.settle_suspects(before=later(100), now=later(100)) == 0


def test_a_later_head_does_not_excuse_the_first_one(bench: Bench) -> None:
    bench.repositories.suspect(1, branch="main", sha=sha("head 1"), at=NOW)
    bench.repositories.suspect(1, branch="main", sha=sha("head 2"), at=later(60))
    assert bench.repositories.settle_suspects(before=later(1), now=later(1)) == 1


def test_an_ignored_delivery_shows_nothing(bench: Bench) -> None:
    store(bench, delivery(status=IGNORED, branch=None))
    assert health(bench) == (WebhookHealth.UNKNOWN, 0)


@pytest.mark.parametrize(
    ("arrived", "reason"),
    [
        ({"status": IGNORED, "event": "ping"}, None),
        ({"after": sha("head 0")}, None),  # a poll saw that head before: no sign of health, but it did arrive
        ({"after": sha("head 9")}, None),
        ({"status": IGNORED, "event": "ping", "repository_id": 2}, "timed out"),
        ({"status": IGNORED, "event": "ping", "repository_id": None}, "timed out"),
    ],
)
def test_a_delivery_ends_what_was_said_to_keep_deliveries_away(
    bench: Bench, arrived: dict[str, object], reason: str | None
) -> None:
    bench.apply(change("head 0"))
    target = HookLog(bench.db).take(now=NOW, lease_seconds=60)
    assert target is not None
    assert target.repository_id == 1
    HookLog(bench.db).unhooked(target, due_at=later(3600), reason="timed out")
    assert store(bench, delivery(1, **arrived)) == [arrived.get("status", ACCEPTED)]
    assert bench.value("SELECT webhook_reason FROM repository WHERE id = 1") == reason


def test_a_hint_asks_for_a_look(bench: Bench) -> None:
    bench.repositories.polled({1: later(900)}, at=NOW)
    store(bench, delivery(status=IGNORED, event="repository", hint_repository_id=1))
    assert [target.repository_id for target in bench.repositories.due(now=NOW, limit=9)] == [1]


# -- cost --------------------------------------------------------------------------------------------


def test_a_delivery_costs_one_statement(tmp_path: Path) -> None:
    seen: list[str] = []
    bench = Bench(tmp_path / "counted.db", on_statement=lambda sql, _seconds: seen.append(sql)).begin()
    seen.clear()
    store(bench, *[delivery(number) for number in range(100)])
    bench.db.close()
    assert len(seen) < 100 + 15


# -- reading and sweeping ----------------------------------------------------------------------------


def test_deliveries_are_listed_newest_first_and_in_pages(bench: Bench) -> None:
    store(bench, *[delivery(number, status=IGNORED, action="edited", reason="why") for number in range(1, 6)])
    first = bench.history.deliveries(before_id=None, limit=2)
    assert [one.guid for one in first] == ["guid-5", "guid-4"]
    rest = bench.history.deliveries(before_id=first[-1].id, limit=9)
    assert [one.guid for one in rest] == ["guid-3", "guid-2", "guid-1"]
    assert (rest[0].action, rest[0].reason, rest[0].received_at, rest[0].attempts) == ("edited", "why", NOW, 1)


def test_runs_are_listed_newest_first_by_repository_and_branch(bench: Bench) -> None:
    bench.repositories.track([rule("octo/data"), rule("octo/more")], now=NOW)
    for branch in (1, 2, 1):
        bench.want(branch=branch)
        claim = bench.claim()
        assert claim is not None
        bench.apply(change(f"of {branch}"), claim=claim)
    everything = bench.history.runs(repository_id=None, before_id=None, limit=9)
    assert [run.repository for run in everything] == ["octo/data", "octo/more", "octo/data"]
    assert [run.id for run in bench.history.runs(repository_id=1, before_id=None, limit=9)] == [3, 1]
    assert [run.id for run in bench.history.runs(branch_id=1, before_id=3, limit=9)] == [1]
    assert bench.history.run(99) is None


def test_a_run_follows_its_repository_to_its_new_name(bench: Bench) -> None:
    bench.apply(change("one"))
    bench.repositories.identify(1, remote("Octo/Renamed"), now=NOW)
    assert bench.history.runs(before_id=None, limit=1)[0].repository == "Octo/Renamed"


def test_old_deliveries_go_but_never_one_that_waits_for_its_sync(bench: Bench) -> None:
    store(
        bench, delivery(1, status=IGNORED), delivery(2), delivery(3), delivery(4, status=IGNORED, received_at=later(50))
    )
    claim = bench.claim()
    assert claim is not None
    bench.apply(change("head 2"), claim=claim, served=(2,), now=later(60))
    assert bench.history.sweep(now=later(1000), delivery_retention_seconds=1000) == 0
    assert bench.history.sweep(now=later(1000), delivery_retention_seconds=960) == 2
    assert [row[0] for row in stored(bench)] == ["guid-3", "guid-4"]
    assert bench.history.sweep(now=later(2000), delivery_retention_seconds=1) == 1
    assert [row[0] for row in stored(bench)] == ["guid-3"]


def test_a_swept_delivery_id_is_never_used_again(bench: Bench) -> None:
    store(bench, delivery(1, status=IGNORED))
    bench.history.sweep(now=later(1000), delivery_retention_seconds=1)
    store(bench, delivery(2, status=IGNORED))
    assert bench.history.deliveries(before_id=None, limit=1)[0].id == 2


def test_a_clock_that_jumped_back_sweeps_nothing(bench: Bench) -> None:
    store(bench, delivery(1, status=IGNORED))
    assert bench.history.sweep(now=later(-(10**6)), delivery_retention_seconds=1000) == 0


def test_a_delivery_stamped_before_the_clock_was_set_is_as_old_as_the_next_one(bench: Bench) -> None:
    wrong = datetime(1970, 1, 2, tzinfo=UTC)
    store(bench, delivery(1, status=IGNORED, received_at=wrong), delivery(2, status=IGNORED))
    assert bench.history.sweep(now=later(500), delivery_retention_seconds=1000) == 0
    assert bench.history.sweep(now=later(2000), delivery_retention_seconds=1000) == 2


def test_only_the_newest_runs_are_kept_and_those_that_readers_need(bench: Bench) -> None:
    for number in range(6):
        claim = bench.claimed(Trigger.MANUAL)
        bench.jobs.finished(claim, result(Outcome.UNCHANGED), now=NOW, record=True, served=(), head=None)
        if number == 2:
            bench.apply(change("one"))
    bench.history.sweep(now=NOW, delivery_retention_seconds=1000, run_keep=2)
    kept = bench.history.runs(before_id=None, limit=99)
    assert [run.outcome for run in kept] == ["unchanged", "unchanged", "updated"]
