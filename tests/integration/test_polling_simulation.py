"""Whatever webhooks do, every change is seen within its promise and the budget, at 5,000 repositories, on a fake clock."""

from __future__ import annotations

from pathlib import Path

import pytest
from fleet import Simulation

COUNT = 5000
SETTLED_SECONDS = 15.0  # after a start, the round over everything is over
POLLING_MAY_USE = 4000


def simulate(tmp_path: Path, *, seconds: float, seed: int, **settings: float) -> Simulation:
    """A run with a restart in the middle, webhooks lost while it was down."""
    simulation = Simulation(tmp_path, count=COUNT, seed=seed, **settings)
    simulation.run(seconds / 2)
    simulation.restart(down_seconds=30)
    simulation.run(seconds / 2)
    simulation.close()
    return simulation


def judge(simulation: Simulation) -> None:
    assert simulation.late() == []
    assert simulation.busiest_hour() <= POLLING_MAY_USE
    assert simulation.busiest_second(settled_seconds=SETTLED_SECONDS) <= 0.05 * COUNT
    per_hour = len(simulation.requests) / simulation.time.seconds * 3600
    assert per_hour <= POLLING_MAY_USE


@pytest.mark.timeout(600)
def test_every_change_is_seen_in_time_within_the_budget_and_spread(tmp_path: Path) -> None:
    simulation = simulate(tmp_path, seconds=700, seed=1, changes_per_second=2.0, reconcile_seconds=200.0)
    assert len(simulation.world.changes) > 1000
    judge(simulation)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(3))
def test_the_same_over_three_hours(tmp_path: Path, seed: int) -> None:
    judge(simulate(tmp_path, seconds=3 * 3600, seed=seed, changes_per_second=1.0, reconcile_seconds=900.0))
