"""Which content is kept: gitignore-style patterns.

Pure. Paths are bytes and need not be UTF-8; they are matched as text with surrogate escapes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from hashlib import sha256

from pathspec import GitIgnoreSpec

from daemon.model import ContentRules


def rules(include: Sequence[str], exclude: Sequence[str], max_file_bytes: int) -> ContentRules:
    """The rules with a digest that changes whenever what they keep could."""
    canonical = json.dumps(
        {"exclude": list(exclude), "include": list(include), "max_file_bytes": max_file_bytes},
        sort_keys=True,
        separators=(",", ":"),
    )
    return ContentRules(
        include=tuple(include),
        exclude=tuple(exclude),
        max_file_bytes=max_file_bytes,
        digest=sha256(canonical.encode()).hexdigest(),
    )


def compile_rules(include: Sequence[str], exclude: Sequence[str]) -> Callable[[bytes], bool]:
    """A test for paths whose content is kept: in ``include`` (all when empty) and not in ``exclude``.

    The last pattern that matches decides, so ``!`` also takes a file back out of a folder that is
    matched as a whole (git would not look into it). Raises ValueError for what is no pattern, such as
    ``!`` alone.
    """
    included = _matcher(include) if include else _everything
    if not exclude:
        return included
    excluded = _matcher(exclude)
    return lambda path: included(path) and not excluded(path)


def _everything(_path: bytes) -> bool:
    return True


def _matcher(patterns: Sequence[str]) -> Callable[[bytes], bool]:
    # The other backends of pathspec are chosen by what happens to be installed, and take no surrogates.
    spec = GitIgnoreSpec.from_lines([_one_line(pattern) for pattern in patterns], backend="simple")

    def matches(path: bytes) -> bool:
        return spec.match_file(_one_line(path.decode("utf-8", "surrogateescape")), separators=())

    return matches


def _one_line(text: str) -> str:
    # `**/` becomes a regular expression in which a dot is no newline: the file "a\nb/key" would slip through.
    return text.replace("\n", "\v")
