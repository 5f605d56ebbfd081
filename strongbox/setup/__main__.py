"""`python -m strongbox.setup COMMAND`: see strongbox.setup."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

from strongbox.config import ConfigError


def _etcd_users() -> None:
    from strongbox.setup.settings import EtcdUsersSettings
    from strongbox.store.etcd.client import Etcd
    from strongbox.store.etcd.endpoints import Options, Tls
    from strongbox.store.etcd.etcd_users import Users

    settings = EtcdUsersSettings.load()

    async def ensure() -> None:
        etcd = Etcd(
            settings.etcd_endpoints,
            Tls.read(settings.tls_ca, settings.tls_cert, settings.tls_key),
            Options(attempt=5.0),  # nobody waits for this one, and etcd may be busy with its election
        )
        try:
            await Users(etcd).ensure()
        finally:
            await etcd.close()

    asyncio.run(ensure())


def _gateway() -> None:
    from strongbox.setup.gateway import write_gateway
    from strongbox.setup.settings import GatewayRenderSettings

    write_gateway(GatewayRenderSettings.load())


def _certificates() -> None:
    from strongbox.setup.certificates import ensure_certificates
    from strongbox.setup.kubernetes_api import Api
    from strongbox.setup.settings import CertificateSettings

    settings = CertificateSettings.load()
    for name in ensure_certificates(Api.in_cluster(settings.namespace), settings):
        print(f"made {name}")


COMMANDS: dict[str, Callable[[], None]] = {
    "etcd-users": _etcd_users,
    "gateway": _gateway,
    "certificates": _certificates,
}


def main(words: list[str]) -> int:
    """Do one command; the exit code."""
    if len(words) != 1 or words[0] not in COMMANDS:
        print(f"usage: python -m strongbox.setup {'|'.join(COMMANDS)}", file=sys.stderr)
        return 0 if words in (["--help"], ["-h"]) else 2
    try:
        COMMANDS[words[0]]()
    except ConfigError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 2
    except Exception as error:
        print(f"setup: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
