"""Listings: pages without gap or repetition, cost that does not follow what is below, hidden names."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.kv.list_secrets import MAX_FETCHES, Listing
from strongbox.crypto.record_keys import RecordKeys
from strongbox.errors import InvalidInput, InvalidPath, PermissionDenied, Unauthenticated
from strongbox.paths import DirectoryPath
from strongbox.store import keyspace
from tests.services.kv.support import Kv
from tests.support.fakes import FakeStore

KEYS = RecordKeys({1: b"k" * 32}, 1)
SEGMENTS = st.sampled_from(["a", "b", "a-", "a0", "ä", "c.d", "zz"])
PATHS = st.sets(st.lists(SEGMENTS, min_size=1, max_size=4).map("/".join), max_size=25)


def pages(store: FakeStore, prefix: str, size: int, *, recursive: bool) -> list[list[str]]:
    found, token = [], ""
    while True:
        page = Listing(DirectoryPath.parse(prefix), size, token, KEYS, recursive=recursive)
        while not page.is_over:
            start, end, limit = page.wanted()
            page.take((row.key for row in store.range(start, end, limit)), lambda *_: True)
        found.append(page.names)
        token = page.token
        if not token:
            return found


def expected(paths: set[str], prefix: str, *, recursive: bool) -> list[str]:
    below = [path.removeprefix(prefix) for path in paths if path.startswith(prefix)]
    names = {name if recursive or "/" not in name else name.split("/")[0] + "/" for name in below}
    return sorted(names, key=str.encode)


@given(PATHS, st.sampled_from(["", "a/", "b", "a/a"]), st.integers(1, 5), st.booleans())
@settings(max_examples=200, deadline=None)
def test_pages_together_are_the_listing(paths: set[str], prefix: str, size: int, recursive: bool) -> None:
    store = FakeStore()
    for path in paths:
        store.seed(keyspace.head(path), b"")
    found = pages(store, prefix, size, recursive=recursive)
    directory = DirectoryPath.parse(prefix).prefix
    assert [name for page in found for name in page] == expected(paths, directory, recursive=recursive)
    assert all(len(page) <= size for page in found)


async def test_one_level_jumps_over_what_is_below(kv: Kv) -> None:
    for number in range(500):
        kv.store.seed(keyspace.head(f"big/{number}"), b"")
    kv.store.seed(keyspace.head("z"), b"")
    page = Listing(DirectoryPath.parse(""), 100, "", KEYS, recursive=False)
    read = 0
    while not page.is_over:
        rows = kv.store.range(*page.wanted())
        read += len(rows)
        page.take((row.key for row in rows), lambda *_: True)
    assert page.names == ["big/", "z"]
    assert read <= 102


def test_a_page_takes_a_bounded_number_of_reads_and_goes_on_with_the_next() -> None:
    store = FakeStore()
    for directory in range(2 * MAX_FETCHES):
        for number in range(4):
            store.seed(keyspace.head(f"{directory:03d}/{number}"), b"")
    page = Listing(DirectoryPath.parse(""), 1000, "", KEYS, recursive=False)
    while not page.is_over:
        start, end, _ = page.wanted()
        page.take((row.key for row in store.range(start, end, 1000)), lambda *_: False)
    assert page.fetches <= MAX_FETCHES
    found = pages(store, "", 2, recursive=False)
    assert sum(map(len, found)) == 2 * MAX_FETCHES


async def test_a_deny_below_the_directory_is_obeyed_one_level_and_recursively(kv: Kv) -> None:
    for path in ("app/a", "app/hidden", "app/sub/x", "app/secret/x"):
        await kv.write(path)
    rules = {"secret/app/*": "list", "secret/app/hidden": "deny", "secret/app/secret/*": "deny"}
    kv.put_policy("lister", rules)
    token = kv.add_token(policies=["lister"])
    assert list((await kv.list("app", token=token)).names) == ["a", "sub/"]
    assert list((await kv.list("app", token=token, recursive=True)).names) == ["a", "sub/x"]
    with pytest.raises(PermissionDenied):
        await kv.list("app/secret", token=token)


async def test_a_recursive_listing_shows_nothing_the_caller_could_not_list(kv: Kv) -> None:
    for path in ("app/a", "app/sub/x"):
        await kv.write(path)
    kv.put_policy("here", {"secret/app/": "list", "secret/app/+": "list"})
    token = kv.add_token(policies=["here"])
    assert list((await kv.list("app", token=token, recursive=True)).names) == ["a"]


async def test_listing_a_directory_needs_list_on_it(kv: Kv) -> None:
    token = kv.token_of(secret__app__ALL="list")
    assert list((await kv.list("app/", token=token)).names) == []
    for prefix in ("", "ap", "app2"):
        with pytest.raises(PermissionDenied):
            await kv.list(prefix, token=token)


async def test_a_listing_is_audited_once_however_many_reads_it_takes(kv: Kv) -> None:
    for directory in "abc":
        for number in range(5):
            kv.store.seed(keyspace.head(f"{directory}/{number}"), b"")
    answer = await kv.list(page_size=3)
    assert list(answer.names) == ["a/", "b/", "c/"]
    assert [draft.path for draft in kv.pipeline.audited] == ["secret/"]


@pytest.mark.parametrize(
    "fields", [{"page_size": -1}, {"page_token": "!"}, {"page_token": "x" * 5000}, {"page_size": 1001}]
)
async def test_bad_sizes_and_tokens_are_refused(kv: Kv, fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        await kv.list(**fields)


@pytest.mark.parametrize("prefix", ["/", "a//", "../a", "a/./b", "a%2f"])
async def test_a_prefix_that_is_not_canonical_is_refused(kv: Kv, prefix: str) -> None:
    with pytest.raises(InvalidPath):
        await kv.list(prefix)


async def test_a_page_token_leads_nowhere_but_on_in_its_listing(kv: Kv) -> None:
    for path in ("app/a", "app/b", "zoo/a", "zoo/b"):
        await kv.write(path)
    token = (await kv.list("zoo", page_size=1)).next_page_token
    for foreign in (token, "_w", "AA", "enp6"):
        with pytest.raises(InvalidInput):
            await kv.list("app", page_token=foreign)
    assert list((await kv.list("zoo", page_token=token)).names) == ["b"]


async def test_a_page_token_tells_no_name_that_is_not_shown(kv: Kv) -> None:
    for number in range(3 * MAX_FETCHES):
        kv.store.seed(keyspace.head(f"app/hidden-{number:03d}"), b"")
    kv.put_policy("lister", {"secret/app/": "list", "secret/app/*": "list", "secret/app/hidden*": "deny"})
    page = await kv.list("app", token=kv.add_token(policies=["lister"]), page_size=1)
    assert not page.names
    raw = page.next_page_token
    assert raw
    assert b"hidden" not in base64.urlsafe_b64decode(raw + "=" * (-len(raw) % 4))


async def test_a_deny_of_a_directory_hides_what_is_below_from_recursive_listings(kv: Kv) -> None:
    for path in ("app/a", "app/hidden/x", "app/hidden/y/z", "app/open/x"):
        await kv.write(path)
    kv.put_policy("lister", {"secret/app/*": "list", "secret/app/hidden/": "deny"})
    token = kv.add_token(policies=["lister"])
    assert list((await kv.list("app", token=token)).names) == ["a", "open/"]
    assert list((await kv.list("app", token=token, recursive=True)).names) == ["a", "open/x"]


async def test_who_is_not_let_in_waits_for_no_listing_slot(kv: Kv) -> None:
    walking = kv.servicer._walking
    async with walking, walking:  # all of them are taken
        async with asyncio.timeout(5):
            with pytest.raises(Unauthenticated):
                await kv.list(token="sb." + "x" * 43)
