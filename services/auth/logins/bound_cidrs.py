"""Networks that logins may come from, such as 10.0.0.0/8. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from itertools import islice

from strongbox.errors import InvalidInput

MAX_CIDRS = 64
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def parse_cidrs(texts: Iterable[str]) -> tuple[str, ...]:
    """Networks in canonical form, without duplicates. Raises `InvalidInput`."""
    texts, found = tuple(islice(texts, MAX_CIDRS + 1)), []
    if len(texts) > MAX_CIDRS:  # before they are parsed, which costs time: the caller is not known yet
        raise InvalidInput(f"at most {MAX_CIDRS} networks are named")
    for text in texts:
        try:
            found.append(str(ipaddress.ip_network(text)))
        except ValueError:
            raise InvalidInput("bound_cidrs are networks such as 10.0.0.0/8, without host bits") from None
    return tuple(dict.fromkeys(found))


def is_from(client: str, cidrs: Iterable[str]) -> bool:
    """Whether an address is in one of these networks; true for any address if there are none."""
    networks = [ipaddress.ip_network(text) for text in cidrs]
    if not networks:
        return True
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return any((mapped or address) in network for network in networks)


def require_inside(cidrs: Iterable[str], bounds: Iterable[str]) -> None:
    """Raise `InvalidInput` unless each network is within one of `bounds`; without bounds all are allowed."""
    outer = [ipaddress.ip_network(text) for text in bounds]
    for text in cidrs:
        inner = ipaddress.ip_network(text)
        if outer and not any(_is_within(inner, network) for network in outer):
            raise InvalidInput("the networks of a secret id are within those of its role")


def _is_within(inner: Network, outer: Network) -> bool:
    if isinstance(inner, ipaddress.IPv4Network) and isinstance(outer, ipaddress.IPv4Network):
        return inner.subnet_of(outer)
    if isinstance(inner, ipaddress.IPv6Network) and isinstance(outer, ipaddress.IPv6Network):
        return inner.subnet_of(outer)
    return False
