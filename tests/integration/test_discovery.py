"""What ``owner/*`` finds, keeps, marks and leaves alone, against a stand-in."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import pytest
from bench import Bench

from daemon.config import RepositoryRule
from daemon.demo.standin import StandIn
from daemon.demo.standin.answers import Answer
from daemon.demo.standin.faults import Html, Replace, Status
from daemon.demo.standin.gitrepo import GitRepo
from daemon.model import Delivery, DeliveryStatus, ListedRepository, RepositoryState
from daemon.store.owners import Owners
from daemon.triggers.discovery import Discovery, names_left_out, takes

HOUR = 3600.0
ALL = RepositoryRule("octo", "*")


@dataclass
class World:
    """A bench whose rules may be changed, with everything that looks."""

    bench: Bench
    rules: tuple[RepositoryRule, ...]
    changes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.owners = Owners(self.bench.database)
        self.discovery = Discovery(
            self.owners,
            self.bench.client,
            clock=self.bench.time.clock,
            rules=lambda: self.rules,
            on_change=lambda: self.changes.append("changed"),
        )
        self.configure(*self.rules)

    def configure(self, *rules: RepositoryRule) -> None:
        self.rules = rules
        self.bench.repositories.track(rules, now=self.bench.time.at)

    def look(self, *, after: float = 0.0) -> list[str]:
        """One tick of discovery; the paths it asked for."""
        self.bench.time.advance(after)
        self.bench.github.requests.clear()
        self.discovery.tick()
        return self.bench.requests()

    def settle(self) -> None:
        """Poll and sync until nothing is due."""
        for _ in range(4):
            self.bench.poller.tick()
            self.bench.settle()
            self.bench.time.advance(1)

    def names(self) -> list[str]:
        return [one.full_name for one in self.bench.repositories.tracked()]

    def state(self, name: str) -> RepositoryState | None:
        found = self.bench.repositories.record(*name.split("/"))
        return found.state if found else None

    def head(self, name: str) -> str | None:
        found = self.bench.repositories.record(*name.split("/"))
        return found.branches[0].head_sha if found and found.branches else None


@pytest.fixture
def world(tmp_path: Path, github: StandIn, repo: GitRepo) -> Iterator[World]:
    for name in ("one", "two"):
        github.add(f"octo/{name}", repo.path)
    bench = Bench(tmp_path, github, repo, repositories_rules=())
    yield World(bench, (ALL,))
    bench.close()


def hint(world: World, number: int = 1, *, event: str = "repository") -> None:
    delivery = Delivery(
        guid=None,
        body_digest=f"{number:064}",
        event=event,
        action="created",
        repository=None,
        ref=None,
        before=None,
        after=None,
        received_at=world.bench.time.at,
        status=DeliveryStatus.IGNORED,
        hint_owner="octo/*",
    )
    world.bench.history.store_deliveries([delivery], now=world.bench.time.at)


# -- finding ----------------------------------------------------------------------------------------


def test_what_an_owner_has_is_tracked_and_synced(world: World) -> None:
    assert len(world.look()) == 2
    assert world.names() == ["octo/data", "octo/one", "octo/two"]
    world.settle()
    assert {world.head(name) for name in world.names()} == {world.bench.repo.head()}
    assert world.look(after=60) == []


def test_every_hour_the_list_is_looked_at_and_new_ones_are_found(world: World) -> None:
    world.look()
    world.bench.github.add("octo/three", world.bench.repo.path)
    assert world.look(after=HOUR - 1) == []
    assert len(world.look(after=1)) == 2
    assert "octo/three" in world.names()
    assert world.changes == ["changed", "changed"]


def test_when_the_next_look_is_due_survives_a_restart(world: World) -> None:
    world.look()
    again = World.__new__(World)
    again.bench, again.rules, again.changes = world.bench, world.rules, []
    again.owners = Owners(world.bench.database)
    (record,) = again.owners.records()
    assert record.next_look_at is not None
    assert (record.next_look_at - world.bench.time.at).total_seconds() == HOUR
    assert (record.repositories, record.failures, record.last_error) == (3, 0, None)


@pytest.mark.parametrize("jump", [-600, -3 * HOUR, -400 * 24 * HOUR])
def test_a_clock_that_jumps_back_holds_up_no_look(world: World, jump: float) -> None:
    world.look()
    world.bench.time.at += timedelta(seconds=jump)
    assert len(world.look()) == 2
    assert world.look() == []


def test_a_clock_that_jumps_back_while_looks_fail_holds_them_up_no_longer_than_they_wait(world: World) -> None:
    world.bench.github.faults.add(r"^/users/octo", Status(404))
    world.look()
    world.bench.time.at -= timedelta(days=400)
    assert len(world.look()) == 1
    assert world.look() == []


def test_a_hint_brings_the_next_look_forward_and_one_more_after_it(world: World) -> None:
    world.look()
    hint(world)
    assert world.look() == []
    assert len(world.look(after=10)) == 2
    assert len(world.look(after=60)) == 2
    assert world.look(after=HOUR / 2) == []


def test_any_number_of_hints_cost_a_look_in_ten_seconds(world: World) -> None:
    world.look()
    asked = 0
    for second in range(60):
        hint(world, second)
        asked += len(world.look(after=1)) // 2
    assert asked <= 6


def test_the_branches_and_the_search_of_the_rule_hold_for_what_it_finds(world: World) -> None:
    world.bench.repo.reset("dev", world.bench.repo.head() or "")
    world.configure(replace(ALL, branches=("dev", "main"), search=False))
    world.look()
    world.settle()
    for one in world.bench.repositories.every():
        assert [branch.name for branch in one.branches] == ["dev", "main"]
    with world.bench.database.read():
        rows = world.bench.database.execute("SELECT count(*) FROM repository WHERE search").fetchone()
    assert rows[0] == 0
    world.configure(ALL)
    assert [[branch.name for branch in one.branches] for one in world.bench.repositories.every()] == [["main"]] * 3


@pytest.mark.parametrize(
    ("rule", "found"),
    [
        (replace(ALL, exclude_repositories=("t*",)), ["octo/data", "octo/one"]),
        (replace(ALL, exclude_repositories=("OCTO/One", "data")), ["octo/two"]),
        (replace(ALL, topics=("Docs", "x")), ["octo/one"]),
        (replace(ALL, archived=False), ["octo/data", "octo/one"]),
        (replace(ALL, forks=False), ["octo/data", "octo/two"]),
    ],
)
def test_the_filters_say_which_are_taken(world: World, rule: RepositoryRule, found: list[str]) -> None:
    one, two = (world.bench.github.repository(f"octo/{name}") for name in ("one", "two"))
    one.topics, one.fork, two.archived, two.topics = ("docs",), True, True, ("other",)
    world.configure(rule)
    world.look()
    assert world.names() == found


def test_what_is_not_taken_is_no_reason_to_look_again(world: World) -> None:
    world.configure(replace(ALL, forks=False, exclude_repositories=("x-*",)))
    world.bench.github.repository("octo/one").fork = True
    world.look()
    (owner,) = world.discovery.tracked_owners()
    assert owner.passed_over == {world.bench.github.repository("octo/one").id}
    assert (owner.key, owner.excluded) == ("octo/*", ("x-*",))


# -- losing -----------------------------------------------------------------------------------------


def test_one_that_is_gone_is_marked_and_kept_and_tracked_again_when_it_is_back(world: World) -> None:
    world.look()
    world.settle()
    head, served = world.head("octo/two"), world.bench.github.repository("octo/two")
    world.bench.github.remove("octo/two")
    world.look(after=HOUR)
    assert world.state("octo/two") is RepositoryState.GONE
    world.settle()
    assert (world.state("octo/two"), world.head("octo/two")) == (RepositoryState.GONE, head)
    assert "octo/two" in world.names()
    world.bench.github.add("octo/two", served.path, github_id=served.id)
    world.look(after=HOUR)
    world.settle()
    assert world.state("octo/two") is RepositoryState.AVAILABLE


def test_one_that_the_list_leaves_out_but_github_still_has_is_not_gone(world: World) -> None:
    world.look()
    world.settle()
    two = world.bench.github.repository("octo/two").id

    def shortened(answer: Answer) -> Answer:
        kept = [one for one in json.loads(answer.body) if one["id"] != two]
        return replace(answer, body=json.dumps(kept).encode())

    world.bench.github.faults.add(r"/repos\?", Replace(shortened), times=1)
    world.look(after=HOUR)
    world.settle()
    assert world.state("octo/two") is RepositoryState.AVAILABLE


def test_one_that_passes_the_filters_no_more_is_not_tracked_and_keeps_its_rows(world: World) -> None:
    world.configure(replace(ALL, archived=False))
    world.look()
    world.settle()
    world.bench.github.repository("octo/two").archived = True
    world.look(after=HOUR)
    assert world.names() == ["octo/data", "octo/one"]
    world.bench.github.repository("octo/two").archived = False
    world.look(after=HOUR)
    assert world.head("octo/two") == world.bench.repo.head()


@pytest.mark.parametrize("fault", [Status(500), Status(404), Status(403), Status(401), Html(), Status(200, [])])
def test_a_list_that_fails_changes_nothing(world: World, fault: Status | Html) -> None:
    world.look()
    world.settle()
    world.bench.github.faults.add(r"^/users/octo", fault)
    world.look(after=HOUR)
    world.settle()
    assert {world.state(name) for name in ("octo/data", "octo/one", "octo/two")} == {RepositoryState.AVAILABLE}
    (record,) = world.owners.records()
    assert record.failures == 1
    assert record.last_error


def test_a_second_page_that_fails_changes_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemon.github.listing._PAGES", "per_page=2")
    world.look()
    assert len(world.names()) == 3
    world.bench.github.faults.add(r"page=2$", Status(502))
    world.look(after=HOUR)
    assert {world.state(name) for name in world.names()} == {RepositoryState.UNKNOWN}


def test_failing_lists_are_asked_for_ever_less_and_hints_do_not_change_that(world: World) -> None:
    rule = world.bench.github.faults.add(r"^/users/octo", Status(404))
    looks = 0
    for second in range(600):
        hint(world, second)
        looks += len(world.look(after=1))
    assert looks <= 7
    world.bench.github.faults.remove(rule)
    world.look(after=HOUR)
    assert len(world.names()) == 3


def test_an_installation_ends_the_wait_that_looks_without_one_had_come_to(world: World) -> None:
    rule = world.bench.github.faults.add(r"^/users/octo", Status(403))
    for _ in range(6):
        world.look(after=HOUR)
    world.bench.github.faults.remove(rule)
    assert world.look(after=1) == []
    hint(world, event="installation")
    assert len(world.look(after=1)) == 2


def test_a_limit_puts_the_look_off_until_its_end(world: World) -> None:
    world.bench.github.limit(remaining=0, reset_in=900)
    assert len(world.look()) == 1
    assert world.look(after=600) == []
    world.bench.github.limits.clear()
    world.look(after=302)
    assert len(world.names()) == 3


# -- names ------------------------------------------------------------------------------------------


def test_a_renamed_one_keeps_what_is_stored_and_is_found_under_both_names(world: World) -> None:
    world.look()
    world.settle()
    row = world.bench.repositories.by_name("octo", "two")
    world.bench.github.rename("octo/two", "octo/zwei")
    world.look(after=HOUR)
    world.settle()
    assert world.names() == ["octo/data", "octo/one", "octo/zwei"]
    assert world.bench.repositories.by_name("octo", "zwei") == world.bench.repositories.by_name("octo", "two") == row


def test_one_that_moved_to_another_owner_is_followed_there(world: World) -> None:
    world.look()
    world.settle()
    world.bench.github.rename("octo/two", "else/two")
    for _ in range(2):
        world.look(after=HOUR)
        world.settle()
        assert world.names() == ["else/two", "octo/data", "octo/one"]
        assert world.state("else/two") is RepositoryState.AVAILABLE


def test_a_new_one_under_an_old_name_is_a_new_one_and_the_old_one_is_kept(world: World, tmp_path: Path) -> None:
    world.look()
    world.settle()
    head, number = world.head("octo/two"), world.bench.github.repository("octo/two").id
    other = GitRepo.init(tmp_path / "other.git")
    other.commit({"other.md": b"another history\n"})
    fresh = world.bench.github.recreate("octo/two", other.path)
    for _ in range(2):
        world.look(after=HOUR)
        world.settle()
    assert world.names() == ["octo/data", "octo/one", "octo/two"]
    assert world.head("octo/two") == other.head()
    assert (world.state(f"octo/two~{number}"), world.head(f"octo/two~{number}")) == (RepositoryState.GONE, head)
    assert {one.github_id for one in world.bench.repositories.tracked()} >= {fresh.id}


def test_a_new_one_under_the_name_that_a_renamed_one_had_is_found_besides_it(world: World) -> None:
    world.look()
    world.settle()
    world.bench.github.rename("octo/two", "octo/zwei")
    world.bench.github.add("octo/two", world.bench.repo.path)
    for _ in range(2):
        world.look(after=HOUR)
        world.settle()
    world.look()
    world.settle()
    assert world.names() == ["octo/data", "octo/one", "octo/two", "octo/zwei"]
    assert {world.state(name) for name in world.names()} == {RepositoryState.AVAILABLE}


# -- beside entries of their own ---------------------------------------------------------------------


@pytest.mark.parametrize("first", ["pattern", "entry"])
def test_an_entry_of_its_own_wins_and_when_it_goes_the_pattern_takes_over(world: World, first: str) -> None:
    own = RepositoryRule("octo", "two", branches=("main", "dev"))
    if first == "pattern":
        world.look()
        world.settle()
    world.configure(ALL, own)
    world.look()
    world.settle()
    found = {one.full_name: (one.configured, one.branches) for one in world.bench.repositories.tracked()}
    assert found["octo/two"] == ("octo/two", ("main", "dev"))
    assert found["octo/one"] == ("octo/*", ())
    assert len(found) == 3
    assert all(one.last_error is None for one in world.bench.repositories.every())
    world.configure(ALL)
    assert {one.configured for one in world.bench.repositories.tracked()} == {"octo/*"}
    assert world.head("octo/two") == world.bench.repo.head()


def test_an_entry_under_a_name_that_was_given_up_is_the_repository_that_the_pattern_found(world: World) -> None:
    world.look()
    world.settle()
    world.bench.github.rename("octo/two", "octo/zwei")
    world.configure(ALL, RepositoryRule("octo", "two"))
    for _ in range(3):
        world.look(after=HOUR)
        world.settle()
    assert world.names() == ["octo/data", "octo/one", "octo/zwei"]
    assert all(one.last_error is None for one in world.bench.repositories.every())


def test_without_the_pattern_what_it_found_is_not_tracked_and_keeps_its_rows(world: World) -> None:
    world.look()
    world.settle()
    world.configure(RepositoryRule("octo", "one"))
    assert world.names() == ["octo/one"]
    assert world.owners.records() == []
    assert world.look(after=HOUR) == []
    world.configure(ALL)
    world.look()
    assert world.head("octo/two") == world.bench.repo.head()


def test_a_look_that_a_reload_overtook_changes_nothing(world: World) -> None:
    listed = world.bench.client.repositories_of("octo")
    world.configure()
    world.owners.take(ALL, listed, listed, now=world.bench.time.at)
    assert world.names() == []


def test_what_a_reload_changes_while_the_list_is_read_counts_at_once(world: World) -> None:
    def reloaded(answer: Answer) -> Answer:
        world.bench.time.advance(1)
        world.configure(replace(ALL, exclude_repositories=("one",), branches=("release",)))
        world.bench.time.advance(1)
        return answer

    world.bench.github.faults.add(r"/repos\?", Replace(reloaded), times=1)
    world.look()
    assert world.names() == ["octo/data", "octo/two"]
    assert {one.branches for one in world.bench.repositories.tracked()} == {("release",)}
    assert len(world.look()) == 2  # it was due anew
    assert world.look(after=60) == []


def test_one_that_moves_between_two_owners_that_are_both_followed_is_one(world: World) -> None:
    world.bench.github.add("else/thing", world.bench.repo.path)
    world.configure(ALL, RepositoryRule("else", "*"))
    world.look()
    world.settle()
    world.bench.github.rename("octo/two", "else/two")
    for _ in range(2):
        world.look(after=HOUR)
        world.settle()
    found = {one.full_name: one.configured for one in world.bench.repositories.tracked()}
    assert found == {"else/thing": "else/*", "else/two": "else/*", "octo/data": "octo/*", "octo/one": "octo/*"}


# -- pure -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "rules", "left_out"),
    [
        ("octo/one", (ALL,), False),
        ("OCTO/One", (ALL,), False),
        ("octo/one~7", (ALL,), False),
        ("octopus/one", (ALL,), True),
        ("octo/one", (replace(ALL, exclude_repositories=("one",)),), True),
        ("octo/one", (replace(ALL, exclude_repositories=("one",)), RepositoryRule("octo", "one")), False),
        ("octo/one", (), True),
    ],
)
def test_a_name_that_no_rule_can_be_for_is_left_out(name: str, rules: Sequence[RepositoryRule], left_out: bool) -> None:
    assert names_left_out(rules, name) is left_out


def test_a_thousand_are_taken_once(world: World) -> None:
    many = [ListedRepository(number, "octo", f"r{number}") for number in range(1, 1001)]
    assert all(takes(ALL, one) for one in many)
    taken = world.owners.take(ALL, many, many, now=world.bench.time.at)
    assert taken.new == 1000
    assert world.owners.take(ALL, many, many, now=world.bench.time.at).new == 0
