"""Where on the API a repository or an organisation is. Pure."""

from __future__ import annotations

from urllib.parse import quote

from daemon.errors import RepositoryNotFound
from daemon.model import RepositoryRef


def repository_path(ref: RepositoryRef) -> str:
    """Raises RepositoryNotFound for a name that would lead elsewhere."""
    return f"/repos/{_part(ref.owner, ref)}/{_part(ref.name, ref)}"


def organisation_path(login: str) -> str:
    """Raises RepositoryNotFound for a name that would lead elsewhere."""
    return f"/orgs/{_part(login, RepositoryRef(login, '*'))}"


def _part(part: str, ref: RepositoryRef) -> str:
    if part in {"", ".", ".."}:  # would be another path once normalised
        raise RepositoryNotFound(f"{ref.full_name}: no repository can have this name; correct the configuration")
    return quote(part, safe="")
