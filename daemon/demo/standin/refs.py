"""Branches read from the files of a repository: a hundred repositories without a process for each."""

from __future__ import annotations

import os
import re
from pathlib import Path

_SHA = re.compile(rb"[0-9a-f]{40}")
_HOPS = 5
LONGEST_NAME_BYTES = 255  # GitHub takes no longer one, and no file system either


def git_directory(path: Path) -> Path:
    """The directory that holds refs and objects of a bare or plain repository, or of a linked work tree.

    Raises ValueError when there is none, or when its format is not the one every git can read.
    """
    candidates = (path / ".git", path)
    found = next((each for each in candidates if each.is_file() or (each / "objects").is_dir()), None)
    if found is None:
        raise ValueError(f"{path} is no git repository")
    if found.is_file():
        found = (path / found.read_text().removeprefix("gitdir:").strip()).resolve()
    shared = found / "commondir"
    directory = (found / shared.read_text().strip()).resolve() if shared.is_file() else found
    _require_known_format(directory)
    return directory


def _require_known_format(directory: Path) -> None:
    if (directory / "reftable").exists():
        raise ValueError(f"{directory} keeps its refs in a reftable, which the stand-in does not read: serve a copy")
    config = directory / "config"
    if config.is_file() and re.search(r"objectformat\s*=\s*sha256", config.read_text(errors="replace"), re.IGNORECASE):
        raise ValueError(f"{directory} uses SHA-256 object ids, which GitHub does not have")


class Refs:
    """The refs of one repository, always as they are on disk now."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._packed: tuple[tuple[int, int, int], dict[str, str]] = ((0, 0, 0), {})

    def head_branch(self) -> str | None:
        """The branch HEAD points to, whether it exists or not; None when HEAD is detached."""
        target = _content(self._directory / "HEAD")
        name = target.removeprefix(b"ref:").strip().decode("utf-8", "surrogateescape")
        return name.removeprefix("refs/heads/") if name.startswith("refs/heads/") else None

    def get(self, name: str) -> str | None:
        """The id a full ref name (``refs/heads/main``) has."""
        for _ in range(_HOPS):
            # Loose before packed: pack-refs writes the packed file first and removes the loose one after.
            content = _content(self._directory / name) if _is_plain(name) else b""
            if not content.startswith(b"ref:"):
                return content[:40].decode() if _SHA.match(content) else self._packed_refs().get(name)
            name = content.removeprefix(b"ref:").strip().decode("utf-8", "surrogateescape")
        return None

    def under(self, prefix: str) -> dict[str, str]:
        """Every ref below a folder of refs (``refs/heads/``), by full name, sorted as git sorts them."""
        names = set(self._loose(prefix)) | {name for name in self._packed_refs() if name.startswith(prefix)}
        found = {name: self.get(name) for name in sorted(names, key=os.fsencode)}
        return {name: sha for name, sha in found.items() if sha}

    def _loose(self, prefix: str) -> list[str]:
        top = f"{self._directory}/{prefix}".rstrip("/")
        return [
            f"{prefix}{folder[len(top) :].lstrip('/')}/{file}".replace("//", "/")
            for folder, _, files in os.walk(top)
            for file in files
            if not file.endswith(".lock")
        ]

    def _packed_refs(self) -> dict[str, str]:
        file = self._directory / "packed-refs"
        try:
            stat = file.stat()
        except FileNotFoundError:
            return {}
        signature = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        if self._packed[0] != signature:
            self._packed = (signature, _parse_packed(_content(file)))
        return self._packed[1]


def _parse_packed(content: bytes) -> dict[str, str]:
    lines = (line.split(b" ", 1) for line in content.splitlines() if _SHA.match(line))
    return {name.decode("utf-8", "surrogateescape"): sha.decode() for sha, name in lines}


def _is_plain(name: str) -> bool:
    """Whether a ref name may be used as a path: it comes from a request."""
    odd = "\0" in name or name.startswith("/") or ".." in name.split("/")
    return not odd and len(os.fsencode(name)) <= LONGEST_NAME_BYTES


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return b""
