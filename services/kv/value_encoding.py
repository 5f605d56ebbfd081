"""Values: text, an object or bytes, checked and encoded as the plaintext that is sealed.

    plaintext = kind (1 byte) ‖ content

    t   UTF-8 text
    d   a google.protobuf.Struct, serialized deterministically (numbers stay the doubles they are)
    b   bytes

Limits: 512 KiB of content, as it is stored; an object is at most 32 deep (itself counted), its numbers are
finite and below 2^53 in magnitude: beyond that a double does not hold every integer, and a large id would
silently become another one. No error message quotes what was sent.
"""

from __future__ import annotations

import math

from google.protobuf import struct_pb2

from strongbox.errors import InvalidInput, TooLarge
from strongbox.kv.v1 import kv_service_pb2 as pb

MAX_BYTES = 512 << 10
MAX_DEPTH = 32
MAX_NUMBER = 2**53
_TEXT, _DATA, _BINARY = b"t", b"d", b"b"


def plaintext_of(request: pb.WriteSecretRequest) -> bytes:
    """The plaintext to seal: kind and content. Raises `InvalidInput` and `TooLarge`."""
    given = [name for name in ("value", "data", "binary") if request.HasField(name)]
    if len(given) != 1:
        raise InvalidInput("a secret is exactly one of value, data and binary")
    if request.HasField("value"):
        kind, content = _TEXT, request.value.encode()
    elif request.HasField("binary"):
        kind, content = _BINARY, request.binary
    else:
        require_sound(request.data)
        kind, content = _DATA, request.data.SerializeToString(deterministic=True)
    if len(content) > MAX_BYTES:
        raise TooLarge(f"a value has at most {MAX_BYTES} bytes")
    return kind + content


def fill(response: pb.ReadSecretResponse, plaintext: bytes) -> None:
    """Put the plaintext into the answer. It is authenticated, so it has the form above."""
    kind, content = plaintext[:1], plaintext[1:]
    if kind == _TEXT:
        response.value = content.decode()
    elif kind == _BINARY:
        response.binary = content
    else:
        response.data.MergeFromString(content)
        response.data.SetInParent()


def require_sound(data: struct_pb2.Struct) -> None:
    """Raise `InvalidInput` for an object that is too deep or holds a number that a double cannot keep."""
    waiting: list[tuple[struct_pb2.Value, int]] = [(value, 1) for value in data.fields.values()]
    while waiting:
        value, depth = waiting.pop()
        inner = _children(value)
        if inner is None:
            continue
        if depth >= MAX_DEPTH:
            raise InvalidInput(f"data is at most {MAX_DEPTH} deep")
        waiting.extend((child, depth + 1) for child in inner)


def _children(value: struct_pb2.Value) -> list[struct_pb2.Value] | None:
    """What a list or an object holds; `None` for a leaf. Raises `InvalidInput` for an invalid leaf."""
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return list(value.struct_value.fields.values())
    if kind == "list_value":
        return list(value.list_value.values)
    if kind is None:
        raise InvalidInput("data holds a value of no kind")
    if kind == "number_value" and not (math.isfinite(value.number_value) and _is_exact(value.number_value)):
        raise InvalidInput("numbers in data are below 2^53; send larger ones as text")
    return None


def _is_exact(number: float) -> bool:
    return abs(number) < MAX_NUMBER
