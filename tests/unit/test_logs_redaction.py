from __future__ import annotations

import base64
import json
import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.logs import Formatter
from daemon.redaction import HIDDEN, Redactor, redact_shapes

TOKEN = "canary-token-1f2e3d"
SECRET = 'canary "secret"\\ with/odd&chars=é'
DSN = "canary-dsn-password"
SECRETS = (TOKEN, SECRET, DSN)


def logged(fmt="json", *, secrets=SECRETS, **fields):
    formatter = Formatter(fmt, redact=Redactor(lambda: secrets), tracebacks=True)
    return formatter(None, "info", {"level": "info", "event": "x.y", **fields})


CARRIERS = {
    "plain": lambda value: value,
    "sentence": lambda value: f"cannot use {value}: denied",
    "repr": repr,
    "json": json.dumps,
    "json unescaped": lambda value: json.dumps(value, ensure_ascii=False),
    "url": lambda value: f"https://x/?q={urllib.parse.quote(value, safe='')}&y=1",
    "path": lambda value: f"https://x/{urllib.parse.quote(value)}",
    "form": lambda value: urllib.parse.urlencode({"z": value}),
    "base64": lambda value: base64.b64encode(value.encode()).decode(),
    "base64 url": lambda value: base64.urlsafe_b64encode(value.encode()).decode(),
    "hex": lambda value: value.encode().hex(),
    "bytes": lambda value: value.encode(),
    "list": lambda value: [1, [value]],
    "table": lambda value: {"a": {"b": value}},
    "key": lambda value: {value: 1},
    "exception": ValueError,
    "far out": lambda value: "x" * 1990 + value,
    "very far out": lambda value: "x" * 60_000 + value,
}


@pytest.mark.parametrize("fmt", ["json", "console", "journald"])
@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize("secret", SECRETS)
def test_a_planted_secret_never_reaches_a_line(fmt, carrier, secret):
    line = logged(fmt, field=CARRIERS[carrier](secret))
    for form in (
        secret,
        *(str(CARRIERS[name](secret)).strip("\"'=") for name in ("repr", "json", "base64", "base64 url", "hex")),
    ):
        assert form not in line
    assert "canary" not in line
    assert "canary" not in logged(fmt, event=secret)


def test_both_alphabets_of_base64_are_known():
    secret = "canary>>>???~~~"
    redact = Redactor(lambda: [secret])
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        assert redact(encode(secret.encode()).decode()) == HIDDEN
    assert base64.b64encode(secret.encode()) != base64.urlsafe_b64encode(secret.encode())


def test_a_secret_at_the_edge_of_what_is_shown_is_not_shown_in_part():
    for offset in range(1960, 2010):
        assert "canar" not in logged(field="x " * (offset // 2) + TOKEN)


def test_a_secret_in_an_exception_and_its_traceback_is_redacted():
    line = ""
    try:
        int(TOKEN)  # its message quotes what it was given
    except ValueError as error:
        line = logged(exc_info=error)
    assert "Traceback" in line
    assert "canary" not in line


def test_the_secrets_in_force_are_asked_for_at_every_line():
    secrets = ["first-secret"]
    redact = Redactor(lambda: secrets)
    assert redact("first-secret second-secret") == f"{HIDDEN} second-secret"
    secrets[:] = ["second-secret"]
    assert redact("first-secret second-secret") == f"first-secret {HIDDEN}"


def test_the_longest_secret_is_taken_out_whole():
    assert Redactor(lambda: ["abc", "abcdef"])("abcdef") == HIDDEN


def test_without_secrets_and_with_very_short_ones_text_stays():
    assert Redactor(list)("abc") == "abc"
    assert Redactor(lambda: ["", "a"])("a banana") == "a banana"


SHAPES = [
    ("ghp_CANARYabcdefghijklmnopqrstuvwxyz0123", "CANARY"),
    ("x gho_CANARYabcdef, y", "CANARY"),
    ("ghs_CANARY.abc-def_ghi", "CANARY"),
    ("ghu_CANARYabcdef ghr_CANARYabcdef", "CANARY"),
    ("github_pat_11CANARY_abcdef", "CANARY"),
    ("Authorization: Bearer CANARY", "CANARY"),
    ("authorization: token CANARY and more", "CANARY"),
    ("{'Authorization': 'Basic CANARY=='}", "CANARY"),
    ('{"authorization": "CANARY"}', "CANARY"),
    ("Proxy-Authorization: Basic CANARY", "CANARY"),
    ("sent Bearer CANARYabc", "CANARY"),
    ("https://user:CANARY@github.com/a/b", "CANARY"),
    ("https://CANARY@github.com/a/b", "CANARY"),
    ("postgresql://u:CANARY@p@host/db", "CANARY"),
    ("git clone https://x-access-token:CANARY@github.com", "CANARY"),
    ("https://codeload.github.com/a/b/legacy.tar.gz/main?token=CANARY", "CANARY"),
    ("https://x/?a=1&access_token=CANARY&b=2", "CANARY"),
    ("https://x/?X-Amz-Signature=CANARY&X-Amz-Credential=CANARY", "CANARY"),
    ("https://x/?X-Amz-Security-Token=CANARY", "CANARY"),
    ("host=x password=CANARY dbname=y", "CANARY"),
    ("client_secret=CANARY", "CANARY"),
    ("eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJDQU5BUlkifQ.CANARY", "CANARY"),
    ("-----BEGIN RSA PRIVATE KEY-----\nCANARY\n-----END RSA PRIVATE KEY-----", "CANARY"),
    ("-----BEGIN PRIVATE KEY-----\nCANARY", "CANARY"),
]


@pytest.mark.parametrize(("text", "canary"), SHAPES)
def test_what_looks_like_a_credential_is_redacted_though_nobody_named_it(text, canary):
    assert canary not in redact_shapes(text)
    assert HIDDEN in redact_shapes(text)
    assert canary not in logged(field=text, secrets=())


@pytest.mark.parametrize(
    "text",
    [
        "https://api.github.com/repos/a/b/commits?sha=main&per_page=100",
        "https://x/path@v1",
        "fetched https://github.com/a/b, mail me@example.org",
        "authorization failed",
        "the basic idea",
        "3f786850e387550fdab836ed7e6dc881de23001b",
        "tokens=5",
    ],
)
def test_ordinary_text_is_left_as_it_is(text):
    assert redact_shapes(text) == text


@pytest.mark.parametrize(
    "name", ["token", "secret", "github_token", "Authorization", "password", "private_key", "set-cookie"]
)
def test_a_text_in_a_field_named_like_a_secret_is_hidden_and_a_number_is_not(name):
    record = json.loads(logged(secrets=(), table={name: "CANARY", "other": 1}, **{name: "CANARY"}))
    assert record[name] == HIDDEN
    assert record["table"] == {name: HIDDEN, "other": 1}
    assert json.loads(logged(token=7))["token"] == 7  # a fencing token


@given(st.text(alphabet=":/@?&=gh_pABC. \n\"'", max_size=300))
def test_redaction_never_fails_and_does_not_need_long(text):
    redact_shapes(text * 50)


@given(secret=st.text(min_size=3, max_size=40), before=st.text(max_size=20), after=st.text(max_size=20))
def test_no_text_around_a_secret_hides_it(secret, before, after):
    if secret in HIDDEN:
        return
    redacted = Redactor(lambda: [secret])(f"{before}{secret}{after}")
    assert secret not in redacted.replace(HIDDEN, "\0")
