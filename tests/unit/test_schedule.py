from __future__ import annotations

from datetime import UTC, datetime

import pytest

from daemon.config import PollingSettings
from daemon.model import WebhookHealth
from daemon.triggers.schedule import grace_seconds, next_poll_at, promised_seconds, tick_seconds

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def polling(interval: float = 60.0, reconcile: float = 900.0) -> PollingSettings:
    return PollingSettings(
        enabled=True, interval_seconds=interval, reconcile_interval_seconds=reconcile, batch_size=100
    )


@pytest.mark.parametrize(
    ("health", "seconds"), [(WebhookHealth.UNKNOWN, 60), (WebhookHealth.MISSING, 60), (WebhookHealth.HEALTHY, 900)]
)
def test_only_webhooks_known_to_work_earn_the_long_interval(health: WebhookHealth, seconds: float) -> None:
    assert promised_seconds(health, polling()) == seconds


@pytest.mark.parametrize("health", list(WebhookHealth))
@pytest.mark.parametrize("interval", [1.0, 5.0, 60.0, 3600.0])
def test_the_next_look_and_its_tick_fit_into_the_promise(health: WebhookHealth, interval: float) -> None:
    settings = polling(interval, interval * 10)
    due = (next_poll_at(NOW, health, settings) - NOW).total_seconds()
    assert 0 < due + tick_seconds(settings) <= promised_seconds(health, settings)


def test_a_repository_that_keeps_failing_backs_off_to_an_hour() -> None:
    waits = [
        (next_poll_at(NOW, WebhookHealth.UNKNOWN, polling(), failures=count) - NOW).total_seconds()
        for count in range(1, 40)
    ]
    assert waits == sorted(waits)
    assert waits[0] <= 60
    assert waits[-1] == 3600


def test_the_grace_for_a_late_delivery_follows_the_interval_within_bounds() -> None:
    assert [grace_seconds(polling(interval)) for interval in (1.0, 10.0, 60.0)] == [2.0, 10.0, 30.0]
