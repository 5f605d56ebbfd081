"""Where a gateway is, and whether a token may be sent there."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from strongbox.errors import InvalidInput

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Address:
    """A gateway: `target` is host:port as gRPC takes it."""

    target: str
    tls: bool

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `http://127.0.0.1:8201`, `https://host[:port]`, or `host:port` (TLS unless loopback).

        Raises InvalidInput; also for plain HTTP to anything but this machine, where a token could be read.
        """
        scheme, host, port = _parts(text.strip())
        loopback = _is_loopback(host)
        tls = scheme == "https" or (scheme == "" and not loopback)
        if not tls and not loopback:
            raise InvalidInput("a gateway on another machine is reached by https:// only")
        number = port or _PORTS.get(scheme)
        if number is None:
            raise InvalidInput("the address has no port, as in 127.0.0.1:8201")
        return cls(f"[{host}]:{number}" if ":" in host else f"{host}:{number}", tls)


def _parts(text: str) -> tuple[str, str, int | None]:
    """Scheme ("" when there is none), host and port. Raises InvalidInput."""
    try:
        url = urlsplit(text if "://" in text else f"//{text}")
        port = url.port
    except ValueError:
        raise InvalidInput("the address is not a URL such as http://127.0.0.1:8201") from None
    wrong = url.scheme not in ("", "http", "https") or url.path not in ("", "/") or url.query or url.fragment
    if wrong or not url.hostname or url.username is not None:
        raise InvalidInput("the address is not a URL such as http://127.0.0.1:8201")
    return url.scheme, url.hostname, port


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
