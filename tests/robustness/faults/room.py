"""etcd is nearly full of what somebody keeps alive: nobody may make more of it, and making room goes on.

What fills it is the suite's own, put past every service, since making so many tokens would take minutes. At
three quarters of the quota a caller with a valid, narrow token tries to make tokens, which has to be refused,
and others read. At nearly nine tenths what frees and what safety needs still goes on: his token is revoked,
and a secret is removed with all its versions.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator

import grpc

from tests.robustness.door import Rest
from tests.robustness.faults import storage
from tests.robustness.faults.fault import Fault
from tests.robustness.stage import NODES, QUOTA, Stage

_GROWS_NO_MORE, _ONLY_WHAT_FREES = 0.76, 0.88  # of the quota: the brakes are at 0.7 and 0.85
_LARGEST_FILE = 0.94  # of the quota: the brake for all but what frees is at 0.93, the alarm at 1
_BLOCK = 256 << 10  # a megabyte at once finds no pages that are free inside the file: it grows
_LOOK_EVERY = 3  # blocks
_FILLED_WITHIN = 120.0  # seconds
_SEEN_WITHIN = 4.0  # seconds: the store is looked at every three
_ROOM_WITHIN = 90.0  # seconds until history is gone, files have shrunk, and everybody is served
_TRIES = 40  # to make a token
_SERVED_WITHIN = 60.0  # seconds, for what has to go on: members that are defragmented share one disk here
_POLICY = "filler"


def faults(_: random.Random) -> Iterator[Fault]:
    """One."""
    yield Fault("etcd nearly full", "everything", _begin, _end, 0.0, (), recovery=_ROOM_WITHIN)


def _begin(stage: Stage) -> None:
    rest = Rest(stage.gateway(0))
    root = stage.cluster.root_token
    try:
        rules = [{"path": "auth/tokens", "capabilities": ["write"]}]
        rest.until_done(root, "PUT", f"/v1/policies/{_POLICY}", {"rules": rules})
        made = rest.until_done(root, "POST", "/v1/tokens", {"policies": [_POLICY], "ttl": "1h"}).body
        rest.until_done(root, "PUT", "/v1/secrets/robust/kept", {"value": "read by others"})
        rest.until_done(root, "PUT", "/v1/secrets/robust/removed", {"value": "makes room"})
        _fill(stage, _GROWS_NO_MORE)
        time.sleep(_SEEN_WITHIN)
        _grow(stage, rest, str(made["token"]))
        _go_on(stage, rest, "GET", "/v1/secrets/robust/kept")
        _fill(stage, _ONLY_WHAT_FREES)
        time.sleep(_SEEN_WITHIN)
        # A member that lagged may have grown further than was seen: then the alarm is the suite's own.
        had_room = max(_files(stage)) < _LARGEST_FILE * QUOTA
        _go_on(stage, rest, "DELETE", f"/v1/tokens/{made['accessor']}")
        _go_on(stage, rest, "DELETE", "/v1/secrets-metadata/robust/removed")
        if stage.etcd.alarms() and had_room:
            sizes = [stage.etcd.sizes(stage.node(number)) for number in NODES]
            told = ", ".join(f"{file >> 20} MiB with {in_use >> 20} in use" for file, in_use in sizes)
            stage.violations.append(f"admission: etcd's alarm was raised by what one caller made: {told}")
    finally:
        rest.close()


def _grow(stage: Stage, rest: Rest, token: str) -> None:
    body = {"policies": [_POLICY], "ttl": "1h", "display_name": "\N{GRINNING FACE}" * 128}
    answers = [rest.call(token, "POST", "/v1/tokens", body) for _ in range(_TRIES)]
    made = sum(answer.status == 200 for answer in answers)
    if made:
        told = f"{made} of {_TRIES} tokens were made by one caller at {_GROWS_NO_MORE:.0%} of the quota"
        stage.violations.append(f"admission: {told}")


def _go_on(stage: Stage, rest: Rest, method: str, path: str) -> None:
    """What has to be possible however full it is; violations are the stage's."""
    try:
        rest.until_done(stage.cluster.root_token, method, path, within=_SERVED_WITHIN)
    except TimeoutError as refused:
        stage.violations.append(f"admission: while etcd is nearly full: {refused}")


def _fill(stage: Stage, part: float) -> None:
    """Put blocks until the fullest member has that part of the quota in use. Raises TimeoutError."""
    block, deadline = bytes(_BLOCK), time.monotonic() + _FILLED_WITHIN
    for number in itertools.count():
        if time.monotonic() > deadline:
            raise TimeoutError(f"etcd is not at {part:.0%} of its quota")
        try:
            if number % _LOOK_EVERY == 0 and _is_filled(stage, part):
                return
            stage.etcd.put(storage.FILLER + b"%.3f/%06d" % (part, number), block)
        except grpc.RpcError:
            time.sleep(0.1)  # it is busy with the last ones


def _files(stage: Stage) -> list[int]:
    return [stage.etcd.sizes(stage.node(number))[0] for number in NODES]


def _is_filled(stage: Stage, part: float) -> bool:
    """Also when a file is so large that a little more would raise the alarm."""
    files, in_use = zip(*(stage.etcd.sizes(stage.node(number)) for number in NODES), strict=True)
    return bool(max(in_use) >= part * QUOTA or max(files) >= _LARGEST_FILE * QUOTA)


def _end(stage: Stage) -> None:
    """Take away what the suite put: that there is room again is the product's business."""
    storage.empty(stage)
