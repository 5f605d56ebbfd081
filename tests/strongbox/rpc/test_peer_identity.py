"""Names in certificates."""

from __future__ import annotations

import pytest

from strongbox.errors import PermissionDenied
from strongbox.rpc.peer_identity import Peer, parse_peer, peer_of


class _Context:
    def __init__(self, **properties: list[bytes]) -> None:
        self._properties = properties

    def auth_context(self) -> dict[str, list[bytes]]:
        return self._properties


def test_a_service_is_named_by_its_spiffe_id() -> None:
    assert parse_peer("spiffe://strongbox/kv") == Peer("kv")
    assert parse_peer("spiffe://strongbox/seal/2") == Peer("seal", 2)
    assert str(parse_peer("spiffe://strongbox/seal/2")) == "seal/2"


@pytest.mark.parametrize(
    "name",
    [
        "", "kv", "spiffe://strongbox/", "spiffe://strongbox/kv/", "spiffe://strongbox/kv\n", "spiffe://other/kv",
        "spiffe://strongbox/etcd", "spiffe://strongbox/KV", "spiffe://strongbox/seal/01", "spiffe://strongbox/seal/-1",
        "spiffe://strongbox/seal/1/2", "xspiffe://strongbox/kv",
    ],
)  # fmt: skip
def test_any_other_name_is_nobody(name: str) -> None:
    with pytest.raises(PermissionDenied):
        parse_peer(name)


def test_a_certificate_with_no_name_or_several_is_nobody() -> None:
    two = [b"spiffe://strongbox/kv", b"spiffe://strongbox/operator"]
    for context in (_Context(), _Context(peer_spiffe_id=[]), _Context(peer_spiffe_id=two)):
        with pytest.raises(PermissionDenied):
            peer_of(context)
