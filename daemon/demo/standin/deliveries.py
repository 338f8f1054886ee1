"""Webhooks: who wants which events, and what became of each delivery. Nothing is ever sent twice by itself."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import itertools
import json
import threading
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal
from urllib.parse import quote_plus, urlsplit

from daemon.clock import Clock

ContentType = Literal["json", "form"]
# GitHub never sends what is larger.
MOST_BODY_BYTES = 25 * 1024 * 1024
KEPT_DELIVERIES = 5_000
_CONTENT_TYPES = {"json": "application/json", "form": "application/x-www-form-urlencoded"}


@dataclass(slots=True)
class Hook:
    """One webhook of a repository or an organisation, whose id the target is; ``events`` may hold ``*``."""

    id: int
    target_id: int
    url: str
    secret: str | None
    created_at: datetime
    content_type: ContentType = "json"
    events: tuple[str, ...] = ("*",)
    active: bool = True
    target_type: Literal["repository", "organization"] = "repository"

    def wants(self, event: str) -> bool:
        return self.active and (event == "ping" or "*" in self.events or event in self.events)


@dataclass(frozen=True, slots=True)
class Message:
    """What is delivered: the event, its GUID, and the payload."""

    guid: str
    event: str
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class DeliveryResult:
    """One attempt: ``status`` is None when no answer came, and ``error`` says why then."""

    guid: str
    event: str
    status: int | None
    body: bytes = b""
    error: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return self.status is not None and 200 <= self.status < 300  # noqa: PLR2004

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class DeliveryRecord:
    """One delivery as GitHub's log keeps it: the bytes that were sent, and the latest result (None: never sent)."""

    id: int
    hook: Hook
    message: Message
    headers: Mapping[str, str]
    body: bytes
    delivered_at: datetime
    seconds: float = 0.0
    redelivery: bool = False
    result: DeliveryResult | None = None

    @property
    def guid(self) -> str:
        return self.message.guid

    @property
    def outcome(self) -> str:
        """The ``status`` of GitHub's log: only answers have a code, so a time-out is no failure to a filter by code."""
        if self.result is None:
            return "pending"
        if self.result.status is None:
            return self.result.error or "failed to connect to host"
        return "OK" if self.result.ok else f"Invalid HTTP Response: {self.result.status}"


def signature(secret: str, body: bytes) -> str:
    """The value of ``X-Hub-Signature-256`` for these bytes."""
    # https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def encode(payload: Mapping[str, Any], content_type: ContentType) -> bytes:
    raw = json.dumps(payload, ensure_ascii=False, separators=(",", ":"))
    text = raw if content_type == "json" else "payload=" + quote_plus(raw)
    return text.encode("utf-8", "replace")


def headers_for(hook: Hook, message: Message, body: bytes) -> dict[str, str]:
    """The headers of a delivery; the signatures are there only when the hook has a secret."""
    headers = {
        "Accept": "*/*",
        "Content-Type": _CONTENT_TYPES[hook.content_type],
        "User-Agent": "GitHub-Hookshot/5d15a01",
        "X-GitHub-Delivery": message.guid,
        "X-GitHub-Event": message.event,
        "X-GitHub-Hook-ID": str(hook.id),
        "X-GitHub-Hook-Installation-Target-ID": str(hook.target_id),
        "X-GitHub-Hook-Installation-Target-Type": hook.target_type,
    }
    if hook.secret:
        legacy = hmac.new(hook.secret.encode(), body, hashlib.sha1).hexdigest()
        headers["X-Hub-Signature"] = f"sha1={legacy}"
        headers["X-Hub-Signature-256"] = signature(hook.secret, body)
    return headers


class Deliveries:
    """The hooks of all repositories and the log of what was sent to them."""

    def __init__(self, clock: Clock, *, timeout_seconds: float = 10) -> None:
        self.timeout_seconds = timeout_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._ids = itertools.count(1)
        self._hooks: dict[int, Hook] = {}
        self._records: deque[DeliveryRecord] = deque(maxlen=KEPT_DELIVERIES)
        self._threads: list[threading.Thread] = []
        self._outcomes: list[str | int] = []

    def fail(self, outcome: str | int, *, times: int = 1) -> None:
        """Let the next attempts end like this, unsent: with a status, or in GitHub's words for no answer."""
        with self._lock:
            self._outcomes += [outcome] * times

    def add_hook(
        self,
        target_id: int,
        url: str,
        secret: str | None,
        *,
        content_type: ContentType,
        events: Sequence[str],
        target_type: Literal["repository", "organization"] = "repository",
    ) -> Hook:
        with self._lock:
            hook_id = 500_000_000 + next(self._ids)
            now = self._clock.now()
            hook = Hook(hook_id, target_id, url, secret or None, now, content_type, tuple(events))
            hook.target_type = target_type
            self._hooks[hook.id] = hook
        return hook

    def remove_hook(self, hook_id: int) -> None:
        with self._lock:
            self._hooks.pop(hook_id, None)

    def hooks(self, target_id: int, target_type: Literal["repository", "organization"] = "repository") -> list[Hook]:
        with self._lock:
            every = list(self._hooks.values())
        return [hook for hook in every if (hook.target_id, hook.target_type) == (target_id, target_type)]

    def send(self, hooks: Sequence[Hook], message: Message, *, deliver: bool = True) -> DeliveryResult | None:
        """Deliver to every hook that wants the event, with one GUID; returns the first one's result.

        With ``deliver`` False it is only put into the log, as when it got lost: redeliver sends it.
        """
        records = [self._record(hook, message) for hook in hooks if hook.wants(message.event)]
        if not deliver:
            return None
        results = [self._attempt(record) for record in records if record.headers]
        return results[0] if results else None

    def send_in_background(self, hooks: Sequence[Hook], message: Message) -> None:
        """Deliver without waiting: GitHub answers the API call first and sends after."""
        self._start(lambda: self.send(hooks, message))

    def redeliver_in_background(self, record: DeliveryRecord) -> None:
        self._start(lambda: self.redeliver_record(record))

    def _start(self, work: Callable[[], object]) -> None:
        thread = threading.Thread(target=work, name="standin-delivery", daemon=True)
        with self._lock:
            self._threads = [*(each for each in self._threads if each.is_alive()), thread]
        thread.start()

    def redeliver(self, guid: str) -> DeliveryResult:
        """Send the same bytes again, or for the first time; KeyError when the log does not have the GUID."""
        return self.redeliver_record(self.latest(guid))

    def redeliver_record(self, record: DeliveryRecord) -> DeliveryResult:
        if record.result is not None:
            now = self._clock.now()
            with self._lock:
                record = replace(record, id=next(self._ids), redelivery=True, delivered_at=now, result=None)
                self._records.append(record)
        return self._attempt(record)

    def records(self, hook_id: int | None = None) -> list[DeliveryRecord]:
        """The log, newest first."""
        with self._lock:
            return [each for each in reversed(self._records) if hook_id in {None, each.hook.id}]

    def latest(self, guid: str) -> DeliveryRecord:
        """The newest entry with this GUID; KeyError when there is none."""
        for record in self.records():
            if record.guid == guid:
                return record
        raise KeyError(f"no delivery has the GUID {guid}")

    def close(self) -> None:
        """Wait for what is being sent in the background."""
        for thread in self._threads:
            thread.join(self.timeout_seconds + 1)

    def _record(self, hook: Hook, message: Message) -> DeliveryRecord:
        body = encode(message.payload, hook.content_type)
        headers = headers_for(hook, message, body) if len(body) <= MOST_BODY_BYTES else {}
        with self._lock:
            record = DeliveryRecord(next(self._ids), hook, message, headers, body, self._clock.now())
            if headers:
                self._records.append(record)
        return record

    def _attempt(self, record: DeliveryRecord) -> DeliveryResult:
        started = self._clock.monotonic()
        with self._lock:
            outcome = self._outcomes.pop(0) if self._outcomes else None
        result = post(record, timeout_seconds=self.timeout_seconds) if outcome is None else _failed(record, outcome)
        done = replace(record, result=result, seconds=self._clock.monotonic() - started)
        with self._lock:
            for index, each in enumerate(self._records):
                if each.id == record.id:
                    self._records[index] = done
        return result


def new_guid() -> str:
    # GitHub's are time-based (version 1), and so is their text.
    return str(uuid.uuid1())


def _failed(record: DeliveryRecord, outcome: str | int) -> DeliveryResult:
    status, error = (outcome, None) if isinstance(outcome, int) else (None, outcome)
    return DeliveryResult(record.guid, record.message.event, status, error=error)


def post(record: DeliveryRecord, *, timeout_seconds: float) -> DeliveryResult:
    """Send one delivery as it is recorded, and say what came back. Never raises for what the network does."""
    # http.client knows no proxies, no netrc and no redirects: GitHub's sender follows none either.
    parts = urlsplit(record.hook.url)
    secure = parts.scheme == "https"
    connect = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    connection = connect(parts.hostname or "", parts.port, timeout=timeout_seconds)
    guid, event = record.message.guid, record.message.event
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", target, record.body, dict(record.headers))
        response = connection.getresponse()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return DeliveryResult(guid, event, response.status, response.read(), headers=headers)
    except TimeoutError:
        return DeliveryResult(guid, event, None, error="timed out")
    except (OSError, http.client.HTTPException):
        return DeliveryResult(guid, event, None, error="failed to connect to host")
    finally:
        connection.close()
