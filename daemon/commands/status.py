"""`headwater status`: one row a branch, read from the store beside a running daemon."""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from datetime import datetime
from typing import Any

from rich.cells import cell_len
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from daemon.clock import Clock
from daemon.command_line import NO_REPOSITORY
from daemon.config import Config
from daemon.model import ActionRecord, BranchState, RepositoryRecord
from daemon.store.actions import Actions
from daemon.store.opening import open_to_read
from daemon.store.repositories import Repositories
from daemon.triggers.schedule import promised_seconds
from daemon.web.answers import branch_json, iso, repository_state
from daemon.web.words import visible

PAGE = 1000
SHORT = 7
WATCH_SECONDS = 2.0
UNFOLDED = 10_000
HEADINGS = ("branch", "state", "head", "synced", "seen", "trigger", "webhook", "next poll")
PARTS = re.compile(r"(?<=/)|(?=@)")
UNKNOWN = (  # of a branch without a name
    "name",
    "head_sha",
    "tree_sha",
    "remote_sha",
    "synced_at",
    "confirmed_at",
    "tree_verified",
    "tree_error",
    "last_trigger",
)
COLOURS = {"fresh": "green", "stale": "yellow", "syncing": "cyan", "failed": "red", "gone": "red", "empty": "dim"}


def branch_rows(config: Config) -> list[dict[str, Any]]:
    """Every tracked branch with the API's fields and ``repository``. Raises StoreError without a store."""
    database = open_to_read(config.storage, clock=Clock())
    try:
        now = database.shared_clock().now()
        records = list(Repositories(database).every())
        actions = every_action(Actions(database))
    finally:
        database.close()
    return [row | _actions(row, actions) for record in records for row in _rows(record, config, now)]


def every_action(actions: Actions) -> list[ActionRecord]:
    """Every action on every branch it acts on."""
    records: list[ActionRecord] = []
    after = None
    while page := actions.records(after=after, limit=PAGE):
        records += page
        after = (page[-1].action, page[-1].branch_id or 0)
    return records


def _actions(row: dict[str, Any], actions: list[ActionRecord]) -> dict[str, Any]:
    """The actions on the branch of a row, in short."""
    here = [one for one in actions if (one.repository, one.branch) == (row["repository"], row["name"])]
    shown = ("action", "kind", "target", "state", "last_error")
    return {"actions": [{name: getattr(one, name) for name in shown} for one in here]}


def _rows(repository: RepositoryRecord, config: Config, now: datetime) -> list[dict[str, Any]]:
    bound = promised_seconds(repository.webhook, config.polling, archived=repository.archived)
    return [
        {
            "repository": repository.full_name,
            **branch_json(repository, branch, now=now, promised_seconds=bound),
            "last_trigger": branch.last_trigger,
            "webhook": repository.webhook.value,
            "missed_webhooks": repository.missed_webhooks,
            "webhook_reason": repository.webhook_reason,
            "behind_seconds": _behind(branch.confirmed_at, now),
        }
        for branch in repository.branches
    ] or [_unnamed(repository, repository_state(repository, now=now, promised_seconds=bound))]


def _unnamed(repository: RepositoryRecord, state: BranchState) -> dict[str, Any]:
    """A repository whose default branch nobody has told us yet still gets its row."""
    return {
        "repository": repository.full_name,
        **dict.fromkeys(UNKNOWN),
        "state": state.value,
        "last_error": repository.last_error,
        "next_poll_at": iso(repository.next_poll_at) if repository.next_poll_at else None,
        "webhook": repository.webhook.value,
        "missed_webhooks": repository.missed_webhooks,
        "webhook_reason": repository.webhook_reason,
        "behind_seconds": None,
    }


def _behind(confirmed_at: datetime | None, now: datetime) -> float | None:
    return None if confirmed_at is None else round(max(0.0, (now - confirmed_at).total_seconds()), 3)


def print_table(rows: list[dict[str, Any]], *, now: datetime) -> None:
    """The rows for a person, errors below in full; nothing to show says what to do."""
    if not rows:
        print_nothing()
        return
    # Where nobody looks at it, each row is one line, for grep.
    console = Console() if sys.stdout.isatty() else Console(width=UNFOLDED)
    console.print(_table(rows, now, console.width))
    for line in _error_lines(rows):
        console.print(line, soft_wrap=True)


def watch_table(config: Config, *, clock: Clock = Clock()) -> None:  # noqa: B008 - frozen
    """The same on a terminal, kept up to date until Ctrl-C."""
    console = Console()
    with suppress(KeyboardInterrupt), Live(console=console, auto_refresh=False, screen=True) as live:
        while True:
            rows, now = branch_rows(config), clock.now()
            told = f"headwater at {now:%H:%M:%S} UTC, Ctrl-C ends"
            live.update(
                Group(_table(rows, now, console.width), *_error_lines(rows), Text(told, style="dim")), refresh=True
            )
            clock.sleep(WATCH_SECONDS)


def _table(rows: list[dict[str, Any]], now: datetime, width: int) -> Table:
    """The rows in so many columns: what they lack is taken from the gaps, then names are folded."""
    cells = [(_label(row), *_cells(row, now)) for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(HEADINGS, *cells, strict=True)]
    gaps = len(HEADINGS) - 1
    gap = 2 if sum(widths) + 2 * gaps <= width else 1
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0))
    for heading in HEADINGS:
        table.add_column(heading, overflow="fold")
    for label, state, *others in cells:
        name = _folded(label, width - sum(widths[1:]) - gap * gaps)
        table.add_row(escape(name), f"[{COLOURS.get(state, 'white')}]{state}[/]", *map(escape, others))
    return table


def _folded(label: str, width: int) -> str:
    """A name on as many lines as it needs, begun anew between its parts."""
    lines = [""]
    for part in PARTS.split(label):
        if cell_len(lines[-1] + part) <= width:
            lines[-1] += part
        else:
            lines.append(part)
    return "\n".join(lines).lstrip("\n")


def _cells(row: dict[str, Any], now: datetime) -> tuple[str, ...]:
    return (
        str(row["state"]),
        (row.get("remote_sha") or "-")[:SHORT],
        (row.get("head_sha") or "-")[:SHORT],
        ago(row["behind_seconds"]),
        row.get("last_trigger") or "-",
        _webhook(row),
        _until(row.get("next_poll_at"), now),
    )


def _error_lines(rows: list[dict[str, Any]]) -> list[Text]:
    """What is wrong; of what is wrong with a repository as a whole, once."""
    return [Text(line) for line in dict.fromkeys(line for row in rows for line in _errors(row))]


def _label(row: dict[str, Any]) -> str:
    return visible(f"{row['repository']}@{row['name'] or '?'}")


def _errors(row: dict[str, Any]) -> list[str]:
    label = _label(row)
    failed = [f"{label}: {one['kind']} action: {one['last_error']}" for one in row["actions"] if one["last_error"]]
    unheard = [f"{row['repository']}: webhook: {row['webhook_reason']}"] if row["webhook_reason"] else []
    own = [f"{label}: {row['last_error']}"] if row.get("last_error") else []
    return [visible(line) for line in own + unheard + failed]


def print_nothing() -> None:
    """An empty configuration is not an error, but worth a word."""
    Console().print(NO_REPOSITORY, markup=False, soft_wrap=True)


def _webhook(row: dict[str, Any]) -> str:
    missed = row["missed_webhooks"]
    return f"{row['webhook']} ({missed})" if missed else str(row["webhook"])


def ago(seconds: float | None) -> str:
    """A time in the past as a person says it."""
    if seconds is None:
        return "never"
    return f"{_span(seconds)} ago"


def _until(instant: str | None, now: datetime) -> str:
    if instant is None:
        return "-"
    seconds = (datetime.fromisoformat(instant) - now).total_seconds()
    return f"in {_span(seconds)}" if seconds > 0 else "due"


def _span(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"
