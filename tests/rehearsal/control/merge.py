"""What `kubectl apply` sends: strategic merge patches, and the plain ones of RFC 7386."""

from __future__ import annotations

import copy
from typing import Any

# By which field the parts of a list are told apart; lists that are not named are replaced whole.
_KEYS: dict[str, tuple[str, ...]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "volumes": ("name",),
    "env": ("name",),
    "volumeMounts": ("mountPath",),
    "ports": ("containerPort", "port"),
    "imagePullSecrets": ("name",),
    "ownerReferences": ("uid",),
    "topologySpreadConstraints": ("topologyKey",),
    "conditions": ("type",),
    "taints": ("key",),
    "hostAliases": ("ip",),
}
# Fields of which only what the patch names stays: Kubernetes calls them unions.
_UNION = "$retainKeys"


def merge_patch(old: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(old) if isinstance(old, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged


def json_patch(old: Any, steps: Any) -> Any:
    """RFC 6902, of objects only: what `kubectl rollout undo` sends. Raises KeyError."""
    merged = copy.deepcopy(old)
    for step in steps:
        *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in step["path"].split("/")[1:]]
        place = merged
        for part in parents:
            place = place[part]
        if step["op"] == "remove":
            del place[last]
        else:
            place[last] = step["value"]
    return merged


def strategic(old: Any, patch: dict[str, Any]) -> dict[str, Any]:
    """`old` with `patch` in it, as the API server merges it."""
    if patch.get("$patch") == "replace":
        return {name: value for name, value in patch.items() if name != "$patch"}
    merged = copy.deepcopy(old) if isinstance(old, dict) else {}
    if _UNION in patch:
        merged = {name: value for name, value in merged.items() if name in patch[_UNION]}
    for name, value in patch.items():
        if name.startswith("$deleteFromPrimitiveList/"):
            field = name.partition("/")[2]
            merged[field] = [one for one in merged.get(field, ()) if one not in value]
        elif name.startswith("$"):
            continue
        elif value is None:
            merged.pop(name, None)
        elif isinstance(value, dict):
            merged[name] = strategic(merged.get(name), value)
        elif isinstance(value, list) and name in _KEYS and _are_objects(value):
            order = patch.get(f"$setElementOrder/{name}")
            merged[name] = _lists(merged.get(name) or [], value, _KEYS[name], order)
        else:
            merged[name] = value
    return merged


def _are_objects(values: list[Any]) -> bool:
    return all(isinstance(value, dict) for value in values)


def _lists(
    old: list[dict[str, Any]], patch: list[dict[str, Any]], keys: tuple[str, ...], order: Any
) -> list[dict[str, Any]]:
    if any(one.get("$patch") == "replace" for one in patch):
        return [one for one in patch if "$patch" not in one]
    by_key = {_name(one, keys): one for one in old}
    for one in patch:
        name = _name(one, keys)
        if one.get("$patch") == "delete":
            by_key.pop(name, None)
        else:
            by_key[name] = strategic(by_key.get(name), one)
    if order:
        wanted = [_name(one, keys) for one in order]
        last = len(wanted)
        place = {name: wanted.index(name) if name in wanted else last for name in by_key}
        return [by_key[name] for name in sorted(by_key, key=lambda name: place[name])]
    return [*by_key.values()]


def _name(one: dict[str, Any], keys: tuple[str, ...]) -> Any:
    return next((one[key] for key in keys if key in one), None)
