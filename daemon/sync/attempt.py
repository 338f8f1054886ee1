"""One execution of the routine under way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from daemon.github.exchange import Tally
from daemon.model import BranchFacts, Claim, RepositoryRef
from daemon.sync.guard import NO_BRANCH

Progress = Callable[[str, int, int], None]  # the phase, how much of it is done, and of how much


@dataclass(slots=True)
class Attempt:
    """What a run knows of itself; ``check`` is called between steps and may raise to stop."""

    claim: Claim
    facts: BranchFacts
    repository: RepositoryRef
    started_at: datetime
    tally: Tally
    check: Callable[[], None]
    progress: Progress

    @property
    def stored_head(self) -> str:
        return self.facts.head_sha or NO_BRANCH
