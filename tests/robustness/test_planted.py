"""The suite finds what it is there to find: each of these bugs, planted, makes a run fail rightly."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.support.cluster import ROOT

pytestmark = [pytest.mark.heavy, pytest.mark.cluster, pytest.mark.timeout(600)]

# The bug, the faults that bring it to light, for how long, and what kind of violation it is.
BUGS = {
    "fence": ("late transaction", "20s", "duty: an effect of term"),
    "cursor": ("late delivery,held back", "60s", "audit: record .* times in the chain"),
    "audit_apart": ("kill kv,kill auth", "30s", "is acknowledged and not in the chain"),
    "cas": ("kill kv", "20s", "linearizable: secret:"),
    "token": ("kill auth", "20s", "linearizable: family:"),
    "newer_policy": ("kill audit", "40s", "linearizable: veil:.*hidden-"),
    "watch_resume": ("kill etcd,pause etcd", "60s", "chain: "),
    "role_stays": ("kill PostgreSQL", "20s", "credential: the role sb_.* lives, and its lease"),
    "others_value": ("pause etcd", "40s", "told: version .* holds another's value"),
    "stale_office": ("pause lease,pause etcd", "60s", "goes on: "),
    "unguarded_step": ("kill audit", "30s", "leases: .* ended by a token that was revoked"),
    "unadmitted": ("nearly full", "5s", "admission: .* tokens were made"),
    "possessions": ("kill audit", "20s", "possession: .* functions of credentials are robust_maker's"),
    "health_invents": ("seals itself", "5s", "health: .* says `initialized: false`"),
    "late_value": ("seal and unseal", "20s", "sealed: .* gave a value .* after `seal` had answered"),
    "overlap": ("kill lease", "20s", "broken: "),
}


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_caught(name: str) -> None:
    faults, seconds, violation = BUGS[name]
    command = [sys.executable, "-m", "tests.robustness", "--plant", name, "--only", faults, "--for", seconds]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 1, done.stdout[-3000:] + done.stderr[-3000:]
    assert re.search(f"VIOLATION  .*{violation}", done.stdout), done.stdout[-4000:]
