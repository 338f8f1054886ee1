"""The public listener: deliveries in, answered only once they are on disk. Nothing else but ``/healthz``."""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tornado import routing, web

from daemon.errors import Refusal, StoreUnavailable
from daemon.logs import get_logger
from daemon.metrics import Metrics
from daemon.model import Delivery, DeliveryStatus
from daemon.triggers import intake
from daemon.triggers.intake import Arrival, Decision, TrackingView
from daemon.web.app import Answer, ExactPath, Handler, NotFound, encode
from daemon.web.senders import Senders

log = get_logger()

STORE_SECONDS = 7.5  # GitHub hangs up after 10 s; a 503 has to be there by then
OFF_LOOP_BYTES = 256 * 1024  # a larger body is hashed and parsed on a thread
SMALL_BYTES = 1024 * 1024
IN_FLIGHT_BODIES = 8  # bodies of the largest size held at once, before large ones are told to come back


@dataclass(frozen=True)
class PublicDeps:
    """What the webhook handler is given. Callables are asked on each request, so that a reload applies.

    ``submit`` returns at once; its future resolves when the delivery is committed, or raises StoreUnavailable.
    """

    path: str
    secrets: Callable[[], tuple[bytes, ...]]
    max_body_bytes: Callable[[], int]
    tracking: Callable[[], TrackingView]
    configured: Callable[[], bool]
    submit: Callable[[Delivery], Future[DeliveryStatus]]
    now: Callable[[], datetime]
    metrics: Metrics
    executor: Executor
    senders: Callable[[], Senders] = Senders


class InFlight:
    """Counts the bytes of bodies that are held, so that many large unsigned ones cannot fill the memory."""

    def __init__(self) -> None:
        self._bytes = 0

    def take(self, count: int, *, limit: int) -> bool:
        if self._bytes + count > limit:
            return False
        self._bytes += count
        return True

    def release(self, count: int) -> None:
        self._bytes -= count


class Handover:
    """Takes deliveries to the writer's thread and brings back what became of them, many at a time.

    What one turn of the loop has decided goes together, and comes back with one wake: a wake for each, of either
    side, costs more than storing it.
    """

    def __init__(self, submit: Callable[[Delivery], Future[DeliveryStatus]]) -> None:
        self._submit = submit
        self._leaving: list[tuple[Delivery, asyncio.Future[DeliveryStatus]]] = []
        self._under_way: dict[asyncio.Future[DeliveryStatus], Future[DeliveryStatus]] = {}
        self._back: deque[asyncio.Future[DeliveryStatus]] = deque()
        self._woken = False

    def store(self, delivery: Delivery) -> asyncio.Future[DeliveryStatus]:
        """What became of the delivery, once it is committed; cancelling it cancels what is not being stored yet."""
        loop = asyncio.get_running_loop()
        if not self._leaving:
            loop.call_soon(self._leave, loop)
        answer: asyncio.Future[DeliveryStatus] = loop.create_future()
        answer.add_done_callback(self._end)  # before anybody waits for it: a 503 is not on its way yet
        self._leaving.append((delivery, answer))
        return answer

    def _leave(self, loop: asyncio.AbstractEventLoop) -> None:
        leaving, self._leaving = self._leaving, []
        for delivery, answer in leaving:
            if not answer.cancelled():
                self._bind(loop, answer, self._submit(delivery))

    def _bind(
        self, loop: asyncio.AbstractEventLoop, answer: asyncio.Future[DeliveryStatus], stored: Future[DeliveryStatus]
    ) -> None:
        self._under_way[answer] = stored

        def told(_: Future[DeliveryStatus]) -> None:
            self._back.append(answer)
            if not self._woken:
                self._woken = True
                with suppress(RuntimeError):  # the loop has ended
                    loop.call_soon_threadsafe(self._deliver)

        stored.add_done_callback(told)

    def _end(self, answer: asyncio.Future[DeliveryStatus]) -> None:
        stored = self._under_way.pop(answer, None)
        if stored is not None and answer.cancelled():
            stored.cancel()

    def _deliver(self) -> None:
        self._woken = False  # before the first is taken: what comes after wakes again
        while self._back:
            answer = self._back.popleft()
            if answer.cancelled():
                continue
            stored = self._under_way[answer]
            if stored.cancelled():
                answer.cancel()
            elif error := stored.exception():
                answer.set_exception(error)
            else:
                answer.set_result(stored.result())


class HealthHandler(Handler):
    """The process lives."""

    methods = ("GET",)

    async def respond(self, body: bytes) -> Answer:
        del body
        return encode({"status": "ok"})


class WebhookHandler(Handler):
    """One delivery: refused, or verified, decided, stored and answered."""

    methods = ("POST",)

    def initialize(self, deps: PublicDeps, in_flight: InFlight, handover: Handover) -> None:
        self._deps = deps
        self._handover = handover
        self._in_flight = in_flight
        self._held = 0
        self._facts: dict[str, Any] = {}

    def body_limit(self) -> int:
        return self._deps.max_body_bytes()

    def check(self) -> None:
        self._check_sender()
        headers = self.request.headers
        kind = intake.media_type(headers.get("Content-Type", ""))
        if kind not in ("application/json", "application/x-www-form-urlencoded"):
            raise Refusal(415, "Send application/json or application/x-www-form-urlencoded")
        if headers.get("Content-Encoding", "identity").strip().lower() != "identity":
            raise Refusal(415, "Send the body without a content encoding")

    def _check_sender(self) -> None:
        senders = self._deps.senders()
        peer = None if self.over_unix() else self.request.remote_ip
        client = senders.client(peer, self.request.headers.get_list("X-Forwarded-For"))
        try:
            senders.check(client)
        except Refusal:
            self._facts = {"client": str(client) if client is not None else None}
            raise

    def take(self, chunk: bytes) -> None:
        super().take(chunk)
        limit = IN_FLIGHT_BODIES * self._deps.max_body_bytes()
        if self._in_flight.take(len(chunk), limit=limit):
            self._held += len(chunk)
        elif self._received > SMALL_BYTES:  # an ordinary delivery is never turned away for others' large ones
            raise Refusal(503, "Too many large deliveries at once, try again later")

    async def respond(self, body: bytes) -> Answer:
        try:
            async with asyncio.timeout(STORE_SECONDS):
                decision = await self._decided(body)
                self._facts = _facts(decision, len(body))
                status = await self._stored(decision.delivery)
        except TimeoutError:
            # The time-out has cancelled the future: what still waits in the queue is not stored after this.
            raise StoreUnavailable("the delivery was not stored in time") from None
        self._deps.metrics.deliveries.labels(outcome=status.value).inc()
        self._facts["status"] = status.value
        return encode(intake.answer(decision, status))

    def seen(self, status: int, detail: str | None) -> None:
        if status < 400:  # noqa: PLR2004 - an answer, not a refusal
            log.info("delivery.answered", **self._facts)
            return
        outcome = "unavailable" if status >= 500 else "refused"  # noqa: PLR2004
        self._deps.metrics.deliveries.labels(outcome=outcome).inc()
        log.warning("delivery.refused", code=status, detail=detail, peer=self.request.remote_ip, **self._facts)

    def on_finish(self) -> None:
        super().on_finish()
        self._release()

    def on_connection_close(self) -> None:
        super().on_connection_close()
        self._release()

    def _release(self) -> None:
        self._in_flight.release(self._held)
        self._held = 0

    async def _decided(self, body: bytes) -> Decision:
        if len(body) <= OFF_LOOP_BYTES:
            return self._decide(body)
        return await asyncio.get_running_loop().run_in_executor(self._deps.executor, self._decide, body)

    def _decide(self, body: bytes) -> Decision:
        headers = self.request.headers
        deps = self._deps
        intake.check_signature(body, headers.get_list("X-Hub-Signature-256"), deps.secrets())
        arrival = Arrival(
            guid=intake.read_guid(headers.get_list("X-GitHub-Delivery")),
            event=intake.read_event(headers.get_list("X-GitHub-Event")),
            body_digest=hashlib.sha256(body).hexdigest(),
            received_at=deps.now(),
        )
        payload = intake.parse_body(headers["Content-Type"], body)
        return intake.decide(arrival, payload, tracking=deps.tracking(), configured=deps.configured())

    async def _stored(self, delivery: Delivery) -> DeliveryStatus:
        try:
            return await self._handover.store(delivery)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # the deadline of this request, not the end of the writer
            raise StoreUnavailable("the delivery writer has stopped") from None
        except StoreUnavailable:
            raise
        except Exception as error:
            # The top of a request: whatever it was, the delivery is not stored and the answer must say so.
            raise StoreUnavailable(f"the delivery was not stored: {type(error).__name__}") from error


def make_public_app(deps: PublicDeps) -> web.Application:
    """The application of the public listener."""
    shared = {"deps": deps, "in_flight": InFlight(), "handover": Handover(deps.submit)}
    return web.Application(
        [
            routing.Rule(ExactPath(deps.path), WebhookHandler, shared),
            routing.Rule(ExactPath("/healthz"), HealthHandler),
        ],
        default_handler_class=NotFound,
        log_function=lambda _: None,
    )


def _facts(decision: Decision, size: int) -> dict[str, Any]:
    delivery = decision.delivery
    return {
        "github_event": delivery.event,
        "guid": delivery.guid,
        "repository": delivery.repository,
        "ref": delivery.ref,
        "after": delivery.after,
        "reason": delivery.reason,
        "bytes": size,
    }
