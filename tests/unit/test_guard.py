from __future__ import annotations

from datetime import UTC, datetime, timedelta

from daemon.model import Sighting
from daemon.sync.guard import dispute

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HEAD = "a" * 40


def test_a_disputed_head_is_believed_after_three_reads_over_ten_seconds() -> None:
    now, sighting, reads = NOW, None, []
    for _ in range(10):
        doubt = dispute(HEAD, sighting, now=now)
        reads.append((now - NOW).total_seconds())
        if doubt.settled:
            break
        now, sighting = doubt.read_again_at, doubt.sighting
    assert reads == [0, 1, 3, 7, 10]


def test_many_quick_reads_do_not_settle_it() -> None:
    sighting = Sighting(head=HEAD, first_at=NOW, reads=50)
    assert not dispute(HEAD, sighting, now=NOW + timedelta(seconds=9.9)).settled


def test_two_reads_far_apart_do_not_settle_it() -> None:
    sighting = Sighting(head=HEAD, first_at=NOW, reads=1)
    assert not dispute(HEAD, sighting, now=NOW + timedelta(seconds=60)).settled


def test_another_head_begins_anew() -> None:
    sighting = Sighting(head="b" * 40, first_at=NOW - timedelta(minutes=1), reads=9)
    doubt = dispute(HEAD, sighting, now=NOW)
    assert (doubt.settled, doubt.sighting) == (False, Sighting(HEAD, NOW, 1))


def test_a_clock_that_jumped_back_begins_anew() -> None:
    sighting = Sighting(head=HEAD, first_at=NOW + timedelta(hours=1), reads=9)
    assert dispute(HEAD, sighting, now=NOW).sighting == Sighting(HEAD, NOW, 1)
