"""FAULTS A10 to A25, A35, F1, F7: whatever is sent to a listener gets a refusal, never a 5xx, a traceback or a hang."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from harness import SECRET, Daemon
from httpfuzz import Fuzzer, exchange

from daemon.demo.standin.gitrepo import GitRepo

INPUTS = 10_000
MANY_INPUTS = 1_000_000
CLIENTS = 4
LOG_BYTES_AN_INPUT = 800  # a line or two
GROWTH_BYTES = 60_000_000
DESCRIPTORS = 20


def address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return str(parts.hostname), int(parts.port or 0)


def resident_bytes(daemon: Daemon) -> int:
    assert daemon.process is not None
    fields = Path(f"/proc/{daemon.process.pid}/statm").read_text().split()
    return int(fields[1]) * 4096


def descriptors(daemon: Daemon) -> int:
    assert daemon.process is not None
    return len(list(Path(f"/proc/{daemon.process.pid}/fd").iterdir()))


def fuzz(daemon: Daemon, inputs: int, *, seed: int) -> Counter[int]:
    """Send that many inputs, half to each listener; how often each status was answered."""
    fuzzer = Fuzzer(SECRET, seed)
    peers = (address(daemon.webhook_url), address(daemon.admin_url))

    def send(number: int) -> list[int]:
        try:
            found = exchange(peers[number % 2], fuzzer.make(number // 2))
        except TimeoutError:
            raise AssertionError(f"input {number // 2} of seed {seed} was left without an end") from None
        bad = [status for status in found if status >= 500]
        assert not bad, f"input {number // 2} of seed {seed} was answered {bad}: {fuzzer.make(number // 2)!r}"
        return found

    seen: Counter[int] = Counter()
    with ThreadPoolExecutor(CLIENTS) as clients:
        for begin in range(0, inputs, 1000):
            for found in clients.map(send, range(begin, min(begin + 1000, inputs))):
                seen.update(found or [0])
    return seen


def survives(daemon: Daemon, inputs: int, *, seed: int) -> Counter[int]:
    fuzz(daemon, 500, seed=seed + 1)  # warm: caches, threads
    before, open_before, log_before = resident_bytes(daemon), descriptors(daemon), daemon.log.stat().st_size
    seen = fuzz(daemon, inputs, seed=seed)
    assert daemon.get("/readyz").status_code == 200
    assert daemon.deliver({"zen": "alive"}, event="ping").status_code == 200
    log = daemon.log.read_text(encoding="utf-8", errors="replace")
    assert "Traceback" not in log
    assert [line for line in daemon.log_lines() if line["level"] in ("error", "critical")] == []
    assert daemon.log.stat().st_size - log_before < inputs * LOG_BYTES_AN_INPUT
    assert resident_bytes(daemon) - before < GROWTH_BYTES
    assert descriptors(daemon) - open_before < DESCRIPTORS
    return seen


@pytest.fixture
def daemon(repo: GitRepo, make_daemon: Callable[..., Daemon]) -> Daemon:
    daemon = make_daemon().start()
    daemon.wait_head(repo.head())
    daemon.wait_idle()
    return daemon


@pytest.mark.timeout(400)
def test_no_input_is_answered_with_a_5xx_or_left_hanging(daemon: Daemon) -> None:
    seen = survives(daemon, INPUTS, seed=1)
    # The inputs reach every stage, or this test would prove little.
    assert min(seen[status] for status in (200, 400, 403, 404, 405, 415)) > 10, seen
    assert seen[0] > 10


@pytest.mark.long
@pytest.mark.timeout(36000)
def test_a_million_inputs(daemon: Daemon) -> None:
    sys.stdout.write(f"{survives(daemon, MANY_INPUTS, seed=1000)}\n")


def test_the_oracle_sees_a_5xx(daemon: Daemon) -> None:
    """A listener that answers 500 to one path, in front of the same inputs."""
    with socket.create_server(("127.0.0.1", 0)) as broken:

        def serve() -> None:
            peer, _ = broken.accept()
            with peer:
                peer.recv(65536)
                peer.sendall(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        daemon.webhook_url = f"http://127.0.0.1:{broken.getsockname()[1]}/"
        with pytest.raises(AssertionError, match="was answered"):
            fuzz(daemon, 1, seed=1)
        thread.join(10)


@pytest.mark.timeout(120)
def test_good_deliveries_are_answered_while_forged_ones_pour_in(daemon: Daemon) -> None:
    ended = threading.Event()
    forged = Counter[int]()

    def forge() -> None:
        body = b'{"ref": "refs/heads/main"}'
        head = b"POST /api/v1/webhooks/github HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        head += b"X-GitHub-Event: push\r\nX-Hub-Signature-256: sha256=%s\r\nContent-Length: %d\r\n\r\n"
        while not ended.is_set():
            forged.update(exchange(address(daemon.webhook_url), head % (b"0" * 64, len(body)) + body))

    threads = [threading.Thread(target=forge, daemon=True) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    times = []
    for number in range(200):
        started = time.monotonic()
        assert daemon.deliver({"zen": str(number)}, event="ping").status_code == 200
        times.append(time.monotonic() - started)
    ended.set()
    for thread in threads:
        thread.join(30)
    assert sorted(times)[-3] < 1.0  # p99
    assert set(forged) <= {403, 429}
    assert forged.total() > 100
