"""Where a snapshot is published: a path with placeholders, and why no two branches can share it. Pure.

A branch's slashes become ``~``, which git allows in no branch's name: two branches never become one folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

from daemon.globs import is_glob, matches_branch
from daemon.values import parse_text, shown

PLACEHOLDERS = ("owner", "name", "branch")
SLASH = "~"

_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_SEVERAL = "*"  # stands for branches that only GitHub knows
_DEFAULT = ""  # stands for the default branch, whatever it is called


def parse_target(value: Any) -> str:
    """An absolute path with placeholders, without a final slash. Raises ValueError."""
    text = parse_text(value)
    if not text.startswith("/"):
        raise ValueError(f"{shown(value)} must be an absolute path")
    parts = [part for part in text.split("/") if part]
    if not parts or not {".", ".."}.isdisjoint(parts):
        raise ValueError(f"{shown(value)} must name a folder, without . and .. in its path")
    plain = _PLACEHOLDER.sub(lambda found: "" if found[1] in PLACEHOLDERS else "{", text)
    if set(plain) & set("{}"):
        raise ValueError(f"{shown(value)} has braces that are none of {{owner}}, {{name}} and {{branch}}")
    return "/" + "/".join(parts)


def rendered(template: str, *, owner: str, name: str, branch: str) -> str:
    """The folder of one branch. Raises ValueError for a value that would lead elsewhere."""
    values = {"owner": owner, "name": name, "branch": branch.replace("/", SLASH)}
    path = _PLACEHOLDER.sub(lambda found: values[found[1]], template)
    parts = path.split("/")[1:]
    if len(parts) != template.count("/") or not {"", ".", ".."}.isdisjoint(parts) or "\0" in path:
        raise ValueError(f"{shown(path)} is no folder below what {shown(template)} names")
    return path


def shared(
    template: str, repositories: Iterable[tuple[str, str, Sequence[str]]], branches: Sequence[str]
) -> str | None:
    """A sentence about two branches that would be published in one folder; None when there are none.

    ``repositories`` are owner, name (``*`` for all of the owner's) and configured branches of those that match.
    """
    used = set(_PLACEHOLDER.findall(template))
    taken: dict[tuple[str, ...], str] = {}
    for owner, name, followed in repositories:
        if name == "*" and "name" not in used:
            return f"would be shared by all repositories of {owner}; write {{name}} into the path"
        for branch in _candidates(followed, branches):
            if branch == _SEVERAL and "branch" not in used:
                return f"would be shared by several branches of {owner}/{name}; write {{branch}} into the path"
            values = {"owner": owner.lower(), "name": name.lower(), "branch": branch.replace("/", SLASH)}
            folder = tuple(values[key] for key in PLACEHOLDERS if key in used)
            here = f"{owner}/{name}" + (f"@{branch}" if branch else "")
            if taken.setdefault(folder, here) != here:
                missing = " or ".join(f"{{{key}}}" for key in PLACEHOLDERS if key not in used)
                return f"would be shared by {taken[folder]} and {here}; write {missing} into the path"
    return None


def _candidates(followed: Sequence[str], wanted: Sequence[str]) -> Iterator[str]:
    """The branches that may be published, as far as the configuration tells."""
    for pattern in dict.fromkeys(followed or (_DEFAULT,)):
        if not is_glob(pattern):
            if not pattern or not wanted or matches_branch(pattern, wanted):
                yield pattern
        elif wanted and not any(map(is_glob, wanted)):
            yield from (name for name in wanted if fnmatchcase(name, pattern))
        else:
            yield _SEVERAL
