"""Memory stays bounded however large the repository is: the benchmark of it, held to its figure."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).parents[1] / "benchmarks" / "memory.py"


def first_sync_of(total_bytes: int) -> dict[str, Any]:
    ended = subprocess.run(
        [sys.executable, str(PROGRAM), str(total_bytes)], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_a_first_sync_takes_no_more_memory_than_a_few_of_its_files() -> None:
    told = first_sync_of(60_000_000)
    assert told["peak_megabytes"] - told["idle_megabytes"] < 40


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_first_sync_of_two_gigabytes_takes_less_than_200_megabytes() -> None:
    assert first_sync_of(2_000_000_000)["peak_megabytes"] <= 200
