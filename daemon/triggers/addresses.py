"""GitHub's own addresses, for a listener that takes deliveries from nowhere else."""

from __future__ import annotations

from collections.abc import Callable

from daemon.clock import Clock
from daemon.errors import GitHubError
from daemon.logs import get_logger
from daemon.values import Network

log = get_logger()

KEPT_SECONDS = 3600.0
RETRY_SECONDS = 120.0


class HookAddresses:
    """Remembers what ``ask`` gave last; while GitHub cannot be asked, the last good answer stays."""

    def __init__(self, ask: Callable[[], tuple[Network, ...]], *, clock: Clock) -> None:
        self._ask = ask
        self._clock = clock
        self._next_at = 0.0
        self.networks: tuple[Network, ...] | None = None

    def ask_again(self) -> None:
        """Let the next `refresh` ask, however new the answer is."""
        self._next_at = 0.0

    def refresh(self) -> None:
        """Ask, when it is time to."""
        now = self._clock.monotonic()
        if now < self._next_at:
            return
        try:
            self.networks = self._ask()
            self._next_at = now + KEPT_SECONDS
        except GitHubError as error:
            self._next_at = now + RETRY_SECONDS
            log.warning("webhook.addresses_not_read", error=str(error), deliveries=self._meanwhile())

    def _meanwhile(self) -> str:
        return "held against the last ones" if self.networks is not None else "refused until they are known"
