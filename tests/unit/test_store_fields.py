"""How values are written down."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.store.fields import display_path, instant_text, instant_value, plain

INSTANTS = st.datetimes(timezones=st.just(UTC))


def test_an_instant_is_written_in_utc_with_six_digits() -> None:
    there = datetime(2026, 11, 23, 22, 40, 41, tzinfo=timezone(timedelta(hours=1)))
    assert instant_text(there) == "2026-11-23T21:40:41.000000Z"


@given(INSTANTS)
def test_an_instant_comes_back_as_it_was(value: datetime) -> None:
    assert instant_value(instant_text(value)) == value
    assert instant_value(instant_text(value)).tzinfo is UTC


@given(INSTANTS, INSTANTS)
def test_instants_sort_as_text(one: datetime, other: datetime) -> None:
    assert (instant_text(one) < instant_text(other)) == (one < other)


def test_an_instant_without_a_time_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        instant_text(datetime(2026, 11, 23))  # noqa: DTZ001


@given(st.text(st.characters()))
def test_any_text_becomes_storable(text: str) -> None:
    stored = plain(text)
    assert stored.encode() is not None
    assert "\0" not in stored
    assert len(stored) == len(text)


def test_ordinary_text_is_stored_as_it_is() -> None:
    assert plain("día 日 \U0001f600\n") == "día 日 \U0001f600\n"


def test_a_path_that_is_not_utf8_is_shown_with_replacement_characters() -> None:
    assert display_path(b"caf\xe9/\xff") == "caf\ufffd/\ufffd"
