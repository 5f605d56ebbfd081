"""Where a gateway may be, and that a token never goes out in clear."""

from __future__ import annotations

import pytest

from strongbox.client.address import Address
from strongbox.errors import InvalidInput


@pytest.mark.parametrize(
    ("text", "target", "tls"),
    [
        ("http://127.0.0.1:8201", "127.0.0.1:8201", False),
        ("http://127.0.0.1:8201/\r\n", "127.0.0.1:8201", False),
        ("http://localhost:8201", "localhost:8201", False),
        ("http://[::1]:8201", "[::1]:8201", False),
        ("127.0.0.1:8201", "127.0.0.1:8201", False),
        ("https://127.0.0.1:8301", "127.0.0.1:8301", True),
        ("https://box.example", "box.example:443", True),
        ("box.example:8443", "box.example:8443", True),
    ],
)
def test_an_address_is_a_url_or_host_and_port(text: str, target: str, tls: bool) -> None:
    assert Address.parse(text) == Address(target, tls)


@pytest.mark.parametrize("text", ["http://box.example:8201", "http://10.0.0.1:8201", "http://0.0.0.0:8201"])
def test_plain_http_to_another_machine_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="https"):
        Address.parse(text)


@pytest.mark.parametrize(
    "text",
    ["", "127.0.0.1", "ftp://127.0.0.1:1", "http://127.0.0.1:99999", "http://127.0.0.1:1/v1", "http://u:p@127.0.0.1:1",
     "http://127.0.0.1:1?x", "http://[::1", "unix:/run/box"],
)  # fmt: skip
def test_what_is_no_gateways_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        Address.parse(text)
