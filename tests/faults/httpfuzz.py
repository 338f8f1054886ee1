"""Hostile HTTP, made from a seed: good requests bent in the ways that parsers disagree about, and plain noise."""

from __future__ import annotations

import hashlib
import hmac
import json
import random
import socket
from dataclasses import dataclass

PUSH = json.dumps(
    {
        "ref": "refs/heads/nowhere",  # not tracked: what arrives whole costs no sync
        "before": "0" * 40,
        "after": "a" * 40,
        "repository": {"id": 1, "full_name": "octo/data", "name": "data", "owner": {"login": "octo"}},
        "commits": [{"added": ["a"], "modified": [], "removed": []}],
    }
).encode()
HOOK = b"/api/v1/webhooks/github"
ADMIN = (b"/", b"/api/v1/status", b"/api/v1/repositories", b"/api/v1/search?q=a", b"/metrics", b"/api/v1/changes")
METHODS = (
    b"GET",
    b"POST",
    b"PUT",
    b"HEAD",
    b"OPTIONS",
    b"TRACE",
    b"DELETE",
    b"CONNECT",
    b"get",
    b"PRI",
    b"G\x00T",
    b"",
)
TARGETS = (
    *(
        b"//",
        b"/%00",
        b"/..%2f..%2fetc/passwd",
        b"/hook;x",
        b"*",
        b"http://evil.example/",
        b"/\xff\xfe",
        b"/?" + b"a" * 9000,
    ),
    *(
        HOOK + b"/",
        b"/" + HOOK,
        HOOK + b"%2f",
        HOOK + b"?x=1",
        b"/api/v1/repositories/octo/data/raw/%",
        b"/api/v1/entities/%zz",
    ),
    *(
        b"/api/v1/runs?limit=-1",
        b"/api/v1/runs?cursor=%ff",
        b"/api/v1/files?limit=1e9",
        b"/api/v1/repositories/a/b/files?prefix=%00",
    ),
)
HEADERS = (
    *(b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked, chunked"),
    *(b"Transfer-Encoding : chunked", b"Transfer-Encoding:\tchunked", b"Content-Length: +5", b"Content-Length: 0x5"),
    *(b"Content-Length: -1", b"Content-Length: 99999999999999999999", b"Content-Length: 5, 5", b"Content-Length: 5"),
    *(
        b"Content-Encoding: gzip",
        b"Expect: 100-continue",
        b"Upgrade: h2c",
        b"Connection: upgrade",
        b"Host: evil.example",
    ),
    *(b"Host:", b"X-Hub-Signature-256: sha256=\xe9", b"X-Hub-Signature-256: " + b"a" * 10_000, b"X-Hub-Signature-256:"),
    *(b"Content-Type: multipart/form-data; boundary=x", b"Content-Type: application/json; charset=nope"),
    *(b"Content-Type: application/x-www-form-urlencoded", b"Cookie: " + b'a="\\' * 5000, b"Authorization: Bearer \xff"),
    *(
        b"Range: bytes=0-,-1",
        b"If-None-Match: " + b'"x",' * 2000,
        b" folded: yes",
        b"NoColon",
        b"X-\x00: y",
        b"X: a\rb",
    ),
    *(b"Last-Event-ID: \xff", b"Origin: null", b"Sec-Fetch-Site: cross-site", b"X-GitHub-Event: __class__"),
    *(b"X-GitHub-Delivery: " + b"g" * 8000, b"X-GitHub-Delivery: '; DROP TABLE delivery; --", b"X-GitHub-Delivery:"),
)
BODIES = (
    *(b"", b"{}", b"[]", b"null", b"1e999", b"NaN", b"[" * 5000, b'{"ref": 5}', b'{"a": "\\ud800"}', b"\xef\xbb\xbf{}"),
    *(b"payload=%7B%7D", b"payload=", b"a=1&" * 2000, b"--x\r\n\r\n\r\n--x--", "{}".encode("utf-16"), b"9" * 5000),
    *(b'{"ref": "refs/heads/main", "commits": [null]}', b'{"repository": []}', b'{"repository": {"id": true}}', PUSH),
)
NOISE = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64,  # a TLS ClientHello
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\r\n" * 2000,
    b"\x00" * 500,
    b"SSH-2.0-x\r\n",
    b"GET /healthz\r\n",
    b"GET /healthz HTTP/9.9\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\n" + b"X: y\r\n" * 3000 + b"\r\n",
)


@dataclass(frozen=True)
class Fuzzer:
    """Makes the input of a number: the same one each time."""

    secret: str
    seed: int = 0

    def make(self, number: int) -> bytes:
        chance = random.Random(self.seed * 1_000_003 + number)
        if chance.random() < 0.08:
            return chance.choice(NOISE)
        raw = self._request(chance)
        return self._bent(chance, raw) if chance.random() < 0.5 else raw

    def _request(self, chance: random.Random) -> bytes:
        hook = chance.random() < 0.5
        body = chance.choice(BODIES) if hook else b""
        method = (b"POST" if hook else b"GET") if chance.random() < 0.7 else chance.choice(METHODS)
        plain = HOOK if hook else chance.choice(ADMIN)
        target = plain if chance.random() < 0.7 else chance.choice(TARGETS)
        headers = [b"Host: 127.0.0.1"] if chance.random() < 0.95 else []
        if hook:
            headers += [
                b"Content-Type: application/json",
                b"X-GitHub-Event: push",
                b"X-GitHub-Delivery: %d" % chance.getrandbits(60),
            ]
            headers.append(b"X-Hub-Signature-256: sha256=" + self._signature(body, good=chance.random() < 0.6))
        chunked = chance.random() < 0.15
        if chunked:
            headers.append(b"Transfer-Encoding: chunked")
        elif body or hook:
            headers.append(
                b"Content-Length: %d" % (len(body) + (0 if chance.random() < 0.9 else chance.randint(-3, 3)))
            )
        headers += chance.choices(HEADERS, k=chance.choice((0, 0, 0, 1, 1, 2)))
        chance.shuffle(headers)
        line = chance.choice((b"\r\n", b"\r\n", b"\r\n", b"\n"))
        head = line.join([method + b" " + target + b" HTTP/1.1", *headers]) + line * 2
        return head + (self._chunks(chance, body) if chunked else body)

    def _signature(self, body: bytes, *, good: bool) -> bytes:
        return hmac.new(self.secret.encode() if good else b"wrong", body, hashlib.sha256).hexdigest().encode()

    def _chunks(self, chance: random.Random, body: bytes) -> bytes:
        size = chance.choice((1, 7, 4096))
        parts = [body[i : i + size] for i in range(0, min(len(body), 300 * size), size)]
        odd = chance.choice((b"%x\r\n", b"%x\r\n", b"%x;ext=1\r\n", b"0%x\r\n", b"%X \r\n", b"-%x\r\n"))
        return b"".join(odd % len(part) + part + b"\r\n" for part in parts) + chance.choice(
            (b"0\r\n\r\n", b"0\r\n\r\n", b"0", b"")
        )

    def _bent(self, chance: random.Random, raw: bytes) -> bytes:
        bent = bytearray(raw)
        for _ in range(chance.choice((1, 1, 2, 8))):
            at = chance.randrange(len(bent) or 1)
            kind = chance.randrange(5)
            if kind == 0 and bent:
                bent[at] = chance.randrange(256)
            elif kind == 1:
                bent[at:at] = bytes(chance.choices(range(256), k=chance.randint(1, 20)))
            elif kind == 2:
                del bent[at : at + chance.randint(1, 20)]
            elif kind == 3:
                bent[at:at] = bent[at : at + chance.randint(1, 50)]
            else:
                del bent[at:]
        return bytes(bent)


def exchange(address: tuple[str, int], data: bytes, *, seconds: float = 20.0) -> list[int]:
    """Send it, say that nothing more comes, and read to the end; the statuses of the answers, in order."""
    with socket.create_connection(address, timeout=seconds) as peer:
        try:
            peer.sendall(data)
            peer.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the peer has had enough already: what it said may still be there
        answer = b""
        try:
            while piece := peer.recv(65536):
                answer += piece
                if len(answer) > 4_000_000:
                    break  # a page of the dashboard or the metrics, many times over
        except ConnectionResetError:
            pass
    return statuses(answer)


def statuses(answer: bytes) -> list[int]:
    """The status of every answer in a stream of them; bodies are told apart by their length."""
    found: list[int] = []
    while answer.startswith(b"HTTP/1."):
        head, separator, rest = answer.partition(b"\r\n\r\n")
        if not separator:
            break
        lines = head.split(b"\r\n")
        found.append(int(lines[0].split(b" ")[1]))
        lengths = [int(line.split(b":")[1]) for line in lines if line.lower().startswith(b"content-length:")]
        answer = rest[lengths[0] :] if lengths else b""
    return found
