"""A cursor over encoded bytes: the built-in types one by one (OPC 10000-6, 5.2.2), as plain Python."""

import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from plugin.acquire.measuring import Malformed, diagnostic_info_end

Key = tuple[int, int | str | bytes | UUID]
"""A NodeId of one session: namespace index and identifier."""

_TICKS_TO_1970 = 116_444_736_000_000_000
_LAST_TICKS = 2_650_467_743_999_999_999  # the end of the year 9999
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Reader:
    """Reads from ``position`` up to ``end`` (None: the end of the bytes). Raises :class:`Malformed` beyond it."""

    def __init__(self, body: bytes, position: int = 0, end: int | None = None) -> None:
        self.body = body
        self.position = position
        self.end = len(body) if end is None else end

    def unpack(self, code: str, size: int) -> Any:
        """One number by its struct code."""
        at = self.skip(size)
        return struct.unpack_from(code, self.body, at)[0]

    def skip(self, size: int) -> int:
        """Pass over bytes; returns where they begin."""
        at = self.position
        if size < 0 or at + size > self.end:
            raise Malformed("cut short")
        self.position = at + size
        return at

    def left(self) -> int:
        """Bytes up to the end."""
        return self.end - self.position

    def uint32(self) -> int:
        found: int = self.unpack("<I", 4)
        return found

    def int64(self) -> int:
        found: int = self.unpack("<q", 8)
        return found

    def count(self) -> int:
        """Length of an array, whose elements take a byte each at least; null reads as empty."""
        count: int = max(self.unpack("<i", 4), 0)
        if count > self.left():
            raise Malformed(f"{count} elements announced in {self.left()} bytes")
        return count

    def byte_string(self) -> bytes:
        """Null reads as empty."""
        size = max(self.unpack("<i", 4), 0)
        at = self.skip(size)
        return self.body[at : at + size]

    def string(self) -> str | None:
        """What is no UTF-8 is replaced, not refused."""
        size = self.unpack("<i", 4)
        if size < 0:
            return None
        at = self.skip(size)
        return self.body[at : at + size].decode("utf-8", "replace")

    def boolean(self) -> bool:
        return bool(self.unpack("<B", 1))

    def date_time(self) -> datetime | None:
        """None where there is none; the year 9999 where it is later."""
        ticks = self.int64()
        if ticks <= 0:
            return None
        return _EPOCH + timedelta(microseconds=(min(ticks, _LAST_TICKS) - _TICKS_TO_1970) // 10)

    def guid(self) -> UUID:
        at = self.skip(16)
        return UUID(bytes_le=self.body[at : at + 16])

    def node_id(self) -> Key:
        """Also an ExpandedNodeId; its namespace URI and server are passed over."""
        encoding = self.unpack("<B", 1)
        key = self._identifier(encoding & 0x3F)
        if encoding & 0x80:
            self.string()
        if encoding & 0x40:
            self.skip(4)
        return key

    def _identifier(self, kind: int) -> Key:
        if kind == 0:
            return 0, self.unpack("<B", 1)
        if kind == 1:
            return self.unpack("<B", 1), self.unpack("<H", 2)
        if kind not in _IDENTIFIERS:
            raise Malformed(f"NodeId of kind {kind}")
        return self.unpack("<H", 2), _IDENTIFIERS[kind](self)

    def qualified_name(self) -> str | None:
        namespace, name = self.unpack("<H", 2), self.string()
        return f"{namespace}:{name}" if namespace and name is not None else name

    def localized_text(self) -> str | None:
        """Without its locale."""
        mask = self.unpack("<B", 1)
        if mask & 1:
            self.string()
        return self.string() if mask & 2 else None

    def diagnostic_info(self) -> None:
        """Passed over."""
        self.position = diagnostic_info_end(self.body, self.position)
        if self.position > self.end:
            raise Malformed("cut short")

    def extension_object(self) -> tuple[Key, int, bytes]:
        """Encoding id, kind of encoding (0: no body, 1: binary, 2: XML) and body."""
        key, encoding = self.node_id(), self.unpack("<B", 1)
        return key, encoding, self.byte_string() if encoding else b""


_IDENTIFIERS: dict[int, Callable[[Reader], Any]] = {
    2: Reader.uint32,
    3: lambda reader: reader.string() or "",
    4: Reader.guid,
    5: Reader.byte_string,
}


def key_text(key: Key) -> str:
    """As a person writes a NodeId, by the session's namespace index."""
    namespace, identifier = key
    letter = {int: "i", str: "s", UUID: "g", bytes: "b"}[type(identifier)]
    text = identifier.hex() if isinstance(identifier, bytes) else identifier
    return f"ns={namespace};{letter}={text}" if namespace else f"{letter}={text}"
