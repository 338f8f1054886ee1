from __future__ import annotations

import signal
import socket
from collections.abc import Callable

import pytest
from harness import Daemon, wait_for

from daemon.demo.standin import StandIn
from daemon.demo.standin.faults import Hold
from daemon.demo.standin.gitrepo import GitRepo


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_term_and_int_drain_and_exit_zero(
    github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon], number: int
) -> None:
    hold = Hold()
    github.faults.add(r"/git/trees/", hold, times=1)
    daemon = make_daemon().start()
    assert hold.reached.wait(10)
    daemon.process.send_signal(number)  # type: ignore[union-attr]
    wait_for(lambda: daemon.log_lines("daemon.stopping"), "the daemon to stop")
    hold.release()
    assert daemon.stop(number) == 0
    assert "Traceback" not in daemon.log.read_text()
    daemon.start()
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
    daemon.hangup()
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
        text = daemon.config.read_text().replace('"127.0.0.1:0"', f'"127.0.0.1:{taken.getsockname()[1]}"', 1)
        daemon.config.write_text(text)
        ended = daemon.cli("run")
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert "in use" in ended.stderr


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
