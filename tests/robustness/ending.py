"""The frame around the faults: probes and witness before, final reads and all the judging after."""

from __future__ import annotations

import contextlib
import itertools
import queue
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tests.robustness import credential_judge, goes_on, memory, others, validate
from tests.robustness.door import LEFT
from tests.robustness.run import Run, Say
from tests.robustness.stage import NODES, Stage
from tests.robustness.traffic import rivals
from tests.robustness.traffic.asking import CANARY, Target
from tests.robustness.traffic.hot_secrets import Hot, SecretClient
from tests.robustness.witness import Witness
from tests.support.canary import Canaries
from tests.support.chain_files import lines_of, require_one_chain

_READERS = 6
_ANSWERED_A_SECOND = 8  # a tenth of what a machine of two cores does that has nothing else to do
_KINDS = 30
_KILLS = 20  # the next round waits until all of etcd serves again, so a slow machine has fewer
_LEFT_A_SECOND, _TOLD_A_SECOND, _ENDED_A_SECOND = 0.5, 0.5, 0.03
_STAND_STILL = 18  # each of six processes of three nodes
_MOST_UNSEALED = 1  # by people, because the machine had no time for etcd
_CREDENTIALS_NEED = ("lease", "etcd", "postgres")
_SETTLED_WITHIN = 45.0  # seconds: an intent is given up after 15


def play(stage: Stage, run: Run, faults: Callable[[], None], say: Say, *, attacks: float) -> list[str]:
    """All of it; the violations. `attacks`: seconds of each one caller's attack (0: none)."""
    certificates = Path(stage.cluster.description["certs"])
    endpoints = [url.removeprefix("https://") for url in stage.cluster.description["etcd"]]
    with stage.probes(), Witness(endpoints, certificates) as witness:
        faults()
        # What was under way when its client gave up may still arrive; then nothing moves any more.
        time.sleep(3.0)
        stage.wait_recovered(60 * run.slack.now())
        run.orphan, stands_still = goes_on.judge(stage, run.slack.now, say)
        unserved = list(_attack(stage, run, attacks, say))
        read_everything(stage, run)
        read_what_was_told(stage, run)
        credentials = list(_judge_credentials(stage, run))
    return [*stands_still, *unserved, *credentials, *_judge(stage, run, witness)]


def enough(stage: Stage, run: Run, seconds: float, *, partly: bool) -> Iterator[str]:
    """Whether it was a run worth the name."""
    faults = 1 if partly else int(max(_KINDS, seconds / 25) / run.slack.worst)
    answers = int(run.seconds * _ANSWERED_A_SECOND / run.slack.worst)
    yield from validate.enough(run.history, run.struck, answers, faults)
    if len(run.unsealed) > _MOST_UNSEALED:
        yield f"enough: etcd stood still {len(run.unsealed)} times, so little can be said of the product"
    yield from _enough_of_each(stage, run, partly=partly)
    kills = sum(name in _CREDENTIALS_NEED for name in stage.killed)
    if not partly and kills < _KILLS / run.slack.worst:
        yield f"enough: lease, etcd and PostgreSQL were killed {kills} times, not {_KILLS}"


def _enough_of_each(stage: Stage, run: Run, *, partly: bool) -> Iterator[str]:
    """Whether clients left, rivals met, and everything stood still, often enough."""
    seconds = run.seconds / run.slack.worst
    left = sum(op.reason.endswith(LEFT) for op in run.history.ops)
    if left < seconds * _LEFT_A_SECOND:
        yield f"enough: only {left} requests were left by their clients"
    if len(run.told.values) < seconds * _TOLD_A_SECOND:
        yield f"enough: only {len(run.told.values)} versions of what rivals write were told"
    if run.ended.rounds < seconds * _ENDED_A_SECOND:
        yield f"enough: only {run.ended.rounds} tokens were revoked while they ended leases"
    still = Counter((number, name) for number, name, _ in stage.paused)
    twice = sum(times > 1 for times in still.values())
    if not partly and twice < _STAND_STILL / run.slack.worst:
        yield f"enough: only {twice} processes stood still twice, not {_STAND_STILL}"


def _attack(stage: Stage, run: Run, seconds: float, say: Say) -> Iterator[str]:
    if seconds:
        served = others.Others(stage, run.clients_token, seconds)
        yield from served.play()
        for line in served.lines():
            say(line)
        most, allowed = memory.peaks(stage), memory.limits()
        say(memory.line(most, allowed))
        yield from memory.violations(most, allowed)


def _judge(stage: Stage, run: Run, witness: Witness) -> Iterator[str]:
    yield from stage.violations
    yield from run.seen
    yield from witness.violations
    if witness.effects < 5 * run.seconds / run.slack.worst:
        yield f"enough: the witness saw only {witness.effects} effects of the duty"
    yield from validate.linearizable(run.history)
    yield from validate.in_order(run.history)
    yield from validate.nothing_broken(run.history)
    yield from validate.in_time(run.history, run.struck, run.slack.worst)
    yield from validate.sealed(run.history, stage.sealed, run.slack.worst)
    yield from validate.available(run.struck, run.slack.worst)
    try:
        with stage.cluster.rest(stage.cluster.root_token, 0) as root:
            require_one_chain(stage.cluster, root, 60 * run.slack.now())
    except AssertionError as fork:
        yield f"chain: {fork}"
    yield from validate.audited(run.history, lines_of(stage.cluster, stage.node(0)))
    yield from credential_judge.mended(lines_of(stage.cluster, stage.node(0)), run.orphan)
    if b"CREATE ROLE" not in stage.postgres.log:
        yield "canary: PostgreSQL logs no statements"
    # It begins every value, and every password of a credential (tests/robustness/inside).
    found = Canaries({"a value": CANARY}).search([stage.folder], stage.cluster.pids + stage.postgres.pids)
    yield from (f"canary: {sighting}" for sighting in found.sightings)
    if found.files < 50:
        yield f"canary: only {found.files} files were searched"


def _judge_credentials(stage: Stage, run: Run) -> Iterator[str]:
    look = partial(credential_judge.look, stage.etcd, stage.postgres)
    yield from credential_judge.settle(look, _SETTLED_WITHIN * run.slack.now())
    assert run.ledger is not None
    run.ledger.check_all()
    yield from run.ledger.violations
    handed_up = stage.postgres.handed_up()
    if handed_up:
        name, owner = handed_up[0]
        yield f"possession: {len(handed_up)} functions of credentials are {owner}'s now, {name} for one"
    if any(not one.password.startswith(CANARY) for one in run.ledger.credentials):
        yield "canary: a password does not begin as it has to for the search"


def read_everything(stage: Stage, run: Run) -> None:
    """Read every version of every secret there ever was, through every node."""
    gateways = [stage.gateway(number) for number in NODES]
    target = Target(gateways, stage.cluster.root_token, run.clients_token)
    paths: queue.SimpleQueue[str] = queue.SimpleQueue()
    for path in run.paths:
        paths.put(path)

    def work(number: int) -> None:
        client = SecretClient(target, run.history, Hot(), native=False)
        client.random = random.Random(number)
        with contextlib.suppress(queue.Empty):
            while True:
                _read_all(client, paths.get_nowait())

    threads = [threading.Thread(target=work, args=(number,)) for number in range(_READERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def read_what_was_told(stage: Stage, run: Run) -> None:
    """Read every version that a writer was told of, from every node."""
    for number in NODES:
        where = f"at the end from {stage.node(number)}"
        run.seen += rivals.judge(run.told, stage.gateway(number), run.clients_token, where)


def _read_all(client: SecretClient, path: str) -> None:
    for _ in range(20):
        answer = client.metadata(path)
        if answer.status in (200, 404):
            break
        time.sleep(0.2)
    for one in itertools.chain([None], [v["version"] for v in answer.body.get("versions", ())]):
        for _ in range(20):
            if client.read(path, one).status in (200, 404):
                break
            time.sleep(0.2)
