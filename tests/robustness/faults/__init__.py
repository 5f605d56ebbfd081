"""What is done to the cluster. A fault is begun, held, and undone; then the cluster has to recover by itself.

    processes   kill -9, SIGSTOP and SIGCONT of each process; a whole node; everything
    network     hosts cut off, in both directions or one, from peers or from clients; late delivery to etcd
    storage     compaction, a member replaced, a full disk, etcd filled to its quota
    clocks      a node's wall clock jumps
    duty        a holder's transaction arrives when another is in office
    postgres    PostgreSQL is down, frozen, refuses, is full; dies again and again with those around it

`every()` lists one fault of each kind; where a fault may strike any node the seed chooses which.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from tests.robustness.faults import clocks, duty, network, postgres, processes, storage
from tests.robustness.faults.fault import Fault

__all__ = ["Fault", "every"]


def every(own: random.Random) -> Iterator[Fault]:
    """One of each kind, in an order that the seed decides; what stops everything comes last."""
    rooms = (processes, network, storage, clocks, duty, postgres)
    faults = [fault for room in rooms for fault in room.faults(own)]
    own.shuffle(faults)
    yield from faults
    yield from processes.total()
