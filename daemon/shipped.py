"""Files that come with the program and are no modules: the units, the example of a configuration."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parent
# A wheel has them inside the package (pyproject.toml puts them there), a checkout beside it.
FOLDERS = (PACKAGE / "share", PACKAGE.parent)


def shipped(name: str) -> str:
    """The text of one of them, by its path in the repository. Raises FileNotFoundError."""
    found = next((folder / name for folder in FOLDERS if (folder / name).is_file()), FOLDERS[0] / name)
    return found.read_text(encoding="utf-8")
