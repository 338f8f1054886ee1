"""GitHub's addresses as they are read, kept and read again."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest
from app_key import AppKey
from bench import MovableClock
from engines import PATIENCE_SECONDS

from daemon.appkey import PrivateKey
from daemon.demo.standin import StandIn, Status
from daemon.github import ClientSettings, GitHubClient, Governor
from daemon.github.apps import AppSettings
from daemon.github.governor import PUBLIC
from daemon.triggers.addresses import HookAddresses

TOKEN = "ghp_hook_addresses"


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture
def github(clock: MovableClock) -> Iterator[StandIn]:
    with StandIn(token=TOKEN, clock=clock.clock) as standin:
        standin.hook_addresses = ("192.0.2.0/24", "2001:db8::/32")
        yield standin


@pytest.fixture
def client(github: StandIn, clock: MovableClock) -> Iterator[GitHubClient]:
    settings = ClientSettings(github.url, f"{github.url}/graphql", PATIENCE_SECONDS, lambda: TOKEN)
    client = GitHubClient(settings, clock=clock.clock, governor=Governor(clock.clock))
    yield client
    client.close()


@pytest.fixture
def addresses(client: GitHubClient, clock: MovableClock) -> HookAddresses:
    return HookAddresses(client.hook_addresses, clock=clock.clock)


def test_they_are_read_once_an_hour(addresses: HookAddresses, github: StandIn, clock: MovableClock) -> None:
    assert addresses.networks is None
    addresses.refresh()
    assert addresses.networks == (ip_network("192.0.2.0/24"), ip_network("2001:db8::/32"))
    clock.advance(3500.0)
    github.hook_addresses = ("198.51.100.0/24",)
    addresses.refresh()
    assert github.requests.count("/meta") == 1
    clock.advance(101.0)
    addresses.refresh()
    assert addresses.networks == (ip_network("198.51.100.0/24"),)


@pytest.mark.parametrize("wrong", [None, (), ("192.0.2.0/24", "nonsense"), ("192.0.2.1/24",)])
def test_the_last_good_ones_stay_whatever_comes_instead(
    addresses: HookAddresses, github: StandIn, clock: MovableClock, wrong: tuple[str, ...] | None
) -> None:
    addresses.refresh()
    good = addresses.networks
    github.hook_addresses = wrong
    clock.advance(3601.0)
    addresses.refresh()
    assert (addresses.networks, good is not None) == (good, True)
    addresses.refresh()
    assert github.requests.count("/meta") == 2
    github.hook_addresses = ("198.51.100.0/24",)
    clock.advance(121.0)
    addresses.refresh()
    assert addresses.networks == (ip_network("198.51.100.0/24"),)


def test_after_an_outage_at_the_start_they_are_read_within_minutes(
    addresses: HookAddresses, github: StandIn, clock: MovableClock
) -> None:
    rule = github.faults.add("/meta", Status(503))
    addresses.refresh()
    assert addresses.networks is None
    github.faults.remove(rule)
    addresses.ask_again()
    addresses.refresh()
    assert addresses.networks is not None


@pytest.mark.parametrize("app", [False, True])
def test_they_are_read_without_a_token_and_beside_an_app(
    client: GitHubClient, github: StandIn, tmp_path: Path, app_key: AppKey, app: bool
) -> None:
    (tmp_path / "app.pem").write_text(app_key.private)
    settings = AppSettings("7", PrivateKey(tmp_path / "app.pem")) if app else None
    client.reconfigure(
        ClientSettings(github.url, f"{github.url}/graphql", PATIENCE_SECONDS, lambda: None, app=settings)
    )
    assert len(client.hook_addresses()) == 2
    assert "authorization" not in github.requests.all()[-1].headers


def test_what_is_asked_without_a_token_disturbs_no_installations_budget(client: GitHubClient) -> None:
    governor = client.governor
    governor.observe("core", governor.use("x", account="installation 1"), status=429, headers={"retry-after": "60"})
    governor.use(None, account=PUBLIC)
    assert set(governor.snapshot()["accounts"]) == {"installation 1", PUBLIC}
    assert governor.snapshot()["paused_until"] is not None
