"""Alarms as an operator's client sees them: heard, acknowledged, shelved, judged, refreshed, also after a restart."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from asyncua import Client, ua

from plugin.domain import LabelKind, Status, Verdict
from plugin.infer.alarms.told import Notice
from tests.integration.alarm_plant import PATHS, URI, Events, Plant, event_filter, outputs, plant

pytestmark = pytest.mark.asyncio(loop_scope="module")

_ID = ua.ObjectIds
_SERVER = ua.NodeId(ua.Int32(_ID.Server))
_ASSETS = ("said", "known", "wrong", "roles", "shelf", "filter", "judged", "metered", "limits", "clock")
"""One for each test: what another one raised is not heard of."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Plant]:
    folder = tmp_path_factory.mktemp("plant")
    async with plant(folder, outputs(*_ASSETS), confirm=True, advice={"rul": "Plan a washing."}) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def clients(served: Plant) -> AsyncIterator[dict[str, Client]]:
    async with served.client("olga") as olga, served.client("otto") as otto, served.client("ada") as ada:
        yield {"olga": olga, "otto": otto, "ada": ada}


async def _node(client: Client, name: str) -> Any:
    return client.get_node(ua.NodeId(ua.String(name), ua.Int16(await client.get_namespace_index(URI))))


class _Listening:
    def __init__(self, client: Client, events: Events, subscription: Any, item: int) -> None:
        self.client, self.events, self.subscription, self.item = client, events, subscription, item

    @property
    def heard(self) -> list[dict[str, Any]]:
        return self.events.heard

    async def until(self, count: int) -> dict[str, Any]:
        await self.events.until(lambda: len(self.heard) >= count)
        return self.heard[-1]

    async def refresh(self, *item: int) -> None:
        method = _ID.ConditionType_ConditionRefresh2 if item else _ID.ConditionType_ConditionRefresh
        numbers = [ua.Variant(n, ua.VariantType.UInt32) for n in (self.subscription.subscription_id, *item)]
        kind = self.client.get_node(ua.NodeId(ua.Int32(_ID.ConditionType)))
        await kind.call_method(ua.NodeId(ua.Int32(method)), *numbers)


@contextlib.asynccontextmanager
async def listening(
    client: Client, node: Any = _SERVER, where: ua.ContentFilter | None = None
) -> AsyncIterator[_Listening]:
    events = Events((*PATHS, "NodeId"))
    subscription = await client.create_subscription(50, events)
    try:
        asked = event_filter(*PATHS, where=where)
        item = await subscription.subscribe_events(client.get_node(node), evfilter=asked, queuesize=0)
        yield _Listening(client, events, subscription, item)
    finally:
        await subscription.delete()


@contextlib.asynccontextmanager
async def at(client: Client, asset: str) -> AsyncIterator[_Listening]:
    node = await _node(client, f"Foretag.Assets.{asset}")
    async with listening(client, node.nodeid) as heard:
        yield heard


def alarm(asset: str) -> str:
    return f"{asset}.rul.rul.Alarm"


async def call(client: Client, condition: str, method: int, *arguments: Any) -> None:
    node = await _node(client, condition)
    await node.call_method(ua.NodeId(ua.Int32(method)), *arguments)


def _words(text: str) -> ua.Variant:
    return ua.Variant(ua.LocalizedText(text, "en"), ua.VariantType.LocalizedText)


def _event(event: dict[str, Any]) -> ua.Variant:
    return ua.Variant(event["EventId"], ua.VariantType.ByteString)


def _current(served: Plant, asset: str) -> ua.Variant:
    return ua.Variant(bytes.fromhex(served.room.states[alarm(asset)].current.event_id), ua.VariantType.ByteString)


def _ms(milliseconds: float) -> ua.Variant:
    return ua.Variant(float(milliseconds), ua.VariantType.Double)


async def test_an_alarm_says_what_why_and_what_to_do_with_all_that_a_client_selects(served, clients):
    client = clients["olga"]
    async with at(client, "said") as heard:
        await served.rul(25.0, "said")
        event = await heard.until(1)
    index = await client.get_namespace_index(URI)
    assert event["Message"].Text == (
        "rul 25 cycles is under 30 cycles. Mostly by T50 (62%), Ps30 (30%), T2 (5%). Plan a washing."
    )
    assert event["EventType"] == ua.NodeId(ua.Int32(_ID.ExclusiveLevelAlarmType))
    assert (event["SourceName"], event["ConditionName"]) == ("said", "rul: remaining life short")
    assert (event["ActiveState"].Text, event["ActiveState/Id"], event["AckedState/Id"]) == ("Active", True, False)
    assert (event["Severity"], event["Retain"], event["LowLimit"]) == (500, True, 30.0)
    assert event["LimitState/CurrentState"].Text == "Low"
    assert event["ShelvingState/CurrentState"].Text == "Unshelved"
    assert event["NodeId"] == ua.NodeId(ua.String(alarm("said")), ua.Int16(index))
    assert event["InputNode"] == ua.NodeId(ua.String("said.rul.rul"), ua.Int16(index))
    assert event["BranchId"].is_null()
    assert event["Quality"].value == Status.GOOD


async def test_one_refresh_of_a_subscription_comes_after_the_other(served, clients):
    await served.rul(25.0, "said")
    async with listening(clients["olga"]) as heard:
        (subscription,) = served.sink._server.subscriptions.subscriptions.values()
        await subscription.set_publishing_mode(False)
        await heard.refresh()
        with pytest.raises(ua.UaStatusCodeError, match="BadRefreshInProgress"):
            await heard.refresh()
        await subscription.set_publishing_mode(True)

        def ends() -> int:
            return sum(each["EventType"].Identifier == _ID.RefreshEndEventType for each in heard.heard)

        await heard.events.until(lambda: ends() == 1)
        await heard.refresh()
        await heard.events.until(lambda: ends() == 2)


async def test_what_is_back_within_its_limits_is_in_the_state_of_none(served, clients):
    state = await _node(clients["olga"], f"{alarm('limits')}.LimitState.CurrentState")
    seen = []
    for life in (25.0, 90.0, 5.0):
        await served.rul(life, "limits")
        found = await state.read_data_value(raise_on_bad_status=False)
        seen.append((found.StatusCode.name, found.Value.Value.Text if found.Value.Value else None))
    assert seen == [("Good", "Low"), ("BadStateNotActive", None), ("Good", "LowLow")]


async def test_a_flag_alone_tells_of_the_health_too(served, clients):
    health = await _node(clients["olga"], "Foretag.Assets.metered.DeviceHealth")
    await served.flag(1.5, "metered")
    assert (await health.read_data_value(raise_on_bad_status=False)).Value.Value == 3
    await served.flag(0.5, "metered")


async def test_it_is_acknowledged_confirmed_and_gone(served, clients):
    client = clients["otto"]
    async with at(client, "known") as heard:
        await served.rul(25.0, "known")
        event = await heard.until(1)
        acknowledge, confirm = _ID.AcknowledgeableConditionType_Acknowledge, _ID.AcknowledgeableConditionType_Confirm
        await call(client, alarm("known"), acknowledge, _event(event), _words("on my way"))
        event = await heard.until(2)
        assert (event["AckedState/Id"], event["ConfirmedState/Id"]) == (True, False)
        assert (event["Comment"].Text, event["ClientUserId"]) == ("on my way", "otto")
        await served.rul(100.0, "known")
        event = await heard.until(3)
        assert (event["ActiveState/Id"], event["Retain"], event["Severity"]) == (False, True, 500)
        await call(client, alarm("known"), confirm, _event(event), _words("washed"))
        event = await heard.until(4)
        assert (event["Retain"], event["Comment"].Text) == (False, "washed")
        assert await (await _node(client, f"{alarm('known')}.AckedState.Id")).read_value() is True
    now = datetime.now(UTC)
    stored = await served.store.events(now - timedelta(hours=1), now + timedelta(hours=1), asset="known")
    assert {each.id for each in stored} == {each["EventId"].hex() for each in heard.heard}


async def test_what_makes_no_sense_is_refused_by_its_status_code(served, clients):
    known, unknown = _current(served, "wrong"), ua.Variant(b"none", ua.VariantType.ByteString)
    text, client = _words("x"), clients["ada"]
    for method, arguments, code in (
        (_ID.AcknowledgeableConditionType_Acknowledge, (known, text), "BadConditionBranchAlreadyAcked"),
        (_ID.AcknowledgeableConditionType_Acknowledge, (unknown, text), "BadEventIdUnknown"),
        (_ID.AcknowledgeableConditionType_Confirm, (known, text), "BadConditionBranchAlreadyConfirmed"),
        (_ID.ConditionType_AddComment, (unknown, text), "BadEventIdUnknown"),
        (_ID.ConditionType_AddComment, (known,), "BadArgumentsMissing"),
        (_ID.ConditionType_AddComment, (known, known), "BadTypeMismatch"),
        (_ID.ShelvedStateMachineType_Unshelve, (), "BadConditionNotShelved"),
        (_ID.ShelvedStateMachineType_TimedShelve, (_ms(0),), "BadShelvingTimeOutOfRange"),
        (_ID.ShelvedStateMachineType_TimedShelve, (_ms(9 * 3_600_000),), "BadShelvingTimeOutOfRange"),
        (_ID.ShelvedStateMachineType_TimedShelve, (_ms(float("nan")),), "BadShelvingTimeOutOfRange"),
        (_ID.ConditionType_Enable, (), "BadConditionAlreadyEnabled"),
        (_ID.ConditionType_Disable, (_ms(1),), "BadTooManyArguments"),
        (_ID.AcknowledgeableConditionType_Acknowledge, (_many(b"none"), text), "BadTypeMismatch"),
        (_ID.ConditionType_AddComment, (known, _many(ua.LocalizedText("x"))), "BadTypeMismatch"),
        (_ID.ShelvedStateMachineType_TimedShelve, (_many(1.0),), "BadTypeMismatch"),
        (_ID.DialogConditionType_Respond, (), "BadNotExecutable"),
        (_ID.ConditionType, (), "BadMethodInvalid"),
    ):
        with pytest.raises(ua.UaStatusCodeError, match=code):
            await call(client, alarm("wrong"), method, *arguments)
    with pytest.raises(ua.UaStatusCodeError, match="BadNodeIdUnknown"):
        await call(client, "wrong.rul.rul", _ID.AlarmConditionType_Suppress)


def _many(value: Any) -> ua.Variant:
    """Where one is wanted."""
    return ua.Variant([value])


async def test_roles_decide(served, clients):
    await served.rul(25.0, "roles")
    known = _current(served, "roles")
    for user, method, arguments in (
        ("olga", _ID.AcknowledgeableConditionType_Acknowledge, (known, _words("x"))),
        ("olga", _ID.ShelvedStateMachineType_OneShotShelve, ()),
        ("otto", _ID.ConditionType_Disable, ()),
    ):
        with pytest.raises(ua.UaStatusCodeError, match="BadUserAccessDenied"):
            await call(clients[user], alarm("roles"), method, *arguments)
    assert not served.room.states[alarm("roles")].current.acknowledged


async def test_shelves_suppression_and_service_are_heard(served, clients):
    client, condition = clients["ada"], alarm("shelf")
    async with at(client, "shelf") as heard:
        await call(client, f"{condition}.ShelvingState", _ID.ShelvedStateMachineType_TimedShelve, _ms(60_000))
        event = await heard.until(1)
        assert (event["ShelvingState/CurrentState"].Text, event["SuppressedOrShelved"]) == ("TimedShelved", True)
        with pytest.raises(ua.UaStatusCodeError, match="BadConditionAlreadyShelved"):
            await call(client, condition, _ID.AlarmConditionType_ShelvingState_TimedShelve, _ms(60_000))
        await call(client, condition, _ID.ShelvedStateMachineType_OneShotShelve)
        assert (await heard.until(2))["ShelvingState/CurrentState"].Text == "OneShotShelved"
        await call(client, condition, _ID.ShelvedStateMachineType_Unshelve)
        assert not (await heard.until(3))["SuppressedOrShelved"]
        await call(client, condition, _ID.AlarmConditionType_Suppress)
        assert (await heard.until(4))["SuppressedOrShelved"]
        await call(client, condition, _ID.AlarmConditionType_Unsuppress)
        await heard.until(5)
        await call(client, condition, _ID.ConditionType_Disable)
        assert not (await heard.until(6))["EnabledState/Id"]
        await served.rul(5.0, "shelf")
        await call(client, condition, _ID.ConditionType_Enable)
        assert (await heard.until(7))["EnabledState/Id"]
        await served.rul(5.0, "shelf")
        assert (await heard.until(8))["Severity"] == 800


async def test_how_long_a_shelf_still_lasts_can_be_read_and_is_told_as_it_dwindles(served, clients):
    client, condition = clients["otto"], alarm("clock")
    left = await _node(client, f"{condition}.ShelvingState.UnshelveTime")
    assert await left.read_value() == 0.0
    longest = await (await _node(client, f"{condition}.MaxTimeShelved")).read_value()
    heard: asyncio.Queue[float] = asyncio.Queue()

    class Listen:
        def datachange_notification(self, node: Any, value: float, data: Any) -> None:
            heard.put_nowait(value)

    subscription = await client.create_subscription(50, Listen())
    await subscription.subscribe_data_change(left)
    assert await asyncio.wait_for(heard.get(), 10) == 0.0
    await call(client, condition, _ID.ShelvedStateMachineType_TimedShelve, _ms(60_000))
    told = [await asyncio.wait_for(heard.get(), 10) for _ in range(3)]
    assert 60_000 >= told[0] > told[1] > told[2] > (await left.read_value()) > 0.0
    await call(client, condition, _ID.ShelvedStateMachineType_OneShotShelve)
    assert longest >= await left.read_value() > 60_000
    await call(client, condition, _ID.ShelvedStateMachineType_Unshelve)
    assert await left.read_value() == 0.0
    while await asyncio.wait_for(heard.get(), 10):
        pass
    await subscription.delete()


async def test_who_listens_at_an_asset_hears_of_it_alone_and_filters_are_kept(served, clients):
    severe = ua.ContentFilter([
        ua.ContentFilterElement(ua.FilterOperator.And, [ua.ElementOperand(1), ua.ElementOperand(2)]),
        ua.ContentFilterElement(
            ua.FilterOperator.OfType, [ua.LiteralOperand(ua.Variant(ua.NodeId(ua.Int32(_ID.LimitAlarmType))))]
        ),
        ua.ContentFilterElement(
            ua.FilterOperator.GreaterThanOrEqual,
            [event_filter("Severity").SelectClauses[0], ua.LiteralOperand(ua.Variant(600, ua.VariantType.UInt16))],
        ),
    ])  # fmt: skip
    client = clients["olga"]
    model = (await _node(client, "Foretag.Models.rul")).nodeid
    async with (
        at(client, "filter") as of_asset,
        listening(client, model) as of_model,
        listening(client, where=severe) as of_severe,
    ):
        await served.rul(25.0, "filter")
        await served.rul(5.0, "filter")
        assert (await of_severe.until(1))["Severity"] == 800
        await of_asset.until(2)
        assert (len(of_asset.heard), len(of_severe.heard), of_model.heard) == (2, 1, [])
    wrong = ua.ContentFilter([ua.ContentFilterElement(ua.FilterOperator.Not, [ua.ElementOperand(0)])])
    with pytest.raises(ua.UaStatusCodeError, match="BadEventFilterInvalid"):
        async with listening(client, where=wrong):
            pass
    leaf = (await _node(client, "filter.rul.rul")).nodeid
    with pytest.raises(ua.UaStatusCodeError):
        async with listening(client, leaf):
            pass


async def test_an_operators_verdict_becomes_a_label_and_a_comment(served, clients):
    client = clients["otto"]
    async with at(client, "judged") as heard:
        await served.flag(1.5, "judged")
        event = await heard.until(1)
        assert event["LimitState/CurrentState"].Text == "High"
        await served.flag(2.5, "judged")
        event = await heard.until(2)
        assert (event["LimitState/CurrentState"].Text, event["Severity"]) == ("HighHigh", 800)
        condition = await _node(client, "judged.anomaly.flag.Alarm")
        method = (await _node(client, "Foretag.Methods.Verdict")).nodeid
        nonsense, verdict = (ua.Variant(word, ua.VariantType.String) for word in ("nonsense", "false_alarm"))
        with pytest.raises(ua.UaStatusCodeError, match="BadInvalidArgument"):
            await condition.call_method(method, _event(event), nonsense, _words("a test run"))
        await condition.call_method(method, _event(event), verdict, _words("a test run"))
        assert (await heard.until(3))["Comment"].Text == "false alarm: a test run"
    now, day = datetime.now(UTC), timedelta(days=1)
    (label,) = await served.store.labels("judged", now - day, now + day, kind=LabelKind.VERDICT)
    told = (label.verdict, label.model, label.user, label.note)
    assert told == (Verdict.FALSE_ALARM, "anomaly", "otto", "a test run")
    (flag,) = [flag for flag in await served.store.flags(now - day, now + day) if flag.run == label.run]
    assert flag.as_of == label.as_of


async def test_conditions_are_found_by_browsing(served, clients):
    client = clients["olga"]
    asset = await _node(client, "Foretag.Assets.said")
    found = await asset.get_referenced_nodes(ua.ObjectIds.HasCondition)
    assert {alarm("said"), "Foretag.Assets.said.Case"} <= {node.nodeid.Identifier for node in found}
    notifiers = await client.nodes.server.get_referenced_nodes(ua.ObjectIds.HasNotifier)
    assert "Foretag" in {node.nodeid.Identifier for node in notifiers}
    methods = {
        (await each.read_browse_name()).Name for each in await (await _node(client, alarm("said"))).get_methods()
    }
    assert {"Acknowledge", "Confirm", "AddComment", "Verdict", "Suppress", "Enable"} <= methods


async def test_the_load_is_metered_and_reset_by_who_may(served, clients):
    client = clients["ada"]
    metrics = await _node(client, "Foretag.AlarmMetrics")
    kind = await metrics.read_type_definition()
    assert kind == ua.NodeId(ua.Int32(_ID.AlarmMetricsType))

    async def said(name: str) -> Any:
        return await (await metrics.get_child(f"0:{name}")).read_value()

    await served.rul(5.0, "metered")
    async with asyncio.timeout(20):
        while (await said("MaximumActiveState")) <= 0.0 or not await said("AlarmCount"):
            await asyncio.sleep(0.05)
    assert await said("AlarmCount") == await said("CurrentAlarmRate") == await said("MaximumAlarmRate") >= 1
    assert await said("AverageAlarmRate") == await said("AlarmCount"), "less than ten minutes are told as ten"
    assert await said("MaximumUnAck") > 0.0
    assert await said("MaximumReAlarmCount") == 0
    assert await (await metrics.get_child(["0:CurrentAlarmRate", "0:Rate"])).read_value() == 600
    since, reset = await said("StartTime"), ua.NodeId(ua.Int32(_ID.AlarmMetricsType_Reset))
    operators = clients["otto"].get_node(metrics.nodeid)
    with pytest.raises(ua.UaStatusCodeError, match="BadUserAccessDenied"):
        await operators.call_method(reset)
    await metrics.call_method(reset)
    async with asyncio.timeout(20):
        while await said("AlarmCount"):
            await asyncio.sleep(0.05)
    assert await said("StartTime") > since


async def test_an_asset_that_joins_later_has_its_alarms(served, clients):
    await served.sink.extend(outputs("later"))
    await served.watch.extend(outputs("later"))
    async with at(clients["olga"], "later") as heard:
        await served.rul(25.0, "later")
        assert (await heard.until(1))["SourceName"] == "later"


async def test_a_refresh_shows_what_stands_with_its_event_id_and_time_also_after_a_restart(tmp_path: Path) -> None:
    async with plant(tmp_path) as first, first.client("otto") as client, listening(client) as heard:
        await first.rul(25.0)
        await first.rul(100.0)
        await first.rul(5.0)
        await heard.until(4)
        before = list(heard.heard)
    branch, current = before[2:]
    assert (branch["BranchId"].is_null(), branch["AckedState/Id"]) == (False, False)
    acknowledge = _ID.AcknowledgeableConditionType_Acknowledge
    told: list[Notice] = []
    async with plant(tmp_path) as again, again.client("otto") as client, listening(client) as heard:
        await heard.refresh()
        await heard.until(4)
        start, *shown, end = heard.heard
        assert start["EventType"].Identifier == _ID.RefreshStartEventType
        assert end["EventType"].Identifier == _ID.RefreshEndEventType
        assert shown == [branch, current]
        await call(client, alarm("engine-01"), acknowledge, _event(branch), _words("seen"))
        gone = await heard.until(5)
        assert (gone["BranchId"], gone["Retain"]) == (branch["BranchId"], False)
        await heard.refresh(heard.item)
        await heard.until(8)
        assert heard.heard[6] == current
        with pytest.raises(ua.UaStatusCodeError, match="BadMonitoredItemIdInvalid"):
            await heard.refresh(4711)
        again.room.listen(told.extend)
        await again.store.__aexit__(None, None, None)
        with pytest.raises(ua.UaStatusCodeError, match="BadResourceUnavailable"):
            await call(client, alarm("engine-01"), acknowledge, _event(current), _words("x"))
    assert told == [], "what can't be stored is not told"
    assert not again.room.states[alarm("engine-01")].current.acknowledged
