"""A decision that does several things leaves a record of each, with its effects or not at all."""

from __future__ import annotations

import time

import pytest

from strongbox.errors import PermissionDenied
from strongbox.store.decisions.audit_journal import Draft
from strongbox.store.decisions.view import View
from strongbox.store.decisions.work import Work
from tests.strongbox.store.decisions.replicas import Replica, increment, look, running
from tests.support.etcd import EtcdCluster


def draft(name: str) -> Draft:
    return Draft(op=name, path="secret/x", request_id=name, client="")


async def submit(replica: Replica, decide: object) -> None:
    await replica.pipeline.submit(Work(decide, None, time.monotonic() + 10))  # type: ignore[arg-type]


async def test_each_of_them_is_recorded_also_without_a_record_of_the_work(
    etcd_member: EtcdCluster, prefix: bytes
) -> None:
    def several(view: View) -> None:
        increment(prefix + b"counter")(view)
        for name in ("one", "two", "three"):
            view.record(draft(name))

    async with running(etcd_member.endpoints) as replica:
        await submit(replica, several)
        entries = await replica.records()
        assert [(entry.op, entry.outcome) for entry in entries] == [
            (name, "ok") for name in ("one", "two", "three")
        ]
        assert all(entry.ts_ms for entry in entries)


async def test_a_decision_that_is_made_again_leaves_them_once(
    etcd_member: EtcdCluster, prefix: bytes
) -> None:
    key = prefix + b"counter"

    def recorded(view: View) -> None:
        view.record(draft(f"saw {view.get(key).value!r}"))
        increment(key)(view)

    async with running(etcd_member.endpoints) as one, running(etcd_member.endpoints) as other:
        await one.act(look(key))
        await other.act(increment(key))
        await submit(one, recorded)
        assert [entry.op for entry in await one.records()] == ["op", "saw b'1'"]


async def test_a_refusal_leaves_none_of_them(etcd_member: EtcdCluster, prefix: bytes) -> None:
    def refused(view: View) -> None:
        view.record(draft("one"))
        raise PermissionDenied

    async with running(etcd_member.endpoints) as replica:
        with pytest.raises(PermissionDenied):
            await replica.act(refused)
        assert [(entry.op, entry.outcome) for entry in await replica.records()] == [("op", "refused")]
