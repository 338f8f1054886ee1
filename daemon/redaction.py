"""Takes secrets out of text, by their values and by the shapes that secrets have. Pure."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterable
from urllib.parse import quote, quote_plus

HIDDEN = "[redacted]"
SHORTEST = 3  # a shorter "secret" would black out ordinary words
SHORTEST_ENCODED = 6

# https://github.blog/engineering/behind-githubs-new-authentication-token-formats/ - and JSON Web Tokens, PEM keys,
# credentials in headers, in URLs, and in the queries of signed download URLs.
_SHAPES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"(?:gh[pousr]_|github_pat_)[A-Za-z0-9_.-]{4,}"), HIDDEN),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"), HIDDEN),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), HIDDEN),
    (re.compile(r"(?i)(\bauthorization[\"']?\s*[:=]\s*[\"']?)[^\"'\r\n,}\]]+"), rf"\1{HIDDEN}"),
    (re.compile(r"(?i)(\b(?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{6,}"), rf"\1{HIDDEN}"),
    (re.compile(r"(://)(?!user@host/)[^\s/?#\"'<>]*@"), rf"\1{HIDDEN}@"),  # but for the example in a hint
    (
        re.compile(
            r"(?i)((?<![a-z0-9])(?:access_token|refresh_token|token|client_secret|secret|password|passwd|sig|signature|"
            r"jwt|x-amz-[a-z-]+)=)[^&\s\"'<>]+"
        ),
        rf"\1{HIDDEN}",
    ),
)
_SECRET_FIELD = re.compile(r"(?i)(?:^|[_-])(?:authorization|token|secret|secrets|password|private_key|cookie)$")


def redact_shapes(text: str) -> str:
    """``text`` without whatever looks like a credential."""
    for pattern, replacement in _SHAPES:
        text = pattern.sub(replacement, text)
    return text


def is_secret_field(name: str) -> bool:
    """Whether a text in a field of that name is to be hidden whatever it looks like."""
    return _SECRET_FIELD.search(name) is not None


class Redactor:
    """Redacts text by shape, and by the values that ``secrets`` gives at the time, in any usual encoding."""

    def __init__(self, secrets: Callable[[], Iterable[str]]) -> None:
        self._secrets = secrets
        self._compiled: tuple[tuple[str, ...], re.Pattern[str] | None] = ((), None)

    def __call__(self, text: str) -> str:
        pattern = self._pattern()
        if pattern is not None:
            text = pattern.sub(HIDDEN, text)
        return redact_shapes(text)

    def _pattern(self) -> re.Pattern[str] | None:
        values = tuple(self._secrets())
        known, pattern = self._compiled
        if values != known:
            forms = {form for value in values for form in _forms(value)}
            longest_first = sorted(forms, key=len, reverse=True)
            pattern = re.compile("|".join(map(re.escape, longest_first))) if forms else None
            self._compiled = (values, pattern)
        return pattern


def _forms(value: str) -> Iterable[str]:
    """How ``value`` may appear: as it is, as a literal, in a URL, in base64 (at the start of what is encoded)."""
    if len(value) < SHORTEST:
        return
    yield value
    yield repr(value)[1:-1]
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    yield quote(value, safe="")
    yield quote(value)
    yield quote_plus(value)
    if len(value) >= SHORTEST_ENCODED:
        raw = value.encode("utf-8", "surrogatepass")
        yield base64.b64encode(raw).decode().rstrip("=")
        yield base64.urlsafe_b64encode(raw).decode().rstrip("=")
        yield raw.hex()
