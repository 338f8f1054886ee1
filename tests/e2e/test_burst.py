from __future__ import annotations

import itertools
import threading
from collections.abc import Callable

import pytest
from harness import Daemon, assert_equal_to_git

from daemon.demo.standin import StandIn
from daemon.demo.standin.gitrepo import GitRepo

BURST = 200


@pytest.mark.parametrize("commit_first", [True, False], ids=["all-pushed-already", "while-pushing"])
def test_a_burst_of_deliveries_is_synced_as_it_begins_and_once_it_is_over(
    github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon], commit_first: bool
) -> None:
    daemon = make_daemon().start()
    daemon.wait_head(repo.head())
    github.hook("octo/data", daemon.webhook_url, daemon.secret)
    runs_before = len(daemon.runs())
    count = BURST if commit_first else BURST // 8
    heads = [repo.head()]

    def commit() -> None:
        heads.append(repo.commit({"burst.txt": b"%d\n" % len(heads)}))

    if commit_first:
        for _ in range(count):
            commit()
        pairs = list(itertools.pairwise(heads))
        threads = [
            threading.Thread(target=lambda n=n: [github.push("octo/data", "main", *pair) for pair in pairs[n::8]])
            for n in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    else:
        for _ in range(count):
            commit()
            github.push("octo/data", "main", *heads[-2:])
    daemon.wait_head(heads[-1])
    daemon.wait_idle()
    made = len(daemon.runs()) - runs_before
    assert made <= (3 if commit_first else count)
    assert_equal_to_git(daemon, repo)
