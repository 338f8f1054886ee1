"""What the daemons on one PostgreSQL tell each other: NOTIFY in the transaction that makes it so, LISTEN on a thread.

Nothing depends on it. Who waits looks for himself every second, so that what is told only makes it sooner: a connection
that is lost, or a pooler that gives each transaction another session and passes nothing on, costs that second.
https://www.postgresql.org/docs/current/sql-notify.html, https://www.pgbouncer.org/features.html
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing

import psycopg

from daemon.clock import Clock
from daemon.errors import StoreError
from daemon.logs import get_logger
from daemon.model import Topic
from daemon.store.connections import Connection
from daemon.store.faults_postgres import words

log = get_logger()

_CHANNEL = "headwater"
_STOP_SECONDS = 1.0  # how long a stop waits for a connection that is being made
_LOOK_SECONDS = 0.5  # between two looks whether to stop
_PROOF_SECONDS = 2.0  # how soon what is told is heard, where it is heard at all
_SILENCE_SECONDS = 20.0  # every daemon tells that it lives every 5 s: whoever does not even hear himself is deaf
_FIRST_WAIT_SECONDS = 1.0
_ALL_THE_SAME = "other daemons' work is found by looking every second"
_LONGEST_WAIT_SECONDS = 60.0


def _is_pooled(connection: Connection) -> bool:
    """Whether transactions may each be given another session: a LISTEN would stay behind in one of them."""
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    return row is None or row[0] != connection.info.backend_pid


def telling(own: str, topics: Iterable[Topic]) -> str:
    """The statement, if any, that tells of ``topics`` with the transaction it is in."""
    told = ", ".join(f"pg_notify('{_CHANNEL}', '{own} {topic}')" for topic in sorted(topics))
    return f"SELECT {told}; " if told else ""


class Listening:
    """A connection of its own on which it is heard what others tell; ``beat`` tells something itself."""

    def __init__(
        self,
        connect: Callable[[], Connection],
        beat: Callable[[], None],
        *,
        name: str,
        own: str,
        calls: Mapping[Topic, Callable[[], None]],
        clock: Clock,
    ) -> None:
        self._connect = connect
        self._beat = beat
        self._name = name
        self._own = own
        self._calls = calls
        self._clock = clock
        self._stopping = threading.Event()
        self._wait_seconds = _FIRST_WAIT_SECONDS
        self._said: str | None = None
        self._hearing = False
        self._thread = threading.Thread(target=self._run, name="store-listener", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(_STOP_SECONDS)

    def hears(self) -> bool:
        """Whether what others tell arrives."""
        return self._hearing

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                with closing(self._connect()) as connection:
                    why = self._listen(connection)
            except psycopg.Error as error:
                why = f"the connection was lost ({words(error)})"
            except StoreError as error:
                why = str(error)
            except Exception as error:
                log.error("store.listening_failed", exc_info=error)
                why = "of an error of its own"
            self._hearing = False
            if not self._stopping.is_set():
                self._say("store.not_listening", why)
                self._stopping.wait(self._wait_seconds)
                self._wait_seconds = min(self._wait_seconds * 2, _LONGEST_WAIT_SECONDS)

    def _listen(self, connection: Connection) -> str:
        """Hear until nothing more is heard; why not."""
        if _is_pooled(connection):
            return f"a connection pooler is between; {_ALL_THE_SAME}"
        connection.execute(f"LISTEN {_CHANNEL}")
        # Who is between may take the LISTEN and never pass anything on: only what comes is proof.
        self._beat()
        if not self._hears(connection, _PROOF_SECONDS):
            return f"what is told does not arrive; {_ALL_THE_SAME}"
        self._wait_seconds = _FIRST_WAIT_SECONDS
        self._say("store.listening")
        self._hearing = True
        for call in self._calls.values():  # whatever was told meanwhile
            call()
        while self._hears(connection, _SILENCE_SECONDS):
            pass
        return f"nothing was heard for {_SILENCE_SECONDS:g} s"

    def _hears(self, connection: Connection, seconds: float) -> bool:
        """Wait for something, at most so long, and pass on what others told; False where nothing came, or at a stop."""
        until = self._clock.monotonic() + seconds
        while not self._stopping.is_set() and self._clock.monotonic() < until:
            if heard := [told.payload for told in connection.notifies(timeout=_LOOK_SECONDS, stop_after=1)]:
                self._pass_on(heard)
                return True
        return False

    def _pass_on(self, heard: Iterable[str]) -> None:
        """Each topic once, however many have told of it."""
        for topic in dict.fromkeys(
            topic for own, _, topic in (told.partition(" ") for told in heard) if own != self._own
        ):
            if call := self._calls.get(topic):  # type: ignore[call-overload]  # a newer daemon may tell of others
                call()

    def _say(self, event: str, why: str | None = None) -> None:
        """Once, until it is otherwise."""
        if self._said != event:
            log.info(event, store=self._name, **({"reason": why} if why else {}))
        self._said = event
