"""The `owner/*` of the configuration: when to look for their repositories, and what a look makes of them.

A repository that ``owner/*`` found is configured as that (``configured_as``), whatever it is called by now.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from daemon.model import ListedRepository, OwnerRecord, RepositoryState, Topic
from daemon.store import branches, identity
from daemon.store import models as tables
from daemon.store.database import Database
from daemon.store.fields import instant_text, instant_value, json_text, optional_plain

HINT_SECONDS = 10.0  # the least between the looks at an owner's list that deliveries ask for
_LONGEST_WAIT = timedelta(hours=2)  # longer than any that is set here
_BATCH = 100  # repositories taken in one transaction, so that deliveries do not wait for thousands

_HINT = """
    UPDATE owner SET hinted_at = ?, next_look_at = min(next_look_at, ?)
    WHERE configured_as = ? AND (failures = 0 OR ?)
"""
_LOOKED = """
    UPDATE owner SET looked_at = ?, failures = 0, last_error = NULL,
                     next_look_at = CASE WHEN hinted_at > ? THEN ? WHEN next_look_at > ? AND next_look_at <= ?
                                         THEN next_look_at ELSE ? END
    WHERE configured_as = ?
"""
_FAILED = "UPDATE owner SET failures = failures + 1, last_error = ?, next_look_at = ? WHERE configured_as = ?"
_FOUND = """
    INSERT INTO repository (github_id, owner, name, full_name, archived, private) VALUES (?, ?, ?, ?, ?, ?)
    RETURNING id
"""
_TRACK = """
    UPDATE repository SET tracked = TRUE, configured_as = ?, patterns = ?, search = ?, replaced_at = NULL,
                          next_poll_at = NULL, hinted = TRUE
    WHERE id = ?
"""
_LOOK = "UPDATE repository SET next_poll_at = NULL, hinted = TRUE WHERE id = ?"
_GONE = "UPDATE repository SET state = ?, last_error = ?, next_poll_at = NULL WHERE id = ?"
_DROP = "UPDATE repository SET tracked = FALSE, configured_as = NULL WHERE id = ?"


class Rule(Protocol):
    """What of a configured ``owner/*`` the store needs."""

    @property
    def owner(self) -> str: ...
    @property
    def branches(self) -> tuple[str, ...]: ...
    @property
    def search(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Taken:
    """What a look at an owner's list changed: how many repositories are new or back, gone, or chosen no more."""

    new: int = 0
    gone: int = 0
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class _Row:
    id: int
    github_id: int | None
    full_name: str
    tracked: bool
    configured_as: str | None
    state: str

    @property
    def named(self) -> bool:
        """Whether the configuration names it: then its own entry is what counts."""
        return self.tracked and not (self.configured_as or "").endswith("/*")


class Owners:
    """Every ``owner/*``, and the repositories that they found."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def due(self, now: datetime) -> list[OwnerRecord]:
        """Those whose list is to be looked at, the one unseen for longest first.

        Also where the wall clock has jumped back since: its last look is ahead, or the next further than any wait.
        """
        due = [one for one in self.records() if _is_due(one, now)]
        return sorted(due, key=lambda one: instant_text(one.looked_at) if one.looked_at else "")

    def records(self) -> list[OwnerRecord]:
        table, found = tables.Owner, "SELECT count(*) FROM repository WHERE tracked AND configured_as = ?"
        with self._db.read():
            rows = list(self._db.run(table.select().order_by(table.configured_as).namedtuples()))
            counts = [int(self._db.execute(found, (row.configured_as,)).fetchone()[0]) for row in rows]
        return [
            OwnerRecord(row.configured_as, count, row.looked_at, row.next_look_at, row.failures, row.last_error)
            for row, count in zip(rows, counts, strict=True)
        ]

    def looked(
        self, key: str, *, at: datetime, ended: datetime, hinted_since: datetime, again_at: datetime, next_at: datetime
    ) -> None:
        """A look that began ``at`` succeeded; the next is ``again_at`` where a hint came after ``hinted_since``.

        A reload in between has made it due anew, and so it stays.
        """
        times = (at, hinted_since, again_at, at, ended, next_at)
        with self._db.write():
            self._db.execute(_LOOKED, (*map(instant_text, times), key))

    def failed(self, key: str, *, error: str, next_at: datetime) -> None:
        with self._db.write():
            self._db.execute(_FAILED, (optional_plain(error), instant_text(next_at), key))

    def take(
        self, rule: Rule, chosen: Sequence[ListedRepository], listed: Iterable[ListedRepository], *, now: datetime
    ) -> Taken:
        """Track what is chosen of a whole list, mark as gone what it leaves out, untrack what is chosen no more.

        Short transactions; all of it can be repeated. What is marked is asked about by itself at once.
        """
        new = 0
        for start in range(0, len(chosen), _BATCH):
            with self._db.write():
                if not self._configured(rule):  # a reload came in between: this look is about nothing any more
                    return Taken()
                new += sum(self._take(rule, one, now) for one in chosen[start : start + _BATCH])
        with self._db.write():
            return self._leave(rule, {one.github_id for one in chosen}, {one.github_id for one in listed}, new)

    def _configured(self, rule: Rule) -> bool:
        found = self._db.execute("SELECT 1 FROM owner WHERE configured_as = ?", (_key(rule),)).fetchone()
        return found is not None

    def _take(self, rule: Rule, one: ListedRepository, now: datetime) -> bool:
        """Whether it is tracked from now on, and was not before."""
        known = self._row("github_id = ?", one.github_id)
        if known is None:
            return self._take_name(rule, one, now)
        if known.named or (known.tracked and known.configured_as == _key(rule)):
            if known.state == RepositoryState.GONE or known.full_name != one.full_name.lower():
                self._db.execute(_LOOK, (known.id,))
            return False
        self._track(rule, known.id, now)
        return not known.tracked

    def _take_name(self, rule: Rule, one: ListedRepository, now: datetime) -> bool:
        """Take one whose number is new, under a name that a row may have."""
        key = one.full_name.lower()
        holder = self._row("full_name = ?", key)
        if holder is not None and holder.tracked:
            # Not seen by number yet, or it has lost its name: asking GitHub about it settles who is who.
            self._db.execute(_LOOK, (holder.id,))
            return False
        identity.free_name(self._db, key)
        row = (one.github_id, one.owner, one.name, key, one.archived, one.private)
        self._track(rule, int(self._db.execute(_FOUND, row).fetchall()[0][0]), now)
        return True

    def _track(self, rule: Rule, repository_id: int, now: datetime) -> None:
        values = (_key(rule), json_text(list(rule.branches)), rule.search)
        self._db.execute(_TRACK, (*values, repository_id))
        branches.track(self._db, repository_id, rule.branches, now=now)

    def _leave(self, rule: Rule, chosen: set[int], listed: set[int], new: int) -> Taken:
        rows = [row for row in self._rows("configured_as = ? AND tracked", _key(rule)) if row.github_id is not None]
        dropped = [row for row in rows if row.github_id in listed - chosen]
        own = [row for row in rows if row.github_id not in listed and row.full_name.startswith(_key(rule)[:-1])]
        gone = [row for row in own if row.state != RepositoryState.GONE]
        why = f"{rule.owner}'s list of repositories does not have it any more; the last good copy is kept"
        marks = [(RepositoryState.GONE.value, why, row.id) for row in gone]
        self._db.executemany(_GONE, marks)
        self._db.executemany(_DROP, [(row.id,) for row in dropped])
        if new or gone or dropped:
            self._db.tell(Topic.TRACKED)
        return Taken(new, len(gone), len(dropped))

    def _row(self, condition: str, value: object) -> _Row | None:
        return next(iter(self._rows(condition, value)), None)

    def _rows(self, condition: str, value: object) -> list[_Row]:
        columns = "id, github_id, full_name, tracked, configured_as, state"
        rows = self._db.execute(f"SELECT {columns} FROM repository WHERE {condition}", (value,)).fetchall()  # noqa: S608
        return [_Row(*row) for row in rows]


def _is_due(one: OwnerRecord, now: datetime) -> bool:
    waits = one.next_look_at is not None and now < one.next_look_at <= now + _LONGEST_WAIT
    return not waits or (one.looked_at is not None and one.looked_at > now)


def configure(db: Database, keys: Sequence[str], now: datetime) -> None:
    """Have exactly these ``owner/*``, all due at once. Inside ``write``."""
    at = instant_text(now)
    known = {row[0] for row in db.execute("SELECT configured_as FROM owner")}
    db.executemany("DELETE FROM owner WHERE configured_as = ?", [(key,) for key in sorted(known - set(keys))])
    upsert = """
        INSERT INTO owner (configured_as, next_look_at) VALUES (?, ?)
        ON CONFLICT (configured_as) DO UPDATE SET next_look_at = excluded.next_look_at, failures = 0
    """
    db.executemany(upsert, [(key, at) for key in keys])


def hint(db: Database, key: str, now: datetime, *, mends: bool = False) -> None:
    """A delivery tells that the list may have changed: look soon, but not more often than `HINT_SECONDS`.

    Where looks fail, their backoff counts, unless the delivery ``mends`` what they failed of. Inside ``write``.
    """
    row = db.execute("SELECT looked_at FROM owner WHERE configured_as = ?", (key,)).fetchone()
    soonest = now
    if row is not None and row[0] is not None:
        soonest = max(now, instant_value(row[0]) + timedelta(seconds=HINT_SECONDS))
    db.execute(_HINT, (instant_text(now), instant_text(soonest), key, mends))


def _key(rule: Rule) -> str:
    return f"{rule.owner}/*".lower()
