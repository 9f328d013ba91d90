"""What asyncua 2.1.0 unpacks from a few bytes without bound, bounded (for the whole process; see :func:`guard`).

Variants stand in every request, also in the header of one that opens a channel, long before anybody is asked who it is:

* an array of Null takes no byte for an element: a message of 300 bytes became two thousand million of them;
* Dimensions that announce more elements than there are were filled up, a million lists for 13 bytes.

A number that is none of TimestampsToReturn's is unpacked as its Invalid, which has a status code of its own.

What can't be unpacked is answered with BadDecodingError; asyncua calls it an internal error, and logs it each time.
"""

import struct
from collections.abc import Sequence
from typing import Any

from asyncua import ua
from asyncua.common.utils import Buffer, ServiceError
from asyncua.server import uaprocessor
from asyncua.ua import ua_binary

_PADDED = 16
"""Elements that may be lacking, of a matrix one of whose dimensions is 0."""

_NOT_DECODED = (ua.UaError, ValueError, TypeError, OverflowError, RecursionError, struct.error)
"""What unpacking raises: too few bytes, a number that no enumeration has, text that is none, nested too deep …"""

_reshape = ua_binary._reshape


class _Nothings:
    """Arrays of Null: there are none but the empty one (OPC 10000-6, 5.2.2.16)."""

    @staticmethod
    def pack_array(array: Sequence[Any] | None) -> bytes:
        return (-1 if array is None else len(array)).to_bytes(4, "little", signed=True)

    @staticmethod
    def unpack_array(_: Any, length: int) -> tuple[Any, ...]:
        if length > 0:
            raise ua.UaError(f"an array of {length} Null")
        return ()


def _bounded_reshape(flat: list[Any], dims: list[int]) -> list[Any]:
    """As asyncua's, for as many elements as there are."""
    announced = dims[0] if dims else 0
    for size in dims[1:]:
        announced *= size or 1
    if announced > max(len(flat), _PADDED if 0 in dims else 0):
        raise ua.UaError(f"dimensions of {announced} elements where there are {len(flat)}")
    return _reshape(flat, dims)


def decoded(kind: Any, body: Buffer) -> Any:
    """As asyncua's ``struct_from_binary``; ServiceError BadDecodingError for bytes that are no such thing."""
    try:
        return ua_binary.struct_from_binary(kind, body)
    except _NOT_DECODED:
        raise ServiceError(ua.StatusCodes.BadDecodingError) from None


def guard() -> None:
    """From now on; again does no harm."""
    nothings: Any = _Nothings
    guarded: Any = decoded
    ua_binary.Primitives1.Null = nothings  # type: ignore[attr-defined]
    ua_binary._reshape = _bounded_reshape
    uaprocessor.struct_from_binary = guarded
    ua.TimestampsToReturn._missing_ = classmethod(lambda kind, _: kind.Invalid)  # type: ignore[assignment]
    for cached in (ua_binary._create_uatype_array_deserializer, ua_binary.create_uatype_array_serializer):
        cached.cache_clear()
