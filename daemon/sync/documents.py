"""Hostile text into plain data: JSON, YAML, TOML, and Markdown with a front matter. Pure.

Whatever a file holds, the outcome is a mapping that JSON can carry or ``Malformed``, within a second or two and
without taking the process down: size, depth, number of values and what aliases expand to are capped before
anything recursive sees the text.
"""

from __future__ import annotations

import base64
import json
import math
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, time
from typing import Any, NoReturn

import yaml
from yaml.events import (
    AliasEvent,
    DocumentEndEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

MAX_BYTES = 2**20
MAX_DEPTH = 100
MAX_VALUES = 100_000  # an alias counts as all that it stands for
MAX_EXPANDED_CHARACTERS = 4 * 2**20
MAX_DIGITS = 1000
MAX_TAG_DIRECTIVES = 100  # libyaml compares each with all before it
MAX_TOML_BYTES = 2**19  # tomllib is written in Python
MAX_SQUARED_DOTS = 10_000_000  # tomllib builds every prefix of a dotted key; the sum of the squares over all lines
FEW_DOTS = 30
SLOW_YAML_BYTES = 2**17  # for PyYAML without libyaml, which reads a hundredth as fast

_STRING_TAGS = frozenset({"tag:yaml.org,2002:str", "tag:yaml.org,2002:value"})
_BINARY_TAG = "tag:yaml.org,2002:binary"
_MAPPING_TAG = "tag:yaml.org,2002:map"
_SEQUENCE_TAG = "tag:yaml.org,2002:seq"
# A string that does not end is one token up to the end of the text: nothing here is read twice.
_JSON_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}:,]|[^\s"\[\]{}:,]+', re.DOTALL)
_TOML_FLOAT = re.compile(r"(?<![\w.])\d+\.\d+(?![\w.])")
_TOML_PLACE = re.compile(r" *\(at (?:line (\d+), column (\d+)|end of document)\)$")
_FENCE = re.compile(r"(---|\+\+\+)[ \t]*(?:\r?\n|\Z)")

# What parsers, number conversions and calendars raise; the message of the last resort names the class only.
PARSER_FAILURES = (
    ValueError,
    TypeError,
    ArithmeticError,
    LookupError,
    AttributeError,
    RecursionError,
    MemoryError,
    yaml.YAMLError,
)


class Malformed(Exception):
    """Why a file is no document, and where: line and column from 1, None where there is no such place."""

    def __init__(self, reason: str, line: int | None = None, column: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.line = line
        self.column = column


def parse(suffix: str, content: bytes) -> dict[str, Any]:
    """The mapping that a file of that suffix holds. Raises Malformed and nothing else."""
    reader = _READERS.get(suffix.lower())
    if reader is None:
        raise Malformed(f"the suffix {suffix or '(none)'} is none of {', '.join(sorted(_READERS))}")
    if len(content) > MAX_BYTES:
        raise Malformed(f"the file has {len(content)} bytes; entities are read from files of at most {MAX_BYTES}")
    text = _decode(content)
    try:
        value = reader(text)
    except PARSER_FAILURES as error:
        raise Malformed(f"the file cannot be read ({type(error).__name__})") from error
    if not isinstance(value, dict):
        raise Malformed("the top level is no mapping of keys to values", 1, 1)
    return value


def _decode(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line_start = before.rfind(b"\n") + 1
        column = len(before[line_start:].decode("utf-8", "replace")) + 1
        raise Malformed("the file is not UTF-8 text", before.count(b"\n") + 1, column) from error


def _at(text: str, offset: int, reason: str) -> Malformed:
    return Malformed(reason, text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset))


# -- plain data -----------------------------------------------------------------------------------


class _Budget:
    """Counts values and their depth, and makes of each what JSON can carry."""

    def __init__(self) -> None:
        self._values = 0

    def plain(self, value: Any, depth: int = 1) -> Any:
        self._values += 1
        if self._values > MAX_VALUES:
            raise Malformed(_too_many())
        if isinstance(value, dict | list) and depth > MAX_DEPTH:
            raise Malformed(_too_deep())
        if isinstance(value, dict):
            return {key: self.plain(one, depth + 1) for key, one in value.items()}
        if isinstance(value, list):
            return [self.plain(one, depth + 1) for one in value]
        return plain_scalar(value)


def plain_scalar(value: Any) -> Any:
    """``value`` as JSON has it: dates as ISO 8601 text, bytes as base64. Raises Malformed for what JSON cannot say."""
    if isinstance(value, float) and not math.isfinite(value):
        raise Malformed("NaN and infinity are no values of JSON")
    if isinstance(value, int) and abs(value).bit_length() > MAX_DIGITS * 4:
        raise Malformed(_too_long())
    if isinstance(value, date | time):  # a datetime is a date
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    return value


def _too_many() -> str:
    return f"the file holds more than {MAX_VALUES} values"


def _too_large() -> str:
    return f"the file holds more than {MAX_EXPANDED_CHARACTERS} characters"


def _too_deep() -> str:
    return f"values are nested more than {MAX_DEPTH} levels deep"


def _too_long() -> str:
    return f"a number has more than {MAX_DIGITS} digits"


# -- JSON -----------------------------------------------------------------------------------------


def _read_json(text: str) -> Any:
    if text.count("[") + text.count("{") > MAX_DEPTH:  # the C parser recurses: it never sees what is too deep
        _scan_json(text)
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_int=_short_int,
            parse_float=_finite_float,
        )
    except json.JSONDecodeError as error:
        raise Malformed(f"not valid JSON: {_lower(error.msg)}", error.lineno, error.colno) from error
    except Malformed:
        _scan_json(text)  # says the same with the place
        raise
    return _Budget().plain(value)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Malformed("a key is there twice")
    return found


def _refuse_constant(_name: str) -> NoReturn:
    raise Malformed("NaN and infinity are no values of JSON")


def _short_int(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise Malformed(_too_long())
    return int(text)


def _finite_float(text: str) -> float:
    if len(text) > MAX_DIGITS:
        raise Malformed(_too_long())
    value = float(text)
    if not math.isfinite(value):
        raise Malformed("a number is too large")
    return value


def _scan_json(text: str) -> None:
    """Raise Malformed, with its place, for what is refused although it is JSON: depth, a key twice, odd numbers."""
    open_keys: list[set[str]] = []
    name: re.Match[str] | None = None
    for token in _JSON_TOKEN.finditer(text):
        first = token[0][0]
        if first in "[{":
            open_keys.append(set())
            if len(open_keys) > MAX_DEPTH:
                raise _at(text, token.start(), _too_deep())
        elif first in "]}" and open_keys:
            open_keys.pop()
        elif first == ":" and name is not None and open_keys:
            _note_key(text, name, open_keys[-1])
        elif first in "-0123456789NI":
            _check_number(text, token)
        name = token if first == '"' else None


def _note_key(text: str, token: re.Match[str], keys: set[str]) -> None:
    try:
        key = json.loads(token[0])
    except ValueError:
        return  # the parser proper will say so
    if key in keys:
        raise _at(text, token.start(), f"the key {_shown(key)} is there twice")
    keys.add(key)


def _check_number(text: str, token: re.Match[str]) -> None:
    try:
        json.loads(token[0], parse_constant=_refuse_constant, parse_int=_short_int, parse_float=_finite_float)
    except Malformed as error:
        raise _at(text, token.start(), error.reason) from None
    except ValueError:
        return


def _shown(key: str) -> str:
    return json.dumps(key[:80])


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]


# -- TOML -----------------------------------------------------------------------------------------


def _read_toml(text: str) -> Any:
    if len(text) > MAX_TOML_BYTES:
        raise Malformed(f"the file has more than {MAX_TOML_BYTES} characters, too much for TOML")
    _refuse_dotted(text)
    try:
        value = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = _TOML_PLACE.search(str(error))
        reason = f"not valid TOML: {_lower(_TOML_PLACE.sub('', str(error)))}"
        if place is None or place[1] is None:
            raise _at(text, len(text), reason) from error
        raise Malformed(reason, int(place[1]), int(place[2])) from error
    except RecursionError:
        raise Malformed(_too_deep()) from None
    return _Budget().plain(value)


def _refuse_dotted(text: str) -> None:
    squared = 0
    for number, line in enumerate(text.split("\n"), 1):
        if line.count(".") > FEW_DOTS:
            squared += _TOML_FLOAT.sub("", line).count(".") ** 2
        if squared > MAX_SQUARED_DOTS:
            raise Malformed("the file holds too many long dotted keys", number, 1)


# -- YAML -----------------------------------------------------------------------------------------

# libyaml's events come one by one and by iteration: only composing them recurses, and that is done here.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _read_yaml(text: str) -> Any:
    if text.count("%TAG") > MAX_TAG_DIRECTIVES:
        raise Malformed(f"the file has more than {MAX_TAG_DIRECTIVES} %TAG directives", 1, 1)
    if _Loader is yaml.SafeLoader and len(text) > SLOW_YAML_BYTES:
        raise Malformed(f"the file has more than {SLOW_YAML_BYTES} characters, too much for PyYAML without libyaml")
    try:
        return _Composer(text).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = f"not valid YAML: {error.problem or error.context or 'it cannot be read'}"
        raise Malformed(reason, *(_place(mark) if mark else (None, None))) from error
    except yaml.reader.ReaderError as error:
        raise Malformed(f"not valid YAML: {error.reason}") from error


def _place(mark: Any) -> tuple[int, int]:
    return mark.line + 1, mark.column + 1


@dataclass(slots=True)
class _Anchored:
    """What an alias stands for, and what it would cost to write it out."""

    value: Any
    values: int
    characters: int
    height: int
    ended: bool = False


class _Composer:
    """Builds plain data from events, counting as if every alias were written out."""

    def __init__(self, text: str) -> None:
        self._loader = _Loader(text)
        self._anchors: dict[str, _Anchored] = {}
        self._values = 0
        self._characters = 0

    def document(self) -> Any:
        self._next()  # the stream's start
        first = self._next()
        if isinstance(first, StreamEndEvent):
            return None
        assert isinstance(first, DocumentStartEvent)
        value, _ = self._node(self._next(), 1)
        assert isinstance(self._next(), DocumentEndEvent)
        after = self._next()
        if not isinstance(after, StreamEndEvent):
            raise Malformed("the file holds more than one document", *_place(after.start_mark))
        return value

    def _next(self) -> Event:
        event: Event = self._loader.get_event()
        return event

    def _node(self, event: Event, depth: int) -> tuple[Any, int]:
        """The value that begins with ``event``, and how many levels it has."""
        if isinstance(event, AliasEvent):
            return self._alias(event, depth)
        anchor = getattr(event, "anchor", None)
        noted = _Anchored(None, self._values, self._characters, 0)
        if anchor is not None:
            self._anchors[anchor] = noted
        self._spend(event, 1, 0)
        value, noted.height = self._collection_or_scalar(event, depth)
        noted.value, noted.ended = value, True
        noted.values, noted.characters = self._values - noted.values, self._characters - noted.characters
        return value, noted.height

    def _collection_or_scalar(self, event: Event, depth: int) -> tuple[Any, int]:
        if isinstance(event, ScalarEvent):
            self._spend(event, 0, len(event.value))
            return self._scalar(event), 0
        if depth > MAX_DEPTH:
            raise Malformed(_too_deep(), *_place(event.start_mark))
        if isinstance(event, SequenceStartEvent):
            self._check_tag(event, _SEQUENCE_TAG)
            return self._sequence(depth)
        assert isinstance(event, MappingStartEvent)
        self._check_tag(event, _MAPPING_TAG)
        return self._mapping(depth)

    def _spend(self, event: Event, values: int, characters: int) -> None:
        self._values += values
        self._characters += characters
        if self._values > MAX_VALUES:
            raise Malformed(f"{_too_many()}, each alias counted as what it stands for", *_place(event.start_mark))
        if self._characters > MAX_EXPANDED_CHARACTERS:
            raise Malformed(f"{_too_large()}, each alias counted as what it stands for", *_place(event.start_mark))

    def _alias(self, event: AliasEvent, depth: int) -> tuple[Any, int]:
        found = self._anchors.get(event.anchor or "")
        if found is None:
            raise Malformed(f"the alias *{event.anchor} stands for nothing", *_place(event.start_mark))
        if not found.ended:
            raise Malformed(f"the alias *{event.anchor} is a part of what it stands for", *_place(event.start_mark))
        self._spend(event, found.values, found.characters)
        if depth + found.height - 1 > MAX_DEPTH:
            raise Malformed(_too_deep(), *_place(event.start_mark))
        return found.value, found.height

    def _sequence(self, depth: int) -> tuple[list[Any], int]:
        found: list[Any] = []
        height = 0
        while not isinstance(event := self._next(), SequenceEndEvent):
            value, below = self._node(event, depth + 1)
            found.append(value)
            height = max(height, below)
        return found, height + 1

    def _mapping(self, depth: int) -> tuple[dict[str, Any], int]:
        found: dict[str, Any] = {}
        merged: list[dict[str, Any]] = []
        height = 0
        while not isinstance(event := self._next(), MappingEndEvent):
            if isinstance(event, ScalarEvent) and event.value == "<<" and event.implicit[0]:
                below = self._merge(event, merged, depth)
            else:
                key = self._key(event, found)
                found[key], below = self._node(self._next(), depth + 1)
            height = max(height, below)
        for source in merged:  # the first that has a key wins, and the mapping's own keys over all
            found = source | found
        return found, height + 1

    def _merge(self, event: Event, merged: list[dict[str, Any]], depth: int) -> int:
        value, height = self._node(self._next(), depth)
        sources = value if isinstance(value, list) else [value]
        if not all(isinstance(source, dict) for source in sources):
            raise Malformed("what << merges is no mapping", *_place(event.start_mark))
        merged.extend(sources)
        return height

    def _key(self, event: Event, found: dict[str, Any]) -> str:
        # Refused before it is built: keys within keys would go deeper without limit.
        simple = isinstance(event, ScalarEvent | AliasEvent)
        value, height = self._node(event, 1) if simple else (None, 1)
        if height:
            raise Malformed("a key is a list or a mapping", *_place(event.start_mark))
        key = value if isinstance(value, str) else json.dumps(value)
        if key in found:
            raise Malformed(f"the key {_shown(key)} is there twice", *_place(event.start_mark))
        return key

    def _check_tag(self, event: Any, usual: str) -> None:
        if event.tag not in (None, "!", usual):
            raise Malformed(f"the tag {event.tag[:80]} is not known", *_place(event.start_mark))

    def _scalar(self, event: ScalarEvent) -> Any:
        tag = event.tag
        if tag is None or tag == "!":
            tag = self._loader.resolve(yaml.ScalarNode, event.value, event.implicit)
        if tag in _STRING_TAGS:
            return event.value
        if tag != _BINARY_TAG and len(event.value) > MAX_DIGITS:  # converting is quadratic
            raise Malformed(_too_long(), *_place(event.start_mark))
        try:
            return plain_scalar(self._loader.construct_object(yaml.ScalarNode(tag, event.value)))
        except Malformed as error:
            raise Malformed(error.reason, *_place(event.start_mark)) from None
        except yaml.constructor.ConstructorError as error:
            raise Malformed(f"not valid YAML: {error.problem}", *_place(event.start_mark)) from error
        except PARSER_FAILURES as error:
            raise Malformed(f"{_shown(event.value)} is no {tag[-20:]}", *_place(event.start_mark)) from error


# -- Markdown -------------------------------------------------------------------------------------


def _read_markdown(text: str) -> Any:
    """The front matter, with the text below it under ``body``."""
    fence = _FENCE.match(text)
    if fence is None:
        raise Malformed("the file does not begin with a front matter (--- or +++)", 1, 1)
    end = re.compile(rf"^{re.escape(fence[1])}[ \t]*(?:\r?\n|\Z)", re.MULTILINE).search(text, fence.end())
    if end is None:
        raise Malformed(f"the front matter does not end: a line {fence[1]} is missing", 1, 1)
    read = _read_yaml if fence[1] == "---" else _read_toml
    try:
        found = read(text[fence.end() : end.start()])
    except Malformed as error:
        line = None if error.line is None else error.line + 1  # the fence is the first line
        raise Malformed(error.reason, line, error.column) from error
    if isinstance(found, dict):
        if "body" in found:
            raise Malformed("the front matter has a key body, which the text below it would take the place of", 2, 1)
        found = found | {"body": text[end.end() :]}
    return {"body": text[end.end() :]} if found is None else found


_READERS: dict[str, Callable[[str], Any]] = {
    ".json": _read_json,
    ".jsonld": _read_json,
    ".geojson": _read_json,
    ".yaml": _read_yaml,
    ".yml": _read_yaml,
    ".toml": _read_toml,
    ".md": _read_markdown,
    ".markdown": _read_markdown,
}
