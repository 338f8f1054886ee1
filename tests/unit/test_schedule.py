from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.config import PollingSettings
from daemon.model import WebhookHealth
from daemon.triggers import schedule
from daemon.triggers.schedule import (
    EAGERNESS,
    ahead_seconds,
    grace_seconds,
    next_poll_at,
    promised_seconds,
    retry_at,
    tick_seconds,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


@dataclass(frozen=True)
class Look:
    """A repository that is looked at in its turn and never changed."""

    repository_id: int = 1
    health: WebhookHealth = WebhookHealth.UNKNOWN
    archived: bool = False
    changed_at: datetime | None = None
    polled_at: datetime | None = NOW - timedelta(seconds=51)
    due_at: datetime | None = NOW
    put_off: bool = False


IN_TURN = Look()
OUT_OF_TURN = [
    replace(IN_TURN, due_at=None),  # after a start or a reload
    replace(IN_TURN, polled_at=None),  # never looked at
    replace(IN_TURN, put_off=True),  # after an outage or a limit
    replace(IN_TURN, due_at=ago(600)),  # after a sleep
    replace(IN_TURN, polled_at=NOW + timedelta(hours=1)),  # the clock has jumped back
]


def polling(interval: float = 60.0, reconcile: float = 900.0) -> PollingSettings:
    return PollingSettings(
        enabled=True, interval_seconds=interval, reconcile_interval_seconds=reconcile, batch_size=100
    )


def wait(look: Look, settings: PollingSettings | None = None, **how: object) -> float:
    return (next_poll_at(NOW, look, settings or polling(), **how) - NOW).total_seconds()


@pytest.mark.parametrize(
    ("health", "seconds"), [(WebhookHealth.UNKNOWN, 60), (WebhookHealth.MISSING, 60), (WebhookHealth.HEALTHY, 900)]
)
def test_only_webhooks_known_to_work_earn_the_long_interval(health: WebhookHealth, seconds: float) -> None:
    assert promised_seconds(health, polling()) == seconds
    assert wait(Look(health=health)) == EAGERNESS * seconds


@pytest.mark.parametrize("health", list(WebhookHealth))
def test_what_is_archived_cannot_change_and_is_asked_for_at_the_long_interval(health: WebhookHealth) -> None:
    assert promised_seconds(health, polling(), archived=True) == 900
    assert wait(Look(health=health, archived=True)) == EAGERNESS * 900


@given(
    st.builds(
        Look,
        repository_id=st.integers(1, 10**6),
        health=st.sampled_from(WebhookHealth),
        archived=st.booleans(),
        changed_at=st.none() | st.floats(-1e6, 1e6).map(ago),
        polled_at=st.none() | st.floats(-1e6, 1e6).map(ago),
        due_at=st.none() | st.floats(-1e6, 1e6).map(ago),
        put_off=st.booleans(),
    ),
    st.sampled_from([1.0, 2.0, 5.0, 60.0, 3600.0]),
    st.integers(0, 10_000),
    st.booleans(),
    st.booleans(),
)
def test_the_next_look_and_its_tick_fit_into_the_promise(
    look: Look, interval: float, requests: int, changed: bool, spare: bool
) -> None:
    settings = polling(interval, interval * 10)
    due = wait(look, settings, requests=requests, changed=changed, spare=spare)
    assert 0 <= due + tick_seconds(settings) <= promised_seconds(look.health, settings, archived=look.archived)


# -- busy -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("age", "seconds"), [(0, 15), (29, 15), (40, 20), (100, 50), (103, 51), (10**6, 51)])
def test_with_spare_budget_a_busy_repository_is_due_after_half_the_time_since_it_changed(
    age: float, seconds: float
) -> None:
    look = replace(IN_TURN, changed_at=ago(age))
    assert wait(look, spare=True) == seconds
    assert wait(look) == 51


def test_a_change_that_the_look_has_found_counts_before_it_is_stored() -> None:
    assert wait(IN_TURN, changed=True, spare=True) == 15


def test_a_change_in_the_future_says_nothing() -> None:
    assert wait(replace(IN_TURN, changed_at=ago(-60)), spare=True) == 51


def test_no_repository_is_asked_for_more_often_than_every_few_seconds() -> None:
    assert wait(IN_TURN, polling(8), changed=True, spare=True) == 5
    assert wait(IN_TURN, polling(2), changed=True, spare=True) == EAGERNESS * 2


# -- spread -----------------------------------------------------------------------------------------


def test_a_look_in_its_turn_is_followed_by_the_next_a_whole_wait_later() -> None:
    assert wait(IN_TURN, requests=50) == 51
    assert wait(replace(IN_TURN, due_at=ago(12)), requests=50) == 51  # a slow tick is no sleep


@pytest.mark.parametrize("look", OUT_OF_TURN)
def test_looks_that_come_all_at_once_are_followed_by_looks_spread_over_the_wait(look: Look) -> None:
    waits = [wait(replace(look, repository_id=number), requests=50) for number in range(5000)]
    by_second = Counter(map(int, waits))
    assert max(by_second.values()) <= 0.05 * 5000
    assert max(waits) > 50
    assert len(by_second) >= 49


@pytest.mark.parametrize("look", OUT_OF_TURN)
def test_what_one_request_answers_stays_together(look: Look) -> None:
    assert {wait(replace(look, repository_id=number), requests=1) for number in range(100)} == {51}


def test_the_spread_is_another_one_at_another_time_and_the_same_at_the_same() -> None:
    look = OUT_OF_TURN[0]
    first, again = (next_poll_at(NOW, look, polling(), requests=50) for _ in range(2))
    other = next_poll_at(NOW + timedelta(seconds=1), look, polling(), requests=50)
    assert first == again != other - timedelta(seconds=1)


def test_a_request_takes_along_only_what_is_due_soon() -> None:
    assert ahead_seconds(polling(60)) == 9


def test_what_meets_by_chance_in_a_tick_goes_apart_unless_it_is_pressing() -> None:
    assert [schedule.calm_requests(count, 100) for count in (1, 1000, 5000, 10_000)] == [1, 1, 2, 5]
    assert not schedule.is_pressing(NOW, replace(IN_TURN, due_at=ago(2)), polling())
    assert schedule.is_pressing(NOW, replace(IN_TURN, due_at=ago(3)), polling())
    assert schedule.is_pressing(NOW, replace(IN_TURN, due_at=None), polling())
    assert schedule.is_pressing(NOW, replace(IN_TURN, put_off=True), polling())


@pytest.mark.parametrize("interval", [1.0, 2.0, 5.0, 60.0, 900.0])
def test_a_look_that_waits_for_the_next_tick_still_keeps_the_promise(interval: float) -> None:
    settings = polling(interval, interval)
    latest = EAGERNESS * interval + schedule.PRESSING_SHARE * interval + tick_seconds(settings)
    assert latest <= interval


# -- failures ---------------------------------------------------------------------------------------


def test_a_repository_that_keeps_failing_backs_off_to_an_hour() -> None:
    waits = [(retry_at(NOW, IN_TURN, polling(), failures=count) - NOW).total_seconds() for count in range(1, 40)]
    assert waits == sorted(waits)
    assert 0.8 * 51 <= waits[0] <= 51
    assert 0.8 * 3600 <= waits[-1] <= 3600


def test_what_failed_together_is_not_asked_for_together() -> None:
    waits = {retry_at(NOW, Look(repository_id=number), polling(), failures=5) for number in range(100)}
    assert len(waits) > 90


def test_the_grace_for_a_late_delivery_follows_the_interval_within_bounds() -> None:
    assert [grace_seconds(polling(interval)) for interval in (1.0, 10.0, 60.0)] == [2.0, 10.0, 30.0]
