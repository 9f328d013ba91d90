"""What servers do to sessions, subscriptions and items, and what becomes of the values."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from asyncua import ua

from plugin.domain import GapCause, GapState
from tests.acceptance.channel import Connection
from tests.acceptance.line import Line, line
from tests.acceptance.scripted import Refusal
from tests.integration.acquire_plant import until


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
