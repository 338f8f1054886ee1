"""The table of faults has every row of the catalogue, and names tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parent.parent
ROWS = {"A": 37, "B": 20, "C": 30, "D": 18, "E": 15, "F": 15, "G": 14, "H": 7, "I": 15}


def table() -> str:
    return (TESTS / "faults" / "README.md").read_text(encoding="utf-8")


def test_every_row_is_there_once() -> None:
    rows = re.findall(r"^\| ([A-I][0-9]+) \|", table(), re.MULTILINE)
    assert rows == [f"{letter}{number}" for letter, count in ROWS.items() for number in range(1, count + 1)]


def test_every_test_that_is_named_is_there() -> None:
    named = set(re.findall(r"`([\w/]+\.py)::(\w+)`", table()))
    assert len(named) > 200
    lost = [
        f"{path}::{name}" for path, name in named if f"def {name}(" not in (TESTS / path).read_text(encoding="utf-8")
    ]
    assert lost == []
