"""Values and messages as bytes: what is packed by hand is what asyncua's encoder writes, and its decoder reads."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from asyncua import ua
from asyncua.common.utils import Buffer, ServiceError
from asyncua.ua.ua_binary import nodeid_from_binary, struct_from_binary, struct_to_binary
from hypothesis import given, settings
from hypothesis import strategies as st

from plugin.domain import Status, to_micros
from plugin.publish import wire
from plugin.publish.backlog import Changes
from plugin.publish.cells import Cell
from plugin.publish.items import Item, Scale

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
T = ua.VariantType
TIMES = st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
VALUES = st.one_of(
    st.tuples(st.floats(allow_nan=False), st.just(T.Double)),
    st.tuples(st.booleans(), st.just(T.Boolean)),
    st.tuples(st.integers(0, 2**32 - 1), st.just(T.UInt32)),
    st.tuples(TIMES, st.just(T.DateTime)),
    st.tuples(st.text(max_size=20), st.just(T.String)),
    st.tuples(st.lists(st.floats(allow_nan=False), min_size=1, max_size=5), st.just(T.Double)),
    st.tuples(st.none(), st.just(T.Null)),
)


@settings(max_examples=60)
@given(VALUES, st.integers(0, 2**32 - 1), TIMES, TIMES)
def test_a_value_is_read_as_it_was_written(value: Any, status: int, source: Any, server: Any) -> None:
    number, kind = value
    content = wire.data_value(number, kind, status, source, server)
    read: Any = struct_from_binary(ua.DataValue, Buffer(content))
    assert read.Value.Value == number
    assert (read.StatusCode.value, read.SourceTimestamp, read.ServerTimestamp) == (status, source, server)


def test_bytes_are_those_of_asyncua():
    source: Any = NOW
    server: Any = NOW + SECOND
    for value, kind in ((1.5, T.Double), (True, T.Boolean), (7, T.UInt32), (NOW, T.DateTime), ("text", T.String)):
        whole = ua.DataValue(ua.Variant(value, kind), ua.StatusCode(ua.UInt32(0x40000000)), source, server)
        assert wire.data_value(value, kind, 0x40000000, NOW, NOW + SECOND) == struct_to_binary(whole)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.floats(), st.integers(0, 2**32 - 1), TIMES), min_size=1, max_size=5), TIMES)
def test_many_at_once_are_what_each_is_alone(values: list[tuple[float, int, datetime]], server: datetime) -> None:
    _, statuses, times = zip(*values, strict=True)
    status, source = np.array(statuses, np.uint32), np.array([to_micros(time) for time in times])
    told = wire.doubles(np.array([number for number, *_ in values]), status, source, to_micros(server))
    assert told.tobytes() == b"".join(wire.data_value(said, T.Double, its, time, server) for said, its, time in values)
    told = wire.nulls(status, source, to_micros(server))
    assert told.tobytes() == b"".join(wire.data_value(None, T.Double, its, time, server) for _, its, time in values)


def test_one_that_lost_its_neighbour_says_so_and_is_else_the_same():
    content = wire.overflowed(wire.data_value(1.5, T.Double, Status.UNCERTAIN_SUB_NORMAL, NOW, NOW))
    assert content == wire.data_value(1.5, T.Double, Status.UNCERTAIN_SUB_NORMAL | 0x480, NOW, NOW)


def test_an_answer_to_publish_is_what_a_client_decodes():
    parts = [b"\x07\0\0\0", wire.data_value(1.5, T.Double, 0, NOW, NOW)]
    change = ua.StatusChangeNotification(ua.StatusCode(ua.UInt32(ua.StatusCodes.BadTimeout)))
    message = wire.message(9, [wire.data_change(1, parts), wire.notification(change)], NOW)
    codes = [ua.StatusCode(), ua.StatusCode(ua.UInt32(ua.StatusCodes.BadSequenceNumberUnknown))]
    body = Buffer(wire.publish_response(wire.Notice(77, (8, 9), True, message), codes, 4711, NOW))
    assert nodeid_from_binary(body) == ua.NodeId(ua.Int32(ua.ObjectIds.PublishResponse_Encoding_DefaultBinary))
    header = struct_from_binary(ua.ResponseHeader, body)
    assert (header.RequestHandle, header.Timestamp, header.ServiceResult.value) == (4711, NOW, 0)
    result = struct_from_binary(ua.PublishResult, body)
    assert len(body) == 0
    assert (result.SubscriptionId, result.AvailableSequenceNumbers, result.MoreNotifications) == (77, [8, 9], True)
    assert [code.value for code in result.Results] == [code.value for code in codes]
    data, status = result.NotificationMessage.NotificationData
    (item,) = data.MonitoredItems
    assert (item.ClientHandle, item.Value.Value.Value) == (7, 1.5)
    assert status.Status.value == ua.StatusCodes.BadTimeout
    assert wire.reread(message) == result.NotificationMessage


# --- items -----------------------------------------------------------------------------------------------------------


class Desk:
    """A cell, one who monitors it, and what waits for it."""

    def __init__(self, queue: int = 10, scale: Scale | None = None, **asked: Any) -> None:
        self.backlog = Changes().open()
        self.cell = Cell(T.Double, NOW)
        self.item = Item(1, ua.MonitoredItemCreateRequest(MonitoringMode=ua.MonitoringMode.Reporting), self.backlog)
        self.item.ask(
            ua.MonitoringParameters(ua.UInt32(5), QueueSize=ua.UInt32(queue), **asked), queue, scale or Scale()
        )
        self.item.watch(self.cell)

    def write(self, *values: float, status: int = Status.GOOD, source: datetime = NOW) -> None:
        for value in values:
            self.cell.write(value, status, source, NOW)

    def heard(self) -> list[tuple[Any, int]]:
        """Value and status of all that waits; nothing waits then."""
        _, parts = self.backlog.take(1000)
        assert not self.backlog
        return [(each.Value.Value.Value, each.Value.StatusCode.value) for each in decoded(parts)]


def decoded(parts: Sequence[bytes]) -> list[ua.MonitoredItemNotification]:
    """Handle and value of each, as a client reads them."""
    body = Buffer(b"".join(parts))
    found = []
    while len(body):
        found.append(struct_from_binary(ua.MonitoredItemNotification, body))
    return found


def changes(**more: Any) -> ua.DataChangeFilter:
    return ua.DataChangeFilter(**{"Trigger": ua.DataChangeTrigger.StatusValue} | more)


def deadband(kind: ua.DeadbandType, size: float) -> ua.DataChangeFilter:
    return changes(DeadbandType=kind, DeadbandValue=size)


def test_each_change_is_heard_once_before_the_write_returns():
    desk = Desk()
    desk.write(1.0, 1.0, 2.0)
    desk.write(2.0, status=Status.UNCERTAIN_SUB_NORMAL)
    assert desk.heard() == [(1.0, 0), (2.0, 0), (2.0, Status.UNCERTAIN_SUB_NORMAL)]


@pytest.mark.parametrize(
    ("trigger", "heard"),
    [("Status", [1.0, 2.0]), ("StatusValue", [1.0, 3.0, 2.0]), ("StatusValueTimestamp", [1.0, 1.0, 3.0, 2.0])],
)
def test_a_trigger_says_what_counts_as_a_change(trigger, heard):
    desk = Desk(Filter=changes(Trigger=ua.DataChangeTrigger[trigger]))
    desk.write(1.0)
    desk.write(1.0, source=NOW + SECOND)
    desk.write(3.0, source=NOW + SECOND)
    desk.write(2.0, status=Status.UNCERTAIN_SUB_NORMAL, source=NOW + SECOND)
    assert [value for value, _ in desk.heard()] == heard


@pytest.mark.parametrize(("kind", "size"), [("Absolute", 1.0), ("Percent", 2.0)])
def test_a_ramp_leaves_a_deadband_that_is_counted_from_what_was_heard(kind, size):
    desk = Desk(queue=100, scale=Scale(span=50.0), Filter=deadband(ua.DeadbandType[kind], size))
    desk.write(*(0.9 * step for step in range(21)))
    assert [value for value, _ in desk.heard()] == [0.9 * step for step in range(0, 21, 2)]


@pytest.mark.parametrize(
    ("demand", "code"),
    [
        (deadband(ua.DeadbandType.Percent, 1.0), "BadMonitoredItemFilterUnsupported"),
        (deadband(ua.DeadbandType.Percent, 101.0), "BadDeadbandFilterInvalid"),
        (deadband(ua.DeadbandType.Absolute, -1.0), "BadDeadbandFilterInvalid"),
        (deadband(ua.DeadbandType.Absolute, math.nan), "BadDeadbandFilterInvalid"),
        (ua.EventFilter(), "BadMonitoredItemFilterUnsupported"),
    ],
)
def test_a_filter_that_can_not_be_is_refused(demand, code):
    with pytest.raises(ServiceError) as refusal:
        Desk(Filter=demand)
    assert refusal.value.code == getattr(ua.StatusCodes, code)


def test_what_is_no_number_has_no_deadband():
    with pytest.raises(ServiceError) as refusal:
        Desk(scale=Scale(numeric=False), Filter=deadband(ua.DeadbandType.Absolute, 1.0))
    assert refusal.value.code == ua.StatusCodes.BadFilterNotAllowed
    Desk(scale=Scale(numeric=False), Filter=deadband(ua.DeadbandType.None_, 1.0))


def test_an_array_is_told_whole_where_one_of_its_elements_leaves_the_deadband():
    desk = Desk(Filter=deadband(ua.DeadbandType.Absolute, 1.0))
    for array in ([1.0, 2.0], [1.9, 1.1], [2.1, 2.0], [2.1, 2.0, 2.0]):
        desk.cell.write(array, Status.GOOD, NOW, NOW)
    assert [value for value, _ in desk.heard()] == [[1.0, 2.0], [2.1, 2.0], [2.1, 2.0, 2.0]]


@pytest.mark.parametrize("nothing", [None, ua.ExtensionObject()])
def test_who_asks_for_no_filter_any_more_has_none(nothing):
    desk = Desk(Filter=deadband(ua.DeadbandType.Absolute, 1.5))
    desk.write(1.0, 2.0)
    desk.item.ask(ua.MonitoringParameters(ua.UInt32(5), Filter=nothing), 10, Scale())
    desk.write(2.5)
    assert [value for value, _ in desk.heard()] == [1.0, 2.5]


@pytest.mark.parametrize(
    ("queue", "oldest", "heard"),
    [
        (3, True, [(3.0, 0x480), (4.0, 0), (5.0, 0)]),
        (3, False, [(1.0, 0), (2.0, 0), (5.0, 0x480)]),
        (1, True, [(5.0, 0)]),
        (1, False, [(5.0, 0)]),
    ],
)
def test_a_full_queue_drops_the_end_that_the_client_chose_and_says_so(queue, oldest, heard):
    desk = Desk(queue, DiscardOldest=oldest)
    desk.write(1.0, 2.0, 3.0, 4.0, 5.0)
    assert desk.heard() == heard


def test_what_samples_waits_until_it_reports_and_what_is_off_hears_nothing():
    desk = Desk()
    assert not desk.item.switch(ua.MonitoringMode.Sampling)
    desk.write(1.0)
    assert not desk.backlog
    assert not desk.item.switch(ua.MonitoringMode.Reporting)
    assert desk.heard() == [(1.0, 0)]
    assert not desk.item.switch(ua.MonitoringMode.Disabled)
    desk.write(2.0)
    assert not desk.backlog
    assert desk.item.switch(ua.MonitoringMode.Reporting)
    desk.cell.tell(desk.item)
    assert desk.heard() == [(2.0, 0)]


def test_what_waits_goes_along_when_an_item_changes_its_mind():
    desk = Desk()
    desk.write(1.0, 2.0)
    desk.item.ask(ua.MonitoringParameters(ua.UInt32(5), Filter=deadband(ua.DeadbandType.Absolute, 1.5)), 10, Scale())
    desk.write(3.0, 4.0)
    desk.item.ask(ua.MonitoringParameters(ua.UInt32(5), Filter=changes()), 10, Scale())
    desk.write(4.0, 4.5)
    assert [value for value, _ in desk.heard()] == [1.0, 2.0, 4.0, 4.5]


def test_what_a_deadband_held_back_is_told_when_the_deadband_goes():
    desk = Desk(Filter=deadband(ua.DeadbandType.Absolute, 1.5))
    desk.write(1.0, 2.0)
    desk.item.ask(ua.MonitoringParameters(ua.UInt32(5), Filter=changes()), 10, Scale())
    desk.cell.tell(desk.item)
    desk.write(2.0)
    assert [value for value, _ in desk.heard()] == [1.0, 2.0]


def test_an_item_that_only_samples_says_nothing_of_what_waits():
    desk = Desk()
    desk.write(1.0)
    desk.item.switch(ua.MonitoringMode.Sampling)
    assert not desk.backlog
    desk.item.switch(ua.MonitoringMode.Reporting)
    assert desk.heard() == [(1.0, 0)]


def test_what_asyncua_writes_is_heard_and_read_too():
    desk = Desk()
    desk.cell.value = ua.DataValue(ua.Variant([1.0, 2.0], T.Double))
    assert desk.heard() == [([1.0, 2.0], 0)]
    for value in (None, 5.0):
        desk.cell.write(value, Status.BAD_NO_DATA, NOW, NOW)
        assert desk.cell.value.Value == ua.Variant(None, T.Null)
    assert desk.heard() == [(None, Status.BAD_NO_DATA)]
