"""Concurrent clients through all gateways, on few subjects, so that they meet; each answer is remembered.

    hot_secrets   each client takes whichever hot secret comes and writes, reads, deletes, destroys, lists it
    cold          a secret that rests for seconds while it is read through every node
    families      one client makes a token and a child and revokes one of them; others use both meanwhile
    veils         one client lifts a policy while a secret holds what may be seen; others look all the time
    credentials   clients get, renew and end database credentials, and log in by them
    enders        a token that ends many leases is revoked meanwhile
    onlookers     each node's health is looked at
    rivals        clients write one path with different values, and read the version that they were told

Some do not wait for every answer: two of those on the hot secrets, all rivals, who makes tokens and revokes
them, who gets, renews and ends credentials.

A subject lives for a short while, then another takes its place: short histories can be checked in full.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from typing import Self

from tests.robustness.history import History
from tests.robustness.ledger import Ledger
from tests.robustness.traffic import credentials, enders, onlookers, rivals
from tests.robustness.traffic.asking import Target, Worker
from tests.robustness.traffic.cold import ColdReader, Larder, Storer
from tests.robustness.traffic.families import FamilyMaker, FamilyUser, Registry
from tests.robustness.traffic.hot_secrets import Hot, SecretClient
from tests.robustness.traffic.rivals import Told
from tests.robustness.traffic.veils import Looker, VeilKeeper, Veils
from tests.support.etcd_door import EtcdDoor

_LEAVING = 0.5  # of the requests of two clients of the hot secrets
_LEAVING_AT_TIMES = 0.1  # of those of clients of tokens and credentials: they need some answers to go on


class Crowd:
    """Some clients at once, each in a thread of its own; a context manager."""

    def __init__(self, workers: Sequence[Worker], seed: int) -> None:
        seeds = random.Random(seed)
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(
                target=worker.work, args=(self._stop, random.Random(seeds.random())), daemon=True
            )
            for worker in workers
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)


class Traffic(Crowd):
    """All clients together."""

    def __init__(self, target: Target, history: History, ledger: Ledger, etcd: EtcdDoor, seed: int) -> None:
        hot, registry, veils = Hot(), Registry(), Veils()
        workers: list[Worker] = [SecretClient(target, history, hot, native=n == 3) for n in range(4)]
        workers += [_leaving(SecretClient(target, history, hot, native=n == 1), _LEAVING) for n in range(2)]
        larder = Larder()
        workers += [Storer(target, history, hot, larder)]
        workers += [ColdReader(target, history, hot, larder, node) for node in range(len(target.gateways))]
        workers += [_leaving(FamilyMaker(target, history, registry), _LEAVING_AT_TIMES)]
        workers += [FamilyUser(target, history, registry, node) for node in range(len(target.gateways))]
        workers += [VeilKeeper(target, history, veils), *(Looker(target, history, veils) for _ in range(2))]
        workers += [_leaving(one, _LEAVING_AT_TIMES) for one in credentials.clients(target, history, ledger)]
        self.told = Told()
        self.ended, self.lies = enders.Seen(), onlookers.Lies()
        workers += [enders.Ender(target, history, etcd, self.ended)]
        workers += [
            onlookers.Onlooker(target, history, self.lies, node) for node in range(len(target.gateways))
        ]
        workers += rivals.clients(target, history, self.told)
        super().__init__(workers, seed)
        self.hot = hot


def _leaving(worker: Worker, part: float) -> Worker:
    worker.leaving = part
    return worker
