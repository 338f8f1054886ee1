"""FAULTS B3, B7, B9, B11, C1 to C3, C9, C21, C22, A27, A32: any order of events ends in what GitHub has."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import pytest
import simulation

from daemon.store import jobs, wishes
from daemon.sync import guard, routine

STEPS = 200
SEEDS = 25
MANY_SEEDS = 20_000
ENOUGH = 600  # seeds, in one of which a broken build shows itself: a lost run that writes is rare


@pytest.mark.timeout(300)
def test_whatever_happens_in_whatever_order_ends_in_what_github_has() -> None:
    for seed in range(SEEDS):
        simulation.play(seed, STEPS)


@pytest.mark.long
@pytest.mark.timeout(36_000)
@pytest.mark.parametrize("part", range(10))
def test_twenty_thousand_seeds(part: int) -> None:
    each = MANY_SEEDS // 10
    for seed in range(part * each, (part + 1) * each):
        simulation.play(seed, STEPS)
    sys.stdout.write(f"seeds {part * each} to {(part + 1) * each - 1} hold\n")


def first_failure() -> str:
    """What is wrong in the first seed that shows the build to be broken."""
    for seed in range(ENOUGH):
        try:
            simulation.play(seed, STEPS)
        except AssertionError as error:
            return str(error)
    return "nothing"


@pytest.mark.timeout(300)
def test_without_the_stale_read_guard_a_branch_moves_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def believe(head: str, earlier: Any, *, now: Any) -> guard.Doubt:
        return replace(guard.dispute(head, earlier, now=now), settled=True)

    monkeypatch.setattr(routine, "dispute", believe)
    assert "moved back" in first_failure()


@pytest.mark.timeout(300)
def test_without_the_fencing_token_a_lost_run_writes_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_RELEASE", "UPDATE job SET lease_owner = NULL WHERE id = ? AND ? IS NOT NULL")
    assert first_failure() != "nothing"


@pytest.mark.timeout(300)
def test_a_run_that_is_taken_to_serve_what_came_during_it_leaves_something_out(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = wishes.Wish.serve

    def serve(self: wishes.Wish, generation: int, now: Any, *, news: bool) -> None:
        kept(self, max(generation, self.wanted), now, news=news)

    monkeypatch.setattr(wishes.Wish, "serve", serve)
    assert "never acted on" in first_failure()
