"""Globs over the names of repositories and branches. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

_CHARACTERS = frozenset("*?[")


def is_glob(text: str) -> bool:
    """Whether ``text`` is a pattern rather than a name (none of these characters can be in a branch's name)."""
    return not _CHARACTERS.isdisjoint(text)


def matches_repository(full_name: str, patterns: Sequence[str]) -> bool:
    """Whether one of the globs (none: all) is for the full or the bare name, whatever the case."""
    names = (full_name.lower(), full_name.lower().partition("/")[2])
    return not patterns or any(fnmatchcase(name, pattern.lower()) for pattern in patterns for name in names)


def matches_branch(name: str, patterns: Sequence[str]) -> bool:
    """Whether one of the names and globs is for the branch; ``*`` also stands for slashes, case counts."""
    return any(name == pattern or fnmatchcase(name, pattern) for pattern in patterns)
