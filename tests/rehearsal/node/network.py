"""One bridge, and a network namespace with an address of its own for each pod; no address is used twice.

All of it is inside the namespaces that `outer.enter` has made, and is gone with them.
"""

from __future__ import annotations

import ipaddress
import subprocess
import threading

BRIDGE = "rehearsal0"
PODS = ipaddress.ip_network("10.244.0.0/16")
SERVICES = ipaddress.ip_network("10.96.0.0/16")
GATEWAY = str(PODS[1])
API_SERVER = str(SERVICES[1])
DNS_SERVER = str(SERVICES[10])


class Network:
    """Raises CalledProcessError when the machine does not give what is asked for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next_pod, self._next_service = 10, 100
        _ip(
            "link set lo up",
            f"link add {BRIDGE} type bridge forward_delay 0",
            f"addr add {GATEWAY}/{PODS.prefixlen} dev {BRIDGE}",
            f"addr add {API_SERVER}/32 dev {BRIDGE}",
            f"addr add {DNS_SERVER}/32 dev {BRIDGE}",
            f"link set {BRIDGE} up",
        )

    def join(self, pod: str) -> str:
        """A namespace of that name, with an address that nobody has had; the address."""
        with self._lock:
            number = self._next_pod
            self._next_pod += 1
        address = str(PODS[number])
        _ip(
            f"netns add {pod}",
            f"link add v{number} type veth peer name eth0 netns {pod}",
            f"link set v{number} master {BRIDGE} up",
        )
        _ip(
            "link set lo up",
            f"addr add {address}/{PODS.prefixlen} dev eth0",
            "link set eth0 up",
            f"route add default via {GATEWAY}",
            inside=pod,
        )
        return address

    def leave(self, pod: str) -> None:
        """The namespace and its address are gone for good."""
        subprocess.run(["ip", "netns", "del", pod], check=False, capture_output=True, timeout=10)

    def service_address(self) -> str:
        """An address for a Service that is not headless."""
        with self._lock:
            self._next_service += 1
            address = str(SERVICES[self._next_service])
        _ip(f"addr add {address}/32 dev {BRIDGE}")
        return address


def _ip(*commands: str, inside: str = "") -> None:
    place = ["-n", inside] if inside else []
    subprocess.run(
        ["ip", *place, "-batch", "-"], input="\n".join(commands), text=True, check=True,
        capture_output=True, timeout=10,
    )  # fmt: skip
