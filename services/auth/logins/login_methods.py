"""The three ways to log in. Each reads, does slow work outside of any transaction, then decides in one.

* User: name and password. A hash is computed whether or not the user exists, is locked, or has that
  password, so that the answer and its time are the same.
* AppRole: role id and secret id; nothing slow.
* Kubernetes: a role and a service account's token, which the API server reviews, whether or not there is such
  a role: neither its time nor its failures tell which roles exist.

What was read may have changed when it is decided: a user's login then begins again, a Kubernetes login is
refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

import structlog

from services.auth.logins import approles, kubernetes_roles, lockouts, password_hashing, token_review, users
from services.auth.logins.approles import AppRoles
from services.auth.logins.kubernetes_roles import Config, Identity, Kubernetes, Role
from services.auth.logins.login_attempt import Door, Login, Verdict, Who
from services.auth.logins.password_hashing import Passwords
from services.auth.logins.reviewer_token import OwnReviewer
from services.auth.logins.secret_ids import SecretIds
from services.auth.logins.token_review import MayNotReview, Reviewer
from services.auth.logins.users import Users
from services.auth.tokens import Fresh, Wanted
from strongbox import paths
from strongbox.crypto.envelope import WrappedDek, open_value
from strongbox.errors import Overloaded, RateLimited
from strongbox.rpc.request_context import Inbound
from strongbox.storage.v1 import auth_records_pb2 as storage
from strongbox.store.decisions.view import View
from strongbox.store.envelope_records import from_record

PURPOSE = "auth"
_log = structlog.get_logger(__name__)
ATTEMPTS = 3
NO_REVIEWER = "the audience of a Kubernetes role needs a reviewer, and there is none"


class Keys(Protocol):
    """What is asked of the seal service (strongbox.rpc.key_client.KeyClient)."""

    async def unwrap(self, wrapped: Sequence[WrappedDek]) -> list[bytes]:
        """Raises `Sealed`, `DependencyDown`, `IntegrityError`."""


class Changed(Overloaded):
    """The user's password hash is not the one that was read before."""


class UserLogins:
    """Logins by name and password."""

    def __init__(self, door: Door, users_: Users, hashing: Passwords) -> None:
        self._door, self._users, self._passwords = door, users_, hashing

    async def login(self, inbound: Inbound, name: str, password: str) -> Login:
        """Raises `Unauthenticated`, `RateLimited`, `InvalidInput`."""
        for attempt in range(ATTEMPTS):
            try:
                return await self._try(inbound, name, password)
            except Changed:
                if attempt + 1 == ATTEMPTS:
                    raise
        raise Overloaded

    async def _try(self, inbound: Inbound, name: str, password: str) -> Login:
        known, locked = await self._door.look(inbound, lambda view: self._hash_of(view, name, password))
        right = await self._passwords.verify(known, password, inbound.deadline)
        anew = None
        if right and not locked and known is not None and password_hashing.is_outdated(known):
            # A busy replica leaves the old hash for the next login.
            with suppress(RateLimited):
                anew = await self._passwords.hash(password, inbound.deadline)

        def decide(view: View, fresh: Fresh) -> Verdict:
            record = self._users.records.find(view, name)
            if (None if record is None else record.password_hash) != known:
                raise Changed
            key = lockouts.failure_key(users.KIND, name)
            # Read for every name, so that an unknown one does not cost one key less.
            is_locked = lockouts.is_locked(lockouts.failures_of(view, key))
            if record is None or not right or is_locked:
                return self._door.refuse(view, inbound, None if record is None else key)
            if anew is not None:
                self._rehash(view, record, anew)
            wanted = Wanted(tuple(record.policies), record.token_ttl_s or None, display_name=f"user {name}")
            return self._door.grant(view, wanted, fresh, Who(users.KIND, name))

        return await self._door.through(inbound, "LoginUser", users.path_of(name), decide)

    def _hash_of(self, view: View, name: str, password: str) -> tuple[str | None, bool]:
        """The hash (None: no such user) and whether the user is locked; any name costs the same reads."""
        paths.require_name(name, "user")
        password_hashing.require_bounded(password)
        record = self._users.records.find(view, name)
        locked = lockouts.is_locked(lockouts.failures_of(view, lockouts.failure_key(users.KIND, name)))
        return (None if record is None else str(record.password_hash)), locked

    def _rehash(self, view: View, record: storage.UserRecord, anew: str) -> None:
        renewed = storage.UserRecord()
        renewed.CopyFrom(record)
        renewed.password_hash = anew
        self._users.records.put(view, renewed)


class AppRoleLogins:
    """Logins by role id and secret id."""

    def __init__(self, door: Door, roles: AppRoles, secret_ids: SecretIds) -> None:
        self._door, self._roles, self._secret_ids = door, roles, secret_ids

    async def login(self, inbound: Inbound, role_id: str, secret_id: str) -> Login:
        """Raises `Unauthenticated`, `RateLimited`."""

        def decide(view: View, fresh: Fresh) -> Verdict:
            role = self._roles.role_of(view, role_id)
            if role is None:
                return self._door.refuse(view, inbound, None)
            if view.draft is not None:
                view.draft.path = approles.path_of(role.name)
            key = lockouts.failure_key(approles.KIND, role.name)
            used = self._secret_ids.use(view, role, secret_id, inbound.client)
            if used is None:
                return self._door.refuse(view, inbound, key)
            wanted = Wanted(
                tuple(role.policies), role.token_ttl_s or None, role.token_max_ttl_s or None,
                display_name=f"approle {role.name}", num_uses=role.token_num_uses,
            )  # fmt: skip
            return self._door.grant(
                view, wanted, fresh, Who(approles.KIND, role.name, f"secret-id/{used.accessor}")
            )

        return await self._door.through(inbound, "LoginAppRole", approles.path_of("unknown"), decide)


class KubernetesLogins:
    """Logins by a service account's token."""

    def __init__(
        self, door: Door, roles: Kubernetes, reviewer: Reviewer, keys: Keys, own: OwnReviewer
    ) -> None:
        self._door, self._kubernetes, self._reviewer, self._keys = door, roles, reviewer, keys
        self._own = own

    async def login(self, inbound: Inbound, name: str, jwt: str) -> Login:
        """Raises `Unauthenticated`, `RateLimited`, `InvalidInput`, `DependencyDown`."""
        found = await self._door.look(inbound, lambda view: self._role_and_config(view, name))
        who = await self._review(*found, jwt, inbound)

        def decide(view: View, fresh: Fresh) -> Verdict:
            now = self._role_and_config(view, name)
            role = now[0]
            if role is None or who is None or now != found or not kubernetes_roles.fits(role, who):
                key = lockouts.failure_key(kubernetes_roles.KIND, name) if role is not None else None
                return self._door.refuse(view, inbound, key)
            shown = f"kubernetes {who.namespace}/{who.service_account}"[:128]
            wanted = Wanted(tuple(role.policies), role.token_ttl_s or None, display_name=shown)
            return self._door.grant(
                view, wanted, fresh, Who(kubernetes_roles.KIND, name, kubernetes_roles.holder_of(who))
            )

        return await self._door.through(inbound, "LoginKubernetes", kubernetes_roles.path_of(name), decide)

    def _role_and_config(self, view: View, name: str) -> tuple[Role | None, Config | None]:
        paths.require_name(name, "kubernetes role")
        return self._kubernetes.roles.find(view, name), self._kubernetes.config(view)

    async def _review(
        self, role: Role | None, config: Config | None, jwt: str, inbound: Inbound
    ) -> kubernetes_roles.Identity | None:
        if config is None or not token_review.is_jwt(jwt):
            return None
        audience = role.audience if role is not None else ""
        who = await self._asked(config, jwt, audience, inbound.deadline)
        if who is None and role is not None and self._kubernetes.lacks_reviewer(config, role):
            # The configuration was written after the role; otherwise the role would have been refused.
            _log.warning(NO_REVIEWER, role=role.name)
        return who

    async def _asked(self, config: Config, jwt: str, audience: str, deadline: float) -> Identity | None:
        """Ask with the pod's own token; without one, or if it may not review, with the configuration's."""
        own = self._own.token(config)
        if own:
            with suppress(MayNotReview):  # the manifests' component `reviewer` may be left out
                return await self._reviewer.review(config, own, jwt, audience, deadline)
        return await self._reviewer.review(config, await self._reviewer_jwt(config), jwt, audience, deadline)

    async def _reviewer_jwt(self, config: Config) -> str:
        if not config.HasField("token_reviewer_jwt"):
            return ""
        envelope = from_record(config.token_reviewer_jwt)
        (key,) = await self._keys.unwrap([envelope.wrapped])
        return open_value(key, envelope, PURPOSE, kubernetes_roles.CONFIG_PATH, 1).decode()
