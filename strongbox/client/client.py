"""`StrongBox`: all calls of the client, behind one gateway."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from strongbox.client.approles import AppRoles
from strongbox.client.audit import Audit
from strongbox.client.kubernetes import Kubernetes
from strongbox.client.kv import Secrets
from strongbox.client.leases import Leases
from strongbox.client.policies import Policies
from strongbox.client.postgres import Postgres
from strongbox.client.seal import Seal
from strongbox.client.tokens import Tokens
from strongbox.client.transport import Wire
from strongbox.client.users import Users


class StrongBox:
    """StrongBox behind one gateway, with one token.

    `address` is `http://127.0.0.1:8201` (plain: this machine only) or `https://host:port`; `ca` a PEM file
    with the authority to trust instead of the system's; `timeout` seconds for a call (4, slow ones 8).
    Connects at the first call. Raises InvalidInput when the address, token or file makes no sense.
    """

    def __init__(
        self, address: str, token: str = "", ca: Path | str | None = None, timeout: float | None = None
    ) -> None:
        self._wire = Wire(address, token, ca, timeout)
        self.seal = Seal(self._wire)
        self.kv = Secrets(self._wire)
        self.tokens = Tokens(self._wire)
        self.policies = Policies(self._wire)
        self.users = Users(self._wire)
        self.approles = AppRoles(self._wire)
        self.kubernetes = Kubernetes(self._wire)
        self.leases = Leases(self._wire)
        self.postgres = Postgres(self._wire)
        self.audit = Audit(self._wire)

    def use_token(self, token: str) -> None:
        """Send this token from now on; "" for none."""
        self._wire.use(token)

    def close(self) -> None:
        """End the connection; no call may follow."""
        self._wire.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
