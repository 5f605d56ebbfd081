"""A valid request for every public RPC, in both forms: fields for gRPC, and the REST call made from them."""

from __future__ import annotations

import json
import re
import urllib.parse
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format

from tests.support.surface import Rpc

_ACCESSOR = "A" * 24
_VARIABLE = re.compile(r"\{(\w+)(=\*\*)?\}")

FIELDS: dict[str, dict[str, Any]] = {
    "Initialize": {"shares": 3, "threshold": 2},
    "Unseal": {"share": "AQE" + "A" * 43},
    "Seal": {},
    "GetSealStatus": {},
    "GetHealth": {},
    "GetReady": {},
    "WriteSecret": {"path": "samples/one", "value": "v"},
    "ReadSecret": {"path": "samples/one"},
    "DeleteSecretVersions": {"path": "samples/one", "versions": [1]},
    "UndeleteSecretVersions": {"path": "samples/one", "versions": [1]},
    "DestroySecretVersions": {"path": "samples/one", "versions": [1]},
    "ReadSecretMetadata": {"path": "samples/one"},
    "UpdateSecretMetadata": {"path": "samples/one", "max_versions": 5},
    "DeleteSecretMetadata": {"path": "samples/one"},
    "ListSecrets": {"prefix": "samples"},
    "BatchReadSecrets": {"requests": [{"path": "samples/one"}]},
    "WatchSecrets": {"prefix": "samples"},
    "CreateToken": {"policies": ["default"], "ttl": "60s"},
    "LookupSelf": {},
    "RenewSelf": {},
    "RevokeSelf": {},
    "LookupToken": {"accessor": _ACCESSOR},
    "RenewToken": {"accessor": _ACCESSOR},
    "RevokeToken": {"accessor": _ACCESSOR},
    "ListTokens": {},
    "WritePolicy": {"name": "sample", "rules": [{"path": "secret/samples/*", "capabilities": ["read"]}]},
    "ReadPolicy": {"name": "sample"},
    "DeletePolicy": {"name": "sample"},
    "ListPolicies": {},
    "GetLease": {"id": "0" * 32},
    "ListLeases": {"path": "secret/samples/one"},
    "RevokeLease": {"id": "0" * 32},
    "ListEntries": {},
    "ExportKey": {},
}


@dataclass(frozen=True, slots=True)
class RestCall:
    """What goes over the wire."""

    method: str
    target: str
    body: bytes | None


def rest_call(rpc: Rpc, fields: dict[str, Any]) -> RestCall:
    """The same request over REST: path variables, then a body, or a query where there is none."""
    method, template = rpc.bindings[0]
    rest = dict(fields)

    def fill(match: re.Match[str]) -> str:
        safe = "/" if match[2] else ""
        return urllib.parse.quote(str(rest.pop(match[1], "")), safe=safe)

    target = _VARIABLE.sub(fill, template)
    if method in ("GET", "DELETE"):
        query = urllib.parse.urlencode(rest, doseq=True)
        return RestCall(method, f"{target}?{query}" if query else target, None)
    return RestCall(method, target, json.dumps(rest).encode())


def message_of(rpc: Rpc, fields: dict[str, Any]) -> Any:
    """The request message; JSON values become google.protobuf.Value and Struct."""
    return json_format.ParseDict(fields, rpc.request())
