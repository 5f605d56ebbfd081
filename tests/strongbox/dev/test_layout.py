"""What a cluster is made of: kept over restarts, refused when it cannot be."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from strongbox.dev import layout, ports
from strongbox.dev.layout import LayoutError, Wishes


@contextmanager
def taken(port: int) -> Iterator[None]:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", port))
        server.listen()
        yield


def make(folder: Path, **wishes: int | bool) -> layout.Layout:
    return layout.prepare(folder, Wishes(base_port=wishes.pop("base_port", ports.free_base(3)), **wishes))  # type: ignore[arg-type]


def test_the_second_start_finds_everything_as_it_was(tmp_path: Path) -> None:
    first = make(tmp_path, nodes=3, tls=True)
    assert layout.prepare(tmp_path, Wishes()) == first
    assert (tmp_path / "layout.json").stat().st_mode & 0o777 == 0o600
    every = [port for each in first.kept_ports.values() for port in each.values()]
    assert len(set(every)) == len(every)
    assert first.gateway_port("node-3") == first.base_port + 3


def test_a_port_that_somebody_took_meanwhile_is_replaced(tmp_path: Path) -> None:
    first = make(tmp_path)
    with taken(first.port("node-2", "kv")):
        second = layout.prepare(tmp_path, Wishes())
    assert second.port("node-2", "kv") != first.port("node-2", "kv")
    assert second.port("node-2", "seal") == first.port("node-2", "seal")


def test_the_port_on_which_etcd_members_know_each_other_cannot_move(tmp_path: Path) -> None:
    first = make(tmp_path)
    with taken(first.port("node-2", "etcd-peer")), pytest.raises(LayoutError, match="node-2's etcd"):
        layout.prepare(tmp_path, Wishes())


def test_a_taken_gateway_port_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    base = ports.free_base(3)
    with taken(base + 2), pytest.raises(LayoutError, match=f"port {base + 2}, node-2's gateway, is taken"):
        make(tmp_path, base_port=base)
    assert not list(tmp_path.iterdir())


def test_a_cluster_of_three_does_not_become_one_of_one(tmp_path: Path) -> None:
    make(tmp_path, nodes=3)
    with pytest.raises(LayoutError, match="3 nodes"):
        layout.prepare(tmp_path, Wishes(nodes=1))
    with pytest.raises(LayoutError, match="1 or 3"):
        make(tmp_path / "other", nodes=2)


def test_cluster_json_names_what_the_contract_names(tmp_path: Path) -> None:
    made = make(tmp_path, nodes=1)
    said = layout.cluster_json(made, {"node-1": [{"name": "kv", "pid": 1, "address": "a"}]})
    assert said["nodes"][0]["gateway"] == f"http://127.0.0.1:{made.base_port + 1}"
    assert said["nodes"][0]["processes"] == [{"name": "kv", "pid": 1, "address": "a"}]
    assert said["postgres"]["dsn"].startswith("postgresql://postgres:")
    assert said["etcd"] == [f"https://{made.address('node-1', 'etcd')}"]
    assert json.dumps(said)
