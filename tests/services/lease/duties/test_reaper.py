"""The reaper: the expired are revoked, the long revoked go, and nothing else."""

from __future__ import annotations

import time
from typing import Any, cast

import pytest
import structlog

from services.lease.duties import reaper_decisions
from services.lease.duties.reaper import REMIND, Reaper
from strongbox.errors import Internal, NoQuorum, Overloaded, Sealed, StrongBoxError, UnknownOutcome
from strongbox.lease_records import index
from strongbox.lease_records.index import BUCKET_MS, KEPT_MS
from strongbox.store import keyspace
from strongbox.store.decisions.pipeline import Outcome, Work
from tests.services.lease.support import Lease


async def reap(lease: Lease, cluster_ms: int = 0) -> int:
    """One pass, at the time that the store's clock shows unless the cluster's is another."""
    lease.store.seed(keyspace.CLUSTER_TIME, b"%020d" % (cluster_ms or lease.store.now_ms))
    reaper = Reaper(cast("Any", lease.pipeline), lease.guard.lookup, lease.revoker, lease.measures)
    return await reaper.one_pass(lease.fence)


async def test_what_is_not_due_is_left_alone(lease: Lease) -> None:
    name = lease.hold(lease.root, "secret/a", ttl_s=60)
    assert await reap(lease) == 0
    assert lease.state(name) == "ACTIVE"


async def test_a_clock_that_is_fast_ends_nothing(lease: Lease) -> None:
    name, true_ms = lease.hold(lease.root, "secret/a", ttl_s=60), lease.store.now_ms
    lease.store.now_ms += 3_600_000
    assert await reap(lease, true_ms + 30_000) == 0
    lease.store.now_ms = true_ms
    assert lease.state(name) == "ACTIVE"


async def test_the_expired_leave_nothing_at_once(lease: Lease) -> None:
    names = [lease.hold(lease.root, f"secret/{n}", ttl_s=60) for n in range(40)]  # several of one counter
    lease.store.now_ms += 60_000
    assert {lease.state(name) for name in names} == {"EXPIRED"}
    lease.store.now_ms += BUCKET_MS
    assert await reap(lease) == 40
    assert lease.index() == []


async def test_what_somebody_revoked_stays_readable_for_a_day_and_leaves_nothing(lease: Lease) -> None:
    name = lease.hold(lease.root, "secret/a", ttl_s=60)
    await lease.call("RevokeLease", id=name)
    lease.store.now_ms += KEPT_MS - BUCKET_MS
    await reap(lease)
    assert (await lease.call("GetLease", id=name)).state == "REVOKED"
    lease.store.now_ms += 2 * BUCKET_MS
    await reap(lease)
    assert lease.index() == []


async def test_more_than_a_slice_is_reaped_to_the_end(lease: Lease) -> None:
    for number in range(reaper_decisions.SLICE + 7):
        lease.hold(lease.root, f"secret/{number}", ttl_s=5)
    lease.store.now_ms += 5000 + BUCKET_MS
    assert await reap(lease) == reaper_decisions.SLICE + 7


async def test_a_pass_costs_what_is_due_not_what_is_stored(
    lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With none stored, with a thousand that are not due, and with three of them that are."""
    submitted: list[int] = []
    submit = lease.pipeline.submit

    async def counted(work: Work[object]) -> Outcome[object]:
        done = await submit(work)
        submitted.append(len(done.rows))
        return done

    monkeypatch.setattr(lease.pipeline, "submit", counted)
    await reap(lease)
    assert submitted == [0, 0]  # the time, and a look
    for number in range(1000):
        lease.hold(lease.root, f"secret/{number}", ttl_s=600 if number < 997 else 5)
    for due_now, rows in ((0, [0] * 4), (3, [*[0] * 5, 3, 0, 0])):
        lease.store.now_ms += 5000 + BUCKET_MS if due_now else 0
        assert await reap(lease) == due_now
        assert submitted == rows  # at last the time, what was found, what became of it, and that it was all


async def test_an_entry_that_nobody_can_settle_holds_up_no_other(
    lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its group, and in the slices behind it."""
    names = [
        lease.hold(lease.root, f"secret/{number}", ttl_s=5) for number in range(reaper_decisions.SLICE + 7)
    ]
    lease.store.now_ms += 5000 + BUCKET_MS
    poison, settle = min(names), reaper_decisions.settle

    def spoilt(view: Any, fence: Any, keys: Any, entries: Any) -> list[str]:
        if any(index.name_in(entry) == poison for entry in entries):
            raise Internal
        return settle(view, fence, keys, entries)

    monkeypatch.setattr(reaper_decisions, "settle", spoilt)
    await reap(lease)
    assert {name for name in names if lease.state(name) != "gone"} == {poison}
    monkeypatch.undo()
    assert await reap(lease) == 1


@pytest.mark.parametrize("refusal", [Sealed, NoQuorum, UnknownOutcome, Overloaded])
async def test_a_pass_ends_when_the_cluster_refuses_and_asks_it_no_more(
    lease: Lease, monkeypatch: pytest.MonkeyPatch, refusal: type[StrongBoxError]
) -> None:
    """Not once for each entry: that is load when there is trouble, and an error in the log per lease."""
    for number in range(reaper_decisions.GROUP + 1):
        lease.hold(lease.root, f"secret/{number}", ttl_s=5)
    lease.store.now_ms += 5000 + BUCKET_MS
    asked = list[int]()

    def refused(view: Any, fence: Any, keys: Any, entries: Any) -> list[str]:
        del view, fence, keys
        asked.append(len(entries))
        raise refusal

    monkeypatch.setattr(reaper_decisions, "settle", refused)
    with pytest.raises(refusal), structlog.testing.capture_logs() as logged:
        await reap(lease)
    assert (asked, logged) == ([reaper_decisions.GROUP, 1], [])
    monkeypatch.undo()
    assert await reap(lease) == reaper_decisions.GROUP + 1


async def test_an_entry_that_cannot_be_settled_is_logged_now_and_then(
    lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [lease.hold(lease.root, f"secret/{number}", ttl_s=5) for number in range(2)]
    lease.store.now_ms += 5000 + BUCKET_MS
    lease.store.seed(keyspace.CLUSTER_TIME, b"%020d" % lease.store.now_ms)
    reaper = Reaper(cast("Any", lease.pipeline), lease.guard.lookup, lease.revoker, lease.measures)

    def spoilt(*_: Any) -> list[str]:
        raise Internal

    monkeypatch.setattr(reaper_decisions, "settle", spoilt)
    now = time.monotonic()
    told = []
    for later in (0.0, 0.5, REMIND / 2, REMIND + 1, REMIND + 2):
        monkeypatch.setattr(time, "monotonic", lambda at=now + later: at)
        with structlog.testing.capture_logs() as logged:
            await reaper.one_pass(lease.fence)
        assert all(any(name in line["key"] for name in names) for line in logged)
        told.append(len(logged))
    assert told == [2, 0, 0, 2, 0]


async def test_a_lease_read_again_since_its_entry_was_read_is_kept(lease: Lease) -> None:
    name = lease.hold(lease.root, "secret/a", ttl_s=60)
    (entry,) = lease.store.keys(keyspace.LEASES_DUE)
    lease.store.now_ms += 59_000
    lease.hold(lease.root, "secret/a")
    lease.store.now_ms += 60_000
    lease.store.seed(entry, b"")
    await reap(lease)
    assert lease.state(name) == "ACTIVE"
    assert len(lease.store.keys(keyspace.LEASES_DUE)) == 1


async def test_an_entry_that_leads_nowhere_or_to_a_forged_lease_is_dropped(lease: Lease) -> None:
    name = lease.hold(lease.root, "secret/a", ttl_s=5)
    lease.store.seed(keyspace.read_lease(name), b"forged")
    lease.store.seed(index.due_bucket(0) + b"/r" + b"0" * 40, b"")
    lease.store.now_ms += 60_000
    await reap(lease)
    assert lease.store.keys(keyspace.LEASES_DUE) == []


async def test_a_deposed_holder_changes_nothing(lease: Lease) -> None:
    name = lease.hold(lease.root, "secret/a", ttl_s=5)
    lease.store.now_ms += 60_000
    lease.fence.over = True
    with pytest.raises(PermissionError):
        await reap(lease)
    assert lease.state(name) == "EXPIRED"
