"""How things stood in the last day, a sample a minute: what the tables do not remember. It ends with the process."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from daemon import overview
from daemon.core import Core
from daemon.errors import StoreError
from daemon.logs import get_logger
from daemon.metrics import Metrics
from daemon.model import BranchState, Sample

log = get_logger()

KEPT = 24 * 60
WELL = (BranchState.FRESH, BranchState.SYNCING, BranchState.EMPTY)


class Samples:
    """The samples of one daemon; ``take`` is called once a minute, ``every`` on any thread."""

    def __init__(self, core: Core, metrics: Metrics) -> None:
        self._core = core
        self._metrics = metrics
        self._kept: deque[Sample] = deque(maxlen=KEPT)
        self._requests = 0

    def every(self) -> Sequence[Sample]:
        """Oldest first."""
        return tuple(self._kept)

    def take(self) -> None:
        """Note how things stand. A store that cannot be read leaves a gap."""
        now = self._core.clock.now()
        try:
            branches = list(overview.branches(self._core, self._core.repositories.every(), now=now))
        except StoreError as error:
            log.warning("sample.failed", error=str(error))
            return
        ages = [branch.unconfirmed_seconds for branch in branches]
        known = [age for age in ages if age is not None]
        before, self._requests = self._requests, self._metrics.requests_seen()
        self._kept.append(
            Sample(
                at=now,
                stalest_seconds=round(max(known), 1) if known and len(known) == len(ages) else None,
                unwell=sum(branch.state not in WELL for branch in branches),
                requests=self._requests - before,
                remaining=self._remaining(),
            )
        )

    def _remaining(self) -> dict[str, int]:
        resources = self._core.governor.snapshot()["resources"]
        return {name: one["remaining"] for name, one in resources.items() if one["remaining"] is not None}
