"""Handing a secret over: the right receiver opens it, nobody else, nowhere else."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongbox.crypto import IntegrityError
from strongbox.crypto.aead import Box
from strongbox.crypto.key_transport import Gift, Receiver, hand_over

SECRET = bytes(range(32))
ORDER_8 = "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"
CONTEXT = ("cluster", "1", "node-1", 7)


def flipped(data: bytes, bit: int) -> bytes:
    return bytes(b ^ (1 << bit % 8 if i == bit // 8 else 0) for i, b in enumerate(data))


def test_the_receiver_opens_what_was_given_to_him() -> None:
    receiver = Receiver()
    assert receiver.open(hand_over(memoryview(SECRET), receiver.public, *CONTEXT), *CONTEXT) == SECRET


def test_another_receiver_does_not_open_it() -> None:
    gift = hand_over(SECRET, Receiver().public, *CONTEXT)
    with pytest.raises(IntegrityError):
        Receiver().open(gift, *CONTEXT)


@pytest.mark.parametrize(
    "context",
    [(), ("cluster", "2", "node-1", 7), ("cluster", "1", "node-1", 8), ("cluster1", "", "node-1", 7)],
)
def test_it_does_not_open_in_another_context(context: tuple[str | int, ...]) -> None:
    receiver = Receiver()
    gift = hand_over(SECRET, receiver.public, *CONTEXT)
    with pytest.raises(IntegrityError):
        receiver.open(gift, *context)


@given(st.integers(0, 32 * 8 - 1))
def test_any_changed_bit_is_noticed(bit: int) -> None:
    receiver = Receiver()
    gift = hand_over(SECRET, receiver.public, *CONTEXT)
    box = gift.box
    altered = [
        Gift(gift.public, Box(flipped(box.nonce, bit % 96), box.ciphertext, box.tag)),
        Gift(gift.public, Box(box.nonce, flipped(box.ciphertext, bit), box.tag)),
        Gift(gift.public, Box(box.nonce, box.ciphertext, flipped(box.tag, bit % 128))),
        replace(gift, public=flipped(gift.public, bit)),  # X25519 ignores the top bit; the context does not
    ]
    for each in altered:
        with pytest.raises(IntegrityError):
            receiver.open(each, *CONTEXT)


@pytest.mark.parametrize(
    "public",
    # The last is of order 8: the shared secret would be zero whatever the private key is (RFC 7748 §6.1).
    [b"", bytes(31), bytes(33), bytes(32), b"\1" + bytes(31), bytes.fromhex(ORDER_8)],
)  # fmt: skip
def test_a_key_that_is_none_or_of_small_order_is_refused(public: bytes) -> None:
    with pytest.raises(IntegrityError):
        hand_over(SECRET, public, *CONTEXT)


def test_two_handovers_have_nothing_in_common() -> None:
    receiver = Receiver()
    one, other = (hand_over(SECRET, receiver.public, *CONTEXT) for _ in range(2))
    assert one.public != other.public
    assert one.box.ciphertext != other.box.ciphertext
