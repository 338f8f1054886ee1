"""`headwater actions`: what became of them, read from the store; and another try of those that failed."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from daemon.clock import Clock
from daemon.commands.status import every_action
from daemon.commands.sync import Asking
from daemon.config import Config
from daemon.errors import HeadwaterError
from daemon.store.actions import Actions
from daemon.store.database import Database
from daemon.store.opening import open_store, open_to_read
from daemon.web.answers import action_json

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

    Raises HeadwaterError for an action that there is not, and when the daemon does not answer.
    """
    daemon = None if config.storage.is_postgres else Database.locked_by(config.storage.sqlite_path)
    if daemon and daemon.get("admin_url"):
        return Asking(config, str(daemon["admin_url"])).retry_actions(action)
    database = open_store(config.storage, clock=Clock())
    try:
        actions = Actions(database)
        if action is not None and not actions.knows(action):
            raise HeadwaterError(f"there is no action {action}; see `headwater actions list`")
        return actions.retry(action)
    finally:
        database.close()


def print_table(rows: list[dict[str, Any]]) -> None:
    """The rows for a person."""
    if not rows:
        Console().print("no action is known: add an \\[\\[actions]] table to the configuration, and start the daemon")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("action", "kind", "target", "branch", "state", "commit", "finished", "last error"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        branch = f"{row['repository']}@{row['branch']}" if row["branch"] else "-"
        state = f"[{COLOURS[row['state']]}]{row['state']}[/]"
        done = ((row["commit_sha"] or "-")[:SHORT], row["finished_at"] or "-")
        words = row["last_error"] or row["note"] or ""
        texts = (row["action"], row["kind"], _plain(row["target"]), branch, state, *done, _plain(words))
        table.add_row(*texts)
    Console().print(table)


def _plain(text: str) -> str:
    return text.replace("[", "\\[")
