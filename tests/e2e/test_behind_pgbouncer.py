"""Daemons that reach their database by way of PgBouncer in transaction mode, few sessions for all of them."""

from __future__ import annotations

from collections.abc import Callable

from harness import Daemon, assert_equal_to_git, wait_for
from pgbouncer import Bouncer

from daemon.demo.standin import StandIn
from daemon.demo.standin.gitrepo import GitRepo

PUSHES = 20


def test_what_is_accepted_through_a_pooler_is_synced_although_one_is_killed(
    github: StandIn, repo: GitRepo, postgres_url: str, bouncer: Bouncer, make_daemon: Callable[..., Daemon]
) -> None:
    nodes = [make_daemon(storage=bouncer.through(postgres_url)).start() for _ in range(2)]
    nodes[0].wait_head(repo.head())
    hook = github.hook("octo/data", nodes[0].webhook_url, nodes[0].secret)
    accepted = []
    for number in range(PUSHES):
        if number == PUSHES // 2:
            nodes[1].kill()
        hook.url = nodes[number % 2 if number < PUSHES // 2 else 0].webhook_url
        before = repo.head()
        accepted.append(repo.commit({f"pushed/{number}.txt": b"%d\n" % number}))
        told = github.push("octo/data", "main", before, accepted[-1])
        assert told is not None
        assert (told.status, b'"accepted"' in told.body) == (200, True), told.body
    nodes[0].wait_head(accepted[-1], seconds=90)  # the lease of the one that was killed ends after 60
    nodes[0].wait_idle(seconds=90)
    assert_equal_to_git(nodes[0], repo)
    assert {one["after"] for one in nodes[0].items("/api/v1/deliveries")} == set(accepted)
    assert [line["reason"].partition(";")[0] for line in nodes[0].log_lines("store.not_listening")] == [
        "a connection pooler is between"
    ]
    assert nodes[0].log_lines("run.unexpected_error") == []
    assert nodes[0].cli("verify").returncode == 0
    assert nodes[0].stop() == 0
    assert "ERROR" not in bouncer.log()


def test_a_node_that_cannot_be_told_looks_for_what_is_tracked_no_more(
    github: StandIn, repo: GitRepo, postgres_url: str, bouncer: Bouncer, make_daemon: Callable[..., Daemon]
) -> None:
    github.add("octo/more", repo.path)
    both = ("octo/data", "octo/more")
    nodes = [make_daemon(storage=bouncer.through(postgres_url), repositories=both).start() for _ in range(2)]
    for node in nodes:
        node.wait_head(repo.head(), name="octo/more")
        wait_for(lambda node=node: node.log_lines("store.not_listening"), "a node to know that it is not told")
    push = {"ref": "refs/heads/main", "after": repo.head(), "repository": {"full_name": "octo/more"}, "commits": []}
    assert nodes[1].deliver(push).json()["status"] == "accepted"
    nodes[0].write_config(repositories=("octo/data",))
    nodes[0].hangup()
    wait_for(lambda: nodes[1].deliver(push).json()["status"] == "ignored", "the other node to have looked", seconds=30)
