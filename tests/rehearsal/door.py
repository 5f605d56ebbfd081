"""The gateway's Service as a client in the cluster sees it: REST calls, and the load with its judgement."""

from __future__ import annotations

import base64
import json
import ssl
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

from cryptography import x509

from tests.rehearsal.load import Link
from tests.rehearsal.node.images import ROOT
from tests.rehearsal.stage import Stage

NAME = "strongbox-gateway.strongbox.svc"


class Refused(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"HTTP {status}: {text[:300]}")
        self.status = status


class Door:
    """Calls with the root token, once it is there."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.token = ""

    @property
    def address(self) -> str:
        service = self._stage.store.get("services", "strongbox", "strongbox-gateway")
        return str(service["spec"]["clusterIP"])

    @property
    def authority(self) -> str:
        """PEM of whom clients trust."""
        secret = self._stage.store.get("secrets", "strongbox", "strongbox-gateway-tls")
        return base64.b64decode(secret["data"]["ca.crt"]).decode()

    def link(self) -> Link:
        return Link(self.address, NAME, ssl.create_default_context(cadata=self.authority))

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The answer's JSON. Raises Refused, OSError."""
        link = self.link()
        headers = {"authorization": f"Bearer {self.token}"} if self.token else {}
        text = None if body is None else json.dumps(body)
        try:
            link.request(method, path, text, headers | {"content-type": "application/json"})
            answer = link.getresponse()
            said = answer.read().decode()
        finally:
            link.close()
        if answer.status != 200:
            raise Refused(answer.status, said)
        return json.loads(said)

    def serial(self) -> int:
        """Of the certificate that some gateway shows."""
        link = self.link()
        link.connect()
        assert isinstance(link.sock, ssl.SSLSocket)
        raw = link.sock.getpeercert(binary_form=True)
        assert raw is not None
        link.close()
        return x509.load_der_x509_certificate(raw).serial_number


@dataclass(frozen=True)
class Verdict:
    """What the clients saw in some time."""

    good: int
    again: int  # requests that were sent again, because a connection broke
    slowest: float
    bad: list[dict[str, Any]]

    def __str__(self) -> str:
        words = f"{self.good} requests, {self.again} sent again, worst {self.slowest:.2f} s"
        kinds = Counter(f"{one['what']} {one['status']}" for one in self.bad)
        return ", ".join([words, *(f"{count}x {kind}" for kind, count in kinds.items())])


class Load:
    """The clients of load.py, until `close`."""

    def __init__(self, stage: Stage, door: Door) -> None:
        place = stage.place / "load"
        place.mkdir(exist_ok=True)
        authority, token = place / "ca.crt", place / "token"
        authority.write_text(door.authority)
        rules = [{"path": "secret/load/*", "capabilities": ["read", "write"]}]
        door.call("PUT", "/v1/policies/load", {"rules": rules})
        token.write_text(door.call("POST", "/v1/tokens", {"policies": ["load"]})["token"])
        self._file = place / "records"
        words = [door.address, NAME, str(authority), str(token), str(self._file)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.rehearsal.load", *words], cwd=ROOT, start_new_session=True
        )

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(30)

    def since(self, begun: float) -> Verdict:
        """What was seen since then (seconds of the clock)."""
        if self._process.poll() is not None:
            raise RuntimeError("the load has ended by itself")
        records = [json.loads(line) for line in self._lines()]
        records = [one for one in records if one["at"] >= begun]
        good = [one for one in records if one["status"] == 200 and one["what"] in ("GET", "PUT")]
        bad = [one for one in records if one["status"] != 200 or one["what"] == "stale"]
        return Verdict(
            len(good),
            sum(bool(one.get("again")) for one in records),
            max((one.get("took", 0.0) for one in records), default=0.0),
            bad,
        )

    def _lines(self) -> list[str]:
        text = self._file.read_text(encoding="utf-8") if self._file.exists() else ""
        return text[: text.rfind("\n") + 1].splitlines()


def eventually(seconds: float, check: Any, what: str) -> Any:
    """What `check` gives once that is true; exceptions count as no. Raises TimeoutError."""
    ends, why = time.monotonic() + seconds, ""
    while time.monotonic() < ends:
        try:
            found = check()
            if found:
                return found
            why = str(found)
        except (Refused, OSError) as error:
            why = f"{type(error).__name__}: {error}"
        time.sleep(0.2)
    raise TimeoutError(f"{what}: not after {seconds:.0f} s ({why})")
