"""What clients do and try: rows of the audit log, and audit events for those who may hear them (OPC 10000-5, 6.4)."""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from asyncua import Client, ua

from plugin.diagnostics import Diagnostics
from plugin.domain import Audit
from plugin.errors import ServiceError
from plugin.historian.stores import SqlStore
from plugin.infer.alarms.config import AlarmsConfig
from plugin.infer.alarms.room import Room
from plugin.publish.config import PublishConfig, UserConfig
from plugin.publish.people import hashed
from plugin.publish.server import OpcUaSink
from tests.integration.alarm_plant import PASSWORD, URI, Events, event_filter, furnished, outputs, session

pytestmark = pytest.mark.asyncio(loop_scope="module")

_ID = ua.ObjectIds
_SERVER = ua.NodeId(ua.Int32(_ID.Server))
_PATHS = (
    "EventType", "SourceNode", "SourceName", "Message", "Severity", "Status", "StatusCodeId", "ServerId",
    "ClientUserId", "ClientAuditEntryId", "SessionId", "MethodId", "InputArguments", "ConditionEventId", "Comment",
    "Certificate", "AttributeId", "NewValue", "UserIdentityToken",
)  # fmt: skip
_AUDITS = ua.ContentFilter(
    [
        ua.ContentFilterElement(
            ua.FilterOperator.OfType, [ua.LiteralOperand(ua.Variant(ua.NodeId(ua.Int32(_ID.AuditEventType))))]
        )
    ]
)


class House:
    """A server with an alarm, whose audit log is a list."""

    def __init__(self, sink: OpcUaSink, folder: Path, rows: list[Audit], store: SqlStore, room: Room) -> None:
        self.sink, self.folder, self.rows, self.store, self.room = sink, folder, rows, store, room

    def session(self, user: str) -> contextlib.AbstractAsyncContextManager[Client]:
        return session(self.sink.endpoint, self.folder / "client", self.folder / "pki", user)

    def actions(self, user: str) -> list[str]:
        return [row.action for row in self.rows if row.user == user]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    folder, rows = tmp_path_factory.mktemp("audit"), list[Audit]()
    roles: Any = {"olga": "observer", "otto": "operator", "ed": "engineer", "ada": "administrator"}
    hash_ = hashed(PASSWORD)
    config = PublishConfig(
        endpoint="opc.tcp://127.0.0.1:0/foretag",
        users=tuple(UserConfig(name=name, role=role, password_hash=hash_) for name, role in roles.items()),
    )

    async def record(entry: Audit) -> None:
        rows.append(entry)

    async with furnished(folder, AlarmsConfig(), outputs("pump")) as (store, room, _watch):
        sink = OpcUaSink(config, folder / "pki", Diagnostics(), record=record, room=room)
        async with sink.open(outputs("pump")):
            yield House(sink, folder, rows, store, room)


@contextlib.asynccontextmanager
async def listening(house: House, user: str) -> AsyncIterator[Events]:
    async with house.session(user) as client:
        events = Events(_PATHS)
        subscription = await client.create_subscription(50, events)
        await subscription.subscribe_events(client.get_node(_SERVER), evfilter=event_filter(*_PATHS, where=_AUDITS))
        yield events
        await subscription.delete()


def _of(events: Events, kind: int) -> list[dict[str, Any]]:
    return [each for each in events.heard if each["EventType"] == ua.NodeId(ua.Int32(kind))]


async def _heard(events: Events, kind: int, count: int = 1) -> dict[str, Any]:
    await events.until(lambda: len(_of(events, kind)) >= count)
    return _of(events, kind)[-1]


async def _condition(client: Client) -> Any:
    index = await client.get_namespace_index(URI)
    return client.get_node(ua.NodeId(ua.String("pump.rul.rul.Alarm"), ua.Int16(index)))


def _arguments() -> tuple[ua.Variant, ua.Variant]:
    words = ua.LocalizedText("on my way", "en")
    return ua.Variant(b"no such event", ua.VariantType.ByteString), ua.Variant(words, ua.VariantType.LocalizedText)


async def test_auditing_is_what_the_server_says_that_it_does(house):
    async with house.session("olga") as olga:
        assert await olga.get_node(ua.NodeId(ua.Int32(_ID.Server_Auditing))).read_value() is True


async def test_who_comes_and_who_is_refused(house):
    async with listening(house, "ada") as ada:
        async with house.session("otto"):
            pass
        came = await _heard(ada, _ID.AuditActivateSessionEventType)
        assert (came["ClientUserId"], came["Status"], came["SourceName"]) == ("otto", True, "Session/ActivateSession")
        assert (came["SourceNode"], came["ServerId"]) == (_SERVER, "urn:foretag")
        assert came["SessionId"] is not None
        with pytest.raises(ua.UaStatusCodeError, match="BadUserAccessDenied"):
            async with house.session("mallory"):
                pass
        refused = await _heard(ada, _ID.AuditActivateSessionEventType, 2)
        assert (refused["ClientUserId"], refused["Status"]) == ("mallory", False)
        assert PASSWORD not in repr(ada.heard)
        assert PASSWORD.encode() not in repr(ada.heard).encode()
    assert house.rows[-1].action == "session refused"


async def test_a_user_who_comes_again_and_again_is_an_event_each_time_and_a_row_a_minute(tmp_path):
    rows = list[Audit]()

    async def record(entry: Audit) -> None:
        rows.append(entry)
        if "times" in entry.after:
            raise ServiceError("the disk is full")  # which ends neither the server nor its stop

    hash_ = hashed(PASSWORD)
    users = (UserConfig(name="ed", role="engineer", password_hash=hash_),
             UserConfig(name="otto", role="operator", password_hash=hash_))  # fmt: skip
    config = PublishConfig(endpoint="opc.tcp://127.0.0.1:0/foretag", users=users)
    async with furnished(tmp_path, AlarmsConfig(), outputs("pump")) as (store, room, _watch):
        sink = OpcUaSink(config, tmp_path / "pki", Diagnostics(), record=record, room=room)
        async with sink.open(outputs("pump")):
            house = House(sink, tmp_path, rows, store, room)
            async with listening(house, "ed") as ed:
                for _ in range(3):
                    async with house.session("otto"):
                        pass
                await _heard(ed, _ID.AuditActivateSessionEventType, 3)
            assert house.actions("otto") == ["session"]
    assert [(row.user, row.after.get("times")) for row in rows] == [("ed", None), ("otto", None), ("otto", 2)]


async def test_a_client_that_is_not_trusted_is_a_row_and_an_event_with_its_certificate(house, tmp_path):
    async with listening(house, "ed") as ed:
        with pytest.raises(ua.UaStatusCodeError, match="BadCertificateUntrusted"):
            async with session(house.sink.endpoint, tmp_path / "stranger", tmp_path / "elsewhere", "otto"):
                pass
        event = await _heard(ed, _ID.AuditCertificateUntrustedEventType)
    assert (event["Status"], event["SourceName"]) == (False, "Security/Certificate")
    assert event["Certificate"] == (tmp_path / "stranger" / "own" / "own.der").read_bytes()
    (row,) = [row for row in house.rows if row.action == "certificate refused"]
    assert (row.after["cause"], row.after["application"]) == ("BadCertificateUntrusted", "urn:test:client")


async def test_a_call_is_a_row_and_an_event_also_where_it_is_refused(house):
    acknowledge = ua.NodeId(ua.Int32(_ID.AcknowledgeableConditionType_Acknowledge))
    async with listening(house, "ada") as ada, house.session("otto") as otto, house.session("olga") as olga:
        for client, code in ((otto, "BadEventIdUnknown"), (olga, "BadUserAccessDenied")):
            with pytest.raises(ua.UaStatusCodeError, match=code):
                await (await _condition(client)).call_method(acknowledge, *_arguments())
        await _heard(ada, _ID.AuditConditionAcknowledgeEventType, 2)
        first, second = _of(ada, _ID.AuditConditionAcknowledgeEventType)
        assert (first["ClientUserId"], second["ClientUserId"]) == ("otto", "olga")
        assert (first["SourceName"], first["Status"]) == ("Method/Acknowledge", False)
        assert first["SourceNode"] == (await _condition(otto)).nodeid
        assert (first["ConditionEventId"], first["Comment"].Text) == (b"no such event", "on my way")
        assert first["MethodId"] == acknowledge
        condition = await _condition(otto)
        await condition.call_method(ua.NodeId(ua.Int32(_ID.AlarmConditionType_Suppress)))
        assert (await _heard(ada, _ID.AuditConditionSuppressionEventType))["Status"] is True
        index = ua.Int16(await otto.get_namespace_index(URI))
        with pytest.raises(ua.UaStatusCodeError, match="BadArgumentsMissing"):
            await condition.call_method(ua.NodeId(ua.String("Foretag.Methods.Verdict"), index))
        ours = ua.NodeId(ua.String("Types.CallAuditEventType"), index)
        await ada.until(lambda: any(each["EventType"] == ours for each in ada.heard))
        event = next(each for each in ada.heard if each["EventType"] == ours)
        assert event["SourceName"] == "Attribute/Call"
    rows = [row for row in house.rows if row.action == "call Acknowledge"]
    assert [(row.user, row.subject, row.after["refused"]) for row in rows] == [
        ("otto", "pump.rul.rul.Alarm", "BadEventIdUnknown"), ("olga", "pump.rul.rul.Alarm", "BadUserAccessDenied"),
    ]  # fmt: skip
    assert rows[0].after["arguments"] == [b"no such event".hex(), "on my way"]
    assert house.rows[-1].after == {"arguments": [], "refused": "BadArgumentsMissing"}


async def test_who_wants_to_write_is_on_record_once_however_often_it_tries(house):
    async with listening(house, "ed") as ed, house.session("otto") as otto:
        index = ua.Int16(await otto.get_namespace_index(URI))
        node = otto.get_node(ua.NodeId(ua.String("pump.rul.rul"), index))
        for _ in range(5):
            with pytest.raises(ua.UaStatusCodeError, match="BadUserAccessDenied"):
                await node.write_value(ua.DataValue(ua.Variant(2.0)))
        event = await _heard(ed, _ID.AuditWriteUpdateEventType)
        assert (event["SourceNode"], event["NewValue"], event["Status"]) == (node.nodeid, 2.0, False)
        assert (event["ClientUserId"], event["AttributeId"]) == ("otto", ua.AttributeIds.Value)
    assert house.actions("otto").count("write refused") == 1


async def test_operators_and_observers_hear_nothing_of_it(house):
    async with listening(house, "olga") as olga, listening(house, "otto") as otto, listening(house, "ada") as ada:
        async with house.session("otto"):
            pass
        await _heard(ada, _ID.AuditActivateSessionEventType)
        assert (olga.heard, otto.heard) == ([], [])


async def test_what_a_client_gives_is_cut_before_others_are_told_of_it(house):
    long = ua.Variant("x" * 1_000_000)
    add_comment = ua.NodeId(ua.Int32(_ID.ConditionType_AddComment))
    comment = ua.Variant(ua.LocalizedText("x" * 1_000_000, "y" * 1_000_000), ua.VariantType.LocalizedText)
    async with listening(house, "ed") as ed, house.session("olga") as olga:
        written = [ua.WriteValue(ua.NodeId(ua.String("n" * 1_000_000), ua.Int16(1)), ua.AttributeIds.Value, None, None)]
        written[0].Value = ua.DataValue(long)
        await olga.uaclient.session.write(ua.WriteParameters(written))
        with pytest.raises(ua.UaStatusCodeError, match="BadUserAccessDenied"):
            await (await _condition(olga)).call_method(add_comment, ua.Variant([b"e" * 500_000] * 2), comment, long)
        written_of = await _heard(ed, _ID.AuditWriteUpdateEventType)
        called_of = await _heard(ed, _ID.AuditConditionCommentEventType)
        assert len(repr((written_of, called_of))) < 10_000
        assert (written_of["NewValue"], written_of["SourceNode"]) == ("x" * 100, _SERVER)
        assert (called_of["Comment"].Text, called_of["ConditionEventId"]) == ("x" * 100, "2 values")
    assert len(repr(house.rows[-2:])) < 10_000


async def test_no_name_keeps_an_attempt_out_of_the_log(house):
    """Bytes that are no UTF-8, and NUL, which no database takes."""
    odd = ua.NodeId(ua.String("pump\udcff\0"), ua.Int16(1))
    acknowledge = ua.NodeId(ua.Int32(_ID.AcknowledgeableConditionType_Acknowledge))
    async with house.session("ada") as ada:
        value = ua.DataValue(ua.Variant("\udcff\0"))
        await ada.uaclient.session.write(ua.WriteParameters([ua.WriteValue(odd, ua.AttributeIds.Value, None, value)]))
        await ada.uaclient.session.call([ua.CallMethodRequest(odd, acknowledge, [ua.Variant("\udcff\0")])])
        event, _ = _arguments()
        words = ua.Variant(ua.LocalizedText("\udcff\0", "en"), ua.VariantType.LocalizedText)
        with pytest.raises(ua.UaStatusCodeError, match="BadInvalidArgument"):
            await (await _condition(ada)).call_method(acknowledge, event, words)
    rows = [row for row in house.rows if row.user == "ada" and row.action.endswith(("refused", "Acknowledge"))]
    assert len(rows) == 3
    for row in rows:
        await house.store.write_audit(row)
        said = f"{row.subject} {row.after}"
        assert "\0" not in said
        assert "\udcff" not in said


async def test_services_that_would_change_something_are_refused_on_record(house):
    async with listening(house, "ed") as ed, house.session("otto") as otto:
        services = otto.uaclient.session
        for _ in range(3):
            for ask in (
                services.add_nodes([ua.AddNodesItem()]),
                services.delete_nodes(ua.DeleteNodesParameters([ua.DeleteNodesItem()])),
                services.history_update(ua.HistoryUpdateParameters()),
            ):
                with pytest.raises(ua.UaStatusCodeError, match="BadServiceUnsupported"):
                    await ask
        added = await _heard(ed, _ID.AuditAddNodesEventType)
        assert (added["SourceName"], added["Status"], added["ClientUserId"]) == (
            "NodeManagement/AddNodes",
            False,
            "otto",
        )
        await _heard(ed, _ID.AuditDeleteNodesEventType)
        updated = await _heard(ed, _ID.AuditHistoryUpdateEventType)
        assert ua.StatusCode(updated["StatusCodeId"].value).name == "BadServiceUnsupported"
    once = ["AddNodes refused", "DeleteNodes refused", "HistoryUpdate refused"]
    assert [action for action in house.actions("otto") if action in once] == once


async def test_a_call_whose_client_goes_away_ends_and_is_on_record(house):
    suppress = ua.NodeId(ua.Int32(_ID.AlarmConditionType_Suppress))
    connections: Any = house.sink._server
    (path,) = house.folder.glob("*.db")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        async with house.session("ada") as ada:
            index = await ada.get_namespace_index(URI)
            score = ada.get_node(ua.NodeId(ua.String("pump.anomaly.flag.Alarm"), ua.Int16(index)))
            other.execute("BEGIN IMMEDIATE")  # the store has to wait for its turn
            calling = asyncio.create_task(score.call_method(suppress))
            async with asyncio.timeout(10):
                while not house.room._changing.locked():
                    await asyncio.sleep(0.01)
                ada.uaclient.protocol.transport.abort()
                while connections.bserver.clients:
                    await asyncio.sleep(0.01)
            other.execute("ROLLBACK")
            with pytest.raises((ConnectionError, ua.UaError, asyncio.CancelledError, TimeoutError)):
                await calling
            async with asyncio.timeout(10):
                while not any((row.user, row.action) == ("ada", "call Suppress") for row in house.rows):
                    await asyncio.sleep(0.01)
    (stored,) = [alarm for alarm in await house.store.alarms() if alarm.id == "pump.anomaly.flag.Alarm"]
    (shown,) = [state.current for state in house.room._states.values() if state.current.id == stored.id]
    assert (stored.suppressed, shown.suppressed) == (True, True)
