"""Who may deliver, over real sockets: peers, spoofed headers, proxies that are trusted and others that are not."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path

import web_peer
from structlog.testing import capture_logs
from tornado import web
from web_peer import Reply, read_reply

from daemon.config import Address
from daemon.metrics import Metrics
from daemon.model import Delivery, DeliveryStatus, TrackedRepository
from daemon.triggers.intake import TrackingView
from daemon.values import parse_proxy
from daemon.web.public import PublicDeps, make_public_app
from daemon.web.senders import Senders

PATH = "/hooks"
SECRET = b"correct horse battery staple"
GITHUB = (ip_network("140.82.112.0/20"), ip_network("2a0a:a440::/29"))
HOOK, STRANGER = "140.82.115.7", "203.0.113.9"
BODY = json.dumps({"ref": "refs/heads/main", "commits": []}).encode()


@dataclass
class Listening:
    proxies: tuple[str, ...] = ()
    networks: tuple[object, ...] | None = GITHUB
    stored: list[Delivery] = field(default_factory=list)
    metrics: Metrics = field(default_factory=Metrics)
    address: tuple[str, int] | str = ("127.0.0.1", 0)

    def senders(self) -> Senders:
        return Senders(only_github=True, networks=self.networks, proxies=tuple(map(parse_proxy, self.proxies)))

    def submit(self, delivery: Delivery) -> Future[DeliveryStatus]:
        self.stored.append(delivery)
        answer: Future[DeliveryStatus] = Future()
        answer.set_result(delivery.status)
        return answer

    def app(self, executor: ThreadPoolExecutor) -> web.Application:
        tracked = TrackedRepository(id=1, github_id=1, owner="octo", name="demo", default_branch="main", branches=())
        deps = PublicDeps(
            path=PATH,
            secrets=lambda: (SECRET,),
            max_body_bytes=lambda: 300_000,
            tracking=lambda: TrackingView((tracked,)),
            configured=lambda: True,
            submit=self.submit,
            now=lambda: datetime(2026, 11, 23, tzinfo=UTC),
            metrics=self.metrics,
            executor=executor,
            senders=self.senders,
        )
        return make_public_app(deps)

    def ask(self, *headers: str, method: str = "POST", path: str = PATH, body: bytes = BODY) -> Reply:
        lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *headers, "", ""]
        with self._connected() as connection:
            connection.sendall("\r\n".join(lines).encode("latin-1") + body)
            reply = read_reply(connection, method)
        assert reply is not None
        return reply

    def deliver(self, *headers: str, body: bytes = BODY) -> Reply:
        signature = "sha256=" + hmac.new(SECRET, body, hashlib.sha256).hexdigest()
        own = (f"X-Hub-Signature-256: {signature}", "Content-Type: application/json", "X-GitHub-Event: push")
        return self.ask(*own, *headers, body=body)

    def _connected(self) -> socket.socket:
        if isinstance(self.address, tuple):
            return socket.create_connection(self.address, timeout=web_peer.DEADLINE)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(web_peer.DEADLINE)
        connection.connect(self.address)
        return connection


@contextmanager
def serve(listening: Listening, *, unix: Path | None = None) -> Iterator[Listening]:
    if unix is not None:
        listening.address = str(unix)
        with web_peer.serve(listening.app, Address("unix", path=str(unix))):
            yield listening
        return
    with web_peer.serve(listening.app) as port:
        listening.address = ("127.0.0.1", port)
        yield listening


def test_a_peer_that_is_githubs_is_let_in_and_another_is_refused_and_logged_once() -> None:
    with serve(Listening(networks=(ip_network("127.0.0.0/8"),))) as listening:
        assert listening.deliver().json["status"] == "accepted"
    with serve(Listening()) as listening, capture_logs() as logs:
        reply = listening.deliver()
    assert (reply.status, reply.json) == (403, {"detail": "Not one of GitHub's addresses"})
    assert listening.stored == []
    (line,) = [line for line in logs if line["event"] == "delivery.refused"]
    assert (line["client"], line["peer"], line["code"]) == ("127.0.0.1", "127.0.0.1", 403)


def test_spoofed_headers_open_nothing() -> None:
    spoofs = (
        f"X-Forwarded-For: {HOOK}",
        f"X-Forwarded-For: {STRANGER}, {HOOK}",
        f"X-Real-IP: {HOOK}",
        f"Forwarded: for={HOOK}",
        f"X-Client-IP: {HOOK}",
        f"True-Client-IP: {HOOK}",
    )
    with serve(Listening(proxies=("127.0.0.2", "unix"))) as listening:
        assert [listening.deliver(spoof).status for spoof in spoofs] == [403] * len(spoofs)
    with serve(Listening(proxies=("127.0.0.1",))) as listening:
        beside = [f"X-Forwarded-For: {STRANGER}", *spoofs[2:]]
        assert listening.deliver(*beside).status == 403
    assert listening.stored == []


def test_of_a_trusted_proxys_headers_the_last_hop_counts() -> None:
    with serve(Listening(proxies=("127.0.0.0/8",))) as listening, capture_logs() as logs:
        assert listening.deliver(f"X-Forwarded-For: {HOOK}").status == 200
        assert listening.deliver(f"X-Forwarded-For: {STRANGER}, {HOOK}").status == 200
        assert listening.deliver(f"X-Forwarded-For: {STRANGER}", f"X-Forwarded-For: {HOOK}").status == 200
        assert listening.deliver("X-Forwarded-For: 2a0a:a440::7").status == 200
        assert listening.deliver(f"X-Forwarded-For: {HOOK}, {STRANGER}").status == 403
        assert listening.deliver(f"X-Forwarded-For: {HOOK}", f"x-forwarded-for: {STRANGER}").status == 403
        assert listening.deliver(f"X-Forwarded-For: {HOOK}, \xff").status == 403
        assert listening.deliver().status == 403
    assert len(listening.stored) == 4
    clients = [line["client"] for line in logs if line["event"] == "delivery.refused"]
    assert clients == [STRANGER, STRANGER, None, "127.0.0.1"]


def test_a_unix_socket_is_trusted_only_by_its_word(tmp_path: Path) -> None:
    path = tmp_path / "hooks.sock"
    with serve(Listening(proxies=("0.0.0.0/0", "::/0"), networks=(ip_network("0.0.0.0/0"),)), unix=path) as listening:
        assert listening.deliver(f"X-Forwarded-For: {HOOK}").status == 403
    with serve(Listening(proxies=("unix",)), unix=path) as listening:
        assert listening.deliver(f"X-Forwarded-For: {HOOK}").status == 200
        assert listening.deliver(f"X-Forwarded-For: {STRANGER}").status == 403
        assert listening.deliver().status == 403


def test_before_githubs_addresses_are_known_a_delivery_is_told_to_come_back() -> None:
    with serve(Listening(networks=None)) as listening:
        reply = listening.deliver()
        assert (reply.status, reply.headers["retry-after"]) == (503, "5")
        listening.networks = (ip_network("127.0.0.1"),)
        assert listening.deliver().status == 200


def test_method_path_and_size_are_checked_before_and_the_signature_after() -> None:
    with serve(Listening()) as listening:
        assert listening.ask(method="GET", body=b"").status == 405
        assert listening.ask(path="/elsewhere").status == 404
        assert listening.deliver(body=b"x" * 300_001).status == 413
        assert listening.ask("X-Hub-Signature-256: sha256=wrong").json["detail"] == "Not one of GitHub's addresses"
    with serve(Listening(networks=(ip_network("127.0.0.1"),))) as listening:
        wrong = listening.ask("X-Hub-Signature-256: sha256=wrong", "Content-Type: application/json")
        assert wrong.json["detail"] == "Invalid signature"


def test_health_is_told_to_everybody() -> None:
    for networks in (GITHUB, None):
        with serve(Listening(networks=networks)) as listening:
            assert listening.ask(method="GET", path="/healthz", body=b"").status == 200
