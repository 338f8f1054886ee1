"""The daemon under a service manager, played by the test: its notifications, its watchdog, its sockets."""

from __future__ import annotations

import socket
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Self

import pytest
import requests
from harness import Daemon, wait_for

from daemon.demo.standin.gitrepo import GitRepo

PUSH = {"ref": "refs/heads/main", "repository": {"full_name": "octo/data"}, "commits": []}
LAUNCHER = 'LISTEN_PID=$$; export LISTEN_PID; exec 3<&"$1" 4<&"$2"; shift 2; exec "$@"'


class Manager:
    """What a service manager hears, as it came."""

    def __init__(self, address: str) -> None:
        self.channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.channel.bind(address)
        self.channel.settimeout(30)

    def next(self, beginning: str) -> str:
        """The next notification that begins so; others before it are passed over."""
        while not (state := self.channel.recv(65536).decode()).startswith(beginning):
            pass
        return state

    def forget(self) -> None:
        """Hear only what comes from now on."""
        self.channel.setblocking(False)
        with suppress(BlockingIOError):
            while self.channel.recv(65536):
                pass
        self.channel.settimeout(30)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(str(tmp_path / "notify"))
    yield manager
    manager.channel.close()


@pytest.fixture
def managed(manager: Manager, tmp_path: Path, make_daemon: Callable[..., Daemon]) -> Callable[..., Daemon]:
    def managed(**variables: str) -> Daemon:
        daemon = make_daemon()
        daemon.variables = {"NOTIFY_SOCKET": str(tmp_path / "notify"), **variables}
        return daemon

    return managed


def test_ready_comes_when_it_can_store_and_listens_and_then_how_it_goes(
    repo: GitRepo, manager: Manager, managed: Callable[..., Daemon]
) -> None:
    daemon = managed().start(ready=False)
    assert manager.channel.recv(65536).startswith(b"READY=1\nSTATUS=keeping 1 repository; 1 ")
    assert daemon._listening()
    assert daemon.get("/readyz").status_code == 200
    assert daemon.deliver(PUSH).json()["status"] == "accepted"
    daemon.wait_head(repo.head())
    daemon.wait_idle()
    daemon.hangup()
    manager.next("RELOADING=1")
    assert manager.next("READY=1") == "READY=1\nSTATUS=keeping 1 repository; 1 fresh; queue 0"
    assert daemon.stop() == 0
    assert manager.next("STOPPING=1")


def test_a_reload_begins_with_the_time_and_ends_with_ready_whether_it_was_taken_or_refused(
    repo: GitRepo, manager: Manager, managed: Callable[..., Daemon]
) -> None:
    daemon = managed().start()
    manager.next("READY=1")
    daemon.wait_head(repo.head())
    text = daemon.config.read_text()
    for written, told in ((text, "queue"), ("[webhok]\n", "refused"), (text, "queue 0")):
        daemon.config.write_text(written)
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        daemon.hangup()
        microseconds = int(manager.next("RELOADING=1").partition("MONOTONIC_USEC=")[2])
        assert before <= microseconds <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        status = manager.next("READY=1\nSTATUS=")
        assert told in status
        assert ("refused" in status) == (told == "refused")


def test_the_watchdog_is_fed_while_the_writer_answers_and_not_while_it_hangs(
    repo: GitRepo, manager: Manager, managed: Callable[..., Daemon]
) -> None:
    daemon = managed(WATCHDOG_USEC="300000").start()
    daemon.wait_head(repo.head())
    daemon.wait_idle()
    manager.next("WATCHDOG=1")
    with closing(sqlite3.connect(daemon.database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")  # the next delivery's commit waits for it, and so does the writer
        before = len(daemon.log_lines("watchdog.not_fed"))  # a tenth of a second may have been too short already
        answer = ThreadPoolExecutor(1).submit(daemon.deliver, PUSH)
        wait_for(lambda: len(daemon.log_lines("watchdog.not_fed")) > before, "the writer to be missed")
        manager.forget()
        other.execute("ROLLBACK")
    assert answer.result(20).status_code in (200, 503)
    manager.next("WATCHDOG=1")


class Activated(Daemon):
    """Started with sockets that somebody else made, and keeps open."""

    def hand_over(self, webhook: socket.socket, admin: socket.socket) -> None:
        self.fds = (webhook.fileno(), admin.fileno())
        self.variables |= {"LISTEN_FDS": "2", "LISTEN_FDNAMES": "webhook:admin"}

    def command(self, *arguments: str) -> list[str]:
        command = super().command(*arguments)
        return ["bash", "-c", LAUNCHER, "launcher", *map(str, self.fds), *command] if arguments == ("run",) else command


class Senders:
    """Deliveries at a steady pace, each on a connection of its own as GitHub makes them, until told to stop."""

    def __init__(self, daemon: Daemon, per_second: float) -> None:
        self.daemon = daemon
        self.pause = 1 / per_second
        self.sent: dict[str, object] = {}
        self.stopped = threading.Event()
        self._pool = ThreadPoolExecutor(48)
        self._clock = threading.Thread(target=self._go)

    def _go(self) -> None:
        while not self.stopped.wait(self.pause):
            self._pool.submit(self._send, str(uuid.uuid4()))

    def _send(self, guid: str) -> None:
        try:
            answer = self.daemon.deliver(PUSH, guid=guid, Connection="close")
            self.sent[guid] = (answer.status_code, answer.json().get("status"))
        except requests.RequestException as error:
            self.sent[guid] = error

    def __enter__(self) -> Self:
        self._clock.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self._clock.join()
        self._pool.shutdown()


def test_restarts_behind_inherited_sockets_lose_and_refuse_no_delivery(
    repo: GitRepo, tmp_path: Path, github: object
) -> None:
    with (
        closing(socket.create_server(("127.0.0.1", 0), backlog=1024)) as webhook,
        closing(socket.create_server(("127.0.0.1", 0))) as admin,
    ):
        daemon = Activated(tmp_path, github.url)  # type: ignore[attr-defined]
        daemon.hand_over(webhook, admin)
        try:
            daemon.start()
            assert daemon.webhook_url.startswith(f"http://127.0.0.1:{webhook.getsockname()[1]}/")
            with Senders(daemon, per_second=60) as senders:
                for restart in range(3):
                    wait_for(lambda: len(senders.sent) > 40 * (restart + 1), "deliveries to be answered")  # noqa: B023
                    assert daemon.stop() == 0
                    daemon.start()
            assert {str(outcome) for outcome in senders.sent.values()} == {"(200, 'accepted')"}
            stored = {item["guid"] for item in daemon.items("/api/v1/deliveries")}
            assert set(senders.sent) <= stored
        finally:
            daemon.end()
