"""Headers and bytes in, a delivery or a refusal out: the contract's webhook table, without a socket."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.errors import Refusal
from daemon.model import DeliveryStatus, TrackedOwner, TrackedRepository
from daemon.triggers.intake import (
    Arrival,
    Decision,
    TrackingView,
    answer,
    check_signature,
    decide,
    parse_body,
    read_event,
    read_guid,
)

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
SECRET = b"It's a Secret to Everybody"
BODY = b"Hello, World!"
# https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries#testing-the-webhook-payload-validation
PUBLISHED = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
SHA = "a" * 40
NOW = datetime(2026, 11, 23, 21, 40, 41, tzinfo=UTC)


def sign(body: bytes, secret: bytes = SECRET) -> str:
    return "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()


def tracked(
    number: int = 1, name: str = "octo/demo", *, default: str | None = "main", branches: tuple[str, ...] = ()
) -> TrackedRepository:
    owner, _, bare = name.partition("/")
    return TrackedRepository(
        id=number, github_id=1000 + number, owner=owner, name=bare, default_branch=default, branches=branches
    )


def push(**changes: Any) -> dict[str, Any]:
    payload: dict[str, Any] = {
        "ref": "refs/heads/main",
        "before": "b" * 40,
        "after": SHA,
        "forced": False,
        "commits": [{"added": ["a", "b"], "modified": ["c"], "removed": []}, {"added": [], "modified": ["a"]}],
        "repository": {"id": 1001, "full_name": "octo/demo"},
    }
    payload |= changes
    return {key: value for key, value in payload.items() if value is not ...}


def judge(
    payload: dict[str, Any],
    *,
    event: str = "push",
    repositories: Sequence[TrackedRepository] = (tracked(),),
    configured: bool = True,
) -> Decision:
    arrival = Arrival(guid="g-1", event=event, body_digest="d", received_at=NOW)
    return decide(arrival, payload, tracking=TrackingView(repositories), configured=configured)


def told(payload: dict[str, Any], **conditions: Any) -> dict[str, Any]:
    decision = judge(payload, **conditions)
    return answer(decision, decision.delivery.status)


def refusal(call: Any, *arguments: Any, **named: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        call(*arguments, **named)
    return caught.value


def outcome(call: Any, *arguments: Any, **named: Any) -> Any:
    """What the call returns, or the status it refuses with; anything else it raises fails the test."""
    try:
        return call(*arguments, **named)
    except Refusal as refused:
        return refused.status


# -- the signature --------------------------------------------------------------------------------


def test_githubs_published_vector_verifies():
    check_signature(BODY, [PUBLISHED], [SECRET])


def test_no_secret_verifies_everything():
    check_signature(BODY, [], [])
    check_signature(BODY, ["nonsense"], [b""])


def test_an_absent_header_is_missing():
    assert refusal(check_signature, BODY, [], [SECRET]).detail == "Missing signature header"


@pytest.mark.parametrize(
    "header",
    [
        "",
        "sha256=",
        PUBLISHED.upper(),
        "sha256=" + PUBLISHED[7:].upper(),
        PUBLISHED[7:],
        " " + PUBLISHED,
        PUBLISHED + " ",
        PUBLISHED + "0",
        PUBLISHED[:-1],
        PUBLISHED + "," + PUBLISHED,
        "sha1=" + "0" * 40,
        "sha256=\xe9" + "0" * 63,
        "sha256=\N{SNOWMAN}" + "0" * 63,
        "sha256=" + "0" * 10_000,
        sign(BODY, b"another secret"),
        sign(b"another body"),
    ],
)
def test_a_header_that_is_not_the_signature_is_invalid(header):
    found = refusal(check_signature, BODY, [header], [SECRET])
    assert (found.status, found.detail) == (403, "Invalid signature")


def test_a_signature_sent_twice_is_invalid_even_if_both_are_right():
    assert refusal(check_signature, BODY, [PUBLISHED, PUBLISHED], [SECRET]).status == 403
    assert refusal(check_signature, BODY, [PUBLISHED, "x"], [SECRET]).status == 403


def test_any_of_several_secrets_verifies_wherever_it_stands():
    for secrets in ([SECRET, b"new"], [b"new", SECRET], [b"a", SECRET, b"b"]):
        check_signature(BODY, [PUBLISHED], secrets)
    assert refusal(check_signature, BODY, [PUBLISHED], [b"new", b"newer"]).status == 403


def test_an_empty_secret_among_others_verifies_nothing():
    assert refusal(check_signature, BODY, [sign(BODY, b"")], [b"", SECRET]).status == 403


@given(body=st.binary(max_size=200), headers=st.lists(st.text(max_size=100), max_size=3))
def test_a_signature_of_any_bytes_is_refused(body, headers):
    assert refusal(check_signature, body, headers, [SECRET]).status == 403


@given(body=st.binary(max_size=200), secrets=st.lists(st.binary(min_size=1, max_size=80), min_size=1, max_size=3))
def test_what_was_signed_with_any_secret_verifies(body, secrets):
    for secret in secrets:
        check_signature(body, [sign(body, secret)], secrets)


# -- the headers ----------------------------------------------------------------------------------


def test_a_guid_is_any_short_printable_text_and_may_be_missing():
    assert read_guid([]) is None
    assert read_guid([""]) is None
    assert read_guid(["72d3162e-cc78-11e3-81ab-4c9367dc0958"]) == "72d3162e-cc78-11e3-81ab-4c9367dc0958"
    assert read_guid(["'; DROP TABLE delivery; --"]) == "'; DROP TABLE delivery; --"
    assert read_guid(["x" * 200]) == "x" * 200


@pytest.mark.parametrize("values", [["x" * 201], ["a\tb"], ["a\x00"], ["\xe9"], ["a", "a"], ["a\n"]])
def test_a_guid_that_cannot_be_a_key_is_refused(values):
    assert refusal(read_guid, values).status == 400


@pytest.mark.parametrize("values", [[], [""], ["push\xe9"], ["a b"], ["x" * 101], ["push", "push"], ["push\n"]])
def test_an_event_without_a_proper_name_is_unknown(values):
    assert read_event(values) == "unknown"


def test_an_event_keeps_its_name():
    assert [read_event([name]) for name in ("push", "ping", "__class__", "Push")] == [
        "push",
        "ping",
        "__class__",
        "Push",
    ]


# -- the body -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content_type", [JSON, "Application/JSON", f"{JSON}; charset=utf-8", f"{JSON};charset=nope", f"{JSON} ;charset"]
)
def test_json_is_utf8_whatever_charset_is_named(content_type):
    assert parse_body(content_type, '{"a": "é"}'.encode()) == {"a": "é"}


@pytest.mark.parametrize("escape", [quote, quote_plus])
def test_a_form_holds_the_payload_in_one_field(escape):
    document = {"a": "é + & = % \n", "b": [1]}
    body = f"x=1&payload={escape(json.dumps(document))}".encode()
    assert parse_body(FORM, body) == document


@pytest.mark.parametrize(
    "body", [b"", b"payload", b"payload=", b"x=1", b"payload=%7B%7D&payload=%7B%7D", b"&" * 10**6, b"a=1&" * 10**6]
)
def test_a_form_without_exactly_one_payload_is_refused(body):
    assert refusal(parse_body, FORM, body).status == 400


def test_a_form_of_many_fields_is_refused_before_any_is_looked_at():
    assert parse_body(FORM, b"a&" * 99 + b"payload={}") == {}
    assert refusal(parse_body, FORM, b"a&" * 100 + b"payload={}").detail == "The form has too many fields"


@pytest.mark.parametrize("content_type", ["", "text/plain", "multipart/form-data; boundary=x", "application/jsonx"])
def test_another_content_type_is_not_parsed(content_type):
    assert refusal(parse_body, content_type, b"{}").status == 415


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"1",
        b'"text"',
        b"null",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": -Infinity}',
        b'{"a": 1, "a": 2}',
        b'{"deep": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"deep": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
        b'{"a": ' + b"1" * 5000 + b"}",
        '{"a": 1}'.encode("utf-16"),
        '{"a": 1}'.encode("utf-32"),
        b"\xef\xbb\xbf{}",
        b'{"a": "\xff"}',
        b'{"a": "\xed\xa0\x80"}',
        b"{} {}",
        b"\x00{}",
        b"{'a': 1}",
    ],
)
def test_what_no_parser_should_take_is_refused(body):
    assert refusal(parse_body, JSON, body).status == 400


@given(content_type=st.sampled_from([JSON, FORM]), body=st.binary(max_size=300))
def test_a_body_of_any_bytes_is_an_object_or_a_refusal(content_type, body):
    found = outcome(parse_body, content_type, body)
    assert found == 400 or isinstance(found, dict)


# -- pushes ---------------------------------------------------------------------------------------


def test_a_push_to_a_tracked_branch_is_accepted_and_tells_what_it_changes():
    assert told(push()) == {
        "status": "accepted",
        "event": "push",
        "files_changed": 3,
        "forced": False,
        "message": "Sync triggered in background",
        "repository": "octo/demo",
        "branch": "main",
        "delivery": "g-1",
    }


def test_an_accepted_delivery_says_which_branch_wants_a_sync():
    delivery = judge(push(action="x")).delivery
    assert (delivery.repository_id, delivery.branch, delivery.ref) == (1, "main", "refs/heads/main")
    assert (delivery.before, delivery.after, delivery.action) == ("b" * 40, SHA, "x")
    assert (delivery.guid, delivery.body_digest, delivery.received_at) == ("g-1", "d", NOW)


def test_a_push_needs_nothing_but_its_ref():
    lean = {"ref": "refs/heads/main"}
    assert told(lean)["status"] == "accepted"
    assert told(lean)["files_changed"] == 0
    assert told(lean)["forced"] is False
    assert judge(lean).delivery.after is None


def test_a_deleted_and_a_forced_branch_are_accepted():
    assert told(push(after="0" * 40, deleted=True, head_commit=None))["status"] == "accepted"
    assert told(push(forced=True))["forced"] is True


def test_a_push_without_repository_is_for_the_only_one_configured():
    assert told(push(repository=...))["repository"] == "octo/demo"
    several = (tracked(1, "octo/demo"), tracked(2, "octo/other"))
    assert refusal(judge, push(repository=...), repositories=several).status == 400
    assert refusal(judge, push(repository=...), repositories=()).status == 400


@pytest.mark.parametrize(
    "repository",
    [
        {"id": 1001, "full_name": "renamed/elsewhere"},
        {"full_name": "OCTO/Demo"},
        {"id": 1001},
        {"owner": {"login": "octo"}, "name": "demo"},
        {"owner": {"name": "Octo"}, "name": "demo"},
    ],
)
def test_a_repository_is_known_by_its_number_else_by_its_name_in_any_case(repository):
    assert told(push(repository=repository))["repository"] == "octo/demo"


def test_a_push_under_a_tracked_name_with_another_number_has_it_asked_who_that_is() -> None:
    delivery = judge(push(repository={"id": 5, "full_name": "octo/demo"})).delivery
    assert (delivery.status, delivery.hint_repository_id) == (DeliveryStatus.ACCEPTED, delivery.repository_id)
    assert judge(push(repository={"id": 1001, "full_name": "octo/demo"})).delivery.hint_repository_id is None
    assert judge(push(repository={"full_name": "octo/demo"})).delivery.hint_repository_id is None


def test_the_number_counts_before_the_name():
    several = (tracked(1, "octo/demo"), tracked(2, "octo/other"))
    decision = judge(push(repository={"id": 1002, "full_name": "octo/demo"}), repositories=several)
    assert decision.delivery.repository_id == 2


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"repository": {"id": 5, "full_name": "evil/other"}}, "Repository is not tracked"),
        ({"ref": "refs/tags/v1"}, "Tags are not tracked"),
        ({"ref": "refs/heads/topic"}, "Branch is not tracked"),
        ({"ref": "refs/heads/Main"}, "Branch is not tracked"),
        ({"ref": "refs/heads/"}, "Not a branch"),
        ({"ref": "main"}, "Not a branch"),
        ({"ref": "refs/notes/commits"}, "Not a branch"),
    ],
)
def test_a_push_that_concerns_nothing_tracked_is_ignored_with_the_reason(changes, reason):
    assert told(push(**changes)) == {"status": "ignored", "event": "push", "reason": reason}


def test_an_ignored_push_is_still_recorded():
    delivery = judge(push(ref="refs/tags/v1")).delivery
    assert delivery.status is DeliveryStatus.IGNORED
    assert (delivery.repository, delivery.ref, delivery.after) == ("octo/demo", "refs/tags/v1", SHA)
    assert delivery.branch is None


def test_any_branch_is_accepted_while_the_default_branch_is_unknown():
    assert told(push(ref="refs/heads/topic"), repositories=(tracked(default=None),))["status"] == "accepted"


def test_configured_branches_decide_whatever_the_default_branch_is():
    repositories = (tracked(default="main", branches=("release/*", "dev")),)
    states = {
        name: told(push(ref=f"refs/heads/{name}"), repositories=repositories)["status"]
        for name in ("main", "dev", "release/1", "release")
    }
    assert states == {"main": "ignored", "dev": "accepted", "release/1": "accepted", "release": "ignored"}


def test_without_a_way_to_ask_github_a_push_is_skipped():
    assert told(push(), configured=False) == {
        "status": "skipped",
        "event": "push",
        "reason": "GitHub integration not configured",
    }
    assert told(push(ref="refs/heads/topic"), configured=False)["status"] == "ignored"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"ref": ...}, "ref"),
        ({"ref": 7}, "ref"),
        ({"ref": None}, "ref"),
        ({"ref": "refs/heads/" + "x" * 5_000_000}, "ref"),
        ({"ref": "refs/heads/a\x00b"}, "ref"),
        ({"ref": "refs/heads/\ud800"}, "ref"),
        ({"before": 0}, "before"),
        ({"before": "not hex"}, "before"),
        ({"after": "a" * 39}, "after"),
        ({"after": "A" * 40}, "after"),
        ({"after": SHA + "\n"}, "after"),
        ({"after": None}, "after"),
        ({"forced": "yes"}, "forced"),
        ({"forced": 1}, "forced"),
        ({"commits": {}}, "commits"),
        ({"commits": "x"}, "commits"),
        ({"commits": [1]}, "commits"),
        ({"commits": [None]}, "commits"),
        ({"commits": [{"added": "x"}]}, "commits[].added"),
        ({"commits": [{"modified": [1]}]}, "commits[].modified"),
        ({"commits": [{"removed": [["x"]]}]}, "commits[].removed"),
        ({"repository": None}, "repository"),
        ({"repository": "octo/demo"}, "repository"),
        ({"repository": []}, "repository"),
        ({"repository": {}}, "repository"),
        ({"repository": {"full_name": 1}}, "repository.full_name"),
        ({"repository": {"full_name": "a/\ud800"}}, "repository.full_name"),
        ({"repository": {"owner": "octo", "name": "demo"}}, "repository.owner"),
        ({"repository": {"owner": {"login": 1}, "name": "demo"}}, "repository.owner.login"),
        ({"repository": {"id": True, "full_name": "octo/demo"}}, "repository.id"),
        ({"repository": {"id": -1, "full_name": "octo/demo"}}, "repository.id"),
        ({"repository": {"id": 0, "full_name": "octo/demo"}}, "repository.id"),
        ({"repository": {"id": 2**63, "full_name": "octo/demo"}}, "repository.id"),
        ({"repository": {"id": float("inf"), "full_name": "octo/demo"}}, "repository.id"),
        ({"repository": {"id": "1001", "full_name": "octo/demo"}}, "repository.id"),
        ({"repository": {"id": None, "full_name": "octo/demo"}}, "repository.id"),
    ],
)
def test_a_used_field_of_the_wrong_type_is_refused_by_name(changes, field):
    found = refusal(judge, push(**changes))
    assert found.status == 400
    assert found.detail.startswith(field)


def test_fields_that_are_not_used_may_be_anything():
    odd = {"head_commit": 3, "pusher": [], "compare": {"x": 1}, "created": "?", "sender": None, "base_ref": 0.5}
    assert told(push(**odd))["status"] == "accepted"


# -- other events ---------------------------------------------------------------------------------


@pytest.mark.parametrize("event", ["ping", "pull_request", "unknown", "create", "repository", "__class__"])
@pytest.mark.parametrize("payload", [{}, {"repository": None}, {"repository": {"id": True}, "ref": 3, "action": []}])
def test_another_event_is_ignored_whatever_it_holds(event, payload):
    assert told(payload, event=event) == {"status": "ignored", "event": event}


def test_a_repository_event_is_a_hint_to_look():
    said = {"action": "renamed", "repository": {"id": 1001, "full_name": "octo/new"}}
    delivery = judge(said, event="repository").delivery
    assert (delivery.hint_repository_id, delivery.action, delivery.repository) == (1, "renamed", "octo/new")
    assert delivery.repository_id == 1
    assert judge({"repository": {"id": 9}}, event="ping").delivery.repository_id is None
    assert judge(said, event="create").delivery.hint_repository_id is None
    assert judge({"repository": {"id": 9}}, event="repository").delivery.hint_repository_id is None


def test_a_push_body_under_another_label_changes_nothing():
    decision = judge(push(), event="delete")
    assert decision.delivery.status is DeliveryStatus.IGNORED
    assert decision.delivery.branch is None


# -- anything -------------------------------------------------------------------------------------

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(["ref", "before", "after", "forced", "commits", "repository", "action", "deleted"])


@given(changes=st.dictionaries(KEYS, JSON_VALUES, max_size=4), event=st.sampled_from(["push", "repository", "ping"]))
def test_a_payload_of_any_shape_is_decided_or_refused(changes, event):
    found = outcome(told, push(**changes), event=event)
    assert json.dumps(found) if isinstance(found, dict) else (found, event) == (400, "push")


@given(inner=JSON_VALUES, key=st.sampled_from(["id", "full_name", "owner", "name"]))
def test_a_repository_of_any_shape_is_decided_or_refused(inner, key):
    found = outcome(told, push(repository={"id": 1001, "full_name": "octo/demo", key: inner}))
    assert found == 400 or isinstance(found, dict)


def test_a_duplicate_is_told_so_and_promises_no_sync():
    found = answer(judge(push()), DeliveryStatus.DUPLICATE)
    assert (found["status"], found["event"], found["delivery"]) == ("duplicate", "push", "g-1")
    assert "files_changed" not in found


# -- owner/* ----------------------------------------------------------------------------------------


def hinted(payload: dict[str, Any], event: str = "push") -> str | None:
    owner = TrackedOwner("Octo", excluded=("old-*",), passed_over=frozenset({77}))
    tracking = TrackingView((tracked(1, "octo/demo"),), (owner,))
    arrival = Arrival("guid", event, "0" * 64, NOW)
    return decide(arrival, payload, tracking=tracking, configured=True).delivery.hint_owner


@pytest.mark.parametrize(
    ("payload", "event", "owner"),
    [
        (push(repository={"id": 5, "full_name": "octo/new"}), "push", "octo/*"),
        (push(repository={"id": 77, "full_name": "octo/a-fork"}), "push", None),
        (push(repository={"id": 5, "full_name": "octo/old-one"}), "push", None),
        (push(repository={"id": 5, "full_name": "else/where"}), "push", None),
        (push(), "push", None),
        ({"action": "created", "repository": {"id": 5, "full_name": "OCTO/new"}}, "repository", "octo/*"),
        ({"action": "unarchived", "repository": {"id": 77, "full_name": "octo/a-fork"}}, "repository", "octo/*"),
        ({"action": "renamed", "repository": {"id": 1001, "full_name": "octo/demo2"}}, "repository", "octo/*"),
        ({"action": "created", "repository": {"id": 5, "full_name": "else/where"}}, "repository", None),
        ({"action": "created", "repository": {"full_name": ["octo/new"]}}, "repository", None),
        ({"installation": {"account": {"login": "octo"}}}, "installation_repositories", "octo/*"),
        ({"installation": {"account": {"login": "octo"}}}, "installation", "octo/*"),
        ({"installation": {"account": {"login": 7}}}, "installation", None),
        ({"installation": []}, "installation", None),
        ({"repository": {"full_name": "octo/new"}}, "star", None),
    ],
)
def test_a_delivery_hints_at_the_list_that_it_may_have_changed(payload, event, owner):
    assert hinted(payload, event) == owner


def test_a_push_that_hints_is_ignored_and_says_what_is_done():
    tracking = TrackingView((tracked(2, "octo/other"),), (TrackedOwner("octo"),))
    arrival = Arrival("guid", "push", "0" * 64, NOW)
    delivery = decide(arrival, push(), tracking=tracking, configured=True).delivery
    assert delivery.status is DeliveryStatus.IGNORED
    assert delivery.reason == "Repository is not tracked yet: the list of octo/* is looked at"
    with pytest.raises(Refusal, match="not exactly one"):
        decide(arrival, push(repository=...), tracking=tracking, configured=True)
