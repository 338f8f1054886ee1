"""`headwater doctor` and `status --watch`, as a person runs them."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import sqlite3
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from harness import SECRET, TOKEN, Daemon

from daemon.demo.standin import StandIn
from daemon.demo.standin.faults import Replace
from daemon.demo.standin.gitrepo import GitRepo

COLUMNS = 80


@pytest.fixture
def synced(repo: GitRepo, make_daemon: Callable[..., Daemon]) -> Daemon:
    daemon = make_daemon()
    assert daemon.cli("sync").returncode == 0
    return daemon


def github_is_at(github: StandIn, instant: datetime) -> None:
    date = {"date": format_datetime(instant, usegmt=True)}
    github.faults.add("", Replace(lambda answer: replace(answer, headers={**answer.headers, **date})))


def test_a_healthy_installation_is_one_page_without_a_failure(synced: Daemon, github: StandIn) -> None:
    github_is_at(github, datetime.now(UTC))
    ended = synced.cli("doctor")
    assert ended.returncode == 0, ended.stdout
    for said in (
        r"ok +headwater: 0\.1\.0 on CPython 3\.\d+\.\d+, SQLite 3\.",
        r"ok +libraries: tornado 6\.\d+",
        r"ok +octo/data: visible, default branch main",
        r"ok +clock: .* as GitHub's to \d+ s",
        r"warning +daemon: does not run",
        r"ok +store: .*headwater\.db, .*1 repository, 1 branch",
        r"ok +integrity: the database is sound",
        r"ok +last run: octo/data@main by \w+: updated",
        r"ok +disk: .* free at ",
    ):
        assert re.search(f"^{said}", ended.stdout, re.MULTILINE), f"{said}\n{ended.stdout}"


def test_it_reports_beside_a_running_daemon_and_as_json(synced: Daemon) -> None:
    synced.start()
    found = json.loads(synced.cli("doctor", "--json", "--offline").stdout)
    assert found["ok"] is True
    told = {one["subject"]: one["message"] for one in found["findings"]}
    assert str(synced.process.pid) in told["daemon"]
    assert "compared with nothing" in told["clock"]
    assert "github" not in told


def test_without_a_store_it_says_so_and_fails_nothing(repo: GitRepo, make_daemon: Callable[..., Daemon]) -> None:
    ended = make_daemon().cli("doctor", "--offline")
    assert ended.returncode == 0
    assert "there is none" in ended.stdout


@pytest.mark.parametrize(("off", "said"), [(timedelta(hours=-2), "2 h ahead of"), (timedelta(hours=3), "3 h behind")])
def test_a_clock_that_is_off_fails(synced: Daemon, github: StandIn, off: timedelta, said: str) -> None:
    github_is_at(github, datetime.now(UTC) + off + timedelta(seconds=5))
    ended = synced.cli("doctor")
    assert ended.returncode == 1
    assert f"{said} GitHub's" in ended.stdout


def test_a_damaged_store_fails(synced: Daemon) -> None:
    size = synced.database.stat().st_size
    with synced.database.open("r+b") as file:
        file.seek(4096)  # the first page alone stays: it is still a database, of this program
        file.write(b"\xff" * (size - 4096))
    ended = synced.cli("doctor", "--offline")
    assert ended.returncode == 1
    assert "FAILED" in ended.stdout
    assert "rebuilt from GitHub" in ended.stdout or "damaged" in ended.stdout


def test_no_secret_and_nothing_invisible_gets_into_the_report(synced: Daemon) -> None:
    with sqlite3.connect(synced.database) as store:
        error = f"it said {TOKEN} and {SECRET} and ghp_{'a' * 36} \x1b[31m\u202e"
        store.execute("UPDATE branch SET last_error = ?", (error,))
    store.close()
    for arguments in ((), ("--json",)):
        told = synced.cli("doctor", "--offline", *arguments).stdout
        assert "it said" in told
        for hidden in (TOKEN, SECRET, "ghp_aaaa", "\x1b", "\u202e"):
            assert hidden not in told


def test_watching_shows_what_changes_until_ctrl_c(synced: Daemon, repo: GitRepo) -> None:
    screen, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
    environ = synced.environ() | {"TERM": "xterm"}
    watching = subprocess.Popen(synced.command("status", "--watch"), stdin=theirs, stdout=theirs, env=environ)
    os.close(theirs)
    try:
        read_until(screen, str(repo.head())[:7])
        after = repo.commit({"new": b"1"})
        assert synced.cli("sync").returncode == 0
        read_until(screen, after[:7])
        watching.send_signal(signal.SIGINT)
        assert watching.wait(30) == 0
    finally:
        watching.kill()
        watching.wait()
        os.close(screen)


def read_until(screen: int, text: str) -> None:
    """Read from a terminal until it has shown ``text``; the test's own time-out is the deadline."""
    seen = ""
    while text not in seen:
        seen += os.read(screen, 65536).decode(errors="replace")


def test_watching_is_for_terminals(synced: Daemon) -> None:
    ended = synced.cli("status", "--watch")
    assert ended.returncode == 2
    assert "terminal" in ended.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_completion_of_the_readme_is_there(shell: str) -> None:
    command = Path(sys.executable).parent / "headwater"
    environ = os.environ | {"_HEADWATER_COMPLETE": f"{shell}_source"}
    ended = subprocess.run([command], capture_output=True, text=True, env=environ, check=False, timeout=60)
    assert "_HEADWATER_COMPLETE" in ended.stdout
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    assert "_HEADWATER_COMPLETE=bash_source headwater" in readme
