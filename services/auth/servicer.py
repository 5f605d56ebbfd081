"""AuthService on the wire.

Each handler validates, decides through the guard, and replies. The handlers stand in `calls`, by topic.
"""

from __future__ import annotations

from collections.abc import Callable

from services.auth.calls.approles import AppRoleCalls
from services.auth.calls.kubernetes import Keys, KubernetesCalls
from services.auth.calls.policies import PolicyCalls
from services.auth.calls.tokens import TokenCalls
from services.auth.calls.users import UserCalls
from services.auth.logins.login_attempt import Door
from services.auth.logins.password_hashing import Passwords
from services.auth.logins.reviewer_token import OwnReviewer
from services.auth.logins.secret_ids import SecretIds
from services.auth.quotas import Quotas
from services.auth.repository import Repository
from services.auth.tokens import Tokens
from strongbox.access.guard import Guard
from strongbox.auth.v1 import auth_service_pb2_grpc as rpc
from strongbox.store.decisions.pipeline import Pipeline


class AuthServicer(
    TokenCalls, PolicyCalls, UserCalls, AppRoleCalls, KubernetesCalls, rpc.AuthServiceServicer
):
    """All calls. `on_stranger(source)` counts refused logins that leave no record of their own."""

    def __init__(
        self,
        pipeline: Pipeline,
        guard: Guard,
        keys: Keys,
        on_stranger: Callable[[str], None] = lambda _: None,
        hashing: Passwords | None = None,
        limits: Quotas | None = None,
        own_reviewer: OwnReviewer | None = None,
    ) -> None:
        tokens = Tokens(guard, Repository(guard.lookup, limits))
        door = Door(pipeline, guard, tokens, on_stranger)
        TokenCalls.__init__(self, pipeline, guard, tokens)
        PolicyCalls.__init__(self, pipeline, guard)
        UserCalls.__init__(self, pipeline, guard, door, hashing or Passwords())
        AppRoleCalls.__init__(self, pipeline, guard, door, SecretIds(guard.lookup, limits))
        KubernetesCalls.__init__(self, pipeline, guard, door, keys, own_reviewer or OwnReviewer())
