"""Argon2id: vectors of others, bounded concurrency, an event loop that goes on."""

from __future__ import annotations

import asyncio
import time

import pytest

from services.auth.logins.password_hashing import MAX_WAITING, Passwords, is_outdated, require_new
from strongbox.errors import InvalidInput, RateLimited

# Made by the reference implementation in C (its own tests, version 0x13, "password" and "somesalt").
REFERENCE = [
    "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
    "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
    "$argon2id$v=19$m=256,t=2,p=2$c29tZXNhbHQ$bQk8UB/VmZZF4Oo79iDXuL5/0ttZwg2f/5U52iv1cDc",
]


def later(seconds: float = 10.0) -> float:
    return time.monotonic() + seconds


@pytest.fixture
def passwords() -> Passwords:
    return Passwords(workers=1)


@pytest.mark.parametrize("stored", REFERENCE)
async def test_hashes_of_the_reference_implementation_verify(passwords: Passwords, stored: str) -> None:
    assert await passwords.verify(stored, "password", later())
    assert not await passwords.verify(stored, "Password", later())
    assert is_outdated(stored)


async def test_a_hash_says_its_parameters_and_has_a_salt_of_its_own(passwords: Passwords) -> None:
    one, other = [await passwords.hash("twelve characters", later()) for _ in range(2)]
    assert one.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert one != other
    assert not is_outdated(one)


@pytest.mark.parametrize(
    "stored",
    [
        "", "nonsense", "$argon2id$", "$argon2id$v=19$m=1,t=1,p=1$$", "plain text password",
        "$argon2i$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$wWKIMhR9lyDFvRz9YTZweHKfbftvj+qf+YFY4NeBbtA",
        "$2b$12$abcdefghijklmnopqrstuuJ5yM1dBLD6U8vJgM1sKlcWcF8XPnGDe",
    ],
)  # fmt: skip
async def test_what_is_no_argon2id_hash_matches_nothing(passwords: Passwords, stored: str) -> None:
    assert not await passwords.verify(stored, "password", later())


async def test_nothing_matches_where_there_is_no_hash(passwords: Passwords) -> None:
    assert not await passwords.verify(None, "", later())


async def test_as_many_run_at_once_as_there_are_workers_and_the_loop_goes_on(passwords: Passwords) -> None:
    stall, before = 0.0, time.monotonic()

    async def watch() -> None:
        nonlocal stall, before
        while True:
            await asyncio.sleep(0.001)
            now = time.monotonic()
            stall, before = max(stall, now - before), now

    watcher = asyncio.create_task(watch())
    threads: set[int] = set()
    jobs = [passwords.hash(f"password {n}", later(30)) for n in range(20)]
    await asyncio.gather(*jobs)
    watcher.cancel()
    threads |= {thread.ident or 0 for thread in passwords._pool._threads}
    assert len(threads) == 1
    assert stall < 0.25


async def test_who_would_wait_too_long_is_told_so_at_once(passwords: Passwords) -> None:
    jobs = [asyncio.create_task(passwords.hash("x" * 12, later(60))) for _ in range(MAX_WAITING + 1)]
    await asyncio.sleep(0)
    with pytest.raises(RateLimited):
        await passwords.hash("x" * 12, later(60))
    for job in jobs[5:]:
        job.cancel()
    await asyncio.gather(*jobs, return_exceptions=True)
    assert await passwords.hash("x" * 12, later(60))


async def test_a_deadline_ends_the_waiting(passwords: Passwords) -> None:
    first = asyncio.create_task(passwords.hash("x" * 12, later()))
    await asyncio.sleep(0)
    with pytest.raises(RateLimited):
        await passwords.hash("x" * 12, later(0.02))  # half of it is for what the login needs afterwards
    await first


async def test_a_hash_that_took_too_long_is_refused_and_tells_nothing(
    passwords: Passwords, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes after the hash would meet its deadline half-done: an outcome nobody knows."""
    stored = await passwords.hash("x" * 12, later())
    monkeypatch.setattr("services.auth.logins.password_hashing._matches", lambda *_: time.sleep(0.4) or True)
    for password in ("x" * 12, "y" * 12):
        with pytest.raises(RateLimited):
            await passwords.verify(stored, password, later(0.7))
    assert await passwords.verify(stored, "x" * 12, later())


def test_a_password_is_bounded_before_it_is_normalized(monkeypatch: pytest.MonkeyPatch) -> None:
    """A megabyte of combining marks would hold the interpreter for two minutes."""

    def normal(_: str) -> str:
        raise AssertionError("looked at")

    monkeypatch.setattr("services.auth.logins.password_hashing.normal", normal)
    with pytest.raises(InvalidInput):
        require_new("a" + "\u0301\u0327" * 260_000)
