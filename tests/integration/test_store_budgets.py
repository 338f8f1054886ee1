from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from store_bench import NOW, Bench, later

from daemon.model import BudgetRecord
from daemon.store.budgets import Budgets

CORE = BudgetRecord("mark", "core", 5000, 17, later(600), None)
WHOLE = BudgetRecord("mark", "", None, None, None, later(60))


@pytest.fixture
def budgets(tmp_path: Path) -> Iterator[Budgets]:
    bench = Bench(tmp_path / "store.db")
    yield Budgets(bench.db)
    bench.db.close()


def test_what_was_saved_is_loaded(budgets: Budgets) -> None:
    budgets.save([CORE, WHOLE], now=NOW)
    budgets.save([replace(CORE, remaining=16), replace(CORE, mark="other")], now=later(1))
    assert budgets.load() == [WHOLE, replace(CORE, remaining=16), replace(CORE, mark="other")]


def test_a_pause_that_another_daemon_found_is_not_shortened(budgets: Budgets) -> None:
    budgets.save([WHOLE], now=NOW)
    budgets.save([replace(WHOLE, paused_until=None)], now=later(1))
    budgets.save([replace(WHOLE, paused_until=later(5))], now=later(1))
    assert budgets.load() == [WHOLE]
    budgets.save([replace(WHOLE, paused_until=later(90))], now=later(1))
    assert budgets.load() == [replace(WHOLE, paused_until=later(90))]


def test_a_token_that_was_not_used_for_a_day_is_forgotten(budgets: Budgets) -> None:
    budgets.save([replace(CORE, mark="old")], now=NOW)
    budgets.save([CORE], now=later(86401))
    assert budgets.load() == [CORE]
