from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from harness import Daemon, Stopwatch, wait_for

from daemon.demo.standin import StandIn
from daemon.demo.standin.faults import Hold
from daemon.demo.standin.gitrepo import GitRepo


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_term_and_int_drain_and_exit_zero(
    github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon], number: int
) -> None:
    hold = Hold()
    github.faults.add(r"/(git/trees|tarball)/", hold, times=1)
    daemon = make_daemon().start()
    assert hold.reached.wait(30)
    daemon.process.send_signal(number)  # type: ignore[union-attr]
    wait_for(lambda: daemon.log_lines("daemon.stopping"), "the daemon to stop")
    hold.release()
    assert daemon.process.wait(30) == 0  # type: ignore[union-attr]  # by the one signal: it may be gone by now
    assert "Traceback" not in daemon.log.read_text()
    daemon.start()
    daemon.wait_head(repo.head())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_without_end_do_not_make_a_stop_anything_else(
    repo: GitRepo, make_daemon: Callable[..., Daemon], number: int
) -> None:
    daemon = make_daemon().start()
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGTERM)
    ended = wait_until(daemon.process, number)
    assert ended == 0
    assert len(daemon.log_lines("daemon.stopped")) == 1


def wait_until(process: subprocess.Popen[bytes], number: int) -> int:
    """Send the signal until the process has ended; how it did."""
    deadline = time.monotonic() + 30
    while (ended := process.poll()) is None:
        assert time.monotonic() < deadline
        process.send_signal(number)
        time.sleep(0.0005)  # its interpreter has to get on
    return ended


@pytest.fixture
def starting(repo: GitRepo, make_daemon: Callable[..., Daemon]) -> tuple[Daemon, int]:
    """A daemon that is just about to read its configuration, and where to write it."""
    daemon = make_daemon()
    text = daemon.config.read_bytes()
    daemon.config.unlink()
    os.mkfifo(daemon.config)
    daemon.start(ready=False)
    writer = os.open(daemon.config, os.O_WRONLY)  # once the daemon has opened it
    os.write(writer, text)
    return daemon, writer


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_term_and_int_before_the_daemon_listens_end_it_with_zero(starting: tuple[Daemon, int], number: int) -> None:
    daemon, writer = starting
    daemon.process.send_signal(number)  # type: ignore[union-attr]
    os.close(writer)
    assert daemon.process.wait(30) == 0  # type: ignore[union-attr]
    assert {"Traceback", "Aborted!"}.isdisjoint(daemon.log.read_text().split())


def test_a_hangup_before_the_daemon_listens_does_not_end_it(starting: tuple[Daemon, int], repo: GitRepo) -> None:
    daemon, writer = starting
    daemon.hangup()
    os.close(writer)
    wait_for(daemon._listening, "the daemon to listen")
    daemon.wait_head(repo.head())


def test_a_reload_applies_what_it_can_and_names_what_needs_a_restart(
    tmp_path: object, github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    daemon = make_daemon().start()
    daemon.wait_head(repo.head())
    github.add("octo/more", repo.path)
    daemon.write_config(
        repositories=("octo/data", "octo/more"),
        secret="another secret",
        sections={"sync": "workers = 2"},
    )
    text = daemon.config.read_text().replace('[admin]\nlisten = "127.0.0.1:0"', '[admin]\nlisten = "127.0.0.1:1"')
    daemon.config.write_text(text)
    daemon.reload()
    daemon.wait_head(repo.head(), name="octo/more")
    assert [line["key"] for line in daemon.log_lines("config.needs_restart")] == ["admin.listen"]
    payload = {"ref": "refs/heads/main", "repository": {"full_name": "octo/more"}, "commits": []}
    assert daemon.deliver(payload).status_code == 403
    assert daemon.deliver(payload, secret="another secret").json()["status"] == "accepted"


def test_an_invalid_reload_is_refused_and_the_old_configuration_stays(
    repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    daemon = make_daemon().start()
    daemon.wait_head(repo.head())
    daemon.config.write_text("[webhok]\nlisten = 3\n")
    daemon.hangup()
    wait_for(lambda: daemon.log_lines("config.kept"), "the refusal to be logged")
    assert any("webhok" in line["problem"] for line in daemon.log_lines("config.refused"))
    payload = {"ref": "refs/heads/main", "repository": {"full_name": "octo/data"}, "commits": []}
    assert daemon.deliver(payload).json()["status"] == "accepted"
    assert daemon.stop() == 0


def test_a_port_in_use_ends_with_one_and_one_line(repo: GitRepo, make_daemon: Callable[..., Daemon]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        daemon = make_daemon(sections={"webhook": ""})
        port = taken.getsockname()[1]
        text = daemon.config.read_text().replace('"127.0.0.1:0"', f'"127.0.0.1:{port}"', 1)
        daemon.config.write_text(text)
        ended = daemon.cli("run")
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert f"webhook.listen = 127.0.0.1:{port}: Address already in use; end what listens there" in ended.stderr


def test_github_being_down_at_the_start_does_not_keep_the_daemon_from_storing(
    github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    daemon = make_daemon(interval="1s")
    github.stop()
    daemon.start()
    assert daemon.get("/readyz").status_code == 200
    assert daemon.get("/readyz?fresh=1").status_code == 503
    payload = {"ref": "refs/heads/main", "repository": {"full_name": "octo/data"}, "commits": []}
    assert daemon.deliver(payload).json()["status"] == "accepted"
    github.start()
    daemon.wait_head(repo.head())
    wait_for(lambda: daemon.get("/readyz?fresh=1").status_code == 200, "everything to be fresh")


def test_without_a_token_pushes_are_skipped_and_nothing_is_fetched(
    github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    daemon = make_daemon(token=None).start()
    payload = {"ref": "refs/heads/main", "repository": {"full_name": "octo/data"}, "commits": []}
    answer = daemon.deliver(payload)
    assert answer.json() == {"status": "skipped", "event": "push", "reason": "GitHub integration not configured"}
    assert daemon.post("/api/v1/repositories/octo/data/sync").status_code == 503
    assert len(github.requests) == 0


def test_without_a_secret_on_loopback_unsigned_deliveries_are_taken_with_one_warning(
    repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    daemon = make_daemon(secret=None).start()
    daemon.wait_head(repo.head())
    after = repo.commit({"unsigned.txt": b"1\n"})
    payload = {"ref": "refs/heads/main", "after": after, "commits": [{"added": ["unsigned.txt"]}]}
    answer = daemon.deliver(payload).json()
    assert (answer["status"], answer["files_changed"], answer["forced"]) == ("accepted", 1, False)
    daemon.wait_head(after)
    assert len(daemon.log_lines("webhook.development_mode")) == 1


def test_a_poll_that_github_does_not_answer_does_not_hold_up_the_end(
    github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    hold = Hold()
    github.faults.add(r"/graphql", hold)
    daemon = make_daemon()
    text = daemon.config.read_text().replace('timeout = "10s"', 'timeout = "60s"', 1)
    daemon.config.write_text(text.replace('shutdown_timeout = "10s"', 'shutdown_timeout = "1s"'))
    daemon.start()
    assert hold.reached.wait(30)
    with Stopwatch() as watch:
        assert daemon.stop() == 0
    assert watch.seconds < 8
    hold.release()


def test_a_reload_while_the_store_is_locked_is_refused_and_the_daemon_lives_on(
    github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    daemon = make_daemon().start()
    daemon.wait_head(repo.head())
    github.add("octo/more", repo.path)
    daemon.write_config(repositories=("octo/data", "octo/more"))
    with closing(sqlite3.connect(daemon.database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        daemon.hangup()
        wait_for(lambda: daemon.log_lines("config.kept"), "the refusal to be logged")
        other.execute("ROLLBACK")
    daemon.hangup()
    daemon.wait_head(repo.head(), name="octo/more")
    assert daemon.stop() == 0


def test_a_reload_needs_no_working_folder(
    tmp_path: Path, repo: GitRepo, make_daemon: Callable[..., Daemon], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "soon gone"
    folder.mkdir()
    daemon = make_daemon()
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    with monkeypatch.context() as there:
        there.chdir(folder)
        daemon.start()
    folder.rmdir()
    daemon.reload()
    assert daemon.stop() == 0


def test_what_ends_the_daemon_is_a_line_of_its_log_like_the_others(
    repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    daemon = make_daemon().start()
    second = daemon.cli("run")
    assert second.returncode == 1
    lines = [json.loads(line) for line in second.stderr.splitlines()]
    assert lines[-1]["event"] == "daemon.failed"
    assert f"process {daemon.process.pid}" in lines[-1]["error"]  # type: ignore[union-attr]
