from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from bench import Bench

from daemon.demo.standin import StandIn
from daemon.demo.standin.gitrepo import GitRepo


@pytest.fixture
def bench(tmp_path: Path, github: StandIn, repo: GitRepo) -> Iterator[Bench]:
    bench = Bench(tmp_path, github, repo)
    yield bench
    bench.close()
