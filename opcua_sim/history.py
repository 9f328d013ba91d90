"""HistoryRead of raw values (OPC 10000-4, 5.11.3; OPC 10000-11, 6.5.3), computed from the plant and encoded in bulk.

Continuation points are opaque and hold all that is needed to go on, signed by this process: the server keeps nothing
for them, so nothing has to be released. Bounding values are not returned. A response has at most
:data:`MAX_VALUES_PER_RESPONSE` values, shared between the nodes of the request.
"""

import asyncio
import hashlib
import hmac
import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from asyncua import ua
from asyncua.common.utils import ServiceError
from numpy.typing import NDArray

from opcua_sim.clock import Clock, Micros
from opcua_sim.faults import Series
from opcua_sim.plant import Plant
from opcua_sim.tags import Tag

MAX_VALUES_PER_NODE = 10_000
MAX_VALUES_PER_RESPONSE = 100_000
MAX_NODES = 1_000

_UNIX_TICKS = 116_444_736_000_000_000  # from 1601 to 1970 in units of 100 ns, the ticks of OPC UA
_HISTORY_DATA = ua.NodeId(ua.Int32(ua.ObjectIds.HistoryData_Encoding_DefaultBinary))
_NO_TIME = ua.get_win_epoch()
_POSITION = struct.Struct("<?qqq")
_SIGNATURE_BYTES = 16
_UNLIMITED = -1

_Status = ua.StatusCodes


@dataclass(frozen=True, slots=True)
class Position:
    """What is still to be read of one node."""

    backward: bool
    start: int
    """First step."""
    end: int
    """Step after the last."""
    limit: int
    """Values that may still be returned in all; -1: as many as there are."""


class History:
    """The past of a plant's tags; stands where asyncua has its HistoryManager."""

    def __init__(
        self, plant: Plant, tags: Mapping[ua.NodeId, Tag], knows: Callable[[ua.NodeId], bool], clock: Clock
    ) -> None:
        """``tags``: by node; ``knows``: whether a node exists at all."""
        self._plant = plant
        self._tags = tags
        self._knows = knows
        self._secret = os.urandom(32)
        self._clock = clock
        self.next_step = clock.present
        """Steps before this one are over: only what was known by then is history."""

    async def init(self) -> None:
        """Called by asyncua; nothing is to be prepared."""

    async def stop(self) -> None:
        """Called by asyncua; nothing is held."""

    async def read_history(self, params: ua.HistoryReadParameters) -> list[ua.HistoryReadResult]:
        """Answer a HistoryRead request; faults of single nodes are in their results."""
        nodes = params.NodesToRead
        if not nodes:
            raise ServiceError(_Status.BadNothingToDo)
        if len(nodes) > MAX_NODES:
            raise ServiceError(_Status.BadTooManyOperations)
        if params.TimestampsToReturn not in _STAMPS:
            raise ServiceError(_Status.BadTimestampsToReturnInvalid)
        if params.ReleaseContinuationPoints:
            return [ua.HistoryReadResult() for _ in nodes]
        page = min(MAX_VALUES_PER_NODE, max(1, MAX_VALUES_PER_RESPONSE // len(nodes)))
        results = []
        for node in nodes:
            results.append(self._read(params, node, page))
            await asyncio.sleep(0)  # live values go on between two nodes
        return results

    def update_history(self, params: ua.HistoryUpdateParameters) -> list[ua.HistoryUpdateResult]:
        """The past can't be changed."""
        refusal = _status(_Status.BadHistoryOperationUnsupported)
        return [ua.HistoryUpdateResult(StatusCode=refusal) for _ in params.HistoryUpdateDetails]

    def _read(self, params: ua.HistoryReadParameters, node: ua.HistoryReadValueId, page: int) -> ua.HistoryReadResult:
        tag = self._tags.get(node.NodeId)
        details = params.HistoryReadDetails
        if tag is None:
            known = self._knows(node.NodeId)
            return _refused(_Status.BadHistoryOperationUnsupported if known else _Status.BadNodeIdUnknown)
        if not isinstance(details, ua.ReadRawModifiedDetails) or details.IsReadModified:
            return _refused(_Status.BadHistoryOperationUnsupported)
        if node.ContinuationPoint:
            position = self._unseal(node)
            if position is None:
                return _refused(_Status.BadContinuationPointInvalid)
        else:
            position = self._begin(tag, details)
            if position is None:
                return _refused(_Status.BadHistoryOperationInvalid)
        if details.NumValuesPerNode:
            page = min(page, details.NumValuesPerNode)
        series, rest = self._page(tag, position, page)
        times = self._clock.times
        stamps = (times(series.step), times(series.step + tag.feature.delay))
        body = encode(series, tag.feature.counter, *_STAMPS[params.TimestampsToReturn](*stamps))
        return ua.HistoryReadResult(
            StatusCode=_status(_Status.Good if len(series) else _Status.GoodNoData),
            ContinuationPoint=self._seal(node.NodeId, rest) if rest else None,
            HistoryData=ua.ExtensionObject(_HISTORY_DATA, ua.ByteString(body)),
        )

    def _begin(self, tag: Tag, details: ua.ReadRawModifiedDetails) -> Position | None:
        """Where a request begins; None where it says too little (OPC 10000-11, 6.5.3.2: two of start, end, number)."""
        start, end, number = _micros(details.StartTime), _micros(details.EndTime), int(details.NumValuesPerNode)
        clock = self._clock
        oldest, newest = self._plant.first_step(tag), self.next_step - tag.feature.delay

        def steps(first: Micros | None, last: Micros | None) -> tuple[int, int]:
            low = oldest if first is None else max(oldest, clock.first_step(first))
            high = newest if last is None else min(newest, clock.first_step(last))
            return low, high

        if start is None and end is None:
            return None
        if start is None and end is not None:
            return Position(True, *steps(None, end + 1), number or _UNLIMITED)
        if end is None:
            return Position(False, *steps(start, None), number or _UNLIMITED)
        if start is not None and start > end:
            return Position(True, *steps(end + 1, start + 1), _UNLIMITED)
        if start == end:
            return Position(False, *steps(start, end + 1), _UNLIMITED)
        return Position(False, *steps(start, end), _UNLIMITED)

    def _page(self, tag: Tag, position: Position, page: int) -> tuple[Series, Position | None]:
        """Values of one page, in the order asked for, and what is left."""
        low, high, limit = position.start, position.end, position.limit
        wanted = page if limit == _UNLIMITED else min(page, limit)
        parts: list[Series] = []
        found = 0
        while found < wanted and low < high:  # more than once only where a fault left a hole
            width = max(wanted - found, 256)
            if position.backward:
                part = self._plant.series(tag, max(low, high - width), high)
                part = _rows(part, slice(None, None, -1))
            else:
                part = self._plant.series(tag, low, min(high, low + width))
            taken = _rows(part, slice(wanted - found))
            whole = len(taken) == len(part)
            if position.backward:
                high = max(low, high - width) if whole else int(taken.step[-1])
            else:
                low = min(high, low + width) if whole else int(taken.step[-1]) + 1
            parts.append(taken)
            found += len(taken)
        left = limit if limit == _UNLIMITED else limit - found
        rest = Position(position.backward, low, high, left) if low < high and left else None
        return _join(parts), rest

    def _seal(self, node: ua.NodeId, position: Position) -> bytes:
        raw = _POSITION.pack(position.backward, position.start, position.end, position.limit)
        return raw + self._sign(node, raw)

    def _unseal(self, node: ua.HistoryReadValueId) -> Position | None:
        raw, signature = node.ContinuationPoint[: _POSITION.size], node.ContinuationPoint[_POSITION.size :]
        if not hmac.compare_digest(signature, self._sign(node.NodeId, raw)):
            return None
        return Position(*_POSITION.unpack(raw))

    def _sign(self, node: ua.NodeId, raw: bytes) -> bytes:
        text = node.to_string().encode()
        return hashlib.blake2b(raw + text, key=self._secret, digest_size=_SIGNATURE_BYTES).digest()


def encode(series: Series, counter: bool, source: NDArray[np.int64] | None, server: NDArray[np.int64] | None) -> bytes:
    """The body of a HistoryData (OPC 10000-6, 5.2.2.17): its DataValues, laid out by NumPy in one pass.

    All rows get the widest layout; what a row does not have is then left out byte by byte: a Bad value has no Variant.
    """
    number = ("u1", "<u4") if counter else ("u1", "<f8")
    fields = [("mask", "u1"), ("type", number[0]), ("value", number[1])]
    has_status = bool(series.status.any())
    if has_status:
        fields.append(("status", "<u4"))
    fields += [(name, "<i8") for name, times in (("source", source), ("server", server)) if times is not None]
    rows = np.zeros(len(series), np.dtype(fields))
    empty = np.isnan(series.value)
    rows["mask"] = (
        np.where(empty, 0, 0x01) | 0x02 * has_status | 0x04 * (source is not None) | 0x08 * (server is not None)
    )
    rows["type"] = (ua.VariantType.UInt32 if counter else ua.VariantType.Double).value
    rows["value"] = np.where(empty, 0, series.value)
    if has_status:
        rows["status"] = series.status
    if source is not None:
        rows["source"] = source * 10 + _UNIX_TICKS
    if server is not None:
        rows["server"] = server * 10 + _UNIX_TICKS
    body = rows.tobytes()
    if empty.any():
        octets = np.frombuffer(body, np.uint8).reshape(len(rows), rows.dtype.itemsize)
        keep = np.ones(octets.shape, np.bool_)
        keep[empty, 1 : 1 + 1 + np.dtype(number[1]).itemsize] = False
        body = octets[keep].tobytes()
    return struct.pack("<i", len(series)) + body


_Times = NDArray[np.int64]
_STAMPS: dict[ua.TimestampsToReturn, Callable[[_Times, _Times], tuple[_Times | None, _Times | None]]] = {
    ua.TimestampsToReturn.Source: lambda source, _: (source, None),
    ua.TimestampsToReturn.Server: lambda _, server: (None, server),
    ua.TimestampsToReturn.Both: lambda source, server: (source, server),
}


def _refused(code: int) -> ua.HistoryReadResult:
    return ua.HistoryReadResult(StatusCode=_status(code))


def _status(code: int) -> ua.StatusCode:
    return ua.StatusCode(ua.UInt32(code))


def _micros(time: datetime | None) -> Micros | None:
    """Microseconds since 1970; None where a request leaves the time open (null or the year 1601)."""
    if time is None or time <= _NO_TIME:
        return None
    return ua.datetime_to_win_epoch(time) // 10 - _UNIX_TICKS // 10


def _rows(series: Series, rows: slice) -> Series:
    return Series(series.step[rows], series.value[rows], series.status[rows])


def _join(parts: list[Series]) -> Series:
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return Series(np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.uint32))
    columns = zip(*((part.step, part.value, part.status) for part in parts), strict=True)
    return Series(*(np.concatenate(column) for column in columns))
