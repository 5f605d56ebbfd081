"""The stand-in for a node: files that change at once, names, what a container is told."""

from __future__ import annotations

import base64
import os
import struct
from pathlib import Path
from typing import Any

import pytest

from tests.rehearsal import documented
from tests.rehearsal.control.store import Store
from tests.rehearsal.control.tokens import Tokens
from tests.rehearsal.node.container import Surroundings, expanded, specification
from tests.rehearsal.node.dns import Dns
from tests.rehearsal.node.endpoints import Backend, View
from tests.rehearsal.node.images import ROOT, Image, from_containerfile
from tests.rehearsal.node.volumes import NotThere, Volumes
from tests.rehearsal.unknown import NotRehearsed


def pod(**spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "p-0", "namespace": "here", "uid": "u", "labels": {}},
        "spec": spec,
        "status": {},
    }


def a_secret(store: Store, **data: str) -> None:
    encoded = {
        name.replace("_", "."): base64.b64encode(text.encode()).decode() for name, text in data.items()
    }
    known = store.find("secrets", "here", "s")
    if known:
        store.replace("secrets", known | {"data": encoded})
    else:
        store.create("secrets", {"metadata": {"name": "s", "namespace": "here"}, "data": encoded})


def test_a_secrets_files_change_all_at_once_under_the_same_names(tmp_path: Path) -> None:
    store = Store()
    volume = {"name": "v", "secret": {"secretName": "s", "defaultMode": 0o440}}
    group = os.getgid()
    mounted = Volumes(
        store,
        Tokens(store),
        pod(volumes=[volume], securityContext={"fsGroup": group}),
        tmp_path,
        tmp_path / "c",
    )
    with pytest.raises(NotThere):
        mounted.mount()
    a_secret(store, tls_crt="1", tls_key="1")
    folder = mounted.mount()["v"]
    opened = (folder / "..data").resolve()
    assert (folder / "tls.crt").read_text() == "1"
    assert (folder / "tls.crt").stat().st_mode & 0o777 == 0o440
    a_secret(store, tls_crt="2", ca_crt="2")
    mounted.refresh()
    assert {one.name: one.read_text() for one in folder.iterdir() if not one.name.startswith("..")} == {
        "tls.crt": "2",
        "ca.crt": "2",
    }
    assert (folder / "..data").resolve() != opened
    assert not opened.exists()


def test_a_projected_source_that_is_optional_may_be_away(tmp_path: Path) -> None:
    store = Store()
    a_secret(store, key="1")
    items = [{"key": "key", "path": "a/key"}]
    sources = [
        {"secret": {"name": "s", "items": items}},
        {"secret": {"name": "away", "optional": True, "items": items}},
    ]
    volume = {"name": "v", "projected": {"sources": sources}}
    folder = Volumes(store, Tokens(store), pod(volumes=[volume]), tmp_path, tmp_path / "c").mount()["v"]
    assert (folder / "a" / "key").read_text() == "1"


def test_references_to_variables_are_expanded_as_kubernetes_does() -> None:
    known = {"POD": "p-0"}
    assert expanded("$(POD).svc $$(POD) $(NONE) $POD", known) == "p-0.svc $(POD) $(NONE) $POD"


def test_a_field_that_is_not_rehearsed_is_refused_and_not_ignored(tmp_path: Path) -> None:
    around = Surroundings(Store(), pod(volumes=[]), "10.0.0.1", "n", {}, tmp_path, tmp_path)
    container: dict[str, Any] = {"name": "c", "image": "i", "command": ["x"]}
    assert specification(around, container, Image("i"))["command"] == ["x"]
    with pytest.raises(NotRehearsed, match="tty"):
        specification(around, container | {"tty": True}, Image("i"))


def test_our_image_is_what_the_containerfile_says(tmp_path: Path) -> None:
    image = from_containerfile(ROOT / "Containerfile", tmp_path)
    assert image.entrypoint[-1] == "-m"
    assert image.user == "10001:10001"
    assert Path(image.binds["/usr/lib/strongbox/services"], "kv").is_dir()
    assert "/usr/lib/strongbox/tests" not in image.binds


class _Endpoints:
    view = View(
        {
            ("here", "h"): {"spec": {"clusterIP": "None"}},
            ("here", "g"): {"spec": {"clusterIP": "10.96.0.101"}},
        },
        {
            ("here", "h"): [Backend("h-0", "10.244.0.5", {}), Backend("h-1", "10.244.0.6", {})],
            ("here", "g"): [],
        },
    )


def test_names_are_answered_as_by_the_clusters_dns() -> None:
    dns = Dns.__new__(Dns)
    dns._endpoints, dns.asked = _Endpoints(), {}  # type: ignore[assignment]
    whole = ".here.svc.cluster.local"
    assert sorted(dns.addresses(f"h{whole}") or ()) == ["10.244.0.5", "10.244.0.6"]
    assert dns.addresses(f"h-1.h{whole}") == ["10.244.0.6"]
    assert dns.addresses(f"h-2.h{whole}") is None
    assert dns.addresses(f"g{whole}.") == ["10.96.0.101"]
    assert dns.addresses("h") is None
    assert dns.addresses("example.org") is None
    name = b"".join(bytes([len(part)]) + part.encode() for part in f"h-0.h{whole}".split("."))
    query = struct.pack("!HHHHHH", 7, 0x0100, 1, 0, 0, 0) + name + b"\0" + struct.pack("!HH", 1, 1)
    answer = dns.answer(query)
    assert struct.unpack("!HHHH", answer[:8]) == (7, 0x8580, 1, 1)
    assert answer.endswith(bytes([10, 244, 0, 5]))


def test_the_page_has_the_commands_that_are_rehearsed_and_none_beside_them() -> None:
    found = [one.text for one in [*documented.blocks(), *documented.inline()]]
    for start in documented.NOT_RUN:
        assert any(text.startswith(start) for text in found), f"{start} is on the page no more"
    page = documented.Page("dev")
    assert page.take("kubectl apply -k").startswith("kubectl apply -k k8s/overlays/dev")
    with pytest.raises(LookupError):
        page.take("kubectl fly")
