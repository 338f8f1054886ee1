"""Collections: which files of a repository are entities, and what each of them says. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from hashlib import sha256
from typing import Any

from daemon.model import Collection, ParsedFile
from daemon.sync import documents
from daemon.sync.documents import Malformed

READER_VERSION = 1  # a reader that makes something else of the same file has to read all of them again
MAX_ID_CHARACTERS = 1000
MAX_LABEL_CHARACTERS = 1000
MAX_DESCRIPTION_CHARACTERS = 10_000
NO_COLLECTIONS = ""  # the digest where there are no rules: nothing to read, and nothing to read again


class Collections:
    """The rules of one repository, compiled; ``digest`` changes whenever what they make of a file could."""

    def __init__(self, rules: Sequence[Collection]) -> None:
        self.digest = _digest(rules)
        self._rules = [(rule, _matcher(rule.files)) for rule in rules]

    def rules_of(self, path: bytes) -> Iterator[Collection]:
        """The rules that take this path, at most one a type: the first."""
        types: set[str] = set()
        for rule, matches in self._rules:
            if rule.type not in types and matches.fullmatch(path.decode("utf-8", "surrogateescape")):
                types.add(rule.type)
                yield rule


def _digest(rules: Sequence[Collection]) -> str:
    if not rules:
        return NO_COLLECTIONS
    canonical = json.dumps([READER_VERSION, [asdict(rule) for rule in rules]], sort_keys=True)
    return sha256(canonical.encode()).hexdigest()


def _matcher(globs: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{translate(glob)})" for glob in globs), re.DOTALL)


def translate(glob: str) -> str:
    """A glob over whole paths as a regular expression: ``*``, ``?`` and ``[…]`` stay within a folder, ``**`` does not.

    ``**/`` is any folders or none, ``/**`` everything below, ``{a,b}`` one of these.
    """
    text = re.sub(r"(?:\*\*/)+", "**/", glob.removeprefix("./").lstrip("/"))
    return "".join(_translate_token(token) for token in _GLOB_TOKEN.findall(text))


_GLOB_TOKEN = re.compile(r"\*\*/|\*\*|\*|\?|\[!?\]?[^\]/]*\]|\{[^{}/]*,[^{}/]*\}|.", re.DOTALL)
_GLOBS = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def _translate_token(token: str) -> str:
    if token in _GLOBS:
        return _GLOBS[token]
    if token[0] == "[" and len(token) > 1:
        inside = token[1:-1]
        negated = inside.startswith("!")
        inside = re.sub(r"([\\\[\]^&~|])", r"\\\1", inside.removeprefix("!"))
        return f"(?!/)[{'^' if negated else ''}{inside}]"
    if token[0] == "{" and len(token) > 1:
        return f"(?:{'|'.join(translate(one) for one in token[1:-1].split(','))})"
    return re.escape(token)


def parse_file(path: bytes, sha: str, content: bytes, rule: Collection) -> ParsedFile:
    """What a file says under a rule; never raises: what is wrong with it is its ``error``."""
    try:
        data = documents.parse(_suffix(path), content)
        entity_id = _entity_id(data, path, rule)
    except Malformed as problem:
        return ParsedFile(path, rule.type, sha, error=problem.reason, line=problem.line, column=problem.column)
    # Escaped: half a surrogate pair and NUL are things that JSON can say and a database cannot store.
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return ParsedFile(
        path,
        rule.type,
        sha,
        entity_id=entity_id,
        label=_cut(_first(data, rule.label, "label", "name") or entity_id, MAX_LABEL_CHARACTERS),
        description=_cut(_first(data, rule.description, "description", "comment"), MAX_DESCRIPTION_CHARACTERS),
        data=text,
        digest=sha256(text.encode("ascii")).hexdigest(),
    )


def refused(path: bytes, sha: str, rule: Collection, reason: str) -> ParsedFile:
    """A file whose content cannot be had."""
    return ParsedFile(path, rule.type, sha, error=reason)


def _suffix(path: bytes) -> str:
    name = path.rpartition(b"/")[2]
    stem, dot, suffix = name.rpartition(b".")
    return (dot + suffix).decode("ascii", "replace") if stem and dot else ""


def _stem(path: bytes) -> str:
    name = path.rpartition(b"/")[2]
    return (name.rpartition(b".")[0] or name).decode("utf-8", "replace")


def _entity_id(data: dict[str, Any], path: bytes, rule: Collection) -> str:
    found = _first(data, rule.id, "id", "@id") or _stem(path)
    if len(found) > MAX_ID_CHARACTERS:
        raise Malformed(f"the id has more than {MAX_ID_CHARACTERS} characters")
    return found


def _first(data: dict[str, Any], *keys: str | None) -> str | None:
    """The first of these keys that holds text with something in it, or a number."""
    for key in keys:
        value = data.get(key) if key is not None else None
        if isinstance(value, str) and value.strip():
            return value.strip()
        if isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)
    return None


def _cut(text: str | None, most: int) -> str | None:
    return text if text is None or len(text) <= most else text[: most - 1] + "…"
