"""How triggers meet in a job."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from daemon.model import Trigger
from daemon.store.fields import instant_text
from daemon.store.wishes import FIRST, LATER, LONGEST_BURST, QUIET, Wish

NOW = datetime(2026, 11, 23, 21, 40, tzinfo=UTC)
URGENT = (Trigger.WEBHOOK, Trigger.MANUAL, Trigger.AUDIT)
PATIENT = (Trigger.POLL, Trigger.STARTUP, Trigger.RECOVERY)


def wish(**values: Any) -> Wish:
    start: dict[str, Any] = {
        "job_id": 1, "branch_id": 1, "wanted": 0, "done": 0, "claimed": 0, "priority": LATER, "asked": [],
        "wanted_at": None, "run_after": None, "attempts": 0, "parked": False, "leased": False,
    }  # fmt: skip
    return Wish(**(start | values))


def names(one: Wish) -> list[str]:
    return [asked.trigger for asked in one.asked]


def running(one: Wish) -> Wish:
    one.claim(NOW)
    one.leased = True
    return one


@pytest.mark.parametrize("trigger", list(Trigger))
def test_any_trigger_wakes_an_idle_job(trigger: Trigger) -> None:
    one = wish()
    assert one.ask(trigger, NOW)
    assert (one.wanted, one.done, names(one)) == (1, 0, [trigger.value])
    assert one.wanted_at == instant_text(NOW)


@pytest.mark.parametrize("trigger", URGENT)
def test_a_push_or_a_person_goes_first_and_waits_for_nothing(trigger: Trigger) -> None:
    one = wish(run_after=instant_text(NOW + timedelta(hours=1)))
    one.ask(trigger, NOW)
    soon = instant_text(NOW + QUIET)  # a push may be one of many; a person is not
    assert (one.priority, one.run_after) == (FIRST, soon if trigger is Trigger.WEBHOOK else None)


def test_a_single_push_after_a_run_that_brought_news_waits_for_nothing() -> None:
    one = wish()
    one.ask(Trigger.WEBHOOK, NOW)
    assert one.run_after is None
    one.claim(NOW)
    one.serve(one.claimed, NOW, news=True)
    one.ask(Trigger.WEBHOOK, NOW)
    assert one.run_after is None


def test_a_burst_is_taken_up_after_a_quiet_moment_but_not_put_off_without_end() -> None:
    one = wish()
    one.ask(Trigger.WEBHOOK, NOW)
    one.claim(NOW)
    seen = one.claimed
    one.ask(Trigger.WEBHOOK, NOW)
    one.serve(seen, NOW, news=True)
    assert one.run_after == instant_text(NOW + QUIET)
    for step in range(1, 40):
        one.ask(Trigger.WEBHOOK, NOW + step * QUIET / 2)
        assert one.run_after is None or one.run_after <= instant_text(NOW + LONGEST_BURST)


def test_deliveries_that_bring_no_news_are_gathered() -> None:
    one = wish()
    one.ask(Trigger.WEBHOOK, NOW)
    one.claim(NOW)
    one.serve(one.claimed, NOW, news=False)
    one.ask(Trigger.WEBHOOK, NOW + QUIET / 5)
    assert one.run_after == instant_text(NOW + QUIET)
    one.ask(Trigger.WEBHOOK, NOW + QUIET / 2)
    assert one.run_after == instant_text(NOW + QUIET / 2 + QUIET)


def test_a_person_ends_the_quiet_moment() -> None:
    one = wish()
    one.ask(Trigger.WEBHOOK, NOW)
    one.claim(NOW)
    one.serve(one.claimed, NOW, news=False)
    one.ask(Trigger.WEBHOOK, NOW)
    one.ask(Trigger.MANUAL, NOW)
    assert one.run_after is None


@pytest.mark.parametrize("trigger", PATIENT)
def test_a_poll_does_not_hurry_what_waits_already(trigger: Trigger) -> None:
    at = instant_text(NOW + timedelta(hours=1))
    one = wish()
    one.ask(Trigger.WEBHOOK, NOW)
    one.run_after = at
    assert not one.ask(trigger, NOW)
    assert (one.wanted, one.run_after) == (1, at)


def test_a_thousand_pushes_during_a_run_ask_for_one_more_run() -> None:
    one = wish()
    one.ask(Trigger.WEBHOOK, NOW)
    running(one)
    for _ in range(1000):
        one.ask(Trigger.WEBHOOK, NOW)
    assert names(one) == ["webhook", "webhook"]
    one.serve(one.claimed, NOW, news=True)
    assert one.waits
    running(one).serve(one.claimed, NOW, news=True)
    assert not one.waits


def test_polls_during_a_run_ask_for_one_more_generation_only() -> None:
    one = wish()
    one.ask(Trigger.POLL, NOW)
    running(one)
    assert one.ask(Trigger.POLL, NOW)
    assert not one.ask(Trigger.POLL, NOW)
    assert one.wanted == 2


def test_what_came_during_a_run_waits_since_it_came() -> None:
    one = wish()
    one.ask(Trigger.POLL, NOW)
    running(one)
    one.ask(Trigger.WEBHOOK, NOW + timedelta(seconds=3))
    one.serve(one.claimed, NOW + timedelta(seconds=9), news=True)
    assert (one.wanted_at, one.priority, names(one)) == (instant_text(NOW + timedelta(seconds=3)), FIRST, ["webhook"])


def test_a_served_wish_is_idle() -> None:
    one = wish()
    one.ask(Trigger.MANUAL, NOW)
    running(one).serve(one.claimed, NOW, news=True)
    assert (one.waits, one.wanted_at, one.priority, one.asked, one.attempts) == (False, None, LATER, [], 0)


def test_serving_less_than_was_claimed_keeps_the_wish_and_its_triggers() -> None:
    one = wish()
    one.ask(Trigger.WEBHOOK, NOW)
    running(one).serve(one.claimed - 1, NOW, news=True)
    assert (one.done, one.wanted, names(one)) == (0, 1, ["webhook"])


def test_done_never_goes_back() -> None:
    one = wish(wanted=5, done=4, claimed=5)
    one.serve(2, NOW, news=True)
    assert one.done == 4


def test_triggers_of_a_claim_are_told_once_in_the_order_they_came() -> None:
    one = wish()
    for trigger in (Trigger.POLL, Trigger.WEBHOOK, Trigger.POLL):
        one.ask(trigger, NOW)
    running(one)
    one.ask(Trigger.WEBHOOK, NOW)
    one.leased = False
    one.claim(NOW)
    assert names(one) == ["poll", "webhook"]


@pytest.mark.parametrize("trigger", URGENT)
def test_a_push_revives_a_parked_job_with_all_its_attempts(trigger: Trigger) -> None:
    one = wish(wanted=1, claimed=1, attempts=8, parked=True)
    assert one.ask(trigger, NOW)
    assert (one.parked, one.attempts) == (False, 0)


@pytest.mark.parametrize("trigger", PATIENT)
def test_a_poll_revives_a_parked_job_for_one_more_try(trigger: Trigger) -> None:
    one = wish(wanted=1, claimed=1, attempts=8, parked=True)
    assert one.ask(trigger, NOW)
    assert (one.parked, one.attempts, one.wanted) == (False, 7, 1)


def test_what_is_parked_rests_from_polls_for_half_as_long_as_it_has_been_failing() -> None:
    one = wish(wanted=1, claimed=1, attempts=8, wanted_at=instant_text(NOW - timedelta(minutes=20)))
    one.park(NOW)
    assert not one.ask(Trigger.POLL, NOW + timedelta(minutes=9))
    assert one.parked
    assert one.ask(Trigger.POLL, NOW + timedelta(minutes=10))
    assert not one.parked


@pytest.mark.parametrize("trigger", [trigger for trigger in Trigger if trigger is not Trigger.POLL])
def test_a_rest_is_for_polls_only(trigger: Trigger) -> None:
    one = wish(wanted=1, claimed=1, attempts=8, wanted_at=instant_text(NOW - timedelta(days=9)))
    one.park(NOW)
    assert one.run_after == instant_text(NOW + timedelta(hours=1))
    assert one.ask(trigger, NOW)
    assert (one.parked, one.run_after) == (False, None)


def test_a_wall_clock_that_jumped_back_ends_a_rest() -> None:
    one = wish(wanted=1, claimed=1, attempts=8, wanted_at=instant_text(NOW - timedelta(days=9)))
    one.park(NOW)
    assert one.ask(Trigger.POLL, NOW - timedelta(days=1))


def test_a_claim_without_any_trigger_still_has_a_name() -> None:
    one = wish(wanted=1)
    one.claim(NOW)
    assert names(one) == ["recovery"]
