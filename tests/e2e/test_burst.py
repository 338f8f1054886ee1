from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable

from harness import Daemon, assert_equal_to_git

from daemon.demo.standin import StandIn
from daemon.demo.standin.gitrepo import GitRepo
from daemon.store.wishes import LONGEST_BURST, QUIET

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

    answered: list[float] = []

    def send(part: list[tuple[str | None, str | None]]) -> None:
        for before, after in part:
            github.push("octo/data", "main", before, after)
            answered.append(time.monotonic())

    senders = [threading.Thread(target=send, args=(pairs[number::SENDERS],)) for number in range(SENDERS)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join(60)
    daemon.wait_head(heads[-1])
    daemon.wait_idle()
    answered.sort()
    gaps = sum(two - one >= QUIET.total_seconds() for one, two in itertools.pairwise(answered))
    longest = (answered[-1] - answered[0]) / LONGEST_BURST.total_seconds()
    # One as it begins, one once it is over and one between; a machine that stands still makes several bursts of it.
    assert 1 <= len(daemon.runs()) - runs_before <= 3 + gaps + longest
    assert_equal_to_git(daemon, repo)
