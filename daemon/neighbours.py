"""Other distributions that have put files into the import package `daemon`, as PyPI's python-daemon does."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import Distribution, distributions

OURS = "headwater"
PACKAGE = "daemon"
REMEDY = "they overwrite each other's files; install headwater into a virtual environment of its own"


def sharers(installed: Iterable[Distribution] | None = None) -> list[str]:
    """The names of the others that are installed where this program is (or of those given)."""
    every = distributions() if installed is None else installed
    return sorted({one.name for one in every if one.name != OURS and _has_modules_in_package(one)})


def _has_modules_in_package(distribution: Distribution) -> bool:
    # As installed: what `top_level.txt` says is often missing, and a name says nothing.
    return any(file.parts[0] == PACKAGE and file.suffix == ".py" for file in distribution.files or ())
