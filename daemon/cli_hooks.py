"""The arguments of `headwater hooks`; what they do is in `daemon.commands.hooks` and `.pinging`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from daemon.command_line import EXIT_FAILED, NO_REPOSITORY, Context, as_json, print_json

if TYPE_CHECKING:
    from daemon.commands.hooks import Row
    from daemon.config import Config


def _shared(command: Callable[..., Any]) -> Callable[..., Any]:
    """The arguments that all of them have."""
    for add in (
        click.pass_obj,
        as_json,
        click.option("--org", is_flag=True, help="The webhooks of the owners, as organisations, instead."),
        click.option("--url", metavar="URL", help="Where GitHub reaches headwater; else webhook.public_url."),
        click.argument("names", metavar="[OWNER/NAME]...", nargs=-1),
    ):
        command = add(command)
    return command


@click.group()
def hooks() -> None:
    """Manage the repositories' webhooks on GitHub."""


@hooks.command("list")
@_shared
def list_hooks(context: Context, names: tuple[str, ...], *, url: str | None, org: bool, as_json: bool) -> None:
    """Show every webhook, and where none leads here."""
    from daemon.commands import hooks as commands

    config, chosen, where = _prepared(context, names, url, org=org)
    with commands.opened(config, chosen, where) as desk:
        _tell(commands.show(desk), where, as_json=as_json)


@hooks.command()
@click.option("--rotate-secret", is_flag=True, help="Send the secret again: GitHub does not tell which one it has.")
@_shared
def install(
    context: Context, names: tuple[str, ...], *, url: str | None, org: bool, as_json: bool, rotate_secret: bool
) -> None:
    """Make the webhook where it is missing, and correct it where it is wrong; else change nothing."""
    from daemon.commands import hooks as commands

    config, chosen, where = _prepared(context, names, url, org=org)
    if doubt := commands.doubts(where):
        click.echo(f"warning: {doubt}", err=True)
    with commands.opened(config, chosen, where) as desk:
        rows = commands.install(desk, config.webhook.secret.first(), rotate=rotate_secret)
    _look_anew(config, rows)
    _tell(rows, where, as_json=as_json)


@hooks.command()
@click.option("--timeout", metavar="SECONDS", default=30.0, type=click.FloatRange(min=0.1), show_default=True)
@_shared
def test(
    context: Context, names: tuple[str, ...], *, url: str | None, org: bool, as_json: bool, timeout: float
) -> None:
    """Have GitHub send a ping, and wait until the running daemon has it."""
    from daemon.commands import hooks as commands
    from daemon.commands.pinging import PingTest

    config, chosen, where = _prepared(context, names, url, org=org)
    with commands.opened(config, chosen, where) as desk:
        _tell(PingTest(desk, config, timeout_seconds=timeout).run(), where, as_json=as_json)


@hooks.command()
@click.option("--dry-run", is_flag=True, help="Only show what would be sent again.")
@_shared
def redeliver(
    context: Context, names: tuple[str, ...], *, url: str | None, org: bool, as_json: bool, dry_run: bool
) -> None:
    """Have GitHub send again what failed in the last three days."""
    from daemon.commands import hooks as commands

    config, chosen, where = _prepared(context, names, url, org=org)
    with commands.opened(config, chosen, where) as desk:
        _tell(commands.redeliver(desk, dry_run=dry_run), where, as_json=as_json)


@hooks.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@_shared
def remove(context: Context, names: tuple[str, ...], *, url: str | None, org: bool, as_json: bool, yes: bool) -> None:
    """Remove the webhooks that lead here, and no others; on a terminal once that is confirmed."""
    from daemon.commands import hooks as commands

    config, chosen, where = _prepared(context, names, url, org=org)
    with commands.opened(config, chosen, where) as desk:
        found, rows = commands.removable(desk)
        if found and not yes and _on_terminal():
            places = ", ".join(one.place.name for one in found)
            click.confirm(f"Remove the webhook that leads to {where} from {places}?", abort=True, err=True)
        removed = commands.remove(desk, found)
    _look_anew(config, removed)
    _tell(rows + removed, where, as_json=as_json)


def _on_terminal() -> bool:
    """Whether there is somebody who can be asked."""
    return sys.stdin is not None and sys.stdin.isatty()


def _prepared(
    context: Context, names: Sequence[str], url: str | None, *, org: bool
) -> tuple[Config, tuple[str, ...], str]:
    """The configuration, the places that are meant, and the URL of our hooks; UsageError when one is not told."""
    from daemon.commands.hooks import selected
    from daemon.values import parse_public_url

    config = context.load()
    try:
        where = config.webhook.delivery_url(parse_public_url(url) if url else None)
    except ValueError as error:
        raise click.UsageError(f"--url {error}") from None
    if where is None:
        raise click.UsageError("where does GitHub reach headwater? Set webhook.public_url, or give --url")
    try:
        chosen = selected(config, names, org=org)
    except LookupError as error:
        known = ", ".join(rule.full_name for rule in config.repositories) or "no repository"
        raise click.UsageError(f"{error.args[0]} is not configured; the configuration has {known}") from None
    return config, chosen, where


def _look_anew(config: Config, rows: Sequence[Row]) -> None:
    from daemon.commands import hooks as commands
    from daemon.errors import HeadwaterError

    try:
        commands.look_anew(config, rows)
    except HeadwaterError as error:
        click.echo(f"warning: `headwater status` may tell the old state for an hour: {error}", err=True)


def _tell(rows: Sequence[Row], url: str, *, as_json: bool) -> None:
    """Print what came of it; a failed row is exit 1."""
    if as_json:
        print_json({"url": url, "hooks": [row.as_json() for row in rows]})
    else:
        for row in rows:
            click.echo(row.line())
        if not rows:
            click.echo(NO_REPOSITORY, err=True)
    if any(row.failed for row in rows):
        sys.exit(EXIT_FAILED)
