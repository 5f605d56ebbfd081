"""A real log, spoiled at random: whatever bytes are changed, put in or taken out, both proofs notice it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from services.audit.log.segments import Segments
from strongbox.audit_log.chain import Tampered
from strongbox.audit_log.checkpoint import Checkpoint
from strongbox.audit_log.log_checker import Proofs, verify_files
from strongbox.store.etcd.client import Etcd
from tests.services.audit.logs import KEYS, chain
from tests.services.audit.producers import ORIGIN, Producer, caught_up, following, text_of


async def spoil(etcd: Etcd, folder: Path, times: int) -> None:
    kv, auth = Producer(etcd, "kv", "a" * 16), Producer(etcd, "auth", "b" * 16)
    for _ in range(6):
        await kv.put(2, 1)
        revision = await auth.put(1)
    async with following(etcd, folder / "log", "node-1") as replica:
        await caught_up(revision, replica)
        size, root = replica.log.size, replica.log.hashes.root(replica.log.size)
    text, copy = text_of(folder / "log"), folder / "copy.jsonl"
    proofs = {"keys": Proofs(KEYS), "checkpoint": Proofs(None, (Checkpoint(ORIGIN, size, root),))}
    copy.write_bytes(text)
    for each in proofs.values():
        assert verify_files([copy], each)[0].entries == size
    dice = random.Random(times)
    for number in range(times):
        spoiled = mutate(text, dice)
        copy.write_bytes(spoiled)
        for name, each in proofs.items():
            if name == "keys" and is_shorter(text, spoiled):
                continue  # a log cut off between two entries is a shorter one; the checkpoint tells
            index = first_bad(copy, each)
            assert index is not None, f"mutation {number} is not noticed by the {name}"
            assert 0 <= index <= size


def first_bad(file: Path, proofs: Proofs) -> int | None:
    try:
        verify_files([file], proofs)
    except Tampered as fault:
        return fault.index
    return None


def mutate(text: bytes, dice: random.Random) -> bytes:
    """One change, of one byte or several, anywhere."""
    place, length = dice.randrange(len(text)), dice.choice((1, 1, 1, 2, 7, 40, 400))
    kind = dice.randrange(4)
    if kind == 0:
        spoiled = text[:place] + text[place + length :]
    elif kind == 1:
        spoiled = text[:place] + dice.randbytes(length) + text[place:]
    elif kind == 2:  # printable, so that many remain JSON
        spoiled = text[:place] + bytes([dice.choice(b'0123456789abcdef"{},: ')]) + text[place + 1 :]
    else:
        spoiled = text[:place] + bytes([text[place] ^ (1 << dice.randrange(8))]) + text[place + 1 :]
    return spoiled if spoiled != text else mutate(text, dice)


def is_shorter(text: bytes, spoiled: bytes) -> bool:
    return text.startswith(spoiled) and (not spoiled or spoiled.endswith(b"\n"))


async def test_any_mutation_of_a_real_log_is_noticed(etcd: Etcd, tmp_path: Path) -> None:
    await spoil(etcd, tmp_path, 1000)


@pytest.mark.heavy
@pytest.mark.timeout(1200)
async def test_ten_thousand_mutations_of_a_real_log_are_noticed(etcd: Etcd, tmp_path: Path) -> None:
    await spoil(etcd, tmp_path, 10_000)


def test_an_entry_changed_on_disk_is_found_at_opening_whichever_it_is(tmp_path: Path) -> None:
    entries = chain(40)
    log = Segments(tmp_path, segment_bytes=4000)
    log.append(entries)
    log.close()
    for index in range(40):
        file = log.path(max(n for n, first in log.firsts.items() if first <= index))
        text = file.read_bytes()
        line = entries[index].line()
        file.write_bytes(text.replace(line, line.replace(b"alice", b"mally")))
        opened = Segments(tmp_path, segment_bytes=4000)
        assert opened.damage is not None and opened.damage.entry == index
        opened.close()
        file.write_bytes(text)
    assert Segments(tmp_path, segment_bytes=4000).damage is None
