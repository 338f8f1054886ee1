"""How a request is authenticated: by a callable, so that nothing in the environment can replace the token."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field

import requests
from requests.auth import AuthBase

from daemon.errors import Unauthorized
from daemon.github.protocol import REMEDY

# Tokens of an App may have 520 characters with dots; what no header may hold is refused here, because the HTTP
# library would quote it, secret and all, in its own error.
_TOKEN = re.compile(r"[\x21-\x7e]{1,2000}")


@dataclass(slots=True, eq=False)
class Credential:
    """Who makes a request, and with which token: ``account`` is "" for a plain one, else an App or its installation."""

    token: str | None = field(repr=False)
    account: str = ""
    renewable: bool = False  # an installation's token: refused, it can be replaced
    proven: bool = False  # GitHub has answered something else than 401 to it
    remedy: str = REMEDY


class TokenAuth(AuthBase):
    """Sends ``token`` as a bearer token, or no authentication at all when it is None.

    A callable and not a pair: for pairs and for nothing ``requests`` would look into ``~/.netrc`` first.
    """

    def __init__(self, token: str | None) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers.pop("Authorization", None)
        if self._token is not None:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request

    def __repr__(self) -> str:
        return "TokenAuth(***)" if self._token is not None else "TokenAuth(None)"


def checked_token(token: str | None) -> str | None:
    """``token`` without surrounding space, None when empty; Unauthorized when no token can look like that."""
    stripped = (token or "").strip()
    if not stripped:
        return None
    if _TOKEN.fullmatch(stripped) is None:
        raise Unauthorized("the GitHub token holds characters that no token has; correct github.token or its file")
    return stripped


def fingerprint(token: str | None) -> str:
    """What tells two tokens apart without holding either."""
    return hashlib.sha256((token or "").encode("utf-8", "surrogatepass")).hexdigest()
