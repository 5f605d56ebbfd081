r"""Checkpoints: a log's size and root, signed (C2SP tlog-checkpoint v1, signed-note v1). No I/O.

    <origin>\n                 the log's name: strongbox.internal/<cluster id>/audit
    <size>\n                   entries, decimal
    <root>\n                   the Merkle root over them (strongbox.audit_log.merkle), base64
    \n
    — <name> <base64(4 bytes of key hash ‖ 64 bytes of signature)>\n

The name is the origin. The key hash is the beginning of SHA-256(name ‖ "\n" ‖ 0x01 ‖ public key): it only
tells keys apart. The signature is Ed25519 over everything before the empty line, its newline included. A
note with further signatures (witnesses') is read as well: ours must be there and right.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass

from strongbox.audit_log.merkle import HASH_BYTES
from strongbox.crypto.ed25519 import PUBLIC_BYTES, SIGNATURE_BYTES, SigningKey, is_signed

_ED25519 = b"\x01"
_HASH_BYTES = 4
_MARK = "— "
_LONGEST = 64 << 10  # characters; ours have some 200


class BadCheckpoint(Exception):
    """It is not a checkpoint, or not signed by the key given; the text says which."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A log of `size` entries whose Merkle root is `root` (32 bytes)."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """What is signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


def origin_of(cluster_id: str) -> str:
    """The log's name, which is its key's name too."""
    return f"strongbox.internal/{cluster_id}/audit"


def key_hash(name: str, public: bytes) -> bytes:
    """The four bytes that say in a signature line which key made it."""
    return hashlib.sha256(name.encode() + b"\n" + _ED25519 + public).digest()[:_HASH_BYTES]


def verifier_key(name: str, public: bytes) -> str:
    """The key as tools for signed notes take it: name+hash+key."""
    return f"{name}+{key_hash(name, public).hex()}+{base64.b64encode(_ED25519 + public).decode()}"


def sign(checkpoint: Checkpoint, key: SigningKey) -> str:
    """The signed note."""
    text, name = checkpoint.text(), checkpoint.origin
    signature = key_hash(name, key.public) + key.sign(text.encode())
    return f"{text}\n{_MARK}{name} {base64.b64encode(signature).decode()}\n"


def verify(note: str, public: bytes, origin: str = "") -> Checkpoint:
    """What the note says, if `public` (32 bytes) signed it; `origin`, if given, is the log it must name.

    Raises BadCheckpoint.
    """
    if len(public) != PUBLIC_BYTES:
        raise BadCheckpoint("the public key does not have 32 bytes")
    text, checkpoint = _parse(note)
    if origin and checkpoint.origin != origin:
        raise BadCheckpoint("the checkpoint is another log's")
    wanted = key_hash(checkpoint.origin, public)
    ours = [raw for name, raw in _signatures(note, text) if name == checkpoint.origin and raw[:4] == wanted]
    if not ours:
        raise BadCheckpoint("the checkpoint is not signed with this key")
    if not all(is_signed(public, text.encode(), raw[_HASH_BYTES:]) for raw in ours):
        raise BadCheckpoint("the checkpoint's signature is not right")
    return checkpoint


def _parse(note: str) -> tuple[str, Checkpoint]:
    text, gap, _ = note.rpartition("\n\n")
    lines = text.split("\n")
    if not gap or len(note) > _LONGEST or len(lines) < 3 or not lines[0]:
        raise BadCheckpoint("this is not a checkpoint")
    origin, size, root = lines[:3]
    # One text for a number: no sign, no leading zero, ASCII digits only.
    if not (size.isascii() and size.isdigit() and len(size) < 19 and size == str(int(size))):
        raise BadCheckpoint("the checkpoint's size is not a number")
    return text + "\n", Checkpoint(origin, int(size), _decoded(root, HASH_BYTES, "root"))


def _signatures(note: str, text: str) -> list[tuple[str, bytes]]:
    found = []
    for line in note[len(text) + 1 :].splitlines():
        name, space, signature = line.removeprefix(_MARK).partition(" ")
        if not line.startswith(_MARK) or not space:
            raise BadCheckpoint("a line of the checkpoint is not a signature")
        raw = _decoded(signature, 0, "signature")
        if len(raw) == _HASH_BYTES + SIGNATURE_BYTES:  # others' may be of another kind
            found.append((name, raw))
    return found


def _decoded(text: str, length: int, what: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise BadCheckpoint(f"the checkpoint's {what} is not base64") from None
    # Base64 has spare bits in its last digit: only one text for each root and signature is accepted.
    if (length and len(raw) != length) or base64.b64encode(raw).decode() != text:
        raise BadCheckpoint(f"the checkpoint's {what} is malformed")
    return raw
