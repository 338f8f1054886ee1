"""Arguments in, exit code out. Heavy imports happen inside the commands, so that `--help` is quick.

Exit codes: 0 done; 1 something failed; 2 wrong usage; 78 the configuration is invalid or missing.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from daemon.cli_hooks import hooks
from daemon.command_line import EXIT_CONFIG, EXIT_FAILED, EXIT_USAGE, NO_REPOSITORY, Context, as_json
from daemon.command_line import print_json as _print_json
from daemon.commands import operation, storage
from daemon.errors import ConfigError, HeadwaterError
from daemon.version import __version__

if TYPE_CHECKING:
    from daemon.commands.findings import Finding
    from daemon.config import Config


STDOUT = 1
STDERR = 2

repository_names = click.argument("names", metavar="[OWNER/NAME]...", nargs=-1)

branch_option = click.option("--branch", metavar="BRANCH", help="A tracked branch; else the default one.")


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-c", "--config", "config", metavar="FILE", help="Configuration file (TOML).")
@click.version_option(__version__, prog_name="headwater")
@click.pass_context
def cli(ctx: click.Context, config: str | None) -> None:
    """Keep a proven, queryable copy of GitHub repositories on this server.

    The configuration is FILE, else $HEADWATER_CONFIG, else ./config.toml, else /etc/headwater/config.toml.
    """
    ctx.obj = Context(config)
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(EXIT_USAGE)


@cli.command()
@click.pass_obj
def run(context: Context) -> None:
    """Run the daemon in the foreground, logging to stderr (or journald)."""
    # What is imported takes a moment, in which a signal must not be the end that it is for other programs.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_arguments: sys.exit(0))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the configuration is about to be read

    import asyncio

    from daemon import logs
    from daemon.service import Service

    config = context.load()
    service = Service(config, load=context.load, environ=dict(os.environ))
    logs.configure(config.log.level, config.log.format, secrets=service.secret_values, stream=sys.stderr)
    logs.log_uncaught()
    try:
        asyncio.run(service.run())
    except ConfigError:
        raise
    except (HeadwaterError, OSError) as error:  # a line like the others, for whatever reads the log
        logs.get_logger().critical("daemon.failed", error=_reason(error))
        sys.exit(EXIT_FAILED)


@cli.command()
@repository_names
@as_json
@click.pass_obj
def sync(context: Context, names: tuple[str, ...], as_json: bool) -> None:
    """Sync now and exit; beside a running daemon, ask it and wait for the outcome."""
    from daemon.commands.sync import sync_now

    config = context.load()
    results = sync_now(config, _selected(config, names))
    if as_json:
        _print_json({"runs": [result.as_json() for result in results]})
    else:
        for result in results:
            click.echo(result.line())
    if not results:
        why = "GitHub has no branch that the configuration asks for"
        if not config.repositories:
            why = NO_REPOSITORY
        click.echo(f"nothing to sync: {why}", err=True)
    if any(result.failed for result in results):
        sys.exit(EXIT_FAILED)


@cli.command()
@click.option("--online", is_flag=True, help="Also ask GitHub about the token, each repository and its webhook.")
@as_json
@click.pass_obj
def check(context: Context, online: bool, as_json: bool) -> None:
    """Validate the configuration."""
    from daemon.clock import Clock
    from daemon.commands.check import check_config
    from daemon.commands.online import asking_client, check_online

    config = context.load()
    findings = check_config(config)
    if online:
        clock = Clock()
        with asking_client(config, clock) as client:
            findings += check_online(config, client, clock)
    _tell_findings(findings, as_json=as_json)


@cli.command()
@click.option("--offline", is_flag=True, help="Leave GitHub out of it.")
@as_json
@click.pass_obj
def doctor(context: Context, offline: bool, as_json: bool) -> None:
    """Report versions, configuration, GitHub, clock, store and disk, without secrets: for a bug report."""
    from daemon.commands.doctor import examine

    _tell_findings(examine(context.load(), online=not offline), as_json=as_json)


@cli.command()
@click.option("--watch", is_flag=True, help="Show it again every two seconds, until Ctrl-C.")
@as_json
@click.pass_obj
def status(context: Context, watch: bool, as_json: bool) -> None:
    """Show every branch: head, synced commit, how far behind, webhook health, next poll, last error."""
    from daemon.clock import utc_now
    from daemon.commands.status import branch_rows, print_table, watch_table

    config = context.load()
    if watch:
        if as_json or not sys.stdout.isatty():
            raise click.UsageError("--watch is for a terminal; a program asks again, or follows /api/v1/events")
        watch_table(config)
        return
    rows = branch_rows(config)
    if as_json:
        _print_json({"branches": rows})
    else:
        print_table(rows, now=utc_now())


@cli.command()
@repository_names
@click.option("--repair", is_flag=True, help="Sync again whatever has drifted.")
@as_json
@click.pass_obj
def verify(context: Context, names: tuple[str, ...], repair: bool, as_json: bool) -> None:
    """Recompute git object ids from the stored content and compare them with GitHub's tree."""
    from daemon.commands.verify import verify_stored

    config = context.load()
    reports = verify_stored(config, _selected(config, names), repair=repair)
    if as_json:
        _print_json({"branches": [report.as_json() for report in reports]})
    else:
        for report in reports:
            click.echo(report.text())
    if not reports:
        click.echo("nothing to verify: no repository is tracked", err=True)
    if not all(report.ok for report in reports):
        sys.exit(EXIT_FAILED)


@cli.command()
@click.argument("name", metavar="OWNER/NAME")
@click.argument("prefix", default="")
@branch_option
@as_json
@click.pass_obj
def ls(context: Context, name: str, prefix: str, branch: str | None, as_json: bool) -> None:
    """List the stored entries whose paths begin with PREFIX: mode, git object id, size, path."""
    from daemon.commands import reading

    config = context.load()
    with reading.reading_branch(config, _selected(config, (name,))[0], branch) as reader:
        shown = reading.files(reader, os.fsencode(prefix), as_json=as_json)
    reading.show(shown)


@cli.command()
@click.argument("name", metavar="OWNER/NAME")
@click.argument("path")
@branch_option
@as_json
@click.pass_obj
def cat(context: Context, name: str, path: str, branch: str | None, as_json: bool) -> None:
    """Write the stored bytes of PATH to standard output."""
    from daemon.commands import reading

    config = context.load()
    with reading.reading_branch(config, _selected(config, (name,))[0], branch) as reader:
        shown = reading.content(reader, os.fsencode(path), as_json=as_json)
    reading.show(shown)


@cli.command()
@click.argument("name", metavar="OWNER/NAME")
@branch_option
@click.option("-n", "--number", "count", metavar="N", default=20, type=click.IntRange(min=1), show_default=True)
@as_json
@click.pass_obj
def log(context: Context, name: str, branch: str | None, count: int, as_json: bool) -> None:
    """Show the stored commits, newest first."""
    from daemon.commands import reading

    config = context.load()
    with reading.reading_branch(config, _selected(config, (name,))[0], branch) as reader:
        shown = reading.commits(reader, count, as_json=as_json)
    reading.show(shown)


@cli.command()
@click.argument("text", metavar="Q")
@click.option("--repository", metavar="OWNER/NAME", help="Only this one.")
@click.option("--path", "prefix", metavar="PREFIX", default="", help="Only paths that begin with it.")
@click.option("-n", "--number", "count", metavar="N", default=100, type=click.IntRange(min=1), show_default=True)
@as_json
@click.pass_obj
def search(context: Context, text: str, *, repository: str | None, prefix: str, count: int, as_json: bool) -> None:
    """Search the stored text for Q, whatever its case: the first place in each file."""
    from daemon.commands import reading

    config = context.load()
    name = _selected(config, (repository,))[0] if repository else None
    if not text:
        raise click.UsageError("Q must not be empty")
    with reading.reading(config) as database:
        shown = reading.search(database, text, name, os.fsencode(prefix), count=count, as_json=as_json)
    reading.show(shown)


@cli.command()
@click.argument("entity_type", metavar="TYPE")
@click.argument("entity_id", metavar="[ID]", required=False)
@click.option("-n", "--number", "count", metavar="N", default=100, type=click.IntRange(min=1), show_default=True)
@as_json
@click.pass_obj
def entities(context: Context, entity_type: str, entity_id: str | None, *, count: int, as_json: bool) -> None:
    """List the entities of TYPE by id, or show the one with ID whole (as JSON)."""
    from daemon.commands import reading

    with reading.reading(context.load()) as database:
        shown = reading.entities(database, entity_type, entity_id, count=count, as_json=as_json)
    reading.show(shown)


@cli.command()
@click.option("--since", metavar="ID", type=click.IntRange(min=0, max=2**63 - 1), help="Only what came after it.")
@as_json
@click.pass_obj
def changes(context: Context, since: int | None, as_json: bool) -> None:
    """Show the change feed, oldest first: what moved which branch, from which commit to which."""
    from daemon.commands import reading

    with reading.reading(context.load()) as database:
        shown = reading.changes(database, since, as_json=as_json)
    reading.show(shown)


@cli.command()
@click.argument("path", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--once", is_flag=True, help="End after the tour instead of staying up until Ctrl-C.")
@as_json
def demo(path: Path | None, once: bool, as_json: bool) -> None:
    """Take a self-contained tour: no network, no token. PATH is a local git repository; it is never changed."""
    from daemon.demo.tour import take_tour

    if not take_tour(path, once=once, as_json=as_json):
        sys.exit(EXIT_FAILED)


@cli.command()
@repository_names
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Only list what would be removed.")
@as_json
@click.pass_obj
def prune(context: Context, names: tuple[str, ...], *, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Remove what is stored of repositories that are gone from GitHub or not tracked any more."""
    from daemon.commands import prune as pruning

    if as_json and not (yes or dry_run):
        raise click.UsageError("--json needs --yes or --dry-run")
    config = context.load()
    chosen = pruning.candidates(config, names)
    if not as_json:
        for one in chosen:
            click.echo(pruning.line(one))
    if chosen and not (yes or dry_run):
        click.confirm(f"Remove all that is stored of these {len(chosen)}?", abort=True)
    if not dry_run:
        chosen = pruning.prune(config, chosen)
    if as_json:
        _print_json({"dry_run": dry_run, "pruned": [pruning.as_json(one) for one in chosen]})
    elif not dry_run:
        click.echo(f"{len(chosen)} removed" if chosen else "nothing to prune")


@cli.command("copy-store")
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@as_json
def copy_store(source: str, target: str, as_json: bool) -> None:
    """Copy a store into an empty one, both given as by storage.url, and prove the copy: SQLite, PostgreSQL, or back.

    Stop every headwater that uses them first. What search goes by is made anew when the copy is first used.
    """
    from daemon.commands.copying import copy_store as copy

    def told(table: str, rows: int) -> None:
        if not as_json:
            click.echo(f"{table}  {rows} rows", err=True)

    done = copy(source, target, told=told)
    if as_json:
        _print_json(done)
    else:
        click.echo(f"{done['rows']} rows are the same, {done['trees']} snapshots have their tree")


@cli.group()
def actions() -> None:
    """What is done after a sync changed something: how it went, and another try."""


@actions.command("list")
@as_json
@click.pass_obj
def list_actions(context: Context, as_json: bool) -> None:
    """Show every action by branch: state, commit, last error (with --json also its output)."""
    from daemon.clock import utc_now
    from daemon.commands.actions import action_rows, print_table

    rows = action_rows(context.load())
    if as_json:
        _print_json({"actions": rows})
    else:
        print_table(rows, now=utc_now())


@actions.command("retry")
@click.argument("action", required=False)
@as_json
@click.pass_obj
def retry_actions(context: Context, action: str | None, as_json: bool) -> None:
    """Try failed actions again at once, all of them or the one with the id ACTION."""
    from daemon.commands.actions import retry

    count = retry(context.load(), action)
    if as_json:
        _print_json({"retried": count})
    else:
        click.echo(f"{count} tried again" if count else "nothing has failed")


@cli.command()
def man() -> None:
    """Print the manual page: `headwater man | man -l -`."""
    from daemon.commands.manual import page

    click.echo(page(cli, __version__), nl=False)


cli.add_command(hooks)
for command in (*operation.COMMANDS, *storage.COMMANDS):
    cli.add_command(command)


def _selected(config: Config, names: Sequence[str]) -> tuple[str, ...]:
    """The configured spelling of the named repositories, each once; a name that is an ``owner/*``'s stays as it is."""
    from daemon.triggers.discovery import names_left_out

    configured = {rule.full_name.lower(): rule.full_name for rule in config.repositories}
    unknown = [name for name in names if name.endswith("/*") or names_left_out(config.repositories, name)]
    if unknown:
        known = ", ".join(configured.values()) or "no repository"
        raise click.UsageError(f"{', '.join(unknown)} is not configured; the configuration has {known}")
    return tuple({name.lower(): configured.get(name.lower(), name) for name in names}.values())


def _tell_findings(findings: Sequence[Finding], *, as_json: bool) -> None:
    """A report; exit 1 when something in it is wrong."""
    ok = all(finding.ok for finding in findings)
    if as_json:
        _print_json({"ok": ok, "findings": [finding.as_json() for finding in findings]})
    else:
        for finding in findings:
            click.echo(finding.line())
    if not ok:
        sys.exit(EXIT_FAILED)


def _guarded(command: Callable[[], Any]) -> NoReturn:
    """Run the command; every way it can fail becomes one plain line and the contract's exit code."""
    try:
        command()
    except ConfigError as error:
        for problem in error.problems:
            click.echo(str(problem), err=True)
        sys.exit(EXIT_CONFIG)
    except (HeadwaterError, OSError) as error:
        click.echo(f"headwater: {_reason(error)}", err=True)
        sys.exit(EXIT_FAILED)
    sys.exit(0)


def _reason(error: HeadwaterError | OSError) -> str:
    """One sentence without the number of the error, but with the file it is about."""
    if isinstance(error, HeadwaterError) or not error.strerror:
        return str(error)
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror


def _open_standard_streams() -> None:
    """Where they were closed (`>&-`): else the next file that is opened, such as the store, has their number."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= STDERR:
        pass
    os.close(number)
    for name, number in (("stdout", STDOUT), ("stderr", STDERR)):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w", encoding="utf-8", closefd=False))


def main() -> NoReturn:
    """The command `headwater`."""
    _open_standard_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name beyond the locale's characters is no reason to fail
    _guarded(cli)
