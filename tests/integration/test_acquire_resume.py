"""Our own restart: the session and its subscriptions wait at the server, and nothing is lost."""

import asyncio
import logging
import random
import sqlite3
import stat
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from asyncua import ua
from asyncua.server.user_managers import User, UserManager, UserRole

from plugin.domain import GapCause
from tests.acceptance.channel import Connection
from tests.acceptance.scripted import Server, Subscription
from tests.integration.acquire_plant import Historian, Plant, Wire, make, running, tags, until
from tests.integration.secured_plant import ours, secured, server_certificate

TAGS = 3


async def write(plant: Plant, numbers: Sequence[int]) -> None:
    for number in numbers:
        await plant.write(number)
        await asyncio.sleep(0.01)


async def stored(historian: Historian, number: int, count: int = TAGS) -> None:
    await until(lambda: all(number in historian.numbers(tag) for tag in range(1, count + 1)))


def conforming(plant: Plant) -> Plant:
    """asyncua's server forgets a message that it was asked for again; the standard says: until it is acknowledged."""
    service: Any = plant.server.iserver.subscription_service

    def republish(params: ua.RepublishParameters) -> ua.NotificationMessage:
        subscription = service.subscriptions.get(params.SubscriptionId)
        if subscription is None:
            raise ua.UaStatusCodeError(ua.StatusCodes.BadSubscriptionIdInvalid)
        found = subscription._not_acknowledged_results.get(params.RetransmitSequenceNumber)
        if found is None:
            raise ua.UaStatusCodeError(ua.StatusCodes.BadMessageNotAvailable)
        message: ua.NotificationMessage = found.NotificationMessage
        return message

    service.republish = republish
    return plant


async def started(count: int = TAGS) -> Plant:
    plant = Plant(count)
    await plant.start()
    return conforming(plant)


@pytest.mark.parametrize("end", ["stopped", "killed"])
async def test_a_restart_loses_nothing_and_needs_no_history(tmp_path: Path, end: str) -> None:
    plant, historian = await started(), Historian()
    async with Wire(plant.port) as wire:
        async with running(make(wire.port, TAGS, tmp_path, historian), historian) as source:
            await until(source.connected)
            await write(plant, range(1, 11))
            await stored(historian, 5)
            if end == "killed":
                wire.cut()  # no farewell
        wire.mend()
        await write(plant, range(11, 31))
        again = make(wire.port, TAGS, tmp_path, historian)
        async with running(again, historian):
            await until(again.connected)
            await write(plant, range(31, 36))
            await stored(historian, 35)
        assert len(plant.server.iserver.subscription_service.subscriptions) == 1
    await plant.stop()
    for tag in range(1, TAGS + 1):
        assert historian.stored(tag) == list(range(1, 36))
    assert not historian.gaps


async def test_what_was_not_committed_when_we_were_killed_comes_again(tmp_path: Path) -> None:
    plant, historian, lost = await started(), Historian(), Historian()
    lost.confirming = False
    async with Wire(plant.port) as wire:
        async with running(make(wire.port, TAGS, tmp_path, historian), historian) as source:
            await until(source.connected)
            await write(plant, range(1, 4))
            await stored(historian, 3)
        async with running(make(wire.port, TAGS, tmp_path, historian), lost) as source:
            await until(source.connected)
            await write(plant, range(4, 9))
            await stored(lost, 8)
            wire.cut()
        wire.mend()
        async with running(make(wire.port, TAGS, tmp_path, historian), historian):
            await write(plant, range(9, 12))
            await stored(historian, 11)
    await plant.stop()
    for tag in range(1, TAGS + 1):
        assert historian.stored(tag) == list(range(1, 12))
    assert not historian.gaps


async def test_tags_that_are_read_after_a_restart_have_our_downtime_as_a_gap(tmp_path: Path) -> None:
    plant, historian = await started(), Historian()
    async with running(make(plant.port, TAGS, tmp_path, historian), historian) as source:
        await until(source.connected)
        await write(plant, range(1, 4))
        await stored(historian, 3)
    await write(plant, range(4, 9))
    async with running(make(plant.port, TAGS, tmp_path, historian, mode="poll"), historian) as source:
        await until(source.connected)
        await stored(historian, 8)
    await plant.stop()
    assert [gap.cause for gap in historian.gaps.values()] == [GapCause.CLIENT_DOWN]


async def test_tags_that_changed_meanwhile_cost_the_others_nothing(tmp_path: Path) -> None:
    plant, historian = await started(4), Historian()
    t0, t1, t2, t3 = tags(4)
    async with running(make(plant.port, [t0, t1, t2], tmp_path, historian), historian) as source:
        await until(source.connected)
        await write(plant, range(1, 4))
        await stored(historian, 3)
    await write(plant, range(4, 8))
    again = make(plant.port, [t3, t2, t1], tmp_path, historian)
    async with running(again, historian):
        await until(lambda: again.connected() and all(item.monitored for item in again.items))
        await write(plant, range(8, 11))
        await until(lambda: all(10 in historian.numbers(tag) for tag in (2, 3, 4)))
    service = plant.server.iserver.subscription_service
    (subscription,) = service.subscriptions.values()
    assert len(subscription.monitored_item_srv._monitored_items) == 3
    await write(plant, range(11, 13))
    once_more = make(plant.port, [t1, t2, t3], tmp_path, historian)
    async with running(once_more, historian):
        await until(lambda: all(12 in historian.numbers(tag) for tag in (2, 3, 4)))
    await plant.stop()
    assert historian.stored(1) == [1, 2, 3]
    assert historian.stored(2) == historian.stored(3) == list(range(1, 13))
    assert historian.stored(4) == list(range(7, 13))
    assert not historian.gaps


async def test_a_server_that_restarted_meanwhile_is_noticed(tmp_path: Path) -> None:
    plant, historian = await started(), Historian()
    async with running(make(plant.port, TAGS, tmp_path, historian), historian) as source:
        await until(source.connected)
        await write(plant, [1, 2])
        await stored(historian, 2)
    await plant.stop()
    other = Plant(TAGS, port=plant.port)
    await other.start()
    stranger = await _subscription_of_a_stranger(other, plant)
    async with running(make(plant.port, TAGS, tmp_path, historian), historian) as source:
        await until(source.connected)
        await write(other, [5])
        await stored(historian, 5)
        assert stranger in other.server.iserver.subscription_service.subscriptions
    await other.stop()
    (gap,) = historian.gaps.values()
    assert (gap.cause, gap.tag) == (GapCause.CLIENT_DOWN, None)


async def _subscription_of_a_stranger(other: Plant, plant: Plant) -> int:
    """With the number that ours had: nobody may take it over."""
    service = other.server.iserver.subscription_service
    params = ua.CreateSubscriptionParameters(RequestedPublishingInterval=50, RequestedLifetimeCount=ua.UInt32(10_000))
    service._sub_id_counter = next(iter(plant.server.iserver.subscription_service.subscriptions), 78) - 1

    async def nowhere(*_: Any) -> None: ...

    made = await service.create_subscription(params, nowhere, ua.NodeId(ua.Int32(4711)), lambda _: None)
    return int(made.SubscriptionId)


async def test_without_resume_the_session_is_ended_and_the_downtime_is_a_gap(tmp_path: Path) -> None:
    plant, historian = await started(), Historian()
    async with running(make(plant.port, TAGS, tmp_path, historian, resume=False), historian) as source:
        await until(source.connected)
        await write(plant, [1])
        await stored(historian, 1)
    assert not plant.server.iserver.subscription_service.subscriptions
    async with running(make(plant.port, TAGS, tmp_path, historian, resume=False), historian) as source:
        await until(source.connected)
    await plant.stop()
    assert [gap.cause for gap in historian.gaps.values()] == [GapCause.CLIENT_DOWN]
    assert not (tmp_path / "sessions").exists()


async def test_the_token_is_in_a_file_that_we_alone_can_read_and_not_in_the_checkpoints(tmp_path: Path) -> None:
    plant, historian = await started(), Historian()
    async with running(make(plant.port, TAGS, tmp_path, historian), historian) as source:
        await until(source.connected)
        await write(plant, [1])
        await stored(historian, 1)
        (file,) = (tmp_path / "sessions").iterdir()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
        assert not any("token" in key + text for key, text in historian.checkpoints.items())
    await plant.stop()


async def test_a_spoilt_file_costs_the_session_only(tmp_path: Path) -> None:
    historian = Historian()
    async with Server(TAGS) as server:
        for number in (1, 2):
            async with running(make(server.port, TAGS, tmp_path, historian), historian) as source:
                await until(source.connected)
                server.write()
                await stored(historian, number)
            (tmp_path / "sessions" / "plant.session").write_text("{")
        assert server.calls["TransferSubscriptions"] == 1
    assert not historian.gaps


async def test_what_a_lost_consumer_had_not_confirmed_is_given_to_the_next(tmp_path: Path) -> None:
    plant, first, second = await started(), Historian(), Historian()
    first.confirming = False
    source = make(plant.port, TAGS, tmp_path)
    async with running(source, first):
        await until(source.connected)
        await write(plant, range(1, 4))
        await stored(first, 3)
    async with running(source, second):
        await until(source.connected)
        await write(plant, range(4, 6))
        await stored(second, 5)
    await plant.stop()
    assert second.stored(1) == [1, 2, 3, 4, 5]


async def test_other_intervals_are_asked_for_without_a_new_subscription(tmp_path: Path) -> None:
    historian = Historian()
    async with Server(TAGS) as server:
        async with running(make(server.port, TAGS, tmp_path, historian), historian) as source:
            await until(source.connected)
            server.write()
            await stored(historian, 1)
        modified = []

        async def modify(request: Any, _connection: Connection) -> Any:
            modified.append(request.Parameters)
            response = ua.ModifySubscriptionResponse()
            response.Parameters.RevisedPublishingInterval = request.Parameters.RequestedPublishingInterval
            response.Parameters.RevisedMaxKeepAliveCount = request.Parameters.RequestedMaxKeepAliveCount
            response.Parameters.RevisedLifetimeCount = request.Parameters.RequestedLifetimeCount
            return response

        server.answers["ModifySubscription"] = modify
        for _ in range(2):  # the second time nothing is new
            again = make(server.port, TAGS, tmp_path, historian, keep_alive="500ms")
            async with running(again, historian):
                await until(again.connected)
                number = server.write()
                await until(lambda: bool(modified))
                await stored(historian, number)
        assert [each.RequestedMaxKeepAliveCount for each in modified] == [10]
        assert server.calls["CreateSubscription"] == 1
    assert not historian.gaps


class OneUser(UserManager):
    def get_user(
        self, iserver: Any, username: Any = None, password: Any = None, certificate: Any = None
    ) -> User | None:
        return User(role=UserRole.User, name="reader") if (username, password) == ("reader", "secret") else None


async def test_a_secured_session_of_a_user_is_taken_up_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PLANT_PASSWORD", "secret")
    historian = Historian()
    caplog.set_level(logging.DEBUG, logger="plugin")
    identity = server_certificate()
    ours(tmp_path, identity)
    async with secured(identity, users=OneUser()) as plant:
        user = {"security_policy": "Basic256Sha256", "user": "reader", "password_env": "PLANT_PASSWORD"}
        for _ in range(2):
            source = make(plant.port, 2, tmp_path, historian, timeout="3s", **user)
            async with running(source, historian):
                await until(source.connected)
                await until(lambda: len(historian.known()) == 2)
        assert source._diagnostics.value("reconnects_total", source="plant", how="reused") == 1
    assert not historian.gaps
    assert "secret" not in caplog.text


PROCESS = """
import asyncio, sys
from pathlib import Path
from plugin.acquire.config import SourceConfig
from plugin.acquire.source import OpcUaSource
from plugin.diagnostics import Diagnostics
from plugin.domain import Tag
from plugin.historian.ingest import Ingest
from plugin.historian.sqlite.store import SqliteStore

async def main(port, folder):
    async with SqliteStore(f"sqlite+aiosqlite:///{folder}/historian.db") as store:
        tags = [Tag(f"t{n}", "plant", f"nsu=urn:test:plant;s=t{n}") for n in range(3)]
        tags = await store.register_tags(tags)
        newest = await store.latest([tag.id for tag in tags])
        config = SourceConfig(
            name="plant", endpoint=f"opc.tcp://127.0.0.1:{port}/plant", security_policy="None", timeout="2s",
            publishing_interval="50ms", sampling_interval="50ms", history={"enabled": False},
        )
        source = OpcUaSource(
            config, tags, Diagnostics(), folder / "pki", dict(zip(newest.tag.tolist(), newest.source_time.tolist())),
            await store.checkpoints("plant/"), session_folder=folder / "sessions",
        )
        await Ingest([source], store, Diagnostics()).run()

asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2])))
"""


async def test_a_killed_process_loses_nothing(tmp_path: Path) -> None:
    chance = random.Random(7)
    async with Server(TAGS) as server:
        server.write()
        for life in range(4):
            command = (sys.executable, "-c", PROCESS, str(server.port), str(tmp_path))
            process = await asyncio.create_subprocess_exec(*command)
            try:
                await until(lambda life=life: server.calls["ActivateSession"] > life, 60)  # type: ignore[misc]
                if life == 0:
                    await until(lambda: any(_committed(each) for each in server.subscriptions.values()), 60)
                await server.feed(chance.randrange(20, 80))
                if life == 3:
                    await until(lambda: _newest(tmp_path) == server.last)
            finally:
                process.kill()
                await process.wait()
            await server.feed(20)
        assert server.calls["CreateSession"] == server.calls["CreateSubscription"] == 1
    with closing(sqlite3.connect(tmp_path / "historian.db")) as database:
        rows = database.execute("SELECT tag_id, value FROM samples WHERE value > 0 ORDER BY tag_id, value").fetchall()
        assert database.execute("SELECT count(*) FROM gaps").fetchone() == (0,)
    assert rows == [(tag, number) for tag in (1, 2, 3) for number in range(1, server.last - 20 + 1)]


def _committed(subscription: Subscription) -> bool:
    """Its first message was acknowledged."""
    return subscription.next > 1 and 1 not in subscription.kept


def _newest(folder: Path) -> float:
    with closing(sqlite3.connect(folder / "historian.db")) as database:
        found = database.execute("SELECT min(newest) FROM (SELECT max(value) newest FROM samples GROUP BY tag_id)")
        return float(found.fetchone()[0] or 0)
