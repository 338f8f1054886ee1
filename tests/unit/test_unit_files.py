"""The units as systemd itself reads and judges them; nothing is started."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from configparser import RawConfigParser
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[2] / "systemd"
WORST_EXPOSURE = 1.5


@pytest.fixture
def analyze():
    if shutil.which("systemd-analyze") is None:
        assert not os.environ.get("CI"), "systemd-analyze is missing: README's test command installs it"
        pytest.skip("needs systemd-analyze, of Debian's package systemd")

    def analyze(*arguments):
        return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)

    return analyze


def settings(name, section):
    """The settings of a unit; of one that is given more than once the last."""
    parser = RawConfigParser(strict=False, interpolation=None)
    parser.optionxform = str
    parser.read(UNITS / name)
    return dict(parser[section])


def test_systemd_finds_nothing_to_say_about_the_units(analyze):
    ended = analyze("verify", "--man=no", *map(str, [UNITS / "headwater.service", *UNITS.glob("*.socket")]))
    assert (ended.returncode, ended.stdout + ended.stderr) == (0, "")


def test_the_service_needs_no_sockets(analyze, tmp_path):
    shutil.copy(UNITS / "headwater.service", tmp_path)
    ended = analyze("verify", "--man=no", str(tmp_path / "headwater.service"))
    assert (ended.returncode, ended.stdout + ended.stderr) == (0, "")


def test_the_service_is_exposed_to_little(analyze):
    ended = analyze("security", "--offline=true", str(UNITS / "headwater.service"))
    (exposure,) = re.findall(r"Overall exposure level for headwater\.service: ([0-9.]+)", ended.stdout)
    assert float(exposure) <= WORST_EXPOSURE, ended.stdout


@pytest.mark.parametrize("name", ["webhook", "admin"])
def test_a_socket_listens_where_the_daemon_would_and_has_the_name_it_knows(name):
    from daemon.settings import ADMIN_LISTEN, WEBHOOK_LISTEN

    unit = settings(f"headwater-{name}.socket", "Socket")
    address = {"webhook": WEBHOOK_LISTEN, "admin": ADMIN_LISTEN}[name]
    assert unit["ListenStream"] == f"{address.host}:{address.port}"
    assert (unit["FileDescriptorName"], unit["Service"]) == (name, "headwater.service")


def test_the_credentials_are_those_that_the_configuration_looks_for():
    from daemon.origins import CREDENTIAL_KEYS

    text = (UNITS / "headwater.service").read_text()
    assert re.findall(r"^LoadCredential=(\w+):headwater\.\1$", text, re.MULTILINE) == list(CREDENTIAL_KEYS)


def test_an_invalid_configuration_is_not_started_again():
    from daemon.cli import EXIT_CONFIG

    assert settings("headwater.service", "Service")["RestartPreventExitStatus"] == str(EXIT_CONFIG)


def test_the_drop_in_for_newer_systemd_replaces_the_reload():
    assert settings("notify-reload.conf", "Service") == {"Type": "notify-reload", "ExecReload": ""}
