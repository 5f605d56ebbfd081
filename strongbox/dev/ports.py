"""Free ports on the loopback interface.

They are taken from below the range the kernel gives to outgoing connections (32768 on), so that a port which
is kept for the next start is not lent to a client's connection meanwhile.
"""

from __future__ import annotations

import random
import socket

LAST = 65_535
_LOWEST, _HIGHEST = 20_000, 32_000


def is_free(port: int) -> bool:
    """Whether a server could listen on it now. (Address reuse as servers do it: TIME_WAIT does not count.)"""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError:
            return False
        return True


def free_ports(count: int, but: frozenset[int] = frozenset()) -> list[int]:
    """So many different free ports, none of `but`."""
    candidates = [port for port in range(_LOWEST, _HIGHEST) if port not in but]
    random.shuffle(candidates)
    found: list[int] = []
    for port in candidates:
        if len(found) == count:
            return found
        if is_free(port):
            found.append(port)
    raise LookupError("there are no free ports left")


def free_base(count: int) -> int:
    """A base port whose next `count` ports are free (for tests, in place of 8200)."""
    for base in random.sample(range(_LOWEST, _HIGHEST - count), 200):
        if all(is_free(base + n) for n in range(1, count + 1)):
            return base
    raise LookupError("there are no free ports left")
