"""Init and unseal of a local cluster, over REST, as a person would do it with curl."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

from strongbox.dev.layout import Layout, write_private_json
from strongbox.dev.processes.children import StartError
from strongbox.errors import RepeatedShare

Answer = dict[str, Any]
_OK, _UNAUTHORIZED = HTTPStatus.OK, HTTPStatus.UNAUTHORIZED
# Straight to the loopback address: a proxy from the environment has no business here.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def call(
    method: str, url: str, body: object = None, token: str = "", timeout: float = 6.0
) -> tuple[int, Answer]:
    """One REST call: the status and the answer's JSON. Raises OSError when nobody answers."""
    request = urllib.request.Request(url, method=method)  # noqa: S310  # always http://127.0.0.1, ours
    if body is not None:
        request.data = json.dumps(body).encode()
        request.add_header("content-type", "application/json")
    if token:
        request.add_header("authorization", f"Bearer {token}")
    try:
        with _OPENER.open(request, timeout=timeout) as response:
            return response.status, _parsed(response.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, _parsed(error.read())


def wait_until_answering(gateway: str, timeout: float, give_up: Callable[[], bool] = lambda: False) -> None:
    """Until the gateway's node answers GET /v1/sys/health. Raises StartError."""
    _wait(gateway + "/v1/sys/health", _OK, timeout, give_up)


def wait_until_ready(gateway: str, timeout: float) -> None:
    """Until the gateway's node is ready (unsealed, with its kv and auth). Raises StartError."""
    _wait(gateway + "/v1/sys/ready", _OK, timeout)


def wait_until_serving(gateway: str, timeout: float) -> None:
    """Until no service says that it is sealed: each hears of unsealing for itself. Raises StartError.

    Asked without a token, each refuses with 401 as soon as it can tell.
    """
    for path in ("secrets-list", "tokens/self", "leases?path=secret/none", "audit"):
        _wait(f"{gateway}/v1/{path}", _UNAUTHORIZED, timeout)


def unseal_cluster(layout: Layout, timeout: float = 30.0) -> None:
    """Init if need be (DIR/init.json, 0600), then give the shares to different nodes. Raises StartError."""
    gateways = [layout.gateway_url(node) for node in layout.node_ids]
    kept = layout.folder / "init.json"
    if not _is_initialized(gateways[0], timeout):
        kept.unlink(missing_ok=True)  # of a cluster whose data are gone
        status, made = _answered("POST", f"{gateways[0]}/v1/sys/init", {})
        if status != HTTPStatus.OK:
            raise StartError(f"init was refused: {made.get('message', status)}")
        write_private_json(kept, {name: made[name] for name in ("shares", "threshold", "root_token")})
    _give_shares(gateways, _read(kept))
    deadline = time.monotonic() + timeout
    for gateway in gateways:
        wait_until_ready(gateway, max(1.0, deadline - time.monotonic()))
        wait_until_serving(gateway, max(1.0, deadline - time.monotonic()))


def _is_initialized(gateway: str, timeout: float) -> bool:
    """Whether there is a cluster; waits for etcd, since not knowing is not "no". Raises StartError."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        status, said = _answered("GET", f"{gateway}/v1/sys/seal-status")
        if status == HTTPStatus.OK:
            return bool(said.get("initialized"))
        time.sleep(0.1)
    raise StartError(f"{gateway}: whether it is initialised is not known")


def _give_shares(gateways: list[str], init: Answer) -> None:
    for number, share in enumerate(init["shares"][: init["threshold"]]):
        gateway = gateways[number % len(gateways)]
        status, said = _answered("POST", f"{gateway}/v1/sys/unseal", {"share": share})
        if status != HTTPStatus.OK and not _is_repeated(said):
            raise StartError(f"a share was refused: {said.get('message', status)}")


def _is_repeated(said: Answer) -> bool:
    """Whether the share was given before, by a `dev up` that was ended, or by hand: no matter here."""
    return any(detail.get("reason") == RepeatedShare.reason for detail in said.get("details", ()))


def _answered(method: str, url: str, body: object = None) -> tuple[int, Answer]:
    try:
        return call(method, url, body, timeout=10.0)
    except OSError as error:
        raise StartError(f"{url} does not answer: {error}") from None


def _wait(url: str, wanted: int, timeout: float, give_up: Callable[[], bool] = lambda: False) -> None:
    deadline = time.monotonic() + timeout
    said: object = "nothing"
    while not give_up():
        try:
            status, answer = call("GET", url, timeout=3.0)
            if status == wanted:
                return
            said = f"{status} {answer.get('message', '')}"
        except OSError as error:
            said = error
        if time.monotonic() > deadline:
            raise StartError(f"{url} is not as it should be after {timeout:.0f} s: {said}")
        time.sleep(0.1)


def _read(kept: Path) -> Answer:
    try:
        init: Answer = json.loads(kept.read_text(encoding="utf-8"))
        return init
    except FileNotFoundError:
        raise StartError(f"it is initialized and there is no {kept}: unseal it with its shares") from None


def _parsed(text: bytes) -> Answer:
    try:
        answer = json.loads(text)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}
