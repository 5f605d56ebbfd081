"""What holds for every call: token, deadline, and our own errors back."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from strongbox import errors
from strongbox.client import StrongBox
from strongbox.client.transport import SLOW_TIMEOUT, TIMEOUT
from strongbox.errors import (
    DeadlineExceeded,
    InvalidInput,
    RateLimited,
    Sealed,
    StrongBoxError,
    Unauthenticated,
    Unavailable,
)
from strongbox.rpc.error_mapping import BY_REASON
from tests.support.fake_strongbox import REQUEST_ID, SHARES, TOKEN, World


def test_the_token_goes_with_every_call_and_can_be_changed(world: World, box: StrongBox) -> None:
    box.kv.put("a", "1")
    assert world.metadata["authorization"] == f"Bearer {TOKEN}"
    box.use_token("")
    with pytest.raises(Unauthenticated):
        box.kv.get("a")
    assert "authorization" not in world.metadata


@pytest.mark.parametrize("reason", sorted(BY_REASON))
def test_every_refusal_comes_back_as_the_class_that_was_raised(
    world: World, box: StrongBox, reason: str
) -> None:
    world.failure = BY_REASON[reason]("as it was said", fact="1")
    with pytest.raises(StrongBoxError) as caught:
        box.kv.get("a")
    assert type(caught.value) is BY_REASON[reason]
    assert caught.value.message == "as it was said"
    assert caught.value.metadata == {"fact": "1", "request_id": REQUEST_ID}


def test_a_rate_limit_says_how_long_to_wait(world: World, box: StrongBox) -> None:
    world.failure = errors.RateLimited(retry_after="3")
    with pytest.raises(RateLimited) as caught:
        box.kv.get("a")
    assert caught.value.metadata["retry_after"] == "3"


def test_every_call_has_a_deadline(world: World, box: StrongBox) -> None:
    box.kv.put("a", "1")
    box.seal.unseal(SHARES[0])
    usual, slow = world.deadlines
    # gRPC rounds a deadline up to what its header can say.
    assert usual == pytest.approx(TIMEOUT, abs=1)
    assert slow == pytest.approx(SLOW_TIMEOUT, abs=1)


def test_a_gateway_that_says_nothing_is_given_up(world: World) -> None:
    world.delay = 1.5
    started = time.monotonic()
    with StrongBox(world.target, TOKEN, timeout=0.2) as box, pytest.raises(DeadlineExceeded):
        box.kv.get("a")
    assert time.monotonic() - started < 1.2


def test_a_gateway_that_is_not_there_is_unavailable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with StrongBox(address, TOKEN) as box, pytest.raises(Unavailable):
            box.kv.get("a")


def test_sealed_is_told_apart_from_other_unavailability(world: World, box: StrongBox) -> None:
    world.sealed = True
    with pytest.raises(Sealed):
        box.kv.get("a")


@pytest.mark.parametrize("token", ["has space", "line\nend", "nul\0", "é", "x" * 513])
def test_what_cannot_be_a_token_is_refused_before_anything_is_sent_and_not_quoted(token: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        StrongBox("127.0.0.1:1", token)
    assert token not in str(caught.value)


def test_an_authority_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="authority"):
        StrongBox("https://127.0.0.1:1", ca=tmp_path / "nothing.pem")


def test_a_tls_gateway_of_another_authority_is_not_trusted(world: World, tmp_path: Path) -> None:
    # The fake speaks plain text; to a client that wants TLS that is no gateway at all.
    with StrongBox(f"https://{world.target}", TOKEN, timeout=2.0) as box, pytest.raises(StrongBoxError):
        box.kv.get("a")
    assert world.asked == []
