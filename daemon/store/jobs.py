"""The queue: one durable job a branch, claimed under a lease and a fencing token.

Every ending of a claim first releases it where ``token`` still matches. When that changes no row, another worker
owns the job (or it was taken back), and the transaction writes nothing: LeaseLost.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from daemon.errors import LeaseLost
from daemon.model import (
    Announcement,
    Claim,
    JobRecord,
    QueueCounts,
    RepositoryRef,
    RunResult,
    Sighting,
    Topic,
    Trigger,
)
from daemon.store import runs, wishes
from daemon.store.database import Database
from daemon.store.fields import instant_text, instant_value, json_text, optional_plain, optional_text, optional_value
from daemon.store.wishes import Wish

# An instant further ahead than any wait of ours can only come from a wall clock that jumped back since.
_CLOCK_JUMP = timedelta(hours=2)

_JOINED = """
    FROM job
    JOIN branch ON branch.id = job.branch_id
    JOIN repository ON repository.id = branch.repository_id
"""
_OPEN = "job.wanted_generation > job.done_generation AND NOT job.parked AND branch.tracked AND repository.tracked"
_CLAIMABLE = f"""
    SELECT job.id
    {_JOINED}
    WHERE {_OPEN}
      AND (job.run_after IS NULL OR job.run_after <= ? OR job.run_after > ?)
      AND (job.lease_owner IS NULL OR job.lease_until <= ? OR job.lease_until > ?)
      {{among}}
    ORDER BY job.priority, job.wanted_at, job.id LIMIT 1
"""
# Claims share their turn with those of other daemons, and with deliveries: all of a claim is about one job, whose row
# it locks as it finds it, and whoever has a row just now, a claim or a delivery, is not waited for. All else that
# writes to jobs takes a turn alone.
_PASSING_OVER = "FOR UPDATE OF job SKIP LOCKED"
_WAITING = "FOR UPDATE OF job"
# How often in a row that may find nothing although there is something: a job that deliveries to several daemons have
# locked all the time, each as soon as the one before lets go, would never be free.
_MOST_PASSED_OVER = 20
_CLAIM = """
    UPDATE job SET lease_owner = ?, lease_until = ?, token = token + 1 WHERE id = ({claimable} {lock})
    RETURNING branch_id, token
"""
_CLAIMED = f"""
    SELECT repository.id, repository.owner, repository.name, repository.github_id, branch.name, job.sighting
    {_JOINED} WHERE job.branch_id = ?
"""
_RENEW = "UPDATE job SET lease_until = ? WHERE id = ? AND token = ? AND lease_owner IS NOT NULL"
_RELEASE = """
    UPDATE job SET lease_owner = NULL, lease_until = NULL WHERE id = ? AND token = ? AND lease_owner IS NOT NULL
"""
_PARK_UNREADABLE = """
    UPDATE job SET parked = TRUE, triggers = '[]', sighting = NULL, wanted_at = NULL, run_after = NULL, last_error = ?,
                   lease_owner = NULL, lease_until = NULL
    WHERE branch_id = ?
"""
_NOTE = "UPDATE job SET last_error = ?, sighting = ? WHERE id = ?"
_STATE = """
    CASE WHEN job.lease_owner IS NOT NULL THEN 'running'
         WHEN job.parked THEN 'failed'
         WHEN job.wanted_generation > job.done_generation THEN 'pending'
         ELSE 'idle' END
"""


class Jobs:
    """Wants, claims and endings of syncs, each one short transaction."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._passed_over = 0

    # -- wanting ----------------------------------------------------------------------------------

    def want(self, branch_ids: Iterable[int], trigger: Trigger, *, now: datetime) -> bool:
        """Ask for a sync of each branch; whether any will run that would not have run anyway."""
        with self._db.write():
            asked = [self._want(branch_id, trigger, now) for branch_id in branch_ids]
        return any(news for _, news in asked)

    def revive(self, branch_ids: Sequence[int], trigger: Trigger, *, now: datetime) -> bool:
        """Ask again for what of these branches was parked as failed; False where nothing was."""
        among = ",".join("?" * len(branch_ids))
        with self._db.write():
            parked = self._db.execute(
                f"SELECT branch_id FROM job WHERE parked AND branch_id IN ({among})",  # noqa: S608 - question marks
                branch_ids,
            ).fetchall()
            asked = [self._want(branch_id, trigger, now) for (branch_id,) in parked]
        return any(news for _, news in asked)

    def _want(self, branch_id: int, trigger: Trigger, now: datetime) -> tuple[int, bool]:
        """The generation that includes this trigger, and whether it is news. Inside ``write``."""
        wish = wishes.load(self._db, branch_id, now)
        before = wish.open_from
        news = wish.ask(trigger, now)
        wishes.save(self._db, wish)
        if wish.opens_sooner(before):
            self._db.tell(Topic.JOB)
        return wish.wanted, news

    # -- claiming ---------------------------------------------------------------------------------

    def claim(
        self, owner: str, *, now: datetime, lease_seconds: float, branch_ids: Sequence[int] | None = None
    ) -> Claim | None:
        """The next job that may run, leased for ``lease_seconds``; None when there is none.

        Pushes and people first, then whoever waits longest; only of ``branch_ids`` when they are given. An attempt
        counts here, so that a job which kills the process is counted too. One whose row cannot be read is parked.
        """
        at, far = instant_text(now), instant_text(now + _CLOCK_JUMP)
        among = "" if branch_ids is None else f"AND job.branch_id IN ({','.join('?' * len(branch_ids))})"
        claimable, params = _CLAIMABLE.format(among=among), (at, far, at, far, *(branch_ids or ()))
        with self._db.read():  # most looks find nothing: those must not write
            if self._db.execute(claimable, params).fetchone() is None:
                return None
        sql = _CLAIM.format(claimable=claimable, lock=self._lock())
        lease = (owner, instant_text(now + timedelta(seconds=lease_seconds)))
        with self._db.write(together=True):
            while rows := self._db.execute(sql, (*lease, *params)).fetchall():
                branch_id, token = rows[0]
                self._passed_over = 0
                try:
                    return self._claimed(branch_id, token, now)
                except (ValueError, TypeError) as error:  # others wait behind it
                    why = f"what the store holds about this job cannot be read ({error}); parked until it is asked for"
                    self._db.execute(_PARK_UNREADABLE, (optional_plain(why), branch_id))
        self._passed_over += 1
        return None

    def _lock(self) -> str:
        if not self._db.shared:
            return ""
        return _PASSING_OVER if self._passed_over < _MOST_PASSED_OVER else _WAITING

    def _claimed(self, branch_id: int, token: int, now: datetime) -> Claim:
        """The claim of a job that is leased already; what it takes up is written last."""
        wish = wishes.load(self._db, branch_id, now)
        wish.claim(now)
        repository_id, owner, name, github_id, branch, sighting = self._db.execute(_CLAIMED, (branch_id,)).fetchone()
        claim = Claim(
            job_id=wish.job_id,
            branch_id=branch_id,
            repository_id=repository_id,
            repository=RepositoryRef(owner, name, github_id),
            branch=branch,
            token=token,
            generation=wish.claimed,
            triggers=tuple(Trigger(asked.trigger) for asked in wish.asked),
            attempt=wish.attempts,
            wanted_at=instant_value(wish.wanted_at or instant_text(now)),
            sighting=_sighting(sighting),
        )
        wishes.save(self._db, wish)
        return claim

    def renew(self, claim: Claim, *, now: datetime, lease_seconds: float) -> bool:
        """Prolong the lease to ``lease_seconds`` from ``now``; False when the claim is lost."""
        until = instant_text(now + timedelta(seconds=lease_seconds))
        with self._db.write():
            return self._db.execute(_RENEW, (until, claim.job_id, claim.token)).rowcount == 1

    def recover(self, *, now: datetime) -> int:  # noqa: ARG002 - leases of the dead end whatever the time is
        """Release every lease, for a start under the store's lock: nobody else can be alive. How many there were."""
        with self._db.write():
            return self._db.execute(
                "UPDATE job SET lease_owner = NULL, lease_until = NULL WHERE lease_owner IS NOT NULL"
            ).rowcount

    # -- endings ----------------------------------------------------------------------------------

    def waiting(
        self, claim: Claim, *, run_after: datetime, sighting: Sighting | None, note: str | None, now: datetime
    ) -> None:
        """Hand back until ``run_after`` without counting the attempt. Raises LeaseLost."""
        with self._db.write():
            wish = release(self._db, claim, now)
            wish.attempts = max(wish.attempts - 1, 0)
            wish.run_after = instant_text(run_after)
            wishes.save(self._db, wish)
            self._note(claim, note, sighting)

    def hand_back(self, claim: Claim, *, now: datetime) -> None:
        """Hand back at once without counting the attempt, for a stop. Raises LeaseLost."""
        with self._db.write():
            wish = release(self._db, claim, now)
            wish.attempts = max(wish.attempts - 1, 0)
            wishes.save(self._db, wish)
            self._db.tell(Topic.JOB)

    def failed(self, claim: Claim, result: RunResult, *, run_after: datetime | None, park: bool, now: datetime) -> int:
        """Record a failed run and hand back: until ``run_after``, or parked until something asks again.

        What a push or a person asked for during the run is not parked with it. The run's id; raises LeaseLost.
        """
        with self._db.write():
            wish = release(self._db, claim, now)
            wish.run_after = optional_text(run_after)
            if park and wish.asked_anew():
                wish.attempts = 0
            elif park:
                wish.park(now)
            wishes.save(self._db, wish)
            self._note(claim, result.error, claim.sighting)
            self._db.execute(
                "UPDATE branch SET last_error = ?, last_trigger = ? WHERE id = ?",
                (optional_plain(result.error), claim.triggers[0].value, claim.branch_id),
            )
            return runs.insert(self._db, claim, result)

    def finished(
        self,
        claim: Claim,
        result: RunResult,
        *,
        now: datetime,
        record: bool,
        served: Sequence[int],
        head: str | None,
    ) -> int | None:
        """End a run that changed nothing: the claimed generation and the deliveries ``served`` are done.

        ``head`` is what GitHub was at (None: no such branch); when it was read is told to ``Repositories.confirm``.
        The run's id when ``record``. Raises LeaseLost.
        """
        with self._db.write():
            wish = release(self._db, claim, now)
            run_id = runs.insert(self._db, claim, result) if record else None
            complete(self._db, claim, wish, served=served, run_id=run_id, now=now, news=False)
            self._db.execute("UPDATE branch SET last_trigger = ? WHERE id = ?", _last_trigger(claim))
            if head is not None:
                self._db.execute(
                    "UPDATE branch SET last_error = NULL WHERE id = ? AND head_sha = ?", (claim.branch_id, head)
                )
            return run_id

    def _note(self, claim: Claim, error: str | None, sighting: Sighting | None) -> None:
        self._db.execute(_NOTE, (optional_plain(error), _sighting_text(sighting), claim.job_id))

    # -- looking ----------------------------------------------------------------------------------

    def counts(self, now: datetime) -> QueueCounts:
        """The queue of tracked branches in four numbers."""
        with self._db.read():
            rows = self._db.execute(
                f"SELECT {_STATE} AS state, count(*), min(job.wanted_at) {_JOINED}"
                " WHERE branch.tracked AND repository.tracked GROUP BY 1"
            ).fetchall()
        number = {state: count for state, count, _ in rows}
        waiting = [at for state, _, at in rows if at is not None and state in {"pending", "running"}]
        oldest = (now - instant_value(min(waiting))).total_seconds() if waiting else 0.0
        return QueueCounts(
            pending=number.get("pending", 0),
            running=number.get("running", 0),
            failed=number.get("failed", 0),
            oldest_seconds=max(0.0, oldest),
        )

    def record(self, branch_id: int) -> JobRecord:
        """The job of one branch as it is shown. Raises LookupError for an unknown branch."""
        with self._db.read():
            row = self._db.execute(
                "SELECT job.id, repository.owner, repository.name, branch.name, job.wanted_generation,"
                " job.done_generation, job.triggers, job.attempts, job.run_after, job.last_error,"
                f" {_STATE} {_JOINED} WHERE job.branch_id = ?",
                (branch_id,),
            ).fetchone()
        if row is None:
            raise LookupError(f"no job for branch {branch_id}")
        job_id, owner, name, branch, wanted, done, triggers, attempts, run_after, last_error, state = row
        return JobRecord(
            id=job_id,
            repository=f"{owner}/{name}",
            branch=branch,
            state=state,
            wanted_generation=wanted,
            done_generation=done,
            triggers=wishes.trigger_names(triggers),
            attempts=attempts,
            run_after=optional_value(run_after),
            last_error=last_error,
        )

    def next_due(self, now: datetime) -> float | None:
        """Seconds until the earliest job may be claimed, 0.0 for one that may now; None when nothing waits."""
        with self._db.read():
            rows = self._db.execute(
                f"SELECT job.run_after, job.lease_owner, job.lease_until {_JOINED} WHERE {_OPEN}"
            ).fetchall()
        at, far = instant_text(now), instant_text(now + _CLOCK_JUMP)
        waits = [_later(run_after, lease_until if owner else None, at, far) for run_after, owner, lease_until in rows]
        return (instant_value(min(waits)) - now).total_seconds() if waits else None

    def announcements(self, branch_id: int, *, generation: int) -> list[Announcement]:
        """The heads that accepted deliveries announced up to ``generation`` and no run acted on, as they came."""
        with self._db.read():
            rows = self._db.execute(
                'SELECT id, "before", "after", received_at FROM delivery'
                " WHERE branch_id = ? AND generation <= ? AND NOT acted AND status = 'accepted' ORDER BY id",
                (branch_id, generation),
            ).fetchall()
        return [Announcement(id_, before, after, instant_value(at)) for id_, before, after, at in rows]

    def moved_away(self, branch_id: int, sha: str) -> bool:
        """Whether an accepted delivery says that the branch was at ``sha`` and left it."""
        return self._exists('branch_id = ? AND "before" = ? AND status = ?', (branch_id, sha, "accepted"))

    def acted_head(self, branch_id: int, sha: str) -> bool:
        """Whether ``sha`` was announced and acted on, or is what a run of the branch ended with."""
        with self._db.read():
            return self._exists('branch_id = ? AND "after" = ? AND acted', (branch_id, sha)) or runs.ended_at(
                self._db, branch_id, sha
            )

    def _exists(self, condition: str, params: tuple[Any, ...]) -> bool:
        with self._db.read():
            row = self._db.execute(f"SELECT 1 FROM delivery WHERE {condition} LIMIT 1", params).fetchone()  # noqa: S608
        return row is not None


def release(db: Database, claim: Claim, now: datetime) -> Wish:
    """End the lease of a claim and read its wish. Raises LeaseLost: then nothing may be written. Inside ``write``."""
    if db.execute(_RELEASE, (claim.job_id, claim.token)).rowcount != 1:
        raise LeaseLost(
            f"another worker took over {claim.repository.full_name}@{claim.branch or '(default branch)'}; "
            f"what attempt {claim.attempt} fetched is dropped"
        )
    return wishes.load(db, claim.branch_id, now)


def complete(
    db: Database,
    claim: Claim,
    wish: Wish,
    *,
    served: Sequence[int],
    run_id: int | None,
    now: datetime,
    news: bool,
) -> None:
    """Write down that a claim was served, with the deliveries it acted on. Inside ``write``, after ``release``."""
    wish.serve(claim.generation, now, news=news)
    wishes.save(db, wish)
    db.execute(_NOTE, (None, None, claim.job_id))
    db.executemany("UPDATE delivery SET acted = TRUE, run_id = ? WHERE id = ?", [(run_id, id_) for id_ in served])


def _last_trigger(claim: Claim) -> tuple[str, int]:
    return claim.triggers[0].value, claim.branch_id


def _later(run_after: str | None, lease_until: str | None, now: str, far: str) -> str:
    """The later of the two instants, ``now`` when neither is ahead; one beyond ``far`` counts for nothing."""
    ahead = [at for at in (run_after, lease_until) if at is not None and now < at <= far]
    return max(ahead, default=now)


def _sighting(text: str | None) -> Sighting | None:
    if text is None:
        return None
    head, first_at, reads = json.loads(text)
    return Sighting(head, instant_value(first_at), reads)


def _sighting_text(sighting: Sighting | None) -> str | None:
    return json_text([sighting.head, instant_text(sighting.first_at), sighting.reads]) if sighting else None
