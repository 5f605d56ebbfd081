"""An unsealed cluster of a few keys, with a root token, for tests of decisions behind the guard."""

from __future__ import annotations

from dataclasses import dataclass

from strongbox import paths
from strongbox.access import token_format
from strongbox.access.authenticated_records import RecordKeys, seal_record
from strongbox.storage.v1 import auth_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.decisions.audit_journal import Draft
from tests.support.fakes import FakeStore


@dataclass
class FakeKeys:
    """As strongbox.rpc.key_client.KeyClient: holds the record keys while unsealed."""

    record_keys: RecordKeys | None


@dataclass
class FakeInbound:
    """As strongbox.rpc.request_context.Inbound."""

    token: str
    request_id: str = "request"
    client: str = "127.0.0.1"
    idempotency_key: str = ""
    deadline: float = 0.0
    use: int = 0


class FakeCluster:
    """Keys, an unsealed state, a root token, and hands to put tokens and policies there."""

    def __init__(self) -> None:
        self.keys = RecordKeys({1: b"k" * 32}, 1)
        self.source = FakeKeys(self.keys)
        self.store = FakeStore()
        self.store.seed(keyspace.SEAL_STATE, b"unsealed:1")
        self.root, puts = token_format.new_root_token(self.keys, self.store.now_ms)
        for key, value in puts.items():
            self.store.seed(key, value)

    def add_token(self, **fields: object) -> str:
        """Put a token's record there as it is told; returns the token."""
        token = token_format.new_token()
        record = storage.TokenRecord(accessor=token_format.new_accessor(), created_ms=self.store.now_ms)
        record.MergeFrom(storage.TokenRecord(**fields))  # type: ignore[arg-type]  # any field, by name
        for key, value in token_format.token_puts(self.keys, token_format.digest(token), record).items():
            self.store.seed(key, value)
        return token

    def add_policy(self, name: str, **rules: str) -> None:
        """Put a policy there: pattern (with `__` for `/`) = capabilities."""
        self.put_policy(name, {path.replace("__", "/"): text for path, text in rules.items()})

    def put_policy(self, name: str, rules: dict[str, str]) -> None:
        """Put a policy there: {pattern: "read write"}."""
        stored = [storage.StoredRule(path=path, capabilities=text.split()) for path, text in rules.items()]
        key = keyspace.policy(paths.fold_name(name))
        body = storage.PolicyRecord(name=name, rules=stored).SerializeToString()
        self.store.seed(key, seal_record(self.keys, key, body))

    def drop(self, token: str) -> None:
        """Take a token's record away, as revoking does."""
        self.store.seed(keyspace.token(token_format.digest(token)), None)


def draft() -> Draft:
    """An audit record under way."""
    return Draft(op="Test", path="secret/a", request_id="request", client="127.0.0.1")
