"""One HTTP exchange that always ends: every receive by the call's deadline, every body within its cap.

``requests`` knows a time-out for each read only, so a peer that sends one byte a second would hold a worker for
hours, in the headers as well as in the body. The response is therefore read through `_BoundedReader`.
"""

from __future__ import annotations

import http.client
import io
import logging
import socket
import threading
import weakref
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any

import certifi
import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from daemon.clock import Clock
from daemon.errors import BadAnswer, GitHubError, Unreachable
from daemon.github.auth import TokenAuth
from daemon.github.protocol import Answer, Overloaded, is_success, quoted

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

CONNECT_SECONDS = 10.0
CHUNK_BYTES = 64 * 1024
MAX_ERROR_BYTES = 1024 * 1024  # what is read of an answer that is no success
HEADER_ALLOWANCE_BYTES = 512 * 1024
MAX_CAUSES = 30
TOO_LONG = "the answer took longer than a call may take"


@dataclass(slots=True)
class Allowance:
    """What one call may cost: until when (monotonic), how long a single read, how many bytes off the wire."""

    clock: Clock
    deadline: float
    timeout_seconds: float
    max_bytes: int
    received: int = 0
    overrun: str | None = field(default=None)
    peer: str = "GitHub"  # who messages say does not answer

    def remaining(self) -> float:
        """Seconds until the deadline; Unreachable once it is over."""
        left = self.deadline - self.clock.monotonic()
        if left <= 0:
            raise Unreachable(f"{TOO_LONG}; it is asked again later")
        return left

    def next_receive(self) -> float:
        """The time-out of the next receive in seconds; OSError once the deadline or the cap is passed."""
        left = self.deadline - self.clock.monotonic()
        if left <= 0:
            self.overrun = TOO_LONG
        elif self.received > self.max_bytes + HEADER_ALLOWANCE_BYTES:
            self.overrun = f"the answer is larger than the {self.max_bytes} bytes that were expected at most"
        if self.overrun:
            raise OSError(self.overrun)
        return min(left, self.timeout_seconds)


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent; ``asked`` names it in messages, without secrets."""

    method: str
    url: str
    headers: dict[str, str]
    asked: str
    body: bytes | None = None


class Transport:
    """Sends requests over kept-alive connections, one session per thread. Follows no redirect, keeps no cookie."""

    def __init__(self) -> None:
        self._local = threading.local()
        self._sessions: weakref.WeakSet[requests.Session] = weakref.WeakSet()
        self._lock = threading.Lock()
        # At DEBUG, and in its warning about broken headers, urllib3 logs whole addresses, an archive's token included.
        logging.getLogger("urllib3").setLevel(logging.ERROR)

    def send(self, request: Request, auth: TokenAuth, allowance: Allowance) -> requests.Response:
        """The response with its body unread; the caller closes it. Raises Unreachable or BadAnswer."""
        left = allowance.remaining()
        timeout = (min(CONNECT_SECONDS, allowance.timeout_seconds, left), min(allowance.timeout_seconds, left))
        reset = _current.set(allowance)
        try:
            return self._session().request(
                request.method, request.url, headers=request.headers, data=request.body, auth=auth,
                timeout=timeout, allow_redirects=False, stream=True,
            )  # fmt: skip
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise translated(error, asked=request.asked, allowance=allowance) from None
        finally:
            _current.reset(reset)

    def close(self) -> None:
        """Close every connection of every thread."""
        with self._lock:
            for session in list(self._sessions):
                session.close()

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = _new_session()
            with self._lock:
                self._sessions.add(session)
        return session


def read_answer(response: requests.Response, *, asked: str, max_bytes: int, allowance: Allowance) -> Answer:
    """The whole answer, decoded and capped; of an error only the start is read. Closes the response."""
    good = is_success(response.status_code)
    cap = max_bytes if good else MAX_ERROR_BYTES
    headers = {name.lower(): value for name, value in response.headers.items()}
    body = bytearray()
    with response:
        for chunk in chunks(response, asked=asked, allowance=allowance, decode=True):
            body += chunk
            if len(body) <= cap:
                continue
            if good:
                raise BadAnswer(f"{asked}: the answer is larger than the {cap} bytes that were expected at most")
            break
    return Answer(response.status_code, headers, bytes(body[:cap]))


def chunks(response: requests.Response, *, asked: str, allowance: Allowance, decode: bool) -> Iterator[bytes]:
    """The body piece by piece; a body that is cut off, too slow or badly encoded raises instead of ending."""
    try:
        yield from response.raw.stream(CHUNK_BYTES, decode_content=decode)
    except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError, ValueError) as error:
        raise translated(error, asked=asked, allowance=allowance) from None


def translated(error: Exception, *, asked: str, allowance: Allowance) -> GitHubError:
    """Our error for one of ``requests``, ``urllib3`` or the socket. Quotes the root cause only: the outer messages
    hold whole addresses, and the address of an archive holds a token.
    """
    if allowance.overrun:
        return Unreachable(f"{asked}: {allowance.overrun}; it is asked again later")
    if isinstance(error, _NONSENSE):
        return BadAnswer(f"{asked}: the answer cannot be read ({type(error).__name__}); it is asked again later")
    if isinstance(error, _TOO_SLOW):
        late = allowance.clock.monotonic() >= allowance.deadline
        limit = TOO_LONG if late else f"{allowance.peer} did not answer within {allowance.timeout_seconds:g} s"
        return Overloaded(f"{asked}: {limit}; it is asked again later")
    return Unreachable(f"{asked}: {allowance.peer} cannot be reached ({_root_cause(error)}); it is asked again later")


_NONSENSE = (
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema,
    requests.exceptions.InvalidHeader,
    requests.exceptions.ContentDecodingError,
    urllib3.exceptions.DecodeError,
    urllib3.exceptions.LocationValueError,
)
_TOO_SLOW = (requests.exceptions.ReadTimeout, urllib3.exceptions.ReadTimeoutError, TimeoutError)


def _root_cause(error: BaseException) -> str:
    """The innermost error of the operating system, or the name of the outermost one."""
    seen: list[BaseException] = []
    todo: list[Any] = [error]
    while todo and len(seen) < MAX_CAUSES:
        inner = todo.pop()
        if isinstance(inner, BaseException) and inner not in seen:
            seen.append(inner)
            todo += [*inner.args, getattr(inner, "reason", None), inner.__cause__, inner.__context__]
    named = [e for e in seen if isinstance(e, OSError) and not isinstance(e, requests.RequestException) and e.strerror]
    return quoted(str(named[-1].strerror)) if named else type(seen[-1]).__name__


def _new_session() -> requests.Session:
    session = _Session()
    session.trust_env = False  # no netrc, no proxy, no CA bundle from the environment (CVE-2024-47081)
    session.verify = certifi.where()
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.headers.clear()
    session.mount("https://", _Adapter())
    session.mount("http://", _Adapter())
    return session


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """None: even with ``allow_redirects=False`` requests would read a redirect's whole body, bomb or not."""
        del resp
        return None


class _BoundedReader(io.RawIOBase):
    """The socket as a response reads it, within the allowance of the call."""

    def __init__(self, sock: socket.socket, allowance: Allowance) -> None:
        self._socket = sock
        self._raw = sock.makefile("rb", buffering=0)  # holds the socket open until the response is read
        self._allowance = allowance

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int | None:
        self._socket.settimeout(self._allowance.next_receive())
        count: int | None = self._raw.readinto(buffer)
        self._allowance.received += count or 0
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        allowance = _current.get()
        if allowance is not None:
            self.fp.close()
            self.fp = io.BufferedReader(_BoundedReader(sock, allowance))


class _PlainConnection(HTTPConnection):
    response_class = _Response


class _TlsConnection(HTTPSConnection):
    response_class = _Response


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _PlainConnection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _PlainPool, "https": _TlsPool}


# Hands the allowance of the call that is being made in this thread to the response that http.client builds.
_current: ContextVar[Allowance | None] = ContextVar("allowance", default=None)
