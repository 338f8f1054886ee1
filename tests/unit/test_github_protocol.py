from __future__ import annotations

import json

import pytest

from daemon import errors
from daemon.errors import BadAnswer
from daemon.github.auth import TokenAuth, checked_token, fingerprint
from daemon.github.protocol import Answer, Overloaded, Subject, is_sha, message_of, parse_json, quoted, refusal


def said(status: int, message: str | None = None) -> Answer:
    return Answer(status, {}, b"" if message is None else json.dumps({"message": message}).encode())


@pytest.mark.parametrize(
    ("status", "message", "subject", "expected"),
    [
        (401, "Bad credentials", Subject.REPOSITORY, errors.Unauthorized),
        (403, "Resource not accessible", Subject.OBJECT, errors.Forbidden),
        (403, "Repository access blocked", Subject.REPOSITORY, errors.Forbidden),
        (451, None, Subject.BRANCH, errors.Forbidden),
        (404, "Not Found", Subject.REPOSITORY, errors.RepositoryNotFound),
        (410, None, Subject.REPOSITORY, errors.RepositoryNotFound),
        (404, "Not Found", Subject.BRANCH, errors.RepositoryNotFound),
        (404, "No commit found for SHA: heads/x", Subject.BRANCH, errors.BranchNotFound),
        (422, "No commit found for SHA: heads/x", Subject.BRANCH, errors.BranchNotFound),
        (422, None, Subject.BRANCH, errors.BranchNotFound),
        (422, None, Subject.REPOSITORY, errors.BadAnswer),
        (409, "Git Repository is empty.", Subject.BRANCH, errors.RepositoryEmpty),
        (409, "Git Repository is empty.", Subject.OBJECT, errors.RepositoryEmpty),
        (409, None, Subject.REPOSITORY, errors.RepositoryEmpty),
        (409, "Conflict", Subject.BRANCH, errors.BadAnswer),
        (409, "not there yet", Subject.OBJECT, errors.ObjectNotFound),
        (409, None, Subject.OBJECT, errors.ObjectNotFound),
        (404, None, Subject.OBJECT, errors.ObjectNotFound),
        (422, None, Subject.OBJECT, errors.ObjectNotFound),
        (404, "Not Found", Subject.HOOKS, errors.Forbidden),
        (403, "Resource not accessible", Subject.HOOKS, errors.Forbidden),
        (422, "Validation Failed", Subject.HOOKS, errors.Rejected),
        (500, None, Subject.OBJECT, errors.Unreachable),
        (503, "<html>", Subject.OBJECT, errors.Unreachable),
        (408, None, Subject.OBJECT, errors.Unreachable),
        (502, None, Subject.OBJECT, Overloaded),
        (504, None, Subject.OBJECT, Overloaded),
        (400, None, Subject.OBJECT, errors.BadAnswer),
        (405, None, Subject.OBJECT, errors.BadAnswer),
        (501, None, Subject.REPOSITORY, errors.BadAnswer),
        (301, None, Subject.OBJECT, errors.BadAnswer),
        (100, None, Subject.OBJECT, errors.BadAnswer),
    ],
)
def test_an_error_answer_is_raised_as_what_can_be_done_about_it(
    status: int, message: str | None, subject: Subject, expected: type[Exception]
) -> None:
    error = refusal(said(status, message), asked="o/r", subject=subject)
    assert type(error) is expected
    assert str(error).startswith("o/r: ")
    assert str(status) in str(error)


@pytest.mark.parametrize("status", [200, 201, 204, 304])
def test_a_good_answer_is_no_refusal(status: int) -> None:
    assert refusal(said(status), asked="o/r", subject=Subject.OBJECT) is None


@pytest.mark.parametrize("first", [{"message": "url is not reachable"}, "url is not reachable"])
def test_what_failed_in_a_validation_is_told(first: object) -> None:
    body = json.dumps({"message": "Validation Failed", "errors": [first, {"message": "another"}]}).encode()
    error = refusal(Answer(422, {}, body), asked="o/r hook", subject=Subject.HOOKS)
    assert str(error).endswith("(GitHub: Validation Failed: url is not reachable)")


@pytest.mark.parametrize("broken", [[], [7], [{"message": 7}], {}, 7, None])
def test_errors_of_another_shape_do_not_hide_the_message(broken: object) -> None:
    assert message_of(Answer(422, {}, json.dumps({"message": "No", "errors": broken}).encode())) == "No"


def test_a_message_tells_a_person_what_404_may_mean() -> None:
    error = refusal(said(404, "Not Found"), asked="o/r", subject=Subject.REPOSITORY)
    assert str(error) == (
        "o/r: GitHub says 404: it was deleted, is private, or the token may not see it (GitHub: Not Found)"
    )


@pytest.mark.parametrize(
    "body",
    [b"", b"<!DOCTYPE html>", b'{"a": 1', b'{"a": NaN}', b"[" * 100_000, b"\xff\xfe{}", b'{"a": ' + b"9" * 6000 + b"}"],
)
def test_what_is_no_whole_json_is_a_bad_answer(body: bytes) -> None:
    with pytest.raises(BadAnswer, match=r"^o/r tree: GitHub answered 200"):
        parse_json(Answer(200, {}, body), asked="o/r tree")


@pytest.mark.parametrize("body", [b"", b"<html>", b"null", b"[]", b'{"message": 7}', b"\xff", b"[" * 100_000])
def test_an_error_without_a_message_has_none(body: bytes) -> None:
    assert message_of(Answer(500, {}, body)) == ""


def test_githubs_words_are_quoted_on_one_short_line_without_control_or_bidi_characters() -> None:
    text = quoted("a\r\nforged: line\x1b[2J\u202e\u2028\ud800 end" + "x" * 500)
    assert text.startswith("a forged: line [2J")
    assert not set(text) & set("\r\n\x1b\u202e\u2028\ud800")
    assert len(text) == 201


@pytest.mark.parametrize("value", ["a" * 39, "A" * 40, "a" * 41, "a" * 40 + "\n", "g" * 40, 7, None, b"a" * 40])
def test_only_forty_lower_case_hex_digits_are_a_sha(value: object) -> None:
    assert not is_sha(value)


@pytest.mark.parametrize("token", ["with space", "line\nbreak", "umläut", "nul\0", "x" * 3000])
def test_a_token_that_no_header_can_hold_is_refused_without_being_shown(token: str) -> None:
    with pytest.raises(errors.Unauthorized) as raised:
        checked_token(token)
    assert token not in str(raised.value)


@pytest.mark.parametrize("token", [None, "", " \n"])
def test_an_empty_token_is_none(token: str | None) -> None:
    assert checked_token(token) is None


def test_a_token_file_may_end_with_a_newline() -> None:
    assert checked_token("ghp_abc\n") == "ghp_abc"


def test_neither_the_fingerprint_nor_the_authentication_shows_the_token() -> None:
    assert "secret" not in fingerprint("secret") + repr(TokenAuth("secret"))
    assert fingerprint("secret") != fingerprint("other")
