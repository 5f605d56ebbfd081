"""Small logs for tests: entries made by hand, chained for real."""

from __future__ import annotations

from strongbox.audit_log.chain import GENESIS, Entry, link

KEY = bytes(range(32))
KEYS = {1: KEY}


def entry(index: int, **changes: object) -> Entry:
    """A plausible entry that is not chained yet."""
    values: dict[str, object] = {
        "index": index,
        "ts": "2026-01-31T12:00:00.123Z",
        "request_id": f"request-{index}",
        "accessor": "accessor-of-alice",
        "op": "ReadSecret",
        "path": "secret/app/db",
        "version": index,
        "outcome": "ok",
        "reason": "",
        "client": "127.0.0.1",
        "producer": "kv/0123456789abcdef",
        "producer_seq": f"{index}.0.0",
        "prev_hmac": "",
        "hmac": "",
    }
    return Entry(**{**values, **changes})  # type: ignore[arg-type]  # a test may pass nonsense on purpose


def chain(count: int, key: bytes = KEY) -> list[Entry]:
    """So many chained entries."""
    entries: list[Entry] = []
    for index in range(count):
        entries.append(link(key, entries[-1].hmac if entries else GENESIS, entry(index)))
    return entries
