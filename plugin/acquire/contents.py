"""What a Variant says, value by value: the way for all that NumPy can't take by its layout (OPC 10000-6, 5.2.2.16).

Numbers are numbers; texts are ``str``; a DateTime is an aware ``datetime``; Guids and names are their text; a NodeId is
its key; an array is a list (of numbers: a NumPy array), a matrix has its dimensions; a structure is a dict by field
name, as the server describes its type. Nothing is registered and no code is made: a description is walked along with
the bytes.
"""

import json
import math
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import Any

import numpy as np

from plugin.acquire.measuring import DEPTH, NUMBERS, Malformed
from plugin.acquire.reading import Key, Reader, key_text

_ARRAY, _DIMENSIONS, _TYPE = 0x80, 0x40, 0x3F
_STRING = b"\x0c"
_STRUCTURE, _VARIANT = 22, 24
_MOST_DIMENSIONS = 32
_EXACT = 2**53  # beyond it a float64 rounds integers

LONGEST_TEXT = 65_536
"""Characters of a text that are kept."""
_MOST_ELEMENTS = 10_000  # of an array, in a text


class Undescribed(LookupError):
    """The server has not been asked yet how structures of an encoding are made up."""

    def __init__(self, encoding: Key) -> None:
        self.encoding = encoding
        super().__init__(f"encoding {key_text(encoding)}")


class StructureKind(IntEnum):
    """StructureType (OPC 10000-3, 8.49)."""

    PLAIN = 0
    OPTIONAL = 1
    UNION = 2
    SUBTYPED = 3
    SUBTYPED_UNION = 4


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a structure (OPC 10000-3, 8.51)."""

    name: str
    type: "int | Structure"
    """Built-in type by its number (24: Variant, 22: any structure), or a structure that stands here itself."""
    rank: int = -1
    """-1: scalar; 1: array; more: matrix, with its dimensions in front."""
    optional: bool = False


@dataclass(slots=True, eq=False)
class Structure:
    """How a structure is made up. A field may lead back to it, so the fields are filled in after it is made."""

    name: str
    kind: StructureKind = StructureKind.PLAIN
    fields: tuple[Field, ...] = ()
    abstract: bool = False
    """As a field it is a structure of some subtype."""


Find = Callable[[Key], Structure | None]
"""The structure of an encoding; None: the server doesn't describe it; raises :class:`Undescribed` to have it asked."""


def content(body: bytes, position: int, find: Find) -> Any:
    """What the Variant at ``position`` says. Raises Malformed, or Undescribed.

    A structure that the server doesn't describe is its bytes.
    """
    if body[position : position + 1] == _STRING:  # the commonest by far
        return Reader(body, position + 1).string()
    return _Walk(body, position, find).variant(0)


class _Walk(Reader):
    """One value. ``_budget`` bounds the work that few bytes can ask for: fields and elements of no size."""

    def __init__(self, body: bytes, position: int, find: Find, end: int | None = None, budget: int = 0) -> None:
        super().__init__(body, position, end)
        self._find = find
        self._budget = budget or 2 * self.left() + 1000

    def _spend(self, count: int) -> None:
        self._budget -= count
        if self._budget < 0:
            raise Malformed("more fields than its size allows")

    def variant(self, depth: int) -> Any:
        if depth > DEPTH:
            raise Malformed("nested too deep")
        encoding = self.unpack("<B", 1)
        kind = encoding & _TYPE
        if not encoding & _ARRAY:
            return self.element(kind, depth)
        size = self.unpack("<i", 4)
        elements = self._elements(kind, max(size, 0), depth)
        if encoding & _DIMENSIONS:
            return _shaped(elements, self._dimensions())
        return None if size < 0 else elements

    def element(self, kind: int, depth: int) -> Any:
        """One element of a built-in type."""
        if kind in NUMBERS:
            return self._number(kind)
        if kind == 0:
            return None
        if kind == _VARIANT:
            return self.variant(depth + 1)
        if kind == _STRUCTURE:
            return self._extension_object(depth + 1)
        if kind == 23:
            return self._data_value(depth + 1)
        return _READERS.get(kind, Reader.byte_string)(self)

    def _number(self, kind: int) -> Any:
        if kind == 1:
            return self.boolean()
        code, size = _CODES[kind]
        return self.unpack(code, size)

    def _elements(self, kind: int, count: int, depth: int) -> Any:
        if kind in NUMBERS:
            code = np.dtype(NUMBERS[kind])
            at = self.skip(count * code.itemsize)
            numbers = np.frombuffer(self.body, code, count, at)
            return numbers != 0 if kind == 1 else numbers
        self._spend(count)
        if count > self.left() and kind:
            raise Malformed(f"{count} elements announced in {self.left()} bytes")
        return [self.element(kind, depth) for _ in range(count)]

    def _dimensions(self) -> list[int]:
        return [self.unpack("<i", 4) for _ in range(self.count())]

    def _data_value(self, depth: int) -> Any:
        mask = self.unpack("<B", 1)
        found = self.variant(depth) if mask & 1 else None
        for bit, size in ((2, 4), (4, 8), (16, 2), (8, 8), (32, 2)):
            if mask & bit:
                self.skip(size)
        return found

    # --- structures ---

    def _extension_object(self, depth: int) -> Any:
        if depth > DEPTH:
            raise Malformed("nested too deep")
        key, encoding = self.node_id(), self.unpack("<B", 1)
        if not encoding:
            return None
        size = self.unpack("<i", 4)
        at = self.skip(size)
        if encoding != 1:
            return self.body[at : self.position].decode("utf-8", "replace")
        structure = self._find(key)
        if structure is None:
            return self.body[at : self.position]
        inner = _Walk(self.body, at, self._find, self.position, self._budget)
        found = inner.structure(structure, depth)
        self._budget = max(inner._budget, 1)
        if inner.left():
            raise Malformed(f"{inner.left()} bytes behind the last field of {structure.name}")
        return found

    def structure(self, structure: Structure, depth: int) -> dict[str, Any] | None:
        """Fields in their order; those that are not there are left out."""
        if depth > DEPTH:
            raise Malformed("nested too deep")
        kind, fields = structure.kind, structure.fields
        if kind in {StructureKind.UNION, StructureKind.SUBTYPED_UNION}:
            chosen = self.uint32()
            if chosen > len(fields):
                raise Malformed(f"{structure.name} has no choice {chosen}")
            fields = fields[chosen - 1 : chosen] if chosen else ()
        elif kind is StructureKind.OPTIONAL:
            present, bits = self.uint32(), 0
            there = []
            for field in fields:
                if not field.optional or present >> bits & 1:
                    there.append(field)
                bits += field.optional
            fields = tuple(there)
        self._spend(len(fields))
        return {field.name: self._field(field, depth) for field in fields}

    def _field(self, field: Field, depth: int) -> Any:
        if field.rank < 0:
            return self._one(field, depth)
        shape = self._dimensions() if field.rank != 1 else []
        count = math.prod(max(size, 0) for size in shape) if field.rank != 1 else max(self.unpack("<i", 4), 0)
        if isinstance(field.type, int):
            elements = self._elements(field.type, count, depth)
        else:
            self._spend(count)
            elements = [self._one(field, depth) for _ in range(count)]
        return _shaped(elements, shape) if shape else elements

    def _one(self, field: Field, depth: int) -> Any:
        if isinstance(field.type, int):
            return self.element(field.type, depth)
        return self.structure(field.type, depth + 1)


_CODES = {
    kind: ("<" + {"l": "q", "L": "Q"}.get(str(code.char), str(code.char)), code.itemsize)
    for kind, code in ((kind, np.dtype(name)) for kind, name in NUMBERS.items())
}

_READERS: dict[int, Callable[[Reader], Any]] = {
    12: Reader.string,
    13: Reader.date_time,
    14: lambda reader: str(reader.guid()),
    15: Reader.byte_string,
    16: Reader.string,
    17: Reader.node_id,
    18: Reader.node_id,
    20: Reader.qualified_name,
    21: Reader.localized_text,
    25: Reader.diagnostic_info,
}


def _shaped(elements: Any, shape: list[int]) -> Any:
    """Elements as a matrix; flat where the dimensions do not fit their number."""
    if not 1 < len(shape) <= _MOST_DIMENSIONS or min(shape) < 1 or math.prod(shape) != len(elements):
        return elements
    if isinstance(elements, np.ndarray):
        return elements.reshape(shape)
    for size in reversed(shape[1:]):
        elements = [elements[at : at + size] for at in range(0, len(elements), size)]
    return elements


# --- as a sample -----------------------------------------------------------------------------------------------


def number_of(said: Any) -> float:
    """The number of a sample; NaN where it is none. A DateTime is seconds since 1970."""
    if isinstance(said, (bool, int, float, np.number, np.bool_)):
        return float(said)
    return said.timestamp() if isinstance(said, datetime) else math.nan


def text_of(said: Any) -> str | None:
    """What the number can't say: a text, the digits of an integer beyond 2^53, an array or a structure as JSON.

    May be longer than :data:`LONGEST_TEXT`; ``None``: the number says it all, or there is nothing to say.
    """
    if isinstance(said, str):
        return said
    if isinstance(said, (bytes, tuple)):
        return str(_plain(said[: LONGEST_TEXT + 1]))
    if isinstance(said, (list, dict, np.ndarray)):
        return json.dumps(_plain(said), ensure_ascii=False, separators=(",", ":"))
    return str(said) if isinstance(said, (int, np.integer)) and abs(int(said)) > _EXACT else None


def _plain(said: Any) -> Any:
    """As JSON has it; no number that JSON has not, and no more of an array than a text may hold."""
    if isinstance(said, dict):
        return {name: _plain(value) for name, value in said.items()}
    if isinstance(said, np.ndarray):
        return _plain(said[: max(1, _MOST_ELEMENTS * len(said) // max(said.size, 1))].tolist())
    if isinstance(said, list):
        return [_plain(value) for value in said[:_MOST_ELEMENTS]]
    written = _WRITTEN.get(type(said))
    return said if written is None else written(said)


_WRITTEN: dict[type, Callable[[Any], Any]] = {
    bytes: lambda said: b64encode(said).decode(),
    tuple: key_text,
    datetime: datetime.isoformat,
    float: lambda said: said if math.isfinite(said) else str(said),
}
