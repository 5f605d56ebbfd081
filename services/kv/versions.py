"""A secret's versions: which are kept, which can be read, what each operation does. Pure.

Rules:
* Versions are numbered from 1 without gaps; the newest `max_versions` are kept, older ones are not found,
  like those that never existed.
* `cas` is the current version's number, 0 when there is no secret; a deleted or destroyed newest version
  still counts. With `cas_required` a write without it is refused.
* A version is deleted (can be undeleted), destroyed (for good) or expired (not found). A destroyed one is
  reported as destroyed even if it has expired, an expired one as expired even if deleted.
* Deleting a deleted or destroyed version, undeleting one that is not deleted, and destroying a destroyed one
  succeed and change nothing: the first time stays. Undeleting a destroyed version is refused. If one of the
  versions is not found, nothing of the request is done.
* No function changes the head it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from strongbox.errors import InvalidInput, NotFound, VersionDeleted, VersionDestroyed, VersionMismatch
from strongbox.storage.v1 import kv_records_pb2 as storage

DEFAULT_MAX_VERSIONS = 10
MAX_MAX_VERSIONS = 100
MAX_NUMBER = 2**31 - 1

Head = storage.SecretHead
Version = storage.StoredVersion


class Settings(NamedTuple):
    """The settings to change; `None` leaves one as it is, an empty `custom` empties it."""

    max_versions: int | None
    cas_required: bool | None
    custom: dict[str, str] | None


class Change(NamedTuple):
    """The new head, and the versions (ascending) whose envelopes are to be deleted."""

    head: Head
    gone: tuple[int, ...] = ()


def max_versions_of(head: Head) -> int:
    """How many versions are kept."""
    return head.max_versions or DEFAULT_MAX_VERSIONS


def written(head: Head | None, cas: int | None, now_ms: int, ttl_s: int | None) -> Change:
    """Add a version. Raises `VersionMismatch`; `InvalidInput` without a required `cas` or a free number."""
    current = head.current_version if head is not None else 0
    if cas is None and head is not None and head.cas_required:
        raise InvalidInput("this secret is written with cas only", current_version=str(current))
    if cas is not None and cas != current:
        raise VersionMismatch(current_version=str(current))
    if current >= MAX_NUMBER:
        raise InvalidInput("this secret has no version numbers left")
    after = _copy(head) if head is not None else Head()
    after.current_version = current + 1
    expires_ms = now_ms + ttl_s * 1000 if ttl_s else 0
    after.versions.append(Version(version=current + 1, created_ms=now_ms, expires_ms=expires_ms))
    return _trimmed(after)


def readable(head: Head, number: int | None, now_ms: int) -> Version:
    """The version asked for, or the newest. Raises `NotFound`, `VersionDeleted`, `VersionDestroyed`."""
    version = _find(head, head.current_version if number is None else number)
    if version.destroyed_ms:
        raise VersionDestroyed(version=str(version.version))
    if version.expires_ms and version.expires_ms <= now_ms:
        raise NotFound("this version has expired", version=str(version.version))
    if version.deleted_ms:
        raise VersionDeleted(version=str(version.version))
    return version


def deleted(head: Head, numbers: Sequence[int], now_ms: int) -> Change:
    """Soft delete. Raises `NotFound`."""

    def delete(version: Version) -> None:
        if not version.deleted_ms and not version.destroyed_ms:
            version.deleted_ms = now_ms

    return Change(_each(head, numbers, delete))


def undeleted(head: Head, numbers: Sequence[int]) -> Change:
    """Take a soft delete back. Raises `NotFound`, `VersionDestroyed`."""

    def undelete(version: Version) -> None:
        if version.destroyed_ms:
            raise VersionDestroyed(version=str(version.version))
        version.deleted_ms = 0

    return Change(_each(head, numbers, undelete))


def destroyed(head: Head, numbers: Sequence[int], now_ms: int) -> Change:
    """Destroy for good; `gone`: those that were not destroyed before. Raises `NotFound`."""
    gone: list[int] = []

    def destroy(version: Version) -> None:
        if not version.destroyed_ms:
            version.destroyed_ms = now_ms
            gone.append(version.version)

    return Change(_each(head, numbers, destroy), tuple(sorted(gone)))


def purged(head: Head, numbers: Sequence[int], destroyed_ms: int, now_ms: int) -> Change:
    """Mark versions destroyed at `destroyed_ms` as purged: no readable revision of etcd holds them any more.

    A secret that was removed and made again has the same version numbers, but other times.
    """
    after = _copy(head)
    for version in after.versions:
        if version.version in numbers and version.destroyed_ms == destroyed_ms:
            version.purged_ms = version.purged_ms or now_ms
    return Change(after)


def configured(head: Head, settings: Settings) -> Change:
    """Change the settings that are given; fewer `max_versions` drop the oldest at once."""
    after = _copy(head)
    if settings.max_versions is not None:
        after.max_versions = settings.max_versions
    if settings.cas_required is not None:
        after.cas_required = settings.cas_required
    if settings.custom is not None:
        after.custom.clear()
        after.custom.update(settings.custom)
    return _trimmed(after)


def stored(head: Head) -> tuple[int, ...]:
    """The versions that have an envelope."""
    return tuple(version.version for version in head.versions if not version.destroyed_ms)


def _find(head: Head, number: int) -> Version:
    for version in head.versions:
        if version.version == number:
            return version
    raise NotFound("there is no such version", version=str(number))


def _each(head: Head, numbers: Sequence[int], act: Callable[[Version], None]) -> Head:
    after = _copy(head)
    for number in numbers:
        act(_find(after, number))
    return after


def _trimmed(head: Head) -> Change:
    """Drop the oldest versions beyond `max_versions`. Changes `head` itself."""
    surplus = max(0, len(head.versions) - max_versions_of(head))
    gone = tuple(version.version for version in head.versions[:surplus] if not version.destroyed_ms)
    del head.versions[:surplus]
    return Change(head, gone)


def _copy(head: Head) -> Head:
    after = Head()
    after.CopyFrom(head)
    return after
