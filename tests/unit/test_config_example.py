from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from daemon.config import Config, load, settings
from daemon.values import parse_duration

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "config.example.toml"
WRITTEN = re.compile(r"# ((?:[a-z_]+ = .+)|(?:\[\[.+\]\]))")


def uncommented(text, *, unset=True):
    """The example with every commented key in force; with unset=False without those that stand for nothing."""
    lines = [match[1] if (match := WRITTEN.fullmatch(line)) else line for line in text.splitlines()]
    return "\n".join(line for line in lines if unset or not line.endswith((' = ""', " = 0", " command = []")))


def keys(table, prefix=""):
    for name, value in table.items():
        if isinstance(value, dict):
            yield from keys(value, f"{prefix}{name}.")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            yield from keys(value[0], f"{prefix}{name}[].")
        else:
            yield prefix + name


def test_the_example_loads_as_it_is_and_changes_nothing(tmp_path):
    config = load(EXAMPLE, environ={}, cwd=tmp_path)
    default = load(None, environ={}, cwd=tmp_path)
    assert {name: getattr(config, name) for name in vars(default) if name != "source"} == {
        name: getattr(default, name) for name in vars(default) if name != "source"
    }


def test_the_example_has_every_key_of_the_table_and_no_other():
    written = list(keys(tomllib.loads(uncommented(EXAMPLE.read_text(encoding="utf-8")))))
    assert sorted(written) == sorted(setting.key for setting in settings())


def test_every_default_in_the_example_is_the_default(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(uncommented(EXAMPLE.read_text(encoding="utf-8"), unset=False), encoding="utf-8")
    config = load(path, environ={}, cwd=tmp_path)
    default = load(None, environ={}, cwd=tmp_path)
    for section in ("github", "webhook", "admin", "polling", "storage", "sync", "server", "log", "metrics"):
        assert getattr(config, section) == getattr(default, section)
    (rule,) = config.repositories
    assert (rule.branches, rule.include, rule.exclude, rule.exclude_repositories) == ((), (), (), ())


def test_every_key_stands_below_its_sentence():
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    for setting in settings():
        leaf = setting.key.rpartition(".")[2]
        below = lines[lines.index(f"# {setting.sentence}") + 1]
        assert below.startswith(f"# {leaf} = "), setting.key


# Word by word the table of the contract.
CONTRACT = {
    "github.api_url": "https://api.github.com",
    "github.token": None,
    "github.anonymous": False,
    "github.app_id": None,
    "github.private_key_file": None,
    "github.installation_id": None,
    "github.timeout": "30s",
    "webhook.listen": "127.0.0.1:8787",
    "webhook.path": "/api/v1/webhooks/github",
    "webhook.public_url": None,
    "webhook.secret": None,
    "webhook.allow_unverified": False,
    "webhook.max_body": 25 * 2**20,
    "admin.listen": "127.0.0.1:8788",
    "admin.token": None,
    "admin.allowed_hosts": ("localhost", "127.0.0.1", "[::1]"),
    "polling.enabled": True,
    "polling.interval": "60s",
    "polling.reconcile_interval": "15m",
    "polling.batch_size": 100,
    "storage.url": "sqlite:///headwater.db",
    "storage.delivery_retention": "30d",
    "storage.change_retention": "30d",
    "sync.workers": 4,
    "sync.max_attempts": 8,
    "sync.max_file_size": 5_000_000,
    "sync.commit_history": 100,
    "server.shutdown_timeout": "30s",
    "log.level": "info",
    "log.format": "auto",
}


@pytest.mark.parametrize(("key", "default"), CONTRACT.items())
def test_the_default_is_the_contracts(key, default):
    (setting,) = [setting for setting in settings() if setting.key == key]
    if isinstance(setting.default, float):
        assert setting.default == parse_duration(default)
    elif key.endswith(".listen"):
        assert str(setting.default) == default
    else:
        assert setting.default == default


def test_every_setting_has_one_sentence_and_every_secret_is_marked():
    for setting in settings():
        assert setting.sentence.endswith("."), setting.key
    assert {setting.key for setting in settings() if setting.secret} == {
        "github.token",
        "webhook.secret",
        "admin.token",
        "storage.password",
        "actions[].secret",
    }


def test_a_configuration_made_in_a_test_needs_no_arguments():
    assert Config().storage.sqlite_path == Path("headwater.db")
