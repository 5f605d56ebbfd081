"""Memory is judged by what the manifests give, and a process of which nothing is known is no pass."""

from __future__ import annotations

import os

from tests.robustness import memory


def test_what_took_more_than_its_container_has_is_a_violation() -> None:
    assert list(memory.violations({"kv": 100}, {"kv": 100})) == []
    (found,) = memory.violations({"kv": 3 << 20}, {"kv": 2 << 20})
    assert found == "memory: kv took 3 MiB, its container has 2"


def test_who_was_not_seen_has_not_passed() -> None:
    assert list(memory.violations({"kv": 0}, {"kv": 100})) == ["memory: nothing is known of kv"]


def test_limits_come_from_the_manifests_and_peaks_from_the_kernel() -> None:
    assert memory.limits()["kv"] == 1 << 30
    assert set(memory.limits()) == set(memory.NAMES)
    assert memory._peak(os.getpid()) > 10 << 20
