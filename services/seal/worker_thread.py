"""Long arithmetic, off the event loop: large numbers of shares take up to 3 s of computing.

* The loop must not wait for it: the proof that the cluster is unsealed lasts 2 s, and without it no key is
  used. There is only one thread, so that Python's lock leaves the loop its turns.
* A caller waits until its deadline at most, behind at most three others; work that has not begun by then
  never does. Work that has begun by then runs to its end, and its result is dropped.
* Arguments and results can be secret. The thread keeps none of them once the work is done.
* Whoever gets the result has to check again what may have changed meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from strongbox.errors import Overloaded

P = ParamSpec("P")
T = TypeVar("T")
AT_ONCE = 4


class Computing:
    """The one thread for computing in a seal process."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "computing")
        self._asked = 0

    async def run(self, deadline: float, work: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
        """`work(…)`, computed until monotonic `deadline`. Raises Overloaded, and what the work raises."""
        if self._asked >= AT_ONCE:
            raise Overloaded("the seal service is computing for others")
        self._asked += 1
        done = self._thread.submit(work, *args, **named)
        # Counted until it has really ended: a caller that has left does not make room for other work.
        loop = asyncio.get_running_loop()
        done.add_done_callback(lambda _: self._tell(loop))
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                return await asyncio.wrap_future(done)
        except TimeoutError:
            raise Overloaded("the computing took too long") from None

    def _tell(self, loop: asyncio.AbstractEventLoop) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
            loop.call_soon_threadsafe(self._ended)

    def _ended(self) -> None:
        self._asked -= 1
