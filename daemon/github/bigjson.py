"""JSON of many megabytes without holding the interpreter's lock: a list is decoded an element at a time. Pure.

``json.loads`` runs in C from beginning to end; on a listing of 100,000 entries it keeps every other thread, the
one that answers webhooks too, waiting for 200 ms. Between two elements others get their turn.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

_SPACE = re.compile(r"[ \t\n\r]*")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)  # NaN and Infinity are not JSON


_decode = json.JSONDecoder(parse_constant=_refuse_constant).raw_decode


def loads(text: str) -> Any:
    """What ``json.loads`` makes of it, but NaN and infinities are refused. Raises ValueError, RecursionError."""
    value, end = _value(text, _skip(text, 0), nested=True)
    if _skip(text, end) != len(text):
        raise ValueError(f"there is something behind the JSON at {end}")
    return value


def _value(text: str, at: int, *, nested: bool) -> tuple[Any, int]:
    opening = text[at : at + 1]
    if opening == "[":
        return _list(text, at + 1)
    if opening == "{" and nested:
        return _object(text, at + 1)
    return _decode(text, at)


def _list(text: str, at: int) -> tuple[list[Any], int]:
    found: list[Any] = []
    at = _skip(text, at)
    if text[at : at + 1] == "]":
        return found, at + 1
    while True:
        value, at = _decode(text, at)
        found.append(value)
        at, last = _next(text, at, "]")
        if last:
            return found, at


def _object(text: str, at: int) -> tuple[dict[str, Any], int]:
    found: dict[str, Any] = {}
    at = _skip(text, at)
    if text[at : at + 1] == "}":
        return found, at + 1
    while True:
        key, at = _decode(text, at)
        at = _skip(text, at)
        if not isinstance(key, str) or text[at : at + 1] != ":":
            raise ValueError(f"a key is expected before {at}")
        found[key], at = _value(text, _skip(text, at + 1), nested=False)
        at, last = _next(text, at, "}")
        if last:
            return found, at


def _next(text: str, at: int, closing: str) -> tuple[int, bool]:
    """Behind the comma or the closing bracket, and whether it was the latter."""
    at = _skip(text, at)
    mark = text[at : at + 1]
    if mark not in (",", closing):
        raise ValueError(f"a comma is expected at {at}")
    return (at + 1, True) if mark == closing else (_skip(text, at + 1), False)


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at
