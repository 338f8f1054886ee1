"""The arithmetic behind "the promise cannot be kept"."""

from __future__ import annotations

import pytest

from daemon.triggers.budget import Demand, Means, afford, usual_limit


def test_three_repositories_every_minute_are_more_than_github_allows_without_a_token() -> None:
    found = afford([Demand(60, 3, 3)], Means.ANONYMOUS, batch_size=100, limit=60)
    assert (found.needed_per_hour, found.available_per_hour, found.can_keep_promise) == (180, 48, False)
    assert found.sentence == (
        "3 branches at 1 request each every 60 s: 180 requests an hour; GitHub allows 60 without a token, of which "
        'polling may use 48. The promise cannot be kept; set github.token, or a polling.interval of "225s" or more'
    )
    longer = afford([Demand(225, 3, 3)], Means.ANONYMOUS, batch_size=100, limit=60)
    assert longer.can_keep_promise


def test_by_graphql_a_batch_costs_a_point_whatever_its_branches() -> None:
    demands = [Demand(60, 2500, 9000), Demand(900, 2500, 2500)]
    found = afford(demands, Means.GRAPHQL, batch_size=100, limit=5000)
    assert (found.needed_per_hour, found.available_per_hour, found.can_keep_promise) == (1600, 4000, True)
    assert found.sentence == (
        "2500 repositories at 25 points every 60 s and 2500 repositories at 25 points every 900 s: 1600 points an hour; "
        "GitHub allows 5000, of which polling may use 4000"
    )


@pytest.mark.parametrize(("batch_size", "needed"), [(1, 6000), (50, 120), (100, 60), (1000, 60)])
def test_smaller_batches_cost_more_and_github_takes_no_larger_ones(batch_size: int, needed: float) -> None:
    found = afford([Demand(60, 100, 100)], Means.GRAPHQL, batch_size=batch_size, limit=5000)
    assert found.needed_per_hour == needed
    assert found.can_keep_promise == (needed <= 4000)


def test_where_no_limit_is_known_everything_can_be_afforded() -> None:
    found = afford([Demand(1, 10**6, 10**6)], Means.GRAPHQL, batch_size=100, limit=None)
    assert found.can_keep_promise
    assert found.as_json()["available_per_hour"] is None
    assert "no limit of this server is known" in found.sentence


def test_nothing_to_poll_costs_nothing() -> None:
    found = afford([], Means.GRAPHQL, batch_size=100, limit=5000)
    assert (found.needed_per_hour, found.can_keep_promise) == (0, True)
    assert found.sentence.startswith("no repository: 0 points an hour")


@pytest.mark.parametrize(
    ("url", "means", "limit"),
    [
        ("https://api.github.com", Means.GRAPHQL, 5000),
        ("https://api.github.com", Means.REST, 54_000),
        ("https://api.github.com", Means.ANONYMOUS, 60),
        ("https://github.example.org/api/v3/", Means.GRAPHQL, None),
        ("https://github.example.org/api/v3", Means.ANONYMOUS, 60),
    ],
)
def test_what_github_usually_allows(url: str, means: Means, limit: int | None) -> None:
    assert usual_limit(url, means) == limit
