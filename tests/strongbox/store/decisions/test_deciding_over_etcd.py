"""Deciding, against real etcd: refusals, defects, and what is read one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from strongbox.errors import Internal, PermissionDenied, StrongBoxError, Unauthenticated
from strongbox.store.decisions.view import View
from strongbox.store.etcd import txn
from strongbox.store.etcd.client import Etcd
from tests.strongbox.store.decisions.replicas import increment, running
from tests.support.etcd import EtcdCluster


async def test_a_refusal_of_a_known_caller_is_recorded_and_has_no_effect(
    etcd_member: EtcdCluster, etcd: Etcd, prefix: bytes
) -> None:
    def refuse(view: View) -> None:
        view.get(prefix + b"a")
        view.put(prefix + b"b", b"effect")
        raise PermissionDenied

    async with running(etcd_member.endpoints) as replica:
        with pytest.raises(PermissionDenied):
            await replica.act(refuse)
        assert await etcd.get(prefix + b"b") is None
        (entry,) = await replica.records()
        assert (entry.outcome, entry.reason, entry.accessor) == ("refused", "PERMISSION_DENIED", "me")


async def test_a_refusal_of_an_unknown_caller_leaves_no_record_and_rests_on_fresh_facts(
    etcd_member: EtcdCluster, etcd: Etcd, prefix: bytes
) -> None:
    def authenticate(view: View) -> str:
        if view.get(prefix + b"token").value is None:
            raise Unauthenticated
        return "in"

    async with running(etcd_member.endpoints) as replica:
        with pytest.raises(Unauthenticated):
            await replica.act(authenticate, accessor="")
        assert await replica.records() == []
        await etcd.transact(txn.txn([], [txn.put(prefix + b"token", b"")]), idempotent=True)
        assert await replica.act(authenticate, accessor="") == "in"


async def test_a_decision_that_fails_by_a_defect_fails_alone(etcd_member: EtcdCluster, prefix: bytes) -> None:
    def broken(view: View) -> None:
        raise ZeroDivisionError

    async with running(etcd_member.endpoints) as replica:
        results = await asyncio.gather(
            replica.act(broken), replica.act(increment(prefix + b"a")), return_exceptions=True
        )
        assert isinstance(results[0], StrongBoxError)
        assert results[0].reason == "INTERNAL"
        assert results[1] == 1


async def test_a_record_nobody_can_read_is_read_again_and_fails_no_request_once_it_is_gone(
    etcd_member: EtcdCluster, etcd: Etcd, prefix: bytes
) -> None:
    def parse(view: View) -> int:
        return int(view.get(prefix + b"number").value or b"0")

    async with running(etcd_member.endpoints) as replica:
        await etcd.transact(txn.txn([], [txn.put(prefix + b"number", b"junk")]), idempotent=True)
        with pytest.raises(Internal):
            await replica.act(parse)
        await etcd.transact(txn.txn([], [txn.put(prefix + b"number", b"7")]), idempotent=True)
        assert await replica.act(parse) == 7


@pytest.mark.parametrize(("reads", "decided"), [(20, True), (40, False)])
async def test_a_decision_may_ask_for_one_key_after_the_other_so_many_times_and_spoils_no_other(
    etcd_member: EtcdCluster, prefix: bytes, reads: int, *, decided: bool
) -> None:
    """A cold memory: what was read says what is to be read next. Others begin and end meanwhile."""
    async with running(etcd_member.endpoints) as replica:

        def chain(view: View) -> int:
            return sum(view.get(prefix + b"%03d" % number).mod_revision for number in range(reads))

        def write(number: int) -> Callable[[View], None]:
            return lambda view: view.put(prefix + b"own%d" % number, b"x")

        asked = asyncio.gather(replica.act(chain), return_exceptions=True)
        others = await asyncio.gather(*(replica.act(write(number)) for number in range(20)))
        (told,) = await asked
        assert others == [None] * 20
        assert told == 0 if decided else isinstance(told, Internal)
