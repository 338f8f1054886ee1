"""A request and its answer as values, so that faults can bend an answer before it is sent."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

DOCUMENTATION_URL = "https://docs.github.com/rest"
COMPRESSED_FROM_BYTES = 1400
JSON_TYPE = "application/json; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Request:
    """One request: header names are lower-case, ``path`` is decoded, ``target`` is as it was sent."""

    method: str
    target: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = b""

    def number(self, name: str, default: int) -> int:
        """A query parameter as a number; what is not one counts as absent, as on GitHub."""
        value = self.query.get(name, "")
        return int(value) if value.isascii() and value.isdigit() else default

    def page_size(self) -> int:
        return max(1, min(100, self.number("per_page", 30)))

    def accepts(self, *kinds: str) -> bool:
        """Whether Accept names one of GitHub's media types (``raw``, ``sha``), in any of their spellings."""
        accept = self.headers.get("accept", "")
        names = {f"application/vnd.github.{version}{kind}" for kind in kinds for version in ("", "v3.")}
        return any(part.split(";")[0].strip().removesuffix("+json") in names for part in accept.split(","))


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent back; the fields after the headers say how it goes wrong on the way."""

    status: int
    body: bytes | Iterator[bytes] = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    drop: bool = False  # close without a byte
    reset: bool = False  # end with RST instead of FIN
    cut_after_bytes: int | None = None  # of the body
    bytes_per_second: float | None = None
    raw: bytes | None = None  # sent as it stands instead of all else, then the connection is closed
    close_delimited: bool = False  # no length, no chunks: the end of the connection is the end of the body

    def with_headers(self, **headers: str) -> Answer:
        """The same with headers added or replaced; ``retry_after`` stands for ``retry-after``."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return replace(self, headers={**self.headers, **named})


class Problem(Exception):
    """Ends a request with an error answer in GitHub's shape."""

    def __init__(self, status: int, message: str, /, **more: Any) -> None:
        self.status = status
        self.message = message
        self.more = more
        super().__init__(message)

    def answer(self) -> Answer:
        body = {"message": self.message, "documentation_url": DOCUMENTATION_URL, "status": str(self.status)}
        return json_answer({**body, **self.more}, status=self.status)


def not_found() -> Problem:
    return Problem(404, "Not Found")


def compressed(answer: Answer, request: Request) -> Answer:
    """Larger JSON goes out as gzip to those who take it, unless it is to go wrong on the way."""
    spoiled = answer.cut_after_bytes is not None or answer.bytes_per_second or answer.close_delimited
    if not isinstance(answer.body, bytes) or len(answer.body) < COMPRESSED_FROM_BYTES or spoiled:
        return answer
    takes_it = "gzip" in request.headers.get("accept-encoding", "") and "content-encoding" not in answer.headers
    if not takes_it or answer.headers.get("content-type") != JSON_TYPE:
        return answer
    packed = replace(answer, body=gzip.compress(answer.body, 1, mtime=0))
    return packed.with_headers(content_encoding="gzip", vary="Accept, Authorization, Accept-Encoding")


def json_answer(value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    # Paths that are not UTF-8 were decoded with U+FFFD before; anything else a repository holds can be encoded.
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return Answer(status, body, {"content-type": JSON_TYPE, **(headers or {})})


def conditional(answer: Answer, request: Request) -> Answer:
    """Give a 200 its ETag, and turn it into 304 when the client has it already.

    The ETag of JSON depends on the token, as GitHub's does: a new token voids all of them.
    """
    if answer.status != 200 or request.method != "GET" or not isinstance(answer.body, bytes):  # noqa: PLR2004
        return answer
    etag = answer.headers.get("etag")
    if etag is None:
        salt = request.headers.get("authorization", "") + request.headers.get("accept", "")
        etag = f'W/"{hashlib.sha256(salt.encode() + answer.body).hexdigest()}"'
        answer = answer.with_headers(etag=etag)
    asked = {part.strip().removeprefix("W/") for part in request.headers.get("if-none-match", "").split(",")}
    if etag.removeprefix("W/") in asked:
        kept = {name: value for name, value in answer.headers.items() if not name.startswith("content-")}
        return Answer(304, b"", kept)
    return answer
