"""Names below a directory, a page at a time: which range to read next, what to show of its rows. Pure.

Rules:
* The listing needs `list` on the directory; each name is shown only if the caller has `list` on it as well (a
  directory's name ends in a slash, in the policy path too). A name that no rule covers is not shown.
* A listing of one level skips what is below its directories: after a directory's name the next read begins
  behind everything in it.
* A page takes at most `MAX_FETCHES` reads and half a second, so a page may hold fewer names than asked for,
  or none, without being the last: only an empty page token ends a listing. The pages are not one snapshot.
* A recursive listing shows what a walk from directory to directory would: it needs `list` on each
  directory on the way to a name as well, so a `deny` of a directory hides all that is below it.
* A page token says where the next page begins. It is encrypted (strongbox.store.paging), since a page may end
  at a name that is not shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache

from strongbox.crypto.record_keys import RecordKeys
from strongbox.paths import DirectoryPath
from strongbox.store import keyspace, paging

MAX_FETCHES = 16


class Listing:
    """One page under way. Raises `InvalidInput` for a page token that is not valid."""

    def __init__(
        self, directory: DirectoryPath, size: int, token: str, keys: RecordKeys, *, recursive: bool
    ) -> None:
        self.names: list[str] = []
        self.fetches = 0
        self._prefix = keyspace.head(directory.prefix)
        self._shown = directory.policy_path
        self._size, self._recursive = size, recursive
        self._keys = keys
        self._position = paging.position_of(keys, self._prefix, token)
        self._ended = False

    @property
    def is_over(self) -> bool:
        """Whether the page is full, the listing at its end, or `MAX_FETCHES` reached."""
        return self._ended or len(self.names) >= self._size or self.fetches >= MAX_FETCHES

    @property
    def token(self) -> str:
        """Where the next page begins; empty when there is none."""
        return "" if self._ended else paging.token_of(self._keys, self._prefix, self._position)

    def wanted(self) -> tuple[bytes, bytes, int]:
        """`[start, end)` and limit of the next read: one name more than fits shows whether there is more."""
        end = keyspace.prefix_end(self._prefix)
        return self._prefix + self._position, end, self._size - len(self.names) + 1

    def take(self, keys: Iterable[bytes], allows: Callable[[str, str], bool]) -> None:
        """Take over what that read found; `allows(capability, policy path)` answers for the caller."""
        limit, found = self._size - len(self.names) + 1, 0
        may_list = cache(lambda name: allows("list", self._shown + name))
        self.fetches += 1
        for key in keys:
            found += 1
            below = key.removeprefix(self._prefix)
            if below < self._position:
                continue  # inside a directory that was named already
            if len(self.names) >= self._size:
                return
            name = self._step(below)
            if all(map(may_list, _way_to(name))):
                self.names.append(name)
        self._ended = found < limit

    def _step(self, below: bytes) -> str:
        """The name to show for this key; moves the position behind all keys that the name stands for."""
        name, slash, _ = below.partition(b"/")
        if self._recursive or not slash:
            self._position = below + b"\0"
            return below.decode()
        self._position = keyspace.prefix_end(name + slash)
        return (name + slash).decode()


def _way_to(name: str) -> Iterator[str]:
    """The directories on the way to a name, and the name: `a/`, `a/b/`, `a/b/c` of `a/b/c`."""
    place = name.find("/") + 1
    while 0 < place < len(name):
        yield name[:place]
        place = name.find("/", place) + 1
    yield name
