"""A duty of the suite's own on each host, made of the product's election and session: does the fence hold?

Run on a host as `python -m tests.robustness.probe NODE CERTS ENDPOINTS`. Whoever holds the office writes its
term's number, over and over, in transactions that compare nothing but the fence. The witness
(tests.robustness.witness) sees every one of them in etcd's own order, and who was in office then.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from pathlib import Path

from strongbox.store.duties.election import Deposed, Duty, Term
from strongbox.store.duties.session import Session
from strongbox.store.etcd import txn
from strongbox.store.etcd.client import Etcd, Tls
from strongbox.store.etcd.errors import EtcdError

PREFIX = b"/probe/"
OFFICE = PREFIX + b"office"
EFFECT = PREFIX + b"effect"
_EVERY = 0.02  # seconds between two effects
_WITHIN = 1.0


async def main(node: str, certificates: Path, endpoints: list[str]) -> None:
    """For ever."""
    tls = Tls.read(certificates / "ca.pem", certificates / "operator.pem", certificates / "operator.key")
    etcd = Etcd(endpoints, tls)
    session = Session(etcd, PREFIX + b"session/" + node.encode(), lambda: b"here", 1)
    await session.start()

    async def work(term: Term) -> None:
        for number in itertools.count():
            effect = txn.put(EFFECT, b"%d %d" % (term.number, number))
            request = txn.txn([term.compare()], [effect])
            try:
                answer = await etcd.transact(request, deadline=time.monotonic() + _WITHIN)
            except EtcdError:
                continue  # late attempts are what this is about
            if not answer.succeeded:
                raise Deposed("the fence says so")
            await asyncio.sleep(_EVERY)

    await Duty(etcd, session, OFFICE, node).run(work)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3].split(",")))
