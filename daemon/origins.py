"""Where the configuration comes from: environment, file, systemd's credentials.

Each is read into a layer in the shape of the file, with one Secret in the place of each secret.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from daemon.errors import Problem
from daemon.redaction import redact_shapes
from daemon.secret import Secret
from daemon.settings import Setting, settings
from daemon.values import nearest

LARGEST_FILE_BYTES = 64 * 2**20
ENVIRONMENT = "environment"
CREDENTIALS = "credentials"
PREFIX = "HEADWATER_"
# HEADWATER_CONFIG is where the file is; the others are what actions give to their commands.
NOT_SETTINGS = {"HEADWATER_CONFIG", *(f"HEADWATER_{name}" for name in ("REPOSITORY", "BRANCH", "BEFORE", "AFTER"))}
# Kubernetes describes a Service called headwater to every pod in such variables:
# https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
_SERVICE_LINK = re.compile(r"HEADWATER_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_\w+)?)?)")
FLAGS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
SHORTHANDS = {"GITHUB_TOKEN": ("github", "token"), "GITHUB_WEBHOOK_SECRET": ("webhook", "secret")}
SECRETS = (("github", "token"), ("webhook", "secret"), ("admin", "token"), ("storage", "password"))
CREDENTIAL_KEYS = {
    "github_token": ("github", "token_file"),
    "github_webhook_secret": ("webhook", "secret_file"),
    "admin_token": ("admin", "token_file"),
    "storage_password": ("storage", "password_file"),
    "github_private_key": ("github", "private_key_file"),
}
LISTS = ("repositories", "actions")
TABLES = {setting.key.partition(".")[0].removesuffix("[]") for setting in settings()}


@dataclass(slots=True)
class Layer:
    """The values of one origin, in the shape of the file; ``name`` is what problems call the origin."""

    name: str
    folder: Path  # what relative paths of secret files are relative to
    values: dict[str, Any] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    usable: bool = True

    def has(self, key: str) -> bool:
        section, _, leaf = key.partition(".")
        table = self.values.get(section)
        return isinstance(table, dict) and leaf in table

    def wrong(self, key: str, message: str) -> None:
        self.problems.append(Problem(self.name, key, redact_shapes(message)))


def environment(environ: Mapping[str, str], cwd: Path) -> Layer:
    layer = Layer(ENVIRONMENT, cwd)
    known = {_variable(setting.key): setting for setting in settings() if "[" not in setting.key}
    for name, text in sorted(environ.items()):
        if not name.startswith(PREFIX) or name in NOT_SETTINGS or _SERVICE_LINK.fullmatch(name):
            continue
        if name not in known:
            layer.wrong(name, _unknown_variable(name, known))
        elif text.strip():  # an empty variable is an unset one, as everywhere in containers
            section, _, leaf = known[name].key.partition(".")
            layer.values.setdefault(section, {})[leaf] = _from_text(known[name], text)
    for name, (section, leaf) in SHORTHANDS.items():
        if name in environ and not (layer.has(f"{section}.{leaf}") or layer.has(f"{section}.{leaf}_file")):
            layer.values.setdefault(section, {})[leaf] = environ[name]
    return _with_secrets(layer)


def _variable(key: str) -> str:
    return PREFIX + key.replace(".", "__").upper()


def _unknown_variable(name: str, known: Iterable[str]) -> str:
    if name.removeprefix(PREFIX).partition("__")[0].lower() in LISTS:
        return "cannot be set in the environment; write it in the file"
    return f"names no known key; the nearest known one is {nearest(name.upper(), known)}"


def _from_text(setting: Setting, text: str) -> Any:
    """What stands for ``text`` in a file; what does not convert is left for the validation to refuse."""
    if setting.kind == "flag":
        return {
            "true": True,
            "1": True,
            "yes": True,
            "on": True,
            "false": False,
            "0": False,
            "no": False,
            "off": False,
        }.get(text.strip().lower(), text)
    if setting.kind == "number" and re.fullmatch(r"-?[0-9]{1,18}", text.strip()):
        return int(text)
    if setting.kind == "list":
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


def file(path: Path | None, cwd: Path) -> Layer:
    if path is None:
        return Layer("configuration", cwd)
    layer = Layer(str(path), (cwd / path).parent)
    try:
        layer.values = _parse(_read(cwd / path))
    except ValueError as error:
        layer.usable = False
        layer.wrong("", str(error))
        return layer
    for name in list(layer.values):
        wanted = list if name in LISTS else dict
        if name in TABLES and not isinstance(layer.values[name], wanted):
            written = f"[[{name}]]" if name in LISTS else f"[{name}]"
            layer.wrong(name, f"must be a table; write {written} on a line of its own and its keys below")
            del layer.values[name]
    return _with_secrets(layer)


def _read(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise ValueError("is a folder; name the file in it")
        with path.open("rb") as file:
            raw = file.read(LARGEST_FILE_BYTES + 1)
    except FileNotFoundError as error:
        raise ValueError("does not exist; write it after config.example.toml") from error
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror or error}") from error
    if len(raw) > LARGEST_FILE_BYTES:
        raise ValueError("is larger than any configuration; is it the right file?")
    return raw


def _parse(raw: bytes) -> dict[str, Any]:
    try:
        return tomllib.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ValueError(f"is not UTF-8 text (line {line}); save it as UTF-8") from error
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error
    except ValueError as error:  # beyond TOMLDecodeError: integers of thousands of digits
        text = str(error) if isinstance(error, tomllib.TOMLDecodeError) else "a number has too many digits"
        end = raw.rstrip().count(b"\n") + 1
        raise ValueError(f"is not valid TOML: {text.replace('end of document', f'the end, line {end}')}") from error


def credentials(environ: Mapping[str, str], cwd: Path, above: Sequence[Layer]) -> Layer:
    """What systemd's LoadCredential brought, unless it is set elsewhere."""
    layer = Layer(CREDENTIALS, cwd)
    folder = environ.get("CREDENTIALS_DIRECTORY", "")
    for name, (section, leaf) in CREDENTIAL_KEYS.items() if folder else ():
        set_elsewhere = any(
            one.has(f"{section}.{leaf.removesuffix('_file')}") or one.has(f"{section}.{leaf}") for one in above
        )
        if not set_elsewhere and os.path.lexists(Path(folder) / name):
            layer.values.setdefault(section, {})[leaf] = str(Path(folder) / name)
    return _with_secrets(layer)


def _with_secrets(layer: Layer) -> Layer:
    """Put one Secret in the place of each secret and its ``…_file`` twin, so that a layer overrides both at once."""
    for section, leaf in SECRETS:
        _put_secret(layer, layer.values.get(section, {}), f"{section}.{leaf}")
    for index, action in enumerate(layer.values.get("actions", [])):
        if isinstance(action, dict):
            _put_secret(layer, action, f"actions[{index}].secret")
    _private_key(layer)
    return layer


def _put_secret(layer: Layer, table: dict[str, Any], key: str) -> None:
    leaf = key.rpartition(".")[2]
    given = {name: table.pop(name) for name in (leaf, f"{leaf}_file") if name in table}
    if _is_blank(given.get(leaf)):
        given.pop(leaf, None)
    secret = _secret(layer, key, given)
    if secret is not None:
        table[leaf] = secret


def _is_blank(value: Any) -> bool:
    if isinstance(value, list):
        return all(_is_blank(one) for one in value)
    return value is None or (isinstance(value, str) and not value.strip())


def _secret(layer: Layer, key: str, given: Mapping[str, Any]) -> Secret | None:
    leaf = key.rpartition(".")[2]
    is_token = leaf == "token"
    if len(given) > 1:
        layer.wrong(key, f"and {key}_file are both set; keep one of them")
    elif leaf in given:
        return _secret_of_text(layer, key, given[leaf], is_token=is_token)
    elif given:
        try:
            return Secret.from_file(_path(layer, given[f"{leaf}_file"]), is_token=is_token)
        except ValueError as error:
            layer.wrong(f"{key}_file", str(error))
    return None


def _secret_of_text(layer: Layer, key: str, value: Any, *, is_token: bool) -> Secret | None:
    texts = value if isinstance(value, list) and key == "webhook.secret" else [value]
    if not all(isinstance(text, str) for text in texts):
        kinds = "a text in quotes, or a list of them" if key == "webhook.secret" else "a text in quotes"
        layer.wrong(key, f"must be {kinds}")
        return None
    try:
        return Secret.from_text(texts, is_token=is_token)
    except ValueError as error:
        layer.wrong(key, str(error))
        return None


def _path(layer: Layer, value: Any) -> Path:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ValueError("must be the path of a file, in quotes")
    return layer.folder / value


def _private_key(layer: Layer) -> None:
    if not layer.has("github.private_key_file"):
        return
    try:
        path = _path(layer, layer.values["github"]["private_key_file"])
        path.open("rb").close()
        layer.values["github"]["private_key_file"] = str(path)
    except (ValueError, OSError) as error:
        layer.wrong("github.private_key_file", f"cannot read the key: {getattr(error, 'strerror', None) or error}")
        del layer.values["github"]["private_key_file"]
