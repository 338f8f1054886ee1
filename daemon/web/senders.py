"""Whether a delivery comes from one of GitHub's own addresses: a layer below the signature, never instead of it. Pure.

What headers say of the sender counts only from a proxy that is trusted, and of that only the hop that it has seen
itself, the last: everything before can be made up.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from daemon.errors import Refusal
from daemon.values import UNIX, Network, Proxy

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Senders:
    """Who may deliver: everybody unless ``only_github``; ``networks`` are GitHub's, None before they are known."""

    only_github: bool = False
    networks: tuple[Network, ...] | None = None
    proxies: tuple[Proxy, ...] = ()

    def check(self, client: IPAddress | None) -> None:
        """Raises Refusal when a delivery from there is not taken."""
        if not self.only_github:
            return
        if self.networks is None:
            raise Refusal(503, "GitHub's addresses are not known yet, try again later")
        if client is None or not any(client in network for network in self.networks):
            raise Refusal(403, "Not one of GitHub's addresses")

    def client(self, peer: str | None, forwarded: Sequence[str]) -> IPAddress | None:
        """Who sent a request that came from ``peer`` (None: a unix socket); None when that cannot be told.

        ``forwarded`` are the values of its ``X-Forwarded-For`` headers.
        """
        address = None if peer is None else _address(peer)
        last = ",".join(forwarded).rpartition(",")[2].strip()
        return _address(last) if last and self._trusts(peer, address) else address

    def _trusts(self, peer: str | None, address: IPAddress | None) -> bool:
        if peer is None:
            return UNIX in self.proxies
        return address is not None and any(address in proxy for proxy in self.proxies if not isinstance(proxy, str))


def _address(text: str) -> IPAddress | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
