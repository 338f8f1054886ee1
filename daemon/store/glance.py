"""What a person looks at, in few statements a page: newest commits, folders, runs by id, and counts by the minute."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from daemon.model import Commit, Folder, FolderItem, RunRecord
from daemon.store import models as tables
from daemon.store import runs
from daemon.store.database import Database
from daemon.store.fields import instant_text, instant_value
from daemon.store.models import CURRENT

_NEWEST = """
    SELECT branch_id, sha, tree_sha, parents, author_name, author_email, authored_at, committed_at, message
    FROM "commit" WHERE branch_id IN ({marks})
      AND position = (SELECT max(position) FROM "commit" AS other WHERE other.branch_id = "commit".branch_id)
"""
_IN_FOLDER = f"""
    SELECT path, mode, sha, size, stored FROM entry
    WHERE branch_id = ? AND until = {CURRENT} AND path >= ? AND path < ? ORDER BY path LIMIT ?
"""  # noqa: S608 - a constant
# A minute is the first 16 characters of an instant: 2026-11-23T21:40. Ids and times grow together, so what is read
# ends at the newest row that is too old, without an index over times.
_DELIVERIES = """
    SELECT substr(received_at, 1, 16), count(*) FROM delivery
    WHERE id > coalesce((SELECT id FROM delivery WHERE received_at < ? ORDER BY id DESC LIMIT 1), 0)
      AND received_at >= ? GROUP BY 1
"""
_RUNS = """
    SELECT substr(finished_at, 1, 16), "trigger", count(*) FROM run
    WHERE id > coalesce((SELECT id FROM run WHERE finished_at < ? ORDER BY id DESC LIMIT 1), 0)
      AND finished_at >= ? GROUP BY 1, 2
"""
_LATENCIES = """
    SELECT delivery.received_at, run.finished_at FROM delivery JOIN run ON run.id = delivery.run_id
    WHERE delivery.id > coalesce((SELECT id FROM delivery WHERE received_at < ? ORDER BY id DESC LIMIT 1), 0)
      AND delivery.received_at >= ? AND run.outcome <> 'failed' ORDER BY delivery.id DESC LIMIT ?
"""
_BATCH = 200
_BEYOND_ANY_PATH = b"\xff" * 8192


class Glance:
    """Reads for pages; nothing here writes."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def newest_commits(self, branch_ids: Sequence[int]) -> dict[int, Commit]:
        """The newest stored commit of each branch that has one."""
        sql = _NEWEST.format(marks=",".join("?" * len(branch_ids)))
        with self._db.read():
            rows = self._db.execute(sql, branch_ids).fetchall()
        return {row[0]: Commit(row[1], row[2], tuple(json.loads(row[3])), *row[4:]) for row in rows}

    def runs(self, ids: Iterable[int]) -> dict[int, RunRecord]:
        """The runs of these ids that are still kept."""
        with self._db.read():
            rows = self._db.run(runs.select().where(tables.Run.id.in_(sorted(ids))))
            return {row.id: runs.record(row) for row in rows}

    def folder(self, branch_id: int, path: bytes, *, begin: bytes | None = None, limit: int) -> Folder:
        """What is in one folder of the current snapshot (``b""``: the top), by name, from ``begin`` on.

        Sub-folders are stepped over, not read: the cost is that of what is shown.
        """
        prefix = path + b"/" if path else b""
        position = max(prefix, begin or b"")
        items: list[FolderItem] = []
        with self._db.read():
            while rows := self._from(branch_id, prefix, position):
                for row in rows:
                    if len(items) == limit:
                        return Folder(tuple(items), begin=position)
                    name, slash, _ = bytes(row[0])[len(prefix) :].partition(b"/")
                    items.append(FolderItem(prefix + name, folder=True) if slash else _file(row))
                    # "0" is what follows "/": nothing that is in the sub-folder comes after it.
                    position = prefix + name + (b"0" if slash else b"\0")
                    if slash:
                        break
        return Folder(tuple(items), begin=None)

    def _from(self, branch_id: int, prefix: bytes, position: bytes) -> list[Any]:
        end = prefix[:-1] + b"0" if prefix else _BEYOND_ANY_PATH
        return self._db.execute(_IN_FOLDER, (branch_id, position, end, _BATCH)).fetchall()

    # -- by the minute ----------------------------------------------------------------------------

    def deliveries_by_minute(self, since: datetime) -> dict[str, int]:
        """How many deliveries came, by the minute as ``2026-11-23T21:40``."""
        at = instant_text(since)
        with self._db.read():
            return dict(self._db.execute(_DELIVERIES, (at, at)).fetchall())

    def runs_by_minute(self, since: datetime) -> list[tuple[str, str, int]]:
        """Minute, trigger, and how many runs ended."""
        at = instant_text(since)
        with self._db.read():
            return self._db.execute(_RUNS, (at, at)).fetchall()

    def latencies(self, since: datetime, *, limit: int) -> list[tuple[datetime, float]]:
        """When the newest deliveries came that led to a sync, and the seconds until it was done; oldest first."""
        at = instant_text(since)
        with self._db.read():
            rows = self._db.execute(_LATENCIES, (at, at, limit)).fetchall()
        spans = [(instant_value(received), instant_value(finished)) for received, finished in reversed(rows)]
        return [(received, max(0.0, (finished - received).total_seconds())) for received, finished in spans]


def _file(row: Any) -> FolderItem:
    return FolderItem(bytes(row[0]), folder=False, mode=row[1], sha=row[2], size=row[3], stored=bool(row[4]))
