"""A GitHub App's private key: read again at every use, and what is signed with it.

PyJWT and cryptography come with the extra ``app``; nothing of them is imported before an App is configured.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

LARGEST_BYTES = 64 * 1024
REMEMBERED = 4
# https://docs.github.com/apps/creating-github-apps/authenticating-with-a-github-app/generating-a-json-web-token-jwt-for-a-github-app
BACKDATED = timedelta(seconds=60)  # against clocks that differ
LIFETIME = timedelta(minutes=9)  # at most 10 minutes, by GitHub's clock


def extra_is_installed() -> bool:
    """Whether what the extra ``app`` brings can be imported."""
    return all(find_spec(name) is not None for name in ("jwt", "cryptography"))


class PrivateKey:
    """The RSA key in a PEM file.

    A file that has become unreadable or nonsense while running (half of a rotation) leaves the last good key in force.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read: list[tuple[str, RSAPrivateKey]] = []  # newest first

    def load(self) -> None:
        """Read the file. Raises ValueError with what to do when it holds no key."""
        pem = _pem(self.path)
        if not self._read or self._read[0][0] != pem:
            self._read = [(pem, _parsed(pem)), *self._read][:REMEMBERED]

    def sign(self, issuer: str, *, now: datetime) -> str:
        """The JSON Web Token with which the App ``issuer`` asks. Raises ValueError when there never was a key."""
        import jwt

        try:
            self.load()
        except ValueError:
            if not self._read:
                raise
        claims = {"iat": int((now - BACKDATED).timestamp()), "exp": int((now + LIFETIME).timestamp()), "iss": issuer}
        return jwt.encode(claims, self._read[0][1], algorithm="RS256")

    def seen(self) -> list[str]:
        """Every key there was, the replaced ones too: what must not be shown. Reads nothing."""
        return [pem for pem, _ in self._read]


def _pem(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise ValueError(f"cannot read the key: {error.strerror or type(error).__name__}") from error
    if len(raw) > LARGEST_BYTES:
        raise ValueError("is larger than any key; is it the right file?")
    return raw.decode("ascii", "replace").strip()


def _parsed(pem: str) -> RSAPrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pem.encode("utf-8"), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: it needs a password
        key = None
    if not isinstance(key, RSAPrivateKey):
        raise ValueError("holds no RSA private key in PEM; download one from the App's settings on GitHub")  # noqa: TRY004
    return key
