"""Globs over the names of repositories and branches."""

from __future__ import annotations

import pytest

from daemon.globs import is_glob, matches_branch, matches_repository


@pytest.mark.parametrize("text", ["*", "release/*", "v?", "v[12]"])
def test_a_glob_has_a_glob_character(text: str) -> None:
    assert is_glob(text)


@pytest.mark.parametrize("text", ["", "main", "feature/a-b_c.d", "{a,b}", "v1]"])
def test_a_name_has_none(text: str) -> None:
    assert not is_glob(text)


@pytest.mark.parametrize(
    ("name", "patterns", "expected"),
    [
        ("main", ["main"], True),
        ("main", ["Main"], False),
        ("main", ["mai"], False),
        ("main", ["x", "m*"], True),
        ("main", [], False),
        ("release/1.0", ["release/*"], True),
        ("release/1.0/fix", ["release/*"], True),
        ("release/1.0/fix", ["*fix"], True),
        ("release-1", ["release-[0-9]"], True),
        ("release-x", ["release-[0-9]"], False),
        ("release-x", ["release-?"], True),
        ("a[1]", ["a[1]"], True),
        ("a1", ["a[1]"], True),
        ("main\n", ["main"], False),
    ],
)
def test_a_matches_branch_by_name_or_glob(name: str, patterns: list[str], expected: bool) -> None:
    assert matches_branch(name, patterns) is expected


@pytest.mark.parametrize(
    ("name", "patterns", "expected"),
    [
        ("Octo/Data", ("octo/*",), True),
        ("Octo/Data", ("DATA",), True),
        ("octo/data", ("octo",), False),
        ("octo/data", ("x", "d*"), True),
        ("octo/data", (), True),
    ],
)
def test_a_repository_matches_by_its_full_or_its_bare_name(
    name: str, patterns: tuple[str, ...], expected: bool
) -> None:
    assert matches_repository(name, patterns) is expected
