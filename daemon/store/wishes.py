"""The wish for a sync: how triggers meet in it and what of it is served. Pure but for loading and saving.

``wanted`` is raised by triggers, ``done`` by runs, ``claimed`` is what the running (or last) run has seen. Two facts,
not one flag: what arrives during a run leaves ``wanted > done``, and exactly one more run follows.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from daemon.model import Trigger
from daemon.store.database import Database
from daemon.store.fields import instant_text, instant_value, json_text

URGENT = frozenset((Trigger.WEBHOOK, Trigger.MANUAL, Trigger.AUDIT))
FIRST, LATER = 0, 1  # priorities
# A burst of pushes is synced as it begins and once it is over: a single push never waits for another.
QUIET = timedelta(seconds=0.25)
LONGEST_BURST = timedelta(seconds=2)
LONGEST_REST = timedelta(hours=1)

_LOAD = """
    SELECT id, branch_id, wanted_generation, done_generation, claimed_generation, priority, triggers, wanted_at,
           run_after, attempts, parked, lease_owner IS NOT NULL AND lease_until > ?
    FROM job WHERE branch_id = ?
"""
_SAVE = """
    UPDATE job SET wanted_generation = ?, done_generation = ?, claimed_generation = ?, priority = ?, triggers = ?,
                   wanted_at = ?, run_after = ?, attempts = ?, parked = ?
    WHERE id = ?
"""
_CREATE = "INSERT INTO job (branch_id) VALUES (?) ON CONFLICT (branch_id) DO NOTHING"


@dataclass(slots=True)
class Asked:
    """One kind of trigger in a wish: the latest generation it asked for, and when it first came (text)."""

    generation: int
    trigger: str
    at: str

    @property
    def urgent(self) -> bool:
        return self.trigger in URGENT


@dataclass(slots=True)
class Wish:
    """A job's row but for its lease. Instants are text, as stored."""

    job_id: int
    branch_id: int
    wanted: int
    done: int
    claimed: int
    priority: int
    asked: list[Asked]
    wanted_at: str | None
    run_after: str | None
    attempts: int
    parked: bool
    leased: bool

    @property
    def waits(self) -> bool:
        """Whether something is wanted that no run has taken up yet."""
        return self.wanted > (self.claimed if self.leased else self.done)

    @property
    def open_from(self) -> str | None:
        """From when on a worker may take it up, "" for at once; None while nobody may."""
        return None if self.leased or self.parked or not self.waits else self.run_after or ""

    def opens_sooner(self, than: str | None) -> bool:
        """Whether those who wait for work must hear of it, who were told of it as ``open_from`` was before."""
        return self.open_from is not None and (than is None or self.open_from < than)

    def ask(self, trigger: Trigger, now: datetime) -> bool:
        """Let a trigger in; whether that brings a run about that would not come without it."""
        if trigger is Trigger.POLL and self._rests(now):
            return False
        news = trigger in URGENT or self.parked or not self.waits
        if trigger in URGENT or not self.waits:
            self.wanted += 1
        if trigger in URGENT:
            self.priority, self.run_after = FIRST, self._after_burst(now) if trigger is Trigger.WEBHOOK else None
        if self.parked:
            self._revive(trigger)
        at = instant_text(now)
        self._note(trigger, at)
        self.wanted_at = self.wanted_at or at
        return news

    def park(self, now: datetime) -> None:
        """Leave it until something asks again; a poll, which asks every minute, not before a rest.

        It is half as long as it has been failing, so that what cannot succeed leaves few failed runs behind.
        """
        failing = now - instant_value(self.wanted_at) if self.wanted_at else timedelta()
        self.parked, self.run_after = True, instant_text(now + min(max(failing / 2, timedelta()), LONGEST_REST))

    def _rests(self, now: datetime) -> bool:
        # A rest that is longer than any can be: the wall clock has jumped back since.
        latest = instant_text(now + LONGEST_REST)
        return self.parked and self.run_after is not None and instant_text(now) < self.run_after <= latest

    def _after_burst(self, now: datetime) -> str | None:
        """When a burst that is going on will be taken up: after a quiet moment, but not put off without end."""
        if self.run_after is None or self.run_after <= instant_text(now):
            return None
        longest = instant_text(instant_value(self.wanted_at) + LONGEST_BURST) if self.wanted_at else self.run_after
        return min(instant_text(now + QUIET), longest)

    def _revive(self, trigger: Trigger) -> None:
        # A person or a push deserves all attempts again; a poll, which comes every minute, just one more.
        self.attempts = 0 if trigger in URGENT else max(self.attempts - 1, 0)
        self.parked, self.run_after = False, None

    def _note(self, trigger: Trigger, at: str) -> None:
        floor = self.claimed if self.leased else self.done
        for asked in self.asked:
            if asked.trigger == trigger and asked.generation > floor:
                asked.generation = self.wanted
                return
        self.asked.append(Asked(self.wanted, trigger.value, at))

    def claim(self, now: datetime) -> None:
        """Take up all that is wanted, each kind of trigger once; the attempt counts from here."""
        merged: dict[str, Asked] = {}
        for asked in self.asked:
            first = merged.setdefault(asked.trigger, asked)
            first.generation = max(first.generation, asked.generation)
        self.asked = list(merged.values()) or [Asked(self.wanted, Trigger.RECOVERY.value, instant_text(now))]
        self.wanted_at = self.wanted_at or self.asked[0].at
        self.claimed = self.wanted
        self.attempts += 1

    def serve(self, generation: int, now: datetime, *, news: bool) -> None:
        """Everything up to ``generation`` is done; what came later stays wanted, as of when it came.

        Deliveries that came meanwhile, or one that brought no ``news``, are the marks of a burst.
        """
        only_pushes = {asked.trigger for asked in self.asked} <= {Trigger.WEBHOOK}
        self.done = max(self.done, generation)
        self.asked = [asked for asked in self.asked if asked.generation > self.done]
        self.run_after, self.attempts, self.parked = None, 0, False
        waiting = self.wanted > self.done
        if only_pushes and (waiting or not news):
            self.run_after = instant_text(now + QUIET)
        self.wanted_at = (self.asked[0].at if self.asked else instant_text(now)) if waiting else None
        self.priority = FIRST if any(asked.urgent for asked in self.asked) else LATER

    def asked_anew(self) -> bool:
        """Whether a push or a person asked again since the claim."""
        return any(asked.urgent and asked.generation > self.claimed for asked in self.asked)


def load(db: Database, branch_id: int, now: datetime, *, lock: bool = False) -> Wish:
    """The wish of a branch, which every tracked one has. Inside ``write``. Raises LookupError.

    ``lock`` keeps it from others who claim jobs or take deliveries in meanwhile: only where ``db.shared``.
    """
    row = db.execute(_LOAD + (" FOR UPDATE" if lock else ""), (instant_text(now), branch_id)).fetchone()
    if row is None:
        raise LookupError(f"there is no job for branch {branch_id}")
    return _wish(row)


def create(db: Database, branch_id: int) -> None:
    db.execute(_CREATE, (branch_id,))


def save(db: Database, wish: Wish) -> None:
    triggers = json_text([[asked.generation, asked.trigger, asked.at] for asked in wish.asked])
    progress = (wish.wanted, wish.done, wish.claimed, wish.priority, triggers)
    times = (wish.wanted_at, wish.run_after, wish.attempts, wish.parked)
    db.execute(_SAVE, (*progress, *times, wish.job_id))


def _wish(row: tuple[Any, ...]) -> Wish:
    return Wish(
        job_id=row[0],
        branch_id=row[1],
        wanted=row[2],
        done=row[3],
        claimed=row[4],
        priority=row[5],
        asked=_asked(row[6]),
        wanted_at=row[7],
        run_after=row[8],
        attempts=row[9],
        parked=bool(row[10]),
        leased=bool(row[11]),
    )


def trigger_names(triggers: str) -> tuple[str, ...]:
    """The kinds of trigger in a stored ``job.triggers``, each once, in the order they came."""
    return tuple(dict.fromkeys(asked.trigger for asked in _asked(triggers)))


def _asked(triggers: str) -> list[Asked]:
    """What a stored ``job.triggers`` says; nothing where it cannot be read, or names a kind that is not known here.

    That a sync is wanted is told by the generations: it comes all the same, as ``recovery``.
    """
    try:
        return [
            Asked(int(generation), Trigger(trigger).value, instant_text(instant_value(at)))
            for generation, trigger, at in json.loads(triggers)
        ]
    except (ValueError, TypeError):
        return []
