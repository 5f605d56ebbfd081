"""What is done to the cluster. A fault is begun, held, and undone; then the cluster has to recover by itself.

    processes   kill -9 of each process; a whole node; everything
    rounds      node after node stands still (SIGSTOP), twice round
    network     hosts cut off, in both directions or one, from peers or from clients; late delivery to etcd
    storage     compaction, a member replaced, a full disk, etcd filled to its quota
    room        etcd nearly full: nobody may make more, and who makes room or revokes is served
    clocks      a node's wall clock jumps
    duty        a holder's transaction arrives when another is in office
    postgres    PostgreSQL is down, frozen, refuses, is full; dies again and again with those around it

`every()` lists one fault of each kind, and in a soak those that take longer; where a fault may strike any
node the seed chooses which.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from tests.robustness.faults import clocks, duty, network, postgres, processes, room, rounds, storage
from tests.robustness.faults.fault import Fault

__all__ = ["Fault", "every"]
_FIRST = ("pause ", "kill lease, etcd, PostgreSQL", "seal and unseal")


def every(own: random.Random, *, soak: bool = False) -> Iterator[Fault]:
    """One of each kind, in an order that the seed decides.

    What strikes again and again comes first, and the seal: a run whose time is over before its faults are
    must have had them.
    """
    rooms = (processes, rounds, network, storage, room, clocks, duty, postgres)
    faults = [*(fault for room in rooms for fault in room.faults(own)), *processes.total()]
    if soak:
        faults += [*rounds.long_faults(own), *network.long_faults(own)]
    own.shuffle(faults)
    faults.sort(key=lambda fault: not fault.kind.startswith(_FIRST))
    yield from faults
