"""Which paths two patterns have in common. Pure; patterns as in `policy_engine`.

Compared segment by segment: a word stands for itself, `+` for one segment that is not empty, and a last
segment that ends in `*` for everything that begins with what is before the `*`, further segments included.
"""

from __future__ import annotations


def covers(wide: str, narrow: str) -> bool:
    """Whether every path that `narrow` matches is matched by `wide` as well."""
    outer, inner = wide.split("/"), narrow.split("/")
    for place, segment in enumerate(outer):
        if place == len(inner):
            return False
        other = inner[place]
        if segment.endswith("*"):
            # `+` stands for any first letter, so it is inside `*` alone, and never inside `a*`.
            return segment == "*" or (other != "+" and other.startswith(segment[:-1]))
        if other.endswith("*") or (segment != other and (segment != "+" or not other)):
            return False
    return len(outer) == len(inner)


def overlap(one: str, two: str) -> bool:
    """Whether some path is matched by both."""
    first, second = one.split("/"), two.split("/")
    for mine, other in zip(first, second, strict=False):
        if mine.endswith("*") or other.endswith("*"):
            return _begins_alike(mine, other)
        if mine != other and not _meets(mine, other) and not _meets(other, mine):
            return False
    return len(first) == len(second)


def _meets(wildcard: str, segment: str) -> bool:
    return wildcard == "+" and bool(segment)


def _begins_alike(one: str, two: str) -> bool:
    """Whether some segment fits both; at least one ends in `*`, so that what follows fits as well."""
    if "+" in (one, two):
        return True
    starts = one.removesuffix("*"), two.removesuffix("*")
    if one.endswith("*") and two.endswith("*"):
        return starts[0].startswith(starts[1]) or starts[1].startswith(starts[0])
    whole, start = (starts[1], starts[0]) if one.endswith("*") else starts
    return whole.startswith(start)
