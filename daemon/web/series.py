"""``/api/v1/series``: the last day by the minute, for plots. Columns of numbers, as they are drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from daemon.model import Sample, Trigger
from daemon.store.glance import Glance
from daemon.web.api import Call
from daemon.web.app import Answer, encode

MINUTES = 24 * 60
MINUTE_SECONDS = 60
MOST_LATENCIES = 2000
RESOURCES = ("core", "graphql")


def series(call: Call) -> Answer:
    """All of it in one answer; what is sampled reaches back to the start of the daemon at most."""
    until = call.deps.now().replace(second=0, microsecond=0) + timedelta(minutes=1)
    since = until - timedelta(minutes=MINUTES)
    glance = Glance(call.deps.database)
    with call.deps.database.read():
        deliveries = glance.deliveries_by_minute(since)
        runs = glance.runs_by_minute(since)
        latencies = glance.latencies(since, limit=MOST_LATENCIES)
    return encode(
        {
            "since": since.isoformat().replace("+00:00", "Z"),
            "step_seconds": MINUTE_SECONDS,
            "freshness": _freshness(call.deps.samples()),
            "rates": _rates(since, deliveries, runs),
            "budget": _budget(call.deps.samples()),
            "latency": {
                "times": [round(at.timestamp(), 3) for at, _ in latencies],
                "seconds": [round(seconds, 3) for _, seconds in latencies],
            },
        }
    )


def _freshness(samples: Sequence[Sample]) -> dict[str, Any]:
    return {
        "times": [int(one.at.timestamp()) for one in samples],
        "stalest_seconds": [one.stalest_seconds for one in samples],
        "unwell": [one.unwell for one in samples],
    }


def _budget(samples: Sequence[Sample]) -> dict[str, Any]:
    return {
        "times": [int(one.at.timestamp()) for one in samples],
        "requests": [one.requests for one in samples],
        "remaining": {name: [one.remaining.get(name) for one in samples] for name in RESOURCES},
    }


def _rates(since: datetime, deliveries: Mapping[str, int], runs: Sequence[tuple[str, str, int]]) -> dict[str, Any]:
    begin = int(since.timestamp())
    by_trigger = {trigger.value: [0] * MINUTES for trigger in Trigger}
    for minute, trigger, count in runs:
        _place(by_trigger[trigger], begin, minute, count)
    arrived = [0] * MINUTES
    for minute, count in deliveries.items():
        _place(arrived, begin, minute, count)
    times = [begin + number * MINUTE_SECONDS for number in range(MINUTES)]
    return {"times": times, "deliveries": arrived, "runs": by_trigger}


def _place(column: list[int], begin: int, minute: str, count: int) -> None:
    at = datetime.fromisoformat(minute).replace(tzinfo=UTC).timestamp()
    number = (int(at) - begin) // MINUTE_SECONDS
    if 0 <= number < MINUTES:  # a clock that was set back leaves rows of the future
        column[number] += count
