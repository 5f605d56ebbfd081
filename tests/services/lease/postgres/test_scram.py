"""Verifiers are those of the RFCs, and PostgreSQL takes them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re

from services.lease.postgres import scram


def test_a_verifier_is_that_of_rfc_7677() -> None:
    # RFC 7677, section 3: user "user", password "pencil", this salt, 4096 iterations.
    made = scram.verifier("pencil", base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="), 4096)
    stored, server = made.split("$")[2].split(":")
    # Its ServerSignature and proof come from these two keys (checked against the exchange in the RFC below).
    assert made.startswith("SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$")
    exchange = (
        b"n=user,r=rOprNGfwEbeRWgbNEkqO,"
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,"
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    )
    signature = hmac.digest(base64.b64decode(server), exchange, "sha256")
    assert base64.b64encode(signature) == b"6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    client = hmac.digest(base64.b64decode(stored), exchange, "sha256")
    proof = base64.b64decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
    key = bytes(a ^ b for a, b in zip(client, proof, strict=True))
    assert hashlib.sha256(key).digest() == base64.b64decode(stored)


def test_passwords_need_no_saslprep_and_do_not_repeat() -> None:
    made = {scram.new_password() for _ in range(1000)}
    assert len(made) == 1000
    assert all(re.fullmatch("[A-Za-z0-9_-]{32}", one) for one in made)
    assert scram.verifier("same") != scram.verifier("same")
