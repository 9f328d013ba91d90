"""One file of a journal: frames one behind the other, each with its length and CRC.

frame    magic, length, CRC-32, rows, number (24 bytes, little endian), payload
head     a frame with the number 0, the first one: whatever its owner needs to read the others; its rows are the
         second (since 1970) in which the file was begun
"""

import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_MAGIC = b"FTSP"
_HEADER = struct.Struct("<4sIIIQ")
_UNSIGNED = struct.Struct("<IIQ")


@dataclass(frozen=True, slots=True)
class Frame:
    """One append."""

    number: int
    rows: int
    payload: bytes
    size: int
    """In the file [byte]."""


@dataclass(frozen=True, slots=True)
class Damage:
    """A stretch of a file that was written whole and is no longer readable."""

    offset: int
    size: int
    """[byte]"""


@dataclass(slots=True)
class Segment:
    """A file."""

    path: Path
    head: bytes
    end: int
    """Of its last frame [byte]."""
    last: int
    """Number of its last frame; 0: it has none yet."""
    rows: int
    """In the frames that are not released."""
    begun: int = 0
    """Second since 1970."""
    damaged: bool = False
    """It holds a stretch that can't be read."""


def look_through(path: Path, released: int) -> Segment:
    """A file of a run before this one."""
    segment = Segment(path, b"", 0, 0, 0)
    offset = 0
    for content in contents(path, 0, path.stat().st_size):
        offset += content.size
        if isinstance(content, Damage):
            continue
        segment.end = offset
        if content.number:
            segment.last = content.number
            segment.rows += content.rows if content.number > released else 0
        else:
            segment.head, segment.begun = content.payload, content.rows
    return segment


def framed(number: int, rows: int, parts: Sequence[bytes]) -> list[bytes]:
    length = sum(len(part) for part in parts)
    crc = zlib.crc32(_UNSIGNED.pack(length, rows, number))
    for part in parts:
        crc = zlib.crc32(part, crc)
    return [_HEADER.pack(_MAGIC, length, crc, rows, number), *parts]


def write_all(file: int, parts: Sequence[bytes]) -> int:
    """All of it: a disk that fills up takes a part, and tells of its error at the next write."""
    data = memoryview(b"".join(parts))
    written = 0
    while written < len(data):
        written += os.write(file, data[written:])
    return written


def contents(path: Path, offset: int, end: int) -> Iterator[Frame | Damage]:
    """What a file holds from ``offset`` to ``end``, its head included where it begins there."""
    try:
        opened = path.open("rb", buffering=0)
    except FileNotFoundError:
        yield Damage(offset, end - offset)
        return
    with opened:
        file = opened.fileno()
        while offset < end:
            frame = _frame_at(file, offset, end)
            size = frame.size if frame else _next_frame(file, offset + 1, end) - offset
            yield frame or Damage(offset, size)
            offset += size


def _frame_at(file: int, offset: int, end: int) -> Frame | None:
    header = _read(file, _HEADER.size, offset)
    if len(header) < _HEADER.size:
        return None
    magic, length, crc, rows, number = _HEADER.unpack(header)
    size = _HEADER.size + length
    if magic != _MAGIC or offset + size > end:
        return None
    payload = _read(file, length, offset + _HEADER.size)
    if zlib.crc32(payload, zlib.crc32(_UNSIGNED.pack(length, rows, number))) != crc:
        return None
    return Frame(number, rows, payload, size)


def _next_frame(file: int, offset: int, end: int) -> int:
    """Where the next whole frame begins; ``end`` where there is none."""
    rest = _read(file, end - offset, offset)
    place = rest.find(_MAGIC)
    while place >= 0:
        if _frame_at(file, offset + place, end) is not None:
            return offset + place
        place = rest.find(_MAGIC, place + 1)
    return end


def _read(file: int, size: int, offset: int) -> bytes:
    """What the disk gives: of a sector that it can't read, nothing."""
    try:
        return os.pread(file, size, offset)
    except OSError:
        return b""


def remove(segment: Segment) -> None:
    """Delete it; one that can't be read whole is kept, for a person to look at."""
    if segment.damaged and segment.path.exists():
        segment.path.rename(segment.path.with_suffix(".damaged"))
    else:
        segment.path.unlink(missing_ok=True)
