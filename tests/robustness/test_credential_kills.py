"""Lease replicas, etcd and PostgreSQL die by the hundred while credentials are issued, renewed and revoked.

STRONGBOX_KILLS=20 .venv/bin/python -m pytest -m heavy tests/robustness/test_credential_kills.py
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from functools import partial

import pytest

from tests.robustness import credential_judge, validate
from tests.robustness.environment import environment
from tests.robustness.history import OK, History
from tests.robustness.killer import Killer
from tests.robustness.ledger import Ledger
from tests.robustness.postgres import Postgres
from tests.robustness.traffic import Crowd, credentials
from tests.robustness.traffic.asking import CANARY, Target
from tests.support.canary import Canaries
from tests.support.chain_files import lines_of, require_one_chain
from tests.support.clients import Patience
from tests.support.cluster import Cluster
from tests.support.etcd_door import EtcdDoor
from tests.support.expect import eventually

pytestmark = [pytest.mark.heavy, pytest.mark.cluster, pytest.mark.timeout(3000)]
_KILLS = int(os.environ.get("STRONGBOX_KILLS", "500"))
_SEED = int(os.environ.get("STRONGBOX_SEED", "1"))
_CALM = 0.5  # seconds more between rounds than in the suite: here nobody waits, and more is under way
_SETTLED_WITHIN = 60.0  # seconds


@pytest.fixture(scope="module")
def struck() -> Iterator[Cluster]:
    """Three nodes and a PostgreSQL, with what the suite brings into its processes."""
    with environment(), Cluster.start(3, postgres=True) as running:
        yield running


def test_whoever_dies_no_credential_is_left_over_lost_or_revived(
    struck: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    server, etcd, history = Postgres(struck), EtcdDoor(struck), History()
    with struck.rest(struck.root_token, 0, Patience(20.0)) as root:
        server.prepare(root)
    ledger, began = Ledger(server), time.monotonic()
    look = partial(credential_judge.look, etcd, server)
    killer = Killer(struck, server, random.Random(_SEED))
    target = Target(struck.gateways, struck.root_token, "")
    violations: list[str] = []
    with Crowd(credentials.clients(target, history, ledger), _SEED):
        while len(killer.killed) < _KILLS:
            killer.round()
            violations += credential_judge.violations(look())
            time.sleep(_CALM)
        seconds = time.monotonic() - began
        time.sleep(2.0)
    _require_recovered(struck)
    violations += credential_judge.settle(look, _SETTLED_WITHIN)
    let_in = ledger.check_all()
    violations += ledger.violations
    violations += _of_the_records(struck, history)
    with capsys.disabled():
        print(f"\n{_told(killer, history, ledger, let_in, seconds)}", flush=True)
    assert violations == []
    _require_clean(struck, server, ledger)
    _require_enough(killer, history, let_in)
    _require_sight(server, etcd, ledger)


def _require_recovered(cluster: Cluster) -> None:
    for node in range(3):
        with cluster.rest(cluster.root_token, node) as root:
            for path in ("sys/ready", "leases?path=secret/none"):
                eventually(60, root.call, "GET", f"/v1/{path}")


def _of_the_records(cluster: Cluster, history: History) -> Iterator[str]:
    """One chain, which holds every answer, and does not tell that anything had to be mended."""
    with cluster.rest(cluster.root_token, 0) as root:
        require_one_chain(cluster, root, 60.0)
    lines = lines_of(cluster, cluster.node_ids[0])
    yield from credential_judge.mended(lines)
    yield from validate.audited(history, lines)
    yield from validate.nothing_broken(history)
    yield from validate.in_time(history, [], 2.0)


def _require_clean(cluster: Cluster, server: Postgres, ledger: Ledger) -> None:
    """No password is in any file; each begins as what is searched."""
    names = {path.name for path in cluster.folder.rglob("*") if path.is_file()}
    assert {"pg_control", "postgres.log", "lease.log"} <= names
    assert all(one.password.startswith(CANARY) for one in ledger.credentials)
    assert b"CREATE ROLE" in server.log, "PostgreSQL logs no statements: the search means nothing"
    search = Canaries({"a password": CANARY}).search([cluster.folder], cluster.pids + server.pids)
    search.require_clean(least_files=50)


def _require_enough(killer: Killer, history: History, let_in: int) -> None:
    """A run that did little proves little."""
    done = {kind: counts.get(OK, 0) for kind, counts in history.counts().items()}
    least = len(killer.killed) // 2
    assert len(killer.killed) >= _KILLS
    assert set(killer.killed) == {"lease", "etcd", "postgres"}
    assert min(done["issue"], done["renew"], done["end"], let_in * 5) >= least, (done, let_in)


def _require_sight(server: Postgres, etcd: EtcdDoor, ledger: Ledger) -> None:
    """The judge sees what is planted in this very cluster: a stray role, and a REVOKED lease's role."""
    seen = credential_judge.look(etcd, server)
    revoked = next(one for one in ledger.credentials if one.ended)
    for lease in (revoked.lease, "p" + "0" * 40):
        name = f"sb_planted{lease[1:5]}"
        server.ask(f"CREATE ROLE {name}")
        server.ask(f"COMMENT ON ROLE {name} IS 'strongbox:{seen.cluster_id}:{lease}'")
    found = list(credential_judge.violations(credential_judge.look(etcd, server)))
    assert sum("has no lease" in one for one in found) == 1, found
    assert sum("is REVOKED" in one for one in found) == 1, found


def _told(killer: Killer, history: History, ledger: Ledger, let_in: int, seconds: float) -> str:
    kills = {name: killer.killed.count(name) for name in sorted(set(killer.killed))}
    lines = [f"{len(killer.killed)} kills in {seconds:.0f} s: {kills}, seed {_SEED}"]
    lines += [f"  {kind:<6} {dict(counts)}" for kind, counts in sorted(history.counts().items())]
    lines += [f"  {len(ledger.credentials)} credentials, of which {let_in} live in the end"]
    return "\n".join(lines)
