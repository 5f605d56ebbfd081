"""The twenty checks, in the words of the acceptance list."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.scenarios import (
    s0_init,
    s1_unseal,
    s2_secrets,
    s3_policy,
    s4_revocation,
    s5_postgres,
    s6_postgres_down,
    s7_leader,
    s8_partition,
    s9_audit,
)
from tests.scenarios.world import World


@dataclass(frozen=True, slots=True)
class Check:
    """One row. `run` raises when it does not hold, and may return a remark; None: not built yet."""

    scenario: str
    number: int
    title: str
    text: str
    run: Callable[[World], str | None] | None = None


CHECKS = (
    Check(
        "S0", 1, "init",
        "one-time init returns n shares and a root token; a second init is refused",
        s0_init.one_time_init,
    ),
    Check(
        "S0", 2, "init",
        "no share, root token or key is on any disk, in etcd or in any log",
        s0_init.nothing_left_behind,
    ),
    Check(
        "S1", 1, "unseal",
        "t shares sent to different nodes unseal the whole cluster; t-1 do not; a wrong, repeated or "
        "malformed share is refused alone, with a clear error, and spoils nothing",
        s1_unseal.shares_at_different_nodes,
    ),
    Check(
        "S1", 2, "unseal",
        "while sealed every other call is 503 SEALED, REST and gRPC; after seal too",
        s1_unseal.sealed_means_sealed,
    ),
    Check(
        "S2", 1, "secrets",
        "write, read, write again, read both versions, history; cas conflict refused",
        s2_secrets.versions,
    ),
    Check(
        "S2", 2, "secrets",
        "soft delete, undelete, destroy; after purged_at no revision readable through etcd holds the "
        "destroyed envelope, and no request ever returns it",
        s2_secrets.gone_for_good,
    ),
    Check(
        "S3", 1, "policy",
        "a token with secret/app/* reads and writes there and nowhere else; wildcard and + edges, deny, list",
        s3_policy.there_and_nowhere_else,
    ),
    Check(
        "S3", 2, "policy",
        "token TTL runs out and the token dies; a child never exceeds its parent",
        s3_policy.tokens_die,
    ),
    Check(
        "S4", 1, "revocation",
        "a revoked token fails on the very next request at every node, REST and gRPC, 1,000 times out of "
        "1,000",
        s4_revocation.on_the_very_next_request,
    ),
    Check(
        "S4", 2, "revocation",
        "revoking a parent kills children and their leases",
        s4_revocation.children_and_leases,
    ),
    Check(
        "S5", 1, "dynamic PostgreSQL",
        "the credential logs in with its template's rights; a lease is created; it cannot log in after "
        "expiry, and its open sessions are gone",
        s5_postgres.rights_until_the_end,
    ),
    Check(
        "S5", 2, "dynamic PostgreSQL",
        "the password is in no file, no etcd key, no log of ours or PostgreSQL's",
        s5_postgres.password_nowhere,
    ),
    Check(
        "S6", 1, "PostgreSQL down",
        "at expiry the lease is REVOCATION_PENDING, with attempts at 10, 20, 40 s capped",
        s6_postgres_down.pending_with_pauses,
    ),
    Check(
        "S6", 2, "PostgreSQL down",
        "PostgreSQL returns: the role is dropped and the lease REVOKED with nobody's help",
        s6_postgres_down.by_itself,
    ),
    Check(
        "S7", 1, "leader kill",
        "kill -9 the process that holds the audit duty: a new leader within 2 s, term increased, no "
        "request failed meanwhile",
        s7_leader.holder_killed,
    ),
    Check(
        "S7", 2, "leader kill",
        "kill -9 every process of a node, etcd's leader among them: writes resume within 1.2 s, every "
        "acknowledged write is still there",
        s7_leader.node_killed,
    ),
    Check(
        "S8", 1, "partition",
        "a node cut off refuses reads and writes with 503 within its deadline (and seals itself within "
        "10 s), while the majority goes on",
        s8_partition.cut_off,
    ),
    Check(
        "S8", 2, "partition",
        "after healing it serves again, no split history: one chain, one value per version",
        s8_partition.healed,
    ),
    Check(
        "S9", 1, "audit tamper",
        "change, delete, insert or reorder one entry: strongbox-verify exits 1 and names the index",
        s9_audit.tampered_entries_are_named,
    ),
    Check(
        "S9", 2, "audit tamper",
        "truncation and rollback are caught against a checkpoint; the intact log verifies",
        s9_audit.cut_off_logs_are_caught,
    ),
)  # fmt: skip
