"""Who has logged in with a browser: sessions that live in this process, and a brake on guessing.

A session is 256 random bits in a cookie and their digest here: it ends by logging out, by age, with the process, and
with the token that opened it. What is guessed at is the token, never the session.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

COOKIE = "headwater_session"
AGE_SECONDS = 7 * 86400.0
MOST_SESSIONS = 1000  # the one that began first ends for the next
MOST_SOURCES = 10_000
SOURCE_BURST, SOURCE_SECONDS = 5.0, 10.0  # five wrong tokens at once, then one in ten seconds
GLOBAL_BURST, GLOBAL_SECONDS = 30.0, 1.0

# One pass over the header whatever it holds: a cookie header of 60 KB of quotes must cost nothing.
_COOKIE = re.compile(rf"(?:^|; ?){COOKIE}=([A-Za-z0-9_-]{{43}})(?=;|$)")


@dataclass(frozen=True, slots=True)
class _Session:
    ends_at: float
    token_digest: bytes


class Sessions:
    """The sessions of one daemon. Any thread may use them; instants are of the monotonic clock."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._sessions: OrderedDict[bytes, _Session] = OrderedDict()
        self.brake = Brake(monotonic)

    def open(self, token: str) -> str:
        """Begin a session for who knew the token; the value of its cookie."""
        value = secrets.token_urlsafe(32)
        with self._lock:
            self._sessions[_digest(value)] = _Session(self._monotonic() + AGE_SECONDS, _digest(token))
            if len(self._sessions) > MOST_SESSIONS:
                self._sessions.popitem(last=False)
        return value

    def holds(self, cookies: Sequence[str], token: str) -> bool:
        """Whether one of these cookie headers names a session that the token now in force opened."""
        return any(self._valid(value, token) for value in _values(cookies))

    def close(self, cookies: Sequence[str]) -> None:
        """End the sessions that these cookie headers name."""
        with self._lock:
            for value in _values(cookies):
                self._sessions.pop(_digest(value), None)

    def _valid(self, value: str, token: str) -> bool:
        with self._lock:
            session = self._sessions.get(_digest(value))
            if session is not None and session.ends_at <= self._monotonic():
                del self._sessions[_digest(value)]
                session = None
        return session is not None and hmac.compare_digest(session.token_digest, _digest(token))


class Brake:
    """How many wrong tokens are listened to, from one source and from all of them together."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._all = _Bucket(GLOBAL_BURST, GLOBAL_SECONDS)
        self._sources: OrderedDict[str, _Bucket] = OrderedDict()

    def wait_seconds(self, source: str) -> float:
        """Take an attempt and return 0, or how long to wait for the next one."""
        with self._lock:
            now = self._monotonic()
            mine = self._sources.setdefault(source, _Bucket(SOURCE_BURST, SOURCE_SECONDS))
            self._sources.move_to_end(source)
            if len(self._sources) > MOST_SOURCES:
                self._sources.popitem(last=False)
            wait = max(mine.wait_seconds(now), self._all.wait_seconds(now))
            if not wait:
                mine.take()
                self._all.take()
            return wait

    def give_back(self, source: str) -> None:
        """The attempt was right, and is not counted."""
        with self._lock:
            for bucket in (self._sources.get(source), self._all):
                if bucket is not None:
                    bucket.left = min(bucket.burst, bucket.left + 1)


class _Bucket:
    """Attempts that are left; one comes back every ``seconds``."""

    def __init__(self, burst: float, seconds: float) -> None:
        self.burst = self.left = burst
        self._seconds = seconds
        self._at: float | None = None

    def wait_seconds(self, now: float) -> float:
        gained = 0.0 if self._at is None else (now - self._at) / self._seconds
        self.left = min(self.burst, self.left + gained)
        self._at = now
        return 0.0 if self.left >= 1 else (1 - self.left) * self._seconds

    def take(self) -> None:
        self.left -= 1


def _values(cookies: Sequence[str]) -> list[str]:
    return [value for header in cookies for value in _COOKIE.findall(header)]


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
