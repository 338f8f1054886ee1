from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from daemon.config import load
from daemon.errors import ConfigError
from daemon.secret import Secret

CANARY = "hunter2-canary"


@pytest.fixture
def read(tmp_path):
    def read(text="", **environ):
        (tmp_path / "config.toml").write_text(text, encoding="utf-8")
        return load(tmp_path / "config.toml", environ=environ, cwd=tmp_path / "elsewhere")

    return read


def failing(read, *arguments, **environ):
    with pytest.raises(ConfigError) as caught:
        read(*arguments, **environ)
    assert CANARY not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def put(tmp_path):
    def put(name, content, mode=0o600):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        path.chmod(mode)
        return path

    return put


# -- where they come from -------------------------------------------------------------------------


def test_the_specific_variable_wins_over_the_general_one_and_both_over_the_file(read):
    text = "github.token = 'file'\nwebhook.secret = 'file'"
    assert read(text).github.token() == "file"
    config = read(text, GITHUB_TOKEN="general", GITHUB_WEBHOOK_SECRET="general")
    assert (config.github.token(), config.webhook.secrets()) == ("general", (b"general",))
    config = read(
        text,
        GITHUB_TOKEN="general",
        HEADWATER_GITHUB__TOKEN="specific",
        GITHUB_WEBHOOK_SECRET="general",
        HEADWATER_WEBHOOK__SECRET="specific",
    )
    assert (config.github.token(), config.webhook.secrets()) == ("specific", (b"specific",))


def test_an_empty_variable_does_not_unset_what_the_file_sets(read):
    config = read("github.token = 'file'\nwebhook.secret = 'file'", GITHUB_TOKEN="", GITHUB_WEBHOOK_SECRET="  ")
    assert (config.github.token(), config.webhook.secrets()) == ("file", (b"file",))


@pytest.mark.parametrize(
    ("key", "get"),
    [
        ("github.token", lambda config: config.github.token()),
        ("webhook.secret", lambda config: config.webhook.secrets()[0].decode()),
        ("admin.token", lambda config: config.admin.token()),
    ],
)
def test_every_secret_has_a_file_relative_to_the_configuration_without_its_last_line_end(read, put, key, get):
    put("s", "from-file\r\n")
    assert get(read(f"{key}_file = 's'")) == "from-file"


def test_the_secret_of_an_action_may_be_in_a_file_too(read, put, tmp_path):
    path = put("s", f"{CANARY}-1\n", mode=0o644)
    config = read("[[actions]]\nurl = 'https://x'\nsecret_file = 's'")
    assert config.actions[0].secret.first() == f"{CANARY}-1"
    assert str(tmp_path / "s") in config.advice[0]
    path.write_text(f"{CANARY}-2")
    assert config.actions[0].secret.first() == f"{CANARY}-2"
    assert f"{CANARY}-2" in config.secret_values()
    both = f"[[actions]]\nurl = 'https://x'\nsecret = '{CANARY}'\nsecret_file = 's'"
    assert "actions[0].secret: and actions[0].secret_file are both set" in failing(read, both)
    assert "actions[0].secret_file: cannot read" in failing(read, "[[actions]]\nurl = 'https://x'\nsecret_file = 'no'")
    assert "is for url only" in failing(read, "[[actions]]\ncommand = ['x']\nsecret_file = 's'")


def test_a_file_named_in_the_environment_overrides_the_secret_of_the_file_and_the_general_variable(read, put):
    path = put("s", "from-file\n")
    config = read("github.token = 'inline'", HEADWATER_GITHUB__TOKEN_FILE=str(path), GITHUB_TOKEN="general")
    assert config.github.token() == "from-file"


def test_a_secret_in_the_environment_overrides_the_named_file(read, put):
    put("s", "from-file")
    assert read("github.token_file = 's'", GITHUB_TOKEN="general").github.token() == "general"


@pytest.mark.parametrize("wrong", ["token_file = 'absent'", "token = 5", "token = 'a'\ntoken_file = 'absent'"])
def test_a_secret_that_the_environment_overrides_may_be_wrong_in_the_file(read, wrong):
    assert read(f"[github]\n{wrong}", GITHUB_TOKEN="general").github.token() == "general"
    assert "config.toml: github.token" in failing(read, f"[github]\n{wrong}", GITHUB_TOKEN="")
    broken = failing(read, f"[github]\n{wrong}", HEADWATER_GITHUB__TOKEN_FILE="/absent")
    assert "environment: github.token_file: cannot read" in broken


def test_credentials_are_used_when_nothing_else_is_set(read, put, tmp_path):
    for name in ("github_token", "github_webhook_secret", "admin_token", "github_private_key"):
        put(f"credentials/{name}", f"{name}-value\n")
    directory = str(tmp_path / "credentials")
    config = read("webhook.secret = 'file'", CREDENTIALS_DIRECTORY=directory, GITHUB_TOKEN="general")
    assert (config.github.token(), config.webhook.secrets()) == ("general", (b"file",))
    assert config.admin.token() == "admin_token-value"
    assert config.github.private_key_file == tmp_path / "credentials" / "github_private_key"
    config = read("webhook.secret = ''", CREDENTIALS_DIRECTORY=directory)
    assert (config.github.token(), config.webhook.secrets()) == (
        "github_token-value",
        (b"github_webhook_secret-value",),
    )


def test_a_broken_credential_that_is_not_needed_is_no_problem(read, put, tmp_path):
    put("credentials/github_token", b"\xff")
    assert read(CREDENTIALS_DIRECTORY=str(tmp_path / "credentials"), GITHUB_TOKEN="x").github.token() == "x"
    assert "credentials: github.token_file: " in failing(read, CREDENTIALS_DIRECTORY=str(tmp_path / "credentials"))


@pytest.mark.parametrize("key", ["github.token", "webhook.secret", "admin.token"])
def test_a_secret_and_its_file_are_not_both_set(read, put, key):
    put("s", "x")
    assert f"{key}: and {key}_file are both set" in failing(read, f"{key} = '{CANARY}'\n{key}_file = 's'")


def test_an_empty_secret_beside_its_file_is_unset(read, put):
    put("s", "x")
    assert read("github.token = ''\ngithub.token_file = 's'").github.token() == "x"


# -- what they may be -----------------------------------------------------------------------------


@pytest.mark.parametrize("blank", ["''", "'  '", "[]", "['', ' ']"])
def test_an_empty_secret_is_no_secret(read, blank):
    assert read(f"webhook.secret = {blank}").webhook.secrets() == ()


def test_an_empty_secret_in_a_list_never_verifies_anything(read):
    assert read("webhook.secret = ['', 'x', ' ']").webhook.secrets() == (b"x",)


@pytest.mark.parametrize("inner", ["\\n", "\\r", "\\u0000", "\\t", "\\u007f", "\\u0085"])
def test_a_secret_with_a_control_character_inside_is_refused_and_not_shown(read, inner):
    for key in ("github.token", "webhook.secret", "admin.token"):
        assert f"{key}: the secret has a line break" in failing(read, f'{key} = "{CANARY}{inner}x"')


def test_a_token_that_no_header_could_carry_is_refused(read):
    assert "github.token: the token has" in failing(read, f'github.token = "{CANARY} x"')
    assert "admin.token: the token has" in failing(read, f'admin.token = "{CANARY}é"')
    assert read('webhook.secret = "ünï cödé"').webhook.secrets() == ("ünï cödé".encode(),)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"{CANARY}\nsecond", "line break"),
        (b"\xff\xfe" + CANARY.encode(), "not UTF-8"),
        (b"x" * 70_000, "larger than any secret"),
    ],
)
def test_a_file_that_holds_no_secret_is_refused_and_not_shown(read, put, content, message):
    put("s", content)
    assert message in failing(read, "webhook.secret_file = 's'")


def test_a_missing_secret_file_is_a_problem_at_load(read, tmp_path):
    text = failing(read, "github.token_file = 'gone'\ngithub.private_key_file = 'gone too'")
    assert f"github.token_file: cannot read {tmp_path / 'gone'}: No such file" in text
    assert "github.private_key_file: cannot read the key: No such file" in text


@pytest.mark.parametrize("value", ["3", "''", "['x']", "'a\\u0000b'"])
def test_what_is_no_path_is_a_problem(read, value):
    text = failing(read, f"github.token_file = {value}".replace("'a\\u0000b'", '"a\\u0000b"'))
    assert "github.token_file: must be the path of a file" in text


# -- how long they hold ---------------------------------------------------------------------------


def test_a_file_is_read_again_at_every_use(read, put):
    path = put("s", "one\n")
    config = read("webhook.secret_file = 's'\ngithub.token_file = 's'")
    path.write_text("two\n")
    assert (config.webhook.secrets(), config.github.token()) == ((b"two",), "two")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_text(""),
        lambda path: path.write_text("\n"),
        lambda path: path.write_text("a\nb"),
        lambda path: path.write_bytes(b"\xff"),
        lambda path: path.unlink(),
        lambda path: (path.unlink(), path.mkdir()),
    ],
)
def test_a_file_that_is_spoilt_while_running_does_not_open_the_door(read, put, spoil):
    path = put("s", "one")
    config = read("webhook.secret_file = 's'")
    spoil(path)
    assert config.webhook.secrets() == (b"one",)


def test_an_empty_file_is_no_secret_until_it_is_filled(read, put):
    path = put("s", "")
    config = read("webhook.secret_file = 's'")
    assert config.webhook.secrets() == ()
    assert [f"{path} is empty" in one for one in config.advice] == [True]
    path.write_text("filled")
    assert config.webhook.secrets() == (b"filled",)
    assert read("webhook.secret_file = 's'").advice == ()


def test_an_empty_file_for_what_signs_an_action_is_said(read, put):
    path = put("s", "\n")
    config = read("[[actions]]\nurl = 'https://x'\nsecret_file = 's'")
    assert [f"{path} is empty" in one for one in config.advice] == [True]


def test_a_named_pipe_is_not_waited_for_a_second_time(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_text("piped\n"))
    writer.start()
    secret = Secret.from_file(tmp_path / "pipe", is_token=True)
    writer.join()
    found = []
    reader = threading.Thread(target=lambda: found.append(secret.values()), daemon=True)
    reader.start()
    reader.join(30)
    assert found == [("piped",)]


def test_a_pipe_is_read_once():
    reader, writer = os.pipe()
    os.write(writer, b"piped\n")
    os.close(writer)
    secret = Secret.from_file(Path(f"/dev/fd/{reader}"), is_token=True)
    assert (secret.values(), secret.values()) == (("piped",), ("piped",))
    os.close(reader)


# -- where they must not be -----------------------------------------------------------------------


def test_no_secret_is_in_the_text_of_the_configuration(read, put):
    put("s", f"{CANARY}-file")
    config = read(
        f"github.token = '{CANARY}-token'\nadmin.token_file = 's'\nwebhook.secret = ['{CANARY}-1', '{CANARY}-2']\n"
        f"[[actions]]\nurl = 'https://x'\nsecret = '{CANARY}-action'"
    )
    assert "Secret(" not in repr(config)
    assert CANARY not in repr(config) + str(config) + repr(config.github.secret) + repr(config.admin.secret)
    assert sorted(config.secret_values()) == sorted(
        f"{CANARY}-{name}" for name in ("token", "file", "1", "2", "action")
    )


@pytest.mark.parametrize(
    "url", ["postgresql://u:{}%2Fx@h/db", "postgresql://u@h/db?password={}/x", "postgresql://u@h/db?sslpassword={}%2fx"]
)
def test_the_password_in_the_url_of_a_database_is_a_secret(read, url):
    config = read(f"storage.url = '{url.format(CANARY)}'")
    assert CANARY not in repr(config) + str(config)
    assert f"{CANARY}/x" in config.secret_values()
    assert f"{CANARY}%2Fx" in config.secret_values()


def test_the_password_of_a_database_is_read_again_at_every_use(read, put, tmp_path):
    path = put("pw", f"{CANARY}-1")
    config = read("storage.url = 'postgresql://u@h/db'\nstorage.password_file = 'pw'")
    assert config.storage.password() == f"{CANARY}-1"
    path.write_text(f"{CANARY}-2")
    assert config.storage.password() == f"{CANARY}-2"
    put("storage_password", "from systemd")
    config = read("storage.url = 'postgresql://u@h/db'", CREDENTIALS_DIRECTORY=str(tmp_path))
    assert config.storage.password() == "from systemd"


def test_a_replaced_secret_is_still_redacted(read, put):
    path = put("s", "one")
    config = read("github.token_file = 's'")
    path.write_text("two")
    config.github.token()
    assert set(config.secret_values()) == {"one", "two"}


def test_every_file_with_a_secret_that_others_may_read_is_named(read, put, tmp_path):
    put("s", "x", mode=0o644)
    config = read("admin.token_file = 's'\ngithub.token = 'x'")
    (tmp_path / "config.toml").chmod(0o644)
    config = read("admin.token_file = 's'\ngithub.token = 'x'")
    assert [str(tmp_path / "s") in config.advice[0], str(tmp_path / "config.toml") in config.advice[1]] == [True, True]
    (tmp_path / "config.toml").chmod(0o600)
    (tmp_path / "s").chmod(0o640)
    assert read("admin.token_file = 's'\ngithub.token = 'x'").advice == ()
    (tmp_path / "config.toml").chmod(0o644)
    assert read("sync.workers = 3", GITHUB_TOKEN="x").advice == ()
