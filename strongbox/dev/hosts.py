"""Where the nodes of a local cluster live: on the loopback interface, unless a file says otherwise.

`dev up --hosts FILE` takes a JSON object by node (and `postgres`), each with any of Host's fields. Tests of
partitions put each node into a network namespace of its own with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Host:
    """One host. `address`: where its peers reach it. `door`: where its gateway listens.

    `enter`: what the command of each of its processes begins with. `etcd_via`: host:port of each member (the
    node's own first) as its services reach it, when something stands between. `etcd_flags`: settings of its
    etcd in place of ours.
    """

    address: str = LOOPBACK
    door: str = LOOPBACK
    enter: tuple[str, ...] = ()
    etcd_via: tuple[str, ...] = ()
    etcd_flags: Mapping[str, str] = field(default_factory=dict)


def parse_hosts(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Host]:
    """Raises TypeError for what is no field of a host."""
    hosts = {}
    for name, entry in found.items():
        fields: dict[str, Any] = {key: tuple(it) if isinstance(it, list) else it for key, it in entry.items()}
        hosts[name] = Host(**fields)
    return hosts
