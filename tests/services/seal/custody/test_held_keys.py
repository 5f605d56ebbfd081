"""Custody attacked with time: stale proofs, sleeping processes, missed seals, late answers."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from services.seal.custody.held_keys import PROOF_S, Custody
from services.seal.keys.keyring import Keyring
from services.seal.repository import SealState
from strongbox.clock import ManualClock
from strongbox.crypto import WipedError
from strongbox.crypto.memory_protection import LockedBytes
from strongbox.errors import NoQuorum, Sealed
from tests.services.seal.unsealing.test_initialize import opened
from tests.services.seal.worlds import World

UNSEALED = SealState(is_sealed=False, generation=2)


class Held:
    """Keys in custody since now."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.custody = Custody(self.clock)
        self.root = LockedBytes(b"r" * 32)
        self.keyring: Keyring = opened(World())
        self.custody.hold(self.root, self.keyring, 2, self.clock.monotonic())

    def is_wiped(self) -> bool:
        with pytest.raises(Sealed):
            self.custody.keyring()
        with pytest.raises(WipedError):
            self.root.view()
        return self.custody.wiped.is_set() and self.custody.record_keys is None


def test_nothing_is_held_at_first() -> None:
    custody = Custody(ManualClock())
    assert custody.generation is None
    assert custody.left() is None
    with pytest.raises(Sealed):
        custody.keyring()


def test_keys_are_used_within_two_seconds_of_a_proof_only() -> None:
    held = Held()
    held.clock.advance(2.0)
    assert held.custody.keyring() is held.keyring
    held.clock.advance(0.001)
    with pytest.raises(NoQuorum):
        held.custody.keyring()
    with pytest.raises(NoQuorum):
        held.custody.root()


def test_a_proof_counts_from_when_it_was_asked_for() -> None:
    held = Held()
    asked = held.clock.monotonic()
    held.clock.advance(1.9)
    held.custody.prove(UNSEALED, asked)
    held.clock.advance(0.2)
    with pytest.raises(NoQuorum):
        held.custody.keyring()


def test_a_new_proof_makes_the_keys_usable_again() -> None:
    held = Held()
    held.clock.advance(9.9)
    held.custody.prove(UNSEALED, held.clock.monotonic())
    assert held.custody.keyring() is held.keyring


def test_ten_seconds_without_a_proof_wipe() -> None:
    held = Held()
    held.clock.advance(10.0)
    held.custody.expire()
    assert held.is_wiped()


def test_a_process_that_slept_through_ten_seconds_is_not_saved_by_a_proof() -> None:
    held = Held()
    held.clock.advance(60.0)
    held.custody.prove(UNSEALED, held.clock.monotonic())
    assert held.is_wiped()


def test_a_process_that_slept_finds_its_keys_gone_at_the_first_use() -> None:
    uses: tuple[Callable[[Custody], object], ...] = (Custody.keyring, Custody.root)
    for use in uses:
        held = Held()
        held.clock.advance(60.0)
        with pytest.raises(Sealed):
            use(held.custody)
        assert held.is_wiped()


@pytest.mark.parametrize("state", [None, SealState(True, 3), SealState(False, 4), SealState(True, 1)])
def test_any_other_state_wipes_a_missed_seal_as_well(state: SealState | None) -> None:
    held = Held()
    held.clock.advance(0.1)
    held.custody.prove(state, held.clock.monotonic())
    assert held.is_wiped()


def test_an_answer_from_before_the_unsealing_wipes_nothing() -> None:
    held = Held()
    held.custody.prove(SealState(True, 1), held.clock.monotonic() - 0.3)
    assert held.custody.keyring() is held.keyring


def test_a_late_proof_does_not_shorten_a_newer_one() -> None:
    held = Held()
    early = held.clock.monotonic()
    held.clock.advance(1.0)
    held.custody.prove(UNSEALED, held.clock.monotonic())
    held.custody.prove(UNSEALED, early)
    held.clock.advance(1.5)
    assert held.custody.keyring() is held.keyring


def test_after_a_wipe_keys_can_be_held_again() -> None:
    held = Held()
    held.custody.wipe()
    again = opened(World())
    held.custody.hold(LockedBytes(b"r" * 32), again, 4, held.clock.monotonic())
    assert held.custody.keyring() is again
    assert not held.custody.wiped.is_set()


def test_keys_are_not_taken_in_twice() -> None:
    held, other = Held(), LockedBytes(b"x" * 32)
    held.custody.hold(other, opened(World()), 2, held.clock.monotonic())
    assert held.custody.keyring() is held.keyring
    with pytest.raises(WipedError):
        other.view()


def test_the_wall_clock_is_no_matter() -> None:
    held = Held()
    held.clock.jump(3600)
    assert held.custody.keyring() is held.keyring
    held.clock.jump(-7200)
    held.clock.advance(2.1)
    with pytest.raises(NoQuorum):
        held.custody.keyring()


def test_what_was_proved_is_told_within_two_seconds_and_not_after_a_sealing() -> None:
    """A root token, new key shares: as the values of the other services."""
    held = Held()
    held.clock.advance(0.5)
    proven = held.clock.monotonic()
    held.clock.advance(PROOF_S)
    held.custody.require_unsealed_since(proven)
    held.clock.advance(0.001)
    held.custody.prove(UNSEALED, held.clock.monotonic())
    with pytest.raises(NoQuorum):
        held.custody.require_unsealed_since(proven)
    proven = held.clock.monotonic()
    held.clock.advance(0.1)
    held.custody.wipe()
    with pytest.raises(Sealed):
        held.custody.require_unsealed_since(proven)
    held.custody.hold(LockedBytes(b"r" * 32), opened(World()), 4, held.clock.monotonic())
    with pytest.raises(Sealed):
        held.custody.require_unsealed_since(proven)
    held.clock.advance(0.1)
    held.custody.require_unsealed_since(held.clock.monotonic())
