"""`headwater install-service` and `uninstall-service`: what a service of systemd consists of, written and removed.

Everything is planned as values first, so that a dry run prints exactly what would be done.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from daemon.errors import HeadwaterError
from daemon.origins import CREDENTIAL_KEYS
from daemon.secret import checked
from daemon.settings import WEBHOOK_LISTEN, WebhookSettings
from daemon.shipped import shipped

SERVICE = "headwater.service"
SOCKETS = ("headwater-webhook.socket", "headwater-admin.socket")
UNITS = (*SOCKETS, SERVICE)
START = (("daemon-reload",), ("enable", *UNITS), ("restart", SERVICE))  # the last returns once the daemon is ready
STOP = (("disable", "--now", SERVICE, *SOCKETS),)
UNIT_FOLDER = Path("/etc/systemd/system")
DROP_INS = UNIT_FOLDER / f"{SERVICE}.d"
DROP_IN = "notify-reload.conf"  # ours in there; the others are the user's
NOTIFY_RELOAD_SINCE = 253
OLDEST_SYSTEMD = 252  # the first that looks for credentials in /etc/credstore
CONFIG = Path("/etc/headwater/config.toml")
CREDENTIAL_FOLDER = Path("/etc/credstore")
STATE_FOLDERS = (Path("/var/lib/headwater"), Path("/var/lib/private/headwater"))
PROGRAM_LINE = "ExecStart=/usr/bin/env headwater "
STORAGE_LINE = '# url = "sqlite:///headwater.db"'
# Absolute, so that `headwater status` finds it without the service's environment.
STORAGE_WRITTEN = 'url = "sqlite:////var/lib/headwater/headwater.db"'
INVISIBLE = ("/root", "/home", "/run/user", "/tmp", "/var/tmp")  # noqa: S108 - what ProtectHome and PrivateTmp hide
RUNNING = Path("/run/systemd/system")  # sd_booted(3)
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9/._+@-]+")


class InstallError(HeadwaterError):
    """The service cannot be installed, or does not start; ``str()`` says what to do."""


@dataclass(frozen=True, slots=True)
class File:
    """A file to be written; ``path`` is as the service will see it."""

    path: Path
    text: str
    mode: int = 0o644
    secret: bool = False

    def under(self, root: Path) -> Path:
        return under(root, self.path)

    def shown(self) -> str:
        """What a dry run prints of it."""
        content = "(a secret, not shown)\n" if self.secret else self.text
        return f"write {self.path} (mode {self.mode:04o}):\n" + "".join(
            f"    {line}\n" for line in content.splitlines()
        )


def under(root: Path, path: Path) -> Path:
    return root / path.relative_to("/")


# -- what there is to write -----------------------------------------------------------------------


def this_program() -> str:
    """The absolute path by which this very installation is started."""
    return str(Path(sys.executable).parent / "headwater")


def unit_files(program: str, *, version: int | None) -> list[File]:
    """The units, with the path of the program, for a ``version`` of systemd; None: one that is not known."""
    if not _PLAIN_PATH.fullmatch(program):
        raise InstallError(
            f"{program!r} cannot stand in a unit; install headwater at a path of letters, digits and ._+-"
        )
    service = shipped(f"systemd/{SERVICE}").replace(PROGRAM_LINE, f"ExecStart={program} ")
    files = [File(UNIT_FOLDER / SERVICE, service)]
    files += [File(UNIT_FOLDER / name, shipped(f"systemd/{name}")) for name in SOCKETS]
    if version is not None and version >= NOTIFY_RELOAD_SINCE:
        files.append(File(DROP_INS / DROP_IN, shipped(f"systemd/{DROP_IN}")))
    return files


def config_file(repositories: Iterable[str]) -> File:
    """The example, with the store where the service has it and a table for each repository."""
    text = shipped("config.example.toml").replace(STORAGE_LINE, STORAGE_WRITTEN)
    return File(CONFIG, text + "".join(f'\n[[repositories]]\nname = "{name}"\n' for name in repositories))


def credential_path(name: str) -> Path:
    return CREDENTIAL_FOLDER / f"headwater.{name}"


def credential_files(values: Mapping[str, str]) -> list[File]:
    """A file of root's for each secret; systemd hands them to the service, and to nothing else."""
    return [File(credential_path(name), f"{value}\n", 0o600, secret=True) for name, value in values.items()]


def has_credential(name: str, root: Path) -> bool:
    return os.path.lexists(under(root, credential_path(name)))


def new_secret() -> str:
    """A webhook secret that nobody has had before."""
    return secrets.token_hex(32)


def secret_in(path: Path, name: str) -> str:
    """The secret in a file, without the line break at its end. Raises InstallError when it holds none."""
    try:
        text = path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InstallError(f"cannot read {path}: {getattr(error, 'strerror', None) or 'not UTF-8 text'}") from error
    if not text.strip():
        raise InstallError(f"{path} is empty; it should hold {name}")
    return text


def checked_secret(text: str, name: str) -> str:
    """``text``, unless such a secret cannot look like that. Raises InstallError, which does not show it."""
    if name == "github_private_key":
        return text
    try:
        return checked(text, is_token=name.endswith("token"))
    except ValueError as error:
        raise InstallError(f"{name}: {error}") from error


def hidden_from_service() -> str | None:
    """The place of this installation that the sandbox hides from the service; None when there is none."""
    places = (str(Path(path).resolve()) for path in (sys.executable, sys.prefix, sys.base_prefix))
    return next((place for place in places if place.startswith(tuple(f"{folder}/" for folder in INVISIBLE))), None)


# -- doing it -------------------------------------------------------------------------------------


def write(file: File, root: Path) -> None:
    """Write a file whole or not at all; nobody ever sees it with another mode. Raises OSError."""
    target = file.under(root)
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700 if file.secret else 0o755)
    aside = target.with_name(f".{target.name}.{os.getpid()}")
    handle = os.open(aside, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(file.text)
            out.flush()
            os.fchmod(out.fileno(), file.mode)
            os.fsync(out.fileno())
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)


def systemd_version() -> int | None:
    """The version of the systemd that runs this machine; None when none does."""
    if not RUNNING.is_dir() or shutil.which("systemctl") is None:
        return None
    told = re.match(r"systemd (\d+)", systemctl("--version"))
    return int(told[1]) if told else None


def systemctl(*arguments: str) -> str:
    """What `systemctl` prints. Raises InstallError with what it says when it fails."""
    ended = subprocess.run(["systemctl", *arguments], capture_output=True, text=True, check=False)  # noqa: S603, S607
    if ended.returncode != 0:
        raise InstallError(f"systemctl {' '.join(arguments)}: {ended.stderr.strip() or ended.returncode}")
    return ended.stdout


def start() -> str:
    """Enable and start the service, wait until it is ready, and say how it goes. Raises InstallError."""
    try:
        for arguments in START:
            systemctl(*arguments)
    except InstallError as error:
        raise InstallError(f"{error}\nthe reason is in: journalctl -u {SERVICE} -n 20") from error
    return "ready; " + systemctl("show", "--property=StatusText", "--value", SERVICE).strip()


def stop() -> None:
    """Stop and disable whatever of the service there is. Raises InstallError."""
    found = [name for name in (SERVICE, *SOCKETS) if os.path.lexists(UNIT_FOLDER / name)]
    if found:
        systemctl("disable", "--now", *found)


def removals(root: Path, *, purge: bool) -> list[Path]:
    """The files and folders under ``root`` that `uninstall-service` removes; data and secrets only with ``purge``."""
    paths = [*(UNIT_FOLDER / name for name in (SERVICE, *SOCKETS)), DROP_INS / DROP_IN]
    if purge:
        paths += [CONFIG.parent, *STATE_FOLDERS, *(credential_path(name) for name in CREDENTIAL_KEYS)]
    return [path for path in paths if os.path.lexists(under(root, path))]


def remove(path: Path, root: Path) -> None:
    """Remove a file, a link or a folder with all that is in it. Raises OSError."""
    target = under(root, path)
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    else:
        target.unlink(missing_ok=True)
    if path.parent == DROP_INS:
        with suppress(OSError):  # the user's drop-ins are in there, too
            target.parent.rmdir()


def next_steps(webhook: Mapping[str, Any]) -> str:
    """What is left to do by hand, on GitHub and in the configuration; ``webhook`` is that table of it."""
    url = webhook.get("public_url", "https://YOUR.HOST")
    if urlsplit(url).path in ("", "/"):
        url = url.rstrip("/") + webhook.get("path", WebhookSettings().path)
    return f"""\
On GitHub, under Settings, Webhooks, Add webhook of the repository or organisation:
  Payload URL   {url}   (your proxy passes it to {WEBHOOK_LISTEN.host}:{WEBHOOK_LISTEN.port})
  Content type  application/json
  Secret        what is in {credential_path("github_webhook_secret")}
  Events        Just the push event
Then name your repositories in {CONFIG} and say: systemctl reload headwater"""
