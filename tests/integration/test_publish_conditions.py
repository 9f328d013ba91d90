"""Alarms as an operator's client sees them: heard, acknowledged, shelved, judged, refreshed, also after a restart."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from asyncua import Client, ua

from plugin.domain import LabelKind, Status, Verdict
from plugin.infer.alarms.told import Notice
from tests.integration.alarm_plant import ALARM, FLAG, PATHS, RUL, URI, Events, Plant, event_filter, plant

_ID = ua.ObjectIds
_SERVER = ua.NodeId(ua.Int32(_ID.Server))


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
    client: Client, node: Any = _SERVER, where: ua.ContentFilter | None = None, paths: tuple[str, ...] = PATHS
) -> AsyncIterator[_Listening]:
    events = Events((*paths, "NodeId"))
    subscription = await client.create_subscription(50, events)
    asked = event_filter(*paths, where=where)
    item = await subscription.subscribe_events(client.get_node(node), evfilter=asked, queuesize=0)
    yield _Listening(client, events, subscription, item)
    await subscription.delete()


async def call(client: Client, method: int, *arguments: Any, condition: str = ALARM) -> None:
    node = await _node(client, condition)
    await node.call_method(ua.NodeId(ua.Int32(method)), *arguments)


def _words(text: str) -> ua.Variant:
    return ua.Variant(ua.LocalizedText(text, "en"), ua.VariantType.LocalizedText)


def _event(event: dict[str, Any]) -> ua.Variant:
    return ua.Variant(event["EventId"], ua.VariantType.ByteString)


def _ms(milliseconds: float) -> ua.Variant:
    return ua.Variant(float(milliseconds), ua.VariantType.Double)


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Plant]:
    async with plant(tmp_path, confirm=True, advice={"rul": "Plan a washing."}) as made:
        yield made


async def test_an_alarm_says_what_why_and_what_to_do_with_all_that_a_client_selects(served):
    async with served.client("olga") as client, listening(client) as heard:
        await served.rul(25.0)
        event = await heard.until(1)
        index = await client.get_namespace_index(URI)
    assert event["Message"].Text == (
        "rul 25 cycles is under 30 cycles. Mostly by T50 (62%), Ps30 (30%), T2 (5%). Plan a washing."
    )
    assert event["EventType"] == ua.NodeId(ua.Int32(_ID.ExclusiveLevelAlarmType))
    assert (event["SourceName"], event["ConditionName"]) == ("engine-01", "rul: remaining life short")
    assert (event["ActiveState"].Text, event["ActiveState/Id"], event["AckedState/Id"]) == ("Active", True, False)
    assert (event["Severity"], event["Retain"], event["LowLimit"]) == (500, True, 30.0)
    assert event["LimitState/CurrentState"].Text == "Low"
    assert event["ShelvingState/CurrentState"].Text == "Unshelved"
    assert event["NodeId"] == ua.NodeId(ua.String(ALARM), ua.Int16(index))
    assert event["InputNode"] == ua.NodeId(ua.String(RUL.name), ua.Int16(index))
    assert event["BranchId"].is_null()
    assert event["Quality"].value == Status.GOOD


async def test_it_is_acknowledged_confirmed_and_gone(served):
    async with served.client("otto") as client, listening(client) as heard:
        await served.rul(25.0)
        event = await heard.until(1)
        await call(client, _ID.AcknowledgeableConditionType_Acknowledge, _event(event), _words("on my way"))
        event = await heard.until(2)
        assert (event["AckedState/Id"], event["ConfirmedState/Id"]) == (True, False)
        assert (event["Comment"].Text, event["ClientUserId"]) == ("on my way", "otto")
        await served.rul(100.0)
        event = await heard.until(3)
        assert (event["ActiveState/Id"], event["Retain"], event["Severity"]) == (False, True, 500)
        await call(client, _ID.AcknowledgeableConditionType_Confirm, _event(event), _words("washed"))
        event = await heard.until(4)
        assert (event["Retain"], event["Comment"].Text) == (False, "washed")
        node = await _node(client, f"{ALARM}.AckedState.Id")
        assert await node.read_value() is True
    stored = await served.store.events(datetime.now(UTC) - timedelta(hours=1), datetime.now(UTC) + timedelta(hours=1))
    assert {each.id for each in stored} == {each["EventId"].hex() for each in heard.heard}
    assert {each.asset for each in stored} == {"engine-01"}


@pytest.mark.parametrize(("method", "arguments", "code"), [
    (_ID.AcknowledgeableConditionType_Acknowledge, ("known", "text"), "BadConditionBranchAlreadyAcked"),
    (_ID.AcknowledgeableConditionType_Acknowledge, ("unknown", "text"), "BadEventIdUnknown"),
    (_ID.AcknowledgeableConditionType_Confirm, ("known", "text"), "BadConditionBranchAlreadyConfirmed"),
    (_ID.ConditionType_AddComment, ("unknown", "text"), "BadEventIdUnknown"),
    (_ID.ConditionType_AddComment, ("known",), "BadArgumentsMissing"),
    (_ID.ConditionType_AddComment, ("known", "known"), "BadTypeMismatch"),
    (_ID.ShelvedStateMachineType_Unshelve, (), "BadConditionNotShelved"),
    (_ID.ShelvedStateMachineType_TimedShelve, (0,), "BadShelvingTimeOutOfRange"),
    (_ID.ShelvedStateMachineType_TimedShelve, (9 * 3_600_000,), "BadShelvingTimeOutOfRange"),
    (_ID.ShelvedStateMachineType_TimedShelve, (float("nan"),), "BadShelvingTimeOutOfRange"),
    (_ID.ConditionType_Enable, (), "BadConditionAlreadyEnabled"),
    (_ID.ConditionType_Disable, (1,), "BadTooManyArguments"),
])  # fmt: skip
async def test_what_makes_no_sense_is_refused_by_its_status_code(standing, method, arguments, code):
    served, client = standing
    known = bytes.fromhex(served.room.states[ALARM].current.event_id)
    made = {
        "known": ua.Variant(known, ua.VariantType.ByteString),
        "unknown": ua.Variant(b"none", ua.VariantType.ByteString),
        "text": _words("x"),
    }
    variants = [made[each] if isinstance(each, str) else _ms(each) for each in arguments]
    with pytest.raises(ua.UaStatusCodeError, match=code):
        await call(client, method, *variants)


@pytest.fixture
async def standing(tmp_path: Path) -> AsyncIterator[tuple[Plant, Client]]:
    async with plant(tmp_path) as made, made.client("ada") as client:
        yield made, client


async def test_roles_decide(served):
    async with served.client("olga") as olga, served.client("otto") as otto:
        await served.rul(25.0)
        known = ua.Variant(bytes.fromhex(served.room.states[ALARM].current.event_id), ua.VariantType.ByteString)
        for client, method, arguments in (
            (olga, _ID.AcknowledgeableConditionType_Acknowledge, (known, _words("x"))),
            (olga, _ID.ShelvedStateMachineType_OneShotShelve, ()),
            (otto, _ID.ConditionType_Disable, ()),
        ):
            with pytest.raises(ua.UaStatusCodeError, match="BadUserAccessDenied"):
                await call(client, method, *arguments)
    assert not served.room.states[ALARM].current.acknowledged


async def test_shelves_suppression_and_service_are_heard(served):
    async with served.client("ada") as client, listening(client) as heard:
        await call(client, _ID.ShelvedStateMachineType_TimedShelve, _ms(60_000), condition=f"{ALARM}.ShelvingState")
        event = await heard.until(1)
        assert (event["ShelvingState/CurrentState"].Text, event["SuppressedOrShelved"]) == ("TimedShelved", True)
        with pytest.raises(ua.UaStatusCodeError, match="BadConditionAlreadyShelved"):
            await call(client, _ID.AlarmConditionType_ShelvingState_TimedShelve, _ms(60_000))
        await call(client, _ID.ShelvedStateMachineType_OneShotShelve)
        assert (await heard.until(2))["ShelvingState/CurrentState"].Text == "OneShotShelved"
        await call(client, _ID.ShelvedStateMachineType_Unshelve)
        assert not (await heard.until(3))["SuppressedOrShelved"]
        await call(client, _ID.AlarmConditionType_Suppress)
        assert (await heard.until(4))["SuppressedOrShelved"]
        await call(client, _ID.AlarmConditionType_Unsuppress)
        await heard.until(5)
        await call(client, _ID.ConditionType_Disable)
        assert not (await heard.until(6))["EnabledState/Id"]
        await served.rul(5.0)
        await call(client, _ID.ConditionType_Enable)
        assert (await heard.until(7))["EnabledState/Id"]
        await served.rul(5.0)
        assert (await heard.until(8))["Severity"] == 800


async def test_a_refresh_shows_what_stands_with_its_event_id_and_time_also_after_a_restart(tmp_path):
    async with plant(tmp_path) as first, first.client("otto") as client, listening(client) as heard:
        await first.rul(25.0)
        await first.rul(100.0)
        await first.rul(5.0)
        await heard.until(4)
        before = list(heard.heard)
    branch, current = before[2:]
    assert (branch["BranchId"].is_null(), branch["AckedState/Id"]) == (False, False)
    async with plant(tmp_path) as again, again.client("otto") as client, listening(client) as heard:
        await heard.refresh()
        await heard.until(4)
        start, *shown, end = heard.heard
        assert start["EventType"].Identifier == _ID.RefreshStartEventType
        assert end["EventType"].Identifier == _ID.RefreshEndEventType
        assert shown == [branch, current]
        await call(client, _ID.AcknowledgeableConditionType_Acknowledge, _event(branch), _words("seen"))
        gone = await heard.until(5)
        assert (gone["BranchId"], gone["Retain"]) == (branch["BranchId"], False)
        await heard.refresh(heard.item)
        await heard.until(8)
        assert heard.heard[6] == current
        with pytest.raises(ua.UaStatusCodeError, match="BadMonitoredItemIdInvalid"):
            await heard.refresh(4711)


async def test_who_listens_at_an_asset_hears_of_it_alone_and_filters_are_kept(served):
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
    async with served.client("olga") as client:
        asset = (await _node(client, "Foretag.Assets.engine-01")).nodeid
        model = (await _node(client, "Foretag.Models.rul")).nodeid
        async with listening(client, asset) as of_asset, listening(client, model) as of_model, \
                listening(client, where=severe) as of_severe:  # fmt: skip
            await served.rul(25.0)
            await served.rul(5.0)
            assert (await of_severe.until(1))["Severity"] == 800
            assert len((await of_asset.until(2), of_asset.heard)[1]) == 2
            assert (len(of_severe.heard), of_model.heard) == (1, [])
        wrong = ua.ContentFilter([ua.ContentFilterElement(ua.FilterOperator.Not, [ua.ElementOperand(0)])])
        with pytest.raises(ua.UaStatusCodeError, match="BadEventFilterInvalid"):
            async with listening(client, where=wrong):
                pass
        leaf = (await _node(client, RUL.name)).nodeid
        with pytest.raises(ua.UaStatusCodeError):
            async with listening(client, leaf):
                pass


async def test_a_queue_that_is_full_says_so(served):
    async with served.client("olga") as client:
        events = Events((*PATHS, "NodeId"))
        subscription = await client.create_subscription(1_000, events)
        await subscription.subscribe_events(client.get_node(_SERVER), evfilter=event_filter(*PATHS), queuesize=3)
        await asyncio.sleep(0.1)
        for number in range(6):
            await served.rul(5.0 if number % 2 == 0 else 100.0)
        await events.until(lambda: len(events.heard) >= 3)
        kinds = [each["EventType"].Identifier for each in events.heard]
        assert kinds.count(_ID.EventQueueOverflowEventType) == 1
        assert events.heard[-1]["EventId"].hex() == served.room.states[ALARM].current.event_id
        await subscription.delete()


async def test_an_operators_verdict_becomes_a_label_and_a_comment(served):
    async with served.client("otto") as client, listening(client) as heard:
        await served.flag(1.5, raised=True)
        event = await heard.until(1)
        assert event["LimitState/CurrentState"].Text == "High"
        await served.flag(2.5, raised=True)
        event = await heard.until(2)
        assert (event["LimitState/CurrentState"].Text, event["Severity"]) == ("HighHigh", 800)
        condition, method = await _node(client, f"{FLAG.name}.Alarm"), await _node(client, "Foretag.Methods.Verdict")
        for said in ("nonsense", "false_alarm"):
            arguments = _event(event), ua.Variant(said, ua.VariantType.String), _words("a test run")
            if said == "nonsense":
                with pytest.raises(ua.UaStatusCodeError, match="BadInvalidArgument"):
                    await condition.call_method(method.nodeid, *arguments)
            else:
                await condition.call_method(method.nodeid, *arguments)
        assert (await heard.until(3))["Comment"].Text == "false alarm: a test run"
    long = datetime.now(UTC) + timedelta(days=1)
    (label,) = await served.store.labels("engine-01", long - timedelta(days=2), long, kind=LabelKind.VERDICT)
    assert (label.verdict, label.model, label.user, label.note) == (
        Verdict.FALSE_ALARM, "anomaly", "otto", "a test run"
    )  # fmt: skip
    (flag, *_) = [flag for flag in await served.store.flags(long - timedelta(days=2), long) if flag.run == label.run]
    assert flag.as_of == label.as_of


async def test_what_can_not_be_stored_is_not_told(served, monkeypatch):
    told: list[Notice] = []
    served.room.listen(told.extend)
    await served.rul(25.0)
    assert len(told) == 1
    async with served.client("otto") as client:
        await served.store.__aexit__(None, None, None)
        known = ua.Variant(bytes.fromhex(served.room.states[ALARM].current.event_id), ua.VariantType.ByteString)
        with pytest.raises(ua.UaStatusCodeError, match="BadResourceUnavailable"):
            await call(client, _ID.AcknowledgeableConditionType_Acknowledge, known, _words("x"))
    assert len(told) == 1
    assert not served.room.states[ALARM].current.acknowledged


async def test_conditions_are_found_by_browsing(served):
    async with served.client("olga") as client:
        asset = await _node(client, "Foretag.Assets.engine-01")
        found = await asset.get_referenced_nodes(ua.ObjectIds.HasCondition)
        assert ALARM in {node.nodeid.Identifier for node in found}
        notifiers = await client.nodes.server.get_referenced_nodes(ua.ObjectIds.HasNotifier)
        assert "Foretag" in {node.nodeid.Identifier for node in notifiers}
        methods = {(await each.read_browse_name()).Name for each in await (await _node(client, ALARM)).get_methods()}
        assert {"Acknowledge", "Confirm", "AddComment", "Verdict", "Suppress", "Enable"} <= methods
