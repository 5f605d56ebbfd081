"""Key shares against FIPS 197, against an independent implementation, and against malformed input.

Published: the products of FIPS 197 §4.2 and its S-box (figure 7), each entry of which is an affine image of
an inverse in the same field. Independent: tables of logarithms and Lagrange's formula, byte by byte, below.
"""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongbox.crypto import ShareError
from strongbox.crypto.gf256 import Field, invert, multiply
from strongbox.crypto.shamir import Share, combine, split

S_BOX = bytes.fromhex(
    "637c777bf26b6fc53001672bfed7ab76ca82c97dfa5947f0add4a2af9ca472c0b7fd9326363ff7cc34a5e5f171d83115"
    "04c723c31896059a071280e2eb27b27509832c1a1b6e5aa0523bd6b329e32f8453d100ed20fcb15b6acbbe394a4c58cf"
    "d0efaafb434d338545f9027f503c9fa851a3408f929d38f5bcb6da2110fff3d2cd0c13ec5f974417c4a77e3d645d1973"
    "60814fdc222a908846eeb814de5e0bdbe0323a0a4906245cc2d3ac629195e479e7c8376d8dd54ea96c56f4ea657aae08"
    "ba78252e1ca6b4c6e8dd741f4bbd8b8a703eb5664803f60e613557b986c11d9ee1f8981169d98e949b1e87e9ce5528df"
    "8ca1890dbfe6426841992d0fb054bb16"
)
secrets_ = st.binary(min_size=1, max_size=40)


# The oracle: the textbook, with tables.
EXP = [1] * 255
for _i in range(1, 255):
    _double = EXP[_i - 1] << 1
    EXP[_i] = EXP[_i - 1] ^ (_double ^ 0x11B if _double > 255 else _double)  # times 3, a generator
LOG = {value: power for power, value in enumerate(EXP)}


def times(a: int, b: int) -> int:
    return EXP[(LOG[a] + LOG[b]) % 255] if a and b else 0


def over(a: int, b: int) -> int:
    return EXP[(LOG[a] - LOG[b]) % 255] if a else 0


def value_at(x: int, polynomial: list[int]) -> int:
    total, power = 0, 1
    for coefficient in polynomial:
        total ^= times(coefficient, power)
        power = times(power, x)
    return total


def at_zero(points: list[tuple[int, int]]) -> int:
    total = 0
    for x, y in points:
        term = y
        for other, _ in points:
            if other != x:
                term = over(times(term, other), other ^ x)
        total ^= term
    return total


@pytest.mark.parametrize(
    ("a", "b", "product"),
    [
        (0x57, 0x83, 0xC1), (0x57, 0x13, 0xFE), (0x57, 0x02, 0xAE), (0x57, 0x04, 0x47), (0x57, 0x08, 0x8E),
        (0x57, 0x10, 0x07), (0x53, 0xCA, 0x01), (0x03, 0x07, 0x09),
    ],
)  # fmt: skip
def test_products_are_those_of_fips_197(a: int, b: int, product: int) -> None:
    assert multiply(a, b) == multiply(b, a) == product


def test_every_inverse_is_the_one_in_the_s_box_of_fips_197() -> None:
    for a in range(256):
        inverse = invert(a)
        rotated = [(inverse << n | inverse >> 8 - n) & 0xFF for n in range(5)]
        image = 0x63
        for each in rotated:
            image ^= each
        assert image == S_BOX[a]


def test_every_product_is_the_oracles() -> None:
    assert all(multiply(a, b) == times(a, b) for a in range(256) for b in range(256))


def test_a_vector_is_scaled_byte_by_byte() -> None:
    plane, data = Field(256), bytes(range(256))
    for scalar in range(256):
        scaled = plane.to_bytes(plane.scale(plane.vector(data), scalar))
        assert scaled == bytes(times(byte, scalar) for byte in data)


@given(secrets_, st.integers(2, 6), st.integers(0, 4), st.randoms(use_true_random=False))
def test_shares_are_values_of_the_polynomial(
    secret: bytes, threshold: int, more: int, rng: random.Random
) -> None:
    drawn: list[bytes] = []

    def noise(length: int) -> bytes:
        drawn.append(rng.randbytes(length))
        return drawn[-1]

    shares = split(secret, threshold + more, threshold, noise)
    (coefficients,), n = drawn, len(secret)
    for position, byte in enumerate(secret):
        polynomial = [byte, *(coefficients[k * n + position] for k in range(threshold - 1))]
        assert all(share.data[position] == value_at(share.index, polynomial) for share in shares)


@given(secrets_, st.integers(1, 5), st.integers(0, 3), st.randoms(use_true_random=False))
def test_any_threshold_of_shares_gives_the_secret_as_the_oracle_computes_it(
    secret: bytes, threshold: int, more: int, rng: random.Random
) -> None:
    count = 1 if threshold == 1 else threshold + more
    shares = split(secret, count, threshold)
    chosen = rng.sample(shares, threshold)
    told = bytes(at_zero([(s.index, s.data[i]) for s in chosen]) for i in range(len(secret)))
    assert combine(chosen) == told == secret
    assert combine(shares) == secret


def test_the_largest_split_works_at_its_edges() -> None:
    secret = bytes(range(32))
    shares = split(secret, 255, 255)
    assert [share.index for share in shares] == list(range(1, 256))
    assert combine(shares) == secret
    assert combine(shares[1:]) != secret


def test_one_share_too_few_leaves_every_secret_possible() -> None:
    """For each candidate secret there is exactly one second share that completes to it."""
    share = split(b"\x2a", 2, 2)[0]
    completions = {combine([share, Share(2, bytes([y]))]) for y in range(256)}
    assert len(completions) == 256


def test_zero_is_a_coefficient_like_any_other() -> None:
    shares = split(b"secret", 3, 2, bytes)  # all zeros: the constant polynomial
    assert {share.data for share in shares} == {b"secret"}


@pytest.mark.parametrize("secret", [bytes(32), b"\xff" * 32, b"\0" * 31 + b"\1", b"\1" + b"\0" * 31])
def test_leading_zeros_are_kept(secret: bytes) -> None:
    assert combine(split(secret, 5, 3)[1:4]) == secret


@pytest.mark.parametrize(
    ("shares", "threshold"), [(0, 0), (2, 0), (2, 3), (256, 2), (3, 1), (2, -1), (-1, -1)]
)
def test_numbers_that_make_no_sense_are_refused(shares: int, threshold: int) -> None:
    with pytest.raises(ShareError):
        split(b"secret", shares, threshold)


def test_an_empty_secret_and_a_poor_random_source_are_refused() -> None:
    with pytest.raises(ShareError):
        split(b"", 3, 2)
    with pytest.raises(ShareError):
        split(b"secret", 3, 2, lambda length: bytes(length - 1))


def test_no_shares_twice_the_same_or_of_different_length_are_refused() -> None:
    one, other = split(b"secret", 2, 2)
    for wrong in ([], [one, one], [one, Share(other.index, other.data[:-1])]):
        with pytest.raises(ShareError):
            combine(wrong)


@given(st.integers(1, 255), st.binary(min_size=32, max_size=32))
def test_a_share_is_read_as_it_was_written(index: int, data: bytes) -> None:
    share = Share(index, data)
    assert Share.decode(share.encode()) == share
    assert Share.decode(f"  {share.encode()}=\n") == share
    assert len(share.encode()) == 46


@pytest.mark.parametrize(
    "text",
    [
        "", "=", "a", "not base64 !", "A" * 46, "AQ" + "A" * 44, "é" * 46, "AgE" + "A" * 43, "AQE" + "A" * 44,
        Share(1, bytes(32)).encode()[:-1], Share(1, bytes(33)).encode(), Share(1, bytes(32)).encode() + "A",
    ],
)  # fmt: skip
def test_malformed_text_is_refused_and_not_quoted(text: str) -> None:
    with pytest.raises(ShareError) as refusal:
        Share.decode(text)
    assert len(text) < 4 or text not in str(refusal.value)


def test_text_has_one_spelling_only() -> None:
    """Left-over bits of the last character and the other base64 alphabet are refused."""
    text = Share(1, b"\xfb\xff" * 16).encode()
    assert "-" in text or "_" in text
    with pytest.raises(ShareError):
        Share.decode(text.replace("-", "+").replace("_", "/"))
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    read = [share for last in alphabet if (share := _read(text[:-1] + last)) is not None]
    assert len(read) == len(set(read)) == 4  # of 46 characters' 276 bits a share has 272


def _read(text: str) -> Share | None:
    try:
        return Share.decode(text)
    except ShareError:
        return None


@pytest.mark.parametrize("index", [0, 256, -1])
def test_an_index_outside_1_to_255_is_refused(index: int) -> None:
    with pytest.raises(ShareError):
        Share(index, bytes(32))


def test_a_share_does_not_print_its_data() -> None:
    assert "6161" not in repr(Share(1, b"aa"))
    assert "aa" not in repr(Share(1, b"aa"))


def test_every_pair_of_three_gives_the_same_secret() -> None:
    shares = split(b"the unseal key of some cluster..", 3, 2)
    found = {combine(pair) for pair in itertools.permutations(shares, 2)}
    assert found == {b"the unseal key of some cluster.."}
