"""The states that are derived when somebody asks: the words of the contract over stored facts."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from daemon.model import BranchRecord, RepositoryRecord, RepositoryState, WebhookHealth
from daemon.web.answers import branch_state, iso, readiness, repository_json, repository_state

NOW = datetime(2026, 11, 23, 21, 40, 41, 123456, tzinfo=UTC)
BRANCH = BranchRecord(
    id=1,
    name="main",
    head_sha="1" * 40,
    tree_sha="2" * 40,
    remote_sha="1" * 40,
    synced_at=NOW,
    confirmed_at=NOW,
    tree_verified=True,
    tree_error=None,
    last_error=None,
    last_trigger="webhook",
    gone=False,
    empty=False,
    job_state="idle",
)
REPOSITORY = RepositoryRecord(
    id=1,
    github_id=1,
    owner="octo",
    name="demo",
    default_branch="main",
    state=RepositoryState.AVAILABLE,
    webhook=WebhookHealth.UNKNOWN,
    missed_webhooks=0,
    last_error=None,
    next_poll_at=None,
    polled_at=None,
    branches=(BRANCH,),
    job_states=("idle",),
)
LONG_AGO = NOW - timedelta(hours=1)
NEVER = replace(BRANCH, synced_at=None, confirmed_at=None, head_sha=None)


def test_an_instant_is_utc_with_milliseconds():
    assert iso(NOW) == "2026-11-23T21:40:41.123Z"
    assert iso(NOW.astimezone(timezone(timedelta(hours=5)))) == "2026-11-23T21:40:41.123Z"
    assert iso(None) is None


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, "fresh"),
        ({"job_state": "pending"}, "syncing"),
        ({"job_state": "running"}, "syncing"),
        ({"job_state": "failed"}, "failed"),
        ({"last_error": "x", "job_state": "pending"}, "failed"),
        ({"empty": True, "job_state": "running"}, "empty"),
        ({"gone": True, "last_error": "x"}, "gone"),
        ({"confirmed_at": None}, "stale"),
    ],
)
def test_a_branch_is_what_is_worth_knowing_first(changes, state):
    assert branch_state(replace(BRANCH, **changes), now=NOW, promised_seconds=60.0) == state


@pytest.mark.parametrize(("promised", "kept", "broken"), [(1.0, 3.0, 3.1), (60.0, 66.0, 66.1), (900.0, 990.0, 990.1)])
def test_a_branch_is_fresh_within_the_promise_and_one_request(promised, kept, broken):
    def after(seconds: float) -> str:
        return branch_state(BRANCH, now=NOW + timedelta(seconds=seconds), promised_seconds=promised)

    assert (after(kept), after(broken)) == ("fresh", "stale")


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, "fresh"),
        ({"branches": (BRANCH, replace(BRANCH, job_state="running"))}, "syncing"),
        ({"branches": (replace(BRANCH, job_state="running"), NEVER)}, "stale"),
        ({"branches": (NEVER, replace(BRANCH, last_error="x"))}, "failed"),
        ({"state": RepositoryState.GONE}, "gone"),
        ({"state": RepositoryState.BLOCKED}, "failed"),
        ({"branches": (), "job_states": ("pending",)}, "syncing"),
        ({"branches": (), "job_states": ("failed",)}, "failed"),
        ({"branches": (), "job_states": ("idle",)}, "stale"),
        ({"branches": (), "job_states": ()}, "stale"),
        ({"branches": (), "job_states": ("pending",), "last_error": "401"}, "failed"),
        ({"branches": (), "state": RepositoryState.EMPTY, "job_states": ("idle",)}, "empty"),
        ({"branches": (), "state": RepositoryState.GONE}, "gone"),
    ],
)
def test_a_repository_is_the_worst_of_what_belongs_to_it(changes, state):
    assert repository_state(replace(REPOSITORY, **changes), now=NOW, promised_seconds=60.0) == state


def test_the_last_error_of_a_branch_is_told_of_its_repository_too():
    told = repository_json(
        replace(REPOSITORY, branches=(BRANCH, replace(BRANCH, last_error="tree differs"))),
        now=NOW,
        promised_seconds=60.0,
    )
    assert told["last_error"] == "tree differs"


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        ({}, 0),
        ({"branches": (NEVER,)}, 1),
        ({"branches": (), "job_states": ("pending",)}, 1),
        ({"branches": (), "job_states": ()}, 0),
        ({"branches": (), "job_states": ("idle",), "state": RepositoryState.EMPTY}, 0),
        ({"branches": (replace(NEVER, empty=True, confirmed_at=NOW),)}, 0),
        ({"branches": (replace(NEVER, gone=True, confirmed_at=NOW),)}, 0),
        ({"branches": (replace(BRANCH, confirmed_at=LONG_AGO),)}, 1),
        ({"branches": (replace(BRANCH, confirmed_at=LONG_AGO),), "polled_at": NOW}, 1),
        ({"branches": (replace(BRANCH, confirmed_at=LONG_AGO, gone=True),)}, 1),
        ({"branches": (replace(BRANCH, confirmed_at=LONG_AGO, gone=True),), "polled_at": NOW}, 0),
        ({"branches": (replace(BRANCH, confirmed_at=LONG_AGO, empty=True),), "polled_at": NOW}, 0),
        ({"branches": (replace(BRANCH, confirmed_at=NOW, gone=True),), "polled_at": LONG_AGO}, 0),
        ({"branches": (NEVER, replace(BRANCH, confirmed_at=LONG_AGO))}, 2),
    ],
)
def test_readiness_counts_what_was_never_synced_or_is_staler_than_promised(changes, reasons):
    assert len(readiness([(replace(REPOSITORY, **changes), 60.0)], now=NOW)) == reasons
