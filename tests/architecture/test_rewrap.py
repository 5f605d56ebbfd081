"""What holds an envelope is rewrapped by somebody: else it is lost when its key term is retired."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

from strongbox.config import SERVICES
from strongbox.storage.v1 import envelope_pb2
from strongbox.store import keyspace

ROOT = Path(__file__).resolve().parents[2]


def test_every_stored_message_with_an_envelope_in_it_is_known_to_the_rewrap_duties() -> None:
    assert set(_holders()) == set(keyspace.HOLDERS), "keyspace.HOLDERS, and the duty of the service it names"


def test_every_service_that_keeps_anything_under_a_key_term_tells_how_far_it_is() -> None:
    owners = {*keyspace.AUTHENTICATED, *keyspace.ENVELOPES, *keyspace.HOLDERS.values()}
    assert owners == set(keyspace.REWRAPS)
    for service in owners:
        assert service in SERVICES
        main = (ROOT / "services" / service / "__main__.py").read_text("utf-8")
        assert f'runtime.duty("rewrap-{service}"' in main


def _holders() -> Iterator[str]:
    for path in sorted((ROOT / "strongbox/storage/v1").glob("*_pb2.py")):
        file = importlib.import_module(f"strongbox.storage.v1.{path.stem}").DESCRIPTOR
        for message in file.message_types_by_name.values():
            if any(field.message_type is envelope_pb2.Envelope.DESCRIPTOR for field in message.fields):
                yield str(message.name)
