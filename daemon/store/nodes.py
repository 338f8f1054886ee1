"""The daemons that share a store, and the leases under which one of them does what need be done once."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from daemon.model import NodeRecord, Topic
from daemon.store.database import Database
from daemon.store.fields import instant_text, instant_value

HEARTBEAT_SECONDS = 5.0
DEAD_SECONDS = 30.0  # a node that was not heard of for so long
_FORGOTTEN = timedelta(days=1)

_BEAT = """
    INSERT INTO node (id, host, pid, version, started_at, heartbeat_at, config_digest, admin_url)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (id) DO UPDATE SET heartbeat_at = excluded.heartbeat_at, config_digest = excluded.config_digest,
                                   admin_url = excluded.admin_url
"""
_NODES = """
    SELECT id, host, pid, version, started_at, heartbeat_at, config_digest, admin_url FROM node ORDER BY started_at, id
"""
# One beyond any lease of ours was taken by a clock that has jumped back since.
_TAKE = """
    INSERT INTO lease (name, owner, until) VALUES (?, ?, ?)
    ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, until = excluded.until
    WHERE lease.owner = excluded.owner OR lease.until <= ? OR lease.until > ?
    RETURNING owner
"""


class Nodes:
    """Who is there, and whose turn it is."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def beat(self, node: NodeRecord) -> None:
        """A node lives; it forgets those that have not for a day."""
        facts = (node.id, node.host, node.pid, node.version, instant_text(node.started_at))
        with self._db.write():
            self._db.execute(_BEAT, (*facts, instant_text(node.heartbeat_at), node.config_digest, node.admin_url))
            old = instant_text(node.heartbeat_at - _FORGOTTEN)
            self._db.execute("DELETE FROM node WHERE heartbeat_at < ?", (old,))
            self._db.tell(Topic.BEAT)

    def leave(self, node_id: str) -> None:
        """A node ends as it should: nobody need wait for its leases to run out."""
        with self._db.write():
            self._db.execute("DELETE FROM node WHERE id = ?", (node_id,))
            self._db.execute("DELETE FROM lease WHERE owner = ?", (node_id,))

    def every(self) -> list[NodeRecord]:
        """The nodes of the last day, the oldest first."""
        with self._db.read():
            return [_node(row) for row in self._db.execute(_NODES)]

    def living(self) -> list[NodeRecord]:
        """Those that were heard of lately, by the store's clock."""
        now = self._db.shared_clock().now()
        return [node for node in self.every() if (now - node.heartbeat_at).total_seconds() < DEAD_SECONDS]

    def take(self, name: str, node_id: str, *, seconds: float, now: datetime) -> bool:
        """Whether it is for this node to do ``name`` during the next ``seconds``; asked again, it keeps it."""
        until, far = instant_text(now + timedelta(seconds=seconds)), instant_text(now + 2 * timedelta(seconds=seconds))
        with self._db.write():
            return bool(self._db.execute(_TAKE, (name, node_id, until, instant_text(now), far)).fetchall())


def _node(row: Any) -> NodeRecord:
    id_, host, pid, version, started_at, heartbeat_at, config_digest, admin_url = row
    times = instant_value(started_at), instant_value(heartbeat_at)
    return NodeRecord(id_, host, pid, version, *times, config_digest, admin_url)
