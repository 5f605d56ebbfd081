"""`python -m tests.services.lease.crashing`: does a piece of work in a child, killed at a given step.

Reads lines of JSON `{"work", "step", "endpoints", "root", "name"}`. For each it forks, does the work, and has
the child kill itself (SIGKILL: nothing is tidied up) at that step; answers `{"died": bool}`. A step is what
lies between two things that leave the process: before and after each transaction with etcd, and each
statement to PostgreSQL. Forking saves the imports; nothing of gRPC has started in the parent.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from typing import Any

from services.lease.postgres.session import Session
from strongbox.errors import StrongBoxError
from strongbox.store.decisions.pipeline import Pipeline
from tests.services.lease.workshop import Workshop, workshop


class Countdown:
    """Dies when it is asked for the `step`-th time."""

    def __init__(self, step: int) -> None:
        self.left = step

    def __call__(self) -> None:
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1


def arm(countdown: Countdown) -> None:
    """Count what leaves the process."""
    submit, ask = Pipeline.submit, Session.ask

    async def counted_submit(self: Pipeline, work: Any) -> Any:
        countdown()
        answer = await submit(self, work)
        countdown()
        return answer

    def counted_ask(self: Session, *args: Any) -> Any:
        countdown()
        rows = ask(self, *args)
        countdown()
        return rows

    Pipeline.submit = counted_submit  # type: ignore[method-assign]
    Session.ask = counted_ask  # type: ignore[method-assign]


async def do(asked: dict[str, Any]) -> None:
    """The work; what has to be there before it is made before counting begins."""
    async with workshop(asked["endpoints"], asked["root"]) as shop:
        name, work = asked["name"], asked["work"]
        lease = ""
        if work in ("renew", "revoke", "expire"):
            lease = (await shop.call("IssueCredential", role=name)).lease.id
        if work == "expire":
            shop.clock.ahead_s = 3700.0
        arm(Countdown(asked["step"]))
        await _work(shop, work, name, lease)


async def _work(shop: Workshop, work: str, name: str, lease: str) -> None:
    if work == "issue":
        await shop.call("IssueCredential", role=name)
    elif work == "renew":
        await shop.call("RenewLease", id=lease)
    elif work == "revoke":
        await shop.call("RevokeLease", id=lease)
    elif work == "expire":
        await shop.reaper.one_pass(shop.fence)
    else:
        await shop.call("RotatePostgresRoot", name=name)


def main() -> None:
    """Serve until the input ends."""
    for line in sys.stdin:
        asked = json.loads(line)
        pid = os.fork()
        if pid == 0:
            try:
                asyncio.run(do(asked))
            except StrongBoxError:
                os._exit(3)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        died = os.WIFSIGNALED(status)
        sys.stdout.write(json.dumps({"died": died, "status": status}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
