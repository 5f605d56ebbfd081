"""Unsealing as decisions: what each share, reset and completion does, and what none of them does."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from services.seal import seal_decisions
from services.seal.keys import root_key
from services.seal.seal_decisions import Pool
from strongbox.crypto.shamir import Share
from strongbox.errors import InvalidInput, NotInitialized, RepeatedShare, WrongShare
from strongbox.storage.v1 import seal_records_pb2 as storage
from strongbox.store import keyspace
from tests.services.seal.worlds import World, draft
from tests.support.fakes import FakeStore


def test_the_first_share_begins_an_attempt() -> None:
    world = World()
    standing = world.give(2)
    assert (standing.nonce, set(standing.given)) == ("fresh", {2})
    assert world.state.is_sealed


def test_a_later_share_joins_the_attempt_under_way() -> None:
    world = World()
    world.give(2)
    standing = world.give(1, "other")
    assert (standing.nonce, set(standing.given)) == ("fresh", {1, 2})


def test_a_repeated_share_is_refused_alone_and_spoils_nothing() -> None:
    world = World()
    world.give(3)
    before = dict(world.store.facts)
    for _ in range(3):
        with pytest.raises(RepeatedShare):
            world.give(3)
    assert world.store.facts == before
    assert world.audited == ["Unseal"]
    assert world.give(1).given == {1, 3}


def test_the_repetition_of_a_call_gets_its_first_answer_and_is_audited_once() -> None:
    world = World()
    first = world.give(3, call="mine")
    assert world.give(3, "other", call="mine") == first
    assert world.audited == ["Unseal"]
    world.give(2, call="another")
    assert world.give(3, call="mine").given == {2, 3}
    with pytest.raises(RepeatedShare):
        world.give(2, call="mine")


def test_a_share_whose_holders_died_is_taken_anew_and_counts_once() -> None:
    world = World()
    world.give(3, call="first")
    assert world.give(3, call="second", lost=True).given == {3}
    assert world.give(3, call="second").given == {3}
    with pytest.raises(RepeatedShare):
        world.give(3, call="first")


@pytest.mark.parametrize("index", [1, 3, 4, 255])
def test_a_wrong_share_is_refused_alone_and_spoils_nothing(index: int) -> None:
    world = World()
    world.give(2)
    before = dict(world.store.facts)
    with pytest.raises(WrongShare):
        world.store.run(
            lambda view: seal_decisions.give(view, Share(index, bytes(32)), "fresh", "call"), draft()
        )
    with pytest.raises(WrongShare):
        world.store.run(lambda view: seal_decisions.reset(view, Share(index, bytes(32))), draft())
    assert world.store.facts == before


def test_a_right_share_under_another_index_is_wrong() -> None:
    world = World()
    with pytest.raises(WrongShare):
        seal_decisions.require_share(world.config, Share(2, world.share(1).data))


def test_a_share_of_another_cluster_is_wrong() -> None:
    with pytest.raises(WrongShare):
        seal_decisions.require_share(World().config, World().share(1))


def test_before_init_nothing_is_unsealed() -> None:
    with pytest.raises(NotInitialized):
        FakeStore().run(lambda view: seal_decisions.give(view, Share(1, bytes(32)), "fresh", "call"))


def test_completing_unseals_and_says_who_holds_a_key() -> None:
    world = World()
    world.give(1)
    world.give(2)
    state = world.complete("fresh")
    assert (state.is_sealed, state.generation) == (False, 2)
    assert world.store.value(keyspace.SEAL_ATTEMPT) is None
    assert world.replica("node-1").holds
    assert world.replica("node-1").generation == 2


def test_completing_late_changes_the_state_no_more() -> None:
    world = World()
    world.give(1)
    world.complete("fresh")
    assert world.complete("fresh", "node-2") == world.state
    assert world.state.generation == 2
    assert world.replica("node-2").holds


def test_an_ordinal_that_is_taken_up_late_is_recorded() -> None:
    """It is a standing right to be given the root key by peers."""
    world = World()
    world.give(1)
    world.complete("fresh")
    for ordinal, recorded in (("2", True), ("2", False)):
        replica = storage.SealReplica(node="node-2", ordinal=ordinal, lease=8)
        done = world.store.run(
            lambda view, it=replica: seal_decisions.complete(view, "unsealed-2", it), draft()
        )
        assert (done.view.draft is not None) is recorded


def test_completing_after_a_reset_is_refused() -> None:
    world = World()
    world.give(1)
    world.store.run(lambda view: seal_decisions.reset(view, world.share(3)), draft())
    with pytest.raises(InvalidInput):
        world.complete("fresh")
    assert world.state.is_sealed
    assert not world.replica("node-1").holds


def test_a_reset_forgets_what_was_given() -> None:
    world = World()
    world.give(1)
    world.store.run(lambda view: seal_decisions.reset(view, world.share(1)), draft())
    assert world.give(2, "second").given == {2}


def test_shares_while_unsealed_are_counted_nowhere() -> None:
    world = World()
    world.give(1)
    world.complete("fresh")
    standing = world.give(3)
    assert (standing.nonce, standing.given) == ("unsealed-2", frozenset())
    assert world.store.value(keyspace.SEAL_ATTEMPT) is None


def test_shares_that_died_with_a_replica_are_taken_off_the_count() -> None:
    world = World()
    world.give(1)
    world.give(2)
    world.store.run(lambda view: seal_decisions.correct(view, "fresh", frozenset({2})))
    assert world.given() == {2}
    world.store.run(lambda view: seal_decisions.correct(view, "another attempt", frozenset()))
    assert world.given() == {2}
    assert world.give(1).given == {1, 2}


def test_a_cluster_nobody_can_open_is_called_sealed_once() -> None:
    world = World()
    world.give(1)
    world.complete("fresh")
    for _ in range(2):
        world.store.run(lambda view: seal_decisions.abandon(view, 2), draft())
    assert (world.state.is_sealed, world.state.generation) == (True, 3)


def test_a_pool_keeps_the_shares_of_one_attempt_only() -> None:
    pool = Pool()
    pool.add("a", [Share(1, b"x")])
    pool.add("a", [Share(2, b"y")])
    assert pool.of("a").keys() == {1, 2}
    pool.add("b", [Share(3, b"z")])
    assert pool.of("b").keys() == {3}
    assert pool.of("a") == {}
    pool.drop()
    assert pool.of("b") == {}


class Attempts(RuleBasedStateMachine):
    """Any order of shares to any replica, relays lost and repeated, resets, restarts and seals."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(shares=4, threshold=3)
        self.pools = [Pool(), Pool(), Pool()]
        self.given_since_reset: set[int] = set()
        self.round = 0

    @rule(index=st.integers(1, 4), node=st.integers(0, 2), heard=st.sets(st.integers(0, 2)))
    def give(self, index: int, node: int, heard: set[int]) -> None:
        self.round += 1
        held = any(index in pool.of(self.world.nonce()) for pool in self.pools)
        if held and index in self.world.given():
            with pytest.raises(RepeatedShare):
                self.world.give(index, f"nonce-{self.round}")
            return
        standing = self.world.give(index, f"nonce-{self.round}", lost=True)
        if not standing.state.is_sealed:
            return
        self.given_since_reset.add(index)
        self.pools[node].add(standing.nonce, [self.world.share(index)])
        for peer in heard:
            self.pools[peer].add(standing.nonce, self.pools[node].of(standing.nonce).values())
        for pool in self.pools:
            self.try_to_open(pool, standing.nonce)

    def try_to_open(self, pool: Pool, nonce: str) -> None:
        shares = list(pool.of(nonce).values())
        if len(shares) < self.world.config.threshold:
            return
        root_key.open_root(self.world.config, shares)
        self.world.complete(nonce)

    @rule(index=st.integers(1, 4))
    def reset(self, index: int) -> None:
        self.world.store.run(lambda view: seal_decisions.reset(view, self.world.share(index)), draft())
        if self.world.state.is_sealed:
            self.given_since_reset.clear()

    @rule(node=st.integers(0, 2))
    def restart(self, node: int) -> None:
        self.pools[node] = Pool()

    @rule(index=st.integers(1, 255), data=st.binary(min_size=32, max_size=32))
    def give_junk(self, index: int, data: bytes) -> None:
        before = dict(self.world.store.facts)
        with pytest.raises(WrongShare):
            self.world.store.run(
                lambda view: seal_decisions.give(view, Share(index, data), "junk", "call"), draft()
            )
        assert self.world.store.facts == before

    @precondition(lambda self: not self.world.state.is_sealed)
    @rule()
    def seal(self) -> None:
        self.world.store.run(seal_decisions.seal, draft())
        self.given_since_reset.clear()

    @invariant()
    def unsealed_means_that_a_threshold_was_given_since_the_last_reset(self) -> None:
        assert self.world.state.is_sealed or len(self.given_since_reset) >= 3

    @invariant()
    def generations_tell_sealed_from_unsealed(self) -> None:
        assert self.world.state.is_sealed == (self.world.state.generation % 2 == 1)


TestAttempts = Attempts.TestCase
TestAttempts.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
