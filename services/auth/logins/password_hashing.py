"""Passwords: hashed and verified by Argon2id, off the event loop, few at a time.

Rules:
* Stored as the usual text, `$argon2id$v=19$m=…,t=…,p=…$salt$hash`, which other implementations read and
  write. Parameters are OWASP's (19 MiB, 2 passes, 1 lane; salt 16 bytes, from the operating system; hash 32
  bytes): 25 to 50 ms of one core. Argon2id resists both GPUs (memory) and side channels (its first pass
  does not depend on the password).
* A hash of other parameters still verifies, and is replaced at the next login that succeeds.
* Verifying costs the same whether or not there is a hash: without one a dummy of the same parameters is
  verified.
* A password is brought to Unicode form NFKC (NIST SP 800-63B): keyboards differ in how they write é.
* At most half of the cores, with threads of low priority, in order of arrival: logins wait for each other,
  and no other request waits for logins. `RateLimited` is raised when too many wait already, and when too
  little time is left to record the result (on a busy machine threads of low priority wait for all others).
  Nothing has been recorded then, and a right password is answered like a wrong one.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import threading
import time
import unicodedata
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Final, TypeVar

import structlog
from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError

from strongbox.errors import InvalidInput, RateLimited

T = TypeVar("T")
MIN_CHARACTERS, MAX_CHARACTERS = 12, 1024
MAX_WAITING = 64  # logins in the queue of one replica
# Seconds kept for recording a login after its hash (or half its time): many times what a busy etcd needs.
RESERVE = 2.0
NICENESS = 10
_PREFIX = "$argon2id$"
_HASHER: Final = PasswordHasher(
    time_cost=2, memory_cost=19_456, parallelism=1, hash_len=32, salt_len=16, type=Type.ID
)
_log = structlog.get_logger(__name__)


def require_new(password: str) -> str:
    """A password that may be set. Raises `InvalidInput`, which does not quote it."""
    # Bounded first: Unicode's normal form of a long row of combining marks costs the square of its length.
    if len(normal(require_bounded(password))) < MIN_CHARACTERS:
        raise InvalidInput(f"a password has at least {MIN_CHARACTERS} characters")
    return password


def require_bounded(password: str) -> str:
    """A password that is not too long to be hashed. Raises `InvalidInput`."""
    if len(password) > MAX_CHARACTERS:
        raise InvalidInput(f"a password has at most {MAX_CHARACTERS} characters")
    return password


def normal(password: str) -> str:
    """The password in the form that is hashed (NFKC)."""
    return unicodedata.normalize("NFKC", password)


def is_outdated(stored: str) -> bool:
    """Whether a hash was made with other parameters than today's."""
    return bool(_HASHER.check_needs_rehash(stored))


class Passwords:
    """Hashes and verifies `workers` passwords at a time; one per process."""

    def __init__(self, workers: int = max(1, (os.cpu_count() or 1) // 2)) -> None:
        self._pool = ThreadPoolExecutor(workers, "argon2", initializer=_give_way)
        self._turn = asyncio.Semaphore(workers)
        self._waiting = 0
        self._dummy = _HASHER.hash(secrets.token_urlsafe(32))

    async def hash(self, password: str, deadline: float) -> str:
        """The text to store. Raises `RateLimited`; `deadline` is monotonic."""
        return await self._run(deadline, lambda: str(_HASHER.hash(normal(password))))

    async def verify(self, stored: str | None, password: str, deadline: float) -> bool:
        """Whether `password` matches `stored`; nothing matches None, which takes the same time.

        Raises `RateLimited`.
        """
        return await self._run(deadline, lambda: _matches(stored or self._dummy, password)) and bool(stored)

    def close(self) -> None:
        """Start no more hashes; those that run end by themselves."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _run(self, deadline: float, work: Callable[[], T]) -> T:
        now = time.monotonic()
        end = deadline - min(RESERVE, (deadline - now) / 2)
        async with self._turn_within(end):
            result = await asyncio.get_running_loop().run_in_executor(self._pool, work)
        if time.monotonic() > end:
            raise _busy()
        return result

    @asynccontextmanager
    async def _turn_within(self, end: float) -> AsyncIterator[None]:
        if self._waiting >= MAX_WAITING:
            raise _busy()
        self._waiting += 1
        try:
            async with asyncio.timeout(max(0.0, end - time.monotonic())):
                await self._turn.acquire()
        except TimeoutError:
            raise _busy() from None
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._turn.release()


def _matches(stored: str, password: str) -> bool:
    # argon2-cffi hands the comparison to libargon2, which compares in constant time.
    if not stored.startswith(_PREFIX):
        _log.error("a stored password hash is not Argon2id")
        return False
    try:
        return bool(_HASHER.verify(stored, normal(password)))
    except InvalidHashError:
        _log.error("a stored password hash cannot be read")
        return False
    except (VerificationError, UnicodeEncodeError):
        return False


def _give_way() -> None:
    # On Linux a thread has a niceness of its own; elsewhere this is a hint that may be refused.
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


def _busy() -> RateLimited:
    return RateLimited("too many logins are waiting here", retry_after="2")
