"""Keeping keys out of core dumps, swap and other processes' reach. What is promised, and no more:

* `harden_process`: no core dump; no ptrace and no /proc/PID/mem by the same user. Set before any key exists,
  and again after exec, which makes a process dumpable anew.
* `LockedBytes`: one page that is not swapped (where the kernel allows), not dumped, not inherited by fork.
* Not promised: anything against root; copies made by the interpreter, OpenSSL or protobuf. Dropping those
  needs the end of the process.

Failures are reported, never raised: a service that does not start helps nobody. They become a warning and a
metric. Linux only (mlock(2), madvise(2), prctl(2)); elsewhere everything is reported as missing.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import resource
import sys
from types import TracebackType
from typing import NoReturn

from strongbox.crypto.errors import WipedError

_PR_GET_DUMPABLE = 3
_PR_SET_DUMPABLE = 4


def harden_process() -> list[str]:
    """No core dumps, not dumpable. The warnings, in words: empty when all went well."""
    return [*_forbid_cores(), *_forbid_tracing()]


def _forbid_cores() -> list[str]:
    try:
        # The hard limit too, so that nothing in this process can raise it again.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (OSError, ValueError) as error:
        return [f"core dumps could not be switched off: {error}"]
    return []


def _forbid_tracing() -> list[str]:
    # Also what stops a core that kernel.core_pattern pipes to a program: RLIMIT_CORE 0 does not (core(5)).
    if not sys.platform.startswith("linux"):
        return ["this system cannot make a process untraceable"]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        return [f"the process could not be made undumpable: {os.strerror(ctypes.get_errno())}"]
    return []


def is_dumpable() -> bool:
    """What the kernel says now (a health check asks)."""
    if not sys.platform.startswith("linux"):
        return True
    return bool(ctypes.CDLL(None).prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0) != 0)


class LockedBytes:
    """Up to 4096 bytes in a page of their own; `locked` says whether the kernel keeps it out of swap."""

    __slots__ = ("_length", "_page", "locked")
    MAX_BYTES = 4096

    def __init__(self, source: bytes | bytearray | memoryview) -> None:
        """Copy `source` in; the caller wipes his own. Raises ValueError when it is too long."""
        if len(source) > self.MAX_BYTES:
            raise ValueError(f"a locked page holds {self.MAX_BYTES} bytes")
        # Private, not the shared mapping that is mmap's default: a shared one is visible as a file.
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        self._page: mmap.mmap | None = mmap.mmap(-1, self.MAX_BYTES, flags=flags)
        # Before the secret goes in: no moment at which the page could be swapped, dumped or forked with it.
        self.locked = _lock(self._page)
        self._length = len(source)
        self._page[: self._length] = bytes(source)

    def view(self) -> memoryview:
        """The bytes themselves, read-only, without a copy: release it at once. Raises WipedError."""
        if self._page is None:
            raise WipedError
        return memoryview(self._page).toreadonly()[: self._length]

    def expose(self) -> bytes:
        """A copy outside the page, which nothing can wipe. Raises WipedError."""
        return bytes(self.view())

    def wipe(self) -> None:
        """Zero the page and give it back. Can be repeated. A view still held reads zeros."""
        if self._page is None:
            return
        page, self._page = self._page, None
        page[:] = bytes(self.MAX_BYTES)
        # Unmapping unlocks. While a view is held that cannot be; then the page goes when the view goes.
        with contextlib.suppress(BufferError):
            page.close()

    def __enter__(self) -> LockedBytes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.wipe()

    def __len__(self) -> int:
        return self._length

    def __repr__(self) -> str:
        return "LockedBytes(…)"

    def __bytes__(self) -> NoReturn:
        raise TypeError("a secret is copied by expose() only")

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a secret is neither pickled nor copied")


def _lock(page: mmap.mmap) -> bool:
    """mlock, and keep out of core dumps and of forked children. True when all three were granted."""
    if not sys.platform.startswith("linux"):
        return False
    anchor = ctypes.c_char.from_buffer(page)
    try:
        # One page, not mlockall: with the usual 8 MiB limit mlockall fails for everybody but root.
        locked = _mlock(ctypes.addressof(anchor), len(page))
    finally:
        del anchor  # an exported buffer would keep the page from being closed
    try:
        page.madvise(mmap.MADV_DONTDUMP)
        page.madvise(mmap.MADV_DONTFORK)
    except OSError:
        return False
    return locked


def _mlock(address: int, length: int) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.mlock(ctypes.c_void_p(address), ctypes.c_size_t(length)) == 0)
