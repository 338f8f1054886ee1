"""The commands of whoever runs the machine: headwater as a service of systemd."""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from daemon.errors import HeadwaterError

HERE = Path("/")
# What is asked for on a terminal; the key of a GitHub App only comes from a file.
ASKED = {
    "github_token": "GitHub token (empty: none yet)",
    "github_webhook_secret": "Webhook secret (empty: a new one is made)",
    "admin_token": "Token for API and dashboard (empty: none)",
}

dry_run_option = click.option("--dry-run", is_flag=True, help="Print everything that would be done, and do nothing.")
root_option = click.option(
    "--root",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=HERE,
    help="Work on the file system under DIR, as for an image; systemd is not called.",
)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def _names(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    from daemon.values import parse_full_name

    try:
        return tuple(parse_full_name(value) for value in values)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command("install-service")
@click.argument("repositories", metavar="[OWNER/NAME]...", nargs=-1, callback=_names)
@click.option("--github-token-file", "github_token", type=FILE, help="Holds the token.")
@click.option("--webhook-secret-file", "github_webhook_secret", type=FILE, help="Holds the webhook secret.")
@click.option("--admin-token-file", "admin_token", type=FILE, help="Holds the token for API and dashboard.")
@click.option("--private-key-file", "github_private_key", type=FILE, help="Holds the key of the GitHub App.")
@click.option("--program", metavar="PATH", help="The headwater that the service starts; else the one that runs now.")
@root_option
@dry_run_option
def install_service(
    repositories: tuple[str, ...], *, program: str | None, root: Path, dry_run: bool, **given: Path | None
) -> None:
    """Install headwater as a service: units, configuration, secrets; start it, and wait until it is ready.

    A configuration and secrets that are there are kept. OWNER/NAME are what a new configuration tracks.
    """
    from daemon.commands import install

    problems = list(_obstacles(program, root))
    if problems and not dry_run:
        raise HeadwaterError("\n".join(problems))
    files = install.unit_files(
        program or install.this_program(), version=install.systemd_version() if root == HERE else None
    )
    files += _configuration(repositories, root)
    if dry_run:
        files += install.credential_files(dict.fromkeys(_wanted(given, root), ""))
        _rehearse(files, [*problems, *_questions(given, root)], root)
        return
    files += install.credential_files(_secrets(given, root))
    os.umask(0o022)  # the service's user must get at the configuration, whatever root's shell says
    for file in files:
        install.write(file, root)
        click.echo(f"written: {file.path}")
    if root == HERE:
        click.echo(f"headwater.service is {install.start()}")
        click.echo(install.next_steps(_webhook_table(root)))
    else:
        click.echo(f"enable it with: systemctl --root={root} enable {' '.join(install.UNITS)}")


def _obstacles(program: str | None, root: Path) -> Iterator[str]:
    """Why the service could not be installed, or would not start."""
    from daemon.commands import install

    if root == HERE:
        if os.geteuid() != 0:
            yield "only root can install a service; run it as root, or look with --dry-run"
        version = install.systemd_version()
        if version is None:
            yield "systemd does not run this machine; for an image, use --root DIR"
        elif version < install.OLDEST_SYSTEMD:
            yield f"this is systemd {version}, the unit needs {install.OLDEST_SYSTEMD} or newer"
    if program is None and (hidden := install.hidden_from_service()):
        yield (
            f"the service may not look into {hidden}; install headwater into a place of its own, such as "
            "/opt/headwater, with a Python that is there for all"
        )


def _configuration(repositories: tuple[str, ...], root: Path) -> list[Any]:
    from daemon.commands import install

    if not os.path.lexists(install.under(root, install.CONFIG)):
        return [install.config_file(repositories)]
    if repositories:
        raise click.UsageError(f"{install.CONFIG} is there and is kept: name the repositories in it")
    return []


def _wanted(given: dict[str, Path | None], root: Path) -> list[str]:
    """The secrets that surely will be written: from files, and the webhook's when there is none yet."""
    from daemon.commands import install

    made = ["github_webhook_secret"] if not install.has_credential("github_webhook_secret", root) else []
    return list(dict.fromkeys([*(name for name, path in given.items() if path), *made]))


def _questions(given: dict[str, Path | None], root: Path) -> list[str]:
    return [f"asks on a terminal: {ASKED[name]}" for name in _unanswered(given, root)]


def _unanswered(given: dict[str, Path | None], root: Path) -> list[str]:
    from daemon.commands import install

    return [name for name in ASKED if not given[name] and not install.has_credential(name, root)]


def _secrets(given: dict[str, Path | None], root: Path) -> dict[str, str]:
    """The secrets to write: from files, else as answered on a terminal without echo, else made up."""
    from daemon.commands import install

    found = {name: install.secret_in(path, name) for name, path in given.items() if path}
    if sys.stdin.isatty():
        for name in _unanswered(given, root):
            found[name] = click.prompt(ASKED[name], default="", show_default=False, hide_input=True).strip()
    if "github_webhook_secret" in _wanted(given, root) and not found.get("github_webhook_secret"):
        found["github_webhook_secret"] = install.new_secret()
    return {name: install.checked_secret(text, name) for name, text in found.items() if text}


def _rehearse(files: list[Any], notes: list[str], root: Path) -> None:
    from daemon.commands import install

    for note in notes:
        click.echo(f"note: {note}", err=True)
    for file in files:
        click.echo(file.shown())
    for arguments in install.START if root == HERE else ():
        click.echo(f"run systemctl {' '.join(arguments)}")
    click.echo("\n" + install.next_steps(_webhook_table(root)))


def _webhook_table(root: Path) -> dict[str, Any]:
    """What the configuration says under ``[webhook]``; empty when it cannot be read."""
    from daemon.commands import install

    try:
        table = tomllib.loads(install.under(root, install.CONFIG).read_text(encoding="utf-8")).get("webhook", {})
    except (OSError, ValueError):
        return {}
    return table if isinstance(table, dict) else {}


@click.command("uninstall-service")
@click.option("--purge", is_flag=True, help="Remove the configuration, the secrets and the stored data, too.")
@root_option
@dry_run_option
def uninstall_service(*, purge: bool, root: Path, dry_run: bool) -> None:
    """Stop the service and remove its units; configuration, secrets and data stay, unless told."""
    from daemon.commands import install

    paths = install.removals(root, purge=purge)
    if dry_run:
        for arguments in install.STOP if root == HERE else ():
            click.echo(f"run systemctl {' '.join(arguments)}")
        for path in paths:
            click.echo(f"remove {path}")
        return
    if root == HERE:
        if os.geteuid() != 0:
            raise HeadwaterError("only root can remove a service; run it as root, or look with --dry-run")
        install.stop()
    for path in paths:
        install.remove(path, root)
        click.echo(f"removed: {path}")
    if root == HERE:
        install.systemctl("daemon-reload")


COMMANDS = (install_service, uninstall_service)
