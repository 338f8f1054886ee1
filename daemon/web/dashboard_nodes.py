"""The daemons that share the store: who lives, and who does not do the same as this one."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from daemon.model import NodeRecord
from daemon.version import __version__
from daemon.web import answers, api
from daemon.web.api import Call
from daemon.web.app import Answer
from daemon.web.dashboard import render


def nodes(call: Call) -> Answer:
    """Every daemon of the last day, as in ``/api/v1/nodes``, and in words what is wrong with it."""
    found, this, now = call.deps.nodes(), call.deps.node, call.deps.now()
    own = api.own_digest(found, this)
    rows = [_row(one, this=this, own=own, now=now) for one in found]
    return render(call, "nodes.html", title="Nodes", here="/nodes", rows=rows, shared=call.deps.database.shared)


def _row(one: NodeRecord, *, this: str, own: str | None, now: datetime) -> dict[str, Any]:
    told = answers.node_json(one, this=this, digest=own, now=now)
    return {**told, "troubles": list(_troubles(told))}


def _troubles(told: dict[str, Any]) -> Iterator[str]:
    if told["version"] != __version__:
        yield f"runs another version than this one, {__version__}"
    if not told["same_config"]:
        yield "has another configuration than this one"
