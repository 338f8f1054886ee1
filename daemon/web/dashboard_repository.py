"""The pages of one repository: branches, files, commits, entities, runs, actions, and the button that syncs it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from daemon.errors import Refusal
from daemon.model import ActionRecord, BranchRecord, RepositoryRecord, Trigger
from daemon.store.glance import Glance
from daemon.web import answers, api, words
from daemon.web.api import Call
from daemon.web.app import Answer
from daemon.web.dashboard import PAGE_ITEMS, form, is_local, redirect, render
from daemon.web.dashboard_overview import add_commits, branch_rows

FOLDER_ITEMS = 500
ACTION_PAGE = 1000


def branches(call: Call) -> Answer:
    record = call.repository()
    told = answers.repository_json(record, now=call.deps.now(), promised_seconds=call.deps.promise(record))
    rows = branch_rows(record, told)
    add_commits(call, rows)
    return _render(call, record, "branches.html", tab="", rows=rows, told=told)


def files(call: Call) -> Answer:
    """One folder of the branch's snapshot."""
    path = call.query.get("path", [b""])[-1].strip(b"/")
    begin = call.query.get("begin", [b""])[-1]
    with call.deps.database.read():
        record = call.repository()
        branch = _branch(call, record)
        folder = branch and Glance(call.deps.database).folder(branch.id, path, begin=begin, limit=FOLDER_ITEMS)
    items = folder.items if folder else ()
    if path and not items:
        raise Refusal(404, "This folder does not exist in what is stored of the branch")
    return _render(
        call,
        record,
        "files.html",
        tab="/files",
        branch=branch,
        items=[(one, one.path[len(path) + 1 if path else 0 :].decode("utf-8", "replace")) for one in items],
        crumbs=_crumbs(path),
        path=path,
        rest=folder.begin if folder else None,
    )


def _crumbs(path: bytes) -> list[tuple[str, bytes]]:
    parts = path.split(b"/") if path else []
    return [(part.decode("utf-8", "replace"), b"/".join(parts[: number + 1])) for number, part in enumerate(parts)]


def commits(call: Call) -> Answer:
    before = _number(call, "before")
    with call.deps.database.read():
        record = call.repository()
        branch = _branch(call, record)
        limit = PAGE_ITEMS + 1
        found = call.deps.snapshots.commits(branch.id, before=before, limit=limit) if branch else []
    rest = found[PAGE_ITEMS - 1][0] if len(found) > PAGE_ITEMS else None
    shown = [commit for _, commit in found[:PAGE_ITEMS]]
    return _render(call, record, "commits.html", tab="/commits", branch=branch, commits=shown, rest=rest)


def entities(call: Call) -> Answer:
    """The types with their numbers; with ``type`` the first entities of it."""
    chosen = call.text("type")
    with call.deps.database.read():
        record = call.repository()
        asked = call.deps.entities.branches(record.id, call.text("branch"))
        counts = call.deps.entities.counts(asked)
        found = call.deps.entities.page(asked, chosen, after=None, limit=PAGE_ITEMS)[0] if chosen else []
        errors = call.deps.entities.errors(asked, after=None, limit=PAGE_ITEMS)
    return _render(
        call, record, "entities.html", tab="/entities", counts=counts, chosen=chosen, found=found, errors=errors
    )


def runs(call: Call) -> Answer:
    record = call.repository()
    limit = PAGE_ITEMS + 1
    found = call.deps.history.runs(repository_id=record.id, before_id=_number(call, "before"), limit=limit)
    rest = found[PAGE_ITEMS - 1].id if len(found) > PAGE_ITEMS else None
    return _render(call, record, "repository_runs.html", tab="/runs", runs=found[:PAGE_ITEMS], rest=rest)


def actions(call: Call) -> Answer:
    record = call.repository()
    found = [one for one in every_action(call) if one.repository == record.full_name]
    return _render(call, record, "actions.html", tab="/actions", actions=found)


def every_action(call: Call) -> Iterator[ActionRecord]:
    after = None
    while page := call.deps.actions.records(after=after, limit=ACTION_PAGE):
        yield from page
        after = (page[-1].action, page[-1].branch_id or 0)


def sync(call: Call) -> Answer:
    """Ask for a sync of one branch or of all, and go back to where the button was."""
    fields = form(call)
    record = call.repository()
    tracked = call.deps.repositories.branches(record.id)
    chosen = [one.id for one in tracked if fields.get("branch", "") in ("", one.name)]
    if not chosen:
        raise Refusal(404, "Branch not found")
    if not call.deps.configured():
        raise Refusal(503, "GitHub is not configured: set github.token, or github.anonymous, and reload")
    call.deps.want(chosen, Trigger.MANUAL)
    back = fields.get("back", "")
    return redirect(back if is_local(back) else words.repository_url(record.full_name))


def gone_to_sync(call: Call) -> Answer:
    """Where a browser lands that logs in after its button was refused."""
    return redirect(words.repository_url(call.repository().full_name))


def _branch(call: Call, record: RepositoryRecord) -> BranchRecord | None:
    """The branch asked for or the default one; None while there is none yet. Raises Refusal 404."""
    return call.branch(record) if record.branches or call.text("branch") else None


def _number(call: Call, name: str) -> int | None:
    said = call.text(name)
    return None if said is None else api.change_id(said, name)


def _render(call: Call, record: RepositoryRecord, template: str, *, tab: str, **values: Any) -> Answer:
    branch = values.pop("branch", None)
    return render(
        call,
        template,
        title=record.full_name,
        record=record,
        tab=tab,
        branch=branch,
        promised=call.deps.promise(record),
        **values,
    )
