"""The columns decoder against asyncua's own encoder: every layout, every type, and bytes that are no message."""

import math
import struct
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from asyncua import ua
from asyncua.ua.ua_binary import struct_to_binary
from hypothesis import given, settings
from hypothesis import strategies as st

from plugin.acquire.decoding import Memory, Values, decode_items, decode_values
from plugin.acquire.measuring import Malformed
from plugin.domain import to_micros

RECEIVED = 1_800_000_000_000_000
TIME = datetime(2026, 5, 17, 12, 30, 45, 123456, UTC)
LATER = datetime(2026, 5, 17, 12, 30, 46, 7, UTC)
T = ua.VariantType

NUMBERS: list[tuple[ua.VariantType, Any]] = [
    (T.Boolean, True), (T.SByte, -7), (T.Byte, 200), (T.Int16, -30000), (T.UInt16, 60000), (T.Int32, -(2**31)),
    (T.UInt32, 2**32 - 1), (T.Int64, -(2**52)), (T.UInt64, 2**52), (T.Float, 0.5), (T.Double, math.pi),
    (T.DateTime, TIME), (T.StatusCode, ua.StatusCode(ua.UInt32(0x80340000))),
]  # fmt: skip
OTHERS: list[tuple[ua.VariantType, Any]] = [
    (T.String, "a text that is longer than a number"), (T.String, None), (T.Guid, UUID(int=5)),
    (T.ByteString, b"\0\1\2"), (T.NodeId, ua.NodeId(ua.String("x"), ua.Int16(3))), (T.NodeId, ua.NodeId(ua.Int32(85))),
    (T.QualifiedName, ua.QualifiedName(ua.String("q"), ua.UInt16(1))),
    (T.LocalizedText, ua.LocalizedText(ua.String("text"), ua.String("en"))), (T.Double, [1.0, 2.0, 3.0]),
    (T.String, ["a", "b"]), (T.Int32, []), (T.Variant, [ua.Variant(1.0, T.Double), ua.Variant("x", T.String)]),
    (T.ExtensionObject, ua.Range(0.0, 5.0)),
    (T.ExtensionObject, [ua.Range(0.0, 5.0), ua.EUInformation()]),
]  # fmt: skip


def data(kind: ua.VariantType, value: Any, **fields: Any) -> ua.DataValue:
    stamps: dict[str, Any] = {"SourceTimestamp": TIME, "ServerTimestamp": LATER}
    return ua.DataValue(ua.Variant(value, kind), **{**stamps, **fields})


def notification(*values: ua.DataValue) -> bytes:
    items = [ua.MonitoredItemNotification(ua.UInt32(handle), value) for handle, value in enumerate(values)]
    return bytes(struct_to_binary(ua.DataChangeNotification(items, [])))


def decoded(*values: ua.DataValue) -> Values:
    return decode_items(notification(*values), RECEIVED)


def number(value: Any) -> float:
    if isinstance(value, datetime):
        return value.timestamp()
    return float(value.value if isinstance(value, ua.StatusCode) else value)


@pytest.mark.parametrize(("kind", "value"), NUMBERS)
def test_numbers(kind: ua.VariantType, value: Any) -> None:
    found = decoded(*[data(kind, value)] * 3)
    assert found.value.tolist() == [number(value)] * 3
    assert found.kind.tolist() == [kind.value] * 3
    assert found.handle.tolist() == [0, 1, 2]
    assert found.source_time.tolist() == [to_micros(TIME)] * 3
    assert found.server_time.tolist() == [to_micros(LATER)] * 3
    assert (found.without_number, found.lost) == (0, 0)


@pytest.mark.parametrize(("kind", "value"), OTHERS)
def test_what_is_no_number_costs_only_itself(kind: ua.VariantType, value: Any) -> None:
    found = decoded(data(T.Double, 1.0), data(kind, value), data(T.Double, 2.0))
    assert found.value[[0, 2]].tolist() == [1.0, 2.0]
    assert math.isnan(found.value[1])
    assert found.source_time.tolist() == [to_micros(TIME)] * 3
    assert (found.without_number, found.lost) == (1, 0)


def test_times_fall_back_to_the_server_and_then_to_arrival() -> None:
    found = decoded(
        data(T.Double, 1.0, SourceTimestamp=None),
        data(T.Double, 1.0, ServerTimestamp=None),
        data(T.Double, 1.0, SourceTimestamp=None, ServerTimestamp=None),
    )
    assert found.source_time.tolist() == [to_micros(LATER), to_micros(TIME), RECEIVED]
    assert found.server_time.tolist() == [to_micros(LATER), RECEIVED, RECEIVED]


def test_times_at_the_ends_of_the_calendar() -> None:
    def item(ticks: int) -> bytes:
        return struct.pack("<IBBdq", 0, 1 | 4, 11, 1.0, ticks)

    body = struct.pack("<i", 3) + item(0) + item(-5) + item(2**63 - 1)
    assert decode_items(body, RECEIVED).source_time.tolist() == [RECEIVED, RECEIVED, 253_402_300_799_999_999]


def test_a_bad_status_takes_the_number_away_and_is_kept_whole() -> None:
    codes = [0x80340000, 0x40920000, 0x00000480, 0x00000000]
    found = decoded(*[data(T.Double, 1.0, StatusCode=ua.StatusCode(ua.UInt32(code))) for code in codes])
    assert found.status.tolist() == codes
    assert np.isnan(found.value).tolist() == [True, False, False, False]
    assert found.overflowed().tolist() == [False, False, True, False]
    assert found.without_number == 0


def test_null_is_no_number() -> None:
    found = decoded(ua.DataValue(None, SourceTimestamp=ua.DateTime(2026, 1, 1, tzinfo=UTC)), ua.DataValue(ua.Variant()))
    assert np.isnan(found.value).all()
    assert found.without_number == 2


@st.composite
def values(draw: st.DrawFn) -> list[ua.DataValue]:
    kinds = draw(st.lists(st.sampled_from(NUMBERS + OTHERS), min_size=1, max_size=6))
    length = draw(st.integers(1, 120))
    found = []
    for _ in range(length):
        kind, value = draw(st.sampled_from(kinds))
        fields: dict[str, Any] = {}
        if draw(st.booleans()):
            fields["SourceTimestamp"] = None
        if draw(st.booleans()):
            fields |= {"SourcePicoseconds": ua.UInt16(3), "ServerPicoseconds": ua.UInt16(4)}
        if draw(st.booleans()):
            fields["StatusCode"] = ua.StatusCode(ua.UInt32(draw(st.sampled_from([0, 0x40920000, 0x480]))))
        found.append(data(kind, value, **fields))
    return found


@settings(max_examples=60, deadline=None)
@given(values())
def test_any_mix_reads_as_one_by_one(mix: list[ua.DataValue]) -> None:
    whole = decoded(*mix)
    ones = [decode_items(notification(value), RECEIVED) for value in mix]
    assert whole.handle.tolist() == list(range(len(mix)))
    for name in ("value", "status", "source_time", "server_time"):
        expected = np.concatenate([getattr(one, name) for one in ones])
        np.testing.assert_array_equal(getattr(whole, name), expected)
    assert whole.without_number == sum(one.without_number for one in ones)
    history = decode_values(bytes(struct_to_binary(ua.HistoryData(mix))), RECEIVED)
    np.testing.assert_array_equal(history.value, whole.value)
    np.testing.assert_array_equal(history.source_time, whole.source_time)


def same(left: Values, right: Values) -> None:
    for name in ("handle", "value", "status", "source_time", "server_time", "timed", "kind", "odd"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name), name)
    assert (left.without_number, left.lost) == (right.without_number, right.lost)
    assert [left.body[at] for at in left.variants] == [right.body[at] for at in right.variants]


@settings(max_examples=100, deadline=None)
@given(values(), st.data())
def test_what_is_remembered_of_a_message_changes_nothing_in_the_next(
    mix: list[ua.DataValue], more: st.DataObject
) -> None:
    memory: Memory = {}
    decode_items(notification(*mix), RECEIVED, 0, memory)
    others = more.draw(values())
    for place in more.draw(st.lists(st.integers(0, len(mix) - 1), max_size=12)):
        mix[place] = others[place % len(others)]
    for _ in range(2):
        body = notification(*mix)
        same(decode_items(body, RECEIVED, 0, memory), decode_items(body, RECEIVED))
    cut = body[: more.draw(st.integers(max(4, len(mix)), len(body)))]
    same(decode_items(cut, RECEIVED, 0, memory), decode_items(cut, RECEIVED))


def test_what_is_remembered_is_bounded() -> None:
    memory: Memory = {}
    for length in range(2, 80):
        mix = [data(T.Double, 1.0), data(T.String, "x")] * length
        for _ in range(2):
            assert len(decode_items(notification(*mix), RECEIVED, 0, memory)) == 2 * length
    assert len(memory) <= 16


@settings(max_examples=60, deadline=None)
@given(values(), st.data())
def test_a_message_cut_short_gives_what_stands_before_the_cut(mix: list[ua.DataValue], more: st.DataObject) -> None:
    body = notification(*mix)[:-4]  # without the diagnostics
    cut = more.draw(st.integers(4, len(body) - 1))
    whole, part = decode_items(body, RECEIVED), None
    try:
        part = decode_items(body[:cut], RECEIVED)
    except Malformed:
        assert len(mix) > cut  # announced more values than there are bytes
        return
    assert 0 <= len(part) < len(mix)
    assert part.lost == len(mix) - len(part)
    np.testing.assert_array_equal(part.value, whole.value[: len(part)])


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_rubbish_raises_malformed_or_gives_rows_but_nothing_else(rubbish: bytes) -> None:
    for decode in (decode_items, decode_values):
        try:
            found = decode(rubbish, RECEIVED)
        except Malformed:
            continue
        assert len(found) + found.lost <= max(len(rubbish), 0)


def test_an_endless_nesting_ends() -> None:
    nested = struct.pack("<i", 1) + struct.pack("<IB", 0, 1) + b"\x98\x01\0\0\0" * 10_000
    assert decode_items(nested, RECEIVED).lost == 1


def test_a_long_run_and_a_break_in_it() -> None:
    mix = [data(T.Double, float(n)) for n in range(500)]
    mix[300] = data(T.String, "odd one out")
    found = decoded(*mix)
    assert np.isnan(found.value).nonzero()[0].tolist() == [300]
    assert found.value[301:].tolist() == [float(n) for n in range(301, 500)]
