"""The overlap rule: whatever meets in a batch, the result is that of one decision after the other."""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass, field

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from strongbox.store import keyspace
from strongbox.store.decisions import batch_txn as batches
from strongbox.store.decisions.batch_txn import Claims
from strongbox.store.decisions.view import Fetch, Footprint, View
from strongbox.store.decisions.work import Work
from tests.strongbox.store.decisions.replicas import running
from tests.support.etcd import EtcdCluster

NAMES = [b"a", b"b", b"c", b"d"]
names = st.sampled_from(NAMES)


@dataclass
class Program:
    """One decision: what it reads, puts and deletes, and whether it reads the whole range."""

    reads: set[bytes]
    puts: set[bytes]
    deletes: set[bytes]
    fetches: bool
    mark: bytes = field(default_factory=lambda: secrets.token_hex(4).encode())


programs = st.builds(
    Program,
    st.sets(names, max_size=2),
    st.sets(names, max_size=2),
    st.sets(names, max_size=1),
    st.booleans(),
)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(programs, min_size=2, max_size=14), st.lists(st.booleans(), min_size=14, max_size=14))
async def test_decisions_of_two_replicas_have_a_serial_history(
    etcd_member: EtcdCluster, plan: list[Program], sides: list[bool]
) -> None:
    prefix = f"/test/{secrets.token_hex(6)}/".encode()
    async with running(etcd_member.endpoints) as one, running(etcd_member.endpoints) as other:

        async def act(
            program: Program, side: bool
        ) -> tuple[int, Program, dict[bytes, bytes | None], dict[bytes, bytes]]:
            def decide(view: View) -> dict[bytes, bytes | None]:
                if program.fetches:
                    view.fetch(prefix, keyspace.prefix_end(prefix))
                seen = {name: view.get(prefix + name).value for name in program.reads}
                for name in program.puts:
                    view.put(prefix + name, program.mark)
                for name in program.deletes:
                    view.delete(prefix + name)
                return seen

            replica = one if side else other
            done = await replica.pipeline.submit(Work(decide, None, time.monotonic() + 30))
            rows = {row.key.removeprefix(prefix): row.value for row in done.rows}
            return done.revision, program, done.value, rows

        history = await asyncio.gather(*(act(p, s) for p, s in zip(plan, sides, strict=False)))
        left = await one.etcd.range(prefix, keyspace.prefix_end(prefix))
    state: dict[bytes, bytes] = {}
    for _, program, seen, rows in sorted(history, key=lambda entry: entry[0]):
        assert seen == {name: state.get(name) for name in program.reads}
        if program.fetches:
            assert rows == state
        state.update(dict.fromkeys(program.puts - program.deletes, program.mark))
        for name in program.deletes:
            state.pop(name, None)
    assert {row.key.removeprefix(prefix): row.value for row in left.rows} == state


footprints = st.builds(
    lambda reads, puts, deletes, fetch: Footprint(
        dict.fromkeys(reads, 1), dict.fromkeys(puts, b""), set(deletes) - set(puts),
        [Fetch(b"a", b"c", 0, False)] if fetch else [], None,
    ),
    st.sets(names), st.sets(names), st.sets(names), st.booleans(),
)  # fmt: skip


@given(st.lists(footprints, max_size=6))
def test_no_admitted_decision_touches_what_another_of_the_batch_writes(wanted: list[Footprint]) -> None:
    claims, chosen = Claims(), []
    for footprint in wanted:
        if claims.admits(footprint):
            chosen.append(footprint)
            claims.add(footprint)
    for one in chosen:
        for other in chosen:
            if one is other:
                continue
            writes = one.puts.keys() | one.deletes
            assert not writes & (other.puts.keys() | other.deletes | other.reads.keys())
            assert not any(f.start <= key < f.end for f in other.fetches for key in writes)


def test_the_bounds_leave_room_for_the_cursor_and_both_branches() -> None:
    footprint = Footprint({b"k": 1}, {b"p": b"v"}, set(), [], 5)
    operations, size = batches.cost_of(batches.Decided(footprint, None))
    assert operations >= 1 + 1 + 1
    assert size > 512
    assert batches.MAX_OPS < 1024
