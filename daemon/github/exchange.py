"""One call to GitHub: token, governor, redirects, retries and the total deadline around the bare exchanges."""

from __future__ import annotations

import dataclasses
import random
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import TypeVar

import requests
import tenacity

from daemon.clock import Clock, OtherClock
from daemon.errors import BadAnswer, ConfigError, RateLimited, RepositoryReplaced, Unauthorized, Unreachable
from daemon.github import limits, protocol, redirects
from daemon.github.apps import App, Asker
from daemon.github.auth import Credential, TokenAuth, checked_token
from daemon.github.calls import Call, ClientSettings, RequestSeen, Tally
from daemon.github.governor import DOWNLOADS, PUBLIC, Governor
from daemon.github.protocol import REDIRECTS, Answer, Overloaded
from daemon.github.transport import Allowance, Request, Transport, chunks, read_answer
from daemon.model import RepositoryRef
from daemon.redaction import HIDDEN, SHORTEST
from daemon.version import __version__

__all__ = ["Call", "ClientSettings", "Exchange", "RequestSeen", "Tally"]

API_VERSION = "2022-11-28"

ATTEMPTS = 3
MAX_PATIENCE_SECONDS = 2.0  # a limit that lifts within is waited for here, a longer one by the caller
CALL_TIMEOUTS = 4  # the total deadline of a call, in time-outs
STREAM_TIMEOUTS = 30  # of an archive: 15 minutes at the default of 30 s
FRESH_TOKEN_WAITS = (0.5, 1.0, 2.0, 4.0)  # seconds: a new installation token may answer 401 for some 5 s (reports)

_T = TypeVar("_T")
_A = TypeVar("_A")


@dataclass(frozen=True, slots=True)
class _Opened:
    """A response with its body unread, and which budget it counts against."""

    response: requests.Response
    resource: str
    mark: str
    credential: Credential


class _TokenRefused(Unauthorized):
    """401 to the token of an installation, which can be replaced."""


class _Circumstances(threading.local):
    """What holds for the calls of one thread."""

    def __init__(self) -> None:
        self.tallies: tuple[Tally, ...] = ()
        self.background = 0


class Exchange:
    """Makes calls. Any number of threads; `adopt` replaces ``settings`` while it runs."""

    def __init__(
        self, settings: ClientSettings, *, clock: Clock, governor: Governor, on_request: Callable[[RequestSeen], None]
    ) -> None:
        self._governor = governor
        self._clock = clock
        self._on_request = on_request
        self._transport = Transport()
        self._here = _Circumstances()
        self._counting = threading.Lock()
        self.settings = settings
        self.github_clock = OtherClock(clock)
        self.app: App | None = None
        self._marks: dict[str, str] = {}  # of each account, as the governor knows it
        self.adopt(settings)

    def adopt(self, settings: ClientSettings) -> None:
        """Use these settings from the next call on; of the same App the installations stay known."""
        app, before = settings.app, self.app
        elsewhere = settings.api_url != self.settings.api_url
        self.settings = settings
        if app is None:
            self.app = None
        elif before is None or before.settings.app_id != app.app_id or elsewhere:
            self.app = App(app, self._ask_as_app, self._clock, self.github_clock)
        else:
            before.settings = app
            before.forget_refusals()

    def close(self) -> None:
        """Close every kept connection."""
        self._transport.close()

    def token(self, asker: Asker = None) -> str | None:
        """The token of the next call of ``asker``; Unauthorized when there has to be one.

        With an App also Forbidden without an installation, Outage or BadAnswer.
        """
        return self._credential(asker).token

    def account_of(self, ref: RepositoryRef) -> str:
        """What repositories have in common that are read with one credential."""
        return self.app.account_of(ref) if self.app is not None else ""

    def mark_of(self, account: str) -> str:
        """By which mark the governor knows an account; "" before its first request."""
        return self._marks.get(account, "")

    @contextmanager
    def tally(self) -> Iterator[Tally]:
        """Count the requests of this thread."""
        before = self._here.tallies
        tally = Tally()
        self._here.tallies = (*before, tally)
        try:
            yield tally
        finally:
            self._here.tallies = before

    def alongside(self, work: Callable[[_A], _T]) -> Callable[[_A], _T]:
        """``work`` for other threads to do for this one: what they ask is counted and marked as if asked here."""
        tallies, background = self._here.tallies, self._here.background

        def done_here(given: _A) -> _T:
            self._here.tallies, self._here.background = tallies, background
            return work(given)

        return done_here

    @contextmanager
    def background(self) -> Iterator[None]:
        """Mark the calls of this thread as polling, which leaves the governor's reserve alone."""
        self._here.background += 1
        try:
            yield
        finally:
            self._here.background -= 1

    def ask(self, call: Call) -> Answer:
        """The answer to a call, 2xx or 304, read whole; every other one is raised as what it means."""
        settings = self.settings

        def ask(credential: Credential) -> Answer:
            allowance = self._allowance(settings, call, CALL_TIMEOUTS)
            return self._retrying(call, settings)(
                lambda: self._judged(call, self._open(call, settings, credential, allowance), allowance)
            )

        return self._as(call, ask)

    @contextmanager
    def stream(self, call: Call) -> Iterator[Iterator[bytes]]:
        """The body of a 200 in pieces, undecoded; cut off or over its cap, the iteration raises."""
        settings = self.settings

        def ask(credential: Credential) -> tuple[requests.Response, Allowance]:
            allowance = self._allowance(settings, call, STREAM_TIMEOUTS)

            def attempt() -> _Opened:
                opened = self._open(call, settings, credential, allowance)
                if opened.response.status_code != HTTPStatus.OK:  # no other has content to stream
                    answer = self._judged(call, opened, allowance)
                    raise BadAnswer(f"{call.asked}: GitHub answered {answer.status} instead of the content")
                self._observe(opened, Answer(HTTPStatus.OK, _headers(opened.response)))
                return opened

            return self._retrying(call, settings)(attempt).response, allowance

        response, allowance = self._as(call, ask)
        with response:
            yield self._pieces(call, response, allowance)

    def _as(self, call: Call, ask: Callable[[Credential], _T]) -> _T:
        """What ``ask`` gives with the credential of the call.

        The token of an installation that is refused is given time when GitHub never took it, else replaced, once.
        """
        waits = iter(FRESH_TOKEN_WAITS)
        replaced = False
        while True:
            credential = self._credential_of(call)
            try:
                return ask(credential)
            except _TokenRefused as error:
                wait = None if credential.proven and not replaced else next(waits, None)
                if wait is not None:
                    self._clock.sleep(wait)
                    continue
                if self.app is not None:
                    self.app.forget(credential)
                if replaced or not credential.proven:
                    self._reject(call, credential)
                    raise Unauthorized(str(error)) from None
                replaced = True

    def _credential(self, asker: Asker) -> Credential:
        return self.app.credential(asker) if self.app is not None else Credential(_token(self.settings))

    def _credential_of(self, call: Call) -> Credential:
        if call.public and (self.app is not None or self.settings.token() is None):
            return Credential(None, PUBLIC)
        return self._credential(call.asker)

    def _reject(self, call: Call, credential: Credential) -> None:
        """Have nothing asked with what GitHub refuses for a while."""
        mark = self._governor.use(credential.token, account=credential.account)
        self._governor.observe(call.resource, mark, status=HTTPStatus.UNAUTHORIZED, headers={})

    def _ask_as_app(self, endpoint: str, path: str, *, asked: str, method: str = "GET") -> Answer:
        return self.ask(Call(endpoint=endpoint, asked=asked, asker=None, path=path, method=method))

    def _pieces(self, call: Call, response: requests.Response, allowance: Allowance) -> Iterator[bytes]:
        received = 0
        for piece in chunks(response, asked=call.asked, allowance=allowance, decode=False):
            received += len(piece)
            if received > call.max_bytes:
                raise BadAnswer(f"{call.asked}: the answer is larger than the {call.max_bytes} bytes that are allowed")
            yield piece

    def _allowance(self, settings: ClientSettings, call: Call, timeouts: int) -> Allowance:
        deadline = self._clock.monotonic() + settings.timeout_seconds * timeouts
        return Allowance(self._clock, deadline, settings.timeout_seconds, call.max_bytes)

    def _open(self, call: Call, settings: ClientSettings, credential: Credential, allowance: Allowance) -> _Opened:
        """The first answer that is no redirect; at most `redirects.MAX_HOPS` of them are followed."""
        hop = redirects.Hop(call.url or settings.api_url.rstrip("/") + call.path, authorized=True)
        for _ in range(redirects.MAX_HOPS + 1):
            opened = self._send(call, hop, credential, allowance)
            if opened.response.status_code not in REDIRECTS:
                return opened
            answer = read_answer(opened.response, asked=call.asked, max_bytes=call.max_bytes, allowance=allowance)
            self._observe(opened, answer)
            hop = self._next_hop(call, settings, hop, answer)
        raise BadAnswer(f"{call.asked}: GitHub redirects in a circle; it is asked again later")

    def _next_hop(self, call: Call, settings: ClientSettings, hop: redirects.Hop, answer: Answer) -> redirects.Hop:
        if call.method != "GET":
            raise BadAnswer(f"{call.asked}: GitHub answered a {call.method} with a redirect; check github.api_url")
        following = redirects.next_hop(
            answer.headers.get("location"),
            at=hop.url,
            api_url=settings.api_url,
            download=call.download,
            asked=call.asked,
        )
        if following.authorized:
            _same_repository(call, redirects.repository_id(following.url, api_url=settings.api_url))
        return following

    def _send(self, call: Call, hop: redirects.Hop, credential: Credential, allowance: Allowance) -> _Opened:
        mark = self._governor.use(credential.token, account=credential.account)
        if isinstance(call.asker, RepositoryRef):
            self._marks[self.account_of(call.asker)] = mark
        resource = call.resource if hop.authorized else DOWNLOADS
        self._governor.check(resource, mark, background=self._here.background > 0)
        with self._counting:
            for tally in self._here.tallies:
                tally.requests += 1
        started = self._clock.monotonic()
        status: int | None = None
        try:
            auth = TokenAuth(credential.token if hop.authorized else None)
            request = Request(call.method, hop.url, _request_headers(call), call.asked, call.body)
            response = self._transport.send(request, auth, allowance)
            status = response.status_code
        finally:
            self._on_request(RequestSeen(call.endpoint, status, self._clock.monotonic() - started, resource))
        return _Opened(response, resource, mark, credential)

    def _judged(self, call: Call, opened: _Opened, allowance: Allowance) -> Answer:
        answer = read_answer(opened.response, asked=call.asked, max_bytes=call.max_bytes, allowance=allowance)
        if answer.status >= HTTPStatus.BAD_REQUEST:
            answer = _without(answer, [opened.credential.token or "", *self.settings.secrets()])
        if call.inspect is not None:
            answer = call.inspect(answer)
        self._observe(opened, answer)
        remedy = opened.credential.remedy
        error = protocol.refusal(answer, asked=call.asked, subject=call.subject, remedy=remedy)
        if isinstance(error, Unauthorized) and opened.credential.renewable:
            raise _TokenRefused(str(error))
        if error is not None:
            raise error
        return answer

    def _observe(self, opened: _Opened, answer: Answer) -> None:
        if (at := limits.date_of(answer.headers)) is not None:
            self.github_clock.hear(at)
        refused = answer.status == HTTPStatus.UNAUTHORIZED
        if refused and opened.credential.renewable:
            return  # what becomes of the token is decided in `_as`
        opened.credential.proven |= not refused and opened.resource != DOWNLOADS
        message = protocol.message_of(answer) if answer.status >= HTTPStatus.BAD_REQUEST else ""
        limited = self._governor.observe(
            opened.resource,
            opened.mark,
            status=answer.status,
            headers=answer.headers,
            message=message,
            background=self._here.background > 0,
        )
        if limited is not None:
            raise limited

    def _retrying(self, call: Call, settings: ClientSettings) -> tenacity.Retrying:
        """Repeats what may succeed at once, and only while the first time-out is not over: a black hole costs one."""
        started = self._clock.monotonic()

        def stop(state: tenacity.RetryCallState) -> bool:
            return state.attempt_number >= ATTEMPTS or self._clock.monotonic() - started >= settings.timeout_seconds

        def wait(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome is not None else None
            return self._pause_before_retry(call, error) or 0.0

        return tenacity.Retrying(
            stop=stop,
            wait=wait,
            retry=tenacity.retry_if_exception(lambda error: self._pause_before_retry(call, error) is not None),
            sleep=self._clock.sleep,
            reraise=True,
        )

    def _pause_before_retry(self, call: Call, error: BaseException | None) -> float | None:
        """Seconds to wait before asking the same again, None when it must not be asked again here."""
        if isinstance(error, RateLimited):
            seconds = (error.until - self._clock.now()).total_seconds()
            return max(seconds, 0.0) if seconds <= MAX_PATIENCE_SECONDS else None
        if isinstance(error, Overloaded) and call.divisible:
            return None
        return random.uniform(0.2, 1.0) if isinstance(error, Unreachable) else None  # noqa: S311 (jitter)


def _same_repository(call: Call, named: int | None) -> None:
    if call.github_id is not None and named is not None and named != call.github_id:
        raise RepositoryReplaced(
            f"{call.asked}: GitHub redirects to another repository (id {named}, it was {call.github_id}); "
            "correct the name in the configuration, the stored copy is kept"
        )


def _without(answer: Answer, secrets: Iterable[str]) -> Answer:
    """An error's body is quoted in messages that people see: a server that echoes a secret must not show it."""
    body = answer.body
    for secret in secrets:
        if len(secret) >= SHORTEST:
            body = body.replace(secret.encode(), HIDDEN.encode())
    return dataclasses.replace(answer, body=body)


def _token(settings: ClientSettings) -> str | None:
    try:
        token = checked_token(settings.token())
    except (OSError, ConfigError) as error:
        raise Unauthorized(f"the GitHub token cannot be read: {error}") from error
    if token is None and not settings.anonymous:
        raise Unauthorized("there is no GitHub token: set github.token, or github.anonymous for public repositories")
    return token


def _request_headers(call: Call) -> dict[str, str]:
    return {
        "User-Agent": f"headwater/{__version__}",
        "Accept": call.accept,
        # An archive is compressed already; a second layer would only be one more thing to bomb.
        "Accept-Encoding": "identity" if call.download else "gzip",
        "X-GitHub-Api-Version": API_VERSION,
        **({"Content-Type": "application/json"} if call.body is not None else {}),
        **dict(call.headers),
    }


def _headers(response: requests.Response) -> dict[str, str]:
    return {name.lower(): value for name, value in response.headers.items()}
