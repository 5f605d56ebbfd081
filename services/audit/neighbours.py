"""What the audit service needs of its neighbours: its key opened by seal, and channels to its peers."""

from __future__ import annotations

import json
from collections.abc import Sequence

import grpc.aio

from strongbox.crypto.envelope import open_value
from strongbox.errors import NotInitialized
from strongbox.process import Runtime
from strongbox.rpc.channel import open_channel
from strongbox.rpc.keys import KeyClient
from strongbox.storage.v1 import envelope_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.client import Etcd
from strongbox.store.envelopes import from_record

PURPOSE = "audit"
PATH = "audit/key"
VERSION = 1


async def open_chain_key(etcd: Etcd, keys: KeyClient) -> bytes:
    """The chain's HMAC key.

    Raises NotInitialized, Sealed, DependencyDown, EtcdError; IntegrityError when somebody altered it.
    """
    row = await etcd.get(keyspace.AUDIT_KEY)
    if row is None:
        raise NotInitialized
    envelope = from_record(storage.Envelope.FromString(row.value))
    (data_key,) = await keys.unwrap([envelope.wrapped])
    return open_value(data_key, envelope, PURPOSE, PATH, VERSION)


async def live_peers(runtime: Runtime) -> Sequence[grpc.aio.Channel]:
    """A channel to every other live audit replica, by what their session keys say."""
    prefix = keyspace.NODES + b"audit/"
    rows = (await runtime.etcd.range(prefix, keyspace.prefix_end(prefix))).rows
    own = keyspace.node("audit", runtime.settings.node_id)
    addresses = [json.loads(row.value)["address"] for row in rows if row.key != own]
    return [open_channel(address, "audit", runtime.settings) for address in addresses]
