from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.github.limits import Budget, exhausted_wait, is_limited, limited_wait, read_budget, within_reserve

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
HOUR = 3600.0


def dated(at: datetime = NOW, **headers: str) -> dict[str, str]:
    return {"date": format_datetime(at, usegmt=True)} | {name.replace("_", "-"): v for name, v in headers.items()}


def epoch(seconds: float, at: datetime = NOW) -> str:
    return str(int(at.timestamp() + seconds))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("60", 60.0),
        ("0", 1.0),
        ("1000000000", HOUR),
        ("9" * 5000, HOUR),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", HOUR),
    ],
)
def test_a_retry_after_is_waited_and_capped_at_an_hour(value: str, seconds: float) -> None:
    wait = limited_wait(dated(retry_after=value), now=NOW, strikes=0)
    assert (wait.seconds, wait.everything, wait.explicit) == (seconds, True, True)


@pytest.mark.parametrize("value", ["-1", "1e9", "soon", "", "٣٠", "Thu, 01 Jan 1970 00:00:00 GMT", "Mon, 99 Foo"])
def test_a_retry_after_that_makes_no_sense_waits_a_minute(value: str) -> None:
    wait = limited_wait(dated(retry_after=value), now=NOW, strikes=0)
    assert (wait.seconds, wait.explicit) == (60.0, False)


def test_retry_after_goes_before_the_reset() -> None:
    headers = dated(retry_after="5", x_ratelimit_remaining="0", x_ratelimit_reset=epoch(300))
    assert limited_wait(headers, now=NOW, strikes=0).seconds == 5.0


def test_the_reset_is_counted_from_the_answers_date_and_not_from_our_clock() -> None:
    theirs = NOW + timedelta(days=400)
    headers = dated(theirs, x_ratelimit_remaining="0", x_ratelimit_reset=epoch(30, theirs))
    wait = limited_wait(headers, now=NOW, strikes=0)
    assert (wait.seconds, wait.everything) == (31.0, False)


def test_without_a_date_our_clock_has_to_do() -> None:
    headers = {"x-ratelimit-remaining": "0", "x-ratelimit-reset": epoch(30)}
    assert limited_wait(headers, now=NOW, strikes=0).seconds == 31.0


@pytest.mark.parametrize("reset", [None, epoch(-30), "-1", "garbage"])
def test_a_refusal_whose_reset_is_past_or_missing_waits_a_minute(reset: str | None) -> None:
    headers = dated(x_ratelimit_remaining="0") | ({"x-ratelimit-reset": reset} if reset else {})
    assert limited_wait(headers, now=NOW, strikes=0).seconds == 60.0


def test_a_reset_in_ten_years_is_waited_for_an_hour() -> None:
    headers = dated(x_ratelimit_remaining="0", x_ratelimit_reset=epoch(10 * 365 * 86400))
    assert limited_wait(headers, now=NOW, strikes=0).seconds == HOUR


def test_a_secondary_limit_without_headers_doubles_from_a_minute_to_an_hour_and_stops_everything() -> None:
    waits = [limited_wait(dated(), now=NOW, strikes=strikes) for strikes in range(9)]
    assert [wait.seconds for wait in waits] == [60, 120, 240, 480, 960, 1920, HOUR, HOUR, HOUR]
    assert all(wait.everything for wait in waits)


@settings(deadline=None)  # a busy machine is no finding
@given(
    st.dictionaries(
        st.sampled_from(["retry-after", "x-ratelimit-remaining", "x-ratelimit-reset", "x-ratelimit-limit", "date"]),
        st.text(max_size=40) | st.integers().map(str) | st.datetimes().map(str) | st.datetimes().map(format_datetime),
    ),
    st.integers(0, 10_000),
)
def test_whatever_the_headers_say_a_wait_is_between_a_second_and_an_hour(headers: dict[str, str], strikes: int) -> None:
    assert 1 <= limited_wait(headers, now=NOW, strikes=strikes).seconds <= HOUR
    budget = read_budget(headers, now=NOW)
    assert budget is None or 0 <= budget.remaining <= budget.limit


@pytest.mark.parametrize(
    ("status", "headers", "message", "limited"),
    [
        (429, {}, "", True),
        (403, {}, "You have exceeded a secondary rate limit", True),
        (403, {}, "You have triggered an abuse detection mechanism", True),
        (403, {"x-ratelimit-remaining": "0"}, "", True),
        (403, {"retry-after": "nonsense"}, "", True),
        (403, {"x-ratelimit-remaining": "12"}, "Resource not accessible by personal access token", False),
        (403, {}, "Repository access blocked", False),
        (200, {"x-ratelimit-remaining": "0"}, "", False),
        (404, {"x-ratelimit-remaining": "0"}, "rate limit", False),
        (503, {"retry-after": "5"}, "", False),
    ],
)
def test_a_limit_is_told_apart_from_a_missing_permission(
    status: int, headers: dict[str, str], message: str, limited: bool
) -> None:
    assert is_limited(status, headers, message) is limited


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-ratelimit-limit": "5000"},
        {"x-ratelimit-limit": "0", "x-ratelimit-remaining": "0"},
        {"x-ratelimit-limit": "-1", "x-ratelimit-remaining": "5"},
        {"x-ratelimit-limit": "many", "x-ratelimit-remaining": "few"},
    ],
)
def test_absent_or_senseless_headers_are_no_budget(headers: dict[str, str]) -> None:
    assert read_budget(headers, now=NOW) is None


def test_a_good_answer_that_used_the_last_request_pauses_until_the_reset() -> None:
    headers = dated(x_ratelimit_limit="60", x_ratelimit_remaining="0", x_ratelimit_reset=epoch(30))
    budget = read_budget(headers, now=NOW)
    assert budget == Budget(60, 0, 31.0)
    wait = exhausted_wait(budget)
    assert wait is not None
    assert wait.seconds == 31.0


def test_a_good_answer_at_zero_whose_window_is_over_does_not_pause() -> None:
    assert exhausted_wait(Budget(60, 0, -5.0)) is None
    assert exhausted_wait(Budget(60, 1, 30.0)) is None
    unknown = exhausted_wait(Budget(60, 0, None))
    assert unknown is not None
    assert unknown.seconds == 60.0


def test_the_reserve_is_the_last_fifth() -> None:
    assert within_reserve(Budget(5000, 1000, None))
    assert not within_reserve(Budget(5000, 1001, None))
