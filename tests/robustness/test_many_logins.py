"""Two hundred logins at once, right and wrong.

Reads through the gateways go on, and no wrong password gets in.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.auth import LOGINS, run
from tests.support.cluster import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster.start(3) as running:
        yield running


def test_reads_go_on_while_two_hundred_log_in(cluster: Cluster) -> None:
    outcomes, _, _, before, meanwhile = run(cluster)
    assert sum(outcomes.values()) == LOGINS
    assert outcomes["wrong: token"] == 0
    # Who is not served is told so in time: refused, or asked to come back.
    expected = {"right: token", "wrong: 401 UNAUTHENTICATED", "right: 401 UNAUTHENTICATED"}
    assert {one for one in outcomes if "429" not in one} <= expected, outcomes
    assert outcomes["right: token"] >= 20, outcomes
    assert meanwhile.failures == before.failures == {}
    assert len(meanwhile.latencies) > 50
    assert max(meanwhile.latencies) < 2.0
