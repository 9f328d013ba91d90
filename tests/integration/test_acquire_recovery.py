"""What servers do to sessions, subscriptions and items, and what becomes of the values."""

import asyncio
import contextlib
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from asyncua import ua

from plugin.acquire.source import OpcUaSource, State
from plugin.diagnostics import Diagnostics
from plugin.domain import GapCause, GapState
from tests.acceptance.account import account
from tests.acceptance.channel import Connection
from tests.acceptance.line import Line, line
from tests.acceptance.proxy import Proxy
from tests.acceptance.scripted import Refusal, Server
from tests.integration.acquire_plant import Historian, config, running, tags, until


def refusing(code: int) -> Any:
    async def refuse(_request: Any, _connection: Connection) -> Any:
        raise Refusal(code)

    return refuse


async def fed(parts: Line, count: int) -> None:
    await parts.server.feed(count)
    await parts.settled()


# --- the session ---


async def test_a_subscription_that_outlives_its_session_is_transferred_and_loses_nothing(tmp_path: Path) -> None:
    async with line(tmp_path) as parts:
        await fed(parts, 5)
        parts.server.drop_sessions(subscriptions=False)
        await fed(parts, 10)
        assert parts.server.calls["TransferSubscriptions"] == 1
        assert parts.server.calls["CreateSubscription"] == 1
    parts.calm()
    assert parts.balance().in_gaps == 0
    assert not parts.historian.gaps


@pytest.mark.parametrize("code", ["BadServiceUnsupported", "BadNothingToDo", "BadUserAccessDenied"])
async def test_where_a_transfer_is_refused_there_is_one_gap(tmp_path: Path, code: str) -> None:
    async with line(tmp_path) as parts:
        parts.server.answers["TransferSubscriptions"] = refusing(getattr(ua.StatusCodes, code))
        await fed(parts, 5)
        parts.server.drop_sessions(subscriptions=False)
        await fed(parts, 10)
    parts.calm()
    parts.balance()
    (gap,) = parts.historian.gaps.values()
    assert (gap.cause, gap.tag, gap.state) == (GapCause.SUBSCRIPTION_LOST, None, GapState.UNFILLABLE)
    assert gap.end is not None


async def test_a_server_that_is_slow_to_activate_keeps_the_session(tmp_path: Path) -> None:
    async with line(tmp_path, timeout="500ms") as parts:
        await fed(parts, 3)
        activate, slow = parts.server._on_ActivateSession, 2

        async def hesitate(request: Any, connection: Connection) -> Any:
            nonlocal slow
            slow -= 1
            if slow >= 0:
                await asyncio.sleep(0.7)
            return await activate(request, connection)

        parts.server.answers["ActivateSession"] = hesitate
        for connection in list(parts.server.connections):
            connection.abort()
        await fed(parts, 10)
        assert slow < 0
        assert parts.server.calls["CreateSession"] == 1
    parts.calm()
    assert not parts.historian.gaps
    assert parts.balance().in_gaps == 0


async def test_a_server_that_hangs_up_on_an_unknown_session_gets_a_new_one(tmp_path: Path) -> None:
    async with line(tmp_path) as parts:
        await fed(parts, 3)
        activate, known = parts.server._on_ActivateSession, set(parts.server.sessions)

        async def hang_up(request: Any, connection: Connection) -> Any:
            if int(request.RequestHeader.AuthenticationToken.Identifier) in known:
                connection.abort()
                return None
            return await activate(request, connection)

        parts.server.answers["ActivateSession"] = hang_up
        for connection in list(parts.server.connections):
            connection.abort()
        await fed(parts, 5)
        assert parts.server.calls["CreateSession"] == 2
    parts.calm()
    parts.balance()


async def test_a_channel_that_can_not_be_renewed_is_opened_anew(tmp_path: Path) -> None:
    async with line(tmp_path) as parts:
        await fed(parts, 3)
        client: Any = parts.source._session._client
        client._renew_channel_task.cancel()
        await until(lambda: not parts.source.connected())
        await until(parts.source.connected)
        await fed(parts, 5)
        assert not client._renew_channel_task.done()
        assert parts.server.calls["CreateSession"] == 1
    parts.calm()
    assert not parts.historian.gaps


# --- messages ---


async def test_many_lost_messages_in_a_row_are_one_gap(tmp_path: Path) -> None:
    async with line(tmp_path) as parts:
        await fed(parts, 3)
        subscription = next(iter(parts.server.subscriptions.values()))
        subscription.next += 40
        await fed(parts, 3)
        await until(lambda: bool(parts.historian.gaps))
    parts.calm()
    (gap,) = parts.historian.gaps.values()
    assert gap.cause is GapCause.SEQUENCE


async def test_a_subscription_that_nobody_knows_is_taken_away(tmp_path: Path) -> None:
    async with line(tmp_path, timeout="500ms") as parts:
        await fed(parts, 1)
        ours = next(iter(parts.server.subscriptions))
        request = ua.CreateSubscriptionRequest()
        request.RequestHeader.AuthenticationToken = ua.NodeId(ua.Int32(next(iter(parts.server.sessions))))
        request.Parameters.RequestedPublishingInterval = 20.0
        request.Parameters.RequestedMaxKeepAliveCount = ua.UInt32(1)
        request.Parameters.RequestedLifetimeCount = ua.UInt32(1000)
        await parts.server._on_CreateSubscription(request, next(iter(parts.server.connections)))
        await until(lambda: list(parts.server.subscriptions) == [ours])
        await fed(parts, 3)
    parts.calm()
    assert not parts.historian.gaps


# --- subscriptions and items ---

TOO_MANY = int(ua.StatusCodes.BadTooManySubscriptions)


async def test_a_subscription_that_is_refused_once_is_made_with_the_next_try(tmp_path: Path) -> None:
    async with line(tmp_path, connected=False) as parts:
        create, refused = parts.server._on_CreateSubscription, 1

        async def once(request: Any, connection: Connection) -> Any:
            nonlocal refused
            refused -= 1
            if refused >= 0:
                raise Refusal(TOO_MANY)
            return await create(request, connection)

        parts.server.answers["CreateSubscription"] = once
        await until(parts.source.connected)
        await fed(parts, 3)
        assert parts.server.calls["CreateSession"] == 1
    parts.calm()
    parts.balance()


async def test_without_any_subscription_it_is_not_connected_and_says_why(tmp_path: Path) -> None:
    async with line(tmp_path, connected=False) as parts:
        parts.server.answers["CreateSubscription"] = refusing(TOO_MANY)
        await until(lambda: parts.server.calls["CreateSubscription"] >= 3)
        assert not parts.source.connected()
        assert "BadTooManySubscriptions" in parts.source.trouble
        parts.server.answers.clear()
        await until(parts.source.connected)
        await fed(parts, 2)
    parts.calm()


async def test_a_server_with_room_for_one_subscription_keeps_that_and_is_asked_for_the_other_again(
    tmp_path: Path,
) -> None:
    async with line(tmp_path, 4, connected=False, subscription_size=2) as parts:
        create, room = parts.server._on_CreateSubscription, 1

        async def limited(request: Any, connection: Connection) -> Any:
            if len(parts.server.subscriptions) >= room:
                raise Refusal(TOO_MANY)
            return await create(request, connection)

        parts.server.answers["CreateSubscription"] = limited
        await until(parts.source.connected)
        assert parts.source.state is State.DEGRADED
        assert parts.diagnostics.value("items_failed", source="plant") == 2
        await parts.server.feed(5)
        await until(lambda: 5 in parts.historian.numbers(1) and 5 in parts.historian.numbers(2))
        (gap,) = parts.historian.gaps.values()
        assert (gap.cause, gap.end) == (GapCause.SUBSCRIPTION_LOST, None)
        assert gap.detail.startswith("2 of 4 tags")
        assert "BadTooManySubscriptions" in gap.detail
        room = 2
        await until(lambda: parts.source.state is State.RUNNING)
        await fed(parts, 3)
        assert parts.server.calls["CreateSession"] == 1
    parts.calm()
    parts.balance()
    (gap,) = parts.historian.gaps.values()
    assert gap.end is not None


@pytest.mark.parametrize("difference", [-1, 1])
async def test_answers_that_can_not_be_told_apart_are_not_taken_for_items(tmp_path: Path, difference: int) -> None:
    async with line(tmp_path, connected=False) as parts:
        create = parts.server._on_CreateMonitoredItems

        async def lie(request: Any, connection: Connection) -> Any:
            response = await create(request, connection)
            response.Results = response.Results[:-1] if difference < 0 else response.Results + response.Results[:1]
            return response

        parts.server.answers["CreateMonitoredItems"] = lie
        await until(lambda: "answers to 3 items" in parts.source.trouble)
        assert not parts.source.connected()
        parts.server.answers.clear()
        await until(parts.source.connected)
        await fed(parts, 3)
        assert len(parts.server.subscriptions) == 1
    parts.calm()
    parts.balance()


async def test_with_all_items_refused_it_is_not_connected(tmp_path: Path) -> None:
    server = Server(3)
    server.missing |= {0, 1, 2}
    async with line(tmp_path, server=server, connected=False) as parts:
        await until(lambda: parts.source.state is State.DEGRADED)
        assert not parts.source.connected()
        assert parts.diagnostics.value("source_connected", source="plant") == 0
        server.missing.clear()
        await until(parts.source.connected)
        await fed(parts, 2)
    parts.calm()
    parts.balance()


async def test_a_full_server_is_not_asked_for_each_item(tmp_path: Path) -> None:
    async with line(tmp_path, 200, connected=False) as parts:
        create, made = parts.server._on_CreateMonitoredItems, 0

        async def limited(request: Any, connection: Connection) -> Any:
            nonlocal made
            if made + len(request.Parameters.ItemsToCreate) > 100:
                raise Refusal(int(ua.StatusCodes.BadTooManyMonitoredItems))
            made += len(request.Parameters.ItemsToCreate)
            return await create(request, connection)

        parts.server.answers["CreateMonitoredItems"] = limited
        await until(parts.source.connected)
        assert parts.source.state is State.DEGRADED
        assert parts.server.calls["CreateMonitoredItems"] < 30
        assert made == 100
    parts.calm()


async def test_a_server_that_takes_few_publish_requests_gets_few(tmp_path: Path) -> None:
    async with line(tmp_path, 6, connected=False, subscription_size=2) as parts:
        publish = parts.server._on_Publish

        async def limited(request: Any, connection: Connection) -> Any:
            if any(len(waiting) >= 1 for waiting in parts.server.sessions.values()):
                raise Refusal(int(ua.StatusCodes.BadTooManyPublishRequests))
            return await publish(request, connection)

        parts.server.answers["Publish"] = limited
        await until(parts.source.connected)
        await fed(parts, 20)
        assert parts.server.calls["CreateSession"] == 1
    parts.calm()
    assert parts.balance().in_gaps == 0


async def test_a_bridge_shorter_than_asked_for_is_measured_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server(3)
    server.queue_limit = 10
    async with line(tmp_path, server=server) as parts:
        assert parts.diagnostics.value("bridge_seconds", source="plant") == pytest.approx(0.5)
        for connection in list(server.connections):
            connection.abort()
        await until(lambda: not parts.source.connected())
        await until(parts.source.connected)
    (line_said,) = [record.getMessage() for record in caplog.records if "bridge" in record.getMessage()]
    assert "0.5 s" in line_said
    assert "3 tag(s)" in line_said


async def test_subscriptions_are_of_a_size_that_the_server_grants(tmp_path: Path) -> None:
    server, read = Server(10), Server._read

    def limited(wanted: ua.ReadValueId) -> ua.DataValue:
        if wanted.NodeId.Identifier == ua.ObjectIds.Server_ServerCapabilities_MaxSubscriptionsPerSession:
            return ua.DataValue(ua.Variant(2, ua.VariantType.UInt32))
        return read(server, wanted)

    server._read = limited  # type: ignore[method-assign]
    async with line(tmp_path, 10, server=server, subscription_size=3) as parts:
        assert sorted(len(each.items) for each in server.subscriptions.values()) == [5, 5]
        await fed(parts, 3)
    parts.calm()
    parts.balance()


# --- values that don't come by themselves ---


async def test_a_tag_without_an_initial_value_is_read(tmp_path: Path) -> None:
    server = Server(3)
    server.put(7.0, server.now(), 1)
    create = server._create_item

    def silent(subscription: Any, asked: Any) -> Any:
        result = create(subscription, asked)
        for item in subscription.items.values():
            item.queue.clear()
        return result

    server._create_item = silent  # type: ignore[method-assign]
    async with line(tmp_path, server=server) as parts:
        await until(lambda: parts.historian.numbers(2) == [7])
        assert parts.source.connected()
    parts.calm()
    assert not parts.historian.gaps


@pytest.mark.parametrize("resends", [True, False])
async def test_after_a_loss_the_present_values_are_known(tmp_path: Path, resends: bool) -> None:
    async with line(tmp_path) as parts:
        await fed(parts, 3)
        asked: list[int] = []

        async def call(request: Any, _connection: Connection) -> Any:
            (method,) = request.Parameters.MethodsToCall
            asked.append(method.InputArguments[0].Value)
            if not resends:
                raise Refusal(int(ua.StatusCodes.BadServiceUnsupported))
            subscription = parts.server.subscriptions[asked[-1]]
            for tag, items in subscription.nodes.items():
                for item in items:
                    item.put(parts.server._current[tag])
            response = ua.CallResponse()
            response.Results = [ua.CallMethodResult()]
            return response

        parts.server.answers["Call"] = call
        parts.server.answers["Republish"] = refusing(int(ua.StatusCodes.BadMessageNotAvailable))
        (subscription,) = parts.server.subscriptions.values()
        parts.server.write()
        for item in subscription.items.values():
            item.queue.clear()  # the message that had them is lost
        subscription.next += 1
        await parts.settled()
        assert asked == [subscription.id]
    parts.calm()
    assert [gap.cause for gap in parts.historian.gaps.values()] == [GapCause.SEQUENCE]
    assert all(parts.historian.stored(tag) == [1, 2, 3, 4] for tag in (1, 2, 3))


# --- servers ---


async def test_a_restarted_server_may_have_its_namespaces_in_another_order(tmp_path: Path) -> None:
    async with line(tmp_path) as parts:
        await fed(parts, 3)
        await parts.server.stop()
        parts.server.namespaces.insert(2, "urn:test:new")
        await until(lambda: not parts.source.connected())
        await parts.server.start()
        await until(parts.source.connected)
        await fed(parts, 3)
        assert {item.node.NamespaceIndex for item in parts.source.items if item.node} == {3}
    parts.calm()
    parts.balance()


async def test_a_dead_server_and_one_that_is_cut_off_again_and_again_disturb_no_other(tmp_path: Path) -> None:
    dead, diagnostics = socket.create_server(("127.0.0.1", 0)), Diagnostics()
    port = dead.getsockname()[1]
    dead.close()
    async with Server(4) as fine, Server(4) as cut, Proxy(cut.port) as proxy:
        ports = {"fine": fine.port, "cut": proxy.port, "dead": port}
        sources, historians = {}, {name: Historian() for name in ports}
        async with contextlib.AsyncExitStack() as stack:
            for name, port in ports.items():
                own = [replace(tag, source=name) for tag in tags(4)]
                settings = config(port, name=name, subscription_size=2)
                sources[name] = OpcUaSource(settings, own, diagnostics, tmp_path / "pki")
                await stack.enter_async_context(running(sources[name], historians[name]))
            await until(lambda: sources["fine"].connected() and sources["cut"].connected())
            for _ in range(3):
                for connection in list(cut.connections):
                    connection.abort()
                await asyncio.gather(fine.feed(10), cut.feed(10))
            for name, server in (("fine", fine), ("cut", cut)):
                await until(lambda name=name, server=server: _came(historians[name], server.last, 4))  # type: ignore[misc]
        for name, server in (("fine", fine), ("cut", cut)):
            found = account(server.times, {n + 1: f"t{n}" for n in range(4)}, historians[name].batches, ())
            assert found.sound, found.faults[:5]
        assert fine.calls["CreateSession"] == fine.calls["ActivateSession"] == 1
        assert "connect" in sources["dead"].trouble
        assert not historians["dead"].batches
        assert diagnostics.total("task_failures_total") == 0


def _came(historian: Historian, number: int, count: int) -> bool:
    return all(number in historian.numbers(tag) for tag in range(1, count + 1))
