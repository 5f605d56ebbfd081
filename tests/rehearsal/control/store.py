"""Every object of the cluster, with resource versions, and what watches are told of."""

from __future__ import annotations

import copy
import datetime as dt
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

Object = dict[str, Any]
Key = tuple[str, str, str]  # plural, namespace ("" for what has none), name

# Their changes count in no generation.
_WITHOUT_GENERATION = {"secrets", "configmaps", "nodes", "namespaces", "events", "serviceaccounts"}


class Refusal(Exception):
    """What the API server answers instead: HTTP code, Kubernetes' reason, words, and fields at fault."""

    def __init__(self, code: int, reason: str, message: str, fields: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.code, self.reason, self.fields = code, reason, fields


def not_found(plural: str, name: str) -> Refusal:
    return Refusal(404, "NotFound", f'{plural} "{name}" not found')


def conflict(plural: str, name: str) -> Refusal:
    return Refusal(
        409, "Conflict", f'Operation cannot be fulfilled on {plural} "{name}": the object has been modified'
    )


@dataclass(frozen=True)
class Event:
    """One change, for watches."""

    version: int
    kind: str  # ADDED, MODIFIED, DELETED
    key: Key
    value: Object


def now() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class Store:
    """Objects by key. What is given out is a copy; what is put is kept as it is."""

    version: int = 100
    objects: dict[Key, Object] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=lambda: threading.Condition(threading.RLock()))

    def get(self, plural: str, namespace: str, name: str) -> Object:
        """Raises Refusal 404."""
        with self.changed:
            found = self.objects.get((plural, namespace, name))
            if found is None:
                raise not_found(plural, name)
            return copy.deepcopy(found)

    def find(self, plural: str, namespace: str, name: str) -> Object | None:
        with self.changed:
            return copy.deepcopy(self.objects.get((plural, namespace, name)))

    def list(self, plural: str, namespace: str = "") -> list[Object]:
        """Of one namespace, or of all."""
        with self.changed:
            return [
                copy.deepcopy(one)
                for (kind, place, _), one in sorted(self.objects.items())
                if kind == plural and namespace in ("", place)
            ]

    def create(self, plural: str, value: Object) -> Object:
        """Raises Refusal 409 when it is there."""
        with self.changed:
            metadata = value["metadata"]
            key = (plural, metadata.get("namespace", ""), metadata["name"])
            if key in self.objects:
                raise Refusal(409, "AlreadyExists", f'{plural} "{metadata["name"]}" already exists')
            value = copy.deepcopy(value)
            value["metadata"] |= {"uid": str(uuid.uuid4()), "creationTimestamp": now()}
            if plural not in _WITHOUT_GENERATION:
                value["metadata"]["generation"] = 1
            return self._put("ADDED", key, value)

    def replace(self, plural: str, value: Object, *, status: bool = False) -> Object:
        """Put a changed object; with a resourceVersion of its own only over that. Raises Refusal 404, 409."""
        with self.changed:
            metadata = value["metadata"]
            key = (plural, metadata.get("namespace", ""), metadata["name"])
            old = self.objects.get(key)
            if old is None:
                raise not_found(plural, metadata["name"])
            known = old["metadata"]
            if metadata.get("resourceVersion", known["resourceVersion"]) != known["resourceVersion"]:
                raise conflict(plural, metadata["name"])
            if metadata.get("uid", known["uid"]) != known["uid"]:
                raise conflict(plural, metadata["name"])
            value = copy.deepcopy(value)
            for kept in ("uid", "creationTimestamp", "generation", "resourceVersion", "deletionTimestamp"):
                if kept in known and not (kept == "deletionTimestamp" and kept in metadata):
                    value["metadata"][kept] = known[kept]
            if value == old:
                return copy.deepcopy(old)
            if not status and "generation" in known and value.get("spec") != old.get("spec"):
                value["metadata"]["generation"] = known["generation"] + 1
            return self._put("MODIFIED", key, value)

    def change(self, key: Key, change: Callable[[Object], None]) -> Object | None:
        """Change it in place, as a controller does (status and the like); None: it is gone."""
        with self.changed:
            old = self.objects.get(key)
            if old is None:
                return None
            value = copy.deepcopy(old)
            change(value)
            return old if value == old else self._put("MODIFIED", key, value)

    def remove(self, plural: str, namespace: str, name: str) -> Object | None:
        """Take it out, and whatever it owns."""
        with self.changed:
            value = self.objects.pop((plural, namespace, name), None)
            if value is None:
                return None
            self.version += 1
            self.events.append(Event(self.version, "DELETED", (plural, namespace, name), value))
            self.changed.notify_all()
            return value

    def since(self, version: int, plural: str, timeout: float) -> Iterator[Event]:
        """What has changed after `version`, waiting up to `timeout` seconds."""
        ends = time.monotonic() + timeout
        while (left := ends - time.monotonic()) > 0:
            with self.changed:
                found = [e for e in self.events if e.version > version and e.key[0] == plural]
                if not found:
                    self.changed.wait(min(left, 1.0))
            for event in found:
                version = event.version
                yield event

    def news(self, version: int, timeout: float) -> int:
        """Wait until something is newer than `version`, or so many seconds; the version now."""
        with self.changed:
            if self.version == version:
                self.changed.wait(timeout)
            return self.version

    def _put(self, kind: str, key: Key, value: Object) -> Object:
        self.version += 1
        value["metadata"]["resourceVersion"] = str(self.version)
        self.objects[key] = value
        self.events.append(Event(self.version, kind, key, value))
        self.changed.notify_all()
        return copy.deepcopy(value)
