"""The overview: is anything stale, failing or missing its webhooks, at one glance? And the budget."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from daemon.model import BranchState, Commit, RepositoryRecord, WebhookHealth
from daemon.store.glance import Glance
from daemon.web import answers, words
from daemon.web.api import Call
from daemon.web.app import Answer
from daemon.web.dashboard import render

ROWS = 200
MOST_TROUBLES = 12
WELL = ("fresh", "syncing", "empty")

Row = dict[str, Any]

ADVICE = {
    "stale": "GitHub was not seen to confirm it in time: `headwater check --online` and the daemon's log say why.",
    "gone": "GitHub has no such branch or repository for this token; the last good copy is kept.",
}


def overview(call: Call) -> Answer:
    with call.deps.database.read():
        records = list(call.deps.repositories.every())
        told = [_told(call, record) for record in records]
        rows = [row for record, one in zip(records, told, strict=True) for row in branch_rows(record, one)]
        found = [row for row in rows if _matches(row, call)]
        begin = _begin(call)
        shown = found[begin : begin + ROWS]
        add_commits(call, shown)
    return render(
        call,
        "overview.html",
        title="Overview",
        here="/",
        rows=shown,
        total=len(rows),
        matching=len(found),
        begin=begin,
        per_page=ROWS,
        states=_states(rows),
        webhooks=Counter(record.webhook.value for record in records),
        troubles=list(_troubles(call, told, rows)),
        most_troubles=MOST_TROUBLES,
        status=call.deps.status(),
        configured=call.deps.configured(),
        all_states=[state.value for state in BranchState],
    )


def budget(call: Call) -> Answer:
    status = call.deps.status()
    found = status.get("github", {}).get("budget", {})
    polling = status.get("polling", {})
    return render(
        call,
        "budget.html",
        title="Budget",
        here="/budget",
        configured=call.deps.configured(),
        resources=_resources(found),
        paused_until=found.get("paused_until"),
        polling={name: _plain(value) for name, value in polling.items() if isinstance(value, bool | int | float | str)},
    )


def _resources(found: Mapping[str, Any]) -> Mapping[str, Row]:
    """The budgets by resource; those of an App by account and resource."""
    accounts: Mapping[str, Any] = found.get("accounts", {})
    told = {f"{name} {kind}": one for name, each in accounts.items() for kind, one in each["resources"].items()}
    resources: Mapping[str, Row] = found.get("resources", {})
    return told or resources


def _plain(value: bool | float | str) -> str:
    """``yes``, ``60``, or the text it is."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    return words.number(round(value)) if value == round(value) else f"{value:g}"


def _told(call: Call, record: RepositoryRecord) -> Row:
    return answers.repository_json(record, now=call.deps.now(), promised_seconds=call.deps.promise(record))


def branch_rows(record: RepositoryRecord, told: Row) -> list[Row]:
    """A row for each branch; one for a repository whose branches are not known yet."""
    common = {
        "repository": told["full_name"],
        "webhook": told["webhook"],
        "webhook_reason": told.get("webhook_reason"),
        "missed": told["missed_webhooks"],
        "next_poll_at": told["next_poll_at"],
        "commit": None,
    }
    if not record.branches:
        unknown = dict.fromkeys(("head_sha", "remote_sha", "confirmed_at", "last_trigger", "tree_error"))
        own = {"id": None, "name": "", "state": told["state"], "last_error": _error(told, told), "behind": False}
        return [{**common, **unknown, **own}]
    return [
        {**common, **one, "id": branch.id, "behind": _is_behind(one), "last_error": _error(told, one)}
        for branch, one in zip(record.branches, told["branches"], strict=True)
    ]


def _is_behind(branch: Row) -> bool:
    return branch["remote_sha"] is not None and branch["remote_sha"] != branch["head_sha"]


def _error(told: Row, one: Row) -> str | None:
    """What went wrong, without the name that stands beside it."""
    error: str | None = one["last_error"]
    return error and error.removeprefix(f"{told['full_name']}: ")


def add_commits(call: Call, rows: Sequence[Row]) -> None:
    """Put the newest commit into each row that has one."""
    commits: dict[int, Commit] = Glance(call.deps.database).newest_commits([row["id"] for row in rows if row["id"]])
    for row in rows:
        row["commit"] = commits.get(row["id"]) if row["id"] else None


def _matches(row: Row, call: Call) -> bool:
    text, state = (call.text("q") or "").casefold(), call.text("state")
    return text in f"{row['repository']}@{row['name']}".casefold() and state in (None, row["state"])


def _begin(call: Call) -> int:
    said = call.text("begin") or "0"
    return int(said) if said.isascii() and said.isdigit() and len(said) < 9 else 0  # noqa: PLR2004 - no such list


def _states(rows: Sequence[Row]) -> dict[str, int]:
    counts = Counter(row["state"] for row in rows)
    return {state.value: counts[state.value] for state in BranchState}


def _troubles(call: Call, told: Sequence[Row], rows: Sequence[Row]) -> Iterator[Row]:
    """What a person should do something about: where, what, and what to do."""
    if not call.deps.configured():
        yield _trouble("GitHub is not configured", "Set github.token (or github.anonymous) and reload: nothing syncs.")
    promised = {one["full_name"]: one["promised_seconds"] for one in told}
    for row in rows:
        if row["state"] not in WELL or _is_held_up(row, promised[row["repository"]], call.deps.now()):
            yield _trouble(_name(row), row["last_error"] or ADVICE.get(row["state"], ""), row)
        elif row["tree_error"]:
            yield _trouble(_name(row), f"Not provable: {row['tree_error']}", row)
    for one in told:
        if one["webhook"] == WebhookHealth.MISSING.value:
            yield _trouble(one["full_name"], _missing(one), {"repository": one["full_name"], "state": "missing"})
    for name, count, error in call.deps.actions.failing():
        what = f"{count} failing action{'s' if count > 1 else ''}: {error}"
        yield {**_trouble(name, what), "url": words.repository_url(name, "/actions")}


def _is_held_up(row: Row, promised_seconds: float, now: datetime) -> bool:
    """Whether a sync that is to be tried again has been so long about it that the promise is broken."""
    if row["state"] != BranchState.SYNCING.value or not row["last_error"]:
        return False
    confirmed_at = datetime.fromisoformat(row["confirmed_at"]) if row["confirmed_at"] else None
    return answers.is_stale(confirmed_at, now=now, promised_seconds=promised_seconds)


def _missing(one: Row) -> str:
    missed = f"Polling found {one['missed_webhooks']} that no delivery announced"
    why = one.get("webhook_reason")
    if why and "`headwater" in why:  # it says what to do
        return f"{missed}: {why}"
    settings = "see the webhook's recent deliveries in the repository's settings on GitHub"
    return f"{missed}: {why}; {settings}" if why else f"{missed}: {settings}"


def _trouble(where: str, what: str, row: Row | None = None) -> Row:
    url = words.repository_url(row["repository"]) if row else None
    return {"where": where, "what": what, "url": url, "state": row["state"] if row else "failed"}


def _name(row: Row) -> str:
    return f"{row['repository']}@{row['name']}" if row["name"] else str(row["repository"])
