"""Heads that GitHub shows late, in the wrong order or not at all, and what a run makes of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from bench import Bench

from daemon.demo.standin import StandIn
from daemon.demo.standin.answers import Answer
from daemon.demo.standin.faults import Replace, Status
from daemon.demo.standin.gitrepo import GitRepo
from daemon.errors import RepositoryNotFound
from daemon.model import ZERO_SHA, Outcome, Trigger, WebhookHealth
from daemon.sync.audit import compare_with_github, examine


@pytest.fixture
def forgetful(bench: Bench) -> Bench:
    """A branch of five commits whose last one alone is stored."""
    for number in range(3):
        bench.repo.commit({"n.md": b"%d\n" % number})
    bench.sync_settings = replace(bench.sync_settings, commit_history=1)
    bench.sync()
    return bench


@pytest.fixture
def anonymous(tmp_path: Path, github: StandIn, repo: GitRepo) -> Iterator[Bench]:
    github.token = None
    bench = Bench(tmp_path, github, repo, token=None, anonymous=True)
    yield bench
    bench.close()


def test_a_first_read_without_a_token_learns_the_same_by_rest(anonymous: Bench) -> None:
    assert anonymous.sync().outcome is Outcome.UPDATED
    assert anonymous.record().github_id == anonymous.github.repository("octo/data").id
    anonymous.assert_equal_to_git()


def test_a_default_branch_renamed_to_one_that_does_not_show_yet_is_waited_for(bench: Bench) -> None:
    bench.sync()
    bench.repo.rename_branch("main", "trunk")
    bench.github.set_default_branch("octo/data", "trunk")
    bench.github.stale("octo/data", "trunk", None, reads=2)
    bench.want()
    assert bench.work() is None
    assert bench.settle() < 10
    assert not bench.record().branches[0].gone
    bench.assert_equal_to_git("trunk")


def test_a_late_push_that_the_head_contains_is_served_though_the_store_never_saw_it(forgetful: Bench) -> None:
    head, _, older, oldest, *_ = forgetful.repo.log()
    forgetful.announce(oldest, older)
    result = forgetful.work()
    assert result is not None
    assert (result.outcome, forgetful.facts().head_sha) == (Outcome.UNCHANGED, head)
    assert forgetful.record().webhook is WebhookHealth.HEALTHY
    assert forgetful.settle() == 0


def test_an_announced_commit_that_github_does_not_have_is_disputed(bench: Bench) -> None:
    bench.sync()
    bench.announce("d" * 40, "f" * 40)
    assert bench.work() is None
    assert bench.settle() == pytest.approx(10, abs=0.5)
    assert bench.jobs.counts(bench.time.at).pending == 0


def test_a_deletion_that_does_not_show_is_believed_only_when_it_does(bench: Bench) -> None:
    bench.sync()
    head = bench.repo.head()
    bench.announce("e" * 40, ZERO_SHA)
    assert bench.work() is None
    assert bench.settle() == pytest.approx(10, abs=0.5)
    branch = bench.record().branches[0]
    assert (branch.gone, branch.head_sha) == (False, head)


def test_a_branch_that_vanished_unannounced_is_believed_gone_when_reads_agree(bench: Bench) -> None:
    bench.sync()
    bench.repo.delete_branch("main")
    bench.repo.reset("other", bench.facts().head_sha or "")  # or the repository would be empty
    bench.want()
    assert bench.work() is None
    assert not bench.record().branches[0].gone
    assert bench.settle() == pytest.approx(10, abs=0.5)
    assert bench.record().branches[0].gone


def test_an_older_head_is_not_followed_at_once_also_when_the_store_does_not_know_it(forgetful: Bench) -> None:
    newest, older = forgetful.repo.log()[:2]
    forgetful.repo.reset("main", older)
    forgetful.want()
    assert forgetful.work() is None
    assert forgetful.facts().head_sha == newest
    assert forgetful.settle() == pytest.approx(10, abs=0.5)
    assert forgetful.facts().head_sha == older
    forgetful.assert_equal_to_git()


def test_a_rewritten_history_whose_old_one_github_has_dropped_is_followed(bench: Bench) -> None:
    bench.sync()
    bench.repo.reset("main", bench.repo.log()[-1])
    after = bench.repo.commit({"rewritten.md": b"new history\n"})
    bench.github.faults.add("/compare/", Status(404, {"message": "Not Found"}))
    assert bench.sync().after == after
    bench.assert_equal_to_git()


def test_a_head_that_stays_old_for_long_is_told_as_a_stale_api(bench: Bench) -> None:
    bench.sync()
    before = bench.repo.head() or ""
    after = bench.repo.commit({"new.md": b"new\n"})
    bench.announce(before, after)
    bench.github.faults.add(".*", Status(503))
    assert bench.work() is None
    bench.github.faults.clear()
    bench.time.advance(301)
    bench.github.stale("octo/data", "main", before, reads=1)
    assert bench.work() is None
    assert "stale API" in (bench.record().branches[0].waiting_for or "")
    bench.settle()
    assert bench.facts().head_sha == after
    assert bench.record().branches[0].waiting_for is None


def test_a_commit_list_that_does_not_begin_with_the_head_is_refused(bench: Bench) -> None:
    bench.sync()
    before = bench.facts()
    for number in range(2):
        bench.repo.commit({"n.md": b"%d\n" % number})
    bench.github.faults.add("/compare/", Status(404, {"message": "Not Found"}))
    bench.github.faults.add(r"/commits\?", Replace(_without_the_first))
    result = bench.sync()
    assert result.outcome is Outcome.FAILED
    assert "another commit" in (result.error or "")
    assert bench.facts().head_sha == before.head_sha


def _without_the_first(answer: Answer) -> Answer:
    return replace(answer, body=json.dumps(json.loads(answer.body)[1:]).encode())


def test_a_commit_that_changes_no_file_moves_the_head_without_a_listing(bench: Bench) -> None:
    bench.sync()
    after = bench.repo.commit({}, "Nothing changed")
    bench.github.requests.clear()
    result = bench.sync()
    assert (result.after, result.added, result.modified, result.removed) == (after, 0, 0, 0)
    assert not [path for path in bench.requests() if "/git/trees/" in path or "/tarball/" in path]
    bench.assert_equal_to_git()


# -- holding the store against itself and GitHub ----------------------------------------------------


def test_an_audit_of_an_unharmed_branch_changes_nothing(bench: Bench) -> None:
    bench.sync()
    assert not examine(bench.snapshots, bench.facts()).found
    assert bench.sync(Trigger.AUDIT).outcome is Outcome.UNCHANGED


def test_content_that_is_missing_is_found_and_fetched_again(bench: Bench) -> None:
    bench.sync()
    sha = bench.tree()[0][1]
    with bench.database.write():
        bench.database.execute("DELETE FROM blob WHERE sha = ?", (sha,))
    drift = examine(bench.snapshots, bench.facts())
    assert (drift.bad_blobs, len(drift.sentences)) == ((sha,), 1)
    assert "missing" in drift.sentences[0]
    bench.sync(Trigger.AUDIT)
    bench.assert_equal_to_git()


def compared(bench: Bench) -> list[str]:
    facts = bench.facts()
    entries = bench.snapshots.entries(facts.id)
    return compare_with_github(bench.client, bench.repositories.ref(bench.repository_id), facts, entries)


def test_what_is_stored_is_compared_with_github_by_the_tree_of_its_commit(bench: Bench) -> None:
    assert compared(bench) == []  # nothing is stored yet
    bench.sync()
    assert compared(bench) == []
    with bench.database.write():
        bench.database.execute("UPDATE branch SET tree_sha = ?", ("a" * 40,))
    assert compared(bench) == []  # the rows are right all the same
    with bench.database.write():
        bench.database.execute("UPDATE entry SET mode = '100755' WHERE path = ?", (b"docs/page.md",))
    assert "GitHub's tree of" in compared(bench)[0]
    bench.github.faults.add(r"/commits\?", Status(404, {"message": "Not Found"}))
    assert "no longer has" in compared(bench)[0]
    bench.github.remove("octo/data")
    with pytest.raises(RepositoryNotFound):
        compared(bench)


def test_a_late_push_and_a_stale_answer_that_agree_do_not_move_the_branch_back(bench: Bench) -> None:
    first = bench.repo.head()
    bench.sync()
    middle = bench.repo.commit({"middle.txt": b"1\n"})
    newest = bench.repo.commit({"newest.txt": b"2\n"})
    bench.sync()
    bench.announce(first, middle)  # late: what it tells of is behind us
    bench.github.stale("octo/data", "main", middle, reads=2)
    assert bench.work() is None
    assert bench.facts().head_sha == newest
    bench.settle()
    bench.assert_equal_to_git()


def test_a_reset_at_the_end_of_several_pushes_is_followed_at_once(bench: Bench) -> None:
    bench.sync()
    older = bench.repo.head()
    stored = bench.repo.commit({"stored.txt": b"1\n"})
    bench.sync()
    between = bench.repo.commit({"between.txt": b"2\n"})
    bench.repo.reset("main", older or "")
    bench.announce(stored, between)
    bench.announce(between, older)
    bench.settle()
    assert bench.facts().head_sha == older
    assert [run.after for run in bench.history.runs(before_id=None, limit=1)] == [older]
    bench.assert_equal_to_git()


def not_found(answer: Answer) -> Answer:
    """What a server says that does not tell a branch that is missing from a repository that is."""
    plain = Answer(404, b'{"message":"Not Found"}', {"content-type": "application/json"})
    return plain if answer.status == 422 else answer


def test_a_default_branch_that_was_renamed_is_found_whatever_the_status_of_the_old_one(bench: Bench) -> None:
    bench.sync()
    bench.github.faults.add("/commits/heads/", Replace(not_found))
    bench.repo.rename_branch("main", "trunk")
    bench.github.set_default_branch("octo/data", "trunk")
    bench.want()
    bench.settle()
    assert bench.facts().name == "trunk"
    bench.assert_equal_to_git("trunk")


def test_a_branch_that_is_missing_is_gone_whatever_the_status(bench: Bench) -> None:
    bench.repo.commit({"other.md": b"1\n"}, branch="other")
    bench.sync()
    bench.github.faults.add("/commits/heads/", Replace(not_found))
    bench.repo.delete_branch("main")
    bench.want()
    bench.settle()
    branch = bench.record().branches[0]
    assert branch.gone
    assert "does not exist on GitHub" in str(branch.last_error)
