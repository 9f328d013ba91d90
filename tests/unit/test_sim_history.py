"""HistoryRead without a socket: encoding, order, limits and continuation points."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from asyncua import ua
from asyncua.common.utils import Buffer, ServiceError
from asyncua.ua.ua_binary import struct_from_binary

from opcua_sim import fleet
from opcua_sim.clock import Clock
from opcua_sim.faults import Fault, FaultLog, Kind, Series
from opcua_sim.gas_turbine import GasTurbine
from opcua_sim.history import MAX_NODES, History, encode
from opcua_sim.plant import Plant

T0 = datetime(2026, 1, 1, tzinfo=UTC)
GRID0 = int(T0.timestamp())
NOW = 50  # the first step that is not over
SECOND = timedelta(seconds=1)


def node(name):
    return ua.NodeId(ua.String(name), ua.Int16(2))


@pytest.fixture(scope="module")
def plant():
    log = FaultLog(seed=1)
    log.add(Fault(Kind.BAD, "engine-01.T30", 5, 9))
    log.add(Fault(Kind.UNCERTAIN, "engine-01.T30", 12, 14))
    log.add(Fault(Kind.DROPOUT, "engine-01.T50", 10, 30))
    return Plant(fleet.engines(1, seed=1), GasTurbine(), log)


@pytest.fixture
def history(plant):
    tags = {node(tag.name): tag for tag in plant.tags}
    clock = Clock(1_000_000, [(GRID0, GRID0 + 20), (GRID0 + 100, GRID0 + 100)])
    history = History(plant, tags, {*tags, node("engine-01.advisory.rul")}.__contains__, clock)
    history.next_step = NOW
    return history


def request(*names: str, start=None, end=None, number=0, points=(), stamps=ua.TimestampsToReturn.Both, release=False):
    details = ua.ReadRawModifiedDetails(
        IsReadModified=False,
        StartTime=start or ua.get_win_epoch(),
        EndTime=end or ua.get_win_epoch(),
        NumValuesPerNode=number,
        ReturnBounds=False,
    )
    return ua.HistoryReadParameters(
        HistoryReadDetails=details,
        TimestampsToReturn=stamps,
        ReleaseContinuationPoints=release,
        NodesToRead=[
            ua.HistoryReadValueId(NodeId=node(name), ContinuationPoint=point)
            for name, point in zip(names, points or [None] * len(names), strict=True)
        ],
    )


def values(result):
    return struct_from_binary(ua.HistoryData, Buffer(result.HistoryData.Body)).DataValues


async def read_all(history, name, **asked: Any):
    """All pages of one node, and how many they were."""
    found, point, pages = [], None, 0
    while pages < 1000:
        (result,) = await history.read_history(request(name, points=[point], **asked))
        assert result.StatusCode.is_good()
        found += values(result)
        pages += 1
        point = result.ContinuationPoint
        if point is None:
            return found, pages
    raise AssertionError("it never ends")


def seconds(found):
    return [round((value.SourceTimestamp - T0).total_seconds()) for value in found]


# --- encoding ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("counter", [False, True])
@pytest.mark.parametrize("status", [[0, 0, 0], [0, 0x40930000, 0], [0, 0x808C0000, 0x40930000]])
@pytest.mark.parametrize("stamped", [(True, True), (True, False), (False, True)])
def test_encoding_is_what_a_client_decodes(counter, status, stamped):
    value = np.array([1.0, np.nan if status[1] >> 31 else 7.0, 3.0])
    times = np.array([1, 10**15, 1_700_000_000_123_456])
    series = Series(np.arange(3), value, np.array(status, np.uint32))
    source, server = (times if asked else None for asked in stamped)
    decoded = struct_from_binary(ua.HistoryData, Buffer(encode(series, counter, source, server))).DataValues
    assert [dv.Value.Value for dv in decoded] == [
        None if bad else v for v, bad in zip(value, np.isnan(value), strict=True)
    ]
    assert [dv.StatusCode.value if dv.StatusCode else 0 for dv in decoded] == status
    stamps = [datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(t)) for t in times]
    assert [dv.SourceTimestamp for dv in decoded] == (stamps if stamped[0] else [None] * 3)
    assert [dv.ServerTimestamp for dv in decoded] == (stamps if stamped[1] else [None] * 3)
    kinds = {dv.Value.VariantType for dv in decoded if dv.Value.Value is not None}
    assert kinds == {ua.VariantType.UInt32 if counter else ua.VariantType.Double}


def test_encoding_of_nothing():
    nothing = Series(np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.uint32))
    assert struct_from_binary(ua.HistoryData, Buffer(encode(nothing, False, None, None))).DataValues == []


# --- what is read ------------------------------------------------------------------------------------------------


async def test_whole_past_in_order(history, plant):
    found, pages = await read_all(history, "engine-01.T24", start=T0 - timedelta(days=9))
    first = plant.engines[0].first_step
    assert seconds(found) == [*range(first, 20), *range(100, 130)]
    assert pages == 1
    assert found[-1].Value.Value == plant.engines[0].values("T24", np.array([NOW - 1]))[0]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"start": 3, "end": 6}, [3, 4, 5]),
        ({"start": 6, "end": 3}, [6, 5, 4]),
        ({"start": 3, "end": 3}, [3]),
        ({"start": 18, "end": 102}, [18, 19, 100, 101]),
        ({"start": 17, "number": 4}, [17, 18, 19, 100]),
        ({"end": 101, "number": 4}, [101, 100, 19, 18]),
        ({"start": 127}, [127, 128, 129]),
        ({"start": 127, "end": 900}, [127, 128, 129]),
        ({"start": 900, "end": 127}, [129, 128]),
        ({"start": 130, "end": 140}, []),
        ({"start": 40, "end": 60}, []),
    ],
)
@pytest.mark.parametrize("page", [None, 1, 2])
async def test_ranges_and_directions(history, asked, expected, page):
    asked = {key: T0 + value * SECOND if key != "number" else value for key, value in asked.items()}
    if page and "start" in asked and "end" in asked:
        asked["number"] = page  # with both times the number is the size of a page
        found, pages = await read_all(history, "engine-01.T24", **asked)
        assert pages == max(1, -(-len(expected) // page))
    else:
        found, _ = await read_all(history, "engine-01.T24", **asked)
    assert seconds(found) == expected


async def test_holes_are_skipped(history):
    found, pages = await read_all(history, "engine-01.T50", start=T0 + 8 * SECOND, end=T0 + 112 * SECOND, number=2)
    assert (seconds(found), pages) == ([8, 9, 110, 111], 2)
    found, _ = await read_all(history, "engine-01.T50", start=T0 + 8 * SECOND, number=3)
    assert seconds(found) == [8, 9, 110]
    found, _ = await read_all(history, "engine-01.T50", end=T0 + 111 * SECOND, number=3)
    assert seconds(found) == [111, 110, 9]


async def test_status_is_kept(history):
    found, _ = await read_all(history, "engine-01.T30", start=T0 + 4 * SECOND, end=T0 + 15 * SECOND)
    bad, uncertain = 0x808C0000, 0x40930000
    statuses = [value.StatusCode.value if value.StatusCode else 0 for value in found]
    assert statuses == [0, bad, bad, bad, bad, 0, 0, 0, uncertain, uncertain, 0]
    assert [value.Value.Value is None for value in found] == [status == bad for status in statuses]


async def test_laboratory_keeps_both_its_times_and_comes_late(history, plant):
    found, _ = await read_all(history, "gas-turbine.NOX_lab", start=T0 - 2 * SECOND)
    assert seconds(found) == [*range(-2, 20), *range(100, 106)]  # 24 steps before the newest
    late = [round((value.ServerTimestamp - value.SourceTimestamp).total_seconds()) for value in found]
    assert late[:2] == [104, 104]  # the plant was off for 80 s in between
    assert late[-1] == 24
    assert found[2].Value.Value == plant.turbine.nox(0)


async def test_counters_are_whole_numbers(history):
    found, _ = await read_all(history, "engine-01.cycle", start=T0, end=T0 + 3 * SECOND)
    assert {value.Value.VariantType for value in found} == {ua.VariantType.UInt32}


async def test_many_nodes_share_a_response(history, plant):
    names = [tag.name for tag in plant.tags]
    results = await history.read_history(request(*names, start=T0 - timedelta(days=9)))
    sizes = [len(values(result)) for result in results]
    assert sum(sizes) <= 100_000
    assert min(sizes) > 500
    assert all(result.ContinuationPoint for result in results[-11:])  # three years of the turbine do not fit


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("engine-01.advisory.rul", ua.StatusCodes.BadHistoryOperationUnsupported),
        ("engine-99.T24", ua.StatusCodes.BadNodeIdUnknown),
    ],
)
async def test_nodes_without_history(history, name, code):
    known, refused = await history.read_history(request("engine-01.T24", name, start=T0))
    assert known.StatusCode.value == 0
    assert refused.StatusCode.value == code


async def test_neither_start_nor_end(history):
    (result,) = await history.read_history(request("engine-01.T24", number=5))
    assert result.StatusCode.value == ua.StatusCodes.BadHistoryOperationInvalid


async def test_other_kinds_of_reading(history):
    asked = request("engine-01.T24", start=T0)
    for details in (ua.ReadProcessedDetails(), replace(asked.HistoryReadDetails, IsReadModified=True)):
        (result,) = await history.read_history(replace(asked, HistoryReadDetails=details))
        assert result.StatusCode.value == ua.StatusCodes.BadHistoryOperationUnsupported


async def test_foreign_continuation_points(history):
    asked = request("engine-01.T24", start=T0, end=T0 + 9 * SECOND, number=2)
    (result,) = await history.read_history(asked)
    point = result.ContinuationPoint
    other = bytes([point[0] ^ 1]) + point[1:]
    for name, wrong in (("engine-01.T30", point), ("engine-01.T24", other), ("engine-01.T24", b"x")):
        (result,) = await history.read_history(request(name, start=T0, points=[wrong]))
        assert result.StatusCode.value == ua.StatusCodes.BadContinuationPointInvalid
        assert result.ContinuationPoint is None


async def test_release_reads_nothing(history):
    (result,) = await history.read_history(request("engine-01.T24", start=T0, points=[b"old"], release=True))
    assert result.StatusCode.value == 0
    assert not result.HistoryData


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (request(), ua.StatusCodes.BadNothingToDo),
        (request(*["engine-01.T24"] * (MAX_NODES + 1), start=T0), ua.StatusCodes.BadTooManyOperations),
        (
            request("engine-01.T24", start=T0, stamps=ua.TimestampsToReturn.Neither),
            ua.StatusCodes.BadTimestampsToReturnInvalid,
        ),
    ],
    ids=["nothing", "too many", "no times"],
)
async def test_requests_that_make_no_sense(history, asked, code):
    with pytest.raises(ServiceError) as refused:
        await history.read_history(asked)
    assert refused.value.code == code
