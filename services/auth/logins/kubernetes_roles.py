"""Kubernetes: which API server reviews service account tokens, and what roles they may log in to. Pure.

Rules:
* The configuration decides for every role who is believed, so writing it needs `sudo` as well. The server is
  reached by https only, with the one authority that is configured. The reviewer's token is kept under
  envelope encryption.
* A role names service accounts and namespaces, each as exact names or as `*` alone for any, but not `*` for
  both. If a role names an audience, the token must be for it. That needs a reviewer's token: the API server
  takes no request with a token of another audience than its own, not even for that token's review.
* Nothing of a token is believed here: the API server says whose it is (services.auth.logins.token_review).
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from services.auth import policy_delegation
from services.auth.logins import lockouts
from services.auth.named_records import Named
from strongbox.access.authenticated_records import seal_record
from strongbox.access.guard import Caller
from strongbox.access.record_reader import Lookup
from strongbox.errors import InvalidInput, NotFound
from strongbox.storage.v1 import auth_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.decisions.view import View

KIND = "kubernetes"
CONFIG_PATH = "auth/kubernetes/config"
ANY = "*"
MAX_NAMES = 64
MAX_AUTHORITY = 65_536  # characters
MAX_AUDIENCE = 256  # characters
Config = storage.KubernetesConfigRecord
Role = storage.KubernetesRoleRecord
# RFC 1123 names, as Kubernetes has them.
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?\Z")


class Identity(NamedTuple):
    """The service account that the API server recognised."""

    namespace: str
    service_account: str
    pod: str = ""  # its uid, where the token is bound to one


class Found(NamedTuple):
    """A role and the etcd revision at which it was last written."""

    record: Role
    revision: int


def path_of(name: str) -> str:
    """What policies call a Kubernetes role."""
    return f"auth/kubernetes/roles/{name}"


def require_host(text: str) -> str:
    """`https://host[:port]`. Raises `InvalidInput`."""
    try:
        url = urlsplit(text)
        sound = url.scheme == "https" and url.hostname and url.path in ("", "/") and (url.port or 443)
    except ValueError:
        sound = False
    if not sound or url.query or url.fragment or url.username is not None or len(text) > 512:
        raise InvalidInput("host is https://host:port, and nothing else")
    return text.rstrip("/")


def require_authority(pem: str) -> str:
    """One or more certificates in PEM. Raises `InvalidInput`."""
    if len(pem) > MAX_AUTHORITY:
        raise InvalidInput(f"ca_cert has at most {MAX_AUTHORITY} characters")
    try:
        found = trusting(pem).get_ca_certs()
    except (ssl.SSLError, ValueError):
        found = []
    if not found:
        raise InvalidInput("ca_cert is not the certificate of an authority, in PEM")
    return pem


def trusting(authority: str) -> ssl.SSLContext:
    """TLS to a server of this authority (PEM) and of no other. Raises `ssl.SSLError`, `ValueError`."""
    # Not `create_default_context`: given an empty text it trusts every authority of the system.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata=authority)
    return context


def require_names(names: Sequence[str], field: str) -> list[str]:
    """Names of Kubernetes, or `*` alone. Raises `InvalidInput`."""
    if list(names) == [ANY]:
        return [ANY]
    if not names or len(names) > MAX_NAMES or not all(_NAME.match(name) for name in names):
        raise InvalidInput(f'{field} are 1 to {MAX_NAMES} names of Kubernetes, or "*" alone')
    return list(dict.fromkeys(names))


def role_of(
    name: str,
    accounts: Sequence[str],
    namespaces: Sequence[str],
    audience: str,
    policies: Sequence[str],
    ttl_s: int,
) -> Role:
    """A role from what a caller asks for. Raises `InvalidInput`."""
    record = Role(
        name=name,
        service_accounts=require_names(accounts, "bound_service_account_names"),
        namespaces=require_names(namespaces, "bound_service_account_namespaces"),
        audience=audience,
        policies=policy_delegation.require_names(policies),
        token_ttl_s=ttl_s,
    )
    if [ANY] == record.service_accounts == record.namespaces:
        raise InvalidInput("a role that any service account of any namespace may use is for nobody")
    if len(audience) > MAX_AUDIENCE or not audience.isprintable():
        raise InvalidInput(f"audience is at most {MAX_AUDIENCE} printable characters")
    return record


def fits(role: Role, who: Identity) -> bool:
    """Whether this service account may log in to the role."""
    accounts, namespaces = list(role.service_accounts), list(role.namespaces)
    return (ANY in accounts or who.service_account in accounts) and (
        ANY in namespaces or who.namespace in namespaces
    )


def holder_of(who: Identity) -> str:
    """Who holds the tokens of this login (strongbox.access.token_groups)."""
    return f"pod/{who.pod}" if who.pod else f"service-account/{who.namespace}/{who.service_account}"


class Kubernetes:
    """Decisions about the configuration and the roles, after the guard's.

    `has_own_reviewer`: whether Kubernetes itself gives a reviewer's token for the configured server.
    """

    def __init__(self, lookup: Lookup, has_own_reviewer: Callable[[Config], bool] = lambda _: False) -> None:
        self._lookup, self._has_own_reviewer = lookup, has_own_reviewer
        self.roles = Named(lookup, keyspace.KUBERNETES_ROLES, Role, "kubernetes role")

    def configure(self, view: View, caller: Caller, config: Config) -> None:
        """Replace the configuration. Raises `PermissionDenied`."""
        caller.require("sudo", CONFIG_PATH)
        if config.HasField("token_reviewer_jwt"):
            self._lookup.require_current(config.token_reviewer_jwt.term)
        key = keyspace.KUBERNETES_CONFIG
        body = config.SerializeToString(deterministic=True)
        view.put(key, seal_record(self._lookup.require_keys(), key, body))

    def config(self, view: View) -> Config | None:
        """The configuration, if there is one."""
        return self._lookup.record(view, keyspace.KUBERNETES_CONFIG, Config)

    def require_config(self, view: View) -> Config:
        """Raises `NotFound`."""
        config = self.config(view)
        if config is None:
            raise NotFound("there is no configuration for Kubernetes")
        return config

    def write(self, view: View, caller: Caller, wanted: Role) -> Role:
        """Make or replace a role; returns it as written. Raises `InvalidInput`, `PermissionDenied`."""
        known = self.roles.writable(view, wanted.name)
        path = path_of(wanted.name)
        policy_delegation.require_may_give(caller, path, wanted.policies)
        if known is not None:
            policy_delegation.require_may_give(caller, path, known.policies)
        config = self.config(view)
        if config is not None and self.lacks_reviewer(config, wanted):
            raise InvalidInput("an audience needs a reviewer: the configuration has no token_reviewer_jwt")
        record = Role()
        record.CopyFrom(wanted)
        del record.policies[:]
        record.policies.extend(policy_delegation.spelt(self._lookup, view, wanted.policies))
        self.roles.put(view, record)
        return record

    def lacks_reviewer(self, config: Config, role: Role) -> bool:
        """Whether the role names an audience and there is no reviewer's token."""
        has_one = config.HasField("token_reviewer_jwt") or self._has_own_reviewer(config)
        return bool(role.audience) and not has_one

    def read(self, view: View, name: str) -> Found:
        """Raises `NotFound`."""
        record = self.roles.require(view, name)
        return Found(record, view.get(self.roles.key(name)).mod_revision)

    def delete(self, view: View, name: str) -> None:
        """Remove a role, there or not. Raises `NotFound` when it is there in other letters."""
        self.roles.delete(view, name)
        lockouts.clear(view, lockouts.failure_key(KIND, name))
