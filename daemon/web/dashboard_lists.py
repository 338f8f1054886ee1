"""Deliveries with what became of each, runs, and the files that are no entities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from daemon.errors import Refusal
from daemon.model import ActionRecord, DeliveryRecord, RunRecord
from daemon.store.glance import Glance
from daemon.web import api, cursor
from daemon.web.api import Call
from daemon.web.app import Answer
from daemon.web.dashboard import PAGE_ITEMS, render
from daemon.web.dashboard_repository import every_action


def deliveries(call: Call) -> Answer:
    """Each with its way: what it announced, its job, its run, what that changed, and the actions after it."""
    with call.deps.database.read():
        found = call.deps.history.deliveries(before_id=_before(call), limit=PAGE_ITEMS + 1)
        shown = found[:PAGE_ITEMS]
        runs = Glance(call.deps.database).runs({one.run_id for one in shown if one.run_id})
        actions = list(every_action(call)) if runs else []
    rows = [_delivery(one, runs.get(one.run_id or 0), actions) for one in shown]
    rest = shown[-1].id if len(found) > PAGE_ITEMS else None
    return render(call, "deliveries.html", title="Deliveries", here="/deliveries", rows=rows, rest=rest)


def _delivery(one: DeliveryRecord, run: RunRecord | None, actions: Sequence[ActionRecord]) -> dict[str, Any]:
    """A delivery, its run, and how the actions stand on the branch that the run changed."""
    changed = run is not None and run.outcome == "updated"
    concerned = [action for action in actions if changed and run and (action.repository, action.branch) == _place(run)]
    ref = (one.ref or "").removeprefix("refs/heads/")
    return {"delivery": one, "ref": ref, "run": run, "actions": concerned}


def _place(run: RunRecord) -> tuple[str, str]:
    return run.repository, run.branch


def runs(call: Call) -> Answer:
    found = call.deps.history.runs(before_id=_before(call), limit=PAGE_ITEMS + 1)
    rest = found[PAGE_ITEMS - 1].id if len(found) > PAGE_ITEMS else None
    return render(call, "runs.html", title="Runs", here="/runs", runs=found[:PAGE_ITEMS], rest=rest)


def entity_errors(call: Call) -> Answer:
    position = call.position("entity-errors", int, str, str)
    after = (position[0], _bytes(position[1]), position[2]) if position else None
    with call.deps.database.read():
        every = call.deps.entities.branches()
        found = call.deps.entities.errors(every, after=after, limit=PAGE_ITEMS + 1)
    shown = found[:PAGE_ITEMS]
    rest = None
    if len(found) > PAGE_ITEMS:
        rest = cursor.write(
            "entity-errors", shown[-1].branch_id, shown[-1].path.decode("latin-1"), shown[-1].entity_type
        )
    return render(call, "entity_errors.html", title="Entity errors", here="/entity-errors", errors=shown, rest=rest)


def _before(call: Call) -> int | None:
    said = call.text("before")
    return None if said is None else api.change_id(said, "before")


def _bytes(text: str) -> bytes:
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        raise Refusal(422, "cursor is not one of this list") from None
