"""FAULTS G12, H1 to H3, H7: a wall clock that jumps, or is wrong from the start, silences nothing and destroys nothing; nor does a sleep."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import clockjump
import pytest
from harness import Daemon, assert_equal_to_git, wait_for

from daemon.demo.standin import StandIn
from daemon.demo.standin.gitrepo import GitRepo

HOUR, DAY = 3600.0, 86400.0
INTERVAL_SECONDS = 2.0
SLACK_SECONDS = 6.0  # for a request, a sync and a machine that does other things


class ClockedDaemon:
    """A daemon whose wall clock the test moves."""

    def __init__(self, daemon: Daemon, *, seconds: float = 0.0) -> None:
        self.daemon = daemon
        self.offset = daemon.folder / "offset"
        self.jump(seconds)
        kept = daemon.command

        def command(*arguments: str) -> list[str]:
            if arguments != ("run",):
                return kept(*arguments)
            return [sys.executable, clockjump.__file__, str(self.offset), "--config", str(daemon.config), "run"]

        daemon.command = command  # type: ignore[method-assign]

    def jump(self, seconds: float) -> None:
        """Set the wall clock that far from the true one."""
        written = Path(f"{self.offset}.new")
        written.write_text(str(seconds))
        written.rename(self.offset)

    def deliveries(self) -> list[str]:
        return [item["guid"] for item in self.daemon.items("/api/v1/deliveries")]


@pytest.fixture
def clocked(repo: GitRepo, make_daemon: Callable[..., Daemon]) -> ClockedDaemon:
    clocked = ClockedDaemon(make_daemon(interval=f"{INTERVAL_SECONDS:g}s", reconcile=f"{INTERVAL_SECONDS:g}s"))
    clocked.daemon.start()
    clocked.daemon.wait_head(repo.head())
    clocked.daemon.wait_idle()
    return clocked


def seen_in_time(clocked: ClockedDaemon, repo: GitRepo, name: str) -> None:
    after = repo.commit({name: b"1\n"})
    started = time.monotonic()
    clocked.daemon.wait_head(after)
    assert time.monotonic() - started < INTERVAL_SECONDS + SLACK_SECONDS


@pytest.mark.parametrize(
    "seconds", [-HOUR, -DAY, HOUR, 3650 * DAY], ids=["hour-back", "day-back", "hour-on", "ten-years-on"]
)
def test_polling_goes_on_over_a_jump_of_the_wall_clock(
    clocked: ClockedDaemon, github: StandIn, repo: GitRepo, seconds: float
) -> None:
    assert clocked.daemon.deliver({"zen": "kept"}, event="ping", guid="kept").status_code == 200
    clocked.jump(seconds)
    wait_for(lambda: clocked.daemon.log_lines("clock.jumped"), "the jump to be noticed")
    seen_in_time(clocked, repo, "jumped.txt")
    clocked.jump(0.0)
    wait_for(lambda: len(clocked.daemon.log_lines("clock.jumped")) > 1, "the jump back to be noticed")
    seen_in_time(clocked, repo, "back.txt")
    assert_equal_to_git(clocked.daemon, repo)
    assert clocked.deliveries() == ["kept"]  # what is old by a wrong clock is not swept
    assert github.requests.count() < 200  # and nothing was hammered


def test_a_boot_in_1970_that_is_corrected_later_syncs_and_keeps_everything(
    repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    clocked = ClockedDaemon(make_daemon(interval="2s", reconcile="2s"), seconds=-time.time() + DAY)
    clocked.daemon.start()
    clocked.daemon.wait_head(repo.head())
    assert clocked.daemon.deliver({"zen": "kept"}, event="ping", guid="kept").status_code == 200
    clocked.jump(0.0)
    wait_for(lambda: clocked.daemon.log_lines("clock.jumped"), "the correction to be noticed")
    seen_in_time(clocked, repo, "corrected.txt")
    assert clocked.deliveries() == ["kept"]
    assert_equal_to_git(clocked.daemon, repo)


def test_a_daemon_that_slept_sees_in_time_what_came_meanwhile(clocked: ClockedDaemon, repo: GitRepo) -> None:
    """A laptop's lid: nothing runs, and afterwards the wall clock is hours ahead of the monotonic one."""
    assert clocked.daemon.process is not None
    clocked.daemon.process.send_signal(signal.SIGSTOP)
    after = repo.commit({"asleep.txt": b"1\n"})
    clocked.jump(6 * HOUR)
    clocked.daemon.process.send_signal(signal.SIGCONT)
    started = time.monotonic()
    clocked.daemon.wait_head(after)
    assert time.monotonic() - started < INTERVAL_SECONDS + SLACK_SECONDS
    seen_in_time(clocked, repo, "awake.txt")
    assert_equal_to_git(clocked.daemon, repo)
