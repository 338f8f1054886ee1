"""Files into entities: what is read, what is refused and where, and that nothing takes the process down."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.model import Collection, ParsedFile
from daemon.sync import documents
from daemon.sync.documents import MAX_BYTES, MAX_DEPTH, MAX_VALUES
from daemon.sync.entities import Collections, parse_file

RULE = Collection("thing", ("**",))
M = 2**20


def read(name: str, content: bytes | str, rule: Collection = RULE) -> ParsedFile:
    return parse_file(name.encode(), "0" * 40, content.encode() if isinstance(content, str) else content, rule)


def data(name: str, content: bytes | str) -> Any:
    found = read(name, content)
    assert found.error is None, found.error
    return json.loads(found.data)


def problem(name: str, content: bytes | str) -> tuple[int | None, int | None, str]:
    found = read(name, content)
    assert found.error is not None, found.data[:200]
    assert not found.data
    return found.line, found.column, found.error


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", '{"a": [1, 2.5, null, true, "x"], "b": {"c": "d"}}'),
        ("a.json", '\ufeff{"a": [1, 2.5, null, true, "x"], "b": {"c": "d"}}'),
        ("a.jsonld", '{"a": [1, 2.5, null, true, "x"], "b": {"c": "d"}}'),
        ("a.yaml", "a: [1, 2.5, null, yes, x]\nb:\n  c: d\n"),
        ("a.YML", "a:\n- 1\n- 2.5\n- ~\n- true\n- 'x'\nb: {c: d}\n"),
    ],
)
def test_the_formats_say_the_same(name: str, content: str) -> None:
    assert data(name, content) == {"a": [1, 2.5, None, True, "x"], "b": {"c": "d"}}


def test_toml_is_read_with_its_dates_as_text() -> None:
    assert data("a.toml", "a = [1, 2.5]\n[b]\nc = 2020-01-02T03:04:05Z\nd = 2020-01-02\ne = 03:04:05") == {
        "a": [1, 2.5],
        "b": {"c": "2020-01-02T03:04:05+00:00", "d": "2020-01-02", "e": "03:04:05"},
    }


def test_yaml_is_made_what_json_can_carry() -> None:
    text = "d: 2020-01-02\nt: 2020-01-02T03:04:05Z\n1: int\ntrue: bool\n~: none\nb: !!binary aGk=\ns: !!str 5\n'<<': kept\n"
    assert data("a.yaml", text) == {
        "d": "2020-01-02",
        "t": "2020-01-02T03:04:05+00:00",
        "1": "int",
        "true": "bool",
        "null": "none",
        "b": "aGk=",
        "s": "5",
        "<<": "kept",
    }


def test_aliases_and_merges_are_written_out() -> None:
    text = "base: &b {x: 1, y: 2}\nother: &o {y: 3, z: 4}\nmade: {<<: [*b, *o], x: 9}\nlist: [*b, *b]\n"
    found = data("a.yaml", text)
    assert found["made"] == {"x": 9, "y": 2, "z": 4}
    assert found["list"] == [{"x": 1, "y": 2}] * 2


@pytest.mark.parametrize(
    "text", ["---\na: 1\n---\nthe *text*\n", "+++\na = 1\n+++\nthe *text*\n", "---\r\na: 1\r\n---\r\nthe *text*\n"]
)
def test_markdown_is_its_front_matter_and_its_body(text: str) -> None:
    assert data("a.md", text) == {"a": 1, "body": "the *text*\n"}


def test_half_a_surrogate_and_nul_survive_as_ascii() -> None:
    found = read("a.json", '{"x": "\\ud800\\u0000"}')
    assert found.data == '{"x":"\\ud800\\u0000"}'


# -- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "content", "expected"),
    [
        (RULE, {}, ("file.name", "file.name", None)),
        (RULE, {"@id": "at"}, ("at", "at", None)),
        (RULE, {"id": "i", "@id": "at", "name": "n", "comment": "c"}, ("i", "n", "c")),
        (RULE, {"id": 7, "label": "l", "name": "n", "description": "d", "comment": "c"}, ("7", "l", "d")),
        (RULE, {"id": "  ", "label": {"en": "x"}, "description": ["x"]}, ("file.name", "file.name", None)),
        (RULE, {"id": True}, ("file.name", "file.name", None)),
        (Collection("t", ("**",), "k", "l2", "d2"), {"k": "K", "l2": "L", "d2": "D", "id": "i"}, ("K", "L", "D")),
        (Collection("t", ("**",), "k", "l2", "d2"), {"id": "i", "name": "n", "comment": "c"}, ("i", "n", "c")),
    ],
)
def test_the_keys_and_their_fallbacks(
    rule: Collection, content: dict[str, Any], expected: tuple[str, str, str | None]
) -> None:
    found = read("folder/file.name.json", json.dumps(content), rule)
    assert (found.entity_id, found.label, found.description) == expected


def test_an_id_without_end_is_refused_and_a_long_label_is_cut() -> None:
    assert "id" in problem("a.json", json.dumps({"id": "x" * 1001}))[2]
    assert read("a.json", json.dumps({"label": "x" * 5000})).label == "x" * 999 + "…"


# -- which files ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("glob", "takes", "leaves"),
    [
        ("*.json", ["a.json", ".json"], ["b/a.json", "a.json5", "ajson"]),
        ("**/*.json", ["a.json", "b/a.json", "b/c/a.json"], ["a.yaml"]),
        ("a/**", ["a/b", "a/b/c"], ["a", "ab/c"]),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b"], ["a/xb", "b"]),
        ("a/*/b", ["a/x/b"], ["a/b", "a/x/y/b"]),
        ("./a?.md", ["ab.md"], ["a/.md", "a.md"]),
        ("/a/[!b-c].{yml,yaml}", ["a/d.yml", "a/d.yaml"], ["a/b.yml", "a/..json", "a//.yml"]),
        ("a.(json)", ["a.(json)"], ["a.json"]),
        ("data/*", ["data/x", "data/\nx"], ["data/x/y"]),
    ],
)
def test_globs(glob: str, takes: list[str], leaves: list[str]) -> None:
    collections = Collections([Collection("t", (glob,))])
    assert [path for path in [*takes, *leaves] if list(collections.rules_of(path.encode()))] == takes


def test_one_type_takes_a_file_once_and_two_types_take_it_both() -> None:
    rules = [Collection("a", ("*",), "first"), Collection("a", ("*",), "second"), Collection("b", ("\xff", "*"))]
    assert list(Collections(rules).rules_of(b"\xff.json")) == [rules[0], rules[2]]


def test_the_digest_tells_every_rule_apart() -> None:
    rules = [(), (RULE,), (Collection("thing", ("*",)),), (Collection("thing", ("**",), id="x"),), (RULE, RULE)]
    assert len({Collections(one).digest for one in rules}) == len(rules)
    assert Collections((RULE,)).digest == Collections([RULE]).digest
    assert Collections(()).digest == ""


# -- what is refused, and where -------------------------------------------------------------------

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join(['*' + below] * 9)}]\n" for below, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("name", "content", "place", "words"),
    [
        ("a.json", '{\n "a": oops}', (2, 7), "not valid JSON"),
        ("a.json", "", (1, 1), "not valid JSON"),
        ("a.json", '{"a": 1,\n "a": 2}', (2, 2), "twice"),
        ("a.json", '{"a": [{"\\u0061": 1,\n "a": 2}]}', (2, 2), "twice"),
        ("a.json", '{"a": NaN}', (1, 7), "NaN"),
        ("a.json", '{"a":\n -Infinity}', (2, 2), "NaN"),
        ("a.json", '{"a": 1e999}', (1, 7), "too large"),
        ("a.json", '{"a": ' + "9" * 5000 + "}", (1, 7), "digits"),
        ("a.json", "\n" + "[" * 100_000, (2, MAX_DEPTH + 1), "deep"),
        ("a.json", '{"a":' * 100_000, (1, 501), "deep"),
        ("a.json", "[1]", (1, 1), "no mapping"),
        ("a.json", b'{"a":\n "\xff"}', (2, 3), "UTF-8"),
        ("a.json", '{"a":"x"}'.encode("utf-16"), (1, 1), "UTF-8"),
        ("a.json", b" " * (MAX_BYTES + 1), (None, None), "bytes"),
        ("a.json", "[" + ",".join("1" * 1 for _ in range(MAX_VALUES)) + "]", (None, None), "values"),
        ("a.yaml", BOMB, (6, 8), "alias"),
        ("a.yaml", "a: &a [*a]", (1, 8), "a part of"),
        ("a.yaml", "a: &a {<<: *a}", (1, 12), "a part of"),
        ("a.yaml", "a: *b", (1, 4), "stands for nothing"),
        ("a.yaml", "[" * 100_000, (1, MAX_DEPTH + 1), "deep"),
        ("a.yaml", "a: 1\nb: 2\na: 3", (3, 1), "twice"),
        ("a.yaml", "1: x\n'1': y", (2, 1), "twice"),
        ("a.yaml", "a: !!python/object/apply:os.system [x]", (1, 4), "python"),
        ("a.yaml", "a: !!python/name:os.system x", (1, 4), "python"),
        ("a.yaml", "a: .nan", (1, 4), "NaN"),
        ("a.yaml", "a: 2020-13-45", (1, 4), "2020-13-45"),
        ("a.yaml", "a: " + "1:" * 200_000 + "1", (1, 4), "digits"),
        ("a.yaml", "a: 0x" + "f" * 200_000, (1, 4), "digits"),
        ("a.yaml", "? [a]\n: b", (1, 3), "key"),
        ("a.yaml", "{" * 100_000, (1, 2), "key"),
        ("a.yaml", "a: &a [1]\n*a : b", (2, 1), "key"),
        ("a.yaml", "a: 1\n---\nb: 2", (2, 1), "more than one document"),
        ("a.yaml", "a: [\n", (2, 1), "not valid YAML"),
        ("a.yaml", "a: x\x00", (None, None), "not valid YAML"),
        ("a.yaml", "x: &x " + "q" * 100_000 + "\ny: [" + "*x," * 1000 + "]", (2, 125), "characters"),
        ("a.yaml", "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 500)), (100, 12), "deep"),
        ("a.yaml", "".join(f"%TAG !{i}! b\n" for i in range(60_000)) + "--- {}", (1, 1), "%TAG"),
        ("a.yaml", "", (1, 1), "no mapping"),
        ("a.toml", "a = 1\nb = \n", (2, 5), "not valid TOML"),
        ("a.toml", "a = 1\na = 2\n", (2, 6), "not valid TOML"),
        ("a.toml", "a = [1,", (1, 8), "not valid TOML"),
        ("a.toml", "a = " + "[" * 100_000, (None, None), "deep"),
        ("a.toml", "a" + ".a" * 200_000 + " = 1", (1, 1), "dotted"),
        ("a.toml", "\n".join("a." * 990 + f"x{i} = 1" for i in range(240)), (11, 1), "dotted"),
        ("a.toml", "#" * (2**19 + 1), (None, None), "too much for TOML"),
        ("a.toml", "a = nan", (None, None), "NaN"),
        ("a.toml", "a = 0x" + "f" * 100_000, (None, None), "digits"),
        ("a.md", "text", (1, 1), "front matter"),
        ("a.md", "---\na: 1\n", (1, 1), "does not end"),
        ("a.md", "---\na: 1\na: 2\n---\n", (3, 1), "twice"),
        ("a.md", "---\nbody: 1\n---\nx", (2, 1), "body"),
        ("a.md", "---\n- a\n---\nx", (1, 1), "no mapping"),
        ("a.txt", "a: 1", (None, None), ".txt"),
        ("a", "a: 1", (None, None), "suffix"),
    ],
)
def test_what_is_refused_and_where(
    name: str, content: bytes | str, place: tuple[int | None, int | None], words: str
) -> None:
    began = time.thread_time()
    line, column, error = problem(name, content)
    assert (line, column) == place, error
    assert words in error
    assert time.thread_time() - began < 2


def test_what_is_just_within_the_caps_is_read() -> None:
    data("a.json", '{"a":' * (MAX_DEPTH - 1) + "[]" + "}" * (MAX_DEPTH - 1))
    data("a.yaml", "{a: " * (MAX_DEPTH - 1) + "[]" + "}" * (MAX_DEPTH - 1))
    data("a.json", '{"a": [' + ",".join(["1"] * (MAX_VALUES - 2)) + "]}")
    data("a.yaml", "a: [" + ",".join(["1"] * (MAX_VALUES - 3)) + "]")
    data("a.json", '{"a": "' + '\\"' * (MAX_BYTES // 2 - 10) + '"}')
    data("a.toml", "a = '" + "a.b. " * 1000 + "'")


SLOWEST = [
    ("a.json", b'{"a":"' + b'\\"' * (M // 2 - 8)),
    ("a.json", b'["a":' * (M // 5)),
    ("a.json", b"{" + b'"a":1,' * (M // 6 - 1)),
    ("a.json", b"[[" * 50 + b'{"a":1},' * (M // 8 - 100)),
    ("a.yaml", b"- a\n" * (M // 4)),
    ("a.yaml", b"a:\n" * (M // 3)),
    ("a.yaml", b"[" * 99 + b"a, " * (M // 4)),
    ("a.yaml", b"[" + b"2020-01-01 00:00:00, " * (M // 22)),
    ("a.yaml", b"[" + b"1:2:3.4, " * (M // 10)),
    ("a.yaml", b"".join(b"k%d: &k%d v\n" % (i, i) for i in range(60_000))),
    ("a.yaml", b"a: &a {}\nb: [" + b"{<<: *a}," * (M // 10)),
    ("a.yaml", b"a: &a {" + b"".join(b"k%d: 1," % i for i in range(900)) + b"}\nb: [" + b"{<<: *a}," * 100_000),
    ("a.yaml", b"---\n" * (M // 4)),
    ("a.yaml", b'"\\x41' * (M // 5)),
    ("a.yaml", b"%YAML 1.1\n" * (M // 10)),
    ("a.yaml", b"a: !" + b"%41" * (M // 3 - 9)),
    ("a.toml", b"a=[" + b"1," * (2**18 - 9) + b"]"),
    ("a.toml", b"[[a]]\n" * (2**19 // 6)),
    ("a.toml", b"\n".join(b"[a.b.c.x%d]" % i for i in range(36_000))),
    ("a.toml", b"\n".join(b"a." * 30 + b"x%d=1" % i for i in range(7_500))),
    ("a.toml", b"\n".join(b"k%d." % i + b"a." * 30 + b"x=1" for i in range(7_000))),
    ("a.toml", b"\n".join(b"a." * 95 + b"x%d=1" % i for i in range(2_600))),
    ("a.toml", b"\n".join(b"k%d." % i + b"a." * 100 + b"x=1" for i in range(2_400))),
    ("a.toml", b'a="""' + b"\\n" * (2**18 - 9) + b'"""'),
    ("a.md", b"---\n" * (M // 4)),
    ("a.md", b"---\n" + b"--- x\n" * (M // 6 - 1)),
]


@pytest.mark.parametrize(("name", "content"), SLOWEST, ids=range(len(SLOWEST)))
def test_no_file_takes_more_than_two_seconds(name: str, content: bytes) -> None:
    # The least of up to three: a neighbour on the same core makes it more, and nothing makes it less.
    assert any(cost(name, content) < 2 for _ in range(3))


def cost(name: str, content: bytes) -> float:
    """Seconds of CPU, as a usual machine has them: shared ones go at half their speed at times."""
    before, began = slowness(), time.thread_time()
    read(name, content)
    took = time.thread_time() - began
    return took / max(1.0, before, slowness())


def slowness() -> float:
    """How many times as long this machine takes just now as a usual one."""
    began = time.thread_time()
    sum(number * number for number in range(10**6))
    return (time.thread_time() - began) / 0.08


def test_without_libyaml_large_files_are_refused_rather_than_read_for_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "_Loader", documents.yaml.SafeLoader)
    assert "libyaml" in problem("a.yaml", "a: " + "x" * 2**17)[2]
    assert data("a.yaml", "a: [1, 2020-01-01]\n") == {"a": [1, "2020-01-01"]}
    assert problem("a.yaml", "[" * 100_000)[:2] == (1, MAX_DEPTH + 1)


# -- whatever else --------------------------------------------------------------------------------

SUFFIXES = [".json", ".yaml", ".toml", ".md"]
PIECES = [
    *(
        "[",
        "]",
        "{",
        "}",
        ":",
        ": ",
        ",",
        "\n",
        " ",
        "  ",
        "- ",
        "? ",
        "&a ",
        "*a",
        "<<: ",
        "!!",
        "!!python/name:os ",
        "|\n",
    ),
    *(
        ">\n",
        "---\n",
        "+++\n",
        "...\n",
        "%TAG ! x\n",
        '"',
        "'",
        "\\",
        "\\u0000",
        "\\ud800",
        "#",
        "=",
        " = ",
        "a",
        "b.c",
        "[[",
        "]]",
    ),
    *(
        "1",
        "1e999",
        "-.inf",
        "NaN",
        "0x1f",
        "1_000",
        "12:30:45",
        "2020-01-01",
        "true",
        "~",
        "\x00",
        "\ufeff",
        "é",
        "\U0001f600",
    ),
    *(
        '"a": ',
        '{"a": ',
        "a: ",
        "a = ",
        "a.a.",
        '"""',
        "'''",
        "\t",
        "\r",
        "\u2028",
        "=",
        "@id: x\n",
        "!!binary aGk=\n",
        "0o17",
        "1__",
    ),
]
TEXTS = st.lists(st.tuples(st.sampled_from(PIECES), st.sampled_from([1, 1, 1, 2, 3, 50, 1000])), max_size=30).map(
    lambda parts: "".join(piece * count for piece, count in parts)
)
DATA = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda below: st.lists(below, max_size=5) | st.dictionaries(st.text(max_size=8), below, max_size=5),
    max_leaves=30,
)
CONTENTS = st.binary(max_size=300) | TEXTS.map(lambda text: text.encode("utf-8", "surrogatepass"))


def hold_its_own(suffix: str, content: bytes) -> None:
    began = time.thread_time()
    found = read("a" + suffix, content)
    assert time.thread_time() - began < 2
    if found.error is None:
        assert isinstance(json.loads(found.data), dict)
        assert found.data.isascii()
        assert found.entity_id
    else:
        assert "Error)" not in found.error, found.error  # a failure nobody thought of has no sentence of its own


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.sampled_from(SUFFIXES), CONTENTS)
def test_any_file_ends_as_an_entity_or_an_error(suffix: str, content: bytes) -> None:
    hold_its_own(suffix, content)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.text(max_size=8), DATA, max_size=5))
def test_json_comes_back_as_it_was(value: dict[str, Any]) -> None:
    assert data("a.json", json.dumps(value)) == value
    assert data("a.json", json.dumps(value, indent=1)) == value
    assert data("a.json", json.dumps(value, ensure_ascii=False).encode("utf-8")) == value


@pytest.mark.long
@pytest.mark.timeout(3600)
@settings(max_examples=50_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(SUFFIXES), CONTENTS)
def test_fifty_thousand_files_end_as_entities_or_errors(suffix: str, content: bytes) -> None:
    hold_its_own(suffix, content)
