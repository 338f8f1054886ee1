"""The change feed over HTTP, listed and streamed, over a real store."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import web_peer
from engines import open_store
from events import Event, Stream
from harness import wait_for
from test_web_admin import MODE_FILE, NOW, Admin, Rule

from daemon.clock import Clock
from daemon.model import ChangePage, RemoteRepository
from daemon.store.feed import MOST_BYTES, Feed
from daemon.web.admin import make_admin_app

CHANGES = "/api/v1/changes"


@contextmanager
def serving(folder: Path, **stream_limits: Any) -> Iterator[Admin]:
    admin = Admin(open_store(folder / "test.db", clock=Clock()), stream_limits=stream_limits)
    admin.repositories.track([Rule("octo", "demo")], now=NOW)
    repository_id = admin.repositories.by_name("octo", "demo")
    assert repository_id is not None
    admin.repositories.identify(repository_id, RemoteRepository(77, "octo", "demo", "main"), now=NOW)
    with web_peer.serve(lambda executor: make_admin_app(admin.deps(executor))) as admin.port:
        yield admin
    admin.database.close()


@pytest.fixture
def admin(tmp_path: Path) -> Iterator[Admin]:
    with serving(tmp_path) as admin:
        yield admin


def change(admin: Admin, number: int, *, names: int = 1) -> None:
    """Commit one change; its id is ``number`` when the numbers begin at 1."""
    files = {b"f%d-%d" % (number, name): (MODE_FILE, b"%d" % number) for name in range(names)}
    admin.sync(files, head=f"{number:040x}")


def url(admin: Admin) -> str:
    return f"http://localhost:{admin.port}"


def take(stream: Stream, count: int) -> list[Event]:
    return list(islice(stream, count))


def ids(events: list[Event]) -> list[int | None]:
    return [event.id for event in events]


# -- the list -------------------------------------------------------------------------------------


def test_the_list_is_oldest_first_and_goes_on_after_an_id(admin: Admin) -> None:
    for number in (1, 2, 3):
        change(admin, number)
    assert [item["id"] for item in admin.ask(CHANGES).json["items"]] == [1, 2, 3]
    assert [item["id"] for item in admin.ask(f"{CHANGES}?since=1").json["items"]] == [2, 3]
    assert admin.ask(f"{CHANGES}?since=3").json == {"items": [], "next_cursor": None, "has_next": False}
    assert admin.ask(f"{CHANGES}?since=9999999").json["items"] == []
    for limit in (1, 2, 3, 1000):
        assert [item["id"] for item in admin.walk(CHANGES, limit)] == [1, 2, 3]
        assert [item["id"] for item in admin.walk(f"{CHANGES}?since=1", limit)] == [2, 3]


def test_a_change_tells_what_the_contract_lists(admin: Admin) -> None:
    change(admin, 1)
    (item,) = admin.ask(CHANGES).json["items"]
    assert item == {
        "id": 1,
        "type": "branch.changed",
        "repository": "octo/demo",
        "branch": "main",
        "before": None,
        "after": f"{1:040x}",
        "added": ["f1-0"],
        "modified": [],
        "removed": [],
        "entities": {"added": [], "modified": [], "removed": []},
        "created_at": "2026-11-23T21:40:41.123Z",
    }


@pytest.mark.parametrize("since", ["x", "", "-1", "1.5", "9" * 19, "9" * 5000, "%D9%A1", "0x1", "1%00"])
def test_a_since_that_is_no_id_is_a_422(admin: Admin, since: str) -> None:
    for path in (f"{CHANGES}?since={since}", f"/api/v1/events?since={since}"):
        reply = admin.ask(path)
        assert (reply.status, set(reply.json)) == (422, {"detail"})


def test_what_was_swept_is_a_410_and_what_is_kept_is_not(admin: Admin) -> None:
    for number in (1, 2, 3, 4):
        admin.now = NOW + timedelta(hours=number)
        change(admin, number)
    cursor = admin.ask(f"{CHANGES}?limit=1").json["next_cursor"]
    assert admin.feed.sweep(now=NOW + timedelta(hours=4), keep_seconds=3600) == 2
    for path in (f"{CHANGES}?since=0", f"{CHANGES}?since=1", f"{CHANGES}?cursor={cursor}", "/api/v1/events?since=1"):
        reply = admin.ask(path)
        assert (reply.status, set(reply.json)) == (410, {"detail"}), path
    assert [item["id"] for item in admin.ask(f"{CHANGES}?since=2").json["items"]] == [3, 4]
    assert [item["id"] for item in admin.ask(CHANGES).json["items"]] == [3, 4]


def test_after_a_sweep_of_everything_the_ids_go_on(admin: Admin) -> None:
    change(admin, 1)
    change(admin, 2)
    assert admin.feed.sweep(now=NOW + timedelta(hours=4), keep_seconds=3600) == 2
    assert admin.ask(f"{CHANGES}?since=1").status == 410
    assert admin.ask(f"{CHANGES}?since=2").json["items"] == []
    assert admin.ask(CHANGES).json["items"] == []
    with Stream(url(admin), last=1) as swept:
        assert swept.status == 410
    change(admin, 3)
    assert [item["id"] for item in admin.ask(f"{CHANGES}?since=2").json["items"]] == [3]


# -- the stream -----------------------------------------------------------------------------------


def test_a_stream_resumes_after_the_id_and_goes_on_live(admin: Admin) -> None:
    for number in (1, 2, 3):
        change(admin, number)
    with Stream(url(admin), last=1) as stream:
        assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert ids(take(stream, 2)) == [2, 3]
        assert stream.retry == 2000
        change(admin, 4)
        admin.hub.changed()
        (event,) = take(stream, 1)
        assert (event.id, event.name) == (4, "branch.changed")
        assert event.data == admin.ask(f"{CHANGES}?since=3").json["items"][0]


def test_a_stream_without_an_id_begins_now(admin: Admin) -> None:
    change(admin, 1)
    with Stream(url(admin)) as stream:
        assert stream.status == 200
        change(admin, 2)
        assert ids(take(stream, 1)) == [2]


def test_a_change_that_nobody_told_of_is_found_all_the_same(admin: Admin) -> None:
    with Stream(url(admin)) as stream:
        change(admin, 1)
        assert ids(take(stream, 1)) == [1]
        change(admin, 2)
        assert ids(take(stream, 1)) == [2]


def test_the_header_comes_before_the_query(admin: Admin) -> None:
    for number in (1, 2, 3):
        change(admin, number)
    with Stream(url(admin), last=2, query="?since=0") as stream:
        assert ids(take(stream, 1)) == [3]
    with Stream(url(admin), query="?since=1") as stream:
        assert ids(take(stream, 2)) == [2, 3]
    with Stream(url(admin), "Last-Event-ID: x") as stream:
        assert stream.status == 422


def test_an_id_from_a_store_that_was_replaced_is_a_410(admin: Admin) -> None:
    change(admin, 1)
    with Stream(url(admin), last=2) as stream:
        assert stream.status == 410
        assert set(stream.body()) == {"detail"}


def test_what_has_no_number_is_told_without_an_id(admin: Admin) -> None:
    change(admin, 1)
    with Stream(url(admin), last=0) as stream:
        assert ids(take(stream, 1)) == [1]
        wait_for(lambda: admin.hub._live, "the stream to have caught up")
        admin.hub.publish("delivery", {"guid": "g\n\nid: 99"})
        (event,) = take(stream, 1)
        assert event == Event(None, "delivery", {"guid": "g\n\nid: 99"})


def test_silence_is_broken_by_comments(tmp_path: Path) -> None:
    with serving(tmp_path, heartbeat_seconds=0.02) as admin, Stream(url(admin)) as stream:
        for number in range(1, 4):
            wait_for(lambda: admin.hub._live, "the stream to be live")
            change(admin, number)
            take(stream, 1)
        assert stream.comments


def test_a_stream_holds_to_the_guards_of_the_listener(admin: Admin) -> None:
    for lines in (("Origin: http://evil.example",), ("Sec-Fetch-Site: cross-site",)):
        with Stream(url(admin), *lines) as stream:
            assert stream.status == 403
    assert admin.ask("/api/v1/events", host="evil.example").status == 403
    admin.token = "letmein"
    with Stream(url(admin)) as stream:
        assert stream.status == 401
    with Stream(url(admin), "Authorization: Bearer letmein") as stream:
        assert stream.status == 200


def test_head_of_a_stream_is_an_answer_that_ends(admin: Admin) -> None:
    reply = admin.ask("/api/v1/events", method="HEAD")
    assert (reply.status, reply.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")


def test_streams_are_bounded_and_a_place_is_free_as_soon_as_its_client_has_gone(tmp_path: Path) -> None:
    with serving(tmp_path, most_clients=2, heartbeat_seconds=3600) as admin:
        first, second = Stream(url(admin)), Stream(url(admin))
        with second, Stream(url(admin)) as third:
            assert (third.status, third.headers["retry-after"]) == (503, "5")
            first.close()
            wait_for(lambda: len(admin.hub._clients) == 1, "the place to be free")
            with Stream(url(admin)) as fourth:
                assert fourth.status == 200


def test_streams_end_when_the_hub_is_closed_and_none_begins(admin: Admin) -> None:
    with Stream(url(admin)) as stream:
        wait_for(lambda: admin.hub._live, "the stream to be live")
        admin.hub._loop.call_soon_threadsafe(admin.hub.close)
        assert list(stream) == []
    with Stream(url(admin)) as late:
        assert late.status == 503


# -- many readers ---------------------------------------------------------------------------------


def test_a_client_that_reads_nothing_is_cut_off_and_costs_the_others_nothing(admin: Admin) -> None:
    """Each change names paths of about a megabyte: more than sockets take, so that something must wait or give."""
    with Stream(url(admin), receive_buffer=4096) as slow, Stream(url(admin)) as quick:
        wait_for(lambda: len(admin.hub._live) == 2, "both to be live")
        data = {"padding": "x" * 1_000_000}
        for number in range(40):
            admin.hub.publish("delivery", data)
            (event,) = take(quick, 1)
            assert event.data == data, number
        change(admin, 1)
        assert ids(take(quick, 1)) == [1]
        wait_for(lambda: len(admin.hub._clients) == 1, "the slow one to be cut off")
        assert len(list(slow)) < 40  # what the kernel had taken, and never a part of an event
    with Stream(url(admin), last=0) as resumed:
        assert ids(take(resumed, 1)) == [1]


def test_a_slow_reader_of_the_past_does_not_hold_up_the_present(admin: Admin) -> None:
    for number in range(1, 6):
        change(admin, number, names=2000)
    with Stream(url(admin), last=0, receive_buffer=4096), Stream(url(admin)) as quick:
        change(admin, 6)
        assert ids(take(quick, 1)) == [6]


@pytest.mark.parametrize("readers", [5])
def test_readers_that_join_while_changes_are_made_see_each_once(admin: Admin, readers: int) -> None:
    total = 60
    seen: dict[int, list[int | None]] = {}

    def read(reader: int, last: int) -> None:
        with Stream(url(admin), last=last) as stream:
            seen[reader] = ids(take(stream, total - last))

    with threads([lambda r=r: read(r, 0) for r in range(readers)]):  # type: ignore[misc]
        for number in range(1, total + 1):
            change(admin, number)
            if number % 7 == 0:
                admin.hub.changed()
            if number == 30:
                late = threading.Thread(target=read, args=(99, 30))
                late.start()
    late.join(30)
    assert seen == {**{reader: list(range(1, total + 1)) for reader in range(readers)}, 99: list(range(31, total + 1))}


@contextmanager
def threads(work: list[Callable[[], None]]) -> Iterator[None]:
    running = [threading.Thread(target=one) for one in work]
    for one in running:
        one.start()
    yield
    for one in running:
        one.join(30)
        assert not one.is_alive()


def test_a_pipelined_request_behind_a_stream_does_no_harm(tmp_path: Path) -> None:
    with serving(tmp_path, heartbeat_seconds=0.05) as admin:
        with socket.create_connection(("localhost", admin.port), timeout=30) as connection:
            head = b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n"
            connection.sendall(head % b"/api/v1/events" + head % b"/healthz")
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 OK")
        wait_for(lambda: not admin.hub._clients, "the stream to be let go")


# -- what may happen between a read of the store and its use ------------------------------------------


class Watched(Feed):
    """The feed, with something happening after a page was read and before the reader has it."""

    def __init__(self, feed: Feed, after_read: Callable[[int | None, list[int]], None]) -> None:
        super().__init__(feed._db)
        self._after_read = after_read

    def page(self, after: int | None, *, limit: int, most_bytes: int = MOST_BYTES) -> ChangePage:
        page = super().page(after, limit=limit, most_bytes=most_bytes)
        self._after_read(after, [item.id for item in page.items])
        return page


@pytest.fixture
def first(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stream]:
    """A reader that has come to change 1, while the pump has looked once and looks again only when it is told to."""
    monkeypatch.setattr("daemon.web.stream.POLL_SECONDS", 3600.0)
    change(admin, 1)
    looked = threading.Semaphore(0)

    def after_read(after: int | None, items: list[int]) -> None:
        if not items:
            looked.release()

    admin.hub._feed = Watched(admin.feed, after_read)
    with Stream(url(admin), last=0) as stream:
        assert ids(take(stream, 1)) == [1]
        for reader in ("the stream itself", "the pump"):
            assert looked.acquire(timeout=30), reader
        yield stream


def test_a_change_between_the_last_read_of_the_past_and_the_present_is_not_missed(admin: Admin) -> None:
    change(admin, 1)
    missed = threading.Event()

    def after_read(after: int | None, items: list[int]) -> None:
        if after == 1 and not items and not missed.is_set():
            missed.set()
            change(admin, 2)

    admin.hub._feed = Watched(admin.feed, after_read)
    with Stream(url(admin), last=0) as stream:
        assert ids(take(stream, 2)) == [1, 2]
    assert missed.is_set()


def test_a_change_that_the_others_got_meanwhile_is_not_missed(admin: Admin, first: Stream) -> None:
    missed = threading.Event()

    def after_read(after: int | None, items: list[int]) -> None:
        if after == 1 and not items and not missed.is_set():
            missed.set()
            change(admin, 2)
            admin.hub.changed()
            assert ids(take(first, 1)) == [2]

    admin.hub._feed = Watched(admin.feed, after_read)
    with Stream(url(admin), last=1) as second:
        assert ids(take(second, 1)) == [2]


def test_a_read_for_readers_who_have_left_does_not_make_another_miss_anything(admin: Admin, first: Stream) -> None:
    reads = {"past": threading.Event(), "present": threading.Event()}
    go_on = {name: threading.Event() for name in reads}

    def after_read(after: int | None, items: list[int]) -> None:
        held = {(1, ()): "past", (2, (3,)): "present"}.get((after or 0, tuple(items)))
        if held and not reads[held].is_set():
            reads[held].set()
            assert go_on[held].wait(30)

    admin.hub._feed = Watched(admin.feed, after_read)
    with Stream(url(admin), last=1) as second:
        assert reads["past"].wait(30)  # the second has read that nothing comes after 1
        change(admin, 2)
        admin.hub.changed()
        assert ids(take(first, 1)) == [2]
        change(admin, 3)
        admin.hub.changed()
        assert reads["present"].wait(30)  # the pump has read 3 for the first
        first.close()
        wait_for(lambda: len(admin.hub._clients) == 1, "the first to have left")
        go_on["past"].set()
        wait_for(lambda: admin.hub._live, "the second to be live")
        go_on["present"].set()
        assert ids(take(second, 2)) == [2, 3]
