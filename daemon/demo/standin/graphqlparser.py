"""GraphQL documents as values: the part of the language that reading queries use.

https://spec.graphql.org/October2021/
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

_TOKEN = re.compile(
    r"(?P<ignored>[\s,\ufeff]+|#[^\n\r]*)|(?P<punctuator>\.\.\.|[!$&():=@\[\]{|}])|(?P<name>[_A-Za-z]\w*)"
    r'|(?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)|(?P<block>"""(?:\\"""|[\s\S])*?""")|(?P<string>"(?:[^"\\\n]|\\.)*")'
)
_CONSTANTS = {"true": True, "false": False, "null": None}


class SyntaxProblem(Exception):
    """The document cannot be read; the message is in the words of GitHub's parser."""


@dataclass(frozen=True, slots=True)
class Variable:
    """A place in the arguments that a variable fills."""

    name: str


@dataclass(frozen=True, slots=True)
class Field:
    """One selected field; ``line`` and ``column`` count from 1."""

    name: str
    key: str
    arguments: Mapping[str, Any]
    selections: tuple[Selection, ...]
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Fragment:
    """An inline fragment, or a fragment definition; ``type`` is None when it has no condition."""

    type: str | None
    selections: tuple[Selection, ...]


@dataclass(frozen=True, slots=True)
class Spread:
    """A named fragment used in a selection."""

    name: str


Selection = Field | Fragment | Spread


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation; ``defaults`` are those of its variables."""

    kind: str
    name: str | None
    variables: frozenset[str]
    defaults: Mapping[str, Any]
    selections: tuple[Selection, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """Operations and fragments of one request."""

    operations: tuple[Operation, ...]
    fragments: Mapping[str, Fragment]


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int


@dataclass(slots=True)
class _Parser:
    source: str
    tokens: list[_Token] = field(default_factory=list)
    index: int = 0

    def __post_init__(self) -> None:
        at = 0
        while at < len(self.source):
            match = _TOKEN.match(self.source, at)
            if match is None or match.lastgroup is None:
                raise SyntaxProblem(f"Parse error on {self.source[at]!r} ({self.where(at)})")
            if match.lastgroup != "ignored":
                self.tokens.append(_Token(match.lastgroup, match[0], at))
            at = match.end()
        self.tokens.append(_Token("end", "", at))

    def where(self, at: int) -> str:
        line, column = self.position(at)
        return f"{line}, {column}"

    def position(self, at: int) -> tuple[int, int]:
        return self.source.count("\n", 0, at) + 1, at - self.source.rfind("\n", 0, at)

    @property
    def token(self) -> _Token:
        return self.tokens[self.index]

    def take(self, kind: str | None = None) -> str:
        token = self.token
        if kind is not None and token.kind != kind:
            raise self.problem(kind)
        self.index += 1
        return token.text

    def problem(self, wanted: str) -> SyntaxProblem:
        token = self.token
        return SyntaxProblem(f"Expected {wanted}, actual: {token.text or 'end'} ({self.where(token.at)})")

    def skip(self, text: str) -> bool:
        found = self.token.kind in {"punctuator", "name"} and self.token.text == text
        self.index += found
        return found

    def expect(self, text: str) -> None:
        if not self.skip(text):
            raise self.problem(text)

    def document(self) -> Document:
        operations: list[Operation] = []
        fragments: dict[str, Fragment] = {}
        while self.token.kind != "end":
            if self.skip("fragment"):
                name = self.take("name")
                fragments[name] = self.fragment()
            else:
                operations.append(self.operation())
        if not operations:
            raise SyntaxProblem("A query attribute must be specified and must be a string.")
        return Document(tuple(operations), fragments)

    def operation(self) -> Operation:
        if self.token.text == "{":
            return Operation("query", None, frozenset(), {}, self.selections())
        kind = self.take("name")
        name = self.take() if self.token.kind == "name" else None
        names: set[str] = set()
        defaults: dict[str, Any] = {}
        if self.skip("("):
            while not self.skip(")"):
                self.variable(names, defaults)
        self.directives()
        return Operation(kind, name, frozenset(names), defaults, self.selections())

    def variable(self, names: set[str], defaults: dict[str, Any]) -> None:
        self.expect("$")
        name = self.take("name")
        names.add(name)
        self.expect(":")
        self.type()
        if self.skip("="):
            defaults[name] = self.value()

    def type(self) -> None:
        if self.skip("["):
            self.type()
            self.expect("]")
        else:
            self.take("name")
        self.skip("!")

    def selections(self) -> tuple[Selection, ...]:
        self.expect("{")
        found: list[Selection] = []
        while not self.skip("}"):
            found.append(self.selection())
        if not found:
            raise SyntaxProblem("A selection of fields must not be empty")
        return tuple(found)

    def selection(self) -> Selection:
        if self.skip("..."):
            if self.token.kind == "name" and self.token.text != "on":
                spread = Spread(self.take())
                self.directives()
                return spread
            return self.fragment()
        line, column = self.position(self.token.at)
        name = key = self.take("name")
        if self.skip(":"):
            name = self.take("name")
        arguments = self.arguments()
        self.directives()
        inner = self.selections() if self.token.text == "{" else ()
        return Field(name, key, arguments, inner, line, column)

    def fragment(self) -> Fragment:
        condition = self.take("name") if self.skip("on") else None
        self.directives()
        return Fragment(condition, self.selections())

    def arguments(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if self.skip("("):
            while not self.skip(")"):
                name = self.take("name")
                self.expect(":")
                found[name] = self.value()
        return found

    def directives(self) -> None:
        """Read over directives: no query of the daemon has one that matters."""
        while self.skip("@"):
            self.take("name")
            self.arguments()

    def value(self) -> Any:
        if self.skip("$"):
            return Variable(self.take("name"))
        if self.skip("["):
            return self.items()
        if self.skip("{"):
            return self.object()
        return self.scalar()

    def scalar(self) -> Any:
        kind, text = self.token.kind, self.token.text
        readers: dict[str, Callable[[str], Any]] = {
            "name": lambda word: _CONSTANTS.get(word, word),
            "number": json.loads,
            "block": lambda quoted: quoted[3:-3].replace('\\"""', '"""'),
            "string": lambda quoted: json.loads(quoted, strict=False),
        }
        if kind not in readers:
            raise self.problem("a value")
        self.index += 1
        return readers[kind](text)

    def items(self) -> list[Any]:
        found: list[Any] = []
        while not self.skip("]"):
            found.append(self.value())
        return found

    def object(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while not self.skip("}"):
            name = self.take("name")
            self.expect(":")
            found[name] = self.value()
        return found


def parse(source: str) -> Document:
    """Read a document; raises SyntaxProblem."""
    return _Parser(source).document()
