"""What stands between a node's services and etcd, and delays or keeps back what goes to members on request.

Run on that host as `python -m tests.robustness.relay LAYOUT LISTEN=NODE…`, one pair for each member: its port
is looked up in the cluster's layout.json, which is there when the first connection comes. Commands are lines
on standard input: `delay SECONDS PATH…` and `hold PATH…` (paths by their number, all others go on as ever),
`release`; it ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from pathlib import Path

from tests.support.proxy import TcpProxy


class Relay(TcpProxy):
    """Finds its target anew for each connection."""

    def __init__(self, layout: Path, listen: str, node: str) -> None:
        super().__init__("127.0.0.1:1", listen)
        self._layout, self._node = layout, node

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        told = json.loads(await asyncio.to_thread(self._layout.read_text))
        self._target = (told["hosts"][self._node]["address"], int(told["kept_ports"][self._node]["etcd"]))
        await super()._link(reader, writer)


async def main(layout: Path, pairs: list[str]) -> None:
    """Until the end of standard input."""
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with contextlib.AsyncExitStack() as stack:
        relays = [await stack.enter_async_context(Relay(layout, *pair.split("=", 1))) for pair in pairs]
        print("ready", flush=True)
        while line := await lines.readline():
            obey(relays, line.decode().split())


def obey(relays: list[Relay], command: list[str]) -> None:
    """Carry one command out."""
    for relay in relays:
        relay.delay = 0.0
        relay.release()
    if command[0] == "delay":
        for path in command[2:]:
            relays[int(path)].delay = float(command[1])
    elif command[0] == "hold":
        for path in command[1:]:
            relays[int(path)].hold(down=False)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2:]))
