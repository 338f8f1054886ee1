"""The commands about the store as a whole: a copy of it, its migrations, its schema."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import click

from daemon.command_line import EXIT_FAILED, Context, as_json, print_json

TARGET = click.Path(path_type=Path)


@click.command()
@click.argument("file", type=TARGET)
@as_json
@click.pass_obj
def backup(context: Context, file: Path, as_json: bool) -> None:
    """Copy the store to FILE, checked and whole or not at all; beside a running daemon, too."""
    from daemon.clock import Clock
    from daemon.store import upkeep

    made = upkeep.backup(context.load().storage.sqlite_path, context.cwd / file, clock=Clock())
    if as_json:
        print_json({"path": str(made.path), "size": made.size_bytes, "migration": made.migration, "integrity": "ok"})
    else:
        click.echo(f"{made.path}: {made.size_bytes} bytes, integrity ok")


@click.command()
@click.option("--check", is_flag=True, help="Only look: exit 0 when nothing is pending, else 1.")
@as_json
@click.pass_obj
def migrate(context: Context, check: bool, as_json: bool) -> None:
    """Bring the store's schema up to date, as every start of the daemon does."""
    from daemon.clock import Clock
    from daemon.store import upkeep

    path, clock = context.load().storage.sqlite_path, Clock()
    applied = [] if check else upkeep.migrate(path, clock=clock)
    pending = upkeep.pending(path, clock=clock)[1]
    if as_json:
        print_json({"applied": applied, "pending": pending})
    elif pending:
        click.echo(f"{path}: pending: {', '.join(pending)}; the next start applies it, as does headwater migrate")
    else:
        click.echo(f"{path}: " + (f"applied: {', '.join(applied)}" if applied else "the schema is current"))
    if pending:
        sys.exit(EXIT_FAILED)


@click.command()
@click.argument("table", required=False)
@as_json
def schema(table: str | None, as_json: bool) -> None:
    """Describe the tables of the store for queries in SQL, or TABLE alone."""
    from daemon.store.schema import NOTES, tables

    found = [one for one in tables() if table in (None, one.name)]
    if not found:
        raise click.UsageError(f"there is no table {table}; there are {', '.join(one.name for one in tables())}")
    if as_json:
        print_json({"tables": [asdict(one) for one in found]})
        return
    click.echo("\n\n".join(one.text() for one in found) + ("" if table else f"\n\n{NOTES}"))


COMMANDS = (backup, migrate, schema)
