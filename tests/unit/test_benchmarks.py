"""The README says what each benchmark measured."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = sorted(path.name for path in (ROOT / "tests" / "benchmarks").glob("*.py") if path.name != "support.py")


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_readme_tells_what_a_benchmark_measured(program: str) -> None:
    assert f"| `{program}` |" in (ROOT / "README.md").read_text(encoding="utf-8")
