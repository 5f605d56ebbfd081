"""Secret bytes: no accidental way out, and nothing left after wiping."""

from __future__ import annotations

import copy
import json
import logging
import pickle

import pytest

from strongbox.crypto import WipedError
from strongbox.crypto.secret_bytes import SecretBytes


def test_expose_is_the_one_door() -> None:
    secret = SecretBytes.copy_of(b"hunter2")
    assert secret.expose() == b"hunter2"
    assert bytes(secret.view()) == b"hunter2"
    assert len(secret) == 7


def test_printing_formatting_and_logging_give_nothing_away(caplog: pytest.LogCaptureFixture) -> None:
    secret = SecretBytes.copy_of(b"hunter2")
    logging.getLogger("test").warning("secret %s %r", secret, secret)
    shown = f"{secret} {secret!r} {[secret]}" + str({"a": secret}) + caplog.text
    assert "hunter" not in shown
    assert "SecretBytes(…)" in shown


def test_bytes_pickling_copying_and_json_are_refused() -> None:
    secret = SecretBytes.copy_of(b"hunter2")
    for attempt in (bytes, copy.copy, copy.deepcopy, json.dumps, hash):
        with pytest.raises(TypeError) as caught:
            attempt(secret)
        assert "hunter" not in str(caught.value)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError):
            pickle.dumps(secret, protocol)


def test_wiping_zeroes_the_very_buffer_that_was_handed_over() -> None:
    buffer = bytearray(b"hunter2")
    secret = SecretBytes(buffer)
    secret.wipe()
    secret.wipe()
    assert buffer == bytearray(7)


def test_every_use_after_wiping_raises() -> None:
    secret, other = SecretBytes.copy_of(b"x"), SecretBytes.copy_of(b"\0")
    secret.wipe()
    for use in (secret.expose, secret.view, lambda: secret == other, lambda: other == secret):
        with pytest.raises(WipedError):
            use()


def test_a_with_block_wipes_even_when_it_raises() -> None:
    secret = SecretBytes.copy_of(b"x")
    with pytest.raises(KeyError), secret:
        raise KeyError
    with pytest.raises(WipedError):
        secret.expose()


def test_a_view_is_read_only_and_reads_zeros_after_wiping() -> None:
    secret = SecretBytes.copy_of(b"hunter2")
    view = secret.view()
    with pytest.raises(TypeError):
        view[0] = 0
    secret.wipe()
    assert bytes(view) == bytes(7)


def test_equality_looks_at_the_contents_and_other_types_are_never_equal() -> None:
    assert SecretBytes.copy_of(b"a") == SecretBytes.copy_of(b"a")
    assert SecretBytes.copy_of(b"a") != SecretBytes.copy_of(b"b")
    assert SecretBytes.copy_of(b"a") != SecretBytes.copy_of(b"aa")
    assert SecretBytes.copy_of(b"a") != b"a"


def test_a_copy_is_independent_of_its_source() -> None:
    source = bytearray(b"hunter2")
    secret = SecretBytes.copy_of(source)
    source[:] = bytes(7)
    assert secret.expose() == b"hunter2"
