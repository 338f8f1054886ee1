from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Barrier, BrokenBarrierError

import pytest
from bench import Bench, Rule

from daemon.demo.standin.answers import Answer
from daemon.demo.standin.faults import CutBody, Drop, Exchange, Html, Status
from daemon.demo.standin.gitrepo import GitRepo, Submodule, Symlink, executable
from daemon.model import ZERO_SHA, Outcome, Trigger, WebhookHealth
from daemon.sync.assembly import TREES_AT_ONCE
from daemon.sync.patterns import rules
from daemon.sync.routine import Interrupted


@dataclass(frozen=True, slots=True)
class Meeting:
    """Keep requests waiting until so many have come."""

    parties: int
    barrier: Barrier = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "barrier", Barrier(self.parties))

    def apply(self, exchange: Exchange) -> Answer:
        with suppress(BrokenBarrierError):
            self.barrier.wait(20)
        return exchange.genuine()


def folder_sha(bench: Bench, number: int) -> str:
    return bench.repo.git.run("rev-parse", f"main:d{number}").decode().strip()


def test_a_first_sync_stores_every_kind_of_entry_exactly(bench: Bench) -> None:
    bench.repo.commit(
        {
            "bin/tool": executable(b"#!/bin/sh\n"),
            "link": Symlink(b"docs/index.md"),
            "outside": Symlink(b"/etc/passwd"),
            "vendor/lib": Submodule("c" * 40),
            "empty": b"",
            "binary.bin": bytes(range(256)) * 64,
            "a.b/x": b"1",
            "a/x": b"2",
            "a-b": b"3",
            "name with \n newline \t tab 'quotes\" \u202e": b"odd",
            "ümläut/日本語.md": "日本".encode(),
            b"latin-\xe9.txt": b"not utf-8",
            b"dir-\xff/inside": b"neither",
        }
    )
    result = bench.sync()
    assert result.outcome is Outcome.UPDATED
    bench.assert_equal_to_git()
    assert bench.facts().tree_verified is True


def test_a_path_of_four_thousand_bytes_is_stored_or_refused_with_the_reason(bench: Bench) -> None:
    names = (hashlib.sha512(b"%d" % number).hexdigest() for number in range(31))  # nothing that repeats itself
    path = "/".join(names)[:3_990]
    bench.repo.commit({path: b"deep\n"})
    result = bench.sync()
    if bench.database.shared:
        assert "a path" in str(result.error)
        assert "SQLite takes it" in str(result.error)
        assert bench.facts().head_sha is None
        bench.repo.commit({path: None, "another.txt": b"1\n"})
        assert bench.sync().outcome is Outcome.UPDATED
    bench.assert_equal_to_git()


def test_a_first_sync_of_many_files_costs_four_requests(bench: Bench) -> None:
    bench.repo.commit({f"files/{number:04}.txt": b"content %d\n" % number for number in range(1200)})
    bench.github.requests.clear()
    result = bench.sync()
    assert len(bench.requests()) == result.requests == 4, bench.requests()
    assert not any("/git/trees/" in path for path in bench.requests())  # the archive alone gives the tree's id
    assert result.added == 1203
    bench.assert_equal_to_git()


def test_an_archive_that_leaves_out_and_rewrites_costs_requests_not_truth(bench: Bench) -> None:
    bench.repo.commit(
        {
            ".gitattributes": b"secret.txt export-ignore\nversion.txt export-subst\n*.dos eol=crlf text\n",
            "secret.txt": b"left out of archives\n",
            "version.txt": b"$Format:%H$\n",
            "lines.dos": b"one\ntwo\n",
        }
    )
    bench.sync()
    bench.assert_equal_to_git()


def test_changes_removals_and_renames_are_followed_commit_by_commit(bench: Bench) -> None:
    bench.sync()
    for changes in (
        {"docs/page.md": b"edited\n"},
        {"docs/page.md": None, "docs/moved.md": b"edited\n"},
        {"docs/moved.md": executable(b"edited\n")},
        {"docs": b"a file where a folder was\n", "docs/index.md": None, "docs/moved.md": None},
        {"docs": None, "docs/again/deep.md": b"a folder again\n"},
    ):
        bench.repo.commit(changes)
        assert bench.sync().outcome is Outcome.UPDATED
        bench.assert_equal_to_git()


def test_a_head_that_has_not_moved_costs_one_free_request(bench: Bench) -> None:
    bench.sync()
    bench.github.requests.clear()
    assert bench.sync().outcome is Outcome.UNCHANGED
    assert [entry.status for entry in bench.github.requests] == [304]


def test_a_force_push_is_followed_at_once_when_it_was_announced(bench: Bench) -> None:
    bench.sync()
    before = bench.repo.head() or ""
    bench.repo.reset("main", bench.repo.log()[-1])
    after = bench.repo.commit({"rewritten.md": b"new history\n"})
    bench.announce(before, after)
    result = bench.work()
    assert result is not None
    assert result.after == after
    bench.assert_equal_to_git()


def test_a_rewritten_history_is_followed_at_once_even_unannounced(bench: Bench) -> None:
    bench.sync()
    bench.repo.reset("main", bench.repo.log()[-1])
    after = bench.repo.commit({"rewritten.md": b"new history\n"})
    assert bench.sync().after == after


def test_an_older_head_nobody_announced_is_followed_when_reads_over_ten_seconds_agree(bench: Bench) -> None:
    bench.sync()
    newest = bench.repo.head()
    older = bench.repo.log()[-1]
    bench.repo.reset("main", older)
    bench.want()
    assert bench.work() is None
    assert bench.facts().head_sha == newest
    assert bench.settle() == pytest.approx(10, abs=0.5)
    assert bench.facts().head_sha == older
    bench.assert_equal_to_git()


def test_an_older_head_that_a_delivery_announced_is_followed_at_once(bench: Bench) -> None:
    bench.sync()
    newest, older = bench.repo.head() or "", bench.repo.log()[-1]
    bench.repo.reset("main", older)
    bench.announce(newest, older)
    result = bench.work()
    assert result is not None
    assert result.after == older


def test_a_stale_read_after_a_push_is_asked_again_until_the_push_shows(bench: Bench) -> None:
    bench.sync()
    before = bench.repo.head() or ""
    after = bench.repo.commit({"new.md": b"new\n"})
    bench.github.stale("octo/data", "main", before, reads=3, objects=True)
    bench.announce(before, after)
    assert bench.settle() < 10
    assert bench.facts().head_sha == after
    bench.assert_equal_to_git()


def test_a_stale_read_never_moves_the_branch_back(bench: Bench) -> None:
    first = bench.repo.head() or ""
    second = bench.repo.commit({"new.md": b"new\n"})
    bench.sync()
    bench.github.stale("octo/data", "main", first, reads=2)
    bench.want()
    bench.settle()
    assert bench.facts().head_sha == second
    runs = bench.history.runs(repository_id=None, before_id=None, limit=10)
    assert [run.after for run in runs if run.outcome == "updated"] == [second]


def test_a_late_delivery_of_an_older_push_changes_nothing(bench: Bench) -> None:
    first = bench.repo.head() or ""
    second = bench.repo.commit({"b.md": b"b\n"})
    bench.sync()
    bench.announce(ZERO_SHA, first, guid="late")
    result = bench.work()
    assert result is not None
    assert (result.outcome, bench.facts().head_sha) == (Outcome.UNCHANGED, second)


def test_deliveries_out_of_order_end_at_the_newest_head_in_one_run(bench: Bench) -> None:
    bench.sync()
    heads = [bench.repo.head() or ""]
    heads += [bench.repo.commit({"n.md": b"%d\n" % number}) for number in range(5)]
    for index in (3, 1, 5, 2, 4):
        bench.announce(heads[index - 1], heads[index])
    bench.github.requests.clear()
    assert bench.settle() < 1
    assert bench.facts().head_sha == heads[-1]
    runs = bench.history.runs(repository_id=None, before_id=None, limit=10)
    assert len(runs) == 2  # the first sync, and one for all five


def test_an_announced_head_that_never_shows_ends_after_agreeing_reads_and_mistrusts_webhooks(bench: Bench) -> None:
    bench.sync()
    bench.announce(bench.repo.head() or "", "f" * 40)
    assert bench.settle() == pytest.approx(10, abs=0.5)
    assert bench.record().webhook is WebhookHealth.UNKNOWN
    assert bench.jobs.counts(bench.time.at).pending == 0


def test_a_push_that_names_no_head_is_answered_by_whatever_is_there(bench: Bench) -> None:
    bench.sync()
    after = bench.repo.commit({"one.md": b"1\n"})
    for guid in ("with news", "without"):
        bench.announce(None, None, guid=guid)
        assert bench.work() is not None
        assert bench.facts().head_sha == after
        assert bench.jobs.counts(bench.time.at).pending == 0
    assert all(one.run_id for one in bench.history.deliveries(before_id=None, limit=9))


def test_a_newer_announcement_is_kept_waiting_while_an_older_head_is_taken(bench: Bench) -> None:
    bench.sync()
    start = bench.repo.head() or ""
    first = bench.repo.commit({"one.md": b"1\n"})
    second = bench.repo.commit({"two.md": b"2\n"})
    bench.announce(start, first)
    bench.announce(first, second)
    bench.github.stale("octo/data", "main", first, reads=2)
    bench.work()
    assert bench.facts().head_sha == first
    assert bench.settle() < 10
    assert bench.facts().head_sha == second


def test_a_deleted_branch_is_marked_gone_and_its_copy_kept(bench: Bench) -> None:
    bench.repo.commit({"other.md": b"1\n"}, branch="other")
    bench.sync()
    before = bench.repo.head() or ""
    stored = bench.tree()
    bench.repo.delete_branch("main")
    bench.announce(before, ZERO_SHA)
    result = bench.work()
    assert result is not None
    assert result.outcome is Outcome.UNCHANGED
    branch = bench.record().branches[0]
    assert (branch.gone, branch.head_sha) == (True, before)
    assert bench.tree() == stored
    bench.repo.reset("main", before)
    bench.announce(ZERO_SHA, before, guid="back")
    bench.settle()
    assert bench.record().branches[0].gone is False


def test_an_empty_repository_is_empty_and_its_first_push_is_followed(bench: Bench) -> None:
    bench.repo.delete_branch("main")
    bench.sync()
    assert bench.record().branches == ()
    assert bench.record().state == "empty"
    after = bench.repo.commit({"first.md": b"first\n"})
    bench.announce(ZERO_SHA, after)
    bench.settle()
    assert bench.facts().head_sha == after
    bench.assert_equal_to_git()


def test_the_tracked_default_branch_follows_its_renaming(bench: Bench) -> None:
    bench.sync()
    bench.repo.rename_branch("main", "trunk")
    bench.github.set_default_branch("octo/data", "trunk")
    bench.want()
    bench.settle()
    assert [branch.name for branch in bench.record().branches] == ["trunk"]
    bench.assert_equal_to_git("trunk")


def test_large_and_excluded_files_keep_their_entry_without_content(bench: Bench) -> None:
    bench.content = rules((), ("*.psd",), 100)
    large = bench.repo.commit({"large.txt": b"x" * 101, "image.psd": b"small", "kept.txt": b"k" * 100})
    bench.sync()
    stored = {entry.path: entry.stored for entry in bench.snapshots.entries(bench.facts().id)}
    assert (stored[b"large.txt"], stored[b"image.psd"], stored[b"kept.txt"]) == (False, False, True)
    bench.assert_equal_to_git(contents=False)
    bench.content = rules((), (), 5_000_000)
    assert bench.sync().after == large
    bench.assert_equal_to_git()


def test_a_first_sync_that_was_cut_off_fetches_only_what_is_missing(bench: Bench) -> None:
    bench.repo.commit({f"{number}.md": b"%d\n" % number for number in range(1015)})  # and three files before
    told: list[tuple[str, int, int]] = []

    def cut_off(*step: object) -> None:
        told.append(step)  # type: ignore[arg-type]
        if step[:2] == ("content", 1000):
            raise Interrupted

    bench.want()
    claim = bench.claim()
    assert claim is not None
    assert bench.workers.work(claim, progress=cut_off) is None
    assert ("content", 500, 0) in told  # of how many, only the end of the archive tells
    bench.github.requests.clear()
    bench.settle()
    bench.assert_equal_to_git()
    paths = bench.requests()
    assert sum("/git/blobs/" in path for path in paths) == 18
    assert not any("/tarball/" in path for path in paths)


def test_another_branch_does_not_read_the_archive_for_what_is_stored(bench: Bench) -> None:
    bench.repo.commit({f"{number}.md": b"%d\n" % number for number in range(50)})
    bench.sync()
    bench.repo.reset("side", bench.repo.head() or "")
    bench.repo.commit({"side.md": b"side\n"}, branch="side")
    bench.repositories.track((Rule(branches=("main", "side")),), now=bench.time.at)
    bench.poller.tick()
    bench.settle()
    bench.github.requests.clear()
    bench.want(branch="side")
    bench.settle()
    bench.assert_equal_to_git("side")
    assert not any("/tarball/" in path for path in bench.requests())


@pytest.mark.parametrize("fault", [CutBody(300), Html(), Status(404, "404: Not Found")])
def test_a_first_archive_that_is_no_use_is_asked_for_again(bench: Bench, fault: object) -> None:
    bench.repo.commit({f"{number}.md": b"%d\n" % number for number in range(50)})
    bench.github.faults.add("/codeload/", fault, times=1)
    bench.want()
    bench.settle()
    bench.assert_equal_to_git()


@pytest.mark.parametrize(
    "fault",
    [Status(404, {"message": "Not Found"}), Status(403, {"message": "Forbidden"}), Status(410), Status(415), Html()],
)
@pytest.mark.parametrize("path", ["/tarball/", "/codeload/"])
def test_where_no_archive_is_to_be_had_each_file_is_asked_for(bench: Bench, path: str, fault: object) -> None:
    bench.repo.commit({f"{number}.md": b"%d\n" % number for number in range(50)})
    bench.github.faults.add(path, fault)
    bench.want()
    assert bench.settle() < 60
    bench.assert_equal_to_git()
    bench.repo.commit({f"{number}.md": b"again %d\n" % number for number in range(150)})
    bench.want()
    assert bench.settle() < 60
    bench.assert_equal_to_git()


def test_a_broken_archive_of_many_files_does_not_cost_as_many_requests(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemon.sync.content.MOST_INSTEAD", 30)
    bench.repo.commit({f"{number}.md": b"%d\n" % number for number in range(50)})
    bench.github.faults.add("/tarball/", Html())
    bench.want()
    bench.settle()
    assert bench.facts().head_sha is None
    assert not [path for path in bench.requests() if "/git/blobs/" in path]


def test_a_path_that_json_cannot_name_is_not_given_up_with_the_first_archive_that_is_missing(bench: Bench) -> None:
    bench.repo.commit({b"latin-\xe9.txt": b"not utf-8\n", **{f"{number}.md": b"%d\n" % number for number in range(50)}})
    bench.github.faults.add("/tarball/", Status(404, {"message": "Not Found"}), times=4)
    bench.want()
    bench.settle()
    bench.assert_equal_to_git()
    assert bench.facts().tree_verified is True


def test_a_tree_that_gets_empty_drops_every_row(bench: Bench) -> None:
    bench.sync()
    bench.github.faults.add("/compare/", Html())
    bench.repo.commit({}, fresh=True)
    assert bench.sync().removed == 3
    bench.assert_equal_to_git()


def test_a_repository_of_one_empty_commit_is_synced(bench: Bench) -> None:
    bench.repo.commit({}, fresh=True)
    assert bench.sync().added == 0
    bench.assert_equal_to_git()


def test_what_little_is_wanted_of_a_large_repository_is_not_fetched_as_an_archive(bench: Bench) -> None:
    bench.repo.commit({f"large/{number}.md": b"%d\n" % number * 9000 for number in range(20)})
    bench.content = rules(("docs/",), (), 5_000_000)
    bench.sync()
    bench.assert_equal_to_git(contents=False)
    assert not any("/tarball/" in path for path in bench.requests())


def test_a_tree_cut_by_github_is_walked_by_folders(bench: Bench) -> None:
    bench.content = rules((), ("*.psd",), 5_000_000)  # or the archive would tell it all
    bench.repo.commit(
        {f"d{i}/e{j}/f{k}.txt": b"%d %d %d" % (i, j, k) for i in range(4) for j in range(4) for k in range(4)}
    )
    bench.github.tree_limit = 20
    bench.sync()
    bench.assert_equal_to_git()
    bench.repo.commit({"d1/e1/f1.txt": b"changed"})
    bench.github.faults.add("/compare/", Html())
    bench.github.requests.clear()
    bench.sync()
    bench.assert_equal_to_git()
    walked = [path for path in bench.requests() if "/git/trees/" in path]
    assert len(walked) <= 5, walked  # folders that are stored already are not listed again


def test_the_folders_of_a_truncated_tree_are_asked_for_together_and_counted(bench: Bench) -> None:
    bench.content = rules((), ("*.psd",), 5_000_000)
    bench.repo.commit({f"d{i}/f{k}.txt": b"%d %d" % (i, k) for i in range(TREES_AT_ONCE) for k in range(10)})
    bench.github.tree_limit = 20
    met = Meeting(TREES_AT_ONCE)
    for i in range(TREES_AT_ONCE):
        bench.github.faults.add(f"/git/trees/{folder_sha(bench, i)}", met)
    bench.github.requests.clear()
    result = bench.sync()
    bench.assert_equal_to_git()
    assert not met.barrier.broken
    assert result.requests == len(bench.requests())


def test_one_folder_that_cannot_be_had_fails_the_listing(bench: Bench) -> None:
    bench.content = rules((), ("*.psd",), 5_000_000)
    bench.repo.commit({f"d{i}/f{k}.txt": b"%d %d" % (i, k) for i in range(9) for k in range(10)})
    bench.github.tree_limit = 20
    bench.github.faults.add(f"/git/trees/{folder_sha(bench, 2)}", Html())
    result = bench.sync()
    assert result.outcome is Outcome.FAILED
    assert bench.facts().head_sha is None
    bench.github.faults.clear()
    bench.sync()
    bench.assert_equal_to_git()


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        (r"/commits\?", Html()),
        (r"/commits\?", Status(200, "null")),
        (r"/commits\?", Status(200, [])),
        (r"/git/trees/", Html()),
        (r"/git/trees/", Status(200, {"sha": "a" * 40, "tree": "no list", "truncated": False})),
        (r"/git/trees/", Status(200, {"sha": "a" * 40, "tree": [], "truncated": False})),
        (r"/git/trees/", CutBody(200)),
        (r"/codeload/", CutBody(300)),
        (r"/codeload/", Html()),
        (r"/codeload/", Drop()),
        (r"/codeload/", Status(500)),
        (r"/tarball/", Status(503)),
        (r"/commits\?", Status(404, {"message": "Not Found"})),
        (r"/commits\?", Status(403, {"message": "Forbidden"})),
        (r"/commits\?", Status(401, {"message": "Bad credentials"})),
        (r"/commits\?", Status(451, {"message": "Repository access blocked"})),
    ],
)
def test_garbage_from_github_changes_nothing_and_says_why(bench: Bench, path: str, fault: object) -> None:
    bench.sync()
    before = bench.facts()
    stored = bench.tree()
    bench.repo.commit({f"more/{number}.md": b"%d\n" % number for number in range(200)})
    bench.github.faults.add("/compare/", Html())  # or neither commits nor tree are listed
    bench.github.faults.add(path, fault)
    bench.want()
    result = bench.work()
    assert result is None or result.outcome is Outcome.FAILED
    assert bench.tree() == stored
    assert bench.facts().head_sha == before.head_sha
    job = bench.jobs.record(before.id)
    assert job.last_error
    branch = bench.record().branches[0]
    assert branch.last_error or branch.waiting_for
    bench.github.faults.clear()
    bench.time.advance(7200)
    bench.settle()
    bench.assert_equal_to_git()
    branch = bench.record().branches[0]
    assert (branch.last_error, branch.waiting_for) == (None, None)


def test_a_listing_that_hides_an_entry_fails_the_proof(bench: Bench) -> None:
    bench.sync()
    head = bench.facts().head_sha
    bench.repo.commit({"shown.md": b"1\n", "hidden.md": b"2\n"})
    listed = bench.repo.ls_tree()
    tree = [
        {"path": e.path.decode(), "mode": e.mode, "type": "blob", "sha": e.sha, "size": e.size}
        for e in listed
        if e.path != b"hidden.md"
    ]
    bench.github.faults.add("/compare/", Html())
    bench.github.faults.add(
        r"/git/trees/", Status(200, {"sha": bench.repo.tree_sha(), "tree": tree, "truncated": False})
    )
    result = bench.sync()
    assert result.outcome is Outcome.FAILED
    assert result.error is not None
    assert "tree" in result.error
    assert bench.facts().head_sha == head


def test_a_job_that_keeps_failing_is_parked_and_the_next_trigger_revives_it(bench: Bench) -> None:
    bench.sync()
    bench.repo.commit({"new.md": b"1\n"})
    bench.github.faults.add(r"/(compare|git/trees)/", Html())
    bench.want()
    for _ in range(bench.sync_settings.max_attempts):
        result = bench.work()
        assert result is not None
        bench.time.advance(7200)
    assert bench.claim() is None
    assert bench.jobs.counts(bench.time.at).failed == 1
    bench.github.faults.clear()
    bench.want(Trigger.WEBHOOK)
    bench.settle()
    bench.assert_equal_to_git()


def test_outages_and_limits_cost_no_attempt(bench: Bench) -> None:
    bench.sync()
    bench.repo.commit({"new.md": b"1\n"})
    bench.github.faults.add(r".*", Status(503))
    bench.want()
    for _ in range(10):
        assert bench.work() is None
        bench.time.advance(120)
    assert bench.jobs.record(bench.facts().id).attempts == 0
    bench.github.faults.clear()
    bench.settle()
    bench.assert_equal_to_git()


def test_a_rate_limit_is_waited_out(bench: Bench) -> None:
    bench.sync()
    bench.repo.commit({"new.md": b"1\n"})
    bench.github.secondary_limit(1, retry_after=60)
    bench.want()
    assert bench.work() is None
    assert bench.claim() is None
    bench.github.requests.clear()
    assert bench.settle() >= 59
    bench.assert_equal_to_git()


def test_the_commits_are_those_of_git_newest_first(bench: Bench) -> None:
    for number in range(150):
        bench.repo.commit({"n.md": b"%d\n" % number}, f"Commit {number}", date=1_700_000_000 + number)
    bench.sync()
    shas = bench.snapshots.commit_shas(bench.facts().id)
    assert shas == bench.repo.log()[:100]
    for number in range(30):
        bench.repo.commit({"n.md": b"again %d\n" % number}, f"Again {number}", date=1_700_100_000 + number)
    bench.sync()
    assert bench.snapshots.commit_shas(bench.facts().id) == bench.repo.log()[:130]


def test_damaged_content_is_found_and_mended_by_an_audit(bench: Bench) -> None:
    bench.sync()
    sha = next(entry.sha for entry in bench.snapshots.entries(bench.facts().id))
    with bench.database.write():
        bench.database.execute("UPDATE blob SET content = ? WHERE sha = ?", (b"rotten", sha))
        bench.database.execute("UPDATE entry SET mode = '100755' WHERE path = ?", (b"docs/page.md",))
    bench.want(Trigger.AUDIT)
    result = bench.work()
    assert result is not None
    assert result.outcome is Outcome.UPDATED
    bench.assert_equal_to_git()


def test_another_repository_under_the_same_name_is_begun_anew_and_nothing_is_mixed(
    bench: Bench, tmp_path: Path
) -> None:
    bench.sync()
    stored, old = bench.tree(), bench.facts()
    other = GitRepo.init(tmp_path / "other.git")
    other.commit({"foreign.md": b"not ours\n"})
    bench.github.recreate("octo/data", other.path)
    result = bench.sync()
    assert result.outcome is Outcome.FAILED
    assert result.error is not None
    assert "another repository" in result.error
    assert [(e.mode, e.sha, e.size, e.path) for e in bench.snapshots.entries(old.id)] == stored
    bench.settle()
    assert [row[3] for row in bench.tree()] == [b"foreign.md"]


def test_a_repository_renamed_unseen_is_followed_though_another_one_took_its_name(bench: Bench, tmp_path: Path) -> None:
    bench.sync()
    other = GitRepo.init(tmp_path / "other.git")
    other.commit({"foreign.md": b"not ours\n"})
    bench.github.rename("octo/data", "octo/better")
    bench.github.add("octo/data", other.path)
    bench.repo.commit({"new.md": b"ours\n"})
    bench.want()
    assert bench.work() is None
    bench.settle()
    bench.assert_equal_to_git()
    assert bench.record().full_name == "octo/better"


def test_a_push_with_another_number_is_about_the_repository_that_took_the_name(bench: Bench) -> None:
    bench.sync()
    old = bench.facts()
    bench.github.recreate("octo/data", bench.repo.path)
    head = bench.repo.commit({"new.md": b"on top of the same history\n"})
    delivery = replace(bench.announcement(old.head_sha, head), hint_repository_id=bench.repository_id)
    bench.history.store_deliveries([delivery], now=bench.time.at)
    bench.settle()
    bench.assert_equal_to_git()
    assert bench.facts().id != old.id
    assert bench.snapshots.facts(old.id).head_sha == old.head_sha
    (stored,) = bench.history.deliveries(before_id=None, limit=9)
    assert stored.run_id is not None
