"""Passwords and their SCRAM-SHA-256 verifiers (RFC 5802, RFC 7677), computed here.

PostgreSQL gets only the verifier, so the password is in no statement, no log and no plan of the server.

    SaltedPassword  = PBKDF2-HMAC-SHA-256(password, salt, iterations)        RFC 5802, section 3 (Hi)
    StoredKey       = SHA-256(HMAC(SaltedPassword, "Client Key"))
    ServerKey       = HMAC(SaltedPassword, "Server Key")
    verifier        = "SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>"   as PostgreSQL stores it

A password is 24 random bytes in base64url: 192 bits, which cannot be guessed however few the iterations are;
4096 are the least that RFC 7677 asks for and that every driver takes. Its alphabet is ASCII letters, digits,
`-` and `_`, which SASLprep (RFC 4013) leaves as they are, so none is needed.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets

ITERATIONS = 4096
SALT_BYTES = 16
PASSWORD_BYTES = 24


def new_password() -> str:
    """32 characters that hold 192 random bits."""
    return secrets.token_urlsafe(PASSWORD_BYTES)


def verifier(password: str, salt: bytes | None = None, iterations: int = ITERATIONS) -> str:
    """What PostgreSQL stores in place of `password` (ASCII). `salt`: 16 fresh random bytes when not given."""
    # A salt of its own for each verifier: equal passwords, which do not occur here, would not show either.
    salt = os.urandom(SALT_BYTES) if salt is None else salt
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, iterations)
    # The labels are the RFC's; client and server key must differ, or one would give away the other.
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    stored_key = hashlib.sha256(client_key).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    return f"SCRAM-SHA-256${iterations}:{_text(salt)}${_text(stored_key)}:{_text(server_key)}"


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")
