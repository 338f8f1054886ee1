"""The public listener from outside: real sockets, raw requests, whatever a stranger may send."""

from __future__ import annotations

import gzip
import hashlib
import hmac
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote_plus

import pytest
import web_peer
from harness import Stopwatch
from web_peer import DEADLINE, Reply, read_reply, receive

from daemon.errors import StoreUnavailable
from daemon.metrics import Metrics
from daemon.model import Delivery, DeliveryStatus, TrackedRepository
from daemon.triggers.intake import TrackingView
from daemon.web.public import PublicDeps, make_public_app

PATH = "/hooks/github"
SECRET = b"correct horse battery staple"
CAP = 300_000


@dataclass
class Listening:
    """A public listener with its facts in reach. ``store`` decides what becomes of a delivery."""

    secrets: tuple[bytes, ...] = (SECRET,)
    cap: int = CAP
    configured: bool = True
    stored: list[Delivery] = field(default_factory=list)
    store: Callable[[Delivery, Future[DeliveryStatus]], None] | None = None
    metrics: Metrics = field(default_factory=Metrics)
    port: int = 0
    hold: threading.Event | None = None  # keeps the threads busy until it is set

    def submit(self, delivery: Delivery) -> Future[DeliveryStatus]:
        answer: Future[DeliveryStatus] = Future()
        if self.store is not None:
            self.store(delivery, answer)
            return answer
        self.stored.append(delivery)
        answer.set_result(delivery.status)
        return answer

    def counted(self, outcome: str) -> float:
        return self.metrics.deliveries.labels(outcome=outcome)._value.get()


@contextmanager
def serve(listening: Listening, **limits: Any) -> Iterator[Listening]:
    """Serve on a port of its own until the block ends."""
    with web_peer.serve(lambda executor: make_public_app(_deps(listening, executor)), **limits) as listening.port:
        yield listening


def _deps(listening: Listening, executor: ThreadPoolExecutor) -> PublicDeps:
    if listening.hold is not None:
        for _ in range(web_peer.THREADS):
            executor.submit(listening.hold.wait, DEADLINE)
    repository = TrackedRepository(id=1, github_id=1001, owner="octo", name="demo", default_branch="main", branches=())
    return PublicDeps(
        path=PATH,
        secrets=lambda: listening.secrets,
        max_body_bytes=lambda: listening.cap,
        tracking=lambda: TrackingView((repository,)),
        configured=lambda: listening.configured,
        submit=listening.submit,
        now=lambda: datetime(2026, 11, 23, tzinfo=UTC),
        metrics=listening.metrics,
        executor=executor,
    )


@pytest.fixture
def listening() -> Iterator[Listening]:
    with serve(Listening()) as served:
        yield served


# -- a client that sends exactly what it is told ----------------------------------------------------


def connect(listening: Listening) -> socket.socket:
    return web_peer.connect(listening.port)


def head(*lines: str | bytes, method: str = "POST", path: str = PATH, host: str = "Host: x") -> bytes:
    encoded = [line.encode("latin-1") if isinstance(line, str) else line for line in lines]
    return b"\r\n".join([f"{method} {path} HTTP/1.1".encode(), host.encode(), *encoded, b"", b""])


def at_end(connection: socket.socket) -> bool:
    """Whether the other side has nothing more to say and hangs up."""
    return receive(connection) == b""


def talk(listening: Listening, data: bytes, method: str = "POST") -> Reply | None:
    return web_peer.talk(listening.port, data, method)


def sign(body: bytes, secret: bytes = SECRET) -> str:
    return "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()


def deliver(
    listening: Listening,
    body: bytes | dict[str, Any],
    *extra: str | bytes,
    event: str | None = "push",
    content_type: str | None = "application/json",
    guid: str | None = "guid-1",
    signature: str | bytes | None = "right",
) -> Reply:
    """A delivery as GitHub sends it, with what is given otherwise."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines: list[str | bytes] = [f"Content-Length: {len(raw)}", *extra]
    if signature == "right":
        lines.append(f"X-Hub-Signature-256: {sign(raw)}")
    elif signature is not None:
        lines.append(b"X-Hub-Signature-256: " + (signature.encode() if isinstance(signature, str) else signature))
    for name, value in (("X-GitHub-Event", event), ("Content-Type", content_type), ("X-GitHub-Delivery", guid)):
        if value is not None:
            lines.append(f"{name}: {value}")
    reply = talk(listening, head(*lines) + raw)
    assert reply is not None
    return reply


def push(**changes: Any) -> dict[str, Any]:
    return {"ref": "refs/heads/main", "commits": [{"added": ["a"], "modified": ["b"]}], **changes}


# -- deliveries -----------------------------------------------------------------------------------


def test_a_signed_push_is_answered_as_the_contract_says(listening):
    reply = deliver(listening, push())
    assert reply.status == 200
    assert reply.json == {
        "status": "accepted",
        "event": "push",
        "files_changed": 2,
        "forced": False,
        "message": "Sync triggered in background",
        "repository": "octo/demo",
        "branch": "main",
        "delivery": "guid-1",
    }
    assert listening.stored[0].branch == "main"
    assert listening.counted("accepted") == 1


def test_the_digest_is_that_of_the_raw_body(listening):
    body = json.dumps(push(), indent=3).encode() + b"\r\n"
    deliver(listening, body)
    assert listening.stored[0].body_digest == hashlib.sha256(body).hexdigest()


@pytest.mark.parametrize(
    "text", ["emoji \N{ROCKET}", "漢字", "line\u2028separator", "e\u0301 combining", "\r\n in the text", "\u0000"]
)
def test_any_text_verifies_over_the_raw_bytes(listening, text):
    body = json.dumps(push(message=text), ensure_ascii=False).replace("{", "{\r\n", 1).encode()
    assert deliver(listening, body).json["status"] == "accepted"


def test_a_form_is_signed_over_the_form(listening):
    body = f"payload={quote_plus(json.dumps(push()))}".encode()
    reply = deliver(listening, body, content_type="application/x-www-form-urlencoded")
    assert reply.json["status"] == "accepted"


@pytest.mark.parametrize("event", ["ping", "pull_request", "__class__"])
def test_another_event_is_ignored_and_recorded(listening, event):
    reply = deliver(listening, {}, event=event)
    assert (reply.status, reply.json) == (200, {"status": "ignored", "event": event})
    assert listening.stored[0].event == event


def test_no_event_header_is_an_unknown_event(listening):
    assert deliver(listening, {}, event=None).json == {"status": "ignored", "event": "unknown"}


def test_without_a_token_a_push_is_skipped(listening):
    listening.configured = False
    expected = {"status": "skipped", "event": "push", "reason": "GitHub integration not configured"}
    assert deliver(listening, push()).json == expected


def test_what_the_store_says_is_what_is_answered(listening):
    listening.store = lambda _, answer: answer.set_result(DeliveryStatus.DUPLICATE)
    reply = deliver(listening, push())
    assert (reply.status, reply.json["status"]) == (200, "duplicate")
    assert listening.counted("duplicate") == 1


def test_an_answer_waits_for_the_commit(listening):
    asked: list[Future[DeliveryStatus]] = []
    arrived = threading.Event()

    def hold(_: Delivery, answer: Future[DeliveryStatus]) -> None:
        asked.append(answer)
        arrived.set()

    listening.store = hold
    body = json.dumps(push()).encode()
    lines = (f"Content-Length: {len(body)}", f"X-Hub-Signature-256: {sign(body)}", "X-GitHub-Event: push")
    with connect(listening) as connection:
        connection.sendall(head(*lines, "Content-Type: application/json") + body)
        assert arrived.wait(DEADLINE)
        connection.settimeout(0.2)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.settimeout(DEADLINE)
        asked[0].set_result(DeliveryStatus.ACCEPTED)
        reply = read_reply(connection)
    assert reply is not None
    assert reply.json["status"] == "accepted"


@pytest.mark.parametrize("error", [StoreUnavailable("disk full at /var/secret"), RuntimeError("a bug, /etc/passwd")])
def test_what_cannot_be_stored_is_a_503_that_asks_to_come_back(listening, error):
    listening.store = lambda _, answer: answer.set_exception(error)
    reply = deliver(listening, push())
    assert reply.status == 503
    assert reply.headers["retry-after"] == "5"
    assert set(reply.json) == {"detail"}
    assert b"/" not in reply.body
    assert listening.counted("unavailable") == 1


def test_a_store_that_does_not_answer_is_a_503_within_eight_seconds(listening):
    waiting: list[Future[DeliveryStatus]] = []
    listening.store = lambda _, answer: waiting.append(answer)
    with Stopwatch() as watch:
        reply = deliver(listening, push())
    assert (reply.status, reply.headers["retry-after"]) == (503, "5")
    assert watch.seconds < 8.0
    assert waiting[0].cancelled()


def test_threads_that_are_all_busy_are_a_503_too(monkeypatch):
    monkeypatch.setattr("daemon.web.public.STORE_SECONDS", 0.3)
    held = threading.Event()
    listening = Listening(hold=held)
    with serve(listening):
        reply = deliver(listening, b" " * (CAP - 1))
        held.set()
    assert (reply.status, listening.stored) == (503, [])


def test_a_cancelled_delivery_is_a_503(listening):
    listening.store = lambda _, answer: answer.cancel()
    assert deliver(listening, push()).status == 503


# -- the signature --------------------------------------------------------------------------------


def test_no_signature_is_refused_before_anything_is_parsed(listening):
    reply = deliver(listening, b"{ not json", signature=None)
    assert (reply.status, reply.json) == (403, {"detail": "Missing signature header"})
    assert listening.stored == []
    assert listening.counted("refused") == 1


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"sha256=",
        b"sha256=" + b"0" * 64,
        b"sha256=\xe9",
        b"\xff" * 71,
        b"SHA256=" + b"0" * 64,
        b"sha256=" + b"A" * 64,
        b"sha1=" + b"0" * 40,
        b"sha256=" + b"0" * 10_000,
    ],
)
def test_a_signature_of_any_bytes_is_answered_403(listening, value):
    reply = deliver(listening, b"{ not json", signature=value)
    assert (reply.status, reply.json) == (403, {"detail": "Invalid signature"})
    assert listening.stored == []


def test_only_the_sha1_header_is_a_missing_signature(listening):
    body = json.dumps(push()).encode()
    old = "X-Hub-Signature: sha1=" + hmac.new(SECRET, body, "sha1").hexdigest()
    assert deliver(listening, body, old, signature=None).json == {"detail": "Missing signature header"}


def test_two_signature_headers_are_invalid_though_one_is_right(listening):
    body = json.dumps(push()).encode()
    for pair in ([sign(body), "sha256=" + "0" * 64], [sign(body), sign(body)]):
        reply = deliver(listening, body, *(f"X-Hub-Signature-256: {value}" for value in pair), signature=None)
        assert (reply.status, reply.json) == (403, {"detail": "Invalid signature"})


def test_every_secret_verifies_and_a_removed_one_does_not_from_the_next_request_on(listening):
    body = json.dumps(push()).encode()
    listening.secrets = (b"new", b"old")
    for secret in (b"new", b"old"):
        assert deliver(listening, body, signature=sign(body, secret)).status == 200
    listening.secrets = (b"new",)
    assert deliver(listening, body, signature=sign(body, b"old")).status == 403
    assert deliver(listening, body, signature=sign(body, b"")).status == 403


def test_without_a_secret_nothing_is_verified(listening):
    listening.secrets = ()
    assert deliver(listening, push(), signature=None).json["status"] == "accepted"


# -- the body -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [None, "text/plain", "multipart/form-data; boundary=x", "application/json,text/plain"])
def test_another_content_type_is_a_415_and_is_not_parsed(listening, kind):
    reply = deliver(listening, b"--x\r\n" * 1000, content_type=kind)
    assert reply.status == 415
    assert set(reply.json) == {"detail"}


def test_a_charset_is_ignored(listening):
    assert deliver(listening, push(), content_type="application/json; charset=nope").json["status"] == "accepted"


def test_a_compressed_body_is_a_415_and_is_not_inflated(listening):
    bomb = gzip.compress(b" " * 10_000_000)
    assert deliver(listening, bomb, "Content-Encoding: gzip").status == 415
    assert deliver(listening, push(), "Content-Encoding: identity").status == 200


def test_a_form_of_a_million_fields_is_refused_at_once(listening):
    listening.cap = 10_000_000
    began = time.process_time()
    body = b"a=1&" * 1_000_000
    assert deliver(listening, body, content_type="application/x-www-form-urlencoded").status == 400
    assert deliver(listening, body, content_type="application/x-www-form-urlencoded", signature=None).status == 403
    assert time.process_time() - began < 5.0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"17",
        b'{"a": NaN}',
        b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a": ' + b"9" * 5000 + b"}",
        json.dumps(push()).encode("utf-16"),
        b"\xef\xbb\xbf" + json.dumps(push()).encode(),
        b'{"ref": "refs/heads/main", "ref": "refs/heads/main"}',
        b'{"ref": 1}',
        b'{"ref": "refs/heads/\\ud800"}',
        b'{"ref": "refs/heads/\\u0000"}',
        b'{"ref": "refs/heads/main", "repository": null}',
        b'{"ref": "refs/heads/main", "repository": {"id": 1e400}}',
        b'{"ref": "refs/heads/main", "commits": [[]]}',
    ],
)
def test_a_signed_body_that_makes_no_sense_is_a_400(listening, body):
    reply = deliver(listening, body)
    assert reply.status == 400
    assert set(reply.json) == {"detail"}
    assert listening.stored == []


@pytest.mark.parametrize("guid", ["x" * 201, "a\tb", "\xe9"])
def test_a_guid_that_cannot_be_a_key_is_a_400_once_the_signature_is_right(listening, guid):
    assert deliver(listening, push(), guid=guid).status == 400
    assert deliver(listening, push(), guid=guid, signature="sha256=" + "0" * 64).status == 403


def test_a_missing_guid_is_accepted(listening):
    assert deliver(listening, push(), guid=None).json["delivery"] is None
    assert listening.stored[0].guid is None


def test_a_guid_is_only_ever_a_key(listening):
    for guid in ("'; DROP TABLE delivery; --", "../../etc/passwd"):
        assert deliver(listening, push(), guid=guid).json["delivery"] == guid


# -- size -----------------------------------------------------------------------------------------


def test_a_body_as_large_as_the_cap_is_taken(listening):
    body = json.dumps(push()).encode()
    body += b" " * (CAP - len(body))
    assert deliver(listening, body).json["status"] == "accepted"


def test_a_length_beyond_the_cap_is_a_413_before_a_byte_is_sent(listening):
    with connect(listening) as connection:
        connection.sendall(head(f"Content-Length: {CAP + 1}", "Content-Type: application/json"))
        reply = read_reply(connection)
        assert reply is not None
        assert (reply.status, set(reply.json)) == (413, {"detail"})
        assert at_end(connection)


@pytest.fixture
def lingering(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused is read to nowhere for as long as a slow client may take to send it."""
    monkeypatch.setattr("daemon.web.app.LINGER_SECONDS", DEADLINE)


@pytest.mark.usefixtures("lingering")
def test_a_client_that_sends_all_of_a_body_beyond_the_cap_still_reads_its_413(listening):
    reply = deliver(listening, b"x" * 20_000_000)
    assert reply.status == 413


def test_a_client_that_goes_on_sending_after_its_413_is_cut_off(listening):
    with connect(listening) as connection:
        connection.sendall(head(f"Content-Length: {10**12}", "Content-Type: application/json"))
        with Stopwatch() as watch, pytest.raises(ConnectionError):
            _send_without_end(connection)
        assert watch.seconds < 10.0


def _send_without_end(connection: socket.socket) -> None:
    while True:
        connection.sendall(b"x" * 65536)


def test_a_client_that_waits_for_the_go_ahead_is_told_413_instead(listening):
    with connect(listening) as connection:
        lines = (f"Content-Length: {CAP + 1}", "Content-Type: application/json", "Expect: 100-continue")
        connection.sendall(head(*lines))
        reply = read_reply(connection)
        assert reply is not None
        assert reply.status == 413
        assert at_end(connection)


def test_a_client_that_waits_for_the_go_ahead_gets_it(listening):
    body = json.dumps(push()).encode()
    lines = (f"Content-Length: {len(body)}", f"X-Hub-Signature-256: {sign(body)}", "X-GitHub-Event: push")
    with connect(listening) as connection:
        connection.sendall(head(*lines, "Content-Type: application/json", "Expect: 100-continue"))
        assert connection.recv(1000).startswith(b"HTTP/1.1 100")
        connection.sendall(body)
        reply = read_reply(connection)
    assert reply is not None
    assert reply.json["status"] == "accepted"


@pytest.mark.parametrize("length", ["9" * 30, "0" * 5 + "9" * 19, "4" * 4400])
def test_a_length_beyond_all_bounds_is_a_413(listening, length):
    reply = talk(listening, head(f"Content-Length: {length}", "Content-Type: application/json"))
    assert reply is not None
    assert reply.status == 413


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def test_a_chunked_body_is_taken(listening):
    body = json.dumps(push()).encode()
    lines = ("Transfer-Encoding: chunked", f"X-Hub-Signature-256: {sign(body)}", "X-GitHub-Event: push")
    reply = talk(
        listening,
        head(*lines, "Content-Type: application/json") + chunked(*(body[i : i + 1] for i in range(len(body)))),
    )
    assert reply is not None
    assert reply.json["status"] == "accepted"


@pytest.mark.usefixtures("lingering")
@pytest.mark.parametrize("piece", [1_000_000, 5000])
def test_a_chunked_body_is_cut_at_the_cap(listening, piece):
    lines = ("Transfer-Encoding: chunked", "Content-Type: application/json")
    with connect(listening) as connection:
        connection.sendall(
            head(*lines) + b"".join(b"%x\r\n%s\r\n" % (piece, b"x" * piece) for _ in range(20_000_000 // piece))
        )
        reply = read_reply(connection)
        assert reply is not None
        assert reply.status == 413
        assert at_end(connection)
    assert listening.stored == []


def test_a_chunk_that_announces_a_gigabyte_is_a_413_too(listening):
    lines = ("Transfer-Encoding: chunked", "Content-Type: application/json")
    with connect(listening) as connection:
        connection.sendall(head(*lines) + b"40000000\r\n" + b"x" * (CAP + 1))
        reply = read_reply(connection)
        assert reply is not None
        assert reply.status == 413
        assert at_end(connection)


def test_a_million_tiny_chunks_delay_nobody(listening):
    lines = ("Transfer-Encoding: chunked", "Content-Type: application/json")
    slowest = 0.0
    with connect(listening) as connection:
        connection.sendall(head(*lines))
        sender = threading.Thread(target=_send_quietly, args=(connection, b"1\r\nx\r\n" * 1_000_000))
        sender.start()
        while sender.is_alive():
            began = time.process_time()  # of the listener too: for how long it did something else first
            assert talk(listening, head(method="GET", path="/healthz"), "GET") is not None
            slowest = max(slowest, time.process_time() - began)
        sender.join()
    assert slowest < 1.0


def _send_quietly(connection: socket.socket, data: bytes) -> None:
    try:
        connection.sendall(data)
    except OSError:
        return


def test_many_large_bodies_at_once_are_asked_to_come_back_and_small_ones_are_not():
    with serve(Listening(cap=2_000_000)) as listening:
        held = []
        try:
            for _ in range(8):
                connection = connect(listening)
                held.append(connection)
                connection.sendall(head("Content-Length: 2000000", "Content-Type: application/json") + b"x" * 1_999_999)
            _until(lambda: deliver(listening, b"x" * 1_900_000).status == 503)
            for _ in range(200):  # long enough for every byte held to have arrived
                assert deliver(listening, push()).json["status"] == "accepted"
        finally:
            for connection in held:
                connection.close()
        _until(lambda: deliver(listening, b"x" * 1_900_000, signature="wrong").status == 403)  # and given back


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline


def test_a_cut_body_is_no_delivery(listening):
    body = json.dumps(push()).encode()
    lines = (f"Content-Length: {len(body) + 10}", f"X-Hub-Signature-256: {sign(body)}", "X-GitHub-Event: push")
    with connect(listening) as connection:
        connection.sendall(head(*lines, "Content-Type: application/json") + body)
        connection.shutdown(socket.SHUT_WR)
        assert at_end(connection)
    assert listening.stored == []


def test_a_body_that_stops_arriving_is_dropped_at_the_deadline():
    with serve(Listening(), body_seconds=0.3) as listening, connect(listening) as connection:
        connection.sendall(head("Content-Length: 100", "Content-Type: application/json") + b"x")
        assert at_end(connection)
        assert listening.stored == []


def test_headers_that_stop_arriving_are_dropped_at_the_deadline():
    with serve(Listening(), idle_seconds=0.3) as listening, connect(listening) as connection:
        connection.sendall(b"POST /hooks")
        assert at_end(connection)


def test_a_crowd_that_never_finishes_its_headers_keeps_nobody_out():
    with serve(Listening(), max_connections=10, idle_seconds=60.0) as listening:
        crowd = [connect(listening) for _ in range(40)]
        try:
            for connection in crowd:
                _send_quietly(connection, b"POST /hooks/github HTTP/1.1\r\nX-Slow: ")
            assert deliver(listening, push()).json["status"] == "accepted"
            assert all(at_end(connection) for connection in crowd[:30])
        finally:
            for connection in crowd:
                connection.close()


# -- what is no request ----------------------------------------------------------------------------

SIGNED = json.dumps(push()).encode()
SIGNED_LINES = (f"X-Hub-Signature-256: {sign(SIGNED)}", "X-GitHub-Event: push", "Content-Type: application/json")
LENGTH = f"Content-Length: {len(SIGNED)}"


@pytest.mark.parametrize(
    "lines",
    [
        (LENGTH, "Transfer-Encoding: chunked"),
        (LENGTH, f"Content-Length: {len(SIGNED) + 1}"),
        (f"Content-Length: +{len(SIGNED)}",),
        (f"Content-Length: {len(SIGNED):#x}",),
        ("Content-Length: -1",),
        ("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: gzip",),
        ("Transfer-Encoding: chunked, gzip",),
        ("Transfer-Encoding: \x0bchunked",),
        (LENGTH, "X-Folded: a", " b"),
        (LENGTH, b"X-Nul: a\x00b"),
        (LENGTH, b"X-Return: a\rb"),
        (LENGTH, "X-Large: " + "x" * 70_000),
        (LENGTH, "no colon here"),
        (LENGTH, "Host: another"),
    ],
)
def test_what_two_parsers_could_read_differently_is_refused_and_the_connection_closed(listening, lines):
    smuggled = head(LENGTH, *SIGNED_LINES) + SIGNED
    with connect(listening) as connection:
        _send_quietly(connection, head(*lines, *SIGNED_LINES) + SIGNED + smuggled)
        reply = read_reply(connection)
        assert reply is None or reply.status == 400
        while not at_end(connection):
            pass
    assert listening.stored == []


def test_no_host_is_refused(listening):
    reply = talk(listening, f"POST {PATH} HTTP/1.1\r\n{LENGTH}\r\n\r\n".encode() + SIGNED)
    assert reply is None or reply.status == 400


@pytest.mark.parametrize(
    "noise",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        bytes(range(256)) * 100,
        b"\r\n" * 100_000,
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET  HTTP/1.1\r\n\r\n",
    ],
)
def test_noise_is_answered_with_nothing_but_the_end(listening, noise):
    with connect(listening) as connection:
        _send_quietly(connection, noise)
        with suppress(OSError):  # it may have been cut off already
            connection.shutdown(socket.SHUT_WR)
        reply = read_reply(connection)
        assert reply is None or reply.status == 400
    assert deliver(listening, push()).status == 200


def test_ten_thousand_headers_and_a_large_cookie_cost_nothing(listening):
    began = time.process_time()
    talk(listening, head(*["X: y"] * 10_000, LENGTH) + SIGNED)
    deliver(listening, push(), 'Cookie: a="' + '\\"' * 7000, signature=None)
    assert time.process_time() - began < 2.0


# -- routes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "BREW"])
def test_only_post_delivers(listening, method):
    reply = talk(listening, head(method=method), method)
    assert reply is not None
    assert (reply.status, reply.headers["allow"]) == (405, "POST")
    assert listening.stored == []


def test_a_refused_method_with_a_body_is_answered_too(listening):
    reply = talk(listening, head(LENGTH, *SIGNED_LINES, method="PUT") + SIGNED)
    assert reply is not None
    assert reply.status == 405


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/hook",
        PATH + "/",
        "/" + PATH,
        PATH + "%2f..",
        PATH + ";x",
        PATH + "%00",
        "/x" * 5000,
        "/%ff",
        "/hooks/Github",
    ],
)
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_no_other_path_answers(listening, path, method):
    reply = talk(listening, head(LENGTH, *SIGNED_LINES, path=path, method=method) + SIGNED, method)
    assert reply is not None
    assert (reply.status, reply.json) == (404, {"detail": "Not found"})
    assert listening.stored == []


def test_health_is_a_get_and_nothing_else(listening):
    reply = talk(listening, head(method="GET", path="/healthz"), "GET")
    assert reply is not None
    assert (reply.status, reply.json) == (200, {"status": "ok"})
    refused = talk(listening, head(method="POST", path="/healthz"))
    assert refused is not None
    assert (refused.status, refused.headers["allow"]) == (405, "GET")


def test_every_answer_carries_the_guards_and_names_no_version(listening):
    for reply in (
        deliver(listening, push()),
        deliver(listening, push(), signature=None),
        talk(listening, head(method="GET", path="/nowhere"), "GET"),
        talk(listening, head(method="BREW"), "BREW"),
    ):
        assert reply is not None
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["cache-control"] == "no-store"
        assert "frame-ancestors 'none'" in reply.headers["content-security-policy"]
        assert reply.headers["content-type"].startswith("application/json")
        assert not re.search(r"\d", reply.headers["server"])


def test_a_connection_serves_one_request_after_another_refused_ones_too(listening):
    with connect(listening) as connection:
        for path, status in (("/nowhere", 404), ("/healthz", 200), (PATH, 405), ("/healthz", 200)):
            connection.sendall(head(method="GET", path=path))
            reply = read_reply(connection)
            assert reply is not None
            assert reply.status == status


def test_a_client_that_leaves_before_the_answer_has_delivered(listening):
    accepted = threading.Event()
    answers: list[Future[DeliveryStatus]] = []

    def hold(delivery: Delivery, answer: Future[DeliveryStatus]) -> None:
        listening.stored.append(delivery)
        answers.append(answer)
        accepted.set()

    listening.store = hold
    with connect(listening) as connection:
        connection.sendall(head(LENGTH, *SIGNED_LINES) + SIGNED)
        assert accepted.wait(DEADLINE)
    answers[0].set_result(DeliveryStatus.ACCEPTED)
    _until(lambda: listening.counted("accepted") == 1)
