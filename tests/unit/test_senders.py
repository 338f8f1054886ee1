from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from daemon.errors import Refusal
from daemon.values import parse_proxy
from daemon.web.senders import Senders

GITHUB = (ip_network("140.82.112.0/20"), ip_network("2a0a:a440::/29"))
HOOK = "140.82.115.7"


def senders(*proxies: str, **changes) -> Senders:
    return Senders(**{"only_github": True, "networks": GITHUB, "proxies": tuple(map(parse_proxy, proxies))} | changes)


def client(peer: str | None, *forwarded: str, proxies: tuple[str, ...] = ()) -> str | None:
    found = senders(*proxies).client(peer, forwarded)
    return str(found) if found is not None else None


def test_without_trusted_proxies_a_header_says_nothing():
    assert client("10.0.0.1", HOOK) == "10.0.0.1"
    assert client("::1", HOOK, proxies=("127.0.0.1",)) == "::1"


@pytest.mark.parametrize(
    ("forwarded", "found"),
    [
        ((HOOK,), HOOK),
        ((f" {HOOK} ",), HOOK),
        ((f"6.6.6.6, 7.7.7.7,{HOOK}",), HOOK),
        ((f"{HOOK}, 6.6.6.6",), "6.6.6.6"),
        ((HOOK, "6.6.6.6"), "6.6.6.6"),
        (("6.6.6.6", HOOK), HOOK),
        (("2a0a:a440::1",), "2a0a:a440::1"),
        ((f"::ffff:{HOOK}",), HOOK),
        ((), "10.1.2.3"),
        (("",), "10.1.2.3"),
        ((f"{HOOK},",), "10.1.2.3"),
        (("unknown",), None),
        ((f"{HOOK}:443",), None),
        (("140.82.115.07",), None),
        (("140.82.28679",), None),
        (("for=140.82.115.7",), None),
        (("1" * 5000,), None),
    ],
)
def test_of_a_trusted_proxys_header_the_last_hop_counts_or_nobody(forwarded, found):
    assert client("10.1.2.3", *forwarded, proxies=("10.0.0.0/8",)) == found


def test_a_proxy_may_be_of_the_other_family_or_mapped_into_it():
    assert client("::ffff:10.1.2.3", HOOK, proxies=("10.1.2.3",)) == HOOK
    assert client("fe80::1%eth0", HOOK, proxies=("fe80::/10",)) == HOOK
    assert client("10.1.2.3", HOOK, proxies=("::/0",)) == "10.1.2.3"


def test_a_unix_socket_is_a_proxy_only_by_its_word():
    assert client(None, HOOK, proxies=("0.0.0.0/0", "::/0")) is None
    assert client(None, HOOK, proxies=("unix",)) == HOOK
    assert client(None, proxies=("unix",)) is None


def refused(address: str | None, given: Senders) -> int | None:
    try:
        given.check(ip_address(address) if address else None)
    except Refusal as refusal:
        return refusal.status
    return None


def test_only_githubs_networks_are_let_in_of_either_family():
    assert [refused(one, senders()) for one in (HOOK, "2a0a:a447::1")] == [None, None]
    assert [refused(one, senders()) for one in ("140.82.128.1", "2a0a:a448::1", None)] == [403, 403, 403]


def test_before_the_networks_are_known_nobody_is_let_in_and_all_are_told_to_come_back():
    assert [refused(one, senders(networks=None)) for one in (HOOK, "6.6.6.6", None)] == [503, 503, 503]


def test_unless_asked_for_everybody_is_let_in():
    assert [refused(one, senders(only_github=False)) for one in (HOOK, "6.6.6.6", None)] == [None, None, None]
