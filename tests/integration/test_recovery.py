"""GitHub's delivery log against a stand-in: what is read of it when, and what follows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import timedelta
from pathlib import Path

import pytest
from app_key import AppKey
from bench import Bench, MovableClock, Rule
from harness import TOKEN
from structlog.testing import capture_logs

from daemon.appkey import PrivateKey
from daemon.demo.standin import StandIn
from daemon.demo.standin.deliveries import Hook
from daemon.demo.standin.faults import Drop, Html, Status
from daemon.demo.standin.gitrepo import GitRepo
from daemon.github.apps import AppSettings
from daemon.github.hooks import PlacedHook
from daemon.model import WebhookHealth
from daemon.store.hooklog import HookLog, LogTarget
from daemon.triggers.recovery import NO_HOOK, NOT_HERE, SWITCHED_OFF, Recovery, recover_safely

URL = "http://127.0.0.1:1/api/v1/webhooks/github"  # nobody listens: what gets there is scripted
HOUR = 3600.0
REFUSED = "Invalid HTTP Response: 403"


class Watcher:
    """A bench with a recovery, and a hook on GitHub."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.github = bench.github
        self.url: str | None = URL
        self.missed: list[int] = []
        self.recovery = Recovery(
            HookLog(bench.database),
            bench.repositories,
            bench.jobs,
            bench.client,
            clock=bench.time.clock,
            url=lambda: self.url,
            interval_seconds=lambda: 60.0,
            on_found=bench._count_found,
            on_missed=self.missed.append,
        )

    def hook(self) -> Hook:
        return self.github.hook("octo/data", URL, "s")

    def look(self, *, after: float = HOUR) -> list[str]:
        """One call so many seconds later; the paths it asked for."""
        self.bench.time.advance(after)
        self.github.requests.clear()
        self.recovery.tick()
        return self.bench.requests()

    def push(self, outcome: str | int | None = 403, *, branch: str = "main", guid: str | None = None) -> str:
        """A commit whose delivery ends like this; None: with an answer of 200 from somewhere else."""
        before = self.bench.repo.head(branch)
        after = self.bench.repo.commit({f"{self.bench.time.at:%s}.md": b"x"}, branch=branch)
        self.github.deliveries.fail(200 if outcome is None else outcome)
        self.github.push("octo/data", branch, before, after, guid=guid)
        return after

    @property
    def facts(self) -> tuple[WebhookHealth, int, str | None]:
        record = self.bench.record()
        return record.webhook, record.missed_webhooks, record.webhook_reason


@pytest.fixture
def make(tmp_path: Path, repo: GitRepo) -> Iterator[Callable[..., Watcher]]:
    """With a stand-in that goes by the bench's clock, as GitHub's log is judged by the time."""
    with ExitStack() as stack:

        def make(**settings: object) -> Watcher:
            time = MovableClock()
            github = stack.enter_context(StandIn(token=TOKEN, clock=time.clock))
            github.add("octo/data", repo.path)
            bench = stack.enter_context(closing(Bench(tmp_path, github, repo, time=time, **settings)))
            return Watcher(bench)

        yield make


@pytest.fixture
def watcher(make: Callable[..., Watcher]) -> Watcher:
    """Synced, with a hook, and its log looked at for the first time."""
    watcher = make()
    watcher.bench.poller.tick()
    watcher.bench.settle()
    watcher.hook()
    watcher.look()
    return watcher


def test_a_push_that_was_refused_is_recovered_counted_and_told(watcher: Watcher) -> None:
    after = watcher.push(403)
    assert watcher.look() == [
        "/repos/octo/data/hooks",
        f"/repos/octo/data/hooks/{watcher.github.deliveries.records()[0].hook.id}/deliveries",
    ]
    assert watcher.facts == (WebhookHealth.MISSING, 1, REFUSED)
    assert watcher.missed == [1]
    assert watcher.bench.jobs.record(watcher.bench.facts().id).triggers == ("recovery",)
    watcher.bench.settle()
    assert watcher.bench.facts().head_sha == after
    assert watcher.bench.history.runs(before_id=None, limit=1)[0].trigger == "recovery"


def test_a_delivery_that_arrives_makes_it_well_again(watcher: Watcher) -> None:
    watcher.push("timed out")
    watcher.look()
    watcher.bench.settle()
    before = watcher.bench.repo.head()
    watcher.bench.announce(before, watcher.push(200, guid="here"), guid="here")
    assert watcher.facts == (WebhookHealth.HEALTHY, 1, None)
    watcher.look()
    assert watcher.facts == (WebhookHealth.HEALTHY, 1, None)


def test_a_reason_goes_with_a_delivery_though_nothing_was_missed(watcher: Watcher) -> None:
    watcher.bench.announce(watcher.bench.repo.head(), watcher.push(200, guid="one"), guid="one")
    watcher.github.deliveries.fail("timed out")
    watcher.github.ping("octo/data")
    watcher.look()
    assert watcher.facts == (WebhookHealth.HEALTHY, 0, "timed out")
    watcher.bench.announce(watcher.bench.repo.head(), watcher.push(200, guid="two"), guid="two")
    assert watcher.facts == (WebhookHealth.HEALTHY, 0, None)


def test_each_missed_push_counts_once_whoever_finds_it(watcher: Watcher) -> None:
    watcher.push(403)
    watcher.bench.time.advance(60)
    watcher.bench.poller.tick()
    watcher.bench.settle()
    watcher.bench.time.advance(60)
    watcher.bench.poller.tick()
    assert watcher.facts[1] == 1
    watcher.push(403)
    watcher.look()
    assert watcher.facts[1] == 2
    assert watcher.missed == [1]
    watcher.look()
    watcher.bench.settle()
    watcher.bench.time.advance(600)
    watcher.bench.poller.tick()
    assert (watcher.facts[1], watcher.missed, watcher.bench.missed) == (2, [1], 1)


def test_what_github_delivered_but_is_not_here_was_missed(watcher: Watcher) -> None:
    watcher.push(None)
    watcher.look()
    assert watcher.facts == (WebhookHealth.MISSING, 1, NOT_HERE)


def test_the_log_from_before_the_first_look_counts_for_nothing(make: Callable[..., Watcher]) -> None:
    watcher = make()
    watcher.hook()
    watcher.push(403)
    watcher.push(None)
    watcher.push(403)
    watcher.look()
    assert watcher.facts == (WebhookHealth.UNKNOWN, 0, REFUSED)
    assert watcher.missed == []


def test_a_log_is_read_hourly_and_the_time_survives_a_restart(watcher: Watcher) -> None:
    assert watcher.look(after=HOUR - 1) == []
    again = Watcher(watcher.bench)
    assert again.look(after=0) == []
    assert len(again.look(after=2)) == 2


def test_a_log_is_taken_by_one_at_a_time_and_is_due_again_when_that_one_dies(watcher: Watcher) -> None:
    hook_log, now = HookLog(watcher.bench.database), watcher.bench.time.at + timedelta(hours=1)
    assert hook_log.take(now=now, lease_seconds=60) is not None
    assert hook_log.take(now=now, lease_seconds=60) is None
    assert hook_log.take(now=now + timedelta(seconds=60), lease_seconds=60) is not None


def test_a_clock_that_jumped_back_does_not_silence_it(watcher: Watcher) -> None:
    watcher.bench.time.at -= timedelta(days=3)
    assert len(watcher.look(after=0)) == 2


def test_a_failure_that_is_too_young_is_looked_at_again_soon(watcher: Watcher) -> None:
    watcher.bench.time.advance(HOUR - 5)
    watcher.push("timed out")
    assert len(watcher.look(after=5)) == 2
    assert watcher.facts == (WebhookHealth.UNKNOWN, 0, None)
    assert len(watcher.look(after=21)) == 2
    assert watcher.facts == (WebhookHealth.MISSING, 1, "timed out")


@pytest.mark.parametrize("scopes", ["repo", None])
def test_who_may_not_read_a_log_asks_once_a_day(watcher: Watcher, scopes: str | None) -> None:
    watcher.github.scopes = scopes
    watcher.github.repository("octo/data").admin = False
    assert len(watcher.look()) == 1
    assert [len(watcher.look()) for _ in range(23)] == [0] * 23
    assert len(watcher.look()) == 1
    assert watcher.facts == (WebhookHealth.UNKNOWN, 0, None)


def test_with_another_token_logs_are_asked_for_again_within_the_hour(watcher: Watcher) -> None:
    watcher.github.repository("octo/data").admin = False
    watcher.look()
    watcher.github.repository("octo/data").admin = True
    watcher.recovery.forget_refusals()
    assert watcher.look(after=60) == []
    assert watcher.look(after=HOUR - 1) == []
    assert len(watcher.look(after=1)) == 2


def test_without_a_hook_that_leads_here_that_is_the_reason(watcher: Watcher) -> None:
    (hook,) = watcher.github.deliveries.hooks(watcher.github.repository("octo/data").id)
    hook.active = False
    assert watcher.look() == ["/repos/octo/data/hooks"]
    assert watcher.facts[2] == SWITCHED_OFF
    hook.url = "http://127.0.0.1:1/somewhere/else"
    watcher.look()
    assert watcher.facts[2] == NO_HOOK
    hook.url, hook.active = URL, True
    watcher.look()
    assert watcher.facts == (WebhookHealth.UNKNOWN, 0, None)


def test_an_organisations_hook_has_a_log_for_all_its_repositories(make: Callable[..., Watcher], repo: GitRepo) -> None:
    watcher = make(repositories_rules=(Rule(), Rule(name="b")))
    watcher.github.scopes = "repo, admin:org_hook"
    watcher.github.add("octo/b", repo.path)
    watcher.bench.poller.tick()
    watcher.bench.settle()
    watcher.github.deliveries.add_hook(
        watcher.github.repository("octo/data").owner_id,
        URL,
        "s",
        content_type="json",
        events=("push",),
        target_type="organization",
    )
    for _ in range(2):
        watcher.look()
    watcher.push(403)
    watcher.look()
    assert "/orgs/octo/hooks" in watcher.bench.requests()
    watcher.look(after=8)
    other = watcher.bench.repositories.record("octo", "b")
    assert other is not None
    assert watcher.facts == (WebhookHealth.MISSING, 1, REFUSED)
    assert (other.webhook, other.missed_webhooks, other.webhook_reason) == (WebhookHealth.UNKNOWN, 0, None)


def test_every_new_repository_without_a_webhook_says_so_soon(make: Callable[..., Watcher], repo: GitRepo) -> None:
    names = [f"r{number}" for number in range(6)]
    watcher = make(repositories_rules=tuple(Rule(name=name) for name in names))
    for name in names:
        watcher.github.add(f"octo/{name}", repo.path)
    watcher.look()
    told = [one.webhook_reason for one in watcher.bench.repositories.every()]
    assert told == [NO_HOOK] * 5 + [None]  # five a round
    watcher.look(after=8)
    assert [one.webhook_reason for one in watcher.bench.repositories.every()] == [NO_HOOK] * 6


@pytest.mark.parametrize("switched_off", [True, False])
def test_a_webhook_that_was_well_and_is_gone_is_told_and_polling_takes_over(
    watcher: Watcher, switched_off: bool
) -> None:
    watcher.bench.announce(watcher.bench.repo.head(), watcher.push(200, guid="one"), guid="one")
    watcher.bench.settle()
    watcher.look()
    assert watcher.facts == (WebhookHealth.HEALTHY, 0, None)
    watcher.bench.time.advance(HOUR)
    watcher.bench.poller.tick()
    assert wait_seconds(watcher) > 60
    (hook,) = watcher.github.deliveries.hooks(watcher.github.repository("octo/data").id)
    if switched_off:
        hook.active = False
    else:
        watcher.github.deliveries.remove_hook(hook.id)
    watcher.look(after=8)
    assert watcher.facts == (WebhookHealth.UNKNOWN, 0, SWITCHED_OFF if switched_off else NO_HOOK)
    assert wait_seconds(watcher) <= 60


def test_deliveries_that_come_another_way_need_no_hook_of_the_repository(watcher: Watcher) -> None:
    watcher.github.deliveries.remove_hook(
        watcher.github.deliveries.hooks(watcher.github.repository("octo/data").id)[0].id
    )
    watcher.look()
    for guid in ("one", "two"):
        watcher.bench.announce(watcher.bench.repo.head(), watcher.push(200, guid=guid), guid=guid)
        watcher.bench.settle()
        assert watcher.facts == (WebhookHealth.HEALTHY, 0, None)
        watcher.look()
        watcher.look()
    assert watcher.facts == (WebhookHealth.HEALTHY, 0, None)


def test_a_webhook_that_was_changed_is_looked_at_anew(watcher: Watcher) -> None:
    watcher.push("timed out")
    watcher.look()
    assert watcher.facts[2] == "timed out"
    watcher.github.deliveries.fail("failed to connect to host")
    watcher.github.ping("octo/data")
    HookLog(watcher.bench.database).anew(watcher.bench.facts().repository_id)
    assert watcher.facts[2] is None
    watcher.look(after=1)
    watcher.look(after=20)
    assert watcher.facts[2] == "failed to connect to host"


def test_a_failure_that_is_mended_by_what_came_since_is_not_told_again(watcher: Watcher) -> None:
    watcher.push("timed out")
    watcher.look(after=60)
    watcher.look(after=HOUR)
    assert watcher.facts[2] == "timed out"
    watcher.bench.announce(watcher.bench.repo.head(), watcher.push(200, guid="here"), guid="here")
    assert watcher.facts == (WebhookHealth.HEALTHY, 1, None)
    HookLog(watcher.bench.database).sooner(due_at=watcher.bench.time.at)
    assert watcher.look(after=1) != []  # at which the good delivery is too fresh to be judged
    assert watcher.facts == (WebhookHealth.HEALTHY, 1, None)


@pytest.mark.parametrize(
    "meanwhile",
    [
        lambda watcher: watcher.bench.announce("0" * 40, watcher.bench.repo.head(), guid="now"),
        lambda watcher: HookLog(watcher.bench.database).anew(watcher.bench.facts().repository_id),
    ],
    ids=["delivered", "changed"],
)
@pytest.mark.parametrize("hooked", [True, False])
def test_what_a_look_has_read_is_not_told_over_what_happened_meanwhile(
    watcher: Watcher, monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[Watcher], None], hooked: bool
) -> None:
    watcher.push("timed out")
    if not hooked:
        deliveries = watcher.github.deliveries
        deliveries.remove_hook(deliveries.hooks(watcher.github.repository("octo/data").id)[0].id)
    find = watcher.recovery._find

    def found(target: LogTarget, url: str) -> PlacedHook | None:
        placed = find(target, url)
        meanwhile(watcher)
        return placed

    with monkeypatch.context() as during:
        during.setattr(watcher.recovery, "_find", found)
        assert watcher.look() != []
    assert watcher.facts[2] is None


def test_an_organisation_that_may_not_be_looked_at_is_asked_about_once_a_day(watcher: Watcher) -> None:
    watcher.github.deliveries.remove_hook(
        watcher.github.deliveries.hooks(watcher.github.repository("octo/data").id)[0].id
    )
    assert watcher.look() == ["/repos/octo/data/hooks", "/orgs/octo/hooks"]
    assert [watcher.look() for _ in range(23)] == [["/repos/octo/data/hooks"]] * 23
    assert len(watcher.look()) == 2


def test_a_webhook_that_polling_finds_missing_has_its_log_read_at_once(watcher: Watcher) -> None:
    watcher.bench.time.advance(60)
    watcher.push(403)
    watcher.bench.poller.tick()
    watcher.bench.settle()
    assert watcher.look(after=60) == []
    watcher.bench.poller.tick()
    assert len(watcher.look(after=8)) == 2
    assert watcher.facts == (WebhookHealth.MISSING, 1, REFUSED)
    watcher.push(403)
    watcher.bench.time.advance(60)
    watcher.bench.poller.tick()
    watcher.bench.settle()
    watcher.bench.time.advance(60)
    watcher.bench.poller.tick()
    assert watcher.facts[1] == 2
    assert watcher.look(after=8) == []  # why is known


def test_without_a_public_url_or_a_token_nothing_is_asked(watcher: Watcher, make: Callable[..., Watcher]) -> None:
    watcher.url = None
    assert watcher.look() == []


def test_anonymous_requests_are_not_spent_on_logs_that_nobody_may_read(make: Callable[..., Watcher]) -> None:
    assert make(token=None, anonymous=True).look() == []


def test_an_outage_is_waited_for_and_loses_nothing(watcher: Watcher) -> None:
    watcher.push(403)
    watcher.github.faults.add(r"/hooks", Drop())
    assert watcher.look() != []
    assert watcher.look(after=8) == []
    watcher.github.faults.clear()
    assert len(watcher.look(after=301)) == 2
    assert watcher.facts == (WebhookHealth.MISSING, 1, REFUSED)


def test_a_page_in_between_is_asked_again_after_an_hour(watcher: Watcher) -> None:
    watcher.github.faults.add(r"/deliveries", Html(), times=1)
    watcher.push(403)
    watcher.look()
    assert watcher.look(after=HOUR - 10) == []
    watcher.look(after=11)
    assert watcher.facts[1] == 1


def test_reading_leaves_the_last_fifth_of_the_budget_alone(watcher: Watcher) -> None:
    watcher.github.limit(remaining=900, reset_in=2 * HOUR)
    assert len(watcher.look()) == 1  # which tells what is left
    assert watcher.look(after=60) == []


@pytest.fixture
def of_app(tmp_path: Path, repo: GitRepo, app_key: AppKey) -> Iterator[Watcher]:
    """Two owners, whose repositories a GitHub App reads, each through an installation of its own."""
    key, time = tmp_path / "app.pem", MovableClock()
    key.write_text(app_key.private)
    with StandIn(token="nobody has this one", clock=time.clock) as github:
        github.apps.register("7", app_key.public)
        rules = (Rule("acme"), Rule())
        for rule in rules:
            github.apps.install(rule.owner)
            github.add(rule.full_name, repo.path)
        with closing(Bench(tmp_path, github, repo, rules, app=AppSettings("7", PrivateKey(key)), time=time)) as bench:
            yield Watcher(bench)


def test_an_app_reads_the_log_of_each_owner_and_one_at_its_limit_leaves_the_others_going(of_app: Watcher) -> None:
    of_app.bench.poller.tick()
    of_app.bench.settle()
    of_app.hook()
    for _ in range(2):
        of_app.look(after=8)
    of_app.push(403)
    of_app.github.faults.add("/repos/acme/data/hooks", Status(429, headers={"retry-after": "1800"}))
    of_app.look()
    of_app.look(after=8)
    assert of_app.facts == (WebhookHealth.MISSING, 1, REFUSED)
    assert of_app.look(after=1700) == []
    assert "/repos/acme/data/hooks" in of_app.look(after=120)


def test_only_the_branch_that_was_pushed_to_is_looked_at(make: Callable[..., Watcher], repo: GitRepo) -> None:
    repo.commit({"dev.md": b"1"}, branch="dev")
    watcher = make(repositories_rules=(Rule(branches=("main", "dev", "old")),))
    watcher.hook()
    watcher.look()
    watcher.push(403, branch="dev")
    watcher.look()
    triggers = {one.name: watcher.bench.jobs.record(one.id).triggers for one in watcher.bench.repositories.branches(1)}
    assert triggers == {"main": (), "dev": ("recovery",), "old": ()}


def test_one_repository_is_read_a_round_and_all_in_turn(make: Callable[..., Watcher], repo: GitRepo) -> None:
    watcher = make(repositories_rules=(Rule(), Rule(name="b"), Rule(name="c")))
    for name in ("b", "c"):
        watcher.github.add(f"octo/{name}", repo.path)
    watcher.look()  # new ones are read at once
    rounds = [watcher.look(after=after) for after in (HOUR, 8, 8, 8)]
    assert [paths[0] if paths else None for paths in rounds] == [
        *(f"/repos/octo/{name}/hooks" for name in ("data", "b", "c")),
        None,
    ]


def test_the_next_poll_comes_no_later_than_without_webhooks(watcher: Watcher) -> None:
    watcher.bench.announce(watcher.bench.repo.head(), watcher.push(200, guid="one"), guid="one")
    watcher.bench.settle()
    watcher.bench.time.advance(HOUR)
    watcher.bench.poller.tick()
    assert wait_seconds(watcher) > 60
    watcher.push(403)
    watcher.look(after=30)
    assert wait_seconds(watcher) <= 60


def wait_seconds(watcher: Watcher) -> float:
    due = watcher.bench.record().next_poll_at
    assert due is not None
    return (due - watcher.bench.time.at).total_seconds()


def test_whatever_goes_wrong_the_next_round_comes(watcher: Watcher) -> None:
    watcher.bench.database.close()
    watcher.bench.time.advance(HOUR)
    with capture_logs() as logs:
        recover_safely(watcher.recovery)
    assert [entry["event"] for entry in logs] == ["hook_log.store_unavailable"]
