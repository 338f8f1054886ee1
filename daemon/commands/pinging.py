"""`headwater hooks test`: does what GitHub sends arrive here, and how soon?"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from daemon.clock import Clock
from daemon.commands.hooks import MISSING, Desk, Row
from daemon.commands.sync import daemon_url
from daemon.config import Config
from daemon.errors import HeadwaterError
from daemon.github.hooks import Hook, HookPlace, LoggedDelivery, remedy
from daemon.model import DeliveryRecord
from daemon.store.history import History
from daemon.store.nodes import Nodes
from daemon.store.opening import open_to_read
from daemon.web.answers import iso

LOOK_SECONDS = 0.05
LOG_SECONDS = 2.0  # between two looks into GitHub's log, which cost a request each
LATE_SECONDS = 3.0  # how long what GitHub has delivered may take to be stored here
RECENT = 100
NO_DAEMON = "no daemon runs on this store, so nothing can arrive: start `headwater run` first"


@dataclass(frozen=True, slots=True)
class _Ping:
    """A ping that was asked for: since when, and what was known here and on GitHub before."""

    place: HookPlace
    hook: Hook
    asked_at: datetime
    newest_here: int
    logged: frozenset[int]


class PingTest:
    """Pings hooks and waits for each ping to be stored by the running daemon, at most ``timeout_seconds``.

    Raises HeadwaterError when no daemon runs.
    """

    def __init__(self, desk: Desk, config: Config, *, timeout_seconds: float) -> None:
        self._desk = desk
        self._storage = config.storage
        self._timeout_seconds = timeout_seconds
        self._clock = Clock()

    def run(self) -> list[Row]:
        """A row for each place: the round trip, or why there was none."""
        if not self._storage.is_postgres and daemon_url(self._storage.sqlite_path, self._clock) is None:
            raise HeadwaterError(NO_DAEMON)
        database = open_to_read(self._storage, clock=self._clock)
        try:
            if database.shared and not Nodes(database).living():
                raise HeadwaterError(NO_DAEMON)
            history = History(database)
            return self._desk.each(lambda place: [self._test(place, history)])
        finally:
            database.close()

    def _test(self, place: HookPlace, history: History) -> Row:
        ours = self._desk.ours(place)
        if not ours:
            return Row(place.name, "missing", MISSING, failed=True)
        if not ours[0].active:
            why = "the webhook is switched off: `headwater hooks install` switches it on"
            return Row(place.name, "wrong", why, failed=True)
        ping = self._ask(place, ours[0], history)
        return self._wait(ping, history)

    def _ask(self, place: HookPlace, hook: Hook, history: History) -> _Ping:
        logged = frozenset(one.id for one in self._desk.hooks.deliveries(place, hook.id, size=RECENT))
        newest = history.deliveries(before_id=None, limit=1)
        ping = _Ping(place, hook, self._clock.now(), newest[0].id if newest else 0, logged)
        self._desk.hooks.ping(place, hook.id)
        return ping

    def _wait(self, ping: _Ping, history: History) -> Row:
        started = looked = self._clock.monotonic()
        give_up_at = started + self._timeout_seconds
        delivered: LoggedDelivery | None = None
        while (now := self._clock.monotonic()) < give_up_at:
            if arrived := _arrived(ping, history):
                return _row_of(ping, arrived)
            if delivered is None and now - looked >= LOG_SECONDS:
                looked, delivered = now, self._logged(ping)
                if delivered is not None and not delivered.ok:
                    return _failed(ping, delivered)
                if delivered is not None:
                    give_up_at = min(give_up_at, now + LATE_SECONDS)
            self._clock.sleep(LOOK_SECONDS)
        if delivered is not None:
            why = f"GitHub delivered it to {ping.hook.url}, but it did not arrive here: does that lead to this daemon?"
            return Row(ping.place.name, "failed", why, failed=True)
        why = f"nothing arrived within {self._timeout_seconds:g} s, and GitHub's log does not have it yet: try again"
        return Row(ping.place.name, "failed", why, failed=True)

    def _logged(self, ping: _Ping) -> LoggedDelivery | None:
        """What GitHub's log says of the ping; None while it says nothing."""
        log = self._desk.hooks.deliveries(ping.place, ping.hook.id, size=RECENT)
        fresh = (one for one in log if one.event == "ping" and not one.redelivery and one.id not in ping.logged)
        return next(fresh, None)


def _arrived(ping: _Ping, history: History) -> DeliveryRecord | None:
    recent = history.deliveries(before_id=None, limit=RECENT)
    about = None if ping.place.of_all else ping.place.name.lower()
    for one in recent:
        named = one.repository.lower() if one.repository else None
        if one.id > ping.newest_here and one.event == "ping" and named == about:
            return one
    return None


def _row_of(ping: _Ping, arrived: DeliveryRecord) -> Row:
    milliseconds = max(0.0, (arrived.received_at - ping.asked_at).total_seconds() * 1000)
    facts = {"guid": arrived.guid, "received_at": iso(arrived.received_at), "round_trip_ms": round(milliseconds, 1)}
    return Row(ping.place.name, "ok", f"the ping arrived after {milliseconds:.0f} ms", details=facts)


def _failed(ping: _Ping, delivery: LoggedDelivery) -> Row:
    why = f"GitHub could not deliver it: {delivery.status}; {remedy(delivery)}"
    facts = {"guid": delivery.guid, "status": delivery.status, "status_code": delivery.status_code}
    return Row(ping.place.name, "failed", why, failed=True, details=facts)
