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
from strongbox.dev.processes import etcd


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


def test_a_node_lives_where_the_hosts_file_says_and_stays_there(tmp_path: Path) -> None:
    where = {"node-2": {"address": "10.1.2.2", "door": "10.1.3.2", "enter": ["nsenter", "--net=/x"]}}
    layout.prepare(tmp_path, Wishes(3, ports.free_base(3), hosts=where))
    found = layout.load(tmp_path)
    assert found is not None
    assert found.address("node-2", "kv").startswith("10.1.2.2:")
    assert found.gateway_url("node-2").startswith("http://10.1.3.2:")
    assert found.host("node-2").enter == ("nsenter", "--net=/x")
    assert found.address("node-1", "kv").startswith("127.0.0.1:")


def test_a_member_that_lost_its_data_joins_the_others_and_a_new_cluster_begins_anew(tmp_path: Path) -> None:
    made = make(tmp_path, nodes=3)

    def state() -> str:
        command = etcd.member(made, "node-1").command
        return next(flag.partition("=")[2] for flag in command if "cluster-state" in flag)

    assert state() == "new"
    made.log("node-1", "etcd").parent.mkdir(parents=True)
    made.log("node-1", "etcd").touch()
    assert state() == "new"  # it was started before, and so were none of the others
    (tmp_path / "node-2" / "etcd").mkdir(parents=True)
    assert state() == "existing"
    (tmp_path / "node-1" / "etcd").mkdir()
    assert state() == "new"  # it has its data
