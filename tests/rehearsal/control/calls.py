"""What a request to the API server does."""

from __future__ import annotations

import copy
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.rehearsal.control import deleting, rules
from tests.rehearsal.control.kinds import Kind
from tests.rehearsal.control.merge import json_patch, merge_patch, strategic
from tests.rehearsal.control.store import Object, Refusal, Store, not_found
from tests.rehearsal.control.tokens import Tokens

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass(frozen=True)
class Call:
    """One request, understood."""

    verb: str
    kind: Kind
    namespace: str
    name: str
    part: str  # a subresource, or ""
    query: dict[str, str]
    body: Object
    media: str

    @classmethod
    def parse(
        cls, kinds: tuple[Kind, ...], method: str, path: str, query: dict[str, str], body: Object, media: str
    ) -> Call:
        """Raises Refusal 404."""
        parts = path.strip("/").split("/")
        group = "" if parts[0] == "api" else parts[1] if len(parts) > 1 else "?"
        rest = parts[2:] if parts[0] == "api" else parts[3:]
        namespace = ""
        if len(rest) > 2 and rest[0] == "namespaces":
            namespace, rest = rest[1], rest[2:]
        rest += [""] * (3 - len(rest))
        for kind in kinds:
            if (kind.group, kind.plural) == (group, rest[0]):
                verb = _VERBS.get(method) or ("get" if rest[1] else "list")
                if query.get("watch") in ("true", "1"):
                    verb = "watch"
                return cls(verb, kind, namespace, rest[1], rest[2], query, body, media)
        raise Refusal(404, "NotFound", "the server could not find the requested resource")

    def authorize(self, tokens: Tokens, caller: str) -> None:
        """Raises Refusal 403."""
        resource = f"{self.kind.plural}/{self.part}" if self.part else self.kind.plural
        tokens.require(caller, self.verb, self.kind.group, resource, self.namespace, self.name)


class Calls:
    """Everything that can be asked, on one store. `logs` has a file for each container."""

    def __init__(self, store: Store, tokens: Tokens, kinds: tuple[Kind, ...], logs: Path) -> None:
        self.store, self.tokens, self.kinds, self._logs = store, tokens, kinds, logs

    def do(self, call: Call) -> tuple[int, Object | bytes]:
        """HTTP code and answer. Raises Refusal."""
        if call.part:
            return self._part(call)
        plural = call.kind.plural
        match call.verb:
            case "get":
                return 200, self._whole(call.kind, self.store.get(plural, call.namespace, call.name))
            case "list":
                return 200, self._list(call)
            case "create" if plural == "tokenreviews":
                return 201, self.tokens.review(call.body)
            case "create":
                return 201, self._create(call)
            case "update":
                return 200, self._put(call, call.body)
            case "patch":
                old = self.store.get(plural, call.namespace, call.name)
                return 200, self._put(call, _patched(old, call))
            case "delete":
                return 200, self._delete(call)
        raise Refusal(405, "MethodNotAllowed", call.verb)

    def watch(self, call: Call) -> Iterator[tuple[str, Object]]:
        """(type, object) as they come, for as long as the client wants."""
        start = int(call.query.get("resourceVersion") or 0)
        if start == 0:
            listed = self._list(call)
            start = int(listed["metadata"]["resourceVersion"])
            yield from (("ADDED", self._whole(call.kind, one)) for one in listed["items"])
            if call.query.get("sendInitialEvents") == "true":
                told = {"k8s.io/initial-events-end": "true"}
                metadata = {"resourceVersion": str(start), "annotations": told}
                yield "BOOKMARK", self._whole(call.kind, {"metadata": metadata})
        seconds = float(call.query.get("timeoutSeconds") or 300)
        for event in self.store.since(start, call.kind.plural, seconds):
            if call.namespace in ("", event.key[1]) and _fits(event.value, call.query):
                yield event.kind, self._whole(call.kind, event.value)

    def _list(self, call: Call) -> Object:
        with self.store.changed:
            found = self.store.list(call.kind.plural, call.namespace)
            version = str(self.store.version)
        return {
            "kind": f"{call.kind.kind}List", "apiVersion": call.kind.group_version,
            "metadata": {"resourceVersion": version},
            "items": [self._whole(call.kind, one) for one in found if _fits(one, call.query)],
        }  # fmt: skip

    def _create(self, call: Call) -> Object:
        value = self._named(call, call.body)
        value = rules.defaulted(value)
        rules.check(value, None)
        if call.query.get("dryRun"):
            return value
        return self.store.create(call.kind.plural, value)

    def _put(self, call: Call, body: Object) -> Object:
        value = rules.defaulted(self._named(call, body))
        old = self.store.get(call.kind.plural, call.namespace, call.name)
        if old["kind"] not in ("Secret", "ConfigMap") and "status" in old:
            value["status"] = old["status"]
        rules.check(value, old)
        if call.query.get("dryRun"):
            return value
        return self.store.replace(call.kind.plural, value)

    def _named(self, call: Call, body: Object) -> Object:
        value = copy.deepcopy(body)
        metadata = value.setdefault("metadata", {})
        if call.kind.namespaced:
            if self.store.find("namespaces", "", call.namespace) is None:
                raise not_found("namespaces", call.namespace)
            metadata["namespace"] = call.namespace
        if "name" not in metadata and "generateName" in metadata:
            metadata["name"] = metadata["generateName"] + secrets.token_hex(3)
        if call.name and metadata.get("name") != call.name:
            raise Refusal(400, "BadRequest", "the name of the object does not match the name on the URL")
        return self._whole(call.kind, value)

    @staticmethod
    def _whole(kind: Kind, value: Object) -> Object:
        return {**value, "kind": kind.kind, "apiVersion": kind.group_version}

    def _delete(self, call: Call) -> Object:
        if not call.name:
            raise Refusal(405, "MethodNotAllowed", "no collections are deleted here")
        if call.query.get("dryRun") or call.body.get("dryRun"):
            return self.store.get(call.kind.plural, call.namespace, call.name)
        grace = call.body.get("gracePeriodSeconds")
        uid = (call.body.get("preconditions") or {}).get("uid")
        return deleting.delete(self.store, (call.kind.plural, call.namespace, call.name), grace, uid)

    def _part(self, call: Call) -> tuple[int, Object | bytes]:
        match call.kind.plural, call.part, call.verb:
            case "pods", "eviction", "create":
                deleting.evict(self.store, call.namespace, call.name)
                return 201, {"kind": "Status", "apiVersion": "v1", "status": "Success"}
            case "pods", "log", "get":
                self.store.get("pods", call.namespace, call.name)
                return 200, b"".join(
                    file.read_bytes() for file in sorted(self._logs.glob(f"{call.name}.*.log"))
                )
            case "serviceaccounts", "token", "create":
                spec = call.body.get("spec", {})
                seconds = float(spec.get("expirationSeconds") or 3600)
                token = self.tokens.issue(call.namespace, call.name, seconds, spec.get("audiences") or [])
                return 201, {**call.body, "status": {"token": token}}
            case _, "scale", "get":
                return 200, _scale(self.store.get(call.kind.plural, call.namespace, call.name))
            case _, "scale", "patch" | "update":
                replicas = call.body["spec"]["replicas"]
                old = self.store.get(call.kind.plural, call.namespace, call.name)
                old["spec"]["replicas"] = replicas
                return 200, _scale(self.store.replace(call.kind.plural, old))
        raise Refusal(404, "NotFound", f"{call.kind.plural}/{call.part} is not known here")


def _scale(value: Object) -> Object:
    return {
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": value["metadata"],
        "spec": {"replicas": value["spec"]["replicas"]},
    }  # fmt: skip


def _patched(old: Object, call: Call) -> Object:
    match call.media:
        case "application/strategic-merge-patch+json":
            return strategic(old, call.body)
        case "application/merge-patch+json":
            merged: Object = merge_patch(old, call.body)
            return merged
        case "application/json-patch+json":
            stepped: Object = json_patch(old, call.body["steps"])
            return stepped
    raise Refusal(415, "UnsupportedMediaType", f"{call.media} is not known here")


def _fits(value: Object, query: dict[str, str]) -> bool:
    labels = value["metadata"].get("labels") or {}
    for term in filter(None, query.get("labelSelector", "").split(",")):
        name, _, wanted = term.replace("==", "=").partition("=")
        if (labels.get(name.rstrip("!")) == wanted) is name.endswith("!"):
            return False
    for term in filter(None, query.get("fieldSelector", "").split(",")):
        path, _, wanted = term.replace("==", "=").partition("=")
        found: Any = value
        for part in path.split("."):
            found = (found or {}).get(part)
        if (found or "") != wanted:
            return False
    return True
