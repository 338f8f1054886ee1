"""How pages say things: text from outside made safe and visible, instants, spans, sizes. Pure."""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, datetime
from urllib.parse import quote, urlencode

from tornado.escape import to_unicode, xhtml_escape

SHORT = 7

# Letters that have no glyph, which no category gives away: Hangul fillers, the blank Braille pattern, selectors.
_BLANK = "\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\uffa0\ufe00-\ufe0f\U000e0100-\U000e01ef"
_SUSPECT = re.compile(f"[^\\x20-\\x7e\\t]|[{_BLANK}]")
_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
_EMOJI = re.compile("[\u00a9\u00ae\u2190-\u2bff\u3030\u303d\u3297\u3299\U0001f000-\U0001faff]")
_EMOJI_JOINERS = "\ufe0f\u200d"
_BLANKS = re.compile(f"[{_BLANK}]")

_UNITS = ((31557600, "y"), (86400, "d"), (3600, "h"), (60, "min"))
_SIZES = ("B", "KB", "MB", "GB")
_THOUSAND = 1000


def visible(text: str) -> str:
    """The text with what could deceive a reader written out, as U+202E in angle quotes: all that has no glyph.

    The joiners within an emoji stay, since there they are what is seen.
    """
    return _SUSPECT.sub(lambda found: _written(text, found.start()), text)


def _written(text: str, at: int) -> str:
    character = text[at]
    if character in _EMOJI_JOINERS and at and (_EMOJI.match(text[at - 1]) or text[at - 1] in _EMOJI_JOINERS):
        return character
    if unicodedata.category(character) in _HIDDEN or _BLANKS.match(character):
        return f"\u2039U+{ord(character):04X}\u203a"
    return character


def shown(value: str | bytes) -> str:
    """What every template passes its values through: visible, then escaped for text and quoted attributes."""
    return xhtml_escape(visible(to_unicode(value)))


def first_line(message: str) -> str:
    """The subject of a commit message."""
    return message.strip().partition("\n")[0].rstrip("\r")


def short(sha: str | None) -> str:
    return sha[:SHORT] if sha else "\u2013"


def span(seconds: float) -> str:
    """``12 s``, ``3 min``, ``2 h``, ``5 d``, ``3 y``."""
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 1 or not seconds else "< 1 s"


def duration(seconds: float) -> str:
    """The time a run took."""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s" if seconds < 100 else span(seconds)  # noqa: PLR2004


def when(instant: datetime | str | None, now: datetime) -> str:
    """HTML: how long ago, or in how long, with the exact instant for pointers and programs. ``never`` for None."""
    if instant is None:
        return '<span class="quiet">never</span>'
    at = instant if isinstance(instant, datetime) else _parsed(instant)
    if at is None:
        return f'<span class="quiet">{shown(str(instant))}</span>'  # GitHub sent no date that can be read
    at = at.astimezone(UTC)
    seconds = (now - at).total_seconds()
    words = f"{span(seconds)} ago" if seconds >= 0 else f"in {span(-seconds)}"
    exact = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return f'<time datetime="{exact}" title="{at:%Y-%m-%d %H:%M:%S} UTC">{words.replace("<", "&lt;")}</time>'


def _parsed(text: str) -> datetime | None:
    try:
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):  # the year 1 in a time zone to the east
        return None


def size(count: int | None) -> str:
    """``1.4 MB``; a dash for what has no size."""
    if count is None:
        return "\u2013"
    amount = float(count)
    for unit in _SIZES[:-1]:
        if amount < _THOUSAND:
            return f"{amount:.0f} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= _THOUSAND
    return f"{amount:.1f} {_SIZES[-1]}"


def number(count: int) -> str:
    """``12 345``, with thin spaces."""
    return f"{count:,}".replace(",", "\u2009")


def counted(count: int, one: str, many: str) -> str:
    """``1 branch``, ``2 branches``."""
    return f"{count} {one if count == 1 else many}"


def repository_url(full_name: str, rest: str = "", **query: str | bytes | int | None) -> str:
    """The page of a repository or, with ``rest``, one below it."""
    return f"/repositories/{quote(full_name)}{rest}{query_text(**query)}"


def raw_url(full_name: str, path: bytes, branch: str) -> str:
    return f"/api/v1/repositories/{quote(full_name)}/raw/{quote(path)}{query_text(branch=branch)}"


def query_text(**query: str | bytes | int | None) -> str:
    """``?a=b`` of what is given; nothing when nothing is."""
    given = {name: value for name, value in query.items() if value not in (None, "", b"")}
    return f"?{urlencode(given)}" if given else ""
