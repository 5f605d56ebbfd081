"""Envelopes between their form in memory and their form in etcd."""

from __future__ import annotations

from strongbox.crypto.envelope import Envelope
from strongbox.storage.v1 import envelope_pb2 as storage


def to_record(envelope: Envelope) -> storage.Envelope:
    """As it is stored."""
    return storage.Envelope(
        dek_id=envelope.dek_id,
        term=envelope.term,
        wrapped_dek=envelope.wrapped_dek,
        dek_tag=envelope.dek_tag,
        dek_nonce=envelope.dek_nonce,
        ciphertext=envelope.ciphertext,
        tag=envelope.tag,
        nonce=envelope.nonce,
    )


def from_record(record: storage.Envelope) -> Envelope:
    """The envelope of a record; nothing is checked before it is opened."""
    return Envelope(
        wrapped_dek=record.wrapped_dek,
        dek_tag=record.dek_tag,
        dek_nonce=record.dek_nonce,
        ciphertext=record.ciphertext,
        tag=record.tag,
        nonce=record.nonce,
        term=record.term,
        dek_id=record.dek_id,
    )
