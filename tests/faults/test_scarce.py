"""FAULTS A16, D15, G5: a whole daemon that gets few files, or no more memory, and what it acknowledged all the same."""

from __future__ import annotations

import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
import requests
from harness import Daemon, assert_equal_to_git, wait_for
from test_http import address

from daemon.demo.standin import StandIn
from daemon.demo.standin.gitrepo import GitRepo

FILES = 256  # what `ulimit -n` allows the daemon
CROWD = 600  # connections at either listener that never finish their headers
PARTIAL = b"POST /api/v1/webhooks/github HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "
DELIVERIES = 100
MOST_LOG_BYTES = 1_000_000
LARGE = 48 * 1024 * 1024


@contextmanager
def few_files() -> Iterator[None]:
    """What is started inside may have so many files; this process keeps those that it has."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def open_files(daemon: Daemon) -> int:
    assert daemon.process is not None
    return sum(1 for _ in Path(f"/proc/{daemon.process.pid}/fd").iterdir())


def test_a_crowd_that_never_finishes_keeps_no_delivery_out_where_files_are_few(
    github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    daemon = make_daemon()
    with few_files():
        daemon.start()
    daemon.wait_head(repo.head())
    stopped = threading.Event()
    with ExitStack() as crowd:

        def slowly() -> None:
            peers: list[socket.socket] = []
            while not stopped.is_set():
                for url in (daemon.webhook_url, daemon.admin_url):
                    with suppress(OSError):
                        peer = crowd.enter_context(socket.create_connection(address(url), timeout=5))
                        peers.append(peer)
                        peer.sendall(PARTIAL)
                for peer in peers[-CROWD:]:
                    with suppress(OSError):
                        peer.sendall(b"a")
                for peer in peers[:-CROWD]:
                    peer.close()
                del peers[:-CROWD]

        slow = threading.Thread(target=slowly)
        slow.start()
        try:
            wait_for(lambda: open_files(daemon) > FILES // 2, "the crowd to fill its places")
            took, most = [], 0
            for number in range(DELIVERIES):
                began = time.monotonic()
                with requests.Session() as daemon.session:  # each brings a connection of its own
                    assert daemon.deliver({"zen": "x"}, event="ping", guid=f"good-{number}").status_code == 200
                took.append(time.monotonic() - began)
                most = max(most, open_files(daemon))
            daemon.session = requests.Session()
            before, after = repo.head(), repo.commit({"meanwhile.txt": b"1\n"})
            github.hook("octo/data", daemon.webhook_url, daemon.secret)
            github.push("octo/data", "main", before, after)
            daemon.wait_head(after)
        finally:
            stopped.set()
            slow.join()
    assert sorted(took)[-2] < 1, took
    assert most < FILES
    assert {f"good-{number}" for number in range(DELIVERIES)} <= {
        one["guid"] for one in daemon.items("/api/v1/deliveries")
    }
    said = daemon.log.read_text()
    assert "Traceback" not in said
    assert len(said) < MOST_LOG_BYTES


@pytest.mark.parametrize("spare_mib", [0, 1, 4, 16, 40])
def test_a_daemon_without_memory_loses_nothing_that_it_acknowledged(
    repo: GitRepo, make_daemon: Callable[..., Daemon], spare_mib: int
) -> None:
    """It goes on, or ends with an error and is started anew: what was answered 200 is stored, and GitHub's state comes."""
    daemon = make_daemon().start()
    daemon.wait_head(repo.head())
    daemon.wait_idle()
    assert daemon.process is not None
    pid = daemon.process.pid
    unlimited = resource.prlimit(pid, resource.RLIMIT_AS)
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    resource.prlimit(pid, resource.RLIMIT_AS, (pages * resource.getpagesize() + spare_mib * 2**20, unlimited[1]))
    before, after = repo.head(), repo.commit({"large.bin": b"\0" * LARGE, "small.txt": b"1\n"})
    push = {"ref": "refs/heads/main", "before": before, "after": after, "repository": {"full_name": "octo/data"}}
    taken = set()
    for number in range(20):
        with suppress(requests.RequestException):
            guid = f"scarce-{number}"
            answer = daemon.deliver(push | {"pad": "x" * 1_000_000}, guid=guid)
            assert answer.status_code in (200, 503)
            taken |= {guid} if answer.status_code == 200 else set()
    if spare_mib > 1:  # with less it can do nothing but refuse
        wait_for(lambda: daemon.process.poll() is not None or tried(daemon), "a run that lacks memory, or the end")
    if daemon.process.poll() is None:
        resource.prlimit(pid, resource.RLIMIT_AS, unlimited)
    else:
        assert daemon.process.returncode != 0
        daemon.start()
    daemon.post("/api/v1/repositories/octo/data/sync")
    daemon.wait_head(after)
    assert taken <= {one["guid"] for one in daemon.items("/api/v1/deliveries")}
    assert_equal_to_git(daemon, repo)
    assert daemon.stop() == 0
    assert daemon.integrity() == "ok"


def tried(daemon: Daemon) -> bool:
    with suppress(requests.RequestException, AssertionError):
        return len(daemon.runs()) > 1
    return False
