"""The notations of the configuration: durations, sizes, addresses, URLs, names. Pure: text in, value out.

Every function raises ValueError with a sentence that says what is wrong and what to write instead.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

LONGEST_SECONDS = 3650 * 86400.0  # longer ones overflow datetime arithmetic sooner or later
LARGEST_BYTES = 2**53
LONGEST_SOCKET_PATH = 107  # sun_path has 108 bytes with the final NUL, see unix(7)
MOST_SHOWN = 80

_NUMBER = r"[0-9]{1,12}(?:\.[0-9]{1,6})?"
_DURATION = re.compile("".join(f"(?:({_NUMBER}){unit})?" for unit in ("d", "h", "m(?!s)", "s", "ms")))
_DURATION_SECONDS = (Fraction(86400), Fraction(3600), Fraction(60), Fraction(1), Fraction(1, 1000))
_SIZE = re.compile(rf"({_NUMBER}) ?(|B|[kKMGT]i?B)")
_HOST = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})*")
_PORT = re.compile(r"[0-9]{1,5}")
UNIX = "unix"
# Accounts have up to 39 characters; those of managed users end in an underscore and a short code.
_OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,38}")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")


Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Proxy = Network | Literal["unix"]


@dataclass(frozen=True, slots=True)
class Address:
    """Where a listener listens: ``host`` and ``port``, or the ``path`` of a unix socket."""

    kind: Literal["tcp", "unix"]
    host: str = ""
    port: int = 0
    path: str = ""

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        if self.kind == "unix":
            return True
        return is_loopback_host(self.host)

    @classmethod
    def of_socket(cls, listening: socket.socket) -> Address:
        """The address of a socket that somebody else has bound, such as systemd."""
        name = listening.getsockname()
        if listening.family == socket.AF_UNIX:
            return cls("unix", path=name if isinstance(name, str) else repr(name))
        return cls("tcp", host=name[0], port=name[1])

    def __str__(self) -> str:
        if self.kind == "unix":
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def shown(value: object) -> str:
    """``value`` as a message may show it: quoted, on one line, not too long."""
    text = value if isinstance(value, str) else repr(value)
    cut = text if len(text) <= MOST_SHOWN else text[:MOST_SHOWN] + "…"
    return f'"{escaped(cut)}"'


def escaped(text: str) -> str:
    """``text`` on one line: controls, line ends, direction marks, lone surrogates become escapes."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def nearest(name: str, known: Iterable[str]) -> str:
    """The most similar of the ``known`` names, however far it is."""
    return difflib.get_close_matches(name[:MOST_SHOWN], list(known), n=1, cutoff=0.0)[0]


def parse_duration(value: Any) -> float:
    """Seconds of a duration such as ``30s``, ``15m``, ``6h``, ``1d``, ``250ms`` or ``1h30m``."""
    hint = 'write a duration with its unit, such as "250ms", "30s", "15m", "6h", "1d" or "1h30m"'
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is not a duration; {hint}")  # noqa: TRY004 - pydantic collects ValueErrors
    match = _DURATION.fullmatch(value)
    if match is None or not value:
        raise ValueError(f"{shown(value)} is not a duration; {hint}")
    parts = zip(match.groups(), _DURATION_SECONDS, strict=True)
    seconds = float(sum(Fraction(number) * unit for number, unit in parts if number))
    if seconds > LONGEST_SECONDS:
        raise ValueError(f"{shown(value)} is longer than ten years")
    return seconds


def parse_size(value: Any) -> int:
    """Bytes of a size such as ``5MB`` (10⁶), ``5MiB`` (2²⁰) or a plain number."""
    hint = 'write a size such as "5MB", "5MiB" or a plain number of bytes'
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    match = _SIZE.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"{shown(value)} is not a size; {hint}")
    number, unit = match.groups()
    base = 1024 if "i" in unit else 1000
    size = Fraction(number) * base ** (" KMGT".index(unit[0].upper()) if len(unit) > 1 else 0)
    if size.denominator != 1:
        raise ValueError(f"{shown(value)} is not a whole number of bytes; {hint}")
    if size > LARGEST_BYTES:
        raise ValueError(f"{shown(value)} is more than any file can have; {hint}")
    return int(size)


def parse_address(value: Any) -> Address:
    """The address written as ``host:port``, ``[v6]:port`` or ``unix:/path``; port 0 lets the system choose."""
    hint = 'write "host:port", "[ipv6]:port" or "unix:/path"'
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is not an address; {hint}")  # noqa: TRY004
    if value.startswith("unix:"):
        return _unix_address(value.removeprefix("unix:"))
    host, colon, port = value.rpartition(":")
    if not colon or _PORT.fullmatch(port) is None or int(port) > 65535:  # noqa: PLR2004
        raise ValueError(f"{shown(value)} has no port between 0 and 65535; {hint}")
    if not host or host == "*":
        raise ValueError(f'{shown(value)} names no host; "0.0.0.0:{port}" or "[::]:{port}" is every interface')
    return Address("tcp", host=_listen_host(host, value, hint), port=int(port))


def _unix_address(path: str) -> Address:
    if not path.startswith("/") or "\0" in path or not path.isprintable() or path.endswith("/"):
        raise ValueError(f'"unix:" must be followed by the absolute path of a socket, not {shown(path)}')
    if len(path.encode()) > LONGEST_SOCKET_PATH:
        raise ValueError(f"the path of a unix socket may have {LONGEST_SOCKET_PATH} bytes; {shown(path)} is longer")
    return Address("unix", path=path)


def _listen_host(host: str, value: str, hint: str) -> str:
    if host.startswith("[") and host.endswith("]"):
        try:
            return str(ipaddress.IPv6Address(host[1:-1]))
        except ValueError as error:
            raise ValueError(f"{shown(host)} is not an IPv6 address; {hint}") from error
    if ":" in host:
        raise ValueError(f"{shown(value)}: an IPv6 address stands in brackets; {hint}")
    _check_host(host)
    return host.lower()


def _check_host(host: str) -> None:
    if len(host) > 253 or _HOST.fullmatch(host) is None:  # noqa: PLR2004 - RFC 1035, 2.3.4
        raise ValueError(f"{shown(host)} is neither a host name nor an IP address")


def is_loopback_host(host: str) -> bool:
    """Whether ``host`` can only mean this machine. A name other than localhost is not looked up, so it cannot."""
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def parse_api_url(value: Any) -> str:
    """The REST base without a final slash; plain http only to this machine, because it carries the token."""
    url = _parse_url(value)
    if url.scheme == "http" and not is_loopback_host(url.hostname or ""):
        raise ValueError("plain http would show the token to the network; write https (http is for loopback only)")
    host = (url.hostname or "").lower()
    if host == "github.com" or (host.endswith(".ghe.com") and not host.startswith("api.")):
        raise ValueError(f"is the site, and not its API; write https://api.{host}")
    return url.geturl().rstrip("/")


def parse_public_url(value: Any) -> str:
    """An http or https URL that GitHub, or a receiver, is reached at."""
    return _parse_url(value, query=True).geturl()


def parse_postgres_url(value: str) -> str:
    """The URL of a PostgreSQL database as libpq takes it; what of it libpq does not know, it says when it is opened."""
    hint = "write postgresql://user@host/database, and the password as storage.password_file"
    try:
        url = urlsplit(value)
        _ = url.port
    except ValueError as error:
        raise ValueError(f"is not the URL of a database: its host or port is malformed; {hint}") from error
    if not value.isprintable() or " " in value or url.fragment:
        raise ValueError(f"has a space, a # or a character that must be written as %20, %23 …; {hint}")
    if not url.path.strip("/") and "dbname" not in dict(parse_qsl(url.query)):
        raise ValueError(f"names no database; {hint}")
    return value


def url_passwords(value: str) -> list[str]:
    """Every spelling of the passwords that the URL of a database holds."""
    url = urlsplit(value)
    written = [password for key, password in parse_qsl(url.query) if key in ("password", "sslpassword")]
    written += [url.password] if url.password else []
    return [spelling for one in written for spelling in dict.fromkeys((one, unquote(one), quote(one, safe="")))]


def _parse_url(value: Any, *, query: bool = False) -> SplitResult:
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or set(value) & set(' \\"<>'):
        raise ValueError("is not a URL; write it like https://api.github.com")
    try:
        url = urlsplit(value)
        _ = url.port
    except ValueError as error:
        raise ValueError("is not a URL: its host or port is malformed") from error
    if url.username is not None:
        raise ValueError("holds a user name or password; keep credentials out of URLs, and use the key meant for them")
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ValueError("must start with https:// and name a host")
    if ":" not in url.hostname:
        _check_host(url.hostname)
    if url.fragment or (url.query and not query):
        raise ValueError("must not have a query or a fragment")
    return url


def parse_proxy(value: Any) -> Proxy:
    """An address or a network that a proxy connects from; ``unix`` for whoever connects to a unix socket."""
    if value == UNIX:
        return "unix"
    hint = 'write an address such as "10.0.0.7", a network such as "10.0.0.0/8", or "unix"'
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is not an address; {hint}")  # noqa: TRY004
    try:
        network = ipaddress.ip_network(value, strict=False)
    except ValueError as error:
        raise ValueError(f"{shown(value)} is not an address; {hint}") from error
    if "/" in value and ipaddress.ip_interface(value).ip != network.network_address:
        raise ValueError(f"{shown(value)} is not the beginning of a network; write {network}")
    return network


def parse_path(value: Any) -> str:
    """An URL path that starts with a slash."""
    if not isinstance(value, str) or not re.fullmatch(r"/[A-Za-z0-9._~!$&'()*+,;=:@/-]*", value):
        raise ValueError(f"{shown(value)} is not a path; it starts with / and has no query, space or escape")
    return value


def parse_full_name(value: Any) -> str:
    """``owner/name``, or ``owner/*``, in the characters that GitHub allows."""
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is not a repository; write owner/name")  # noqa: TRY004
    if "://" in value or value.startswith("git@"):
        raise ValueError("is a URL; write owner/name")
    owner, slash, name = value.partition("/")
    if not slash or _OWNER.fullmatch(owner) is None:
        raise ValueError(f"{shown(value)} is not a repository; write owner/name, or owner/* for all of an owner's")
    if name == "*":
        return value
    if _NAME.fullmatch(name) is None or name in {".", ".."}:
        raise ValueError(f"{shown(value)} is not a repository; a name has letters, digits, dots, dashes, underscores")
    if name.lower().endswith(".git"):
        raise ValueError(f"{shown(value)} ends in .git, which no repository on GitHub does; write it without")
    return value


def parse_branch(value: Any) -> str:
    """The name of a branch, or a glob over names."""
    text = parse_text(value)
    if text.startswith("refs/heads/"):
        raise ValueError(f"{shown(value)} is a ref; write the name of the branch, {shown(text[11:])}")
    return text


def parse_text(value: Any) -> str:
    """A text that is not empty and has no control characters."""
    if not isinstance(value, str):
        raise ValueError("must be a text in quotes")  # noqa: TRY004
    if not value.strip() or not value.isprintable():
        raise ValueError(f"{shown(value)} is empty or has characters that cannot be printed")
    return value


def parse_host_name(value: Any) -> str:
    """A name or address as it stands in a Host header, in lower case, without the port."""
    text = parse_text(value).lower()
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if ":" in bare:
        try:
            return f"[{ipaddress.IPv6Address(bare)}]"
        except ValueError as error:
            raise ValueError(f"{shown(value)} is no host name; write it without scheme and port") from error
    _check_host(bare)
    return bare
