"""One daemon among those that share its store: its heartbeat, and what it does for all of them.

There is no leader: each kind of work that need be done once is done by whoever took its lease first, for as long as he
renews it. On SQLite, which has one writing process, every turn is ours.
"""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256

from daemon.clock import Clock
from daemon.config import Config
from daemon.model import NodeRecord
from daemon.store.database import Database
from daemon.store.nodes import HEARTBEAT_SECONDS, Nodes
from daemon.version import __version__

ACTING_SECONDS = 30.0


class Node:
    """One daemon. ``config`` tells the configuration in force."""

    def __init__(self, database: Database, *, clock: Clock, config: Callable[[], Config]) -> None:
        self._database = database
        self._nodes = Nodes(database)
        self._clock = clock
        self._config = config
        host, pid = socket.gethostname(), os.getpid()
        self.id = f"{host}:{pid}:{uuid.uuid4().hex[:8]}"  # a number of a process comes again
        now = clock.now()
        self._record = NodeRecord(self.id, host, pid, __version__, now, now, "", None)
        self._acts_until = 0.0

    def listens(self, admin_url: str) -> None:
        """From now on others may be told where to ask it."""
        self._record = replace(self._record, admin_url=admin_url)
        self.beat()

    def beat(self) -> None:
        """Tell the others that it lives, go by the store's clock, and keep what it does for all.

        Raises StoreUnavailable.
        """
        if self._database.shared:
            self._database.read_clock()
            self._nodes.beat(self._now())
            asked_at = self._clock.monotonic()
            acts = self.turn("actions", ACTING_SECONDS)
            self._acts_until = asked_at + ACTING_SECONDS - HEARTBEAT_SECONDS if acts else 0.0

    def acts(self) -> bool:
        """Whether it is the one that runs the actions; no longer than it surely is."""
        return not self._database.shared or self._clock.monotonic() < self._acts_until

    def turn(self, name: str, seconds: float) -> bool:
        """Whether it is the one to do ``name`` for the next ``seconds``. Raises StoreUnavailable."""
        shared = self._database.shared
        return not shared or self._nodes.take(name, self.id, seconds=seconds, now=self._clock.now())

    def every(self) -> list[NodeRecord]:
        """All nodes, this one among them."""
        return self._nodes.every() if self._database.shared else [self._now()]

    def leave(self) -> None:
        """Its turns are for others now. Raises StoreUnavailable."""
        if self._database.shared:
            self._nodes.leave(self.id)

    def _now(self) -> NodeRecord:
        return replace(self._record, heartbeat_at=self._clock.now(), config_digest=digest(self._config()))


def digest(config: Config) -> str:
    """Tells whether two nodes do the same: of all but secrets, listeners and logs."""
    same = (config.github.api_url, config.polling, config.sync, config.repositories, config.actions)
    return sha256(repr(same).encode()).hexdigest()[:16]
