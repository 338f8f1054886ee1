"""Signed 8 KB pushes over 64 connections, each durable before its answer: against a Tornado handler that only verifies.

Then the same while four workers take in large repositories.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from support import ROUNDS, SECRET, Daemon, folder, make_repository, middle, report, served
from tornado.web import Application, RequestHandler

CONNECTIONS = 64
SECONDS = 3.0
BODY_BYTES = 8_000
LARGE_FILES = 30_000
WORKERS = 4


class Verify(RequestHandler):
    """What any receiver does at least."""

    def post(self) -> None:
        wanted = "sha256=" + hmac.new(SECRET.encode(), self.request.body, hashlib.sha256).hexdigest()
        if not hmac.compare_digest(wanted, self.request.headers.get("X-Hub-Signature-256", "")):
            self.set_status(403)
        self.write({"status": "accepted"})


async def verify() -> None:
    server = Application([("/", Verify)]).listen(0, "127.0.0.1")
    port = next(iter(server._sockets.values())).getsockname()[1]
    print(f"http://127.0.0.1:{port}/", flush=True)
    await asyncio.to_thread(sys.stdin.read)


@contextmanager
def verifying() -> Iterator[str]:
    command = [sys.executable, __file__, "verify"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.communicate()


@contextmanager
def running(
    path: Path, api_url: str, repositories: tuple[str, ...], *, level: str = "warning", **settings: str
) -> Iterator[str]:
    """The address to which a daemon of its own takes deliveries."""
    path.mkdir()
    daemon = Daemon(path, api_url, repositories=repositories, **settings)
    daemon.config.write_text(daemon.config.read_text().replace('level = "debug"', f'level = "{level}"'))
    try:
        yield daemon.start().webhook_url
    finally:
        daemon.end()


def push(head: str) -> bytes:
    """A push that leads to the head that is there: what is measured is the intake."""
    payload = {
        "ref": "refs/heads/main",
        "before": "1" * 40,
        "after": head,
        "forced": False,
        "commits": [],
        "repository": {"full_name": "octo/data", "default_branch": "main"},
    }
    return json.dumps(payload | {"filler": "x" * (BODY_BYTES - len(json.dumps(payload)))}).encode()


async def deliver(url: str, body: bytes, seconds: float) -> list[float]:
    """Milliseconds that each delivery took; all of them answered 200."""
    parts = urlsplit(url)
    signature = "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    took: list[float] = []
    end = time.perf_counter() + seconds

    async def one() -> None:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        while time.perf_counter() < end:
            head = (
                f"POST {parts.path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\nX-GitHub-Event: push\r\nX-GitHub-Delivery: {uuid.uuid4()}\r\n"
                f"X-Hub-Signature-256: {signature}\r\n\r\n"
            )
            started = time.perf_counter()
            writer.write(head.encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 200"), answer
            length = next(line for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.split(b":")[1]))
            took.append((time.perf_counter() - started) * 1000)
        writer.close()

    await asyncio.gather(*(one() for _ in range(CONNECTIONS)))
    return sorted(took)


def measured(url: str, body: bytes) -> tuple[float, float]:
    """Deliveries a second, and the 99th percentile in milliseconds."""
    took = asyncio.run(deliver(url, body, SECONDS))
    return len(took) / SECONDS, took[len(took) * 99 // 100]


def main() -> None:
    with folder() as path:
        small = make_repository(path / "small.git", 10)
        large = make_repository(path / "large.git", LARGE_FILES)
        names = [f"octo/large{number}" for number in range(WORKERS)]
        body = push(small.head() or "")
        with served({"octo/data": small.path, **dict.fromkeys(names, large.path)}) as github:
            ours, theirs = [], []
            with verifying() as bare, running(path / "daemon", github.url, ("octo/data",)) as url:
                measured(url, body)  # warms both
                measured(bare, body)
                for _ in range(ROUNDS):
                    ours.append(measured(url, body))
                    theirs.append(measured(bare, body))
            with running(path / "busy", github.url, ("octo/data", *names)) as url:
                busy = measured(url, body)
    rates = [middle([rate for rate, _ in some]) for some in (ours, theirs)]
    tails = [middle([tail for _, tail in some]) for some in (ours, theirs)]
    report(
        "ingest",
        connections=CONNECTIONS,
        deliveries_a_second=round(rates[0]),
        against_verifying_only=round(rates[0] / rates[1], 2),
        p99_ms=round(tails[0], 1),
        p99_against_verifying_only=round(tails[0] / tails[1], 2),
        p99_ms_while_syncing=round(busy[1], 1),
        deliveries_a_second_while_syncing=round(busy[0]),
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["verify"]:
        asyncio.run(verify())
    else:
        main()
