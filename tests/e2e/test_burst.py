from __future__ import annotations

import itertools
import threading
from collections.abc import Callable

from harness import Daemon, assert_equal_to_git

from daemon.demo.standin import StandIn
from daemon.demo.standin.gitrepo import GitRepo

BURST = 200
SENDERS = 8


def test_a_burst_of_deliveries_is_synced_as_it_begins_and_once_it_is_over(
    github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    daemon = make_daemon().start()
    daemon.wait_head(repo.head())
    github.hook("octo/data", daemon.webhook_url, daemon.secret)
    runs_before = len(daemon.runs())
    heads = [repo.head(), *(repo.commit({"burst.txt": b"%d\n" % number}) for number in range(BURST))]
    pairs = list(itertools.pairwise(heads))

    def send(part: list[tuple[str | None, str | None]]) -> None:
        for before, after in part:
            github.push("octo/data", "main", before, after)

    senders = [threading.Thread(target=send, args=(pairs[number::SENDERS],)) for number in range(SENDERS)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join(60)
    daemon.wait_head(heads[-1])
    daemon.wait_idle()
    assert 1 <= len(daemon.runs()) - runs_before <= 3
    assert_equal_to_git(daemon, repo)
