"""The tamper-evident log."""

from __future__ import annotations

from collections.abc import Iterator

from strongbox.audit.v1 import audit_service_pb2 as pb
from strongbox.audit.v1.audit_service_pb2_grpc import AuditServiceStub
from strongbox.client.wire import Wire

PAGE = 1000  # entries; the most that the service gives at once


class Audit:
    """What happened, in order."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._stub = AuditServiceStub(wire.channel)

    def page(
        self, from_index: int = 0, limit: int = 0, *, path: str = "", accessor: str = "", op: str = ""
    ) -> pb.ListEntriesResponse:
        """Entries from an index on, and the head of the chain; 100 unless `limit` says more."""
        request = pb.ListEntriesRequest(
            from_index=from_index, limit=limit, path=path, accessor=accessor, op=op
        )
        return self._wire.call(self._stub.ListEntries, request)

    def entries(
        self, from_index: int = 0, *, path: str = "", accessor: str = "", op: str = ""
    ) -> Iterator[pb.Entry]:
        """All entries that match, up to the newest, page by page as they are asked for."""
        while True:
            page = self.page(from_index, PAGE, path=path, accessor=accessor, op=op)
            yield from page.entries
            if len(page.entries) < PAGE:
                return
            from_index = page.entries[-1].index + 1

    def export_key(self) -> str:
        """The chain's HMAC keys, one file's worth for `strongbox-verify --key-file`. Itself audited."""
        return self._wire.call(self._stub.ExportKey, pb.ExportKeyRequest(), slow=True).key
