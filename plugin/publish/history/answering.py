"""HistoryRead: what is asked for, node by node, within bounds of time, values and readers at once."""

import asyncio
import math
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from asyncua import ua
from asyncua.common.utils import ServiceError

from plugin.diagnostics import Diagnostics
from plugin.domain import Micros, to_micros
from plugin.errors import StoreError
from plugin.publish.cells import status_code
from plugin.publish.event_filter import EventFilter
from plugin.publish.history.arithmetic import AGGREGATES, Terms
from plugin.publish.history.events import EventReading, Told
from plugin.publish.history.past import Past
from plugin.publish.history.processed import AtTimeReading, ProcessedReading
from plugin.publish.history.raw import ModifiedReading, RawReading, Reading
from plugin.publish.points import Points
from plugin.publish.stamps import Stamps, asked_stamps

PAGE = 5000
"""Values of one node in one answer, at most."""
_ANSWER = 50_000
"""Values of one answer, about: one of each node at least."""
_SECONDS = 10.0
_TIMES = 100_000
"""Times of one request, each counted for each node."""
_SHORTEST = 1.0  # of an interval [ms]
_AT_ONCE = 4
_CODES = ua.StatusCodes
_NULL = datetime(1601, 1, 2, tzinfo=UTC)
_OPEN = datetime(9999, 1, 1, tzinfo=UTC)


class History:
    """Answers to HistoryRead. ``find`` gives the past of a node, None where it has none; ``exists``: there is one."""

    def __init__(
        self,
        find: Callable[[ua.NodeId], Past | None],
        exists: Callable[[ua.NodeId], bool],
        diagnostics: Diagnostics,
        events: Told | None = None,
        assets: Callable[[ua.NodeId], str | None] = lambda _: None,
    ) -> None:
        """``events``: those of the past; ``assets``: whose a node tells, empty: of all; None: it tells of none."""
        self._events = events
        self._assets = assets
        self._find = find
        self._exists = exists
        self._reads = diagnostics.history_reads
        self._turn = asyncio.Semaphore(_AT_ONCE)

    async def answer(self, params: ua.HistoryReadParameters, points: Points) -> list[ua.HistoryReadResult]:
        """One result per node; ``points``: of the session. ServiceError where all of the request is wrong."""
        nodes = params.NodesToRead or []
        if not nodes:
            raise ServiceError(_CODES.BadNothingToDo)
        if params.ReleaseContinuationPoints:
            return [_result(_release(node, points)) for node in nodes]
        stamps = asked_stamps(params.TimestampsToReturn)
        if not (stamps.source or stamps.server):  # without times there is no history (OPC 10000-4, 5.11.3)
            raise ServiceError(_CODES.BadTimestampsToReturnInvalid)
        if len(nodes) * len(getattr(params.HistoryReadDetails, "ReqTimes", None) or ()) > _TIMES:
            raise ServiceError(_CODES.BadTooManyOperations)
        points.begin()
        ends, left, results = asyncio.get_running_loop().time() + _SECONDS, _ANSWER, []
        for place, node in enumerate(nodes):
            most = max(1, min(PAGE, left // (len(nodes) - place)))
            result, count = await self._answer(node, place, params.HistoryReadDetails, stamps, points, most, ends)
            left -= count
            results.append(result)
        return results

    async def _answer(
        self, node: Any, place: int, details: Any, stamps: Stamps, points: Points, most: int, ends: float
    ) -> tuple[ua.HistoryReadResult, int]:
        what, result, count = type(details).__name__, _result(_CODES.BadTimeout), 0
        try:
            async with asyncio.timeout_at(ends), self._turn:
                reading = self._reading(node, place, details, stamps, points)
                page = await reading.page(most)
            if node.ContinuationPoint:  # what could not be answered may be asked for again
                points.release(node.ContinuationPoint)
            count = page.count
            point = points.keep(node.NodeId, page.rest, page.weight) if page.rest is not None else None
            status = _CODES.Good if page.count or page.rest is not None else _CODES.GoodNoData
            if page.rest is not None and point is None:
                status = _CODES.BadNoContinuationPoints
            result = _result(status, point, page.content)
        except TimeoutError:
            pass
        except ServiceError as error:
            result = _result(error.code)
        except StoreError:
            result = _result(_CODES.BadResourceUnavailable)
        self._reads.labels(what, result.StatusCode.name).inc()
        return result, count

    def _reading(self, asked: Any, place: int, details: Any, stamps: Stamps, points: Points) -> Reading:
        """What is to be read; ServiceError where it can't be."""
        if asked.ContinuationPoint:
            rest: Reading | None = points.find(asked.NodeId, asked.ContinuationPoint)
            if rest is None:
                raise ServiceError(_CODES.BadContinuationPointInvalid)
            return rest
        past = self._find(asked.NodeId)
        if isinstance(details, ua.ReadEventDetails) and self._events is not None:
            return _events(self._events, self._assets(asked.NodeId), details)
        if past is None:
            known = self._exists(asked.NodeId)
            raise ServiceError(_CODES.BadHistoryOperationUnsupported if known else _CODES.BadNodeIdUnknown)
        if asked.IndexRange:
            raise ServiceError(_CODES.BadIndexRangeInvalid)
        if isinstance(details, ua.ReadRawModifiedDetails):
            return _modified(past, details, stamps) if details.IsReadModified else _raw(past, details, stamps)
        if isinstance(details, ua.ReadAtTimeDetails):
            return _at_time(past, details, stamps)
        if isinstance(details, ua.ReadProcessedDetails):
            return _processed(past, details, place, stamps)
        raise ServiceError(_CODES.BadHistoryOperationUnsupported)


def _raw(past: Past, details: ua.ReadRawModifiedDetails, stamps: Stamps) -> RawReading:
    """At least two of start, end and number are needed (OPC 10000-11, 6.5.3.2)."""
    start, end, number = moment(details.StartTime), moment(details.EndTime), int(details.NumValuesPerNode)
    bounds = bool(details.ReturnBounds)
    if start is not None and end is not None:
        return RawReading(past, stamps, start, end, end < start, bounds, number)
    begin = start if start is not None else end
    if begin is None or not number:
        raise ServiceError(_CODES.BadHistoryOperationInvalid)
    return RawReading(past, stamps, begin, None, start is None, bounds, 0, left=number)


def _modified(past: Past, details: ua.ReadRawModifiedDetails, stamps: Stamps) -> ModifiedReading:
    start, end = moment(details.StartTime), moment(details.EndTime)
    if start is None or end is None:
        raise ServiceError(_CODES.BadHistoryOperationInvalid)
    span = (start, end) if start < end else (end + 1, start + 1)
    return ModifiedReading(past, stamps, *span, end < start, int(details.NumValuesPerNode))


def _at_time(past: Past, details: ua.ReadAtTimeDetails, stamps: Stamps) -> AtTimeReading:
    times = [moment(time) for time in details.ReqTimes or ()]
    if not times or None in times:
        raise ServiceError(_CODES.BadHistoryOperationInvalid)
    known = tuple(time for time in times if time is not None)
    return AtTimeReading(past, stamps, Terms(stepped=past.stepped), known, bool(details.UseSimpleBounds))


def _processed(past: Past, details: ua.ReadProcessedDetails, place: int, stamps: Stamps) -> ProcessedReading:
    """An interval of 0 is all of the range (OPC 10000-11, 6.5.4.2)."""
    begin, end, kinds = moment(details.StartTime), moment(details.EndTime), details.AggregateType or []
    if begin is None or end is None or begin == end or place >= len(kinds):
        raise ServiceError(_CODES.BadAggregateListMismatch if place >= len(kinds) else _CODES.BadInvalidArgument)
    aggregate = kinds[place].Identifier if kinds[place].NamespaceIndex == 0 else None
    if not isinstance(aggregate, int) or aggregate not in AGGREGATES:
        raise ServiceError(_CODES.BadAggregateNotSupported)
    interval = details.ProcessingInterval
    if not math.isfinite(interval) or interval < 0 or 0 < interval < _SHORTEST:
        raise ServiceError(_CODES.BadAggregateInvalidInputs)
    width = min(round(interval * 1000.0), abs(end - begin)) or abs(end - begin)
    terms = replace(_terms(details.AggregateConfiguration), stepped=past.stepped)
    return ProcessedReading(past, stamps, terms, aggregate, begin, end, width)


def _terms(asked: ua.AggregateConfiguration | None) -> Terms:
    """Ours where the client has none of its own."""
    if asked is None or asked.UseServerCapabilitiesDefaults:
        return Terms()
    if asked.UseSlopedExtrapolation:
        raise ServiceError(_CODES.BadAggregateConfigurationRejected)
    shares = int(asked.PercentDataBad), int(asked.PercentDataGood)
    if max(shares) > 100 or sum(shares) < 100:
        raise ServiceError(_CODES.BadAggregateInvalidInputs)
    return Terms(not asked.TreatUncertainAsBad, *shares)


def _events(told: Told, asset: str | None, details: ua.ReadEventDetails) -> EventReading:
    """As for raw values (OPC 10000-11, 6.5.2.2)."""
    if asset is None:
        raise ServiceError(_CODES.BadHistoryOperationUnsupported)
    chosen = EventFilter(details.Filter)
    start, end, number = moment(details.StartTime), moment(details.EndTime), int(details.NumValuesPerNode)
    if start is not None and end is not None:
        return EventReading(told, asset or None, chosen, start, end, end < start, number)
    begin = start if start is not None else end
    if begin is None or not number:
        raise ServiceError(_CODES.BadHistoryOperationInvalid)
    return EventReading(told, asset or None, chosen, begin, None, start is None, 0, left=number)


def moment(time: datetime | None) -> Micros | None:
    """[µs]; None: not given (OPC 10000-6, 5.2.2.5: the least and the greatest time)."""
    if time is None:
        return None
    time = time if time.tzinfo else time.replace(tzinfo=UTC)
    return to_micros(time) if _NULL < time < _OPEN else None


def _release(node: Any, points: Points) -> int:
    if node.ContinuationPoint and points.take(node.NodeId, node.ContinuationPoint) is not None:
        return int(_CODES.Good)
    return int(_CODES.BadContinuationPointInvalid)


def _result(status: int, point: bytes | None = None, content: Any = None) -> ua.HistoryReadResult:
    return ua.HistoryReadResult(status_code(status), point, content or ua.ExtensionObject())
