from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from daemon.clock import Clock
from daemon.errors import Paced, RateLimited, Unauthorized
from daemon.github.governor import Governor
from daemon.model import BudgetRecord

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)


@dataclass
class Hands:
    """A clock that a test turns by hand; the wall clock can jump alone."""

    seconds: float = 1000.0
    jump: float = 0.0
    clock: Clock = field(init=False)

    def __post_init__(self) -> None:
        self.clock = Clock(now=self.now, monotonic=lambda: self.seconds, sleep=self.advance)

    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.seconds - 1000.0 + self.jump)

    def advance(self, seconds: float) -> None:
        self.seconds += seconds


@pytest.fixture
def hands() -> Hands:
    return Hands()


@pytest.fixture
def governor(hands: Hands) -> Governor:
    return Governor(hands.clock, jitter=lambda: 0.0)


def numbers(limit: int, remaining: int, reset: float) -> dict[str, str]:
    return {
        "x-ratelimit-limit": str(limit),
        "x-ratelimit-remaining": str(remaining),
        "x-ratelimit-reset": str(int(NOW.timestamp() + reset)),
    }


def test_a_limit_found_by_one_stops_everyone_and_every_resource(governor: Governor, hands: Hands) -> None:
    mark = governor.use("token")
    limited = governor.observe("core", mark, status=403, headers={"retry-after": "60"})
    assert limited is not None
    assert limited.until == NOW + timedelta(seconds=60)
    for resource in ("core", "graphql"):
        with pytest.raises(RateLimited) as raised:
            governor.check(resource, mark)
        assert raised.value.until == NOW + timedelta(seconds=60)
    hands.advance(60.0)
    governor.check("core", mark)


def test_a_used_up_budget_stops_its_own_resource_only(governor: Governor) -> None:
    mark = governor.use("token")
    assert governor.observe("core", mark, status=200, headers=numbers(5000, 0, 600)) is None
    governor.check("graphql", mark)
    with pytest.raises(RateLimited):
        governor.check("core", mark)


def test_the_header_names_the_resource_that_counts(governor: Governor) -> None:
    mark = governor.use("token")
    headers = numbers(5000, 0, 600) | {"x-ratelimit-resource": "graphql"}
    governor.observe("core", mark, status=200, headers=headers)
    governor.check("core", mark)
    assert set(governor.snapshot()["resources"]) == {"graphql"}


def test_a_resource_nobody_knows_is_not_remembered_under_its_own_name(governor: Governor) -> None:
    mark = governor.use("token")
    governor.observe("core", mark, status=200, headers=numbers(5000, 10, 600) | {"x-ratelimit-resource": "x" * 99})
    assert set(governor.snapshot()["resources"]) == {"core"}


def test_polling_leaves_the_last_fifth_to_deliveries_until_the_reset(governor: Governor, hands: Hands) -> None:
    mark = governor.use("token")
    governor.observe("core", mark, status=200, headers=numbers(5000, 1000, 600))
    governor.check("core", mark)
    with pytest.raises(RateLimited) as raised:
        governor.check("core", mark, background=True)
    assert raised.value.until == NOW + timedelta(seconds=601)
    hands.advance(601.0)
    governor.check("core", mark, background=True)


def test_polling_goes_on_above_the_reserve(governor: Governor) -> None:
    mark = governor.use("token")
    governor.observe("core", mark, status=200, headers=numbers(5000, 1001, 600))
    governor.check("core", mark, background=True)


def test_limits_without_headers_double_until_a_good_answer(governor: Governor, hands: Hands) -> None:
    mark = governor.use("token")
    message = "You have exceeded a secondary rate limit"
    waits = []
    for _ in range(3):
        limited = governor.observe("core", mark, status=403, headers={}, message=message)
        assert limited is not None
        waits.append((limited.until - hands.now()).total_seconds())
        hands.advance(waits[-1])
    governor.observe("core", mark, status=200, headers={})
    limited = governor.observe("core", mark, status=403, headers={}, message=message)
    assert limited is not None
    assert (*waits, (limited.until - hands.now()).total_seconds()) == (60, 120, 240, 60)


def test_another_token_lifts_a_pause_and_forgets_the_numbers(governor: Governor) -> None:
    mark = governor.use("old")
    governor.observe("core", mark, status=429, headers={"retry-after": "3600"} | numbers(5000, 0, 600))
    governor.check("core", governor.use("new"), background=True)
    assert governor.snapshot() == {"paused_until": None, "resources": {}}


def test_a_late_answer_to_the_old_token_does_not_stop_the_new_one(governor: Governor) -> None:
    old = governor.use("old")
    new = governor.use("new")
    assert governor.observe("core", old, status=429, headers={"retry-after": "60"}) is not None
    governor.check("core", new)


def test_a_refused_token_is_not_hammered_for_a_minute_and_a_new_one_is_tried_at_once(
    governor: Governor, hands: Hands
) -> None:
    mark = governor.use("revoked")
    hands.advance(3600.0)
    governor.observe("core", mark, status=401, headers={})
    hands.advance(59.0)
    governor.use("revoked")
    with pytest.raises(Unauthorized):
        governor.check("core", mark)
    hands.advance(1.0)
    governor.check("core", mark)
    governor.observe("core", mark, status=401, headers={})
    governor.check("core", governor.use("new"))


def test_a_fresh_token_that_is_refused_is_tried_again_after_seconds(governor: Governor, hands: Hands) -> None:
    mark = governor.use("fresh")
    governor.observe("core", mark, status=401, headers={})
    with pytest.raises(Unauthorized):
        governor.check("core", mark)
    hands.advance(5.0)
    governor.check("core", mark)


def test_a_limit_of_one_account_stops_no_other_whatever_tokens_they_have(governor: Governor) -> None:
    one, other = governor.use("a", account="installation 1"), governor.use("b", account="installation 2")
    limited = governor.observe("core", one, status=403, headers={"retry-after": "60"})
    assert "(core of installation 1, 403)" in str(limited)
    governor.observe("graphql", other, status=200, headers=numbers(5000, 900, 600))
    assert governor.use("a-new-token", account="installation 1") == one
    with pytest.raises(RateLimited, match="core of installation 1"):
        governor.check("core", one)
    governor.check("core", other)
    with pytest.raises(RateLimited):
        governor.check("graphql", other, background=True)


def test_an_account_that_is_refused_stops_no_other(governor: Governor) -> None:
    one, other = governor.use("a", account="installation 1"), governor.use("b", account="installation 2")
    governor.observe("core", one, status=401, headers={})
    with pytest.raises(Unauthorized, match="refused installation 1"):
        governor.check("core", one)
    governor.check("core", other)


def test_status_shows_every_account_and_first_of_all_the_most_exhausted(governor: Governor) -> None:
    for name, remaining in (("installation 1", 4000), ("installation 2", 100), ("installation 3", 5000)):
        governor.observe("core", governor.use("x", account=name), status=200, headers=numbers(5000, remaining, 600))
    shown = governor.snapshot()
    assert shown["resources"]["core"]["remaining"] == 100
    assert {name: one["resources"]["core"]["remaining"] for name, one in shown["accounts"].items()} == {
        "installation 1": 4000,
        "installation 2": 100,
        "installation 3": 5000,
    }
    governor.observe("core", "installation 3", status=429, headers={"retry-after": "60"})
    assert governor.snapshot()["paused_until"] == NOW + timedelta(seconds=60)


def test_a_plain_token_takes_the_place_of_all_accounts_and_an_account_that_of_a_token(governor: Governor) -> None:
    governor.observe("core", governor.use("x", account="installation 1"), status=429, headers=numbers(5000, 0, 600))
    governor.use("token")
    assert governor.snapshot() == {"paused_until": None, "resources": {}}
    governor.use("x", account="installation 1")
    assert set(governor.snapshot()["accounts"]) == {"installation 1"}


def test_a_jump_of_the_wall_clock_does_not_change_a_pause(governor: Governor, hands: Hands) -> None:
    mark = governor.use("token")
    governor.observe("core", mark, status=429, headers={"retry-after": "60"})
    hands.jump = 86400.0
    with pytest.raises(RateLimited) as raised:
        governor.check("core", mark)
    assert raised.value.until == NOW + timedelta(seconds=60, days=1)


def test_the_download_hosts_limits_do_not_stop_the_api(governor: Governor) -> None:
    mark = governor.use("token")
    assert governor.observe("downloads", mark, status=429, headers={"retry-after": "60"}) is not None
    governor.check("core", mark)
    with pytest.raises(RateLimited):
        governor.check("downloads", mark)


def test_status_shows_what_is_left_and_a_full_budget_after_the_reset(governor: Governor, hands: Hands) -> None:
    mark = governor.use("token")
    governor.observe("core", mark, status=200, headers=numbers(5000, 4321, 600))
    assert governor.snapshot() == {
        "paused_until": None,
        "resources": {
            "core": {
                "limit": 5000,
                "remaining": 4321,
                "reset_at": NOW + timedelta(seconds=601),
                "paused_until": None,
            }
        },
    }
    hands.advance(700.0)
    assert governor.snapshot()["resources"]["core"]["remaining"] == 5000


# -- the pace of polling ----------------------------------------------------------------------------


def poll(governor: Governor, mark: str, remaining: int, reset: float, *, limit: int = 60, status: int = 200) -> None:
    headers = numbers(limit, remaining, reset)
    governor.observe("core", mark, status=status, headers=headers, background=True)


def test_polling_may_be_a_tenth_of_the_time_ahead_and_then_waits_its_turn(governor: Governor, hands: Hands) -> None:
    mark = governor.use(None)
    for used in range(1, 6):
        governor.check_turn("core", mark)
        poll(governor, mark, 60 - used, 3600)
    with pytest.raises(Paced) as raised:
        governor.check_turn("core", mark)
    assert 0 < (raised.value.until - NOW).total_seconds() < 90
    governor.check_turn("graphql", mark)
    governor.check("core", mark, background=True)  # a look that has begun is not given up
    hands.advance(90)
    governor.check_turn("core", mark)


def test_what_others_have_left_of_a_budget_is_spread_too(governor: Governor, hands: Hands) -> None:
    mark, asked, remaining = governor.use("token"), [], 1100
    while hands.seconds < 4500:
        try:
            governor.check_turn("core", mark)
        except Paced:
            hands.advance(10)
            continue
        remaining -= 1
        asked.append(hands.seconds)
        poll(governor, mark, remaining, 4600 - 1000, limit=5000)
    assert 80 <= len(asked) <= 100  # of the hundred that are not the deliveries'
    assert max(after - before for before, after in itertools.pairwise(asked)) <= 60


def test_a_turn_is_never_after_the_reset(governor: Governor, hands: Hands) -> None:
    mark = governor.use(None)
    for _ in range(20):
        poll(governor, mark, 13, 600)
    with pytest.raises(Paced) as raised:
        governor.check_turn("core", mark)
    assert raised.value.until <= NOW + timedelta(seconds=601)
    hands.advance(601)
    governor.check_turn("core", mark)
    poll(governor, mark, 59, 4200)
    governor.check_turn("core", mark)  # what the old window owed is no debt of the new one


def test_what_is_not_modified_takes_no_turn_with_a_token_and_one_without(governor: Governor) -> None:
    mark = governor.use("token")
    for _ in range(99):
        poll(governor, mark, 13, 3600, status=304)
    governor.check_turn("core", mark)
    mark = governor.use(None)
    for _ in range(9):
        poll(governor, mark, 13, 3600, status=304)
    with pytest.raises(Paced):
        governor.check_turn("core", mark)


def test_work_for_deliveries_takes_no_turns(governor: Governor) -> None:
    mark = governor.use(None)
    for _ in range(99):
        governor.observe("core", mark, status=200, headers=numbers(60, 13, 3600))
    governor.check_turn("core", mark)


@pytest.mark.parametrize(("remaining", "reset", "spare"), [(4990, 3599, True), (4000, 3000, False), (3800, 1800, True)])
def test_there_is_spare_budget_while_less_than_half_an_even_share_is_spent(
    governor: Governor, remaining: int, reset: float, spare: bool
) -> None:
    mark = governor.use("token")
    assert governor.has_spare("core", mark)  # nothing is known of a limit
    poll(governor, mark, remaining, reset, limit=5000)
    assert governor.has_spare("core", mark) == spare


# -- written down -----------------------------------------------------------------------------------


def test_another_governor_goes_on_with_the_pauses_and_the_numbers_of_the_first(hands: Hands) -> None:
    first, second = Governor(hands.clock), Governor(hands.clock)
    mark = first.use("token")
    first.observe("core", mark, status=200, headers=numbers(5000, 17, 600))
    first.observe("graphql", mark, status=403, headers={"retry-after": "60"})
    second.hear(first.records())
    second.check("core", second.use("other"), background=True)
    second.use("token")
    with pytest.raises(RateLimited) as raised:
        second.check("core", mark)
    assert raised.value.until == NOW + timedelta(seconds=60)
    hands.advance(61.0)
    second.check("core", mark)
    with pytest.raises(RateLimited, match="17 of 5000"):
        second.check("core", mark, background=True)
    assert second.records()[1:] == first.records()[1:]


def test_each_account_of_an_app_goes_on_with_its_own(hands: Hands) -> None:
    first, second = Governor(hands.clock), Governor(hands.clock)
    for account, after in (("installation 1", "60"), ("installation 2", "90")):
        mark = first.use("token of an hour", account=account)
        first.observe("core", mark, status=429, headers={"retry-after": after})
    second.hear(first.records())
    for account, seconds in (("installation 1", 60), ("installation 2", 90)):
        mark = second.use("token of the next hour", account=account)
        with pytest.raises(RateLimited) as raised:
            second.check("core", mark)
        assert raised.value.until == NOW + timedelta(seconds=seconds)


def test_what_is_known_here_is_newer_than_what_was_written_in_the_same_window(hands: Hands) -> None:
    first, second = Governor(hands.clock), Governor(hands.clock)
    for governor, remaining in ((first, 4000), (second, 3000)):
        governor.observe("core", governor.use("token"), status=200, headers=numbers(5000, remaining, 600))
    second.hear(first.records())
    assert second.snapshot()["resources"]["core"]["remaining"] == 3000
    first.observe("core", first.use("token"), status=200, headers=numbers(5000, 4999, 3600))
    second.hear(first.records())
    assert second.snapshot()["resources"]["core"]["remaining"] == 4999


def test_a_record_from_the_far_future_pauses_nothing(hands: Hands) -> None:
    governor = Governor(hands.clock)
    mark = governor.use("token")
    governor.hear([BudgetRecord(mark, "", None, None, None, NOW + timedelta(days=300))])
    governor.check("core", mark)


def test_a_pause_is_told_at_once_and_outside_the_lock(hands: Hands) -> None:
    told: list[list[BudgetRecord]] = []
    governor = Governor(hands.clock, on_pause=lambda: told.append(governor.records()))
    mark = governor.use("token")
    governor.observe("core", mark, status=200, headers=numbers(5000, 17, 600))
    assert told == []
    governor.observe("core", mark, status=429, headers={"retry-after": "60"})
    assert told[0][0] == BudgetRecord(mark, "", None, None, None, NOW + timedelta(seconds=60))
