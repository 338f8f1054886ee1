"""Stored bytes over HTTP: conditional and range requests, and never anything a browser would run. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from daemon.web.app import Answer, encode

RANGE = re.compile(r"bytes[ \t]*=[ \t]*([0-9]{0,18})-([0-9]{0,18})[ \t]*", re.IGNORECASE)
TAG = re.compile(r'(W/)?("[^"]*")')


def serve(
    content: bytes, sha: str, *, request: Mapping[str, str], headers: Mapping[str, str], method: str = "GET"
) -> Answer:
    """The bytes, or the part of them that ``request`` asks for; 304, 412, 416 where they apply.

    ``sha`` is the blob id and so the strongest validator there is.
    """
    etag = f'"{sha}"'
    told = {
        **headers,
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "Content-Security-Policy": "sandbox; default-src 'none'; frame-ancestors 'none'",
        "Content-Type": _content_type(content),
    }
    if "If-Match" in request and not _matches(request["If-Match"], etag, strongly=True):
        return encode({"detail": "The file is another one now"}, status=412, headers={**headers, "ETag": etag})
    if "If-None-Match" in request and _matches(request["If-None-Match"], etag):
        return Answer(b"", 304, told)
    # Only GET has ranges: with HEAD the header means nothing (RFC 9110, 14.2).
    span = _span(request, etag, len(content)) if method == "GET" else None
    if span is None:
        return Answer(content, 200, told)
    first, last = span
    if first > last:
        unsatisfied = {**headers, "Content-Range": f"bytes */{len(content)}"}
        return encode({"detail": "Range not satisfiable"}, status=416, headers=unsatisfied)
    told["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
    return Answer(content[first : last + 1], 206, told)


def _content_type(content: bytes) -> str:
    """Text when it is text, else bytes: the name of a file never makes it HTML or a script."""
    if b"\0" not in content:
        try:
            content.decode()
        except UnicodeDecodeError:
            pass
        else:
            return "text/plain; charset=utf-8"
    return "application/octet-stream"


def _matches(tags: str, etag: str, *, strongly: bool = False) -> bool:
    """Whether a list of tags names this one; a weak tag never does ``strongly`` (RFC 9110, 8.8.3.2)."""
    return tags.strip() == "*" or any(tag == etag and not (weak and strongly) for weak, tag in TAG.findall(tags))


def _span(request: Mapping[str, str], etag: str, size: int) -> tuple[int, int] | None:
    """The first and last byte asked for, the first beyond the last when there are none such; None for all.

    What is malformed, or asks for several ranges, is ignored (RFC 9110, 14.2).
    """
    asked = RANGE.fullmatch(request.get("Range", ""))
    if asked is None or asked.groups() == ("", "") or request.get("If-Range", etag) != etag:
        return None
    first, last = asked.groups()
    if not first:
        return (max(0, size - int(last)), size - 1)
    if last and int(last) < int(first):
        return None
    end = min(int(last), size - 1) if last else size - 1
    return (int(first), end)
