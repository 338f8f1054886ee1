"""Large JSON is what `json.loads` makes of it, without its hold on the interpreter's lock."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.github import bigjson

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


@given(VALUES, st.sampled_from([None, 0, 2, "\t"]), st.booleans())
def test_a_value_is_read_as_the_standard_library_reads_it(value: Any, indent: Any, ascii_only: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    assert bigjson.loads(f" \n{text}\r\n") == json.loads(text)


def refused(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return True
    return False


@given(st.text(alphabet='[]{}:,"a1 \\ntrue', max_size=12) | st.text(max_size=5))
def test_what_is_no_json_is_refused_as_the_standard_library_does(text: str) -> None:
    if not refused(text):
        assert bigjson.loads(text) == json.loads(text)
        return
    with pytest.raises(ValueError):
        bigjson.loads(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[",
        "[1",
        "[1,",
        "[1,]",
        "[,1]",
        "[1 2]",
        "{",
        '{"a"',
        '{"a":',
        '{"a":1',
        '{"a":1,',
        '{"a":1,}',
        "{1:2}",
        "[]]",
    ],
)
def test_what_is_cut_or_misplaced_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        bigjson.loads(text)


@pytest.mark.parametrize("text", ["NaN", "[NaN]", '{"a": Infinity}', '{"a": [-Infinity]}'])
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"NaN|Infinity"):
        bigjson.loads(text)
