"""Outputs of every meaning, and how models stand, read back by a client over a real socket."""

import contextlib
import math
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from asyncua import Client, ua
from asyncua.common.node import Node

from plugin.diagnostics import Diagnostics
from plugin.domain import (
    Drift,
    DriftKind,
    Explanation,
    Flag,
    Meaning,
    ModelStanding,
    Outcome,
    OutputTag,
    Prediction,
    Run,
    RunKind,
    RunResult,
    Standing,
    Status,
)
from plugin.publish.config import PublishConfig
from plugin.publish.server import OpcUaSink

pytestmark = pytest.mark.asyncio(loop_scope="module")

_HOUR = timedelta(hours=1)
_CYCLES = OutputTag(
    "m", "pump", "rul", "cycles", 0.0, 125.0, "", Meaning.LIFETIME, warnings=(30.0, 10.0), cycle=2 * _HOUR
)
_UNDATED = replace(_CYCLES, output="undated", cycle=None)
_HOURS = OutputTag("m", "pump", "hours", "h", 0.0, 1000.0, "", Meaning.LIFETIME)
_CHANCE = OutputTag("m", "pump", "chance", "1", 0.0, 1.0, "", Meaning.PROBABILITY)
_NOX = OutputTag("m", "pump", "nox", "mg/m3", 0.0, 200.0, "")
_SCORE = OutputTag("m", "pump", "score", "1", 0.0, float("inf"), "", Meaning.SCORE)
_STATE = OutputTag("m", "pump", "state", "", 0.0, 2.0, "", Meaning.STATE, ("fine", "worn", "broken"))
_LOAD = OutputTag("m", "pump", "load", "kWh", 0.0, 50.0, "", Meaning.FORECAST, confidence=0.8)
_FLAG = OutputTag("m", "pump", "flag", "", 0.0, 1.0, "", Meaning.FLAG)
_TAGS = (_CYCLES, _UNDATED, _HOURS, _CHANCE, _NOX, _SCORE, _STATE, _LOAD, _FLAG)


class _Seen:
    """An open sink, seen by a client."""

    def __init__(self, sink: OpcUaSink, client: Client, namespace: int) -> None:
        self.sink = sink
        self.client = client
        self._namespace = namespace

    def node(self, name: str) -> Node:
        return self.client.get_node(ua.NodeId(ua.String(name), ua.Int16(self._namespace)))

    async def read(self, name: str) -> tuple[Any, int]:
        data = await self.node(name).read_data_value(raise_on_bad_status=False)
        assert data.Value is not None
        assert data.StatusCode is not None
        assert data.SourceTimestamp is not None
        assert data.SourceTimestamp <= datetime.now(UTC)
        return data.Value.Value, int(data.StatusCode.value)

    async def value(self, name: str) -> Any:
        return (await self.read(name))[0]

    async def kind(self, name: str) -> tuple[str, list[str]]:
        """Name of its type, and of what that derives from."""
        names = []
        kind = await self.node(name).read_type_definition()
        assert kind is not None
        node = self.client.get_node(kind)
        while node.nodeid.Identifier not in (ua.ObjectIds.BaseDataVariableType, ua.ObjectIds.BaseObjectType):
            names.append(str((await node.read_browse_name()).Name))
            (node,) = await node.get_referenced_nodes(ua.ObjectIds.HasSubtype, ua.BrowseDirection.Inverse)
        return names[0], names[1:]


@contextlib.asynccontextmanager
async def _serving(folder: Path, **options: Any) -> AsyncIterator[_Seen]:
    config = PublishConfig(endpoint="opc.tcp://127.0.0.1:0/foretag", security=("None",), **options)
    sink = OpcUaSink(config, folder, Diagnostics())
    async with sink.open(_TAGS), Client(sink.endpoint, watchdog_intervall=60) as client:
        yield _Seen(sink, client, await client.get_namespace_index("urn:foretag:predictions"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def seen(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[_Seen]:
    async with _serving(tmp_path_factory.mktemp("pki")) as seen:
        yield seen


def _said(tag: OutputTag, value: float | None, now: datetime, ahead: timedelta = timedelta(0)) -> Prediction:
    lower, upper = (None, None) if value is None else (value / 2, value * 2)
    return Prediction(tag, 3, now, now + ahead, now + _HOUR, value, lower, upper, Status.GOOD, 0.75, 1)


def _outcome(values: Mapping[OutputTag, float | None], **rest: Any) -> Outcome:
    now = datetime.now(UTC)
    predictions = [_said(tag, value, now) for tag, value in values.items()]
    return Outcome(Run(1, "m", RunKind.SCORE, now, now, now, RunResult.DONE, 3, 1), tuple(predictions), (), **rest)


async def _in_force(seen: _Seen, **more: Any) -> None:
    await seen.sink.inform((Standing("m", "any", ModelStanding.IN_FORCE, 3, "5eed", **more),))


async def test_a_remaining_life_is_a_lifetime_of_di_with_a_date(seen):
    outcome = _outcome({_CYCLES: 80.0, _UNDATED: 80.0, _HOURS: 5.0})
    await seen.sink.publish(outcome)
    assert await seen.kind("pump.m.rul") == (
        "PredictedLifetimeType",
        ["LifetimeVariableType", "AnalogUnitType", "BaseAnalogType", "DataItemType"],
    )
    facts = {name: await seen.value(f"pump.m.rul.{name}") for name in ("StartValue", "LimitValue", "WarningValues")}
    assert facts == {"StartValue": 125.0, "LimitValue": 0.0, "WarningValues": [30.0, 10.0]}
    indication = seen.client.get_node(await seen.value("pump.m.rul.Indication"))
    assert (await indication.read_browse_name()).Name == "NumberOfUsagesIndicationType"
    as_of = outcome.predictions[0].as_of
    assert await seen.read("pump.m.rul.PredictedTime") == (as_of + 160 * _HOUR, Status.GOOD)
    assert await seen.read("pump.m.hours.PredictedTime") == (as_of + 5 * _HOUR, Status.GOOD)
    assert await seen.read("pump.m.undated.PredictedTime") == (None, Status.BAD_NO_DATA)
    assert "not configured" in (await seen.node("pump.m.undated.PredictedTime").read_description()).Text


async def test_shares_are_shown_in_percent(seen):
    await seen.sink.publish(_outcome({_CHANCE: 0.25}))
    parts = [await seen.value(f"pump.m.chance{part}") for part in ("", ".LowerBound", ".UpperBound", ".EURange")]
    assert parts == [25.0, 12.5, 50.0, ua.Range(0.0, 100.0)]
    assert (await seen.value("pump.m.chance.EngineeringUnits")).UnitId == 20529


async def test_numbers_have_units_and_those_without_a_range_say_so_by_their_type(seen):
    await seen.sink.publish(_outcome({_NOX: 60.0, _SCORE: 1.5}))
    assert (await seen.kind("pump.m.nox"))[1][0] == "AnalogUnitRangeType"
    assert (await seen.kind("pump.m.score"))[1][0] == "AnalogUnitType"
    assert (await seen.value("pump.m.score.EngineeringUnits")).Description.Text == "one"
    assert await seen.value("pump.m.nox.Confidence") == 0.9


async def test_a_state_has_a_number_and_a_text(seen):
    await seen.sink.publish(_outcome({_STATE: 1.0}))
    assert (await seen.kind("pump.m.state"))[1][0] == "MultiStateValueDiscreteType"
    assert await seen.read("pump.m.state") == (1, Status.GOOD)
    assert (await seen.value("pump.m.state.ValueAsText")).Text == "worn"
    names = [value.DisplayName.Text for value in await seen.value("pump.m.state.EnumValues")]
    assert names == ["fine", "worn", "broken"]
    await seen.sink.publish(_outcome({_STATE: 7.0}))
    assert await seen.read("pump.m.state") == (None, Status.BAD_NO_DATA), "there is no such state"


async def test_a_forecast_is_arrays_in_the_order_of_time(seen):
    now = datetime.now(UTC)
    outcome = _outcome({})
    given = [_said(_LOAD, value, now, ahead * _HOUR) for ahead, value in ((24, 40.0), (1, 10.0), (4, None))]
    await seen.sink.publish(replace(outcome, predictions=tuple(given)))
    (first, missing, last), status = await seen.read("pump.m.load")
    assert (first, last, math.isnan(missing)) == (10.0, 40.0, True)
    assert status == Status.UNCERTAIN_SUB_NORMAL, "one of three is missing"
    assert await seen.value("pump.m.load.TargetTimes") == [now + hours * _HOUR for hours in (1, 4, 24)]
    assert (await seen.value("pump.m.load.UpperBounds"))[2] == 80.0
    assert await seen.value("pump.m.load.Confidence") == 0.8
    await seen.sink.publish(replace(outcome, predictions=(_said(_LOAD, None, now),)))
    assert await seen.read("pump.m.load") == (None, Status.BAD_NO_DATA)


async def test_what_made_a_value_what_it_is_and_the_model_that_said_it(seen):
    explained = Explanation(_NOX, datetime.now(UTC), 1, {"TIT": 0.7, "AP": 0.3})
    await _in_force(seen)
    await seen.sink.publish(_outcome({_NOX: 60.0}, explanations=(explained,)))
    assert await seen.value("pump.m.nox.Contributions") == ["TIT", "AP"]
    assert await seen.value("pump.m.nox.ContributionShares") == [0.7, 0.3]
    assert await seen.read("pump.m.nox.ModelHash") == ("5eed", Status.GOOD)
    await seen.sink.publish(_outcome({_NOX: 61.0}))
    assert await seen.read("pump.m.nox.Contributions") == (None, Status.BAD_NO_DATA), "of another value"


async def test_the_asset_tells_its_health(seen):
    now = datetime.now(UTC)
    await seen.sink.publish(_outcome({_CYCLES: 20.0, _UNDATED: 80.0, _HOURS: 900.0}))
    assert await seen.read("Foretag.Assets.pump.DeviceHealth") == (4, Status.UNCERTAIN_SUB_NORMAL), "no flag yet"
    flag = Flag("m", "pump", 3, now, True, 3.0, 2.0, Status.GOOD, 1)
    await seen.sink.publish(replace(_outcome({_CYCLES: 20.0}), flags=(flag,)))
    assert await seen.read("Foretag.Assets.pump.DeviceHealth") == (3, Status.GOOD)
    asset = await seen.node("Foretag.Assets.pump").read_type_definition()
    assert asset is not None
    (interface,) = await seen.client.get_node(asset).get_referenced_nodes(ua.ObjectIds.HasInterface)
    assert (await interface.read_browse_name()).Name == "IDeviceHealthType"


def _drift(asset: str) -> Drift:
    now = datetime.now(UTC)
    return Drift("1", "m", 3, DriftKind.INPUT, asset, "TIT", now, now, None, 5.0, 3.0, "")


async def test_how_its_model_stands_is_seen_on_an_output(seen):
    nox = "pump.m.nox"
    await _in_force(seen)
    await seen.sink.publish(_outcome({_NOX: 60.0}))
    await _in_force(seen, drifts=(_drift("another"),))
    assert await seen.read(nox) == (60.0, Status.GOOD)
    await _in_force(seen, drifts=(_drift("pump"),))
    assert await seen.read(nox) == (60.0, Status.UNCERTAIN_SUB_NORMAL)
    assert await seen.value("Foretag.Models.m.Drifts") == ["input of pump TIT"]
    await seen.sink.publish(_outcome({_NOX: 61.0}))
    assert await seen.read(f"{nox}.UpperBound") == (122.0, Status.UNCERTAIN_SUB_NORMAL), "it lasts"
    await _in_force(seen)
    assert await seen.read(nox) == (61.0, Status.GOOD)
    for state, status in (
        (ModelStanding.OFF, Status.BAD_OUT_OF_SERVICE),
        (ModelStanding.NONE, Status.BAD_CONFIGURATION_ERROR),
        (ModelStanding.TRAINING, Status.BAD_WAITING_FOR_INITIAL_DATA),
    ):
        await seen.sink.inform((Standing("m", "any", state),))
        assert await seen.read(nox) == (None, status)
        assert await seen.value("Foretag.Models.m.State") == state


async def test_an_output_that_joins_later_knows_how_its_model_stands(seen):
    await seen.sink.inform((Standing("m", "any", ModelStanding.OFF),))
    await seen.sink.extend([replace(_NOX, asset="mill")])
    assert await seen.read("mill.m.nox") == (None, Status.BAD_OUT_OF_SERVICE)
    await _in_force(seen)


async def test_a_challengers_results_are_never_shown_as_the_prediction(seen):
    await seen.sink.publish(_outcome({_NOX: 60.0}))
    shadow = _outcome({_NOX: 99.0})
    await seen.sink.publish(replace(shadow, run=replace(shadow.run, kind=RunKind.SHADOW, version=4)))
    assert await seen.value("pump.m.nox") == 60.0
    await _in_force(seen, shadow=replace(shadow.run, kind=RunKind.SHADOW, version=4))
    assert await seen.read("Foretag.Models.m.ShadowVersion") == (4, Status.UNCERTAIN_SIMULATED_VALUE)


async def test_in_a_simulated_plant_good_results_say_so(tmp_path):
    async with _serving(tmp_path, simulated=True) as seen:
        await seen.sink.publish(_outcome({_NOX: 60.0}))
        assert await seen.read("pump.m.nox") == (60.0, Status.UNCERTAIN_SIMULATED_VALUE)
        data_type = await seen.node("Foretag.Assets.pump.DeviceHealth").read_data_type()
        definition = await seen.client.get_node(data_type).read_data_type_definition()
        assert isinstance(definition, ua.EnumDefinition)
        assert [field.Name for field in definition.Fields][3:] == ["OFF_SPEC", "MAINTENANCE_REQUIRED"]
