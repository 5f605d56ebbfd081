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
# Somebody's authority, valid until 2126; its key was thrown away.
AUTHORITY = """-----BEGIN CERTIFICATE-----
MIIBOTCB4KADAgECAgEBMAoGCCqGSM49BAMCMBsxGTAXBgNVBAMMEHNhbXBsZSBh
dXRob3JpdHkwIBcNMjYwMTAxMDAwMDAwWhgPMjEyNjAxMDEwMDAwMDBaMBsxGTAX
BgNVBAMMEHNhbXBsZSBhdXRob3JpdHkwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC
AATV5eNgci2EQ/Y2v1amCmXqPy01vDcNKYe1hMFOrTwkxT7fezyKdsOfTZmW4GBo
41zwbvN0+09yE0VtgNmY4GjDoxMwETAPBgNVHRMBAf8EBTADAQH/MAoGCCqGSM49
BAMCA0gAMEUCIEk17xxu+SwQDRWn+VfEHvPa0TRwjMzz+dpb7E+Hcb8YAiEA8xjy
UNVaPswDxQylpB/V7daNkevNDuS2Zy11UyRbn1I=
-----END CERTIFICATE-----
"""
_VARIABLE = re.compile(r"\{(\w+)(=\*\*)?\}")

FIELDS: dict[str, dict[str, Any]] = {
    "Initialize": {"shares": 3, "threshold": 2},
    "Unseal": {"share": "AQE" + "A" * 43},
    "Seal": {},
    "RotateKeys": {},
    "GetKeyStatus": {},
    "StartRekey": {"share": "AQE" + "A" * 43, "shares": 3, "threshold": 2},
    "UpdateRekey": {"nonce": "n" * 32, "share": "AQE" + "A" * 43},
    "VerifyRekey": {"nonce": "n" * 32, "share": "AQE" + "A" * 43},
    "CancelRekey": {"nonce": "n" * 32},
    "StartGenerateRoot": {"share": "AQE" + "A" * 43},
    "UpdateGenerateRoot": {"nonce": "n" * 32, "share": "AQE" + "A" * 43},
    "CancelGenerateRoot": {"nonce": "n" * 32},
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
    "ExplainAccess": {"policies": ["sample"], "path": "secret/samples/one", "capability": "read"},
    "WriteUser": {"name": "sample", "password": "a sample password", "policies": ["default"]},
    "ReadUser": {"name": "sample"},
    "DeleteUser": {"name": "sample"},
    "ListUsers": {},
    "LoginUser": {"name": "sample", "password": "a sample password"},
    "WriteAppRole": {"name": "sample", "policies": ["default"]},
    "ReadAppRole": {"name": "sample"},
    "DeleteAppRole": {"name": "sample"},
    "ListAppRoles": {},
    "CreateSecretId": {"name": "sample"},
    "RevokeSecretId": {"name": "sample", "accessor": _ACCESSOR},
    "LoginAppRole": {"role_id": "0" * 8 + "-0000" * 4 + "0" * 8, "secret_id": "sbs." + "A" * 43},
    "WriteKubernetesConfig": {"host": "https://127.0.0.1:1", "ca_cert": AUTHORITY},
    "ReadKubernetesConfig": {},
    "WriteKubernetesRole": {
        "name": "sample",
        "policies": ["default"],
        "bound_service_account_names": ["app"],
        "bound_service_account_namespaces": ["default"],
    },
    "ReadKubernetesRole": {"name": "sample"},
    "DeleteKubernetesRole": {"name": "sample"},
    "ListKubernetesRoles": {},
    "LoginKubernetes": {"role": "sample", "jwt": "e30.e30.e30"},
    "GetLease": {"id": "0" * 32},
    "ListLeases": {"path": "secret/samples/one"},
    "RevokeLease": {"id": "0" * 32},
    "RenewLease": {"id": "0" * 32, "increment": "60s"},
    "RevokeLeasePrefix": {"prefix": "secret/samples/"},
    "IssueCredential": {"role": "sample"},
    "WritePostgresConnection": {
        "name": "sample",
        "dsn": "postgresql://127.0.0.1:1/postgres",
        "username": "u",
        "password": "p",
    },
    "ReadPostgresConnection": {"name": "sample"},
    "DeletePostgresConnection": {"name": "sample"},
    "ListPostgresConnections": {},
    "RotatePostgresRoot": {"name": "sample"},
    "InspectPostgresConnection": {"name": "sample"},
    "WritePostgresRole": {"name": "sample", "connection": "sample", "template_role": "t"},
    "ReadPostgresRole": {"name": "sample"},
    "DeletePostgresRole": {"name": "sample"},
    "ListPostgresRoles": {},
    "ListEntries": {},
    "ExportKey": {},
    "FollowEntries": {"from_index": 0},
    "GetCheckpoint": {},
    "GetProof": {"index": 0},
    "GetPublicKey": {},
    "RotateAuditKey": {},
    "ArchiveEntries": {"before_index": 0},
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
