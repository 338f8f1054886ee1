"""The poller against a stand-in: what it asks, what it concludes, and what it leaves alone."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from bench import Bench, MovableClock, Rule
from engines import Engine
from harness import wait_for
from structlog.testing import capture_logs

from daemon.demo.standin import StandIn
from daemon.demo.standin.answers import Answer
from daemon.demo.standin.faults import Drop, Hold, Html, Replace, Status
from daemon.demo.standin.gitrepo import GitRepo
from daemon.model import Delivery, DeliveryStatus, PollTarget, RepositoryState, WebhookHealth
from daemon.sync.patterns import rules
from daemon.triggers.poller import poll_safely
from daemon.triggers.scheduler import Scheduler

MINUTE = 60.0
MakeBench = Callable[..., Bench]


@pytest.fixture
def make(tmp_path: Path, github: StandIn, repo: GitRepo) -> Iterator[MakeBench]:
    with ExitStack() as stack:

        def make(**settings: Any) -> Bench:
            bench = Bench(tmp_path, settings.pop("github", github), repo, **settings)
            stack.callback(bench.close)
            return bench

        yield make


def serve_many(github: StandIn, repo: GitRepo, count: int) -> tuple[Rule, ...]:
    """The one repository under ``count`` names."""
    for number in range(count):
        github.add(f"octo/r{number:03}", repo.path)
    return tuple(Rule(name=f"r{number:03}") for number in range(count))


def poll(bench: Bench, *, after: float = MINUTE) -> list[str]:
    """One tick so many seconds later; the paths it asked for."""
    bench.time.advance(after)
    bench.github.requests.clear()
    bench.poller.tick()
    return bench.requests()


def polled_and_synced(bench: Bench) -> Bench:
    bench.poller.tick()
    bench.settle()
    return bench


def just_now(bench: Bench, at: datetime | None) -> bool:
    """Within the last tick, whose retries take some seconds."""
    return at is not None and bench.time.at - at < timedelta(seconds=30)


def synced_everywhere(bench: Bench) -> None:
    """Every repository is where GitHub is, as after a sync: all are the one of the bench."""
    bench.poller.tick()
    bench.settle(rounds=99)


def targets(bench: Bench) -> list[PollTarget]:
    """Every repository as the poller would get it a year later."""
    return bench.repositories.due(now=bench.time.at + timedelta(days=365), limit=1000)


def hint(bench: Bench) -> Delivery:
    """A verified `repository` event, as intake would hand it to the writer."""
    return Delivery(
        guid=None,
        body_digest="0" * 64,
        event="repository",
        action="renamed",
        repository=None,
        ref=None,
        before=None,
        after=None,
        received_at=bench.time.at,
        status=DeliveryStatus.IGNORED,
        hint_repository_id=bench.repository_id,
    )


def waits(bench: Bench) -> set[int]:
    """For how long the looks at the tracked repositories are put off, to the second."""
    every = bench.repositories.records(after=None, limit=1000)
    return {round((one.next_poll_at - bench.time.at).total_seconds()) for one in every if one.next_poll_at}


# -- a head -----------------------------------------------------------------------------------------


def test_a_head_that_stands_still_is_confirmed_without_a_job(bench: Bench) -> None:
    bench.sync()
    assert poll(bench) == ["/graphql"]
    assert bench.record().branches[0].confirmed_at == bench.time.at
    assert bench.jobs.counts(bench.time.at).pending == 0
    assert bench.found == 0


def test_another_default_branch_is_noticed_without_graphql_too(bench: Bench) -> None:
    bench.github.graphql_enabled = False
    polled_and_synced(bench)
    after = bench.repo.commit({"dev.md": b"1\n"}, branch="dev")
    bench.github.set_default_branch("octo/data", "dev")
    assert poll(bench)[-1:] == ["/repos/octo/data/commits/heads/main"]
    assert bench.record().default_branch == "main"
    poll(bench, after=60 * MINUTE)
    bench.settle()
    assert (bench.record().default_branch, bench.facts().head_sha) == ("dev", after)


def test_what_was_parked_while_github_failed_ends_once_a_poll_sees_the_branch_again(bench: Bench) -> None:
    polled_and_synced(bench)
    bench.github.faults.add(r"/repos/", Status(404))
    bench.announce(bench.repo.head(), bench.repo.head())
    while bench.jobs.counts(bench.time.at).failed == 0:
        bench.time.advance(bench.jobs.next_due(bench.time.at) or 0)
        bench.work()
    bench.github.faults.clear()
    poll(bench)
    bench.settle()
    assert bench.jobs.counts(bench.time.at).failed == 0
    assert bench.history.deliveries(before_id=None, limit=1)[0].run_id is not None


def test_a_look_that_is_not_due_asks_nothing(bench: Bench) -> None:
    bench.poller.tick()
    assert poll(bench, after=50) == []
    assert poll(bench, after=2) == ["/graphql"]


@pytest.mark.parametrize(("count", "requests"), [(100, 1), (101, 2)])
def test_a_hundred_repositories_cost_one_request(
    make: MakeBench, github: StandIn, repo: GitRepo, count: int, requests: int
) -> None:
    bench = make(repositories_rules=serve_many(github, repo, count))
    for _ in range(2):
        assert poll(bench) == ["/graphql"] * requests
    assert bench.jobs.counts(bench.time.at).pending == count


def test_the_first_look_asks_as_startup_and_later_ones_as_poll(bench: Bench) -> None:
    bench.poller.tick()
    assert bench.jobs.record(bench.facts().id).triggers == ("startup",)
    bench.settle()
    bench.repo.commit({"new.md": b"new\n"})
    poll(bench)
    assert bench.jobs.record(bench.facts().id).triggers == ("poll",)
    bench.settle()
    bench.assert_equal_to_git()
    assert [run.trigger for run in bench.history.runs(before_id=None, limit=9)] == ["poll", "startup"]
    assert bench.found == 2


def test_the_sync_that_a_poll_asked_for_does_not_ask_for_the_head_again(bench: Bench) -> None:
    polled_and_synced(bench)
    after = bench.repo.commit({"new.md": b"new\n"})
    poll(bench)
    bench.github.requests.clear()
    bench.settle()
    assert bench.facts().head_sha == after
    assert not [path for path in bench.requests() if "/commits/heads/" in path or path == "/graphql"]


def test_other_rules_for_content_are_a_reason_to_sync_though_the_head_stands_still(bench: Bench) -> None:
    polled_and_synced(bench)
    bench.content = rules((), ("docs/*",), 5_000_000)
    poll(bench)
    bench.settle()
    assert not {path for path, stored in _stored(bench).items() if stored and path.startswith(b"docs/")}
    poll(bench)
    assert bench.jobs.counts(bench.time.at).pending == 0


def _stored(bench: Bench) -> dict[bytes, bool]:
    return {entry.path: entry.stored for entry in bench.snapshots.entries(bench.facts().id)}


def test_an_answer_read_before_a_sync_read_newer_is_ignored(bench: Bench) -> None:
    polled_and_synced(bench)
    held = Hold()
    bench.github.faults.add("/graphql", held, times=1)
    bench.time.advance(MINUTE)
    polling = threading.Thread(target=bench.poller.tick)
    polling.start()
    assert held.reached.wait(10)
    after = bench.repo.commit({"new.md": b"new\n"})
    bench.time.advance(1)
    assert bench.sync().after == after
    held.release()
    polling.join(10)
    facts = bench.facts()
    assert (facts.head_sha, facts.remote_sha) == (after, after)
    assert bench.jobs.counts(bench.time.at).pending == 0
    assert bench.found == 1  # the first look


def test_stopping_ends_a_tick_after_its_batch(make: MakeBench, github: StandIn, repo: GitRepo) -> None:
    bench = make(repositories_rules=serve_many(github, repo, 3), batch_size=1)
    held = Hold()
    github.faults.add("/graphql", held, times=1)
    polling = threading.Thread(target=bench.poller.tick)
    polling.start()
    assert held.reached.wait(10)
    bench.poller.stop()
    held.release()
    polling.join(10)
    assert bench.requests() == ["/graphql"]
    assert bench.jobs.counts(bench.time.at).pending == 1


# -- by REST ----------------------------------------------------------------------------------------


def test_without_a_token_each_branch_costs_one_conditional_request(make: MakeBench, github: StandIn) -> None:
    github.token = None
    bench = polled_and_synced(make(token=None, anonymous=True))
    bench.assert_equal_to_git()
    assert poll(bench) == ["/repos/octo/data/commits/heads/main"]
    assert [entry.status for entry in github.requests] == [304]
    assert bench.record().branches[0].confirmed_at == bench.time.at
    bench.repo.commit({"new.md": b"new\n"})
    poll(bench)
    bench.settle()
    bench.assert_equal_to_git()


def test_without_graphql_it_asks_by_rest_and_after_a_while_by_graphql_again(bench: Bench) -> None:
    polled_and_synced(bench)
    rest = "/repos/octo/data/commits/heads/main"
    bench.github.graphql_enabled = False
    assert poll(bench) == ["/graphql", rest]
    assert poll(bench) == [rest]
    bench.github.graphql_enabled = True
    assert poll(bench) == [rest]
    assert poll(bench, after=300) == ["/graphql"]
    bench.github.graphql_enabled = False
    poll(bench)
    bench.github.graphql_enabled = True
    bench.poller.forget_graphql_outage()
    assert poll(bench) == ["/graphql"]
    assert bench.jobs.counts(bench.time.at).pending == 0


def test_while_graphql_fails_and_rest_works_it_asks_by_rest(make: MakeBench, github: StandIn, repo: GitRepo) -> None:
    bench = make(repositories_rules=serve_many(github, repo, 3))
    synced_everywhere(bench)
    github.faults.add("/graphql", Status(503))
    poll(bench)
    assert "503" in (bench.repositories.records(after=None, limit=1)[0].last_error or "")
    assert [path for path in poll(bench) if path.endswith("/main")] == [
        f"/repos/octo/r{number:03}/commits/heads/main" for number in range(3)
    ]
    every = bench.repositories.records(after=None, limit=9)
    assert all(one.last_error is None for one in every)
    assert all(just_now(bench, one.branches[0].confirmed_at) for one in every)
    github.faults.clear()
    assert poll(bench, after=300) == ["/graphql"]


def test_by_rest_one_repository_that_always_ends_in_a_5xx_holds_up_nobody(
    make: MakeBench, github: StandIn, repo: GitRepo
) -> None:
    github.graphql_enabled = False
    bench = make(repositories_rules=serve_many(github, repo, 3))
    synced_everywhere(bench)
    github.faults.add("/repos/octo/r000", Status(500))
    for _ in range(3):
        poll(bench)
        confirmed = [one.branches[0].confirmed_at for one in bench.repositories.records(after=None, limit=9)]
        assert [just_now(bench, at) for at in confirmed] == [False, True, True]
    assert {target.repository_id: target.failures > 0 for target in targets(bench)} == {1: True, 2: False, 3: False}
    assert max(waits(bench)) <= 102  # what is GitHub's trouble is not put off without end


def test_by_rest_an_outage_is_nobodys_fault_and_costs_one_question(
    make: MakeBench, github: StandIn, repo: GitRepo
) -> None:
    github.graphql_enabled = False
    bench = make(repositories_rules=serve_many(github, repo, 9))
    synced_everywhere(bench)
    github.faults.add("/(repos|rate_limit)", Status(500))
    asked = poll(bench)
    assert {path.split("/")[3] for path in asked if path.startswith("/repos/")} == {"r000"}
    assert [target.failures for target in targets(bench)] == [0] * 9


@pytest.mark.parametrize("fault", [Html(), Status(200, "null"), Status(200, {"data": None}), Status(404)])
def test_whatever_graphql_answers_the_look_is_made(bench: Bench, fault: object) -> None:
    polled_and_synced(bench)
    bench.github.faults.add("/graphql", fault)
    poll(bench)
    assert bench.record().branches[0].confirmed_at == bench.time.at


def test_without_a_token_and_not_anonymous_everything_is_put_off_and_says_why(make: MakeBench) -> None:
    bench = make(token=None)
    assert poll(bench) == []
    assert "github.token" in (bench.record().last_error or "")
    bench.token = "ghp_TestTokenTestTokenTestTokenTestToken"
    assert poll(bench) == ["/graphql"]
    assert bench.record().last_error is None


def test_what_was_read_before_a_limit_is_kept_and_only_the_rest_put_off(
    make: MakeBench, github: StandIn, repo: GitRepo
) -> None:
    github.token = None
    bench = make(repositories_rules=serve_many(github, repo, 40), token=None, anonymous=True)
    github.limit(remaining=15, reset_in=3600, resource="anonymous")
    poll(bench)  # sixty requests an hour, two a repository, and a fifth is left to deliveries
    every = bench.repositories.records(after=None, limit=100)
    assert [one.default_branch is not None for one in every].count(True) == 1
    assert [target.failures for target in targets(bench)] == [0] * 40
    github.limits.clear()
    poll(bench, after=3601)
    every = bench.repositories.records(after=None, limit=100)
    assert [one.default_branch is not None for one in every].count(True) > 2


def test_a_budget_that_cannot_keep_the_promise_is_spread_over_its_hour_oldest_confirmation_first(
    make: MakeBench, repo: GitRepo
) -> None:
    time = MovableClock()
    with StandIn(clock=time.clock) as github:
        bench = make(
            github=github, time=time, repositories_rules=serve_many(github, repo, 3), token=None, anonymous=True
        )
        asked = [(number, path) for number in range(360) for path in poll(bench, after=10)]
    assert 44 <= len(asked) <= 48
    assert max(after - before for (before, _), (after, _) in itertools.pairwise(asked)) <= 15  # never dark for long
    names = [path.split("/")[3] for _, path in asked if "/commits/heads/" in path]
    assert all(len(set(three)) == 3 for three in zip(names, names[1:], names[2:], strict=False))
    assert all(one.last_error is None for one in bench.repositories.records(after=None, limit=9))


# -- globs ------------------------------------------------------------------------------------------


@pytest.fixture
def globbed(make: MakeBench, repo: GitRepo) -> Bench:
    for name in ("release/1", "feature/x"):
        repo.reset(name, repo.head() or "")
    return polled_and_synced(make(repositories_rules=(Rule(branches=("main", "release/*")),)))


def names(bench: Bench) -> list[str]:
    return [branch.name for branch in bench.record().branches]


def test_a_branch_that_matches_a_glob_is_followed_from_the_look_that_finds_it(globbed: Bench) -> None:
    assert names(globbed) == ["main", "release/1"]
    globbed.repo.reset("release/2", globbed.repo.head() or "")
    globbed.repo.commit({"two.md": b"2\n"}, branch="release/2")
    globbed.repo.reset("feature/y", globbed.repo.head() or "")
    assert poll(globbed) == ["/graphql"]
    globbed.settle()
    assert names(globbed) == ["main", "release/1", "release/2"]
    for name in names(globbed):
        globbed.assert_equal_to_git(name)


def test_a_branch_of_a_glob_that_vanished_is_marked_and_its_copy_kept(globbed: Bench) -> None:
    stored, head = globbed.tree("release/1"), globbed.repo.head() or ""
    confirmed_at = globbed.record().branches[1].confirmed_at
    globbed.repo.delete_branch("release/1")
    poll(globbed)
    globbed.settle()
    assert [branch.gone for branch in globbed.record().branches] == [False, True]
    assert globbed.tree("release/1") == stored
    poll(globbed)
    assert globbed.jobs.counts(globbed.time.at).pending == 0
    assert globbed.record().branches[1].confirmed_at == confirmed_at != globbed.time.at
    assert globbed.record().polled_at == globbed.time.at
    globbed.repo.reset("release/1", head)
    poll(globbed)
    globbed.settle()
    assert [branch.gone for branch in globbed.record().branches] == [False, False]


@pytest.fixture
def wide(make: MakeBench, repo: GitRepo) -> Bench:
    """More branches than GraphQL lists at once, one of which is tracked and comes after the first hundred."""
    head = repo.head() or ""
    for number in range(101):
        repo.reset(f"feature/{number:03}", head)
    repo.reset("release/1", head)
    return polled_and_synced(make(repositories_rules=(Rule(branches=("release/*",)),)))


def test_beyond_a_hundred_branches_the_rest_is_listed_by_rest(wide: Bench) -> None:
    assert names(wide) == ["release/1"]
    wide.assert_equal_to_git("release/1")
    assert poll(wide) == ["/graphql", "/repos/octo/data/git/matching-refs/heads/"]
    assert wide.record().branches[0].confirmed_at == wide.time.at


@pytest.mark.parametrize("api", ["graphql", "rest"])
def test_of_a_list_that_is_not_whole_nothing_is_concluded(globbed: Bench, api: str) -> None:
    globbed.github.graphql_enabled = api == "graphql"
    before = globbed.record().branches
    if api == "graphql":
        globbed.github.faults.add("/graphql", Replace(_without_the_list))
    globbed.github.faults.add("/matching-refs/", Html())
    poll(globbed)
    assert "branches" in (globbed.record().last_error or "")
    assert globbed.record().branches == before
    globbed.github.faults.clear()
    poll(globbed)
    assert globbed.record().last_error is None
    assert names(globbed) == ["main", "release/1"]


def _without_the_list(answer: Answer) -> Answer:
    value = json.loads(answer.body)
    del value["data"]["r0"]["refs"]
    return replace(answer, body=json.dumps(value).encode())


def test_branches_that_cannot_be_listed_are_told_and_asked_for_again(wide: Bench) -> None:
    globbed = wide
    globbed.github.faults.add("/matching-refs/", Html())
    poll(globbed)
    assert "branches" in (globbed.record().last_error or "")
    assert globbed.jobs.counts(globbed.time.at).pending == 0
    globbed.github.faults.clear()
    poll(globbed)
    assert globbed.record().last_error is None


def test_a_limit_while_branches_are_listed_puts_the_look_off_and_blames_nobody(wide: Bench) -> None:
    globbed = wide
    globbed.github.faults.add("/matching-refs/", Status(429, headers={"retry-after": "600"}))
    poll(globbed)
    assert waits(globbed) == {600}
    assert targets(globbed)[0].failures == 0


def test_of_a_repository_that_is_gone_branches_are_not_listed(globbed: Bench) -> None:
    number = globbed.github.repository("octo/data").id
    globbed.github.remove("octo/data")
    assert poll(globbed) == ["/graphql", "/repos/octo/data", f"/repositories/{number}"]
    assert globbed.record().state is RepositoryState.GONE


# -- webhooks that did not come ---------------------------------------------------------------------


def test_a_head_that_nobody_announced_counts_as_missed_once_the_grace_is_over(bench: Bench) -> None:
    polled_and_synced(bench)
    bench.repo.commit({"new.md": b"new\n"})
    poll(bench)
    bench.settle()
    poll(bench, after=29)
    assert (bench.missed, bench.record().webhook) == (0, WebhookHealth.UNKNOWN)
    poll(bench, after=2)
    assert (bench.missed, bench.record().webhook) == (1, WebhookHealth.MISSING)
    poll(bench)
    assert bench.missed == bench.record().missed_webhooks == 1


def test_a_delivery_within_the_grace_is_no_missed_one(bench: Bench) -> None:
    polled_and_synced(bench)
    before = bench.repo.head() or ""
    after = bench.repo.commit({"new.md": b"new\n"})
    poll(bench)
    bench.time.advance(20)
    bench.announce(before, after)
    poll(bench)
    assert (bench.missed, bench.record().webhook) == (0, WebhookHealth.HEALTHY)


def test_a_head_announced_before_a_look_found_it_makes_webhooks_healthy(bench: Bench) -> None:
    polled_and_synced(bench)
    before = bench.repo.head() or ""
    bench.announce(before, bench.repo.commit({"new.md": b"new\n"}))
    assert bench.record().webhook is WebhookHealth.HEALTHY
    poll(bench)  # before the sync: finds what was announced
    bench.settle()
    poll(bench, after=1000)
    assert (bench.missed, bench.record().webhook) == (0, WebhookHealth.HEALTHY)


def test_healthy_webhooks_earn_the_long_interval_and_one_missed_loses_it(bench: Bench) -> None:
    polled_and_synced(bench)
    bench.announce(bench.repo.head() or "", bench.repo.commit({"new.md": b"new\n"}))
    bench.settle()
    poll(bench, after=1800)
    assert waits(bench) == {0.85 * 900}
    bench.repo.commit({"unannounced.md": b"new\n"})
    poll(bench, after=900)
    bench.settle()
    poll(bench, after=31)
    assert bench.missed == 1
    poll(bench, after=900)
    assert waits(bench) == {0.85 * 60}


def test_a_busy_repository_is_looked_at_sooner_and_an_idle_one_at_its_pace(bench: Bench) -> None:
    polled_and_synced(bench)
    assert waits(bench) == {51}
    bench.repo.commit({"new.md": b"new\n"})
    poll(bench)
    assert waits(bench) == {15}  # a quarter of the interval
    bench.settle()
    for after, wait in ((40, 20), (20, 30), (40, 50), (50, 51)):
        poll(bench, after=after)
        assert waits(bench) == {wait}


def test_a_busy_repository_gets_no_extra_looks_once_half_an_even_share_of_the_budget_is_spent(bench: Bench) -> None:
    polled_and_synced(bench)
    bench.repo.commit({"new.md": b"new\n"})
    bench.github.limit(remaining=4000, reset_in=3000, resource="graphql")
    poll(bench)
    assert waits(bench) == {51}


def test_what_was_looked_at_all_at_once_is_spread_from_then_on(make: MakeBench, github: StandIn, repo: GitRepo) -> None:
    bench = make(repositories_rules=serve_many(github, repo, 100), batch_size=10)
    bench.poller.tick()
    assert len(waits(bench)) > 20
    assert max(waits(bench)) <= 51
    asked = [len(poll(bench, after=1)) for _ in range(150)]
    assert max(asked) <= 2
    assert sum(asked[50:101]) <= 12  # ten batches make a round, and a round takes 51 s
    bench.repositories.everything_due()
    assert len(poll(bench, after=1)) == 10
    assert max(len(poll(bench, after=1)) for _ in range(100)) <= 2


def test_a_request_with_room_in_it_asks_about_those_due_soon(make: MakeBench, github: StandIn, repo: GitRepo) -> None:
    bench = make(repositories_rules=serve_many(github, repo, 3))
    bench.poller.tick()
    every = targets(bench)
    soon, later = bench.time.at + timedelta(seconds=10), bench.time.at + timedelta(seconds=30)
    bench.repositories.polled({every[0].repository_id: soon, every[1].repository_id: soon}, at=bench.time.at)
    bench.repositories.polled({every[2].repository_id: later}, at=bench.time.at)
    bench.repositories.look_by(every[0].repository_id, at=bench.time.at + timedelta(seconds=2))
    poll(bench, after=2)
    assert [target.due_at for target in targets(bench)].count(later) == 1
    assert waits(bench) == {51, 28}


def test_neither_a_first_sync_nor_a_new_or_vanished_branch_is_a_missed_webhook(globbed: Bench) -> None:
    globbed.repo.reset("release/2", globbed.repo.head() or "")
    globbed.repo.delete_branch("release/1")
    for _ in range(3):
        poll(globbed)
        globbed.settle()
    assert globbed.missed == 0


# -- a repository that is not what it was -----------------------------------------------------------


@pytest.fixture(params=["graphql", "rest"])
def known(request: pytest.FixtureRequest, bench: Bench) -> Bench:
    """A synced repository, asked about by GraphQL or by REST."""
    bench.github.graphql_enabled = request.param == "graphql"
    return polled_and_synced(bench)


def assert_copy_kept(bench: Bench, head: str) -> None:
    assert bench.facts().head_sha == head
    assert bench.tree()
    assert bench.jobs.counts(bench.time.at).pending == 0


def test_a_repository_that_is_gone_is_told_asked_for_less_and_back_when_it_is_back(known: Bench) -> None:
    head = known.repo.head() or ""
    served = known.github.repository("octo/data")
    known.github.remove("octo/data")
    seen = []
    for _ in range(9):
        poll(known, after=3600)
        seen.append(max(waits(known)))
    # Up to a fifth less than twice as long each time: what fails together is not asked for together.
    assert all(0.8 * most - 1 <= wait <= most for wait, most in zip(seen, (51, 102, 204, 408), strict=False))
    assert 0.8 * 3600 - 1 <= seen[-1] <= 3600
    assert known.record().state is RepositoryState.GONE
    assert "octo/data" in (known.record().last_error or "")
    assert_copy_kept(known, head)
    known.github.add("octo/data", known.repo.path, github_id=served.id)
    poll(known, after=3600)
    assert (known.record().state, known.record().last_error) == (RepositoryState.AVAILABLE, None)
    assert waits(known) == {51.0}


@pytest.mark.parametrize("status", [403, 451])
def test_a_blocked_repository_is_told_and_its_copy_kept(known: Bench, status: int) -> None:
    head = known.repo.head() or ""
    known.github.repository("octo/data").blocked = status
    poll(known)
    assert known.record().state is RepositoryState.BLOCKED
    assert known.record().last_error
    assert_copy_kept(known, head)
    known.github.repository("octo/data").blocked = None
    poll(known, after=3600)
    assert (known.record().state, known.record().last_error) == (RepositoryState.AVAILABLE, None)


def test_a_renamed_repository_is_followed_under_its_new_name(known: Bench) -> None:
    known.github.rename("octo/data", "octo/better")
    known.repo.commit({"new.md": b"new\n"})
    poll(known)
    known.settle()
    known.assert_equal_to_git()
    assert known.record().last_error is None


def test_a_new_name_is_learnt_once(bench: Bench) -> None:
    polled_and_synced(bench)
    learnt = bench.learnt
    bench.github.rename("octo/data", "octo/better")
    poll(bench)
    poll(bench)
    assert bench.learnt == learnt + 1
    assert bench.record().full_name == "octo/better"


def test_another_repository_of_the_same_name_is_begun_anew_and_nothing_is_mixed(known: Bench, tmp_path: Path) -> None:
    stored, number = known.tree(), known.github.repository("octo/data").id
    other = GitRepo.init(tmp_path / "other.git")
    other.commit({"other.md": b"another history\n"}, date=1_600_000_000)
    fresh = known.github.recreate("octo/data", other.path)
    poll(known, after=3600)
    known.settle()
    assert [row[3] for row in known.tree()] == [b"other.md"]
    assert (known.record().github_id, known.record().last_error) == (fresh.id, None)
    kept = known.repositories.record("octo", f"data~{number}")
    assert kept is not None
    assert (kept.state, kept.github_id) == (RepositoryState.GONE, number)
    assert "another repository" in (kept.last_error or "")
    assert [entry.path for entry in known.snapshots.entries(kept.branches[0].id)] == [row[3] for row in stored]
    assert [one.github_id for one in known.repositories.tracked()] == [fresh.id]


def test_a_repository_renamed_unseen_is_followed_though_another_one_took_its_name(known: Bench) -> None:
    number = known.github.repository("octo/data").id
    known.github.rename("octo/data", "octo/better")
    known.github.add("octo/data", known.repo.path)
    poll(known, after=3600)
    known.settle()
    assert (known.record().full_name, known.record().github_id) == ("octo/better", number)


def test_two_repositories_that_swap_names_keep_what_is_theirs(make: MakeBench, github: StandIn, repo: GitRepo) -> None:
    github.add("octo/other", repo.path)
    bench = polled_and_synced(make(repositories_rules=(Rule(), Rule(name="other"))))
    before = {one.github_id: one.branches[0].id for one in bench.repositories.every()}
    for old, new in (("octo/data", "octo/x"), ("octo/other", "octo/data"), ("octo/x", "octo/other")):
        github.rename(old, new)
    for _ in range(3):
        poll(bench, after=3600)
    names = {one.full_name: one.branches[0].id for one in bench.repositories.every()}
    assert names == {github.repository(name).full_name: before[github.repository(name).id] for name in names}
    assert all(one.last_error is None for one in bench.repositories.every())


def test_a_renamed_default_branch_keeps_its_copy_and_another_one_made_the_default_does_not_get_it(
    known: Bench,
) -> None:
    row, number = known.facts(), len(known.tree())
    known.repo.rename_branch("main", "trunk")
    known.github.set_default_branch("octo/data", "trunk")
    poll(known, after=3600)
    known.settle()
    assert (known.facts().id, known.facts().name, len(known.tree())) == (row.id, "trunk", number)
    known.repo.reset("dev", known.repo.head("trunk") or "")
    known.repo.commit({"dev.md": b"only here\n"}, branch="dev")
    known.github.set_default_branch("octo/data", "dev")
    poll(known, after=3600)
    assert (known.facts().name, known.facts().head_sha) == ("dev", None)
    known.settle()
    known.assert_equal_to_git("dev")
    assert known.snapshots.facts(row.id).name == "trunk"


def test_a_hint_has_rest_ask_who_it_is_at_once(bench: Bench) -> None:
    bench.github.graphql_enabled = False
    polled_and_synced(bench)
    bench.github.rename("octo/data", "octo/better")
    bench.history.store_deliveries([hint(bench)], now=bench.time.at)
    poll(bench, after=1)
    assert bench.record().full_name == "octo/better"


def test_two_names_of_one_repository_are_told_and_the_first_one_followed(make: MakeBench, github: StandIn) -> None:
    github.rename("octo/data", "octo/better")
    bench = polled_and_synced(make(repositories_rules=(Rule(name="better"), Rule(name="data"))))
    followed, other = bench.repositories.records(after=None, limit=9)
    assert (followed.full_name, followed.last_error, followed.branches[0].head_sha) == (
        "octo/better",
        None,
        bench.repo.head(),
    )
    assert (other.full_name, other.branches) == ("octo/data", ())
    assert "configure it once" in (other.last_error or "")


def test_a_branch_that_the_answer_leaves_out_is_neither_confirmed_nor_gone(make: MakeBench, repo: GitRepo) -> None:
    repo.reset("other", repo.head() or "")
    bench = polled_and_synced(make(repositories_rules=(Rule(branches=("main", "other")),)))
    before = bench.record().branches[1]
    bench.github.faults.add("/graphql", Replace(_without_the_second_branch))
    poll(bench)
    assert bench.record().branches[0].confirmed_at == bench.time.at
    assert bench.record().branches[1] == before
    assert bench.jobs.counts(bench.time.at).pending == 0


def _without_the_second_branch(answer: Answer) -> Answer:
    value = json.loads(answer.body)
    del value["data"]["r0"]["b1"]
    return replace(answer, body=json.dumps(value).encode())


def test_one_bad_repository_costs_the_others_nothing(make: MakeBench, github: StandIn, repo: GitRepo) -> None:
    bench = make(repositories_rules=serve_many(github, repo, 3))
    bench.poller.tick()
    github.remove("octo/r001")
    poll(bench)
    states = [one.state for one in bench.repositories.records(after=None, limit=9)]
    assert states == [RepositoryState.AVAILABLE, RepositoryState.GONE, RepositoryState.AVAILABLE]


def test_an_archived_repository_is_known_as_such_and_still_followed(bench: Bench) -> None:
    polled_and_synced(bench)
    bench.github.repository("octo/data").archived = True
    poll(bench)
    assert targets(bench)[0].archived
    assert waits(bench) == {765}  # it cannot change now
    bench.github.repository("octo/data").archived = False
    poll(bench, after=765)
    assert waits(bench) == {51}
    bench.repo.commit({"last.md": b"last\n"})
    poll(bench)
    bench.settle()
    bench.assert_equal_to_git()


def test_an_empty_repository_wants_no_sync_until_its_first_push(known: Bench) -> None:
    known.repo.delete_branch("main")
    poll(known)
    known.settle()
    assert known.record().branches[0].empty
    for _ in range(2):
        poll(known)
        assert known.jobs.counts(known.time.at).pending == 0
    known.repo.commit({"again.md": b"again\n"})
    poll(known)
    known.settle()
    known.assert_equal_to_git()
    assert not known.record().branches[0].empty


def test_a_repository_that_was_empty_from_the_start_is_synced_from_its_first_push(bench: Bench) -> None:
    bench.repo.delete_branch("main")
    for _ in range(2):
        poll(bench)
        assert bench.jobs.counts(bench.time.at).pending == 0
    assert bench.record().state is RepositoryState.EMPTY
    bench.repo.commit({"first.md": b"first\n"})
    poll(bench)
    bench.settle()
    bench.assert_equal_to_git()
    assert bench.record().state is RepositoryState.AVAILABLE


# -- GitHub that cannot be asked --------------------------------------------------------------------


@pytest.mark.parametrize("fault", [Status(503), Drop(), Drop(reset=True)])
def test_an_outage_puts_everybody_off_ever_longer_and_is_nobodys_fault(
    make: MakeBench, github: StandIn, repo: GitRepo, fault: object
) -> None:
    bench = make(repositories_rules=serve_many(github, repo, 3))
    bench.poller.tick()
    github.faults.add(".*", fault)
    seen = []
    for _ in range(12):
        poll(bench)
        assert len(waits(bench)) == 1
        seen += waits(bench)
    assert seen[0] == 1
    assert seen == sorted(seen)
    assert seen[-1] == 60
    assert all(one.last_error for one in bench.repositories.records(after=None, limit=9))
    assert [target.failures for target in targets(bench)] == [0, 0, 0]
    github.faults.clear()
    poll(bench)
    assert not any(one.last_error for one in bench.repositories.records(after=None, limit=9))
    github.faults.add(".*", fault)
    poll(bench)
    assert waits(bench) == {1}  # another outage begins anew


def test_a_dead_github_is_asked_again_once_it_lives(bench: Bench) -> None:
    polled_and_synced(bench)
    bench.github.stop()
    poll(bench)
    assert bench.record().last_error
    bench.github.start()
    poll(bench)
    assert bench.record().last_error is None


def test_a_refused_token_puts_everybody_off(bench: Bench) -> None:
    polled_and_synced(bench)
    bench.token = "ghp_AnotherAnotherAnotherAnotherAnother0"
    poll(bench)
    assert "token" in (bench.record().last_error or "")
    assert (bench.record().state, targets(bench)[0].failures) == (RepositoryState.AVAILABLE, 0)


def test_a_rate_limit_silences_polling_until_its_end(bench: Bench) -> None:
    polled_and_synced(bench)
    bench.github.secondary_limit(1, retry_after=600)
    assert poll(bench) == ["/graphql"]
    assert waits(bench) == {600}
    assert "rate limit" in (bench.record().last_error or "")
    for _ in range(9):
        assert poll(bench) == []
    assert poll(bench, after=61) == ["/graphql"]
    assert bench.record().last_error is None


# -- the clock --------------------------------------------------------------------------------------


def jump_back(bench: Bench) -> None:
    bench.time.at -= timedelta(hours=1)


def test_a_clock_that_jumps_back_an_hour_silences_nobody(bench: Bench) -> None:
    polled_and_synced(bench)
    jump_back(bench)
    assert poll(bench, after=0) == ["/graphql"]
    assert bench.record().branches[0].confirmed_at == bench.time.at
    assert poll(bench, after=50) == []
    bench.repo.commit({"new.md": b"new\n"})
    assert poll(bench, after=2) == ["/graphql"]
    bench.settle()
    bench.assert_equal_to_git()


def test_a_clock_that_jumps_back_does_not_make_a_failing_repository_asked_for_without_end(bench: Bench) -> None:
    polled_and_synced(bench)
    bench.github.remove("octo/data")
    jump_back(bench)
    ended = threading.Event()

    def tick() -> None:
        bench.poller.tick()
        ended.set()

    threading.Thread(target=tick, daemon=True).start()
    try:
        assert ended.wait(30)
    finally:
        bench.poller.stop()
    assert bench.requests().count("/graphql") == 2  # the first look, and the one after the jump
    assert poll(bench, after=50) == []


def test_a_clock_that_jumps_back_during_an_outage_does_not_end_its_waits(bench: Bench) -> None:
    polled_and_synced(bench)
    bench.github.faults.add(".*", Status(503))
    jump_back(bench)
    poll(bench, after=0)
    assert poll(bench, after=0.5) == []


# -- a store that cannot be written -----------------------------------------------------------------


def test_a_look_that_cannot_be_stored_is_told_and_the_next_one_comes(make: MakeBench, engine: Engine) -> None:
    bench = make(busy_seconds=0.1)
    scheduler = Scheduler()
    try:
        with capture_logs() as logged:
            with engine.locked(bench.folder / "bench.db"):
                scheduler.every("poll", 0.05, lambda: poll_safely(bench.poller), at_once=True)
                scheduler.start()
                wait_for(lambda: _events(logged).count("poll.store_unavailable") >= 2, "two looks that failed")
            wait_for(lambda: bench.record().polled_at, "a look that was stored")
    finally:
        bench.poller.stop()
        scheduler.stop()
    assert bench.jobs.record(bench.facts().id).triggers == ("startup",)


def test_a_defect_in_a_look_is_told_and_the_next_one_comes(bench: Bench) -> None:
    polling, bench.polling = bench.polling, None
    with capture_logs() as logged:
        poll_safely(bench.poller)
    assert _events(logged) == ["poll.unexpected_error"]
    bench.polling = polling
    poll_safely(bench.poller)
    assert bench.record().polled_at == bench.time.at


def _events(logged: list[Any]) -> list[str]:
    return [line["event"] for line in logged]
