"""The Merkle tree over the log (RFC 6962 §2.1, RFC 9162 §2.1): hashes, proofs and their verification. No I/O.

    leaf = SHA-256(0x00 ‖ line)          the entry's line as it stands in the file, newline included
    node = SHA-256(0x01 ‖ left ‖ right)

The two prefixes keep a leaf from being passed off as a node (second preimages); an empty tree's root is
SHA-256 of nothing. A tree of n leaves is made of complete subtrees, one for each bit of n. All their nodes
are kept in one row, in the order in which they become complete ("stored" order, that of Go's sumdb/tlog): 2n
minus the bits of n of them, so a leaf adds two on average and nothing is ever rewritten. Proofs read O(log²
n).
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from hashlib import sha256

HASH_BYTES = 32
EMPTY = sha256(b"").digest()
Read = Callable[[int], bytes]  # the stored hash at a place in the row


def leaf_hash(line: bytes) -> bytes:
    """The leaf of one entry; `line` with its newline."""
    return sha256(b"\0" + line).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of the node over two others."""
    return sha256(b"\1" + left + right).digest()


def stored_count(size: int) -> int:
    """How many hashes the row has for `size` leaves."""
    return 2 * size - size.bit_count()


def stored_place(level: int, number: int) -> int:
    """Where node `number` of `level` (0: leaves) stands in the row."""
    # It is complete with its last leaf, and comes `level` places after that leaf.
    return stored_count(((number + 1) << level) - 1) + level


class Frontier:
    """The complete subtrees of a growing tree: enough to add leaves and give the root. 32 bytes a level."""

    __slots__ = ("_peaks", "size")

    def __init__(self, size: int = 0, peaks: Sequence[bytes] = ()) -> None:
        """`peaks`: the subtrees' hashes, the largest first, one for each bit of `size`."""
        self.size = size
        self._peaks = list(peaks)

    @classmethod
    def of(cls, size: int, read: Read) -> Frontier:
        """The frontier of the first `size` leaves of a row."""
        return cls(size, list(map(read, peak_places(size))))

    @property
    def peaks(self) -> tuple[bytes, ...]:
        """The subtrees' hashes, the largest first."""
        return tuple(self._peaks)

    def add(self, leaf: bytes) -> list[bytes]:
        """Add one leaf; the hashes that it adds to the row."""
        new = [leaf]
        number = self.size
        while number & 1:
            leaf = node_hash(self._peaks.pop(), leaf)
            new.append(leaf)
            number >>= 1
        self._peaks.append(leaf)
        self.size += 1
        return new

    def root(self) -> bytes:
        """The tree's root."""
        if not self._peaks:
            return EMPTY
        root = self._peaks[-1]
        for peak in reversed(self._peaks[:-1]):
            root = node_hash(peak, root)
        return root


def peak_places(size: int) -> list[int]:
    """Where the frontier of the first `size` leaves stands in the row, the largest subtree first."""
    places, start = [], 0
    for level in reversed(range(size.bit_length())):
        if size >> level & 1:
            places.append(stored_place(level, start >> level))
            start += 1 << level
    return places


def root_of(size: int, read: Read) -> bytes:
    """The root over the first `size` leaves of a row."""
    return Frontier.of(size, read).root()


def prove_inclusion(index: int, size: int, read: Read) -> list[bytes]:
    """PATH(index, D[size]) of RFC 6962 §2.1.1. Raises ValueError unless 0 ≤ index < size."""
    if not 0 <= index < size:
        raise ValueError("there is no such leaf in such a tree")
    path, low, high = [], 0, size
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            path.append(_subtree(middle, high, read))
            high = middle
        else:
            path.append(_subtree(low, middle, read))
            low = middle
    return path[::-1]


def prove_consistency(old: int, size: int, read: Read) -> list[bytes]:
    """PROOF(old, D[size]) of RFC 6962 §2.1.2; empty for 0 and `size`. ValueError unless 0 ≤ old ≤ size."""
    if not 0 <= old <= size:
        raise ValueError("the older tree is not the larger one")
    if old in (0, size):
        return []
    path, low, high, whole = [], 0, size, True
    while old < high:
        middle = low + _split(high - low)
        if old <= middle:
            path.append(_subtree(middle, high, read))
            high = middle
        else:
            path.append(_subtree(low, middle, read))
            low, whole = middle, False
    return [*([] if whole else [_subtree(low, high, read)]), *path[::-1]]


def is_included(index: int, size: int, leaf: bytes, path: Sequence[bytes], root: bytes) -> bool:
    """Whether `path` leads from `leaf` at `index` to the `root` of `size` leaves (RFC 9162 §2.1.3.2)."""
    if not 0 <= index < size:
        return False
    number, last, found = index, size - 1, leaf
    for beside in path:
        if last == 0:
            return False
        if number & 1 or number == last:
            found = node_hash(beside, found)
            while not number & 1 and number:
                number, last = number >> 1, last >> 1
        else:
            found = node_hash(found, beside)
        number, last = number >> 1, last >> 1
    return last == 0 and hmac.compare_digest(found, root)


def is_consistent(old: int, size: int, old_root: bytes, root: bytes, path: Sequence[bytes]) -> bool:
    """Whether `path` shows that the tree of `old` leaves is the beginning of this one (RFC 9162 §2.1.4.2)."""
    if old == size:
        return not path and hmac.compare_digest(old_root, root)
    if old == 0:  # every log begins with nothing
        return not path and hmac.compare_digest(old_root, EMPTY)
    if not 0 < old < size or not path:
        return False
    # A complete older tree is itself the first node of the path.
    nodes = [old_root, *path] if old & (old - 1) == 0 else list(path)
    number, last = old - 1, size - 1
    while number & 1:
        number, last = number >> 1, last >> 1
    before = after = nodes[0]
    for beside in nodes[1:]:
        if last == 0:
            return False
        if number & 1 or number == last:
            before, after = node_hash(beside, before), node_hash(beside, after)
            while not number & 1 and number:
                number, last = number >> 1, last >> 1
        else:
            after = node_hash(after, beside)
        number, last = number >> 1, last >> 1
    return last == 0 and hmac.compare_digest(before, old_root) and hmac.compare_digest(after, root)


def _split(count: int) -> int:
    """The largest power of two below `count` (2 or more)."""
    return 1 << (count - 1).bit_length() - 1


def _subtree(low: int, high: int, read: Read) -> bytes:
    """The hash over leaves [low, high), which stand as a subtree in some tree."""
    count = high - low
    if count & (count - 1) == 0 and low % count == 0:
        level = count.bit_length() - 1
        return read(stored_place(level, low >> level))
    middle = low + _split(count)
    return node_hash(_subtree(low, middle, read), _subtree(middle, high, read))
