"""The auth service: tokens, policies, logins, and the duty that tidies them. Only assembles."""

from __future__ import annotations

from services.auth.logins.reviewer_token import OwnReviewer
from services.auth.logins.secret_ids import SecretIds
from services.auth.peer_servicer import AuthPeerServicer
from services.auth.quotas import Quotas
from services.auth.repository import Repository
from services.auth.servicer import AuthServicer
from services.auth.tidy_duty import Tidy
from services.auth.tokens import Tokens
from strongbox.access.guard import Guard
from strongbox.auth.v1.auth_peer_service_pb2_grpc import add_AuthPeerServiceServicer_to_server
from strongbox.auth.v1.auth_service_pb2_grpc import add_AuthServiceServicer_to_server
from strongbox.process import Runtime, run
from strongbox.rewrap.rewrap_duty import Rewrap
from strongbox.rewrap.rewrap_kinds import Inner, authenticated
from strongbox.storage.v1.auth_records_pb2 import KubernetesConfigRecord
from strongbox.store import keyspace


async def assemble(runtime: Runtime) -> None:
    """Serve AuthService and, to the other services, AuthPeerService.

    Tidy while this replica holds the duty.
    """
    guard = Guard(runtime.keys)
    limits = Quotas(runtime.settings.tokens_per_tree, runtime.settings.secret_ids_per_approle)
    own = OwnReviewer(runtime.settings.reviewer_host, runtime.settings.reviewer_token_file)
    servicer = AuthServicer(
        runtime.pipeline, guard, runtime.keys, runtime.slots.count, limits=limits, own_reviewer=own
    )
    runtime.serve(add_AuthServiceServicer_to_server, servicer, "strongbox.auth.v1.AuthService")
    uses = AuthPeerServicer(runtime.pipeline, Tokens(guard, Repository(guard.lookup)))
    runtime.serve(add_AuthPeerServiceServicer_to_server, uses, "strongbox.auth.v1.AuthPeerService")
    runtime.uses.take = uses.take
    records, secret_ids = Repository(guard.lookup), SecretIds(guard.lookup)
    tidy = Tidy(runtime.pipeline, records, secret_ids, runtime.etcd, runtime.clock)
    runtime.duty("tidy", tidy.work)
    inside = {keyspace.KUBERNETES_CONFIG: Inner(KubernetesConfigRecord, "token_reviewer_jwt")}
    kinds = authenticated("auth", inside)
    runtime.duty("rewrap-auth", Rewrap(runtime.etcd, runtime.keys, runtime.clock, "auth", kinds).work)


if __name__ == "__main__":
    run("auth", assemble)
