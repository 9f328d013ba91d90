"""An alarm from the plant to the alarm list and back, by a whole service that is stopped and started in between."""

import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asyncua import Client, ua

from plugin.diagnostics import Diagnostics
from plugin.opening import open_store
from plugin.publish.people import hashed
from tests.acceptance.life import Running, free_port, running, until
from tests.integration.acquire_plant import URI, Plant, Wire
from tests.integration.alarm_plant import PASSWORD, PATHS, Events, event_filter, session

pytestmark = pytest.mark.timeout(180)

_ID = ua.ObjectIds
_SERVER = ua.NodeId(ua.Int32(_ID.Server))
_OURS = "urn:foretag:predictions"
_ANOMALY, _AWAY = "pump.odd.flag.Alarm", "Foretag.Sources.plant.Away"
_USUAL, _ODD = 10.0, 60.0

CONFIG = """
[foretag]
device = "cpu"

[[sources]]
name = "plant"
endpoint = "opc.tcp://127.0.0.1:{plant}/plant"
security_policy = "None"
publishing_interval = "50ms"
sampling_interval = "50ms"
keep_alive = "500ms"
timeout = "2s"
reconnect_max = "300ms"
history = {{ back = "all", settle = "200ms" }}

[[assets]]
names = ["pump"]
node = "nsu={uri};s={{feature}}"
tags = {{ t0 = {{}}, t1 = {{}}, t2 = {{}} }}

[[models]]
name = "odd"
kind = "pca_anomaly"
assets = ["pump"]
features = ["t0", "t1", "t2"]
window = "10s"
step = "1s"
hold = "1h"
recent = "5s"
required = 0.5
valid = "1h"
persistence = 2
schedule = {{ every = "1s", deadline = "30s" }}
training = {{ learn = "normal", retry = "1s" }}
options = {{ smooth = 1 }}

[publish]
endpoint = "opc.tcp://127.0.0.1:{port}/foretag"

[[publish.users]]
name = "otto"
role = "operator"
password_hash = "{hash}"

[alarms]
source_delay = "1s"

[diagnostics]
listen = "127.0.0.1:0"
"""


@pytest.fixture
async def plant() -> AsyncIterator[Plant]:
    plant = Plant(3, history=True)
    await plant.start()
    noise, now = np.random.default_rng(1), datetime.now(UTC)
    for node in plant.nodes:
        for ago in range(120, 0, -1):
            await plant.put(node, _USUAL + noise.normal(), now - timedelta(seconds=ago))
    await _write(plant, _USUAL)
    yield plant
    await plant.stop()


async def _write(plant: Plant, value: float) -> None:
    for node in plant.nodes[:1]:
        await plant.put(node, value, datetime.now(UTC))


class List:
    """An alarm list: what an operator's client hears of all alarms, and what it does about them."""

    def __init__(self, client: Client, events: Events, subscription: Any) -> None:
        self._client, self._events, self._subscription = client, events, subscription

    def of(self, condition: str) -> list[dict[str, Any]]:
        """What was heard of one condition."""
        heard = [each for each in self._events.heard if each["NodeId"] is not None]
        return [each for each in heard if each["NodeId"].Identifier == condition]

    async def until(self, condition: str, count: int) -> dict[str, Any]:
        """The last of so many notifications."""
        await self._events.until(lambda: len(self.of(condition)) >= count, 60)
        return self.of(condition)[-1]

    async def refresh(self) -> None:
        """Ask for all that stands; heard when the call has returned and the end is there."""
        number = ua.Variant(self._subscription.subscription_id, ua.VariantType.UInt32)
        kind = self._client.get_node(ua.NodeId(ua.Int32(_ID.ConditionType)))
        await kind.call_method(ua.NodeId(ua.Int32(_ID.ConditionType_ConditionRefresh)), number)
        ends = ua.NodeId(ua.Int32(_ID.RefreshEndEventType))
        await self._events.until(lambda: any(each["EventType"] == ends for each in self._events.heard))

    async def acknowledge(self, event: dict[str, Any], words: str) -> None:
        """By its EventId."""
        arguments = (
            ua.Variant(event["EventId"], ua.VariantType.ByteString),
            ua.Variant(ua.LocalizedText(words, "en"), ua.VariantType.LocalizedText),
        )
        method = ua.NodeId(ua.Int32(_ID.AcknowledgeableConditionType_Acknowledge))
        await self._client.get_node(event["NodeId"]).call_method(method, *arguments)


@contextlib.asynccontextmanager
async def alarm_list(foretag: Running, folder: Path) -> AsyncIterator[List]:
    async with session(foretag.endpoint, folder / "client", foretag.service.config.pki_folder, "otto") as client:
        events = Events((*PATHS, "NodeId"))
        subscription = await client.create_subscription(50, events)
        await subscription.subscribe_events(client.get_node(_SERVER), evfilter=event_filter(*PATHS), queuesize=0)
        yield List(client, events, subscription)


def _file(folder: Path, plant: int, port: int) -> Path:
    path = folder / "foretag.toml"
    path.write_text(CONFIG.format(plant=plant, port=port, uri=URI, hash=hashed(PASSWORD)))
    return path


async def _told(foretag: Running, condition: str) -> list[str]:
    """EventIds of all notifications of a condition that the historian has, in their order."""
    async with open_store(foretag.service.config, Diagnostics(), alone=False) as store:
        now, day = datetime.now(UTC), timedelta(days=1)
        newest_first = await store.events(now - day, now + day)
        return [each.id for each in reversed(newest_first) if each.condition == condition]


async def test_an_anomaly_is_announced_known_and_over_once_each_though_the_service_restarts(plant, tmp_path):
    port = free_port()
    path = _file(tmp_path, plant.port, port)
    async with running(path, port) as foretag, alarm_list(foretag, tmp_path) as first:
        await foretag.published("odd")
        await _write(plant, _ODD)
        raised = await first.until(_ANOMALY, 1)
        assert (raised["ActiveState/Id"], raised["AckedState/Id"], raised["Retain"]) == (True, False, True)
        assert "t0" in raised["Message"].Text
        last = raised
        while last["Severity"] < 800:  # the score may need a run more until it is far over
            last = await first.until(_ANOMALY, len(first.of(_ANOMALY)) + 1)
        count = len(first.of(_ANOMALY))
        await first.acknowledge(last, "on my way")
        known = await first.until(_ANOMALY, count + 1)
        assert (known["AckedState/Id"], known["Comment"].Text, known["ClientUserId"]) == (True, "on my way", "otto")
        before = first.of(_ANOMALY)

    async with running(path, port) as foretag, alarm_list(foretag, tmp_path) as second:
        await second.refresh()
        assert second.of(_ANOMALY) == [known], "as it was left: the same EventId, the same time"
        await _runs(foretag, 3)
        assert second.of(_ANOMALY) == [known], "what is still so is no news"
        await _write(plant, _USUAL)
        over = known
        while over["ActiveState/Id"]:  # on its way back the score may be less far over
            over = await second.until(_ANOMALY, len(second.of(_ANOMALY)) + 1)
        assert (over["ActiveState/Id"], over["AckedState/Id"], over["Retain"]) == (False, True, False)
        assert over["Severity"] == known["Severity"]
        told = await _told(foretag, _ANOMALY)
    heard = [each["EventId"].hex() for each in (*before, *second.of(_ANOMALY)[1:])]
    assert len(set(heard)) == len(heard), "no notification comes twice"
    assert told == heard, "what is on record is what was heard"


async def _runs(foretag: Running, count: int) -> None:
    """So many runs more are published: each has one number, beside its flag."""
    published = foretag.service.diagnostics.published.labels("opcua")._value
    before = published.get()
    await until(lambda: published.get() >= before + count)


async def test_a_source_that_is_lost_is_an_alarm_over_a_restart_until_it_is_back(plant, tmp_path):
    port = free_port()
    async with Wire(plant.port) as wire:
        path = _file(tmp_path, wire.port, port)
        async with running(path, port) as foretag, alarm_list(foretag, tmp_path) as first:
            await foretag.published("odd")
            assert first.of(_AWAY) == []
            wire.cut()
            lost = await first.until(_AWAY, 1)
            assert lost["EventType"].Identifier == "Types.SourceLostAlarmType"
            assert (lost["ActiveState/Id"], lost["SourceName"], lost["Severity"]) == (True, "plant", 800)
        async with running(path, port) as foretag, alarm_list(foretag, tmp_path) as second:
            await second.refresh()
            assert second.of(_AWAY) == [lost]
            await second.acknowledge(lost, "cable")
            known = await second.until(_AWAY, 2)
            wire.mend()
            back = await second.until(_AWAY, 3)
            assert (back["ActiveState/Id"], back["Retain"]) == (False, False)
            told = await _told(foretag, _AWAY)
    assert told == [each["EventId"].hex() for each in (lost, known, back)]
