"""A running cluster's etcd, by an operator's certificate: who leads, which members there are, its upkeep.

Short blocking calls to one member each; what a dead or paused member does not answer raises grpc.RpcError.
"""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import Any

import grpc
from etcd3.etcdrpc import rpc_pb2 as pb
from google.protobuf.unknown_fields import UnknownFieldSet

from strongbox.store.etcd.client import Tls
from tests.support.cluster import Cluster

_SECONDS = 2.0
_OPTIONS = (
    # A member that was killed is back soon, and is to be reached at once.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.use_local_subchannel_pool", 1),
)
_IN_USE = 9  # a field of StatusResponse that the stubs do not know
_CLUSTER, _KV, _MAINTENANCE = "etcdserverpb.Cluster", "etcdserverpb.KV", "etcdserverpb.Maintenance"


class EtcdDoor:
    """Calls to the members of `cluster`: to that of a node, or to the first that answers."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._channels: dict[str, grpc.Channel] = {}
        self._lock = threading.Lock()

    def leader(self) -> str:
        """The node whose member leads. Raises LookupError when nobody says so."""
        for node in self._cluster.node_ids:
            with contextlib.suppress(grpc.RpcError):
                status = self.status(node)
                if status.leader and status.leader == status.header.member_id:
                    return node
        raise LookupError("no member says that it leads")

    def status(self, node: str) -> Any:
        """etcd's StatusResponse."""
        return self._ask(node, _MAINTENANCE, "Status", pb.StatusRequest(), pb.StatusResponse)

    def sizes(self, node: str) -> tuple[int, int]:
        """Bytes of a member's file, and those of them that are in use."""
        told = self.status(node)
        unknown: Any = UnknownFieldSet(told)  # a sequence, which its stubs do not say
        in_use = [int(field.data) for field in unknown if field.field_number == _IN_USE]
        return int(told.dbSize), in_use[0] if in_use else int(told.dbSize)

    def serves(self, node: str) -> bool:
        """Whether that member answers a linearizable read."""
        try:
            self.range(b"\0", node=node)
        except grpc.RpcError:
            return False
        return True

    def range(self, start: bytes, end: bytes = b"", node: str = "", **fields: Any) -> Any:
        """A linearizable read: etcd's RangeResponse."""
        request = pb.RangeRequest(key=start, range_end=end, **fields)
        return self._ask(node, _KV, "Range", request, pb.RangeResponse)

    def put(self, key: bytes, value: bytes) -> None:
        """Write a key of the test's own."""
        self._ask("", _KV, "Put", pb.PutRequest(key=key, value=value), pb.PutResponse)

    def delete(self, start: bytes, end: bytes = b"") -> None:
        """Delete keys of the test's own."""
        request = pb.DeleteRangeRequest(key=start, range_end=end)
        self._ask("", _KV, "DeleteRange", request, pb.DeleteRangeResponse)

    def revision(self) -> int:
        """The newest revision."""
        return int(self.range(b"\0").header.revision)

    def compact(self, revision: int) -> None:
        """Forget history before `revision`; what is gone already is a success."""
        request = pb.CompactionRequest(revision=revision, physical=False)
        try:
            self._ask("", _KV, "Compact", request, pb.CompactionResponse)
        except grpc.RpcError as error:
            if "compacted" not in str(error):
                raise

    def alarms(self) -> list[Any]:
        """The alarms that stand."""
        request = pb.AlarmRequest(action=pb.AlarmRequest.GET)
        return list(self._ask("", _MAINTENANCE, "Alarm", request, pb.AlarmResponse).alarms)

    def remove(self, node: str) -> None:
        """Take a node's member out of the cluster; one that is out already is a success."""
        members = self._ask("", _CLUSTER, "MemberList", pb.MemberListRequest(), pb.MemberListResponse).members
        number = next((one.ID for one in members if one.name == node), 0)
        if not number:
            return
        request = pb.MemberRemoveRequest(ID=number)
        try:
            self._ask("", _CLUSTER, "MemberRemove", request, pb.MemberRemoveResponse)
        except grpc.RpcError as error:
            if "member not found" not in str(error):  # the member asked first did it and did not answer
                raise

    def add(self, peer_url: str) -> None:
        """Announce a new member, which then has to be started with an empty folder."""
        request = pb.MemberAddRequest(peerURLs=[peer_url])
        self._ask("", _CLUSTER, "MemberAdd", request, pb.MemberAddResponse)

    def _ask(self, node: str, service: str, name: str, request: Any, answer: Any) -> Any:
        failure: Exception = LookupError("the cluster has no nodes")
        for one in [node] if node else self._cluster.node_ids:
            call = self._channel(one).unary_unary(
                f"/{service}/{name}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=answer.FromString,
            )
            try:
                return call(request, timeout=_SECONDS)
            except grpc.RpcError as error:
                if "database space exceeded" in str(error):
                    raise  # every member would say so
                failure = error
        raise failure

    def _channel(self, node: str) -> grpc.Channel:
        """One for each address: a handshake for each call would take longer than the call."""
        address = self._cluster.process(node, "etcd").address
        with self._lock:
            if address not in self._channels:
                folder = Path(self._cluster.description["certs"])
                tls = Tls.read(folder / "ca.pem", folder / "operator.pem", folder / "operator.key")
                self._channels[address] = grpc.secure_channel(address, tls.credentials(), _OPTIONS)
            return self._channels[address]
