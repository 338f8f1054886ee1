"""Deliveries leave the loop together, and what became of them comes back together."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from datetime import UTC, datetime

import pytest

from daemon.errors import StoreUnavailable
from daemon.model import Delivery, DeliveryStatus
from daemon.web.public import Handover


def delivery(number: int) -> Delivery:
    return Delivery(
        guid=f"guid-{number}",
        body_digest=f"{number:064x}",
        event="push",
        action=None,
        repository="octo/data",
        ref="refs/heads/main",
        before=None,
        after=None,
        received_at=datetime(2026, 11, 26, tzinfo=UTC),
        status=DeliveryStatus.ACCEPTED,
    )


class Writer:
    """What the handover gives its deliveries to."""

    def __init__(self) -> None:
        self.taken: list[tuple[Delivery, Future[DeliveryStatus]]] = []

    def submit(self, delivery: Delivery) -> Future[DeliveryStatus]:
        self.taken.append((delivery, Future()))
        return self.taken[-1][1]

    def guids(self) -> list[str | None]:
        return [delivery.guid for delivery, _ in self.taken]

    def commit(self) -> None:
        for _, stored in self.taken:
            if stored.set_running_or_notify_cancel():
                stored.set_result(DeliveryStatus.ACCEPTED)


async def turn() -> None:
    await asyncio.sleep(0)


async def two_under_way() -> tuple[Writer, asyncio.Future[DeliveryStatus], asyncio.Future[DeliveryStatus]]:
    """Deliveries 1 and 2 are with the writer, and what is awaited of them."""
    writer = Writer()
    handover = Handover(writer.submit)
    answers = handover.store(delivery(1)), handover.store(delivery(2))
    await turn()
    return writer, *answers


def test_what_one_turn_decides_leaves_after_it_and_in_order() -> None:
    async def main() -> None:
        writer = Writer()
        handover = Handover(writer.submit)
        for number in range(3):
            handover.store(delivery(number))
        assert writer.taken == []
        await turn()
        assert writer.guids() == ["guid-0", "guid-1", "guid-2"]

    asyncio.run(main())


def test_all_of_one_commit_come_back_with_one_wake(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        writer = Writer()
        handover = Handover(writer.submit)
        answers = [handover.store(delivery(number)) for number in range(50)]
        await turn()
        wakes: list[object] = []
        genuine = loop.call_soon_threadsafe
        monkeypatch.setattr(loop, "call_soon_threadsafe", lambda call: (wakes.append(call), genuine(call))[1])
        writer.commit()
        assert len(wakes) == 1
        assert await asyncio.gather(*answers) == [DeliveryStatus.ACCEPTED] * 50
        monkeypatch.undo()
        late = handover.store(delivery(50))
        await turn()
        del writer.taken[:50]
        await asyncio.to_thread(writer.commit)
        assert await asyncio.wait_for(late, 10) is DeliveryStatus.ACCEPTED

    asyncio.run(main())


def test_an_error_comes_back_as_itself_and_costs_the_others_nothing() -> None:
    async def main() -> None:
        writer, bad, good = await two_under_way()
        writer.taken.pop(0)[1].set_exception(StoreUnavailable("full"))
        writer.commit()
        with pytest.raises(StoreUnavailable, match="full"):
            await asyncio.wait_for(bad, 10)
        assert await asyncio.wait_for(good, 10) is DeliveryStatus.ACCEPTED

    asyncio.run(main())


def test_one_given_up_before_it_left_is_not_handed_over() -> None:
    async def main() -> None:
        writer = Writer()
        handover = Handover(writer.submit)
        given_up, _ = handover.store(delivery(1)), handover.store(delivery(2))
        given_up.cancel()
        await turn()
        assert writer.guids() == ["guid-2"]

    asyncio.run(main())


def test_one_given_up_while_it_waits_is_given_up_there() -> None:
    async def main() -> None:
        writer, given_up, kept = await two_under_way()
        given_up.cancel()
        await turn()
        assert writer.taken[0][1].cancelled()
        writer.commit()
        assert await asyncio.wait_for(kept, 10) is DeliveryStatus.ACCEPTED

    asyncio.run(main())


def test_whoever_gives_up_knows_that_it_is_not_stored_later() -> None:
    async def main() -> None:
        writer = Writer()
        handover = Handover(writer.submit)

        async def ask() -> None:
            try:
                await handover.store(delivery(1))
            except asyncio.CancelledError:
                assert writer.taken[0][1].cancelled()  # at once: the next thing it does is to answer 503
                raise

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ask(), 0.02)

    asyncio.run(main())


def test_a_writer_that_drops_one_ends_its_wait() -> None:
    async def main() -> None:
        writer, dropped, _ = await two_under_way()
        writer.taken[0][1].cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(asyncio.shield(dropped), 10)

    asyncio.run(main())
