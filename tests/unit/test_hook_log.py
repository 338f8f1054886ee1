"""What GitHub's delivery log means: pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from daemon.github.hooks import LoggedDelivery, by_guid
from daemon.triggers.recovery import NOT_HERE, Verdict, judge

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
SINCE, UNTIL = NOON, NOON + timedelta(minutes=10)


def sent(
    minute: float, guid: str = "a", *, status: str = "OK", event: str = "push", redelivery: bool = False
) -> LoggedDelivery:
    number = int(minute * 1000) + redelivery
    return LoggedDelivery(number, guid, event, NOON + timedelta(minutes=minute), redelivery, status, 0)


def judged(*log: LoggedDelivery, arrived: str = "", since: datetime | None = SINCE) -> Verdict:
    return judge(by_guid(log), set(arrived), since=since, until=UNTIL)


def test_an_empty_log_says_nothing() -> None:
    assert judged() == Verdict((), None, unsettled=False)


@pytest.mark.parametrize("status", ["timed out", "failed to connect to host", "Invalid HTTP Response: 403"])
def test_a_push_that_failed_and_is_not_here_was_missed_for_the_reason_github_gives(status: str) -> None:
    failed = sent(5, status=status)
    assert judged(failed) == Verdict((failed,), status, unsettled=False)


def test_what_timed_out_but_is_stored_here_was_not_missed() -> None:
    assert judged(sent(5, status="timed out"), arrived="a") == Verdict((), None, unsettled=False)


def test_what_was_delivered_elsewhere_was_missed() -> None:
    elsewhere = sent(5)
    assert judged(elsewhere) == Verdict((elsewhere,), NOT_HERE, unsettled=False)


def test_what_came_before_the_last_look_does_not_count_again() -> None:
    assert judged(sent(-5, status="timed out")) == Verdict((), "timed out", unsettled=False)
    assert judged(sent(-5)) == Verdict((), None, unsettled=False)


def test_a_redelivery_that_fails_as_well_is_not_another_missed_push() -> None:
    first, again = sent(-5, status="timed out"), sent(5, status="timed out", redelivery=True)
    assert judged(first, again).missed == ()
    assert judged(again).missed == ()
    assert judged(sent(4, status="timed out"), again).missed == (again,)


def test_a_redelivery_that_arrived_makes_good_what_failed() -> None:
    assert judged(sent(4, status="timed out"), sent(5, redelivery=True), arrived="a") == Verdict(
        (), None, unsettled=False
    )


def test_nothing_counts_the_first_time_but_the_newest_failure_is_told() -> None:
    verdict = judged(sent(4, "a", status="timed out"), sent(5, "b", status="gone"), since=None)
    assert verdict == Verdict((), "gone", unsettled=False)
    assert judged(sent(4), since=None).reason is None


def test_a_later_success_is_no_reason_to_complain_but_the_miss_counts() -> None:
    failed = sent(4, "a", status="timed out")
    assert judged(failed, sent(5, "b"), arrived="b") == Verdict((failed,), None, unsettled=False)


def test_a_ping_that_failed_is_a_reason_and_no_missed_push() -> None:
    assert judged(sent(5, event="ping", status="timed out")) == Verdict((), "timed out", unsettled=False)


def test_a_failure_too_young_to_judge_is_left_for_the_next_time() -> None:
    assert judged(sent(11, status="timed out")) == Verdict((), None, unsettled=True)
    assert judged(sent(11)) == Verdict((), None, unsettled=False)


def test_a_failure_without_a_word_still_has_a_reason() -> None:
    assert judged(sent(5, status="")).reason
