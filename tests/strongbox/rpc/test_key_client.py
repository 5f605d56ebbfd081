"""The way to the seal service, with replicas that refuse, hang, die and come back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest

from strongbox.crypto.envelope import Dek
from strongbox.crypto.errors import IntegrityError
from strongbox.crypto.record_keys import RecordKeys
from strongbox.errors import DependencyDown, NoQuorum, Sealed
from strongbox.rpc import key_client as module
from strongbox.rpc.key_client import KeyClient
from tests.support.certs import Identities
from tests.support.seals import RECORD_KEYS, FakeSeal

Made = Callable[..., Awaitable[KeyClient]]


@pytest.fixture
async def seals(identities: Identities) -> AsyncIterator[list[FakeSeal]]:
    """Two replicas, the own node's first."""
    made = [FakeSeal(identities) for _ in range(2)]  # type: ignore[abstract]  # StreamKeys is what is asked
    for seal in made:
        await seal.start()
    yield made
    for seal in made:
        await seal.stop()


@pytest.fixture
async def keys(identities: Identities, seals: list[FakeSeal]) -> AsyncIterator[KeyClient]:
    """The client of a kv process; not started, so that only what a test asks is asked."""
    client = KeyClient(identities.of("kv", tuple(seal.address for seal in seals)))
    yield client
    await client.close()


async def _until(condition: Callable[[], bool], within: float = 5.0) -> None:
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.01)


async def test_what_is_wrapped_is_unwrapped(keys: KeyClient) -> None:
    deks = [Dek.fresh() for _ in range(3)]
    wrapped = await keys.wrap(deks)
    assert await keys.unwrap(wrapped) == [dek.key for dek in deks]
    assert await keys.unwrap([]) == []


async def test_what_is_asked_together_goes_as_one_request(keys: KeyClient, seals: list[FakeSeal]) -> None:
    deks = [Dek.fresh() for _ in range(50)]
    several = await asyncio.gather(*(keys.wrap([dek]) for dek in deks))
    assert len(seals[0].asked) == 1
    wrapped = [one for (one,) in several]
    assert [one.id for one in wrapped] == [dek.id for dek in deks]
    again = await asyncio.gather(*(keys.unwrap([one, wrapped[0]]) for one in wrapped))
    assert again == [[dek.key, deks[0].key] for dek in deks]
    assert len(seals[0].asked) == 2
    assert len(seals[0].asked[1].unwrap) == 50, "the same key is asked for once"


async def test_one_altered_key_fails_only_who_asked_for_it(keys: KeyClient) -> None:
    dek = Dek.fresh()
    (good,) = await keys.wrap([dek])
    bad = replace(good, tag=bytes(16))
    first, second = await asyncio.gather(keys.unwrap([bad]), keys.unwrap([good]), return_exceptions=True)
    assert isinstance(first, IntegrityError)
    assert second == [dek.key]


async def test_a_caller_who_leaves_takes_nobodys_answer_with_him(keys: KeyClient) -> None:
    leaving = asyncio.create_task(keys.wrap([Dek.fresh()]))
    staying = asyncio.create_task(keys.wrap([Dek.fresh()]))
    await asyncio.sleep(0)
    leaving.cancel()
    assert len(await staying) == 1


async def test_the_own_nodes_replica_is_asked(keys: KeyClient, seals: list[FakeSeal]) -> None:
    for _ in range(5):
        await keys.wrap([Dek.fresh()])
    assert (len(seals[0].asked), len(seals[1].asked)) == (5, 0)


async def test_a_dead_replica_is_replaced_by_the_next(keys: KeyClient, seals: list[FakeSeal]) -> None:
    await keys.wrap([Dek.fresh()])
    await seals[0].stop()
    started = time.monotonic()
    await keys.wrap([Dek.fresh()])
    assert time.monotonic() - started < 0.5
    assert seals[1].asked


async def test_a_stream_that_breaks_under_way_is_asked_elsewhere(
    keys: KeyClient, seals: list[FakeSeal]
) -> None:
    seals[0].delay = 0.4
    asked = asyncio.create_task(keys.wrap([Dek.fresh()]))
    await _until(lambda: bool(seals[0].asked))
    await seals[0].stop()
    assert len(await asked) == 1


async def test_a_slow_replica_is_left_for_the_next_and_not_asked_again_at_once(
    keys: KeyClient, seals: list[FakeSeal]
) -> None:
    seals[0].delay = 5
    started = time.monotonic()
    await keys.wrap([Dek.fresh()])
    assert time.monotonic() - started < 1.0
    started = time.monotonic()
    await keys.wrap([Dek.fresh()])
    assert time.monotonic() - started < 0.3


async def test_a_replica_that_came_back_is_the_first_choice_again(
    keys: KeyClient, seals: list[FakeSeal], monkeypatch: pytest.MonkeyPatch
) -> None:
    await keys.wrap([Dek.fresh()])
    await seals[0].stop()
    await keys.wrap([Dek.fresh()])
    await seals[0].start_again()
    await asyncio.sleep(2.1)
    seals[0].asked.clear()
    await keys.wrap([Dek.fresh()])
    assert seals[0].asked


async def test_a_replica_that_nothing_is_asked_of_is_connected_and_connected_again(
    identities: Identities, seals: list[FakeSeal]
) -> None:
    """Else the question after the first's end pays for lookup, connection and handshake of the next."""
    seen = 0

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        seen += 1
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = KeyClient(identities.of("kv", (seals[0].address, f"127.0.0.1:{port}")))
    await client.start()
    try:
        await _until(lambda: seen >= 2)
        assert client.record_keys is not None
    finally:
        await client.close()
        server.close()


async def test_without_any_replica_the_seal_service_is_down(keys: KeyClient, seals: list[FakeSeal]) -> None:
    for seal in seals:
        await seal.stop()
    started = time.monotonic()
    with pytest.raises(DependencyDown):
        await keys.wrap([Dek.fresh()])
    assert time.monotonic() - started < module.DEADLINE + 0.2


async def test_one_sealed_replica_is_not_the_cluster(keys: KeyClient, seals: list[FakeSeal]) -> None:
    seals[0].error = "SEALED"
    await keys.wrap([Dek.fresh()])
    seals[1].error = "SEALED"
    with pytest.raises(Sealed):
        await keys.wrap([Dek.fresh()])


async def test_a_replica_without_quorum_does_not_make_the_cluster_sealed(
    keys: KeyClient, seals: list[FakeSeal]
) -> None:
    seals[0].error, seals[1].error = "SEALED", "NO_QUORUM"
    with pytest.raises(NoQuorum):
        await keys.wrap([Dek.fresh()])


async def test_the_gateway_gets_no_keys(identities: Identities, seals: list[FakeSeal]) -> None:
    client = KeyClient(identities.of("gateway", (seals[0].address,)))
    with pytest.raises(DependencyDown):
        await client.wrap([Dek.fresh()])
    assert not seals[0].asked
    await client.close()


async def test_record_keys_come_with_the_unsealing_and_go_with_the_sealing(
    keys: KeyClient, seals: list[FakeSeal]
) -> None:
    told: list[str] = []
    keys.on_sealed(lambda: told.append("sealed"))
    keys.on_unsealed(lambda: told.append("unsealed"))
    for seal in seals:
        seal.error = "SEALED"
    await keys.start()
    await _until(lambda: len(seals[0].asked) >= 2)
    assert keys.record_keys is None
    assert told == []
    for seal in seals:
        seal.error = ""
    async with asyncio.timeout(2):
        await keys.wait_unsealed()
    assert keys.record_keys == RecordKeys(RECORD_KEYS, 1)
    for seal in seals:
        seal.error = "SEALED"
    await _until(lambda: keys.record_keys is None, within=2)
    assert told == ["unsealed", "sealed"]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await keys.wait_unsealed()


async def test_an_unsealing_is_heard_at_once_and_a_sealed_cluster_is_asked_seldom(
    keys: KeyClient, seals: list[FakeSeal]
) -> None:
    for seal in seals:
        seal.error, seal.patient = "SEALED", True
    await keys.start()
    await asyncio.sleep(1.5)
    assert sum(len(seal.asked) for seal in seals) <= 6
    assert all(request.wait for seal in seals for request in seal.asked)
    for seal in seals:
        seal.open()
    async with asyncio.timeout(0.15):
        await keys.wait_unsealed()
    for seal in seals:
        seal.asked.clear()
    await asyncio.sleep(1.2)
    assert seals[0].asked
    assert not any(request.wait for request in seals[0].asked), "a sealing would be heard late"


async def test_replicas_that_do_not_wait_are_not_asked_faster(keys: KeyClient, seals: list[FakeSeal]) -> None:
    for seal in seals:
        seal.error = "SEALED"
    await keys.start()
    await asyncio.sleep(1.1)
    assert 2 <= len(seals[0].asked) <= 6


async def test_a_new_term_is_known_within_a_second(keys: KeyClient, seals: list[FakeSeal]) -> None:
    await keys.start()
    await keys.wait_unsealed()
    for seal in seals:
        seal.record_keys[2] = b"2" * 32
    await _until(lambda: keys.record_keys is not None and keys.record_keys.newest == 2, within=1.5)


async def test_a_replica_that_is_behind_takes_nobody_back_to_an_older_term(
    keys: KeyClient, seals: list[FakeSeal]
) -> None:
    for seal in seals:
        seal.record_keys[2] = b"2" * 32
    await keys.start()
    await keys.wait_unsealed()
    del seals[0].record_keys[2]  # the own node's replica: another one had answered before
    seals[0].asked.clear()
    end = time.monotonic() + 1.6
    while time.monotonic() < end:
        assert keys.record_keys is not None and keys.record_keys.newest == 2
        await asyncio.sleep(0.02)
    assert len(seals[0].asked) >= 2 and {one.term for one in seals[0].asked} == {2}


async def test_silence_of_all_replicas_is_a_sealing_after_two_seconds(
    keys: KeyClient, seals: list[FakeSeal]
) -> None:
    await keys.start()
    await keys.wait_unsealed()
    for seal in seals:
        await seal.stop()
    started = time.monotonic()
    await _until(lambda: keys.record_keys is None, within=6)
    assert 1.0 < time.monotonic() - started < 5.0


async def test_one_of_two_replicas_is_enough_to_stay_unsealed(keys: KeyClient, seals: list[FakeSeal]) -> None:
    await keys.start()
    await keys.wait_unsealed()
    await seals[0].stop()
    end = time.monotonic() + 3
    while time.monotonic() < end:
        assert keys.record_keys is not None
        await asyncio.sleep(0.05)


async def test_nothing_secret_is_shown_of_the_keys(keys: KeyClient) -> None:
    await keys.start()
    await keys.wait_unsealed()
    assert "1111" not in repr(keys.record_keys)


async def test_what_was_decided_leaves_within_two_seconds_of_its_proof_and_not_after_a_sealing(
    keys: KeyClient, seals: list[FakeSeal]
) -> None:
    """By the monotonic clock, so a process that was stopped meanwhile finds its proof stale."""
    with pytest.raises(Sealed):
        keys.require_unsealed_since(time.monotonic())
    await keys.start()
    await _until(lambda: keys.record_keys is not None)
    proven = time.monotonic()
    keys.require_unsealed_since(proven)
    with pytest.raises(NoQuorum):
        keys.require_unsealed_since(proven - module.PROOF_S)
    for seal in seals:
        seal.error = "SEALED"
    await _until(lambda: keys.record_keys is None)
    for seal in seals:
        seal.error = ""
    await _until(lambda: keys.record_keys is not None)
    with pytest.raises(Sealed):
        keys.require_unsealed_since(proven)
    keys.require_unsealed_since(time.monotonic())
