"""How values are written down, the same on every engine: instants, JSON, text from outside, paths."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

from peewee import TextField

# PostgreSQL cannot store NUL in text, and no engine can encode half of a surrogate pair.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def instant_text(value: datetime) -> str:
    """``value`` as fixed-width text, ``2026-11-23T21:40:41.123456Z``, which sorts as time does.

    Raises ValueError for an instant without a time zone: guessing one would be wrong twice a year.
    """
    if value.tzinfo is None:
        raise ValueError(f"an instant needs a time zone: {value!r}")
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def instant_value(text: str) -> datetime:
    """The aware UTC instant that ``instant_text`` wrote."""
    return datetime.fromisoformat(text)


def optional_text(value: datetime | None) -> str | None:
    return None if value is None else instant_text(value)


def optional_value(text: str | None) -> datetime | None:
    return None if text is None else instant_value(text)


def json_text(value: Any) -> str:
    """Compact JSON; characters beyond ASCII are escaped, so that any string can be stored."""
    return json.dumps(value, separators=(",", ":"))


def plain(text: str) -> str:
    """Text from outside with what no database can store replaced by U+FFFD."""
    return _UNSTORABLE.sub("\ufffd", text)


def optional_plain(text: str | None) -> str | None:
    return None if text is None else plain(text)


def display_path(path: bytes) -> str:
    """A path as text for people and SQL: bytes that are not UTF-8, or NUL, become U+FFFD."""
    return path.decode("utf-8", "replace").replace("\0", "\ufffd")


class InstantField(TextField):
    """An aware UTC datetime, stored as the text of ``instant_text``."""

    def db_value(self, value: datetime | str | None) -> str | None:
        return optional_text(value) if not isinstance(value, str) else value

    def python_value(self, value: str | None) -> datetime | None:
        return optional_value(value)


class JsonField(TextField):
    """A JSON document in a text column; peewee's own JSONField needs its database when the model is made."""

    def db_value(self, value: Any) -> str | None:
        return None if value is None else json_text(value)

    def python_value(self, value: str | None) -> Any:
        return None if value is None else json.loads(value)
