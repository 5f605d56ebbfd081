"""One run: clients work, faults strike one after the other, and everything recovers by itself."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from tests.robustness import diagnosis
from tests.robustness.door import Rest
from tests.robustness.etcd_silence import SEALS_AFTER, EtcdSilence
from tests.robustness.faults import Fault, every
from tests.robustness.history import History
from tests.robustness.ledger import Ledger, wall_ahead
from tests.robustness.postgres import DATABASE_ROLES
from tests.robustness.slack import Slack
from tests.robustness.stage import NODES, Stage
from tests.robustness.traffic import Traffic, enders
from tests.robustness.traffic.asking import Target
from tests.robustness.traffic.credentials import HOLDER
from tests.robustness.traffic.enders import ENDER, PREFIX, Seen
from tests.robustness.traffic.families import POLICY
from tests.robustness.traffic.rivals import Told

LONGEST = 390.0  # seconds of faults in a run that has no time of its own: a busy machine does not get further
SOAK = 600.0  # seconds: whoever has so long has what takes long as well
_LOOK_EVERY = 5.0  # seconds
CALM = 1.0  # seconds between recovery and the next fault
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Struck:
    """A fault that was injected: when it began, was undone, and when everything served again (monotonic).

    `silence`: the longest time without an answer through a spared node (through any node, if none is spared).
    """

    fault: Fault
    begun: float
    undone: float
    recovered: float
    silence: float
    etcd_silence: float
    trouble: str = ""


@dataclass
class Run:
    """What happened."""

    seed: int
    history: History = field(default_factory=History)
    struck: list[Struck] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    wall_ahead: float = field(default_factory=wall_ahead)
    paths: list[str] = field(default_factory=list)
    clients_token: str = ""
    orphan: str = ""  # the role that the reconciler was given to find
    seconds: float = 0.0
    slack: Slack = field(default_factory=Slack)
    ledger: Ledger | None = None
    seen: list[str] = field(default_factory=list)  # violations that clients met on the way
    ended: Seen = field(default_factory=Seen)
    told: Told = field(default_factory=Told)
    etcd_silence: EtcdSilence | None = None
    unsealed: list[str] = field(
        default_factory=list
    )  # why people had to, once the machine had no time for etcd


def strike(stage: Stage, run: Run, seconds: float, only: str, say: Say) -> None:
    """Traffic with faults: each kind once, until `LONGEST`, or again and again for so many seconds."""
    run.clients_token = _prepare(stage)
    enders.prepare(stage.gateway(0), run.clients_token)
    target = Target([stage.gateway(number) for number in NODES], stage.cluster.root_token, run.clients_token)
    run.ledger = Ledger(stage.postgres)
    run.etcd_silence = EtcdSilence(stage.etcd)
    traffic = Traffic(target, run.history, run.ledger, stage.etcd, run.seed)
    with run.etcd_silence, traffic:
        time.sleep(2.0)
        for fault in _faults(run, seconds, only):
            struck = _inject(stage, run, fault)
            run.struck.append(struck)
            say(_line(struck))
            if struck.trouble:
                _tell_why(stage, run, struck, say)
                break
            time.sleep(CALM)
        run.paths = list(traffic.hot.all)
    run.told, run.ended = traffic.told, traffic.ended
    run.seen += [*traffic.told.violations, *traffic.ended.violations, *traffic.lies.violations]
    run.seconds = time.monotonic() - run.began


def _faults(run: Run, seconds: float, only: str) -> Iterator[Fault]:
    own, until = random.Random(run.seed), time.monotonic() + seconds
    while True:
        struck = False
        for fault in every(own, soak=bool(only) or seconds >= SOAK):
            if not only or any(word in fault.kind for word in only.split(",")):
                struck = True
                yield fault
                if time.monotonic() >= (until if seconds else run.began + LONGEST):
                    return
        if time.monotonic() >= until or not struck:
            return


def _inject(stage: Stage, run: Run, fault: Fault) -> Struck:
    begun, history = time.monotonic(), run.history
    fault.begin(stage)
    time.sleep(fault.hold)
    # Until it is undone clients of the spared nodes are served; what undoing takes is not counted.
    heard = time.monotonic()
    fault.end(stage)
    undone, trouble = time.monotonic(), ""
    try:
        _recover(stage, run, fault, begun)
    except TimeoutError as late:
        trouble = str(late)
    recovered = time.monotonic()
    until = max(heard, begun + 1.0)
    silence = (
        max(history.longest_silence(begun, until, [node]) for node in fault.spared)
        if fault.spared
        else history.longest_silence(begun, recovered, NODES)
    )
    etcd_silence = run.etcd_silence.longest(begun) if run.etcd_silence else 0.0
    return Struck(fault, begun, undone, recovered, silence, etcd_silence, trouble)


def _recover(stage: Stage, run: Run, fault: Fault, begun: float) -> None:
    """Until everything serves, by itself. Raises TimeoutError.

    Where etcd itself answered nobody for so long that the cluster had to seal itself, people unseal it.
    """
    until = time.monotonic() + fault.recovery * run.slack.now()
    while True:
        try:
            return stage.wait_recovered(min(_LOOK_EVERY, until - time.monotonic()))
        except TimeoutError:
            silent = run.etcd_silence.longest(begun) if run.etcd_silence else 0.0
            if silent >= SEALS_AFTER and all(stage.is_sealed(number) for number in NODES):
                run.unsealed.append(f"{fault.kind}: etcd answered nobody for {silent:.0f} s")
                stage.give_shares()
                return stage.wait_recovered(fault.recovery * run.slack.now())
            if time.monotonic() >= until:
                raise


def _tell_why(stage: Stage, run: Run, struck: Struck, say: Say) -> None:
    ago = timedelta(seconds=time.monotonic() - struck.begun)
    say("    warnings meanwhile:")
    for line in diagnosis.lines(stage.folder, [stage.node(n) for n in NODES], datetime.now(UTC) - ago):
        say(line)


def _line(struck: Struck) -> str:
    return (
        f"  {struck.fault!s:60} held {struck.undone - struck.begun:5.1f} s, served again after "
        f"{struck.recovered - struck.undone:4.1f} s, longest silence {struck.silence:4.1f} s, "
        f"etcd's {struck.etcd_silence:4.1f} s {struck.trouble}"
    )


def _prepare(stage: Stage) -> str:
    """The clients' policy and token."""
    rest, root = Rest(stage.gateway(0)), stage.cluster.root_token
    everything = ["read", "write", "delete", "list", "metadata", "sudo"]
    rules = [
        {"path": "secret/robust/*", "capabilities": everything},
        {"path": "auth/tokens", "capabilities": ["write"]},
    ]
    try:
        deadline = time.monotonic() + 30
        rights = {POLICY: rules, ENDER: [{"path": f"leases/{PREFIX}*", "capabilities": ["delete"]}]}
        rights[HOLDER] = [{"path": f"dynamic-postgres/{DATABASE_ROLES[1]}", "capabilities": ["read"]}]
        while True:
            written = [rest.call(root, "PUT", f"/v1/policies/{n}", {"rules": r}) for n, r in rights.items()]
            made = rest.call(root, "POST", "/v1/tokens", {"policies": [POLICY], "ttl": "24h"})
            if all(answer.status == 200 for answer in (*written, made)):
                return str(made.body["token"])
            if time.monotonic() > deadline:
                raise RuntimeError(f"nothing can be prepared: {[one.reason for one in (*written, made)]}")
            time.sleep(0.2)
    finally:
        rest.close()
