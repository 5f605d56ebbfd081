"""Which filters are refused: one that no entry can ever match is a mistake.

An auditor reads an empty page as "nothing happened"; so a misspelt operation must not give one.
"""

from __future__ import annotations

from difflib import get_close_matches

from google.protobuf.descriptor import FileDescriptor

from services.audit.following.outbox_reader import UNREADABLE
from services.audit.log.query import Fields
from strongbox.audit.v1 import audit_service_pb2
from strongbox.auth.v1 import auth_service_pb2
from strongbox.errors import InvalidInput
from strongbox.kv.v1 import kv_service_pb2
from strongbox.lease.v1 import lease_service_pb2
from strongbox.seal.v1 import seal_service_pb2

OUTCOMES = ("ok", "refused")
# Records of duties, and steps of a call that are recorded under a name of their own.
OWN = frozenset(
    {
        "BeginPostgresRotation", "CloseLeaseOfVanishedRole", "CountUnauthenticated", "DropOrphanRole",
        "EndCredential", "MakeKeyShares", "PeerUnseal", "PrepareCredential", "ResetUnseal", "Unsealed",
        "UseKeyTerm", UNREADABLE,
    }
)  # fmt: skip


def _rpcs(file: FileDescriptor) -> set[str]:
    return {method.name for service in file.services_by_name.values() for method in service.methods}


OPS = OWN.union(
    *(
        _rpcs(module.DESCRIPTOR)
        for module in (
            audit_service_pb2, auth_service_pb2, kv_service_pb2, lease_service_pb2, seal_service_pb2
        )
    )
)  # fmt: skip


def require_possible(asked: Fields) -> None:
    """Raise InvalidInput for a filter that no entry can match."""
    if asked.outcome and asked.outcome not in OUTCOMES:
        raise InvalidInput("outcome is ok or refused")
    if asked.op and asked.op not in OPS:
        by_fold = {op.casefold(): op for op in sorted(OPS)}
        close = get_close_matches(asked.op[:64].casefold(), by_fold, 1)
        hint = f"; did you mean {by_fold[close[0]]}?" if close else ""
        raise InvalidInput(f"op names no operation that is recorded{hint}")
    if asked.path.startswith("/") or asked.path_prefix.startswith("/"):
        raise InvalidInput("a policy path does not begin with a slash: secret/app/db, auth/tokens")
