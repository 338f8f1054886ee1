"""What is tracked, who it is, and when it is asked about."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from store_bench import NOW, Bench, blob, change, delivery, later, remote, rule, sha

from daemon.errors import RepositoryReplaced
from daemon.model import (
    DeliveryStatus,
    HeadsQuery,
    RemoteRepository,
    RepositoryRef,
    RepositoryState,
    Trigger,
    WebhookHealth,
)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path / "store.db")
    yield bench
    bench.db.close()


def track(bench: Bench, *rules: str | tuple[str, ...]) -> None:
    made = [rule(one) if isinstance(one, str) else rule(*one) for one in rules]
    bench.repositories.track(made, now=NOW)


def branches(bench: Bench, repository: int = 1) -> list[str]:
    return [branch.name for branch in bench.repositories.branches(repository)]


def defaults(bench: Bench, repository: int = 1) -> list[tuple[str, bool]]:
    rows = bench.rows("SELECT name, tracked FROM branch WHERE is_default AND repository_id = ?", repository)
    return [(name, bool(tracked)) for name, tracked in rows]


def due(bench: Bench, seconds: float = 0) -> list[int]:
    return [target.repository_id for target in bench.repositories.due(now=later(seconds), limit=99)]


# -- tracking ----------------------------------------------------------------------------------------


def test_a_repository_without_branches_has_its_default_branch_before_its_name_is_known(bench: Bench) -> None:
    track(bench, "octo/data")
    assert branches(bench) == [""]
    assert bench.want(Trigger.STARTUP)
    claim = bench.claim()
    assert claim is not None
    assert (claim.branch, claim.repository) == ("", RepositoryRef("octo", "data", None))


def test_tracking_twice_changes_nothing(bench: Bench) -> None:
    for _ in range(2):
        track(bench, "octo/data", ("octo/more", "main", "release/*"))
    assert bench.value("SELECT count(*) FROM repository") == 2
    assert bench.value("SELECT count(*) FROM branch") == bench.value("SELECT count(*) FROM job") == 2


def test_a_repository_is_the_same_in_any_case(bench: Bench) -> None:
    track(bench, "octo/data")
    track(bench, "Octo/DATA")
    assert bench.repositories.by_name("OCTO", "data") == 1
    assert bench.value("SELECT count(*) FROM repository") == 1


def test_what_is_tracked_is_told_by_name(bench: Bench) -> None:
    track(bench, ("octo/zoo", "main", "v*"), "octo/data")
    told = bench.repositories.tracked()
    assert [(one.full_name, one.branches, one.configured) for one in told] == [
        ("octo/data", (), "octo/data"),
        ("octo/zoo", ("main", "v*"), "octo/zoo"),
    ]


def test_what_is_configured_no_more_keeps_its_rows(bench: Bench) -> None:
    bench.begin()
    bench.apply(change("one", added=(blob(b"a", b"", stored=False),)))
    track(bench, "octo/more")
    assert [one.full_name for one in bench.repositories.tracked()] == ["octo/more"]
    assert bench.repositories.record("octo", "data") is None
    track(bench, "octo/data")
    assert len(bench.snapshots.entries(1)) == 1
    assert branches(bench) == ["main"]


def test_named_branches_are_tracked_and_no_others(bench: Bench) -> None:
    track(bench, ("octo/data", "main", "dev"))
    assert branches(bench) == ["dev", "main"]
    track(bench, ("octo/data", "dev"))
    assert branches(bench) == ["dev"]
    track(bench, ("octo/data", "dev", "main"))
    assert branches(bench) == ["dev", "main"]
    assert bench.value("SELECT count(*) FROM branch") == 2


def test_a_glob_keeps_the_branches_it_matches(bench: Bench) -> None:
    track(bench, ("octo/data", "release/*"))
    assert branches(bench) == []
    for name in ("release/1", "release/2", "Release/3"):
        bench.repositories.ensure_branch(1, name)
    track(bench, ("octo/data", "release/[!2]", "main"))
    assert branches(bench) == ["main", "release/1"]


def test_a_branch_has_one_row_however_often_it_is_made(bench: Bench) -> None:
    track(bench, ("octo/data", "v*"))
    assert bench.repositories.ensure_branch(1, "v1") == bench.repositories.ensure_branch(1, "v1")


def test_going_from_patterns_to_the_default_branch_and_back(bench: Bench) -> None:
    bench.begin()
    track(bench, ("octo/data", "dev"))
    assert branches(bench) == ["dev"]
    track(bench, "octo/data")
    assert branches(bench) == ["main"]
    assert defaults(bench) == [("main", True)]


# -- identity ----------------------------------------------------------------------------------------


def test_the_default_branch_gets_its_name_when_github_tells_it(bench: Bench) -> None:
    track(bench, "octo/data")
    bench.repositories.identify(1, RemoteRepository(7, "Octo", "Data", "trunk", archived=True, private=True), now=NOW)
    assert defaults(bench) == [("trunk", True)]
    (told,) = bench.repositories.tracked()
    assert (told.github_id, told.full_name, told.default_branch) == (7, "Octo/Data", "trunk")
    assert bench.value("SELECT state FROM repository") == "available"
    (target,) = bench.repositories.due(now=NOW, limit=1)
    assert target.known == RemoteRepository(7, "Octo", "Data", "trunk", archived=True, private=True)


def test_a_renamed_default_branch_keeps_its_snapshot(bench: Bench) -> None:
    bench.begin()
    bench.apply(change("one", added=(blob(b"a", b"", stored=False),)))
    bench.repositories.identify(1, remote(default="trunk"), now=NOW)
    assert defaults(bench) == [("trunk", True)]
    assert bench.snapshots.facts(1).head_sha == sha("one")


def test_a_default_branch_that_is_another_known_branch_becomes_that(bench: Bench) -> None:
    bench.begin()
    track(bench, ("octo/data", "main", "trunk"))
    track(bench, "octo/data")
    bench.repositories.identify(1, remote(default="trunk"), now=NOW)
    assert branches(bench) == ["trunk"]
    assert defaults(bench) == [("trunk", True)]


def test_what_was_announced_for_the_unknown_default_branch_goes_with_it(bench: Bench) -> None:
    track(bench, ("octo/data", "main"))
    track(bench, "octo/data")
    bench.history.store_deliveries([delivery(1, branch="main")], now=NOW)
    claim = bench.claim()
    assert claim is not None
    assert claim.branch == ""
    bench.repositories.identify(1, remote(), now=NOW)
    main = bench.snapshots.branch_id(1, "main")
    assert main not in (None, claim.branch_id)
    assert main is not None
    again = bench.claim()
    assert again is not None
    assert (again.branch_id, again.triggers) == (main, (Trigger.WEBHOOK,))
    assert [item.after for item in bench.jobs.announcements(main, generation=again.generation)] == [sha("head 1")]


def test_where_branches_are_named_the_default_branch_is_only_marked(bench: Bench) -> None:
    track(bench, ("octo/data", "main", "dev"))
    bench.repositories.identify(1, remote(default="main"), now=NOW)
    bench.repositories.identify(1, remote(default="trunk"), now=NOW)
    assert branches(bench) == ["dev", "main"]
    assert defaults(bench) == []


def test_a_repository_without_a_commit_has_no_default_branch(bench: Bench) -> None:
    track(bench, "octo/data")
    bench.repositories.identify(1, remote(default=None), now=NOW)
    assert branches(bench) == [""]
    record = bench.repositories.record("octo", "data")
    assert record is not None
    assert (record.state, record.branches, record.job_states) == (RepositoryState.EMPTY, (), ("idle",))


def test_a_renamed_repository_is_found_by_both_names_and_survives_a_restart(bench: Bench) -> None:
    bench.begin()
    bench.repositories.identify(1, remote("New/Name"), now=NOW)
    track(bench, "octo/data")
    (told,) = bench.repositories.tracked()
    assert (told.id, told.full_name, told.configured) == (1, "New/Name", "octo/data")
    assert bench.repositories.by_name("octo", "data") == bench.repositories.by_name("new", "name") == 1
    record = bench.repositories.record("octo", "data")
    assert record is not None
    assert record.full_name == "New/Name"
    track(bench, "new/name")
    assert [one.id for one in bench.repositories.tracked()] == [1]
    assert bench.repositories.by_name("octo", "data") == 1


def test_an_old_name_leads_to_its_repository_until_another_one_takes_it(bench: Bench) -> None:
    bench.begin()
    for name in ("octo/second", "octo/third"):
        bench.repositories.identify(1, remote(name), now=NOW)
    assert [bench.repositories.by_name("octo", name) for name in ("data", "second", "third")] == [1, 1, 1]
    bench.repositories.track([rule("octo/third"), rule("octo/other")], now=NOW)
    other = bench.repositories.by_name("octo", "other")
    assert other is not None
    bench.repositories.identify(other, remote("octo/second", 8), now=NOW)
    assert [bench.repositories.by_name("octo", name) for name in ("data", "second", "third")] == [1, other, 1]
    bench.repositories.identify(1, remote("octo/data"), now=NOW)
    assert [bench.repositories.by_name("octo", name) for name in ("data", "second", "third")] == [1, other, 1]


def test_an_old_name_that_was_given_up_means_whoever_has_it_now(bench: Bench) -> None:
    bench.begin()
    bench.repositories.identify(1, remote("new/name"), now=NOW)
    track(bench, "octo/more")
    track(bench, "octo/data")
    assert bench.repositories.by_name("octo", "data") not in (None, 1)


def test_another_repository_under_the_same_name_is_refused(bench: Bench) -> None:
    bench.begin()
    with pytest.raises(RepositoryReplaced, match="id 8, it was 7"):
        bench.repositories.identify(1, remote("octo/else", github_id=8), now=NOW)
    assert bench.repositories.ref(1) == RepositoryRef("octo", "data", 7)


def test_an_id_that_another_tracked_one_has_is_refused(bench: Bench) -> None:
    bench.begin()
    track(bench, "octo/data", "octo/more")
    claimed = remote("octo/new", github_id=7)
    with bench.db.write(), pytest.raises(RepositoryReplaced, match="octo/data"):
        bench.repositories.identify(2, claimed, now=NOW)
    assert bench.repositories.ref(2) == RepositoryRef("octo", "more", None)


def test_a_name_that_another_one_has_now_is_given_up_and_asked_about(bench: Bench) -> None:
    bench.begin()
    track(bench, "octo/data", "octo/more")
    bench.repositories.polled({1: later(900)}, at=NOW)
    bench.repositories.identify(2, remote("octo/data", github_id=9), now=NOW)
    assert bench.repositories.by_name("octo", "data") == 2
    assert bench.repositories.ref(1) == RepositoryRef("octo", "data~7", 7)
    assert 1 in due(bench)


def test_what_takes_the_place_of_a_replaced_repository_has_its_rules_and_its_wishes(bench: Bench) -> None:
    bench.begin()
    track(bench, ("octo/data", "main", "v*"))
    bench.history.store_deliveries([delivery()], now=NOW)
    fresh = bench.repositories.replace(1, now=NOW)
    (told,) = bench.repositories.tracked()
    assert (told.id, told.full_name, told.github_id, told.branches) == (fresh, "octo/data", None, ("main", "v*"))
    claim = bench.claim()
    assert claim is not None
    assert (claim.repository_id, claim.branch) == (fresh, "main")
    assert [one.after for one in bench.jobs.announcements(claim.branch_id, generation=claim.generation)] == [
        sha("head 1")
    ]
    kept = bench.repositories.record("octo", "data~7")
    assert kept is not None
    assert (kept.id, kept.state) == (1, RepositoryState.GONE)
    track(bench, ("octo/data", "main", "v*"))
    assert [one.id for one in bench.repositories.tracked()] == [fresh]


def test_a_hint_that_comes_during_a_look_is_looked_into_after_it(bench: Bench) -> None:
    bench.begin()
    bench.history.store_deliveries(
        [delivery(status=DeliveryStatus.IGNORED, event="repository", hint_repository_id=1)], now=NOW
    )
    bench.repositories.polled({1: later(900)}, at=NOW)
    (target,) = bench.repositories.due(now=NOW, limit=9)
    assert target.query.identify
    bench.repositories.polled({1: later(900)}, at=NOW, hinted={1})
    assert bench.repositories.due(now=NOW, limit=9) == []


def test_a_row_that_is_not_tracked_any_more_gives_way(bench: Bench) -> None:
    bench.begin()
    track(bench, "octo/renamed")
    bench.repositories.identify(2, remote("octo/data", github_id=7), now=NOW)
    assert bench.repositories.by_name("octo", "data") == 2
    assert bench.repositories.ref(2).github_id == 7
    assert bench.repositories.ref(1).github_id is None


def test_an_unknown_repository_has_no_ref(bench: Bench) -> None:
    with pytest.raises(LookupError):
        bench.repositories.ref(1)
    assert bench.repositories.by_name("no", "body") is None


# -- polling -----------------------------------------------------------------------------------------


def test_everything_is_due_at_the_start_the_unseen_first(bench: Bench) -> None:
    track(bench, "octo/a", "octo/b", "octo/c")
    bench.repositories.polled({1: later(60)}, at=later(5))
    bench.repositories.polled({2: later(60)}, at=later(3))
    assert due(bench, 10) == [3]
    assert due(bench, 60) == [3, 2, 1]
    assert [target.repository_id for target in bench.repositories.due(now=later(60), limit=2)] == [3, 2]
    track(bench, "octo/a")
    assert due(bench, 10) == [1]


def test_a_clock_that_jumped_back_makes_everything_due(bench: Bench) -> None:
    track(bench, "octo/a")
    bench.repositories.polled({1: later(60)}, at=NOW)
    assert due(bench, 10) == []
    assert due(bench, -3600) == [1]


def test_everything_can_be_made_due(bench: Bench) -> None:
    track(bench, "octo/a", "octo/b")
    for number in (1, 2):
        bench.repositories.polled({number: later(900)}, at=NOW)
    assert due(bench) == []
    bench.repositories.everything_due()
    assert due(bench) == [1, 2]


def test_a_look_is_brought_forward_and_never_put_off(bench: Bench) -> None:
    track(bench, "octo/a")
    bench.repositories.polled({1: later(5)}, at=NOW)
    bench.repositories.look_by(1, at=later(10))
    assert due(bench, 5) == [1]
    bench.repositories.look_by(1, at=later(2))
    assert due(bench, 2) == [1]


def test_a_due_repository_comes_with_all_that_a_look_needs(bench: Bench) -> None:
    bench.begin()
    track(bench, ("octo/data", "main", "dev"))
    bench.apply(change("one"))
    (target,) = bench.repositories.due(now=NOW, limit=1)
    assert target.query == HeadsQuery(RepositoryRef("octo", "data", 7), ("dev", "main"), (("main", sha("one")),))
    assert (target.patterns, target.health, target.failures) == (("main", "dev"), WebhookHealth.UNKNOWN, 0)
    assert [branch.name for branch in target.branches] == ["dev", "main"]
    assert target.known == remote()


def test_the_unnamed_default_branch_is_not_asked_for_by_name(bench: Bench) -> None:
    track(bench, "octo/data")
    (target,) = bench.repositories.due(now=NOW, limit=1)
    assert target.query == HeadsQuery(RepositoryRef("octo", "data", None))
    assert target.known is None
    assert len(target.branches) == 1


def test_a_failed_poll_is_told_and_counted_and_confirms_nothing(bench: Bench) -> None:
    bench.begin()
    bench.apply(change("one"))
    for _ in range(2):
        bench.repositories.poll_failed(1, at=NOW, error="404 \0", state=RepositoryState.GONE, next_poll_at=later(60))
    record = bench.repositories.record("octo", "data")
    assert record is not None
    assert (record.state, record.last_error, record.next_poll_at) == (RepositoryState.GONE, "404 \ufffd", later(60))
    assert record.branches[0].confirmed_at == NOW
    assert bench.repositories.due(now=later(60), limit=1)[0].failures == 2


def test_an_outage_is_told_but_not_counted(bench: Bench) -> None:
    bench.begin()
    bench.repositories.poll_failed(1, at=NOW, error="502", state=None, next_poll_at=NOW, count=False)
    assert bench.repositories.due(now=NOW, limit=1)[0].failures == 0
    assert bench.value("SELECT state FROM repository") == "available"


def test_a_poll_that_succeeds_ends_the_trouble(bench: Bench) -> None:
    bench.begin()
    bench.repositories.poll_failed(1, at=NOW, error="404", state=RepositoryState.GONE, next_poll_at=NOW)
    bench.repositories.polled({1: later(60)}, at=NOW)
    record = bench.repositories.record("octo", "data")
    assert record is not None
    assert (record.state, record.last_error, record.polled_at) == (RepositoryState.AVAILABLE, None, NOW)
    assert bench.repositories.due(now=later(60), limit=1)[0].failures == 0


def test_a_poll_that_succeeds_leaves_an_empty_repository_empty(bench: Bench) -> None:
    track(bench, "octo/data")
    bench.repositories.identify(1, remote(default=None), now=NOW)
    bench.repositories.polled({1: later(60)}, at=NOW)
    assert bench.value("SELECT state FROM repository") == "empty"


# -- what was seen -----------------------------------------------------------------------------------


def confirmed(bench: Bench) -> tuple[object, ...]:
    record = bench.repositories.record("octo", "data")
    assert record is not None
    branch = record.branches[0]
    return branch.remote_sha, branch.confirmed_at, branch.gone, branch.last_error


def test_a_branch_is_confirmed_by_the_head_that_is_stored(bench: Bench) -> None:
    bench.begin()
    bench.apply(change("one"))
    bench.repositories.mark_branch(1, gone=True, at=later(1), error="gone")
    bench.repositories.confirm(1, head=sha("one"), at=later(5))
    assert confirmed(bench) == (sha("one"), later(5), False, None)


def test_another_head_confirms_nothing(bench: Bench) -> None:
    bench.begin()
    bench.apply(change("one"))
    bench.repositories.mark_branch(1, gone=True, at=later(1), error="gone")
    bench.repositories.confirm(1, head=sha("two"), at=later(5))
    assert confirmed(bench) == (sha("two"), NOW, True, "gone")


def test_seeing_a_head_concludes_nothing(bench: Bench) -> None:
    bench.begin()
    bench.apply(change("one"))
    bench.repositories.saw(1, head=None, at=later(5))
    assert confirmed(bench) == (None, NOW, False, None)
    assert bench.snapshots.facts(1).remote_read_at == later(5)


@pytest.mark.parametrize("marks", [{"gone": True}, {"empty": True}])
def test_a_copy_whose_branch_is_away_is_not_confirmed_any_more(bench: Bench, marks: dict[str, bool]) -> None:
    bench.begin()
    bench.apply(change("one"))
    bench.repositories.mark_branch(1, **marks, at=later(60), error="it does not exist")
    assert confirmed(bench)[1] == NOW


def test_a_branch_that_stays_away_keeps_the_reason(bench: Bench) -> None:
    bench.begin()
    bench.repositories.mark_branch(1, gone=True, at=NOW, error="it does not exist")
    bench.repositories.mark_branch(1, gone=True, at=later(60), error=None)
    assert confirmed(bench)[1:] == (later(60), True, "it does not exist")


def test_webhook_health_can_be_set(bench: Bench) -> None:
    bench.begin()
    bench.repositories.set_health(1, WebhookHealth.HEALTHY)
    assert bench.repositories.due(now=NOW, limit=1)[0].health is WebhookHealth.HEALTHY


# -- records -----------------------------------------------------------------------------------------


def test_records_are_listed_by_name_and_in_pages(bench: Bench) -> None:
    track(bench, "octo/C", "octo/a", "Octo/b")
    first = bench.repositories.records(after=None, limit=2)
    assert [one.full_name for one in first] == ["octo/a", "Octo/b"]
    assert [one.name for one in bench.repositories.records(after="Octo/b", limit=9)] == ["C"]


def test_a_record_tells_the_state_of_each_job(bench: Bench) -> None:
    bench.begin()
    track(bench, ("octo/data", "dev", "main"))
    dev = bench.snapshots.branch_id(1, "dev")
    assert dev is not None
    bench.want(branch=1)
    assert bench.claim() is not None
    bench.want(branch=dev)
    record = bench.repositories.record("octo", "data")
    assert record is not None
    assert [(branch.name, branch.job_state) for branch in record.branches] == [("dev", "pending"), ("main", "running")]
    assert record.job_states == ("pending", "running")


def test_a_record_tells_why_a_job_waits(bench: Bench) -> None:
    bench.begin()
    bench.jobs.waiting(bench.claimed(), run_after=later(1), sighting=None, note="stale API", now=NOW)
    record = bench.repositories.record("octo", "data")
    assert record is not None
    assert (record.branches[0].waiting_for, record.branches[0].last_error) == ("stale API", None)
