from __future__ import annotations

import time

import pytest

from daemon.web.sessions import AGE_SECONDS, COOKIE, MOST_SESSIONS, MOST_SOURCES, Brake, Sessions

TOKEN = "correct-horse"


class Time:
    """A monotonic clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Time()


@pytest.fixture
def sessions(clock):
    return Sessions(clock)


def cookie(value: str) -> list[str]:
    return [f"theme=dark; {COOKIE}={value}; other=1"]


def test_a_session_is_held_by_its_cookie_and_the_cookie_is_not_the_token(sessions):
    value = sessions.open(TOKEN)
    assert TOKEN not in value
    assert sessions.holds(cookie(value), TOKEN)
    assert sessions.open(TOKEN) != value


def test_a_session_ends_by_age(sessions, clock):
    value = sessions.open(TOKEN)
    clock.now += AGE_SECONDS - 1
    assert sessions.holds(cookie(value), TOKEN)
    clock.now += 1
    assert not sessions.holds(cookie(value), TOKEN)


def test_a_session_ends_with_the_token_that_opened_it(sessions):
    value = sessions.open(TOKEN)
    assert not sessions.holds(cookie(value), "another-token")


def test_a_session_that_was_closed_cannot_be_replayed(sessions):
    value, other = sessions.open(TOKEN), sessions.open(TOKEN)
    sessions.close(cookie(value))
    assert not sessions.holds(cookie(value), TOKEN)
    assert sessions.holds(cookie(other), TOKEN)


def test_a_restart_ends_all_of_them(sessions):
    assert not Sessions().holds(cookie(sessions.open(TOKEN)), TOKEN)


@pytest.mark.parametrize(
    "header", ["", COOKIE, f"{COOKIE}=", f"{COOKIE}=short", f"x{COOKIE}=" + "a" * 43, '"' * 60_000]
)
def test_what_is_no_session_holds_none(sessions, header):
    assert not sessions.holds([header], TOKEN)


def test_a_tampered_cookie_holds_none(sessions):
    value = sessions.open(TOKEN)
    assert not sessions.holds(cookie(("b" if value[0] == "a" else "a") + value[1:]), TOKEN)


def test_an_endless_cookie_header_costs_next_to_nothing(sessions):
    started = time.thread_time()
    for hostile in ('"' * 60_000, "; " * 30_000, f"{COOKIE}=" * 3_000, ";" * 60_000):
        sessions.holds([hostile], TOKEN)
    assert time.thread_time() - started < 1  # quadratic it would be minutes


def test_sessions_are_bounded(sessions):
    first = sessions.open(TOKEN)
    for _ in range(MOST_SESSIONS):
        last = sessions.open(TOKEN)
    assert not sessions.holds(cookie(first), TOKEN)
    assert sessions.holds(cookie(last), TOKEN)


def test_one_source_is_slowed_down_and_others_are_not(clock):
    brake = Brake(clock)
    assert [brake.wait_seconds("a") for _ in range(5)] == [0] * 5
    assert brake.wait_seconds("a") == 10
    assert brake.wait_seconds("b") == 0
    clock.now += 10
    assert brake.wait_seconds("a") == 0
    assert brake.wait_seconds("a") > 0


def test_many_sources_together_are_slowed_down(clock):
    brake = Brake(clock)
    waits = [brake.wait_seconds(str(number)) for number in range(40)]
    assert waits.count(0) == 30
    clock.now += 2
    assert [bool(brake.wait_seconds(f"late{number}")) for number in range(3)] == [False, False, True]


def test_right_tokens_are_not_counted(clock):
    brake = Brake(clock)
    for _ in range(100):
        assert brake.wait_seconds("a") == 0
        brake.give_back("a")


def test_what_is_remembered_of_sources_is_bounded(clock):
    brake = Brake(clock)
    for number in range(MOST_SOURCES + 10):
        brake.wait_seconds(str(number))
    assert len(brake._sources) == MOST_SOURCES
