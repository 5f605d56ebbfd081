"""A certificate that does not fit is named in the log, not only "does not answer": real handshakes."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import grpc.aio
import pytest
from structlog.testing import capture_logs

from strongbox import tls_failures
from strongbox.authority import Authority, Leaf, Pair
from strongbox.rpc.seal_stream import Link, LinkDown
from strongbox.seal.v1 import seal_peer_service_pb2 as pb
from strongbox.store.etcd.client import Etcd
from strongbox.store.etcd.endpoints import Tls
from strongbox.store.etcd.errors import Unavailable
from strongbox.tls_failures import Told, why_refused

OURS, FOREIGN = Authority.create("ours"), Authority.create("foreign")
HOUR = dt.timedelta(hours=1)
ELSEWHERE = Leaf("etcd", "etcd", ("strongbox-etcd",), ())
HERE = Leaf("etcd", "etcd", ("strongbox-etcd",), ("127.0.0.1",))
NAME = "its certificate is not for the name that was dialled"
AUTHORITY = "its certificate is not of the authority that is trusted here"
EXPIRED = "its certificate has expired"
OTHERS = [
    (OURS.issue(ELSEWHERE, HOUR), NAME),
    (FOREIGN.issue(HERE, HOUR), AUTHORITY),
    (OURS.issue(HERE, -HOUR), EXPIRED),
]


@pytest.fixture(autouse=True)
def nothing_told_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls_failures.told, "_last", {})


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a server with the certificate that is asked for."""
    pair: Pair = request.param
    running = grpc.server(ThreadPoolExecutor(1))
    port = running.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(pair.key, pair.certificate)]))
    running.start()
    yield f"127.0.0.1:{port}"
    running.stop(0).wait()


def own() -> Tls:
    pair = OURS.issue(Leaf("kv", "kv", ()), HOUR)
    return Tls(OURS.pair.certificate, pair.certificate, pair.key)


@pytest.mark.parametrize(("server", "why"), OTHERS, indirect=["server"])
async def test_etcd_that_is_not_believed_is_told_with_the_reason(server: str, why: str) -> None:
    etcd = Etcd((server,), own())
    with capture_logs() as logged:
        for _ in range(2):
            with pytest.raises(Unavailable, match=f"did not answer .* in time: {why}"):
                await etcd.get(b"/strongbox/x")
    await etcd.close()
    told = [
        (one["address"], one["why"]) for one in logged if one["event"] == "another process was not believed"
    ]
    assert told == [(server, why)], "once, however often it is asked"


@pytest.mark.parametrize(("server", "why"), OTHERS, indirect=["server"])
async def test_a_seal_replica_that_is_not_believed_is_told_with_the_reason(server: str, why: str) -> None:
    credentials = own().credentials()
    link = Link(server, lambda: grpc.aio.secure_channel(server, credentials))
    with capture_logs() as logged, pytest.raises(LinkDown):
        await link.ask(pb.StreamKeysRequest(), 5.0)
    await link.close()
    assert [one["why"] for one in logged] == [why]


async def test_a_port_where_nobody_listens_is_no_matter_of_certificates() -> None:
    etcd = Etcd(("127.0.0.1:1",), own())
    with capture_logs() as logged, pytest.raises(Unavailable, match=r"in time$"):
        await etcd.get(b"/strongbox/x")
    await etcd.close()
    assert not [one for one in logged if "believed" in one["event"]]


def test_nothing_of_the_text_is_shown_and_what_is_remembered_is_bounded() -> None:
    told = Told()
    with capture_logs() as logged:
        for number in range(1000):
            told.tell(f"a:{number}", "Handshake failed: hunter2")
    assert "hunter2" not in str(logged)
    assert len(told._last) <= 256
    assert why_refused("the secret's text") == ""
