from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from case import Case

from daemon.demo.standin import StandIn
from daemon.demo.standin.gitrepo import GitRepo


@pytest.fixture
def case(tmp_path: Path, github: StandIn, repo: GitRepo) -> Iterator[Case]:
    yield Case(tmp_path, github, repo)
    shutil.rmtree(tmp_path / "prepared", ignore_errors=True)
