from __future__ import annotations

import sys
from pathlib import Path

import pytest
from app_key import AppKey
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from daemon.config import load
from daemon.errors import ConfigError

APP = "github.app_id = 7\ngithub.private_key_file = 'app.pem'\n"


def read(folder: Path, text: str = APP, environ: dict[str, str] | None = None):
    path = folder / "config.toml"
    path.write_text(text)
    return load(path, environ=environ or {}, cwd=folder)


def problem(folder: Path, text: str = APP, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        read(folder, text, environ)
    (found,) = caught.value.problems
    return str(found)


@pytest.fixture
def folder(tmp_path: Path, app_key: AppKey) -> Path:
    (tmp_path / "app.pem").write_text(app_key.private)
    (tmp_path / "app.pem").chmod(0o600)
    return tmp_path


def test_an_app_is_enough_to_ask_github(folder: Path) -> None:
    config = read(folder)
    assert config.github.configured
    assert (config.github.app_id, config.github.token()) == ("7", None)
    assert config.advice == ()


def test_the_key_may_come_from_systemd(folder: Path) -> None:
    (folder / "app.pem").rename(folder / "github_private_key")
    config = read(folder, "github.app_id = 7", {"CREDENTIALS_DIRECTORY": str(folder)})
    assert config.github.private_key_file == folder / "github_private_key"


@pytest.mark.parametrize("missing", ["jwt", "cryptography"])
def test_without_the_extra_the_problem_names_it(folder: Path, monkeypatch, missing: str) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    said = problem(folder)
    assert "github.app_id: needs the extra `app`" in said
    assert "pip install 'headwater[app]'" in said
    read(folder, "")  # and without an App nobody needs it


def test_a_token_in_the_environment_beside_an_app_is_told_as_such(folder: Path) -> None:
    said = problem(folder, environ={"GITHUB_TOKEN": "ghp_xxxxxxxxxxxx"})
    assert "github.app_id: and github.token are both set; keep one of them" in said


@pytest.mark.parametrize(
    "content",
    [b"", b"nonsense", b"\xff\xfe\x00", b"-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----"],
)
def test_a_file_that_holds_no_key_is_refused_without_being_quoted(folder: Path, content: bytes) -> None:
    (folder / "app.pem").write_bytes(content)
    said = problem(folder)
    assert "github.private_key_file: holds no RSA private key in PEM; download one" in said
    assert "AAAA" not in said


def test_a_public_key_or_one_of_another_kind_is_none(folder: Path, app_key: AppKey) -> None:
    other = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for content in (app_key.public.encode(), other):
        (folder / "app.pem").write_bytes(content)
        assert "holds no RSA private key" in problem(folder)


def test_a_key_that_wants_a_password_is_none(folder: Path) -> None:
    locked = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
    )
    (folder / "app.pem").write_bytes(locked)
    assert "holds no RSA private key" in problem(folder)


def test_a_huge_file_is_no_key(folder: Path) -> None:
    (folder / "app.pem").write_bytes(b"A" * 70_000)
    assert "is larger than any key" in problem(folder)


def test_a_key_that_everybody_may_read_is_advised_against(folder: Path) -> None:
    (folder / "app.pem").chmod(0o644)
    assert any("app.pem" in one for one in read(folder).advice)
