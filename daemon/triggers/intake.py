"""From headers and raw bytes to a delivery, or to the refusal that answers it. Pure.

A delivery is a hint: it says which branch to look at, never what is there. Only the body is signed,
so the headers choose nothing but how the body is read, and no URL in a payload is ever followed.
https://docs.github.com/en/webhooks/webhook-events-and-payloads
"""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import unquote_to_bytes

from daemon.errors import Refusal
from daemon.globs import matches_branch, matches_repository
from daemon.model import Delivery, DeliveryStatus, TrackedOwner, TrackedRepository

PUSH = "push"
UNKNOWN_EVENT = "unknown"
INSTALLATION_EVENTS = ("installation", "installation_repositories")
NOT_CONFIGURED = "GitHub integration not configured"
HEADS = "refs/heads/"
TAGS = "refs/tags/"

MAX_GUID = 200
MAX_TEXT = 1024  # GitHub cuts refs at 255 bytes; what is longer would only fill the delivery table
MAX_FORM_FIELDS = 100  # GitHub sends one
MAX_GITHUB_ID = 2**63 - 1

SIGNATURE = re.compile(rb"sha256=[0-9a-f]{64}")
SHA = re.compile(r"[0-9a-f]{40}")
EVENT = re.compile(r"[A-Za-z0-9_.-]{1,100}")
UNSTORABLE = re.compile("[\\0\\ud800-\\udfff]")
GUID = re.compile(rf"[\x20-\x7e]{{1,{MAX_GUID}}}")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Arrival:
    """What is known of a delivery before its body is read. ``body_digest`` is hex SHA-256."""

    guid: str | None
    event: str
    body_digest: str
    received_at: datetime


@dataclass(frozen=True, slots=True)
class Decision:
    """A delivery to store, and the two facts that only its answer tells."""

    delivery: Delivery
    files_changed: int = 0
    forced: bool = False


class TrackingView:
    """The tracked repositories as intake looks them up. Immutable; replaced as a whole."""

    def __init__(self, repositories: Iterable[TrackedRepository], owners: Iterable[TrackedOwner] = ()) -> None:
        known = tuple(repositories)
        self._owners = {one.key: one for one in owners}
        self._by_github_id = {one.github_id: one for one in known if one.github_id is not None}
        self._by_name = {one.full_name.lower(): one for one in known}

    def only(self) -> TrackedRepository | None:
        """The one tracked repository, when exactly one is configured."""
        return next(iter(self._by_name.values())) if len(self._by_name) == 1 and not self._owners else None

    def find(self, github_id: int | None, full_name: str | None) -> TrackedRepository | None:
        """By number first: a name may have moved to another repository, a number never does."""
        if github_id is not None and github_id in self._by_github_id:
            return self._by_github_id[github_id]
        return None if full_name is None else self._by_name.get(full_name.lower())

    def list_of(self, full_name: str | None) -> TrackedOwner | None:
        """The ``owner/*`` that takes a repository of this name, unless the name is left out."""
        if full_name is None:
            return None
        owner = self._owners.get(f"{full_name.partition('/')[0]}/*".lower())
        left_out = owner is not None and owner.excluded and matches_repository(full_name, owner.excluded)
        return None if left_out else owner


@dataclass(frozen=True, slots=True)
class _Named:
    """The ``repository`` object of a payload, checked."""

    github_id: int | None
    full_name: str | None


@dataclass(frozen=True, slots=True)
class _Push:
    """The fields of a push that are used, checked."""

    ref: str
    before: str | None
    after: str | None
    forced: bool
    files_changed: int


def check_signature(body: bytes, headers: Sequence[str], secrets: Sequence[bytes]) -> None:
    """Verify ``X-Hub-Signature-256`` over the raw body; without a secret nothing is checked.

    ``headers`` are the values of that header as they came, one for each time it was sent.
    Raises Refusal 403.
    """
    # https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries
    keys = [secret for secret in secrets if secret]
    if not keys:
        return
    if not headers:
        raise Refusal(403, "Missing signature header")
    # Bytes, not text: compare_digest raises TypeError for text beyond ASCII, which is a 500 for any
    # stranger to provoke. Sent twice is wrong even if one of the two is right.
    given = headers[0].encode("latin-1", "replace") if len(headers) == 1 else b""
    verified = False
    for key in keys:  # no early exit: the time taken tells nothing about which secret it was
        expected = b"sha256=" + hmac.new(key, body, "sha256").hexdigest().encode("ascii")
        verified |= hmac.compare_digest(expected, given)
    if not verified or not SIGNATURE.fullmatch(given):
        raise Refusal(403, "Invalid signature")


def read_guid(values: Sequence[str]) -> str | None:
    """The delivery's GUID, None when there is none. Raises Refusal 400 for what cannot be a key."""
    if not values or values == [""]:
        return None
    if len(values) > 1 or not GUID.fullmatch(values[0]):
        raise Refusal(400, f"X-GitHub-Delivery must be sent once, as at most {MAX_GUID} printable ASCII characters")
    return values[0]


def read_event(values: Sequence[str]) -> str:
    """The event's name; ``unknown`` for none, and for what no event of GitHub's could be called."""
    joined = ",".join(values)
    return joined if EVENT.fullmatch(joined) else UNKNOWN_EVENT


def parse_body(content_type: str, body: bytes) -> dict[str, Any]:
    """The payload of a JSON or form body. Raises Refusal 415 or 400; whatever the bytes, nothing else.

    The charset is ignored: JSON is UTF-8 (RFC 8259, 8.1), and a charset from outside would choose
    among the codecs.
    """
    kind = media_type(content_type)
    if kind == "application/x-www-form-urlencoded":
        body = _form_payload(body)
    elif kind != "application/json":
        raise Refusal(415, "Send application/json or application/x-www-form-urlencoded")
    try:
        payload = _DECODER.decode(body.decode())
    except RecursionError:
        raise Refusal(400, "The body is nested too deeply") from None
    except (ValueError, OverflowError):
        # ValueError covers bad JSON, bad UTF-8 and integers of more than 4300 digits.
        raise Refusal(400, "The body is not valid JSON in UTF-8") from None
    if not isinstance(payload, dict):
        raise Refusal(400, "The body is not a JSON object")
    return payload


def media_type(content_type: str) -> str:
    """The type without its parameters, in lower case."""
    return content_type.partition(";")[0].strip(" \t").lower()


def decide(arrival: Arrival, payload: dict[str, Any], *, tracking: TrackingView, configured: bool) -> Decision:
    """What becomes of a verified delivery. Raises Refusal 400 for a push that is not shaped like one.

    ``configured`` tells whether GitHub can be asked at all (a token, or anonymous reading).
    """
    if arrival.event != PUSH:
        return Decision(_other_event(arrival, payload, tracking))
    push = _read_push(payload)
    named = _read_repository(payload, tracking)
    repository = tracking.find(named.github_id, named.full_name)
    branch = _branch_name(push.ref)
    status, reason = _verdict(push.ref, repository, branch, configured=configured)
    unseen = _unseen(named, tracking) if repository is None else None
    delivery = replace(
        _undecided(arrival, payload),
        repository=repository.full_name if repository else named.full_name,
        ref=push.ref,
        before=push.before,
        after=push.after,
        status=status,
        reason=reason if unseen is None else f"{reason} yet: the list of {unseen.key} is looked at",
        repository_id=repository.id if repository else None,
        branch=branch if status is DeliveryStatus.ACCEPTED else None,
        hint_repository_id=repository.id if repository and _is_another(repository, named) else None,
        hint_owner=unseen.key if unseen else None,
    )
    return Decision(delivery, files_changed=push.files_changed, forced=push.forced)


def answer(decision: Decision, status: DeliveryStatus) -> dict[str, Any]:
    """The body of the 200: ``status`` is what the store made of the delivery."""
    delivery = decision.delivery
    told: dict[str, Any] = {"status": status.value, "event": delivery.event}
    if status is DeliveryStatus.ACCEPTED:
        told |= {
            "files_changed": decision.files_changed,
            "forced": decision.forced,
            "message": "Sync triggered in background",
            "repository": delivery.repository,
            "branch": delivery.branch,
            "delivery": delivery.guid,
        }
    elif status is DeliveryStatus.DUPLICATE:
        told |= {"message": "This delivery was taken before", "delivery": delivery.guid}
    elif delivery.reason is not None:
        told["reason"] = delivery.reason
    return told


def _form_payload(body: bytes) -> bytes:
    # By hand rather than parse_qs: the payload stays the bytes that were sent, the number of fields
    # is bounded before any is looked at, and a second payload is refused instead of chosen from.
    if body.count(b"&") >= MAX_FORM_FIELDS:
        raise Refusal(400, "The form has too many fields")
    pairs = [field.partition(b"=") for field in body.split(b"&")]
    payloads = [value for name, _, value in pairs if unquote_to_bytes(name.replace(b"+", b" ")) == b"payload"]
    if len(payloads) != 1:
        raise Refusal(400, "The form needs exactly one field named payload")
    return unquote_to_bytes(payloads[0].replace(b"+", b" "))


def _refuse_constant(name: str) -> None:
    raise ValueError(name)  # NaN and Infinity are Python's, not JSON's


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Which of two equal keys counts differs from parser to parser; GitHub never sends any.
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("duplicate key")
    return found


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_object)


def _undecided(arrival: Arrival, payload: dict[str, Any]) -> Delivery:
    return Delivery(
        guid=arrival.guid,
        body_digest=arrival.body_digest,
        event=arrival.event,
        action=_text_or_none(payload.get("action")),
        repository=None,
        ref=None,
        before=None,
        after=None,
        received_at=arrival.received_at,
        status=DeliveryStatus.IGNORED,
    )


def _other_event(arrival: Arrival, payload: dict[str, Any], tracking: TrackingView) -> Delivery:
    """Nothing is refused here for its shape: what is not well-formed is not looked at."""
    said = payload.get("repository")
    said = said if isinstance(said, dict) else {}
    full_name = _text_or_none(said.get("full_name"))
    known = tracking.find(_id_or_none(said.get("id")), full_name)
    return replace(
        _undecided(arrival, payload),
        repository=full_name,
        ref=_text_or_none(payload.get("ref")),
        repository_id=known.id if known else None,
        hint_repository_id=known.id if known and arrival.event == "repository" else None,
        hint_owner=_owner_hint(arrival.event, full_name, payload, tracking),
    )


def _owner_hint(event: str, full_name: str | None, payload: dict[str, Any], tracking: TrackingView) -> str | None:
    """The ``owner/*`` whose list of repositories the event tells to have changed."""
    if event in INSTALLATION_EVENTS:
        account = payload
        for key in ("installation", "account"):
            account = account.get(key) if isinstance(account, dict) else None  # type: ignore[assignment]
        login = _text_or_none(account.get("login")) if isinstance(account, dict) else None
        full_name = f"{login}/" if login else None
    elif event != "repository":
        return None
    owner = tracking.list_of(full_name)
    return owner.key if owner else None


def _verdict(
    ref: str, repository: TrackedRepository | None, branch: str | None, *, configured: bool
) -> tuple[DeliveryStatus, str | None]:
    if repository is None:
        return DeliveryStatus.IGNORED, "Repository is not tracked"
    if branch is None:
        return DeliveryStatus.IGNORED, "Tags are not tracked" if ref.startswith(TAGS) else "Not a branch"
    if not _tracks(repository, branch):
        return DeliveryStatus.IGNORED, "Branch is not tracked"
    if not configured:
        return DeliveryStatus.SKIPPED, NOT_CONFIGURED
    return DeliveryStatus.ACCEPTED, None


def _tracks(repository: TrackedRepository, branch: str) -> bool:
    if repository.branches:
        return matches_branch(branch, repository.branches)
    return repository.default_branch in (None, branch)


def _unseen(named: _Named, tracking: TrackingView) -> TrackedOwner | None:
    """The ``owner/*`` whose list may have this repository since the last look."""
    owner = tracking.list_of(named.full_name)
    return None if owner is None or named.github_id in owner.passed_over else owner


def _is_another(repository: TrackedRepository, named: _Named) -> bool:
    """Whether the name seems to be another repository's now; the sync asks who it is before it takes anything."""
    return None not in (repository.github_id, named.github_id) and repository.github_id != named.github_id


def _branch_name(ref: str) -> str | None:
    return ref.removeprefix(HEADS) or None if ref.startswith(HEADS) else None


def _read_push(payload: dict[str, Any]) -> _Push:
    ref = _text(payload, "ref")
    if ref is None:
        raise Refusal(400, "ref is missing")
    return _Push(
        ref=ref,
        before=_sha(payload, "before"),
        after=_sha(payload, "after"),
        forced=bool(_typed(payload, "forced", bool)),
        files_changed=_files_changed(payload),
    )


def _read_repository(payload: dict[str, Any], tracking: TrackingView) -> _Named:
    if "repository" not in payload:
        only = tracking.only()
        if only is None:
            raise Refusal(400, "repository is missing, and not exactly one is configured")
        return _Named(only.github_id, only.full_name)
    said = _typed(payload, "repository", dict) or {}
    named = _Named(_github_id(said), _text(said, "full_name", "repository.full_name") or _owner_and_name(said))
    if named.github_id is None and named.full_name is None:
        raise Refusal(400, "repository.full_name is missing")
    return named


def _github_id(said: dict[str, Any]) -> int | None:
    # The exact type: true is an int to isinstance, and 1e3 a float that looks like one.
    number = said.get("id", 1)
    if type(number) is not int or not 1 <= number <= MAX_GITHUB_ID:
        raise Refusal(400, "repository.id must be a positive integer below 2^63")
    return number if "id" in said else None


def _owner_and_name(said: dict[str, Any]) -> str | None:
    """The full name of the older payloads, whose owner has a ``name`` instead of a ``login``."""
    owner = _typed(said, "owner", dict, "repository.owner") or {}
    login = _text(owner, "login", "repository.owner.login") or _text(owner, "name", "repository.owner.name")
    name = _text(said, "name", "repository.name")
    return f"{login}/{name}" if login and name else None


def _files_changed(payload: dict[str, Any]) -> int:
    paths: set[str] = set()
    for commit in _typed(payload, "commits", list) or []:
        if not isinstance(commit, dict):
            raise Refusal(400, "commits must be a list of objects")
        for key in ("added", "modified", "removed"):
            paths.update(_path_list(commit, key))
    return len(paths)


def _path_list(commit: dict[str, Any], key: str) -> list[str]:
    listed = _typed(commit, key, list, f"commits[].{key}") or []
    if not all(isinstance(path, str) for path in listed):
        raise Refusal(400, f"commits[].{key} must be a list of strings")
    return listed


def _typed(source: dict[str, Any], key: str, kind: type[T], label: str | None = None) -> T | None:
    """The value when the key is there; null is a wrong type, not an absent key."""
    if key not in source:
        return None
    value = source[key]
    if not isinstance(value, kind):
        words = {str: "a string", bool: "true or false", list: "a list", dict: "an object"}
        raise Refusal(400, f"{label or key} must be {words[kind]}")
    return value


def _text(source: dict[str, Any], key: str, label: str | None = None) -> str | None:
    value = _typed(source, key, str, label)
    if value is not None and not _storable(value):
        raise Refusal(400, f"{label or key} must be at most {MAX_TEXT} characters, without NUL and lone surrogates")
    return value


def _sha(payload: dict[str, Any], key: str) -> str | None:
    value = _typed(payload, key, str)
    if value is not None and not SHA.fullmatch(value):
        raise Refusal(400, f"{key} must be 40 lower-case hex digits")
    return value


def _storable(value: str) -> bool:
    """Whether any database takes the text: SQLite refuses lone surrogates, PostgreSQL NUL as well."""
    return len(value) <= MAX_TEXT and not UNSTORABLE.search(value)


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) and _storable(value) else None


def _id_or_none(value: Any) -> int | None:
    return value if type(value) is int and 1 <= value <= MAX_GITHUB_ID else None
