"""`install-service` and `uninstall-service` on a file system of their own; systemd is never called."""

from __future__ import annotations

import os
import pty
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from daemon.config import load

ROOT = Path(__file__).parents[2]
PROGRAM = "/opt/headwater/bin/headwater"
UNITS = Path("etc/systemd/system")
SECRETS = Path("etc/credstore")
TOKEN = "ghp_planted0000000000000000000000000000"


def headwater(*arguments, package=ROOT, **options):
    return subprocess.run(
        [sys.executable, "-m", "daemon", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(package)},
        timeout=60,
        **options,
    )


@pytest.fixture
def image(tmp_path):
    image = tmp_path / "image"
    image.mkdir()
    return image


def install(image, *arguments, **options):
    ended = headwater("install-service", "--root", image, "--program", PROGRAM, *arguments, **options)
    assert ended.returncode == 0, ended.stderr
    return ended


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_units_configuration_and_secrets_are_written(image, tmp_path):
    token = tmp_path / "token"
    token.write_text(f"{TOKEN}\n")
    ended = install(image, "octo/data", "--github-token-file", token, umask=0o077)
    assert files(image) == {
        "etc/systemd/system/headwater.service",
        "etc/systemd/system/headwater-webhook.socket",
        "etc/systemd/system/headwater-admin.socket",
        "etc/headwater/config.toml",
        "etc/credstore/headwater.github_token",
        "etc/credstore/headwater.github_webhook_secret",
    }
    assert (image / SECRETS / "headwater.github_token").read_text() == f"{TOKEN}\n"
    made = (image / SECRETS / "headwater.github_webhook_secret").read_text().strip()
    assert len(made) == 64
    assert not {TOKEN, made} & set((ended.stdout + ended.stderr).split())
    assert {mode(path) for path in (image / SECRETS).iterdir()} == {0o600}
    assert mode(image / SECRETS) == 0o700
    # The service's user reads it, and it holds no secret.
    assert (mode(image / "etc/headwater"), mode(image / "etc/headwater/config.toml")) == (0o755, 0o644)
    assert "systemctl --root=" in ended.stdout


def test_the_unit_starts_this_program_and_systemd_has_nothing_to_say(image):
    program = image / "headwater"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    install(image, "--program", program)
    unit = image / UNITS / "headwater.service"
    assert f"\nExecStart={program} --config /etc/headwater/config.toml run\n" in unit.read_text()
    if shutil.which("systemd-analyze"):
        command = ["systemd-analyze", "verify", "--man=no", str(unit)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (ended.returncode, ended.stdout + ended.stderr) == (0, "")


def test_the_configuration_is_the_example_with_the_repositories_and_the_store_of_the_service(image, tmp_path):
    install(image, "octo/data", "octo/more")
    config = load(image / "etc/headwater/config.toml", environ={}, cwd=tmp_path)
    assert [rule.full_name for rule in config.repositories] == ["octo/data", "octo/more"]
    assert str(config.storage.sqlite_path) == "/var/lib/headwater/headwater.db"


def test_what_is_there_is_kept_and_the_units_are_renewed(image):
    install(image)
    config, secret = image / "etc/headwater/config.toml", image / SECRETS / "headwater.github_webhook_secret"
    config.write_text("# mine\n")
    before = secret.read_text()
    (image / UNITS / "headwater.service").write_text("old")
    install(image)
    assert (config.read_text(), secret.read_text()) == ("# mine\n", before)
    assert "ExecStart=" in (image / UNITS / "headwater.service").read_text()
    ended = headwater("install-service", "--root", image, "--program", PROGRAM, "octo/data")
    assert ended.returncode == 2
    assert "name the repositories in it" in ended.stderr


def test_a_secret_from_a_file_replaces_the_one_there(image, tmp_path):
    install(image)
    given = tmp_path / "given"
    given.write_text("another secret\n")
    install(image, "--webhook-secret-file", given)
    assert (image / SECRETS / "headwater.github_webhook_secret").read_text() == "another secret\n"


@pytest.mark.parametrize(("content", "said"), [(b"", "empty"), (b"a b", "space"), (b"\xff", "UTF-8")])
def test_a_file_that_holds_no_token_is_refused_before_anything_is_written(image, tmp_path, content, said):
    token = tmp_path / "token"
    token.write_bytes(content)
    ended = headwater("install-service", "--root", image, "--program", PROGRAM, "--github-token-file", token)
    assert ended.returncode == 1
    assert said in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1
    assert files(image) == set()


def test_a_dry_run_prints_all_of_it_but_secrets_and_writes_nothing(image, tmp_path):
    token = tmp_path / "token"
    token.write_text(TOKEN)
    arguments = ("--root", image, "--program", PROGRAM, "--github-token-file", token, "octo/data")
    ended = headwater("install-service", "--dry-run", *arguments)
    assert ended.returncode == 0
    for part in ("[Service]", "DynamicUser=yes", "[Socket]", "FileDescriptorName=admin", 'name = "octo/data"'):
        assert part in ended.stdout
    for path in ("headwater.service", "config.toml", "headwater.github_token", "headwater.github_webhook_secret"):
        assert path in ended.stdout
    assert "api/v1/webhooks/github" in ended.stdout
    assert TOKEN not in ended.stdout + ended.stderr
    assert files(image) == set()


def test_a_dry_run_for_this_machine_tells_what_systemd_would_be_asked(tmp_path):
    ended = headwater("install-service", "--dry-run", "--program", PROGRAM)
    assert ended.returncode == 0
    for call in ("daemon-reload", "enable headwater-webhook.socket", "restart headwater.service"):
        assert f"systemctl {call}" in ended.stdout


def test_secrets_are_asked_for_without_echo(image):
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "daemon", "install-service", "--root", str(image), "--program", PROGRAM]
    process = subprocess.Popen(
        command, stdin=follower, stdout=follower, stderr=follower, cwd=ROOT, start_new_session=True
    )
    os.close(follower)
    shown = b""
    for prompt, answer in ((b"GitHub token", TOKEN), (b"Webhook secret", "typed secret"), (b"dashboard", "")):
        while not shown.rstrip().endswith(b":") or prompt not in shown:
            shown += os.read(leader, 4096)
        os.write(leader, f"{answer}\n".encode())
        shown += os.read(leader, 1)
    try:
        while piece := os.read(leader, 4096):
            shown += piece
    except OSError:  # the other side is closed: that is how a terminal ends
        pass
    assert process.wait(30) == 0, shown
    os.close(leader)
    assert (image / SECRETS / "headwater.github_token").read_text() == f"{TOKEN}\n"
    assert (image / SECRETS / "headwater.github_webhook_secret").read_text() == "typed secret\n"
    assert not (image / SECRETS / "headwater.admin_token").exists()
    assert TOKEN.encode() not in shown
    assert b"typed secret" not in shown


def test_a_program_that_cannot_stand_in_a_unit_is_refused(image):
    ended = headwater("install-service", "--root", image, "--program", "/opt/a b/headwater")
    assert ended.returncode == 1
    assert "/opt/a b/headwater" in ended.stderr
    assert files(image) == set()


@pytest.mark.parametrize("name", ["octo", "https://github.com/octo/data"])
def test_a_name_that_is_no_repository_is_wrong_usage(image, name):
    assert headwater("install-service", "--root", image, "--program", PROGRAM, name).returncode == 2


@pytest.mark.parametrize("command", ["install-service", "uninstall-service"])
def test_nobody_but_root_changes_this_machine(tmp_path, command):
    if os.geteuid() != 0:
        ended = headwater(command)
    else:
        # As nobody, who may not read the checkout: the interpreter has loaded it by then.
        code = f"import os, sys, daemon.cli, daemon.commands.install; os.setuid(65534); sys.argv = ['headwater', '{command}']; daemon.cli.main()"
        ended = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT, timeout=60
        )
    assert ended.returncode == 1
    assert "only root" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_uninstalling_keeps_data_and_secrets_unless_told(image, tmp_path):
    install(image)
    data = image / "var/lib/private/headwater/headwater.db"
    data.parent.mkdir(parents=True)
    data.write_text("data")
    (image / "var/lib/headwater").symlink_to("private/headwater")
    mine = image / UNITS / "headwater.service.d/mine.conf"
    mine.parent.mkdir()
    mine.write_text("[Service]\n")
    kept = files(image) - {f"{UNITS}/{path.name}" for path in (image / UNITS).iterdir()}
    dry = headwater("uninstall-service", "--dry-run", "--root", image)
    assert "/etc/systemd/system/headwater.service" in dry.stdout
    assert "/etc/headwater" not in dry.stdout
    assert headwater("uninstall-service", "--root", image).returncode == 0
    assert files(image) == kept
    assert mine.exists()
    assert headwater("uninstall-service", "--purge", "--root", image).returncode == 0
    assert files(image) == {str(mine.relative_to(image))}
    assert headwater("uninstall-service", "--root", image).returncode == 0


def test_a_wheel_brings_the_files_with_it(image, tmp_path):
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    unpacked = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(unpacked)
    install(image, "octo/data", package=unpacked, cwd=tmp_path)
    for name in ("headwater.service", "headwater-webhook.socket", "headwater-admin.socket", "notify-reload.conf"):
        assert (unpacked / "daemon/share/systemd" / name).read_bytes() == (ROOT / "systemd" / name).read_bytes()
    assert (unpacked / "daemon/share/config.example.toml").read_bytes() == (ROOT / "config.example.toml").read_bytes()
