"""What GitHub's delivery log told of each repository's webhook, and when it is read next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from daemon.model import RepositoryRef, WebhookHealth
from daemon.store.database import Database
from daemon.store.fields import instant_text, optional_plain, optional_value, plain

# A due time further ahead than any that is set can only come from a wall clock that jumped back since.
_FARTHEST = timedelta(days=2)
_BATCH = 500

_DUE = """
    SELECT id, owner, name, github_id, hook_log_until, hook_log_due_at FROM repository
    WHERE tracked AND (hook_log_due_at IS NULL OR hook_log_due_at <= ? OR hook_log_due_at > ?)
    ORDER BY hook_log_due_at IS NOT NULL, hook_log_due_at, id LIMIT 1
"""
_TAKE = "UPDATE repository SET hook_log_due_at = ? WHERE id = ? AND hook_log_due_at IS NOT DISTINCT FROM ?"
_COUNTED = "SELECT missed_webhooks, hook_log_missed FROM repository WHERE id = ?"
_LATER = "UPDATE repository SET hook_log_due_at = ? WHERE id = ? AND hook_log_due_at = ?"
_NEWEST = "SELECT COALESCE(MAX(id), 0) FROM delivery"
_CAME = "SELECT 1 FROM delivery WHERE id > ? AND repository_id = ? LIMIT 1"
_READ = """
    UPDATE repository SET missed_webhooks = ?, hook_log_missed = ?, hook_log_until = ?, webhook_reason = ? WHERE id = ?
"""
_ANEW = "UPDATE repository SET webhook_reason = NULL, hook_log_due_at = NULL WHERE id = ?"
# One that is healthy though its log was never read has deliveries come by another URL, or from an organisation.
_UNHOOKED = """
    UPDATE repository SET webhook_reason = ?, webhook = CASE WHEN webhook = 'healthy' THEN 'unknown' ELSE webhook END,
                          hook_log_until = CASE WHEN webhook = 'healthy' THEN NULL ELSE hook_log_until END
    WHERE id = ? AND (webhook <> 'healthy' OR hook_log_until IS NOT NULL)
"""
_MISSING = """
    UPDATE repository SET webhook = ?, suspect_sha = NULL, suspect_branch = NULL, suspect_at = NULL WHERE id = ?
"""


@dataclass(frozen=True, slots=True)
class LogTarget:
    """A repository whose log is to be read, and up to when it was; None before the first time.

    It ``waits`` when somebody does: it has just been added, or its webhook changed. ``lease`` is what its due time is
    meanwhile: another one tells that somebody wants a look of his own. ``newest`` is the newest delivery's row id.
    """

    repository_id: int
    repository: RepositoryRef
    until: datetime | None
    waits: bool
    lease: str
    newest: int


class HookLog:
    """Due times and findings, in columns of the repository: a restart loses nothing."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def take(self, *, now: datetime, lease_seconds: float) -> LogTarget | None:
        """The repository whose log has been due for longest, for this caller alone until the lease ends."""
        with self._db.read():
            row = self._db.execute(_DUE, (instant_text(now), instant_text(now + _FARTHEST))).fetchone()
            newest = self._db.execute(_NEWEST).fetchone()[0]
        if row is None:
            return None
        until = instant_text(now + timedelta(seconds=lease_seconds))
        with self._db.write():
            taken = self._db.execute(_TAKE, (until, row[0], row[5])).rowcount
        if not taken:
            return None
        repository = RepositoryRef(*row[1:4])
        return LogTarget(row[0], repository, optional_value(row[4]), waits=row[5] is None, lease=until, newest=newest)

    def arrived(self, guids: Sequence[str]) -> set[str]:
        """Which of these deliveries are stored here."""
        found: set[str] = set()
        with self._db.read():
            for start in range(0, len(guids), _BATCH):
                batch = [plain(guid) for guid in guids[start : start + _BATCH]]
                marks = ",".join("?" * len(batch))
                rows = self._db.execute(f"SELECT guid FROM delivery WHERE guid IN ({marks})", batch)  # noqa: S608 - marks
                found |= {row[0] for row in rows}
        return found

    def later(self, target: LogTarget, *, due_at: datetime) -> bool:
        """Look again then. False, and nothing done, where somebody wants a look sooner, or has taken it meanwhile."""
        with self._db.write():
            again = (instant_text(due_at), target.repository_id, target.lease)
            return bool(self._db.execute(_LATER, again).rowcount)

    def sooner(self, *, due_at: datetime) -> None:
        """Read no log later than ``due_at``."""
        at = instant_text(due_at)
        with self._db.write():
            self._db.execute("UPDATE repository SET hook_log_due_at = ? WHERE hook_log_due_at > ?", (at, at))

    def anew(self, repository_id: int) -> None:
        """Its webhook was changed: what was told of it is not so any more; look soon."""
        with self._db.write():
            self._db.execute(_ANEW, (repository_id,))

    def unhooked(self, target: LogTarget, *, due_at: datetime, reason: str) -> bool:
        """Nothing is sent here: ``reason`` tells why. False where deliveries are known to come all the same."""
        with self._db.write():
            if not self.later(target, due_at=due_at) or self._came(target):
                return False
            return bool(self._db.execute(_UNHOOKED, (plain(reason), target.repository_id)).rowcount)

    def read(self, target: LogTarget, *, until: datetime, due_at: datetime, missed: int, reason: str | None) -> int:
        """The log was read up to ``until``, and told of so many missed pushes; how many of them are news.

        With a ``reason`` the newest delivery failed: then a missed push means that webhooks do not work now, unless
        one has come meanwhile.
        """
        repository_id = target.repository_id
        with self._db.write():
            if not self.later(target, due_at=due_at):
                return 0  # its webhook was changed: what was read is of before, and is read again
            if self._came(target):
                reason = None
            counted, at_last_look = self._db.execute(_COUNTED, (repository_id,)).fetchone()
            # What polling has counted since the last look are the same pushes: only those beyond them are news.
            total = max(counted, at_last_look + missed)
            self._db.execute(_READ, (total, total, instant_text(until), optional_plain(reason), repository_id))
            if missed and reason is not None:
                self._db.execute(_MISSING, (WebhookHealth.MISSING.value, repository_id))
        return int(total - counted)

    def _came(self, target: LogTarget) -> bool:
        """Whether a delivery has come since the look began: whatever the log told, webhooks work."""
        return self._db.execute(_CAME, (target.newest, target.repository_id)).fetchone() is not None
