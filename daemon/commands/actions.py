"""`headwater actions`: what became of them, read from the store; and another try of those that failed."""

from __future__ import annotations

from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.markup import escape

from daemon.clock import Clock
from daemon.commands.reading import printable
from daemon.commands.status import ago, every_action
from daemon.commands.sync import Asking
from daemon.config import Config
from daemon.errors import HeadwaterError
from daemon.store.actions import Actions
from daemon.store.database import Database
from daemon.store.opening import open_store, open_to_read
from daemon.web.answers import action_json
from daemon.web.words import visible

SHORT = 7
COLOURS = {"done": "green", "pending": "cyan", "failed": "red"}


def action_rows(config: Config) -> list[dict[str, Any]]:
    """Every action by branch, with the API's fields. Raises StoreError without a store."""
    database = open_to_read(config.storage, clock=Clock())
    try:
        return [action_json(record) for record in every_action(Actions(database))]
    finally:
        database.close()


def retry(config: Config, action: str | None) -> int:
    """Have failed actions tried at once, or at the start of the daemon where none runs; on how many branches.

    Raises HeadwaterError for an action that there is not, and when the daemon does not answer; StoreError without
    a store.
    """
    _assert_known(config, action)
    daemon = None if config.storage.is_postgres else Database.locked_by(config.storage.sqlite_path)
    if daemon and daemon.get("admin_url"):
        return Asking(config, str(daemon["admin_url"])).retry_actions(action)
    database = open_store(config.storage, clock=Clock())
    try:
        return Actions(database).retry(action)
    finally:
        database.close()


def _assert_known(config: Config, action: str | None) -> None:
    """A retry makes no store, and says the same of an unknown action beside a daemon and without one."""
    database = open_to_read(config.storage, clock=Clock())
    try:
        if action is not None and not Actions(database).knows(action):
            raise HeadwaterError(f"there is no action {printable(action)}; see `headwater actions list`")
    finally:
        database.close()


def print_table(rows: list[dict[str, Any]], *, now: datetime) -> None:
    """The rows for a person: each action with how it went on its branches, errors in full."""
    console = Console()
    if not rows:
        console.print(
            "no action is known: add an [[actions]] table to the configuration, and start the daemon",
            markup=False,
            soft_wrap=True,
        )
        return
    wide = max((cell_len(_branch(row)) for row in rows if row["branch"]), default=0)
    for action, group in groupby(rows, key=itemgetter("action")):
        branches = list(group)
        title = visible(f"{branches[0]['kind']} {branches[0]['target']}")
        console.print(f"[bold]{action}[/]  {escape(title)}", soft_wrap=True)
        for row in branches:
            if not row["branch"]:
                console.print("  has had nothing to do yet")
                continue
            state = f"[{COLOURS[row['state']]}]{row['state']:<7}[/]"
            commit = (row["commit_sha"] or "-")[:SHORT]
            told = f"  {escape(set_cell_size(_branch(row), wide))}  {state}  {commit:<7}  {_finished(row, now)}"
            console.print(told, soft_wrap=True)
            if words := row["last_error"] or row["note"]:
                console.print(f"    {escape(visible(words))}", soft_wrap=True)


def _branch(row: dict[str, Any]) -> str:
    return visible(f"{row['repository']}@{row['branch']}")


def _finished(row: dict[str, Any], now: datetime) -> str:
    finished = row["finished_at"]
    return ago((now - datetime.fromisoformat(finished)).total_seconds() if finished else None)
