"""Another distribution in the same environment whose import package is called `daemon`, too."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from harness import wait_for

import daemon

# What PyPI's python-daemon 3.1.2 consists of.
THEIR_INIT = "from .daemon import DaemonContext\n\n__all__ = ['DaemonContext']\n"
THEIR_MODULE = "class DaemonContext:\n    pass\n"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """An environment into which both were installed, headwater last."""
    site = tmp_path / "site"
    shutil.copytree(Path(daemon.__file__).parent, site / "daemon", ignore=shutil.ignore_patterns("__pycache__"))
    (site / "daemon/daemon.py").write_text(THEIR_MODULE)
    for name, files in (("python-daemon", ("__init__.py", "daemon.py")), ("headwater", ("__init__.py", "cli.py"))):
        info = site / f"{name.replace('-', '_')}-3.1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 3.1.2\n")
        (info / "RECORD").write_text("".join(f"daemon/{file},,\n" for file in files))
    return site


def warnings(site: Path, folder: Path) -> list[dict[str, object]]:
    """What the daemon says of it between its start and its end."""
    config = folder / "config.toml"
    config.write_text(
        '[webhook]\nlisten = "127.0.0.1:0"\n[admin]\nlisten = "127.0.0.1:0"\n'
        f'[storage]\nurl = "sqlite:///{folder}/headwater.db"\n[log]\nformat = "json"\n'
    )
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "daemon", "-c", str(config), "run"],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(site)},
            stdout=out,
            stderr=out,
        )
    try:
        wait_for(lambda: "daemon.ready" in log.read_text() or process.poll(), "the daemon to be ready")
        wait_for(lambda: "package.shared" in log.read_text() or process.poll() is not None, "the warning")
    finally:
        process.terminate()
        assert process.wait(30) == 0, log.read_text()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return [line for line in lines if line["event"] == "package.shared"]


@pytest.mark.parametrize("overwritten", [False, True])
def test_it_is_said_in_one_line_at_the_start(site: Path, tmp_path: Path, overwritten: bool) -> None:
    if overwritten:
        (site / "daemon/__init__.py").write_text(THEIR_INIT)
    (line,) = warnings(site, tmp_path)
    assert line["level"] == "warning"
    assert line["distributions"] == ["python-daemon"]
    assert "virtual environment of its own" in str(line["remedy"])


def test_nothing_is_said_of_ourselves() -> None:
    from daemon.neighbours import sharers

    assert sharers() == []
