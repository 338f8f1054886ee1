"""Opaque cursors: where a list goes on, and which list it was.

A position is integers and text; bytes travel as Latin-1 text. Cursors are not secret and not signed: whoever
makes one up gets at most another page of what they may read anyway.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from daemon.errors import Refusal

LARGEST = 2**63 - 1  # what an integer column takes


def write(kind: str, *position: int | str) -> str:
    """A cursor into the list ``kind``."""
    raw = json.dumps([kind, *position], separators=(",", ":")).encode("ascii")
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def read(text: str, kind: str, *shape: type[int | str]) -> tuple[Any, ...]:
    """The position in a cursor of that kind and shape. Raises Refusal 422 for anything else."""
    found = _decode(text)
    if not isinstance(found, list) or len(found) != 1 + len(shape) or found[0] != kind:
        raise Refusal(422, "cursor is not one of this list")
    if not all(_fits(value, wanted) for value, wanted in zip(found[1:], shape, strict=True)):
        raise Refusal(422, "cursor is not one of this list")
    return tuple(found[1:])


def _decode(text: str) -> Any:
    try:
        raw = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
        return json.loads(raw)
    except (ValueError, RecursionError):
        raise Refusal(422, "cursor is not valid") from None


def _fits(value: Any, wanted: type[int | str]) -> bool:
    if type(value) is not wanted:
        return False
    if isinstance(value, int):
        return 0 <= value <= LARGEST
    return not any("\ud800" <= character <= "\udfff" for character in value)
