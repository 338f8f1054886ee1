"""Records as the JSON API tells them, and the states that are derived in the telling. Pure."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from daemon.model import (
    ActionRecord,
    BranchRecord,
    BranchState,
    ChangeRecord,
    Claim,
    Commit,
    Delivery,
    DeliveryRecord,
    DeliveryStatus,
    Entry,
    JobRecord,
    NodeRecord,
    Outcome,
    RawFile,
    RepositoryRecord,
    RepositoryState,
    RunRecord,
    RunResult,
    SearchHit,
    SyncProgress,
)
from daemon.store.nodes import DEAD_SECONDS

ALLOWANCE_SECONDS = 2.0  # the one request that a promise includes, and the tick before it
ALLOWANCE_SHARE = 0.1

# Worst first: what a person should hear of a repository is what is worst about it.
WORST_FIRST = (
    BranchState.FAILED,
    BranchState.GONE,
    BranchState.STALE,
    BranchState.SYNCING,
    BranchState.EMPTY,
    BranchState.FRESH,
)

JOB_STATES = {"failed": BranchState.FAILED, "running": BranchState.SYNCING, "pending": BranchState.SYNCING}

REPOSITORY_STATES = {
    RepositoryState.GONE: BranchState.GONE,
    RepositoryState.EMPTY: BranchState.EMPTY,
    RepositoryState.BLOCKED: BranchState.FAILED,
}


OUT_OF_REACH = (RepositoryState.GONE, RepositoryState.BLOCKED)  # whatever is stored, it cannot be confirmed


def iso(value: datetime | None) -> str | None:
    """``2026-11-23T21:40:41.123Z``: ISO 8601, UTC, milliseconds."""
    if value is None:
        return None
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def is_stale(confirmed_at: datetime | None, *, now: datetime, promised_seconds: float) -> bool:
    """Whether GitHub was not seen to be at the stored commit within the promised bound."""
    if confirmed_at is None:
        return True
    allowance = max(ALLOWANCE_SECONDS, ALLOWANCE_SHARE * promised_seconds)
    return (now - confirmed_at).total_seconds() > promised_seconds + allowance


def seen_at(repository: RepositoryRecord, branch: BranchRecord) -> datetime | None:
    """When GitHub was last seen to be as is told: at the stored commit, or without that branch."""
    looks = (branch.confirmed_at, repository.polled_at if branch.gone or branch.empty else None)
    return max((at for at in looks if at is not None), default=None)


def branch_state(
    branch: BranchRecord,
    *,
    now: datetime,
    promised_seconds: float,
    repository: RepositoryState = RepositoryState.AVAILABLE,
) -> BranchState:
    """What a reader is told of a branch; ``promised_seconds`` is the promise for its ``repository``."""
    if repository in OUT_OF_REACH:
        return REPOSITORY_STATES[repository]
    if branch.gone:
        return BranchState.GONE
    if branch.empty:
        return BranchState.EMPTY
    if branch.job_state == "failed" or branch.last_error is not None:
        return BranchState.FAILED
    if branch.job_state in JOB_STATES:
        return JOB_STATES[branch.job_state]
    stale = is_stale(branch.confirmed_at, now=now, promised_seconds=promised_seconds)
    return BranchState.STALE if stale else BranchState.FRESH


def repository_state(record: RepositoryRecord, *, now: datetime, promised_seconds: float) -> BranchState:
    """The worst of its branches and of what GitHub says of the repository itself."""
    states = {
        branch_state(branch, now=now, promised_seconds=promised_seconds, repository=record.state)
        for branch in record.branches
    }
    if record.state in REPOSITORY_STATES:
        states.add(REPOSITORY_STATES[record.state])
    states = states or _without_branches(record)
    return next(state for state in WORST_FIRST if state in states)


def _without_branches(record: RepositoryRecord) -> set[BranchState]:
    """Nothing is known yet but the wish to sync, and how that goes."""
    if record.last_error is not None:
        return {BranchState.FAILED}
    return {JOB_STATES.get(state, BranchState.STALE) for state in record.job_states} or {BranchState.STALE}


def repository_json(
    record: RepositoryRecord, *, now: datetime, promised_seconds: float, syncs: Iterable[SyncProgress] = ()
) -> dict[str, Any]:
    """One repository with its branches, and the progress of the sync that runs, if one does."""
    return {
        "id": record.github_id,
        "full_name": record.full_name,
        "default_branch": record.default_branch,
        "archived": record.archived,
        "found_by": record.found_by,
        "state": repository_state(record, now=now, promised_seconds=promised_seconds).value,
        "last_error": _repository_error(record),
        "progress": next((progress_json(one) for one in syncs if one.repository_id == record.id), None),
        "webhook": record.webhook.value,
        "missed_webhooks": record.missed_webhooks,
        "webhook_reason": record.webhook_reason,
        "next_poll_at": iso(record.next_poll_at),
        "polled_at": iso(record.polled_at),
        "promised_seconds": promised_seconds,
        "branches": [branch_json(record, one, now=now, promised_seconds=promised_seconds) for one in record.branches],
    }


def progress_json(one: SyncProgress) -> dict[str, Any]:
    """How far a running sync has come."""
    told = asdict(one)
    del told["repository_id"]
    return told


def _out_of_reach(record: RepositoryRecord) -> str | None:
    return record.last_error if record.state in OUT_OF_REACH else None


def _repository_error(record: RepositoryRecord) -> str | None:
    if record.last_error is not None:
        return record.last_error
    errors = (branch.last_error or branch.waiting_for for branch in record.branches)
    return next((error for error in errors if error is not None), None)


def branch_json(
    repository: RepositoryRecord, branch: BranchRecord, *, now: datetime, promised_seconds: float
) -> dict[str, Any]:
    """One branch; its next poll is that of its repository."""
    return {
        "name": branch.name,
        "head_sha": branch.head_sha,
        "tree_sha": branch.tree_sha,
        "remote_sha": branch.remote_sha,
        "synced_at": iso(branch.synced_at),
        "confirmed_at": iso(branch.confirmed_at),
        "tree_verified": branch.tree_verified,
        "tree_error": branch.tree_error,
        "state": branch_state(branch, now=now, promised_seconds=promised_seconds, repository=repository.state).value,
        "last_error": branch.last_error or branch.waiting_for or _out_of_reach(repository),
        "last_trigger": branch.last_trigger,
        "next_poll_at": iso(repository.next_poll_at),
    }


def entry_json(one: Entry) -> dict[str, Any]:
    """One entry of a snapshot; a path that is not UTF-8 is also given as the bytes it is."""
    told: dict[str, Any] = {
        "path": one.path.decode("utf-8", "replace"),
        "mode": one.mode,
        "sha": one.sha,
        "size": one.size,
        "stored": one.stored,
    }
    if told["path"].encode() != one.path:
        told["path_base64"] = base64.b64encode(one.path).decode("ascii")
    return told


def content_json(path: bytes, found: RawFile) -> dict[str, Any]:
    """One file with its content: as text where it is UTF-8, else in base64."""
    told = entry_json(Entry(path, found.mode, found.sha, found.size, stored=True))
    try:
        return told | {"content": found.content.decode()}
    except UnicodeDecodeError:
        return told | {"content_base64": base64.b64encode(found.content).decode("ascii")}


def commit_json(one: Commit) -> dict[str, Any]:
    """One commit, with its instants as GitHub gave them."""
    return {
        "sha": one.sha,
        "tree_sha": one.tree_sha,
        "parents": list(one.parents),
        "author": {"name": one.author_name, "email": one.author_email, "date": one.authored_at},
        "committed_at": one.committed_at,
        "message": one.message,
    }


def run_json(record: RunRecord) -> dict[str, Any]:
    """One run."""
    return _plain(asdict(record))


def delivery_json(record: DeliveryRecord) -> dict[str, Any]:
    """One delivery."""
    return _plain(asdict(record))


def job_json(record: JobRecord) -> dict[str, Any]:
    """The durable wish for a sync of one branch."""
    return _plain(asdict(record))


def action_json(record: ActionRecord) -> dict[str, Any]:
    """How far an action has come on a branch."""
    return {
        "action": record.action,
        "kind": record.kind,
        "target": record.target,
        "repository": record.repository,
        "branch": record.branch,
        "state": record.state,
        "attempts": record.attempts,
        "run_after": iso(record.run_after),
        "commit_sha": record.commit_sha,
        "last_error": record.last_error,
        "note": record.note,
        "output": record.output,
        "finished_at": iso(record.finished_at),
    }


def node_json(record: NodeRecord, *, this: str, digest: str | None, now: datetime) -> dict[str, Any]:
    """One daemon of those that share the store; ``digest`` is that of the configuration of the one who answers."""
    return {
        "id": record.id,
        "host": record.host,
        "pid": record.pid,
        "version": record.version,
        "started_at": iso(record.started_at),
        "heartbeat_at": iso(record.heartbeat_at),
        "alive": (now - record.heartbeat_at).total_seconds() < DEAD_SECONDS,
        "this": record.id == this,
        "config_digest": record.config_digest,
        "same_config": record.config_digest == digest,
        "admin_url": record.admin_url,
    }


def change_json(record: ChangeRecord) -> dict[str, Any]:
    """One change of the feed."""
    return {
        "id": record.id,
        "type": record.type,
        "repository": record.repository,
        "branch": record.branch,
        "before": record.before,
        "after": record.after,
        "added": record.added,
        "modified": record.modified,
        "removed": record.removed,
        "entities": record.entities.as_json(),
        "created_at": iso(record.created_at),
    }


def hit_json(hit: SearchHit) -> dict[str, Any]:
    """One file that holds what was searched for."""
    return asdict(hit)


def delivered_json(delivery: Delivery, status: DeliveryStatus) -> dict[str, Any]:
    """A delivery that was just stored; its record's number is not known yet."""
    return {
        "guid": delivery.guid,
        "event": delivery.event,
        "action": delivery.action,
        "repository": delivery.repository,
        "ref": delivery.ref,
        "before": delivery.before,
        "after": delivery.after,
        "received_at": iso(delivery.received_at),
        "status": status.value,
        "reason": delivery.reason,
    }


def started_json(claim: Claim) -> dict[str, Any]:
    """A sync that begins."""
    return {
        "repository": claim.repository.full_name,
        "branch": claim.branch,
        "trigger": claim.triggers[0].value if claim.triggers else None,
        "triggers": [trigger.value for trigger in claim.triggers],
        "attempt": claim.attempt,
    }


def ended_json(claim: Claim, result: RunResult | None) -> dict[str, Any]:
    """A sync that ended; without a result it was put off, and its outcome is null."""
    told = result or RunResult(Outcome.UNCHANGED, None, None, claim.wanted_at, claim.wanted_at)
    return started_json(claim) | {
        "outcome": result.outcome.value if result else None,
        "before": told.before,
        "after": told.after,
        "error": told.error,
        "added": told.added,
        "modified": told.modified,
        "removed": told.removed,
        "started_at": iso(result.started_at if result else None),
        "finished_at": iso(result.finished_at if result else None),
        "requests": told.requests,
    }


def chosen_branch(record: RepositoryRecord, wanted: str | None) -> BranchRecord | None:
    """The branch of that name; without one the default branch, else the only one."""
    named = [one for one in record.branches if one.name == (wanted or record.default_branch)]
    if not named and wanted is None and len(record.branches) == 1:
        named = list(record.branches)
    return named[0] if named else None


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: iso(value) if isinstance(value, datetime) else value for name, value in fields.items()}


def readiness(records: list[tuple[RepositoryRecord, float]], *, now: datetime) -> list[str]:
    """Why not every tracked branch is fresh, in counts only: who asks need not be allowed to see names."""
    never = stale = 0
    for record, promised_seconds in records:
        if not record.expected:
            continue
        if not record.branches and record.job_states and record.state is not RepositoryState.EMPTY:
            never += 1  # the default branch, whose name is not known yet
        for branch in record.branches:
            if branch.synced_at is None and not branch.gone and not branch.empty:
                never += 1
            elif is_stale(seen_at(record, branch), now=now, promised_seconds=promised_seconds):
                stale += 1
    told = [f"{never} tracked branches were never synced"] if never else []
    return [*told, f"{stale} tracked branches are staler than promised"] if stale else told
