"""The delivery writer: one thread that commits whatever deliveries wait, together.

A request is answered only when the commit that holds its delivery has returned. Whatever arrives
while one commit is on its way to disk shares the next one; nothing ever lingers to fill a batch.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress

from daemon.clock import Clock
from daemon.errors import StoreUnavailable
from daemon.logs import get_logger
from daemon.model import Delivery, DeliveryStatus
from daemon.store.history import History

log = get_logger()

Item = tuple[Delivery | None, "Future[DeliveryStatus]"]


class DeliveryWriter:
    """Stores deliveries durably, many in one transaction.

    ``on_stored`` is called after each commit that held an accepted delivery, ``on_delivery`` for each delivery that
    was stored. At most ``capacity`` deliveries wait; beyond that they are refused, so that the sender hears of it: 503.
    """

    def __init__(
        self,
        history: History,
        *,
        clock: Clock,
        on_stored: Callable[[], None],
        on_delivery: Callable[[Delivery, DeliveryStatus], None] = lambda _delivery, _status: None,
        capacity: int = 10_000,
        batch: int = 256,
    ) -> None:
        self._history = history
        self._clock = clock
        self._on_stored = on_stored
        self._on_delivery = on_delivery
        self._batch = batch
        self._queue: queue.Queue[Item | None] = queue.Queue(capacity)
        self._thread = threading.Thread(target=self._run, name="delivery-writer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Store what waits, then end; gives up after ``timeout`` seconds."""
        deadline = self._clock.monotonic() + timeout
        with suppress(queue.Full):
            self._queue.put(None, timeout=timeout)
            self._thread.join(max(0.0, deadline - self._clock.monotonic()))

    def alive(self) -> bool:
        return self._thread.is_alive()

    def submit(self, delivery: Delivery) -> Future[DeliveryStatus]:
        """Queue a delivery; the future resolves after its commit, or raises StoreUnavailable."""
        return self._enqueue(delivery)

    def ping(self) -> Future[DeliveryStatus]:
        """A round trip through the thread without a delivery: resolves when everything before it did."""
        return self._enqueue(None)

    def _enqueue(self, delivery: Delivery | None) -> Future[DeliveryStatus]:
        future: Future[DeliveryStatus] = Future()
        try:
            self._queue.put_nowait((delivery, future))
        except queue.Full:
            future.set_exception(StoreUnavailable("too many deliveries are waiting to be stored"))
        return future

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            items, last = self._gather(first)
            # A request that gave up waiting has cancelled its future: its 503 must stay true.
            self._store([item for item in items if item[1].set_running_or_notify_cancel()])
            if last:
                return

    def _gather(self, first: Item) -> tuple[list[Item], bool]:
        items = [first]
        while len(items) < self._batch:
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                break
            if item is None:
                return items, True
            items.append(item)
        return items, False

    def _store(self, items: list[Item]) -> None:
        deliveries = [delivery for delivery, _ in items if delivery is not None]
        try:
            outcomes = iter(self._history.store_deliveries(deliveries, now=self._clock.now()) if deliveries else ())
        except Exception as error:  # noqa: BLE001 - the top of this thread: one batch must not end it
            self._refuse(items, error)
            return
        accepted = False
        for delivery, future in items:
            status = DeliveryStatus.IGNORED if delivery is None else next(outcomes)
            accepted = accepted or status is DeliveryStatus.ACCEPTED
            future.set_result(status)
            if delivery is not None:
                self._on_delivery(delivery, status)
        if accepted:
            self._on_stored()

    def _refuse(self, items: list[Item], error: Exception) -> None:
        if len(items) > 1 and not isinstance(error, StoreUnavailable):
            # One delivery that the store cannot take must not cost the others their commit.
            for item in items:
                self._store([item])
            return
        if not isinstance(error, StoreUnavailable):
            log.error("delivery.store_failed", error=f"{type(error).__name__}: {error}", exc_info=error)
        for _, future in items:
            future.set_exception(error)
