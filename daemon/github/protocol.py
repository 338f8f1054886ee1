"""What an answer of GitHub means: status, headers and body in, typed errors or JSON out. Pure.

Errors are told apart by what the caller can do about them; GitHub's own words are quoted, cleaned and short.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from http import HTTPStatus
from typing import Any

from daemon.errors import (
    BadAnswer,
    BranchNotFound,
    Forbidden,
    GitHubError,
    ObjectNotFound,
    Rejected,
    RepositoryEmpty,
    RepositoryNotFound,
    Unauthorized,
    Unreachable,
)
from daemon.github import bigjson
from daemon.redaction import redact_shapes

REDIRECTS = frozenset({301, 302, 303, 307, 308})
QUOTED_CHARACTERS = 200
REMEDY = "make a new one on GitHub (Settings > Developer settings > Personal access tokens), and set github.token"
HOOKS_PERMISSION = (
    "the token may not administer webhooks here: its user must be an administrator, and the token have the scope "
    "admin:repo_hook (admin:org_hook for an organisation) or, if fine-grained or an App's, the permission Webhooks"
)

_MISSING = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.GONE, HTTPStatus.UNPROCESSABLE_ENTITY})
_GAVE_UP = frozenset({HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT})
_SHA = re.compile(r"[0-9a-f]{40}")
_UNPRINTABLE = re.compile(r"[^\x20-\x7e\u00a0-\u2027\u202f-\u2065\u2070-\ud7ff]+")


class Overloaded(Unreachable):
    """502, 504 or a read time-out: the question may have been too big, so a smaller one may be answered."""


class Subject(Enum):
    """What a request asks for; it decides what 404, 409 and 422 mean."""

    REPOSITORY = "repository"
    BRANCH = "branch"
    OBJECT = "object"
    HOOKS = "hooks"


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer as read: header names in lower case, the body decoded and within its cap."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


def is_sha(value: object) -> bool:
    """Whether ``value`` is a git object id: exactly 40 lower-case hex digits, nothing abbreviated."""
    return isinstance(value, str) and _SHA.fullmatch(value) is not None


def quoted(text: str) -> str:
    """``text`` from the network on one line, without control or bidi characters, cut to a readable length."""
    line = redact_shapes(_UNPRINTABLE.sub(" ", text).strip())
    return line if len(line) <= QUOTED_CHARACTERS else line[:QUOTED_CHARACTERS] + "…"


def parse_json(answer: Answer, *, asked: str) -> Any:
    """The JSON of an answer; BadAnswer names what was asked for when it is HTML, cut, too deep or no JSON."""
    try:
        return bigjson.loads(answer.body.decode("utf-8"))
    except (ValueError, RecursionError):
        start = quoted(answer.body[:60].decode("utf-8", "replace"))
        raise BadAnswer(
            f"{asked}: GitHub answered {answer.status} with {len(answer.body)} bytes that are no whole JSON "
            f"({start!r}); a proxy or a maintenance page may be in between, it is asked again later"
        ) from None


def message_of(answer: Answer) -> str:
    """GitHub's ``message`` in an error's body, cleaned; empty when there is none."""
    try:
        body = json.loads(answer.body.decode("utf-8"))
    except (ValueError, RecursionError):
        return ""
    if not isinstance(body, dict):
        return ""
    # "Validation Failed" alone tells nobody anything: the first of the errors says what is wrong.
    errors = body.get("errors")
    first = errors[0] if isinstance(errors, list) and errors else None
    words = (body.get("message"), first.get("message") if isinstance(first, dict) else first)
    return quoted(": ".join(word for word in words if isinstance(word, str)))


def is_success(status: int) -> bool:
    """Whether an answer holds what was asked for."""
    return HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES


def refusal(answer: Answer, *, asked: str, subject: Subject, remedy: str = REMEDY) -> GitHubError | None:
    """The error that an answer stands for, None for 2xx and 304. Limits are told apart before (``limits``).

    ``remedy`` is what a person can do about a token that is refused.
    """
    status = answer.status
    if is_success(status) or status == HTTPStatus.NOT_MODIFIED:
        return None
    said = message_of(answer)
    if status in _MISSING:
        return _missing(status, asked, said, subject)
    if status == HTTPStatus.NOT_IMPLEMENTED:  # of all 5xx the one that waiting does not mend
        return _denied(status, asked, said, subject, remedy)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.REQUEST_TIMEOUT:
        error = Overloaded if status in _GAVE_UP else Unreachable
        return error(f"{asked}: GitHub says {status}; it is asked again later{_said(said)}")
    return _denied(status, asked, said, subject, remedy)


def _said(message: str) -> str:
    return f" (GitHub: {message})" if message else ""


def _denied(status: int, asked: str, said: str, subject: Subject, remedy: str) -> GitHubError:
    says = f"{asked}: GitHub says {status}"
    if status == HTTPStatus.UNAUTHORIZED:
        words = "GitHub does not accept the token (401): it is wrong, expired or revoked"
        return Unauthorized(f"{asked}: {words}; {remedy}{_said(said)}")
    if status == HTTPStatus.UNAVAILABLE_FOR_LEGAL_REASONS or "access blocked" in said.lower():
        return Forbidden(f"{says}: access to the repository is blocked{_said(said)}")
    if status == HTTPStatus.FORBIDDEN and subject is Subject.HOOKS:
        return Forbidden(f"{says}: {HOOKS_PERMISSION}{_said(said)}")
    if status == HTTPStatus.FORBIDDEN:
        return Forbidden(f"{says}: the token lacks a permission or single sign-on is required{_said(said)}")
    return BadAnswer(f"{says}, which was not expected; check github.api_url{_said(said)}")


def _hooks_refused(status: int, says: str, said: str) -> GitHubError:
    """GitHub answers 404 to who may not administer webhooks, as if there were none."""
    if status == HTTPStatus.UNPROCESSABLE_ENTITY:
        return Rejected(f"{says}: it does not take this{_said(said)}")
    return Forbidden(f"{says}: there is none, or {HOOKS_PERMISSION}{_said(said)}")


def _missing(status: int, asked: str, said: str, subject: Subject) -> GitHubError:
    says, words = f"{asked}: GitHub says {status}", said.lower()
    if subject is Subject.HOOKS:
        return _hooks_refused(status, says, said)
    if status == HTTPStatus.CONFLICT and ("empty" in words or not (said or subject is Subject.OBJECT)):
        return RepositoryEmpty(f"{says}: the repository has no commit yet; push one{_said(said)}")
    if subject is Subject.OBJECT:
        return ObjectNotFound(f"{says}: it is not there, not there yet, or the token may not see it{_said(said)}")
    if subject is Subject.BRANCH and (status == HTTPStatus.UNPROCESSABLE_ENTITY or "no commit found" in words):
        return BranchNotFound(f"{says}: the branch does not exist{_said(said)}")
    if status in {HTTPStatus.NOT_FOUND, HTTPStatus.GONE}:
        return RepositoryNotFound(f"{says}: it was deleted, is private, or the token may not see it{_said(said)}")
    return BadAnswer(f"{says}; it is asked again later{_said(said)}")
