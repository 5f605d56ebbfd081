"""What a local cluster is made of, and where in its folder each thing is.

DIR/layout.json      ours: nodes, ports, options; what the next start needs
DIR/cluster.json     for users and tests: gateways, processes with pids, etcd, PostgreSQL, certificates
DIR/init.json        shares and root token, if it was unsealed with --unseal (0600, development only)
DIR/certs            ca.pem, operator.pem, node-1/kv.pem …
DIR/node-1/logs      <name>.log; DIR/node-1/{etcd,seal,kv,auth,lease,audit}: data; audit/*.jsonl: the chain
DIR/postgres         data, logs
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from strongbox.config import SERVICES
from strongbox.dev import ports
from strongbox.dev.certs import Certificates
from strongbox.dev.hosts import Host, parse_hosts

DEFAULT_BASE_PORT = 8200
POSTGRES = "postgres"
_KEPT_PORTS = ("etcd", "etcd-peer", *SERVICES, "gateway-tls")


class LayoutError(Exception):
    """The cluster cannot be as it is asked to be; the text says why."""


@dataclass(frozen=True, slots=True)
class Layout:
    """One cluster. `kept_ports` maps node and name to a port that stays the same over restarts."""

    folder: Path
    nodes: int
    base_port: int
    tls: bool
    postgres: bool
    postgres_password: str
    kept_ports: Mapping[str, Mapping[str, int]]
    hosts: Mapping[str, Host] = field(default_factory=dict)

    @property
    def node_ids(self) -> list[str]:
        """node-1, node-2 …"""
        return [f"node-{n}" for n in range(1, self.nodes + 1)]

    @property
    def certificates(self) -> Certificates:
        return Certificates(self.folder / "certs")

    def port(self, node: str, name: str) -> int:
        """Where `name` of `node` listens."""
        return self.gateway_port(node) if name == "envoy" else self.kept_ports[node][name]

    def address(self, node: str, name: str) -> str:
        """The same as host:port."""
        return f"{self.host(node).address}:{self.port(node, name)}"

    def host(self, node: str) -> Host:
        """Where a node (or `postgres`) lives."""
        return self.hosts.get(node, Host())

    @property
    def host_addresses(self) -> dict[str, tuple[str, ...]]:
        """The IP addresses of each node that has a host of its own."""
        return {node: (host.address, host.door) for node, host in self.hosts.items()}

    def gateway_port(self, node: str) -> int:
        """Base + n."""
        return self.base_port + self.ordinal(node)

    def gateway_url(self, node: str) -> str:
        return f"http://{self.host(node).door}:{self.gateway_port(node)}"

    def ordinal(self, node: str) -> int:
        """1 for node-1."""
        return self.node_ids.index(node) + 1

    def own_first(self, node: str) -> list[str]:
        """All nodes, `node` first: in this order its processes ask."""
        return [node, *(other for other in self.node_ids if other != node)]

    def log(self, node: str, name: str) -> Path:
        return self.folder / node / "logs" / f"{name}.log"

    @property
    def etcd_endpoints(self) -> list[str]:
        """As `etcdctl --endpoints` takes them."""
        return [f"https://{self.address(node, 'etcd')}" for node in self.node_ids]

    def postgres_dsn(self) -> str:
        """Of the superuser, whose password is made for this cluster alone."""
        port = self.kept_ports[POSTGRES][POSTGRES]
        address = self.host(POSTGRES).address
        return f"postgresql://postgres:{self.postgres_password}@{address}:{port}/postgres"

    def save(self) -> None:
        """Write DIR/layout.json."""
        write_private_json(self.folder / "layout.json", {**asdict(self), "folder": None})


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the command line asks for; None: as it was, or the default."""

    nodes: int | None = None
    base_port: int | None = None
    tls: bool | None = None
    postgres: bool | None = None
    hosts: Mapping[str, Mapping[str, Any]] | None = None


def prepare(folder: Path, wishes: Wishes, node: str | None = None) -> Layout:
    """The layout of DIR, made or brought up to date with `wishes`, and saved. Raises LayoutError.

    Ports of processes are kept while they are free; a gateway's port must be free (that of `node` alone, when
    given). Nothing is written when it raises. Call it only with the runner's lock held.
    """
    known = load(folder)
    layout = _changed(known, wishes) if known else _fresh(folder, wishes)
    if layout.nodes not in (1, 3):
        raise LayoutError("a cluster has 1 or 3 nodes")
    if not 0 <= layout.base_port <= ports.LAST - layout.nodes:
        raise LayoutError(f"ports end at {ports.LAST}: a --base-port is 0 to {ports.LAST - layout.nodes}")
    for each in layout.node_ids if node is None else [node] if node in layout.node_ids else []:
        if not ports.is_free(layout.gateway_port(each)):
            raise LayoutError(
                f"port {layout.gateway_port(each)}, {each}'s gateway, is taken; choose another --base-port"
            )
    layout = replace(layout, kept_ports=_free_ports(layout))
    layout.save()
    return layout


def load(folder: Path) -> Layout | None:
    """The layout of DIR, or None when there is no cluster. Raises LayoutError when it cannot be read."""
    try:
        found = json.loads((folder / "layout.json").read_text(encoding="utf-8"))
        return Layout(**{**found, "folder": folder, "hosts": parse_hosts(found.get("hosts", {}))})
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, TypeError) as error:
        raise LayoutError(f"{folder / 'layout.json'} cannot be read: {error}") from None


def write_private_json(path: Path, content: object) -> None:
    """Write it whole or not at all, readable by its owner only."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    new = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    new.rename(path)


def cluster_json(layout: Layout, running: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """What DIR/cluster.json says; `running` lists each node's processes (and those of `postgres`)."""
    nodes = []
    for node in layout.node_ids:
        entry: dict[str, Any] = {"id": node, "gateway": layout.gateway_url(node)}
        if layout.tls:
            entry["gateway_tls"] = f"https://{layout.host(node).door}:{layout.port(node, 'gateway-tls')}"
        nodes.append({**entry, "processes": list(running.get(node, ()))})
    postgres = None
    if layout.postgres:
        postgres = {"dsn": layout.postgres_dsn(), "processes": list(running.get(POSTGRES, ()))}
    return {
        "nodes": nodes,
        "etcd": layout.etcd_endpoints,
        "postgres": postgres,
        "certs": str(layout.certificates.folder),
    }


def _fresh(folder: Path, wishes: Wishes) -> Layout:
    return Layout(
        folder=folder,
        nodes=wishes.nodes or 3,
        base_port=DEFAULT_BASE_PORT if wishes.base_port is None else wishes.base_port,
        tls=bool(wishes.tls),
        postgres=wishes.postgres is not False,
        postgres_password=secrets.token_hex(16),
        kept_ports={},
        hosts=parse_hosts(wishes.hosts or {}),
    )


def _changed(known: Layout, wishes: Wishes) -> Layout:
    if wishes.nodes not in (None, known.nodes):
        raise LayoutError(f"{known.folder} holds a cluster of {known.nodes} nodes; use another --data")
    return replace(
        known,
        base_port=known.base_port if wishes.base_port is None else wishes.base_port,
        tls=known.tls if wishes.tls is None else wishes.tls,
        postgres=known.postgres if wishes.postgres is None else wishes.postgres,
        hosts=known.hosts if wishes.hosts is None else parse_hosts(wishes.hosts),
    )


def _free_ports(layout: Layout) -> dict[str, dict[str, int]]:
    wanted = [(node, name) for node in layout.node_ids for name in _KEPT_PORTS] + [(POSTGRES, POSTGRES)]
    kept: dict[str, dict[str, int]] = {}
    gateways = frozenset(layout.gateway_port(node) for node in layout.node_ids)
    fresh = iter(ports.free_ports(len(wanted), gateways))
    for node, name in wanted:
        before = layout.kept_ports.get(node, {}).get(name)
        taken = before is not None and not ports.is_free(before)
        if taken and name == "etcd-peer":
            # The members know each other by it; it cannot move.
            raise LayoutError(f"port {before}, on which {node}'s etcd talks to its peers, is taken")
        kept.setdefault(node, {})[name] = next(fresh) if before is None or taken else before
    return kept
