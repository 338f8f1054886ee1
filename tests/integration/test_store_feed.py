"""The change feed as the store keeps it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from engines import open_store
from test_web_admin import MODE_FILE, NOW, Admin, Rule

from daemon.clock import Clock
from daemon.config import Config, load
from daemon.errors import ConfigError
from daemon.model import RemoteRepository
from daemon.service import Service

HOUR = timedelta(hours=1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Admin]:
    """A store with one branch; nobody listens."""
    admin = Admin(open_store(tmp_path / "test.db", clock=Clock()))
    admin.repositories.track([Rule("octo", "demo")], now=NOW)
    repository_id = admin.repositories.by_name("octo", "demo")
    assert repository_id is not None
    admin.repositories.identify(repository_id, RemoteRepository(77, "octo", "demo", "main"), now=NOW)
    yield admin
    admin.database.close()


def change(store: Admin, number: int, *, names: int = 1) -> None:
    store.now = NOW + number * HOUR
    store.sync(
        {b"f%d-%d" % (number, name): (MODE_FILE, b"%d" % number) for name in range(names)}, head=f"{number:040x}"
    )


def ids(store: Admin, after: int | None = None) -> list[int]:
    return [item.id for item in store.feed.page(after, limit=1000).items]


def test_before_the_first_change_the_feed_is_empty_and_begins_at_one(store: Admin) -> None:
    assert (store.feed.oldest(), store.feed.newest(), ids(store), ids(store, 0)) == (1, 0, [], [])


def test_a_page_has_at_most_its_limit_and_says_whether_there_is_more(store: Admin) -> None:
    for number in (1, 2, 3):
        change(store, number)
    assert [item.id for item in store.feed.page(0, limit=2).items] == [1, 2]
    assert store.feed.page(0, limit=2).more
    assert not store.feed.page(0, limit=3).more
    assert not store.feed.page(1, limit=2).more
    assert not store.feed.page(3, limit=2).more


def test_a_page_of_large_changes_is_shorter_and_never_empty(store: Admin) -> None:
    for number in (1, 2, 3):
        change(store, number, names=50)
    page = store.feed.page(0, limit=1000, most_bytes=10)
    assert ([item.id for item in page.items], page.more) == ([1], True)
    page = store.feed.page(2, limit=1000, most_bytes=10)
    assert ([item.id for item in page.items], page.more) == ([3], False)
    assert [item.id for item in store.feed.page(0, limit=1000, most_bytes=1000).items] == [1, 2]


def test_a_sweep_takes_what_is_too_old_in_many_small_steps(store: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemon.store.feed._BATCH", 2)
    for number in range(1, 8):
        change(store, number)
    assert store.feed.sweep(now=NOW + 7 * HOUR, keep_seconds=2 * 3600) == 4
    assert (ids(store), store.feed.oldest(), store.feed.newest()) == ([5, 6, 7], 5, 7)
    assert store.feed.sweep(now=NOW + 7 * HOUR, keep_seconds=2 * 3600) == 0


def test_what_an_action_waits_for_stays_with_all_that_came_after_it(store: Admin) -> None:
    for number in range(1, 6):
        change(store, number)
    assert store.feed.sweep(now=NOW + 99 * HOUR, keep_seconds=3600, needed=lambda: 4) == 3
    assert ids(store) == [4, 5]
    assert store.feed.sweep(now=NOW + 99 * HOUR, keep_seconds=3600, needed=lambda: None) == 2


def test_an_id_is_never_given_twice(store: Admin) -> None:
    change(store, 1)
    change(store, 2)
    assert store.feed.sweep(now=NOW + 99 * HOUR, keep_seconds=3600) == 2
    assert (store.feed.oldest(), store.feed.newest(), ids(store), ids(store, 2)) == (3, 2, [], [])
    for swept in (0, 1):
        with pytest.raises(LookupError):
            store.feed.page(swept, limit=1)
    change(store, 3)
    assert ids(store, 2) == [3]


@pytest.mark.sqlite
def test_the_daemon_sweeps_by_the_setting(tmp_path: Path, store: Admin) -> None:
    for number in (1, 2):
        change(store, number)
    store.database.close()
    config_file = tmp_path / "config.toml"

    def configured(retention: str) -> Config:
        config_file.write_text(f'[storage]\nurl = "sqlite:///{tmp_path}/test.db"\nchange_retention = "{retention}"\n')
        return load(config_file, environ={}, cwd=tmp_path)

    with pytest.raises(ConfigError, match="change_retention"):
        configured("59m")
    for retention, kept in (("30d", [1, 2]), ("1h", [])):
        service = Service(configured(retention), load=lambda: configured("1h"), environ={}, clock=ahead())
        swept_by(service)
        with_store = open_store(tmp_path / "test.db", clock=Clock())
        assert ids(Admin(with_store)) == kept
        with_store.close()


def ahead() -> Clock:
    """Three hours and a half after the epoch of the changes."""
    return Clock(now=lambda: NOW + 3 * HOUR + timedelta(minutes=30))


def swept_by(service: Service) -> None:
    from daemon.core import Core

    service._core = Core(service.config, clock=service._clock, metrics=service._metrics)
    try:
        service._sweep()
    finally:
        service._core.close()
        service._reads.shutdown()
