"""Styles, scripts and the icon of the pages, as they are in the package."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from daemon.errors import Refusal
from daemon.web.api import Call
from daemon.web.app import Answer

FOLDER = Path(__file__).parent / "static"
TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@cache
def files() -> dict[str, tuple[bytes, str, str]]:
    """Content, media type and ETag by path; a path that is not in here does not exist, whatever it is made of."""
    found = [path for path in sorted(FOLDER.rglob("*")) if path.suffix in TYPES]
    return {path.relative_to(FOLDER).as_posix(): _file(path) for path in found}


def _file(path: Path) -> tuple[bytes, str, str]:
    content = path.read_bytes()
    return content, f"{TYPES[path.suffix]}; charset=utf-8", f'"{hashlib.sha256(content).hexdigest()[:32]}"'


def serve(call: Call) -> Answer:
    """One of the files, asked again each time and mostly unchanged. Raises Refusal 404."""
    found = files().get(call.segments["path"].decode("latin-1"))
    if found is None:
        raise Refusal(404, "Not found")
    content, media_type, etag = found
    headers = {"ETag": etag, "Cache-Control": "no-cache", "Content-Type": media_type}
    if call.headers.get("If-None-Match") == etag:
        return Answer(b"", 304, headers)
    return Answer(content, headers=headers)
