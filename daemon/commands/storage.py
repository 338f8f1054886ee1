"""The commands about the store as a whole: a copy of it, its migrations, its schema."""

from __future__ import annotations

import shlex
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
    """Copy the store to FILE, checked and whole or not at all; beside a running daemon, too.

    A store on PostgreSQL is copied by pg_dump: this says how.
    """
    from daemon.clock import Clock
    from daemon.store import upkeep

    storage = context.load().storage
    if storage.is_postgres:
        raise click.UsageError(f"the store is on PostgreSQL, which is backed up by\n\n  {_pg_dump(storage.url, file)}")
    made = upkeep.backup(storage.sqlite_path, context.cwd / file, clock=Clock())
    if as_json:
        print_json({"path": str(made.path), "size": made.size_bytes, "migration": made.migration, "integrity": "ok"})
    else:
        click.echo(f"{made.path}: {made.size_bytes} bytes, integrity ok")


def _pg_dump(url: str, file: Path) -> str:
    from daemon.store.postgres import without_password

    return shlex.join(["pg_dump", "--format=custom", f"--file={file}", f"--dbname={without_password(url)}"])


@click.command()
@click.option("--check", is_flag=True, help="Only look: exit 0 when nothing is pending, else 1.")
@as_json
@click.pass_obj
def migrate(context: Context, check: bool, as_json: bool) -> None:
    """Bring the store's schema up to date, as every start of the daemon does."""
    from daemon.clock import Clock
    from daemon.store import upkeep

    storage, clock = context.load().storage, Clock()
    applied = [] if check else upkeep.migrate(storage, clock=clock)
    found = upkeep.schema(storage, clock=clock)
    if as_json:
        print_json({"applied": applied, "pending": found.pending})
    elif found.pending:
        pending = ", ".join(found.pending)
        click.echo(f"{found.store}: pending: {pending}; the next start applies it, as does headwater migrate")
    else:
        click.echo(f"{found.store}: " + (f"applied: {', '.join(applied)}" if applied else "the schema is current"))
    if found.pending:
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
