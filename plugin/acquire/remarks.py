"""What is odd about values that are kept all the same: a tag of another type than before, a time before the last one.

All tags of a message at once, in columns by handle. What comes of it is bounded: a remark of a kind per tag, and a line
in the log, once in a minute, and so many per source; all are counted.
"""

import logging
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from plugin.acquire.decoding import Values
from plugin.diagnostics import Diagnostics, some
from plugin.domain import Micros, Quality, Remark, RemarkKind, Tag, from_micros, qualities

_log = logging.getLogger(__name__)

_MINUTE = 60_000_000  # [µs]
_MOST = 1000  # remarks of a source in a minute
_NAMED = 3  # tags in a line of the log
_WORDS = {RemarkKind.TYPE_CHANGED: "have another type", RemarkKind.TIME_WENT_BACK: "went back in time"}

_Rows = NDArray[np.intp]


class Remarks:
    """The remarks of a source. ``tags`` by handle; it may grow."""

    def __init__(self, source: str, tags: Sequence[Tag], diagnostics: Diagnostics) -> None:
        self._source = source
        self._tags = tags
        self._counts = {kind: diagnostics.remarks.labels(source, kind) for kind in RemarkKind}
        self._time = np.zeros(0, np.int64)
        """Source time of the last value that had one, by handle [µs]; 0: none yet."""
        self._type = np.zeros(0, np.int64)
        """Encoding byte of the last value that had one."""
        self._place = np.zeros(0, np.intp)
        self._quiet = {kind: np.zeros(0, np.int64) for kind in RemarkKind}
        """Until when nothing more is said of a tag [µs]."""
        self._logged = dict.fromkeys(RemarkKind, 0)
        self._minute: Micros = 0
        self._said = 0

    def of(self, values: Values, received: Micros) -> tuple[Remark, ...]:
        """What is odd about these, each seen against the one before it of the same tag."""
        self._grow()
        known = values.handle < len(self._time)
        timed = np.flatnonzero(known & values.timed)
        back = self._odd(values, timed, values.source_time, self._time, np.greater)
        typed = np.flatnonzero(known & (values.kind > 0) & (qualities(values.status) != Quality.BAD))
        other = self._odd(values, typed, values.kind & ~np.uint8(_DIMENSIONS), self._type, np.not_equal)
        if not len(back[0]) and not len(other[0]):
            return ()
        return (
            *self._tell(RemarkKind.TYPE_CHANGED, *other, values, received, _retyped),
            *self._tell(RemarkKind.TIME_WENT_BACK, *back, values, received, _late),
        )

    def _grow(self) -> None:
        more = len(self._tags) - len(self._time)
        if more > 0:
            nothing = np.zeros(more, np.int64)
            self._time, self._type = np.append(self._time, nothing), np.append(self._type, nothing)
            self._place = np.append(self._place, nothing)
            self._quiet = {kind: np.append(until, nothing) for kind, until in self._quiet.items()}

    def _odd(
        self,
        values: Values,
        rows: _Rows,
        column: NDArray[np.integer],
        last: NDArray[np.int64],
        differs: Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.bool_]],
    ) -> tuple[_Rows, NDArray[np.int64], NDArray[np.int64]]:
        """Rows that differ so from the one before them of the same tag; what stood there, and what stands here."""
        handle, now = values.handle[rows].astype(np.intp), column[rows].astype(np.int64)
        before = self._before(handle, now, last)
        last[handle] = now  # of several the last one stays
        odd = np.flatnonzero((before != 0) & differs(before, now))
        return rows[odd], before[odd], now[odd]

    def _before(self, handle: _Rows, now: NDArray[np.int64], last: NDArray[np.int64]) -> NDArray[np.int64]:
        here = np.arange(len(handle))
        self._place[handle] = here
        if (self._place[handle] == here).all():  # each tag once
            return last[handle]
        order = np.argsort(handle, kind="stable")
        grouped = handle[order]
        first = np.diff(grouped, prepend=-1) != 0
        shifted = np.roll(now[order], 1)
        shifted[first] = last[grouped[first]]
        before = np.empty_like(now)
        before[order] = shifted
        return before

    def _tell(
        self,
        kind: RemarkKind,
        rows: _Rows,
        before: NDArray[np.int64],
        now: NDArray[np.int64],
        values: Values,
        received: Micros,
        detail: Callable[[NDArray[np.int64], NDArray[np.int64]], str],
    ) -> Iterable[Remark]:
        """One remark for each tag that had none of this kind for a minute."""
        if not len(rows):
            return
        handles, first = np.unique(values.handle[rows], return_index=True)
        self._counts[kind].inc(len(handles))
        loud = self._quiet[kind][handles] <= received
        self._log(kind, handles[loud], received)
        for handle, index in zip(handles[loud][: self._room(received)], first[loud], strict=False):
            mine = values.handle[rows] == handle
            time = from_micros(int(values.source_time[rows[index]]))
            self._said += 1
            self._quiet[kind][handle] = received + _MINUTE
            yield Remark(self._source, self._tags[handle].name, kind, time, detail(before[mine], now[mine]))

    def _room(self, received: Micros) -> int:
        """How many remarks may be made now."""
        if not self._minute <= received < self._minute + _MINUTE:
            self._minute, self._said = received, 0
        return max(0, _MOST - self._said)

    def _log(self, kind: RemarkKind, handles: NDArray[np.uint32], received: Micros) -> None:
        if not len(handles) or received < self._logged[kind] + _MINUTE:
            return
        self._logged[kind] = received
        names = some([self._tags[handle].name for handle in handles.tolist()], _NAMED)
        _log.warning("%s: values of %d tag(s) %s: %s", self._source, len(handles), _WORDS[kind], names)


def _late(before: NDArray[np.int64], now: NDArray[np.int64]) -> str:
    count = "1 value" if len(now) == 1 else f"{len(now)} values"
    return f"{count} up to {int((before - now).max()) / 1e6:g} s older than the one before"


def _retyped(before: NDArray[np.int64], now: NDArray[np.int64]) -> str:
    return f"{_type_name(int(before[0]))} before, {_type_name(int(now[0]))} now"


_ARRAY, _DIMENSIONS = 0x80, 0x40
_TYPES = [
    "Null", "Boolean", "SByte", "Byte", "Int16", "UInt16", "Int32", "UInt32", "Int64", "UInt64", "Float", "Double",
    "String", "DateTime", "Guid", "ByteString", "XmlElement", "NodeId", "ExpandedNodeId", "StatusCode",
    "QualifiedName", "LocalizedText", "Structure", "DataValue", "Variant", "DiagnosticInfo",
]  # fmt: skip


def _type_name(encoding: int) -> str:
    kind = encoding & 0x3F
    name = _TYPES[kind] if kind < len(_TYPES) else f"type {kind}"
    return f"{name} array" if encoding & _ARRAY else name
