"""Posts the change to an URL, signed as GitHub signs its deliveries."""

from __future__ import annotations

import hashlib
import hmac
import json

import requests

from daemon.actions.command import MOST_OUTPUT_BYTES, change_json
from daemon.clock import Clock
from daemon.errors import GitHubError
from daemon.github.auth import TokenAuth
from daemon.github.protocol import is_success
from daemon.github.transport import Allowance, Request, Transport, read_answer
from daemon.model import ActionResult, BranchChange

EVENT = "branch.changed"
READ_SECONDS = 30.0


def signature(body: bytes, secret: str) -> str:
    """As in https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries"""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def post(
    transport: Transport, url: str, change: BranchChange, *, secret: str | None, timeout_seconds: float, clock: Clock
) -> ActionResult:
    """Post it once; 2xx is a success. Redirects are not followed: the signature is for the one who was named."""
    body = json.dumps({"event": EVENT, "id": change.id, **change_json(change)}).encode()
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "headwater",
        "X-Headwater-Event": EVENT,
        "X-Headwater-Delivery": str(change.id),
    }
    if secret:
        headers["X-Hub-Signature-256"] = signature(body, secret)
    # Whatever is posted to must not hold this thread: not by silence, not by dripping, not by an endless answer.
    allowance = Allowance(
        clock, clock.monotonic() + timeout_seconds, min(READ_SECONDS, timeout_seconds), MOST_OUTPUT_BYTES,
        peer="the receiver",
    )  # fmt: skip
    try:
        request = Request("POST", url, headers, asked="the change was posted", body=body)
        response = transport.send(request, TokenAuth(None), allowance)
    except GitHubError as error:
        return ActionResult(str(error))
    output = _answered(response, allowance)
    good = is_success(response.status_code)
    return ActionResult(None if good else f"the receiver answered {response.status_code}", output)


def _answered(response: requests.Response, allowance: Allowance) -> str | None:
    """The start of the answer; the status alone decides, so one that is cut or too long is none."""
    try:
        answer = read_answer(response, asked="its answer", max_bytes=MOST_OUTPUT_BYTES, allowance=allowance)
    except GitHubError:
        return None
    return answer.body[:MOST_OUTPUT_BYTES].decode("utf-8", "replace") or None
