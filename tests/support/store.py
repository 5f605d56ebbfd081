"""What a cluster's etcd holds, read past every service: the present, and every revision still readable."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import grpc
from etcd3.etcdrpc import rpc_pb2 as pb

from strongbox.storage.v1 import envelope_pb2
from strongbox.store import keyspace
from tests.support.cluster import Cluster

_COMPACTED = "required revision has been compacted"
_LEAST_BYTES = 12  # shorter fields could occur by chance


class Etcd:
    """The operator's view of one member, linearizable; a context manager."""

    def __init__(self, cluster: Cluster) -> None:
        told = cluster.description
        certs = Path(told["certs"])
        credentials = grpc.ssl_channel_credentials(
            (certs / "ca.pem").read_bytes(),
            (certs / "operator.key").read_bytes(),
            (certs / "operator.pem").read_bytes(),
        )
        options = [("grpc.max_receive_message_length", -1)]
        self._channel = grpc.secure_channel(
            str(told["etcd"][0]).removeprefix("https://"), credentials, options
        )
        self._range = self._channel.unary_unary(
            "/etcdserverpb.KV/Range",
            request_serializer=pb.RangeRequest.SerializeToString,
            response_deserializer=pb.RangeResponse.FromString,
        )
        self._put = self._channel.unary_unary(
            "/etcdserverpb.KV/Put",
            request_serializer=pb.PutRequest.SerializeToString,
            response_deserializer=pb.PutResponse.FromString,
        )

    def put(self, key: bytes, value: bytes) -> None:
        """Write as nobody of the product does."""
        self._put(pb.PutRequest(key=key, value=value), timeout=10)

    def rows(self, prefix: bytes = keyspace.ROOT, revision: int = 0) -> dict[bytes, bytes]:
        """All keys under `prefix` with their values. Raises grpc.RpcError when the revision is compacted."""
        return {row.key: row.value for row in self._ask(prefix, revision).kvs}

    def ciphertexts(self, path: str) -> list[bytes]:
        """Bytes that stand for a secret's values: of each envelope what is long enough to be searched."""
        envelopes: list[envelope_pb2.Envelope] = []
        for message in self._records_of(path):
            envelopes += [value for value in _walk(message) if isinstance(value, envelope_pb2.Envelope)]
        parts = [part for one in envelopes for part in (one.ciphertext, one.tag, one.wrapped_dek)]
        return [part for part in parts if len(part) >= _LEAST_BYTES]

    def revisions_holding(self, needles: list[bytes]) -> list[tuple[int, bytes]]:
        """Each readable revision whose store holds one of `needles`, with the key."""
        revision = self._ask(keyspace.CLUSTER_ID, 0).header.revision
        found: list[tuple[int, bytes]] = []
        while revision > 0:
            try:
                rows = self.rows(revision=revision)
            except grpc.RpcError as error:
                if _COMPACTED not in str(error.details()):
                    raise
                break
            found += [(revision, key) for key, value in rows.items() if any(one in value for one in needles)]
            revision -= 1
        return found

    def _records_of(self, path: str) -> Iterator[Any]:
        for value in self.rows(keyspace.KV_ENVELOPES + path.encode() + b"\0").values():
            yield envelope_pb2.Envelope.FromString(value)

    def _ask(self, prefix: bytes, revision: int) -> Any:
        end = keyspace.prefix_end(prefix)
        return self._range(pb.RangeRequest(key=prefix, range_end=end, revision=revision), timeout=10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()


def _walk(message: Any) -> Iterator[Any]:
    """`message` and every message inside it."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None and not field.message_type.GetOptions().map_entry:
            for inner in value if field.is_repeated else [value]:
                yield from _walk(inner)
