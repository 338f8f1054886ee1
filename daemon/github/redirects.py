"""Where a redirect may lead: decided here, never by the HTTP library. Pure.

API answers stay on the API's own origin and keep their authentication; an archive may also come from GitHub's
download host, without it. Everything else is refused: a token must reach no other host, and no address inside the
network may be asked on behalf of an answer (https://docs.github.com/rest/repos/contents#download-a-repository-archive-tar).
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import SplitResult, urljoin, urlsplit

from daemon.errors import BadAnswer

MAX_HOPS = 3

_DEFAULT_PORTS = {"http": 80, "https": 443}
_BY_ID = re.compile(r"/repositories/([0-9]{1,19})(?:/|$)")


@dataclass(frozen=True, slots=True)
class Hop:
    """The next address to ask, and whether the token may be shown there."""

    url: str
    authorized: bool


def redacted(url: str) -> str:
    """``url`` fit for logs and messages: without query, fragment and user, which may hold a token."""
    try:
        parts = urlsplit(url)
        return f"{parts.scheme}://{_netloc(parts)}{parts.path}" if parts.scheme else parts.path
    except ValueError:
        return "an address that cannot be read"


def next_hop(location: str | None, *, at: str, api_url: str, download: bool, asked: str) -> Hop:
    """The hop that a redirect answered at ``at`` leads to; BadAnswer when it may not be followed."""
    if not location:
        raise BadAnswer(f"{asked}: GitHub answered a redirect that leads nowhere; it is asked again later")
    url = _joined(at, location)
    if url is not None and _plain(url):
        if _is_api(url, api_url):
            return Hop(url, authorized=True)
        if download and _is_download(url, api_url):
            return Hop(url, authorized=False)
    raise BadAnswer(
        f"{asked}: GitHub answered a redirect to {redacted(url or location)[:200]!r}, where headwater does not follow; "
        "check github.api_url"
    )


def on_api(location: str, *, at: str, api_url: str) -> str | None:
    """The address that ``location`` names on the page ``at``, when it is one of the API's own; else None."""
    url = _joined(at, location)
    if url is None or not _plain(url) or _origin(url) != _origin(api_url):
        return None
    return url if urlsplit(url).path.startswith(f"{_base_path(api_url)}/") else None


def repository_id(url: str, *, api_url: str) -> int | None:
    """The numeric id that an API address names (``/repositories/{id}/…``), if it does."""
    match = _BY_ID.match(urlsplit(url).path[len(_base_path(api_url)) :])
    return int(match.group(1)) if match else None


def is_loopback(host: str | None) -> bool:
    """Whether ``host`` is this machine: ``localhost`` or a loopback address."""
    if host is None:
        return False
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _joined(at: str, location: str) -> str | None:
    try:
        return urljoin(at, location)
    except ValueError:
        return None


def _plain(url: str) -> bool:
    """Whether the address is one that every parser reads alike: a differing reading is how hosts are smuggled."""
    if not url.isascii() or any(character <= " " or character in "\\\x7f" for character in url):
        return False
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    dotted = any(segment in {".", ".."} for segment in parts.path.lower().replace("%2e", ".").split("/"))
    return parts.scheme in _DEFAULT_PORTS and bool(parts.hostname) and "@" not in parts.netloc and not dotted


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)


def _base_path(api_url: str) -> str:
    return urlsplit(api_url).path.rstrip("/")


def _is_api(url: str, api_url: str) -> bool:
    base = _base_path(api_url)
    allowed = (f"{base}/repositories/", f"{base}/repos/")
    return _origin(url) == _origin(api_url) and urlsplit(url).path.startswith(allowed)


def _is_download(url: str, api_url: str) -> bool:
    scheme, host, _ = _origin(url)
    api_scheme, api_host, _ = _origin(api_url)
    if _origin(url) == _origin(api_url):
        return True
    if api_scheme == "http" and is_loopback(api_host):  # the stand-in, tests: any port of this machine
        return scheme == "http" and is_loopback(host)
    names = {f"codeload.{api_host.removeprefix('api.')}", f"codeload.{api_host}"}
    return scheme == "https" and host in names


def _netloc(parts: SplitResult) -> str:
    return parts.netloc.rpartition("@")[2]
