"""The cluster's DNS: names of Services and of pods behind headless ones, over UDP and TCP (RFC 1035).

As CoreDNS answers with kubeadm's settings: TTL 30 s; what is not in the cluster's domain does not exist here.
"""

from __future__ import annotations

import ipaddress
import random
import socket
import socketserver
import struct
import threading

from tests.rehearsal.node.endpoints import Endpoints
from tests.rehearsal.node.network import API_SERVER, DNS_SERVER

TTL = 30
DOMAIN = "cluster.local"
_A, _SOA, _IN = 1, 6, 1
_NO_SUCH_NAME = 3


def search(namespace: str) -> str:
    """A pod's /etc/resolv.conf."""
    domains = f"{namespace}.svc.{DOMAIN} svc.{DOMAIN} {DOMAIN}"
    return f"search {domains}\nnameserver {DNS_SERVER}\noptions ndots:5\n"


class Dns:
    """Answers at the address that pods ask."""

    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints
        self.asked: dict[str, int] = {}
        for server in (_Udp((DNS_SERVER, 53), self), _Tcp((DNS_SERVER, 53), self)):
            threading.Thread(target=server.serve_forever, name="dns", daemon=True).start()

    def addresses(self, name: str) -> list[str] | None:
        """What stands behind a name, in no order; None: there is no such name."""
        view = self._endpoints.view
        parts = name.lower().rstrip(".").split(".")
        if parts[-3:] != ["svc", "cluster", "local"]:
            return None
        *pod, service, namespace = ["", *parts[:-3]]
        if (service, namespace) == ("kubernetes", "default"):
            return [API_SERVER]
        found = view.services.get((namespace, service))
        if found is None:
            return None
        backends = view.backends[namespace, service]
        if pod[1:]:
            return [one.address for one in backends if [one.hostname] == pod[1:]] or None
        if found["spec"].get("clusterIP") != "None":
            return [found["spec"]["clusterIP"]] if "clusterIP" in found["spec"] else []
        return random.sample([one.address for one in backends], len(backends)) or None

    def answer(self, query: bytes) -> bytes:
        """The reply to one message."""
        number, flags, questions = struct.unpack("!HHH", query[:6])
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1 : at + 1 + query[at]].decode("ascii", "replace"))
            at += 1 + query[at]
        question = query[12 : at + 5]
        kind, _ = struct.unpack("!HH", query[at + 1 : at + 5])
        name = ".".join(labels)
        self.asked[name] = self.asked.get(name, 0) + 1
        found = self.addresses(name)
        records = [_record(address) for address in (found or ())] if kind == _A else []
        code = _NO_SUCH_NAME if found is None else 0
        authority = b"" if records else _authority()
        head = struct.pack(
            "!HHHHHH", number, 0x8580 | (flags & 0x0100) | code, questions, len(records), bool(authority), 0
        )
        return head + question + b"".join(records) + authority


def _record(address: str) -> bytes:
    raw = ipaddress.ip_address(address).packed
    return struct.pack("!HHHIH", 0xC00C, _A, _IN, TTL, len(raw)) + raw


def _authority() -> bytes:
    zone = b"".join(bytes([len(part)]) + part.encode() for part in DOMAIN.split(".")) + b"\0"
    data = b"\2ns\3dns" + zone + b"\nhostmaster" + zone + struct.pack("!IIIII", 1, 7200, 1800, 86400, TTL)
    return zone + struct.pack("!HHIH", _SOA, _IN, TTL, len(data)) + data


class _Udp(socketserver.ThreadingUDPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], dns: Dns) -> None:
        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                query, link = self.request
                link.sendto(dns.answer(query), self.client_address)

        super().__init__(address, Handler)


class _Tcp(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], dns: Dns) -> None:
        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                link: socket.socket = self.request
                link.settimeout(10)
                while len(size := link.recv(2, socket.MSG_WAITALL)) == 2:
                    query = link.recv(int.from_bytes(size, "big"), socket.MSG_WAITALL)
                    answer = dns.answer(query)
                    link.sendall(len(answer).to_bytes(2, "big") + answer)

        super().__init__(address, Handler)
