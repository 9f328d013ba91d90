"""How long an encoded value is, and where its fields stand (OPC 10000-6, 5.2.2). Its content is not looked at."""

import struct
from collections.abc import Callable, Iterator

import numpy as np

VALUE, STATUS, SOURCE, SERVER, SOURCE_PICO, SERVER_PICO = 1, 2, 4, 8, 16, 32
_ARRAY, _DIMENSIONS, _TYPE = 0x80, 0x40, 0x3F

NUMBERS = {
    1: "u1",  # Boolean
    2: "i1",
    3: "u1",
    4: "<i2",
    5: "<u2",
    6: "<i4",
    7: "<u4",
    8: "<i8",
    9: "<u8",
    10: "<f4",
    11: "<f8",
    19: "<u4",  # StatusCode
}
"""Built-in types (OPC 10000-6, table 1) that are numbers on the wire."""
_FIXED = {0: 0, 13: 8, 14: 16}  # Null, DateTime, Guid
SIZES = {**{kind: np.dtype(code).itemsize for kind, code in NUMBERS.items()}, **_FIXED}
"""Bytes of the types whose length does not depend on the value."""

DEPTH = 16
"""Variants in Variants, structures in structures; deeper is an attack."""

TAIL = (
    (STATUS, "status", "<u4"),
    (SOURCE, "source", "<i8"),
    (SOURCE_PICO, "source_pico", "<u2"),
    (SERVER, "server", "<i8"),
    (SERVER_PICO, "server_pico", "<u2"),
)
"""Fields behind the Value, in their order: bit of the mask, name, type."""


class Malformed(ValueError):
    """The bytes are no encoding of what should stand there; the message's rest can't be read."""


_TAIL_LENGTHS = [sum(np.dtype(code).itemsize for bit, _, code in TAIL if mask & bit) for mask in range(256)]


def tail_length(mask: int) -> int:
    """Bytes of the fields behind the Value."""
    return _TAIL_LENGTHS[mask]


def measure(body: bytes, position: int, prefix: int) -> tuple[int, int]:
    """End of the Variant of the value that starts here, and end of the value."""
    mask = unpacked("<B", body, position + prefix)
    position = _bounded(body, position + prefix + 1)
    if mask & VALUE:
        position = variant_end(body, position)
    return position, _bounded(body, position + tail_length(mask))


def variant_end(body: bytes, position: int, depth: int = 0) -> int:
    """End of the Variant that starts here."""
    if depth > DEPTH:
        raise Malformed("nested too deep")
    encoding = unpacked("<B", body, position)
    kind, position = encoding & _TYPE, position + 1
    if encoding & _ARRAY:
        count = unpacked("<i", body, position)
        position += 4
        if kind in SIZES:
            position = _bounded(body, position + max(count, 0) * SIZES[kind])
        else:
            for _ in _counted(body, count):
                position = _element_end(body, position, kind, depth)
        if encoding & _DIMENSIONS:
            position += 4 + 4 * max(unpacked("<i", body, position), 0)
    else:
        position = _element_end(body, position, kind, depth)
    return _bounded(body, position)


def _element_end(body: bytes, position: int, kind: int, depth: int) -> int:
    """End of one element of a built-in type (OPC 10000-6, table 1)."""
    if kind in SIZES:
        return position + SIZES[kind]
    return _ELEMENT_ENDS.get(kind, _string_end)(body, position, depth)


def _string_end(body: bytes, position: int, _depth: int = 0) -> int:
    """String, ByteString, XmlElement; and the reserved types 26 to 31, which read as ByteString."""
    return _bounded(body, position + 4 + max(unpacked("<i", body, position), 0))


def _qualified_name_end(body: bytes, position: int, _depth: int = 0) -> int:
    return _string_end(body, position + 2)


def _node_id_end(body: bytes, position: int, _depth: int = 0) -> int:
    encoding = unpacked("<B", body, position)
    position += 1
    kind = encoding & _TYPE
    fixed = {0: 1, 1: 3, 2: 6, 4: 18}
    if kind in fixed:
        position += fixed[kind]
    elif kind in (3, 5):
        position = _string_end(body, position + 2)
    else:
        raise Malformed(f"NodeId of kind {kind}")
    if encoding & 0x80:
        position = _string_end(body, position)
    return position + 4 if encoding & 0x40 else position


def _localized_text_end(body: bytes, position: int, _depth: int = 0) -> int:
    mask = unpacked("<B", body, position)
    position += 1
    for bit in (1, 2):
        if mask & bit:
            position = _string_end(body, position)
    return position


def _extension_object_end(body: bytes, position: int, _depth: int = 0) -> int:
    position = _node_id_end(body, position)
    encoding = unpacked("<B", body, position)
    if not encoding:
        return position + 1
    if unpacked("<i", body, position + 1) < 0:
        raise Malformed("structure without a length")
    return _string_end(body, position + 1)


def _data_value_end(body: bytes, position: int, depth: int) -> int:
    mask = unpacked("<B", body, position)
    position = variant_end(body, position + 1, depth + 1) if mask & VALUE else position + 1
    return position + tail_length(mask)


def diagnostic_info_end(body: bytes, position: int, depth: int = 0) -> int:
    """End of a DiagnosticInfo (OPC 10000-6, 5.2.2.12)."""
    if depth > DEPTH:
        raise Malformed("nested too deep")
    mask = unpacked("<B", body, position)
    position += 1 + 4 * (mask & 0xF).bit_count()
    if mask & 0x10:
        position = _string_end(body, position)
    if mask & 0x20:
        position += 4
    return diagnostic_info_end(body, position, depth + 1) if mask & 0x40 else position


_ELEMENT_ENDS: dict[int, Callable[[bytes, int, int], int]] = {
    17: _node_id_end,
    18: _node_id_end,
    20: _qualified_name_end,
    21: _localized_text_end,
    22: _extension_object_end,
    23: _data_value_end,
    24: lambda body, position, depth: variant_end(body, position, depth + 1),
    25: diagnostic_info_end,
}


def _counted(body: bytes, count: int) -> Iterator[int]:
    if count > len(body):
        raise Malformed(f"{count} elements announced in {len(body)} bytes")
    return iter(range(count))


def _bounded(body: bytes, position: int) -> int:
    if position > len(body):
        raise Malformed("cut short")
    return position


def unpacked(code: str, body: bytes, position: int) -> int:
    """One number by its struct code. Raises :class:`Malformed` behind the end."""
    try:
        found: int = struct.unpack_from(code, body, position)[0]
    except struct.error as error:
        raise Malformed("cut short") from error
    return found
