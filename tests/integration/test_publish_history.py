"""HistoryRead over a real socket, out of a real database."""

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from asyncua import Client, ua

from plugin.diagnostics import Diagnostics
from plugin.domain import (
    Event,
    Flag,
    Gap,
    GapCause,
    GapState,
    Meaning,
    Outcome,
    OutputTag,
    Prediction,
    Run,
    RunKind,
    SampleBatch,
    Status,
    Tag,
    to_micros,
)
from plugin.historian.sqlite.store import SqliteStore
from plugin.protocols import Delivery
from plugin.publish.config import PublishConfig
from plugin.publish.history import answering, past
from plugin.publish.history import processed as processing
from plugin.publish.mirror import Mirror
from plugin.publish.server import OpcUaSink

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
_HEALTH = OutputTag("rul", "e1", "health", "", 0.0, 1.0, "Health", Meaning.HEALTH)
_NOX = OutputTag("nox", "e1", "nox", "mg/m3", 0.0, 200.0, "Nitrogen oxides")
_FLAG = OutputTag("rul", "e1", "flag", "", 0.0, 1.0, "Unlike itself", Meaning.FLAG)
_LOAD = OutputTag("load", "e1", "load", "kW", 0.0, 200.0, "Load", Meaning.FORECAST)
_STATE = OutputTag("fault", "e1", "fault", "", 0.0, 2.0, "Fault", Meaning.STATE, ("none", "leak", "wear"))
_OUTPUTS = (_HEALTH, _NOX, _FLAG, _LOAD, _STATE)
_T24 = Tag("e1.T24", "plant", "nsu=u;s=T24", "e1", "T24", "degR", 600.0, 700.0)
_DENSE = Tag("e1.P30", "plant", "nsu=u;s=P30", "e1", "P30", "psia", 0.0, 700.0)
_HOLED = Tag("e1.T30", "plant", "nsu=u;s=T30", "e1", "T30", "degR", 0.0, 700.0)
_ODD = Tag("e1.note", "plant", "nsu=u;s=note", "e1", "note")

_OPEN = ua.get_win_epoch()
_TABLE = {0: 10.0, 2: 12.0, 3: 13.0, 5: 15.0, 6: 16.0}
"""OPC 10000-11, 6.5.3: the values of its table of examples, by the minute."""


def at(minutes: float) -> datetime:
    return NOON + minutes * MINUTE


class House:
    """A client of a server whose store has a past."""

    def __init__(self, client: Client, store: SqliteStore, namespace: int) -> None:
        self.client = client
        self.store = store
        self._namespace = namespace

    def id(self, name: str) -> ua.NodeId:
        return ua.NodeId(ua.String(name), ua.Int16(self._namespace))

    async def ask(self, details: Any, *names: str | ua.HistoryReadValueId, **more: Any) -> list[ua.HistoryReadResult]:
        nodes = [ua.HistoryReadValueId(self.id(name)) if isinstance(name, str) else name for name in names]
        stamps = more.get("stamps", ua.TimestampsToReturn.Both)
        params = ua.HistoryReadParameters(details, stamps, more.get("release", False), nodes)
        return await self.client.uaclient.history_read(params)

    async def raw(self, name: str, details: Any) -> tuple[list[Any], list[int]]:
        """All pages, and how many values each had."""
        asked, found, sizes = ua.HistoryReadValueId(self.id(name)), [], []
        for _ in range(100):
            (result,) = await self.ask(details, asked)
            result.StatusCode.check()
            found += result.HistoryData.DataValues
            sizes.append(len(result.HistoryData.DataValues))
            if not result.ContinuationPoint:
                return found, sizes
            asked.ContinuationPoint = result.ContinuationPoint
        raise AssertionError("it never ends")


def details(start: Any, end: Any, number: int = 0, *, bounds: bool = False, modified: bool = False) -> Any:
    start, end = (at(time) if isinstance(time, int | float) else time for time in (start, end))
    return ua.ReadRawModifiedDetails(modified, start, end, number, bounds)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    folder = tmp_path_factory.mktemp("history")
    async with SqliteStore(f"sqlite+aiosqlite:///{folder}/historian.db") as store:
        tags = await store.register_tags([_T24, _DENSE, _ODD, _HOLED])
        await _fill(store, tags)
        config = PublishConfig(endpoint="opc.tcp://127.0.0.1:0/foretag", security=("None",))
        sink = OpcUaSink(config, folder, Diagnostics(), mirror=Mirror(["*"], tags), store=store)
        async with sink.open(_OUTPUTS[:-1]):
            await sink.extend(_OUTPUTS)
            async with Client(sink.endpoint, watchdog_intervall=60) as client:
                yield House(client, store, await client.get_namespace_index("urn:foretag:predictions"))


async def _fill(store: SqliteStore, tags: Sequence[Tag]) -> None:
    run = await store.write_run(Run(0, "rul", RunKind.SCORE, NOON))
    run = replace(run, finished=at(9))
    said = [_said(_NOX, minute, value, run.id) for minute, value in _TABLE.items()]
    said += [_said(_HEALTH, minute, 0.9 - minute / 100, run.id) for minute in range(10)]
    said += [_said(_STATE, 0, 2.0, run.id), _said(_STATE, 1, None, run.id)]
    said += [replace(_said(_LOAD, 0, 50.0 + n, run.id), target_time=at(60 * n)) for n in (1, 2, 3)]
    flags = [Flag("rul", "e1", 3, at(minute), minute == 1, 0.5, 2.0, Status.GOOD, run.id) for minute in range(3)]
    await store.write_outcome(Outcome(run, tuple(said), tuple(flags)))
    again = await store.write_run(Run(0, "load", RunKind.SCORE, NOON))
    later = replace(_said(_LOAD, 60, 99.0, again.id), target_time=at(120))
    await store.write_outcome(Outcome(again, (later, _said(_HEALTH, 9, 0.5, again.id)), ()))
    t24, dense, odd, holed = (tag.id for tag in tags)
    times = [0, 1, 1, 1, 1, 1, 2, 2, 3]
    await store.write([_delivery(t24, times, range(600, 609)), _delivery(odd, [0], [np.nan], text="on")])
    await store.write_events([_event(number) for number in range(7)])
    lost = _gap("1", "e1.T30", 3, 7, GapState.UNFILLABLE), _gap("2", "e1.T30", 10, 12, GapState.FILLED)
    theirs = _gap("3", "e1.T24", 11, 15, GapState.OPEN)
    await store.write([replace(_delivery(holed, [*range(3), *range(8, 16)], [10.0] * 11), gaps=(*lost, theirs))])
    seconds = np.arange(20_000) / 60.0
    await store.write([_delivery(dense, seconds, np.arange(20_000.0))])


def _gap(id_: str, tag: str, start: float, end: float, state: GapState) -> Gap:
    return Gap(id_, "plant", tag, at(start), at(end), GapCause.SEQUENCE, at(end), state)


def _event(number: int) -> Event:
    """The second and third at one time, the last of another asset."""
    alarm = number % 2
    fields = {"ActiveState/Id": number < 4, "Quality": int(Status.GOOD), "Comment": "seen"}
    return Event(
        f"{number:032x}", at(max(number, 2) if number else 0), at(9), "foretag", "e1",
        "ExclusiveLevelAlarmType" if alarm else "BaseEventType", 100 * number + 1, f"event {number}",
        asset="e1" if number < 6 else "e2", condition="e1.rul.Alarm" if alarm else "", fields=fields if alarm else {},
    )  # fmt: skip


def _said(tag: OutputTag, minute: int, value: float | None, run: int) -> Prediction:
    lower, upper = (None, None) if value is None else (value - 1, value + 1)
    status = Status.GOOD if value is not None else Status.BAD_NO_DATA
    return Prediction(tag, 3, at(minute), at(minute), at(minute + 1), value, lower, upper, status, 1.0, run)


def _delivery(tag: int, minutes: Any, values: Any, text: str | None = None) -> Delivery:
    times = to_micros(NOON) + np.round(np.asarray(minutes, np.float64) * 60e6).astype(np.int64)
    batch = SampleBatch.of(np.full(len(times), tag), times, list(values), 0, times + 1, times + 2)
    return Delivery(replace(batch, text=np.array([text], np.object_)) if text else batch)


def seen(values: list[Any]) -> list[tuple[float, Any]]:
    """By the minute."""
    return [((value.SourceTimestamp - NOON) / MINUTE, value.Value.Value if value.Value else None) for value in values]


@pytest.mark.parametrize(
    ("start", "end", "number", "bounds", "minutes"),
    [
        (0, 5, 0, True, [0, 2, 3, 5]),
        (0, 5, 0, False, [0, 2, 3]),
        (1, 4, 0, True, [0, 2, 3, 5]),
        (1, 4, 0, False, [2, 3]),
        (5, 0, 0, True, [5, 3, 2, 0]),
        (5, 0, 0, False, [5, 3, 2]),
        (4, 1, 0, True, [5, 3, 2, 0]),
        (4, 1, 0, False, [3, 2]),
        (-1, 5, 0, True, [None, 0, 2, 3, 5]),
        (-1, 5, 0, False, [0, 2, 3]),
        (1, 7, 0, True, [0, 2, 3, 5, 6, None]),
        (0, _OPEN, 3, True, [0, 2, 3]),
        (1, _OPEN, 3, True, [0, 2, 3]),
        (0, _OPEN, 6, True, [0, 2, 3, 5, 6]),
        (_OPEN, 6, 3, True, [6, 5, 3]),
        (_OPEN, 7, 6, True, [None, 6, 5, 3, 2, 0]),
        (0, 0, 0, True, [0]),
        (0, 0, 0, False, [0]),
        (1, 1, 0, True, [0, 2]),
        (1, 1, 0, False, []),
    ],
)
async def test_raw_values_are_those_of_the_standards_examples(house, start, end, number, bounds, minutes):
    found, _ = await house.raw(_NOX.name, details(start, end, number, bounds=bounds))
    expected = [(minute, _TABLE[minute]) for minute in minutes if minute is not None]
    assert [value for value in seen(found) if value[1] is not None] == expected
    missing = [value for value in found if value.StatusCode.value == ua.StatusCodes.BadBoundNotFound]
    assert len(missing) == minutes.count(None)
    for value in missing:
        assert value.SourceTimestamp in (at(-1), at(7))


@pytest.mark.parametrize("bounds", [False, True])
@pytest.mark.parametrize(("start", "end"), [(0, 4), (4, -1), (0, 1.5), (0, 2), (2, 2), (-3, -2)])
async def test_pages_of_any_size_are_together_what_one_page_is(house, start, end, bounds):
    whole, _ = await house.raw("Foretag.Tags.e1.T24", details(start, end, bounds=bounds))
    for size in (1, 2, 3, 4):
        paged, sizes = await house.raw("Foretag.Tags.e1.T24", details(start, end, size, bounds=bounds))
        assert seen(paged) == seen(whole)
        assert max(sizes) <= size
    if (start, end) == (0, 4):
        values = [float(value) for value in range(600, 609)]
        assert [value for _, value in seen(whole)][: len(values)] == values


async def test_a_dense_tag_is_read_in_pages_and_never_much_more_than_a_page(house, monkeypatch):
    read: list[int] = []
    stored = house.store.read_samples

    async def counted(*asked: Any) -> SampleBatch:
        found: SampleBatch = await stored(*asked)
        read.append(len(found))
        return found

    monkeypatch.setattr(house.store, "read_samples", counted)
    found, sizes = await house.raw("Foretag.Tags.e1.P30", details(-1000, 1000))
    assert [value for _, value in seen(found)] == [float(value) for value in range(20_000)]
    assert sizes == [answering.PAGE] * 4
    assert max(read) <= answering.PAGE + 61
    last, _ = await house.raw("Foretag.Tags.e1.P30", details(_OPEN, 10_000, 2))
    assert [value for _, value in seen(last)] == [19_999.0, 19_998.0]


async def test_what_stands_beside_a_value_has_a_past_too(house):
    bounds, _ = await house.raw(f"{_HEALTH.name}.LowerBound", details(0, 2))
    assert bounds[0].Value.Value == pytest.approx(-10.0)  # in percent, as the node shows it
    (score,), _ = await house.raw(f"{_FLAG.name}.Score", details(0, 1))
    assert score.Value == ua.Variant(0.5, ua.VariantType.Double)
    flags, _ = await house.raw(_FLAG.name, details(0, 3))
    assert [value.Value for value in flags] == [ua.Variant(raised) for raised in (False, True, False)]
    states, _ = await house.raw(_STATE.name, details(0, 3))
    assert states[0].Value == ua.Variant(2, ua.VariantType.Int32)
    assert states[1].StatusCode.value == Status.BAD_NO_DATA
    (text,), _ = await house.raw("Foretag.Tags.e1.note", details(0, 3))
    assert text.Value == ua.Variant("on")


async def test_the_last_of_several_words_stands_and_a_forecast_reaches_ahead(house):
    health, _ = await house.raw(_HEALTH.name, details(8, 10))
    assert [value for _, value in seen(health)] == [pytest.approx(82.0), pytest.approx(50.0)]
    load, _ = await house.raw(f"{_LOAD.name}.Expected", details(0, 1000))
    assert seen(load) == [(60.0, 51.0), (120.0, 99.0), (180.0, 53.0)]


@pytest.mark.parametrize("stamps", list(ua.TimestampsToReturn)[:3])
async def test_a_client_has_the_timestamps_that_it_asked_for(house, stamps):
    (result,) = await house.ask(details(0, 1), _NOX.name, stamps=stamps)
    (value,) = result.HistoryData.DataValues
    assert (value.SourceTimestamp, value.ServerTimestamp) == {
        ua.TimestampsToReturn.Source: (NOON, None),
        ua.TimestampsToReturn.Server: (None, at(9)),
        ua.TimestampsToReturn.Both: (NOON, at(9)),
    }[stamps]


@pytest.mark.parametrize("stamps", [ua.TimestampsToReturn.Neither, ua.TimestampsToReturn.Invalid, 7])
async def test_history_without_timestamps_is_none(house, stamps):
    with pytest.raises(ua.uaerrors.BadTimestampsToReturnInvalid):
        await house.ask(details(0, 1), _NOX.name, stamps=stamps)


@pytest.mark.parametrize(
    ("name", "asked", "status"),
    [
        ("nowhere", details(0, 1), "BadNodeIdUnknown"),
        (f"{_NOX.name}.AsOfTime", details(0, 1), "BadHistoryOperationUnsupported"),
        (_LOAD.name, details(0, 1), "BadHistoryOperationUnsupported"),
        (_NOX.name, details(0, _OPEN), "BadHistoryOperationInvalid"),
        (_NOX.name, details(_OPEN, _OPEN, 5), "BadHistoryOperationInvalid"),
        (_NOX.name, details(0, 1, modified=True), "BadHistoryOperationUnsupported"),
        (_NOX.name, details(0.5, 1), "GoodNoData"),
        (_NOX.name, details(100, 101), "GoodNoData"),
    ],
)
async def test_what_can_not_be_answered_says_why_and_the_other_nodes_are_answered(house, name, asked, status):
    result, other = await house.ask(asked, name, "Foretag.Tags.e1.T24")
    assert result.StatusCode.name == status
    fine = {status} if status == "BadHistoryOperationInvalid" else {"Good", "GoodNoData"}
    assert other.StatusCode.name in fine


async def test_a_continuation_point_is_one_sessions_one_nodes_and_of_one_use(house):
    (result,) = await house.ask(details(0, 4, 2), _NOX.name)
    again = ua.HistoryReadValueId(house.id(_NOX.name), ContinuationPoint=result.ContinuationPoint)
    other = replace(again, NodeId=house.id(_HEALTH.name))
    assert (await house.ask(details(0, 4, 2), other))[0].StatusCode.name == "BadContinuationPointInvalid"
    async with Client(house.client.server_url.geturl()) as stranger:
        params = ua.HistoryReadParameters(details(0, 4, 2), ua.TimestampsToReturn.Both, False, [again])
        (refused,) = await stranger.uaclient.history_read(params)
        assert refused.StatusCode.name == "BadContinuationPointInvalid"
    (released,) = await house.ask(details(0, 4, 2), again, release=True)
    assert released.StatusCode.name == "Good"
    assert (await house.ask(details(0, 4, 2), again))[0].StatusCode.name == "BadContinuationPointInvalid"


async def test_what_took_too_long_is_asked_for_again_with_the_same_point(house, monkeypatch):
    (first,) = await house.ask(details(0, 4, 2), _NOX.name)
    rest = ua.HistoryReadValueId(house.id(_NOX.name), ContinuationPoint=first.ContinuationPoint)
    with monkeypatch.context() as patch:
        patch.setattr(answering, "_SECONDS", 0.0)
        (late,) = await house.ask(details(0, 4, 2), rest)
        assert (late.StatusCode.name, late.ContinuationPoint) == ("BadTimeout", None)
    (second,) = await house.ask(details(0, 4, 2), rest)
    assert second.StatusCode.name == "Good"
    whole, _ = await house.raw(_NOX.name, details(0, 4, 4))
    assert seen([*first.HistoryData.DataValues, *second.HistoryData.DataValues]) == seen(whole)
    (over,) = await house.ask(details(0, 4, 2), rest)
    assert over.StatusCode.name == "BadContinuationPointInvalid"


async def test_gaps_after_what_is_asked_for_do_not_count(house, monkeypatch):
    """However many there are: a tag of a poor line has thousands of them each year."""
    name = "Foretag.Tags.e1.T30"
    asked = processed(0, 8, 8, "PercentBad")
    monkeypatch.setattr(past, "_MOST_GAPS", 2)
    assert (await house.ask(asked, name))[0].StatusCode.name == "Good"
    assert (await house.ask(processed(0, 16, 8, "PercentBad"), name))[0].StatusCode.name == "BadResourceUnavailable"


async def test_a_value_that_was_corrected_is_seen_with_who_did_it(house):
    (tag, *_) = await house.store.tags()
    corrected = _delivery(tag.id, [3], [700.0]).samples
    await house.store.correct(corrected, user="eva", reason="calibration")
    (result,) = await house.ask(details(0, 4, modified=True), "Foretag.Tags.e1.T24")
    assert seen(result.HistoryData.DataValues) == [(3.0, 608.0)]
    (info,) = result.HistoryData.ModificationInfos
    assert (info.UserName, info.UpdateType) == ("eva", ua.HistoryUpdateType.Replace)
    assert abs(info.ModificationTime - datetime.now(UTC)) < timedelta(minutes=1)
    (back,) = await house.ask(details(4, 0, modified=True), "Foretag.Tags.e1.T24")
    assert len(back.HistoryData.DataValues) == 1
    await house.store.correct(replace(corrected, value=np.array([608.0])), user="eva", reason="calibration")


async def test_nodes_say_that_they_have_a_past_and_how_it_is_to_be_read(house):
    for name, stepped in ((_NOX.name, False), (_FLAG.name, True), (f"{_FLAG.name}.Score", False)):
        node = house.client.get_node(house.id(name))
        assert ua.AccessLevel.HistoryRead in await node.get_access_level()
        historizing = await node.read_attribute(ua.AttributeIds.Historizing)
        assert historizing.Value.Value is True
        (configuration,) = await node.get_referenced_nodes(ua.ObjectIds.HasHistoricalConfiguration)
        assert (await configuration.read_browse_name()).Name == "HA Configuration"
        assert await (await configuration.get_child("0:Stepped")).read_value() is stepped
        aggregation = await configuration.get_child("0:AggregateConfiguration")
        assert await (await aggregation.get_child("0:TreatUncertainAsBad")).read_value() is False
    without = house.client.get_node(house.id(_LOAD.name))
    assert ua.AccessLevel.HistoryRead not in await without.get_access_level()
    most = house.client.get_node(ua.ObjectIds.HistoryServerCapabilities_MaxReturnDataValues)
    assert await most.read_value() == answering.PAGE


async def test_a_read_that_takes_too_long_ends(house, monkeypatch):
    monkeypatch.setattr(answering, "_SECONDS", 0.0)
    results = await house.ask(details(0, 4), _NOX.name, _HEALTH.name)
    assert [result.StatusCode.name for result in results] == ["BadTimeout"] * 2


def processed(start: float, end: float, minutes: float, aggregate: str, **config: Any) -> ua.ReadProcessedDetails:
    kind = ua.NodeId(ua.Int32(getattr(ua.ObjectIds, f"AggregateFunction_{aggregate}")))
    made = ua.AggregateConfiguration(**{"PercentDataBad": 100, "PercentDataGood": 100, **config})
    return ua.ReadProcessedDetails(at(start), at(end), minutes * 60_000.0, [kind], made)


_RAW = {"UseServerCapabilitiesDefaults": False, "TreatUncertainAsBad": True, "UseSlopedExtrapolation": False}


@pytest.mark.parametrize("aggregate", ["Average", "Minimum", "Maximum", "Range", "Count"])
@pytest.mark.parametrize("minutes", [1, 7, 60, 120])
async def test_what_roll_ups_give_is_what_the_values_give(house, monkeypatch, aggregate, minutes):
    name, span = "Foretag.Tags.e1.P30", (-60, 480)
    values, _ = await house.raw(name, processed(*span, minutes, aggregate, **_RAW))
    monkeypatch.setattr(house.store, "read_samples", None)
    rolled, _ = await house.raw(name, processed(*span, minutes, aggregate))
    assert len(rolled) == math.ceil(540 / minutes)
    assert [(v.SourceTimestamp, v.StatusCode.value) for v in rolled] == [
        (v.SourceTimestamp, v.StatusCode.value) for v in values
    ]
    for one, other in zip(rolled, values, strict=True):
        assert one.Value.VariantType == other.Value.VariantType
        assert one.Value.Value == pytest.approx(other.Value.Value)
    assert rolled[-1].Value.Value is None  # after the last of them
    assert rolled[len(rolled) // 2].Value.Value is not None


@pytest.mark.parametrize(
    ("aggregate", "expected"),
    [
        ("PercentGood", [(75.0, "Good"), (0.0, "Good"), (100.0, "Good"), (100.0, "Good")]),
        ("Average", [(10.0, "UncertainDataSubNormal"), (None, "BadNoData"), (10.0, "Good"), (10.0, "Good")]),
        ("Count", [(3.0, "UncertainDataSubNormal"), (None, "BadNoData"), (4.0, "Good"), (4.0, "Good")]),
        ("TimeAverage2", [(10.0, "UncertainDataSubNormal"), (None, "BadNoData"), (10.0, "Good"), (10.0, "Good")]),
        ("Interpolative", [(10.0, "Good"), (None, "BadNoData"), (10.0, "Good"), (10.0, "Good")]),
    ],
)
@pytest.mark.parametrize("shares", [{}, _RAW])
async def test_a_recorded_gap_is_no_data_and_one_that_was_filled_is_none(house, aggregate, expected, shares):
    more = {"PercentDataBad": 80} | shares
    values, _ = await house.raw("Foretag.Tags.e1.T30", processed(0, 16, 4, aggregate, **more))
    told = [(one.Value.Value if one.Value else None, _name(one.StatusCode)) for one in values]
    assert told == expected


def _name(status: ua.StatusCode) -> str:
    """Without the bits of the historian."""
    return ua.StatusCode(ua.UInt32(status.value & 0xFFFF_0000)).name


async def test_a_node_says_since_when_it_has_a_past(house):
    for name, start in (("Foretag.Tags.e1.T30", at(0)), ("e1.nox.nox", at(0))):
        node = house.client.get_node(house.id(name))
        (configuration,) = await node.get_referenced_nodes(ua.ObjectIds.HasHistoricalConfiguration)
        for text in ("StartOfArchive", "StartOfOnlineArchive"):
            told = await configuration.get_child(f"0:{text}")
            async with asyncio.timeout(20):
                while (await told.read_data_value(raise_on_bad_status=False)).StatusCode.is_bad():
                    await asyncio.sleep(0.02)
            assert await told.read_value() == start


async def test_processed_values_of_predictions_forwards_backwards_and_cut_short(house):
    found, _ = await house.raw(_NOX.name, processed(0, 7, 3, "Average"))
    assert seen(found) == [(0, 11.0), (3, 14.0), (6, 16.0)]
    assert [hex(value.StatusCode.value) for value in found] == ["0x401", "0x401", "0x405"]
    back, _ = await house.raw(_NOX.name, processed(6, 0, 3, "Average"))
    assert seen(back) == [(6, 15.5), (3, 12.5)]
    (whole,), _ = await house.raw(_NOX.name, processed(0, 7, 0, "Count"))
    assert whole.Value == ua.Variant(5, ua.VariantType.Int32)
    states, _ = await house.raw(_FLAG.name, processed(0, 3, 1, "Interpolative"))
    assert [value.Value.Value for value in states] == [False, True, False]


async def test_values_at_given_times_come_in_the_order_that_was_asked_for(house, monkeypatch):
    monkeypatch.setattr(processing, "_ROWS", 2)
    asked = ua.ReadAtTimeDetails([at(4), at(0), at(2.5), at(-1), at(9)], False)
    found, _ = await house.raw(_NOX.name, asked)
    assert seen(found) == [(4, 14.0), (0, 10.0), (2.5, 12.5), (-1, None), (9, 16.0)]
    assert [hex(value.StatusCode.value) for value in found] == ["0x402", "0x0", "0x402", "0x809b0000", "0x40a40402"]


async def test_many_intervals_come_in_pages(house, monkeypatch):
    monkeypatch.setattr(answering, "PAGE", 3)
    found, sizes = await house.raw(_NOX.name, processed(0, 7, 1, "End"))
    assert sizes == [3, 3, 1]
    assert seen(found) == [(minute, _TABLE.get(minute)) for minute in range(7)]
    times, sizes = await house.raw(_NOX.name, ua.ReadAtTimeDetails([at(n) for n in range(7)], True))
    assert (len(times), sizes) == (7, [3, 3, 1])


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (processed(0, 7, 1, "StandardDeviationSample"), "BadAggregateNotSupported"),
        (processed(0, 0, 1, "Average"), "BadInvalidArgument"),
        (processed(0, 7, -1, "Average"), "BadAggregateInvalidInputs"),
        (replace(processed(0, 7, 1, "Average"), AggregateType=[]), "BadAggregateListMismatch"),
        (processed(0, 7, 1, "Average", UseServerCapabilitiesDefaults=False), "BadAggregateConfigurationRejected"),
        (
            processed(0, 7, 1, "Average", **{**_RAW, "PercentDataGood": 10, "PercentDataBad": 10}),
            "BadAggregateInvalidInputs",
        ),
        (ua.ReadAtTimeDetails([], False), "BadHistoryOperationInvalid"),
    ],
)
async def test_what_can_not_be_calculated_says_why(house, asked, status):
    (result,) = await house.ask(asked, _NOX.name)
    assert result.StatusCode.name == status


async def test_times_count_for_each_node_that_they_are_asked_of(house):
    many = ua.ReadAtTimeDetails([at(0)] * 40_000, False)
    with pytest.raises(ua.UaStatusCodeError, match="BadTooManyOperations"):
        await house.ask(many, _NOX.name, _NOX.name, _NOX.name)
    assert [result.StatusCode.name for result in await house.ask(many, _NOX.name)] == ["Good"]


async def test_the_server_tells_which_aggregates_it_has(house):
    folder = house.client.get_node(ua.ObjectIds.HistoryServerCapabilities_AggregateFunctions)
    names = {(await node.read_browse_name()).Name for node in await folder.get_children()}
    assert {"Average", "TimeAverage", "PercentGood", "Start", "End", "Count", "Interpolative"} <= names


def _select(*paths: str) -> list[ua.SimpleAttributeOperand]:
    found = []
    for path in paths:
        clause = ua.SimpleAttributeOperand(TypeDefinitionId=ua.NodeId(ua.Int32(ua.ObjectIds.BaseEventType)))
        clause.BrowsePath = [ua.QualifiedName(ua.String(step)) for step in path.split("/")]
        clause.AttributeId = ua.AttributeIds.Value
        found.append(clause)
    return found


def _events(start: Any, end: Any, number: int = 0, least: int = 0) -> ua.ReadEventDetails:
    severe = ua.ContentFilterElement(
        ua.FilterOperator.GreaterThanOrEqual, [_select("Severity")[0], ua.LiteralOperand(ua.Variant(least))]
    )
    paths = _select("Message", "Severity", "EventType", "ActiveState/Id", "EventId", "SourceNode", "Comment", "Time")
    start, end = (at(time) if isinstance(time, int | float) else time for time in (start, end))
    return ua.ReadEventDetails(number, start, end, ua.EventFilter(paths, ua.ContentFilter([severe])))


async def _told(house: House, node: ua.NodeId, details: ua.ReadEventDetails) -> tuple[list[str], int]:
    """Messages, and on how many pages."""
    asked, found = ua.HistoryReadValueId(node), []
    for page in range(1, 30):
        (result,) = await house.ask(details, asked)
        result.StatusCode.check()
        found += [event.EventFields[0].Value.Text.removeprefix("event ") for event in result.HistoryData.Events]
        if not result.ContinuationPoint:
            return found, page
        asked.ContinuationPoint = result.ContinuationPoint
    raise AssertionError("it never ends")


_SERVER = ua.NodeId(ua.Int32(ua.ObjectIds.Server))


@pytest.mark.parametrize(
    ("start", "end", "number", "least", "messages"),
    [
        (0, 10, 0, 0, "0123456"),
        (0, 10, 2, 0, "0123456"),
        (10, -1, 2, 0, "6543120"),
        (2, 3, 1, 0, "12"),
        (0, 10, 1, 301, "3456"),
        (0, _OPEN, 3, 0, "012"),
        (_OPEN, 5, 3, 0, "543"),
        (_OPEN, 10, 3, 301, "654"),
    ],
)
async def test_events_of_the_past_are_told_in_pages_and_in_order(house, start, end, number, least, messages):
    found, pages = await _told(house, _SERVER, _events(start, end, number, least))
    assert "".join(found) == messages
    assert (pages > 1) == (bool(number) and _OPEN not in {start, end})


async def test_an_asset_tells_of_its_own_events_with_the_fields_of_their_types(house):
    found, _ = await _told(house, house.id("Foretag.Assets.e1"), _events(0, 10))
    assert "".join(found) == "012345"
    (result,) = await house.ask(_events(3, 4), ua.HistoryReadValueId(house.id("Foretag.Assets.e1")))
    (told,) = result.HistoryData.Events
    _, severity, kind, active, key, source, comment, time = (field.Value for field in told.EventFields)
    assert (severity, active, key, time) == (301, True, (3).to_bytes(16, "big"), at(3))
    assert kind == ua.NodeId(ua.Int32(ua.ObjectIds.ExclusiveLevelAlarmType))
    assert source == house.id("Foretag.Assets.e1")
    assert comment.Text == "seen"


async def test_what_tells_of_no_events_says_so(house):
    (result,) = await house.ask(_events(0, 10), _NOX.name)
    assert result.StatusCode.name == "BadHistoryOperationUnsupported"
    odd = ua.EventFilter([], ua.ContentFilter([ua.ContentFilterElement(ua.FilterOperator.Cast, [])]))
    (result,) = await house.ask(replace(_events(0, 10), Filter=odd), ua.HistoryReadValueId(_SERVER))
    assert result.StatusCode.name == "BadEventFilterInvalid"
    for node in (_SERVER, house.id("Foretag.Assets.e1")):
        assert ua.EventNotifier.HistoryRead in await house.client.get_node(node).read_event_notifier()
