"""FAULTS D1, D2, D3, D9, D11, G7: a whole daemon whose disk is full, fails, or is taken away, and one nobody listens to."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

import pytest
from harness import Daemon, assert_equal_to_git, wait_for

from daemon.demo.standin import StandIn
from daemon.demo.standin.gitrepo import GitRepo

DISK_BYTES = 16 * 1024 * 1024
MOST_DELIVERIES = 3000  # until a full disk shows: the log of the database uses what it has first
FLUSHES_OF_A_THREAD = 12  # more than a start needs


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", str(folder)]
    made = subprocess.run(command, capture_output=True, check=False)
    if made.returncode != 0:
        pytest.skip(f"this user may not mount: {made.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def ping(daemon: Daemon, guid: str) -> int:
    return daemon.deliver({"zen": "x" * 2000}, event="ping", guid=guid).status_code


def deliver_until_refused(daemon: Daemon) -> list[str]:
    """The deliveries that were acknowledged before the first 503, which says when to come back."""
    taken: list[str] = []
    while len(taken) < MOST_DELIVERIES:
        answer = daemon.deliver({"zen": "x" * 2000}, event="ping", guid=f"full-{len(taken)}")
        if answer.status_code != 200:
            assert answer.status_code == 503
            assert int(answer.headers["Retry-After"]) > 0
            return taken
        taken.append(f"full-{len(taken)}")
    raise AssertionError("the disk never got full")


def stored(daemon: Daemon) -> set[str]:
    return {item["guid"] for item in daemon.items("/api/v1/deliveries")}


def refuses_and_heals(daemon: Daemon, github: StandIn, repo: GitRepo, heal: Callable[[], None]) -> None:
    """503 while nothing can be stored; everything that was acknowledged, and GitHub's state, once it can again."""
    taken = deliver_until_refused(daemon)
    after = repo.commit({"meanwhile.txt": b"1\n" * 50_000})
    assert daemon.post("/api/v1/repositories/octo/data/sync").status_code in (202, 503)
    assert daemon.get("/healthz").status_code == 200
    assert daemon.head() != after
    heal()
    wait_for(lambda: ping(daemon, "healed") == 200, "deliveries to be taken again")
    daemon.post("/api/v1/repositories/octo/data/sync")
    daemon.wait_head(after)
    assert stored(daemon) >= {*taken, "healed"}
    assert_equal_to_git(daemon, repo)
    assert daemon.get("/readyz").status_code == 200
    assert daemon.stop() == 0
    assert daemon.integrity() == "ok"


def test_a_full_disk_refuses_and_heals_by_itself(
    github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon], small_disk: Path
) -> None:
    daemon = make_daemon()
    daemon.database = small_disk / "headwater.db"
    daemon.write_config(storage=f"sqlite:///{daemon.database}")
    daemon.start()
    daemon.wait_head(repo.head())
    daemon.wait_idle()
    ballast = small_disk / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as handle:
        while handle.write(b"\0" * 4096):
            pass
    assert daemon.get("/readyz").status_code == 503
    refuses_and_heals(daemon, github, repo, ballast.unlink)


def test_a_file_that_may_not_grow_refuses_and_heals_by_itself(
    github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    """What any user can do to a process; the log of the daemon is a pipe, which no such limit holds."""
    daemon = make_daemon()
    daemon.log = Path("/dev/null")
    daemon.start()
    daemon.wait_head(repo.head())
    daemon.wait_idle()
    assert daemon.process is not None
    pid = daemon.process.pid
    unlimited = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    smallest = Path(f"{daemon.database}-wal").stat().st_size
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (smallest, unlimited[1]))
    refuses_and_heals(daemon, github, repo, lambda: (resource.prlimit(pid, resource.RLIMIT_FSIZE, unlimited), None)[1])


def test_a_disk_that_became_read_only_is_told_in_one_line_at_the_start(
    repo: GitRepo, make_daemon: Callable[..., Daemon], small_disk: Path
) -> None:
    daemon = make_daemon()
    daemon.database = small_disk / "headwater.db"
    daemon.write_config(storage=f"sqlite:///{daemon.database}")
    daemon.start()
    daemon.wait_head(repo.head())
    assert daemon.stop() == 0
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    daemon.log = daemon.log.with_name("second.log")
    daemon.start(ready=False)
    assert daemon.process is not None
    assert daemon.process.wait(30) == 1
    (said,) = [line for line in daemon.log_lines() if line["level"] == "critical"]
    assert "headwater.db" in said["error"]
    assert "Traceback" not in daemon.log.read_text()


# -- a store from before ---------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["its log lost", "last night's"])
def test_a_store_from_before_catches_up_with_github(
    repo: GitRepo, make_daemon: Callable[..., Daemon], what: str
) -> None:
    daemon = make_daemon().start()
    daemon.wait_head(repo.head())
    wait_for(lambda: (daemon.branch() or {})["next_poll_at"], "the next look to be an hour away")
    assert daemon.stop() == 0
    kept = daemon.database.read_bytes()
    daemon.start()
    before, after = repo.head(), repo.commit({"today.txt": b"1\n"})
    push = {"ref": "refs/heads/main", "before": before, "after": after, "repository": {"full_name": "octo/data"}}
    assert daemon.deliver(push, guid="today").json()["status"] == "accepted"
    daemon.wait_head(after)
    daemon.kill()
    Path(f"{daemon.database}-wal").unlink()
    if what == "last night's":
        Path(f"{daemon.database}-shm").unlink()
        daemon.database.write_bytes(kept)
    daemon.start()
    daemon.wait_head(after)  # everything is looked at once, and the stored head is all that is compared with
    assert daemon.deliver(push, guid="today").status_code == 200
    daemon.wait_idle()
    assert_equal_to_git(daemon, repo)


# -- a flush that failed ---------------------------------------------------------------------------


def with_failing_flush(daemon: Daemon) -> None:
    """Let each thread's flush of that number fail, once; strace is no parent of it, so that its pid is its own."""
    kept = daemon.command

    def command(*arguments: str) -> list[str]:
        inject = f"inject=fdatasync,fsync:error=EIO:when={FLUSHES_OF_A_THREAD}"
        return [
            "strace",
            "-D",
            "-f",
            "-qq",
            "-o",
            os.devnull,
            "-e",
            "trace=fdatasync,fsync",
            "-e",
            inject,
            *kept(*arguments),
        ]

    daemon.command = command  # type: ignore[method-assign]


def test_a_daemon_whose_flush_failed_ends_with_1_and_begins_anew_from_what_was_stored(
    repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    daemon = make_daemon().start()
    daemon.wait_head(repo.head())
    assert daemon.stop() == 0
    kept = daemon.command
    with_failing_flush(daemon)
    daemon.start()
    taken = deliver_until_refused(daemon)
    assert daemon.process is not None
    assert daemon.process.wait(30) == 1
    (said,) = daemon.log_lines("daemon.failed")
    assert "could not be flushed" in said["error"]
    daemon.command = kept  # type: ignore[method-assign]
    daemon.start()
    assert stored(daemon) >= set(taken)
    assert ping(daemon, "again") == 200


# -- nobody reads the log --------------------------------------------------------------------------


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[tuple[Path, IO[bytes]]]:
    """A named pipe, and a reader that keeps it open without ever reading."""
    path = tmp_path / "log"
    os.mkfifo(path)
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as reader:
        yield path, reader


def goes_on(daemon: Daemon, repo: GitRepo) -> None:
    for number in range(300):  # more lines than a pipe holds
        assert ping(daemon, f"unread-{number}") == 200
    after = repo.commit({"unread.txt": b"1\n"})
    daemon.post("/api/v1/repositories/octo/data/sync")
    daemon.wait_head(after)
    assert daemon.stop() == 0


def test_a_log_on_a_full_disk_stops_nothing(repo: GitRepo, make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    daemon.log = Path("/dev/full")
    goes_on(daemon.start(), repo)


@pytest.mark.parametrize("gone", [False, True], ids=["sleeps", "leaves"])
def test_a_reader_of_the_log_that_sleeps_or_leaves_stops_nothing(
    repo: GitRepo, make_daemon: Callable[..., Daemon], pipe: tuple[Path, IO[bytes]], gone: bool
) -> None:
    daemon = make_daemon()
    daemon.log, reader = pipe
    daemon.start()
    if gone:
        reader.close()
    goes_on(daemon, repo)
