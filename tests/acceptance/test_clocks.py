"""A server's clock that is wrong, or set while we listen: no disconnect, nothing lost, gaps where they belong."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from asyncua import ua

from plugin.domain import GapCause
from tests.acceptance.channel import Connection
from tests.acceptance.line import Line, line
from tests.acceptance.proxy import Fault, message_number
from tests.acceptance.scripted import Refusal, Server
from tests.integration.acquire_plant import until

HOURS = 3600.0


def reconnects(parts: Line) -> float:
    return parts.diagnostics.total("reconnects_total") - 1


async def renew_under_load(folder: Path, ahead: float) -> None:
    server = Server(3)
    server.ahead, server.token_lifetime = ahead, 3000
    async with line(folder / str(ahead), server=server) as parts:
        await server.feed(150, 0.02)
        await parts.settled()
        assert server.calls["Publish"] > 20
        assert sum(len(each.tokens) for each in server.connections) >= 2, "the channel was renewed"
        assert reconnects(parts) == 0
    parts.calm()
    assert parts.balance().in_gaps == 0
    assert not parts.historian.gaps


async def test_channels_are_renewed_whatever_the_servers_clock_says(tmp_path: Path) -> None:
    await asyncio.gather(*(renew_under_load(tmp_path, ahead) for ahead in (0.0, -2 * HOURS, 2 * HOURS)))


@pytest.mark.parametrize("jump", [-2 * HOURS, 2 * HOURS])
async def test_a_clock_that_is_set_while_we_listen_costs_nothing(tmp_path: Path, jump: float) -> None:
    async with line(tmp_path) as parts:
        await parts.server.feed(20)
        parts.server.ahead += jump
        await parts.server.feed(20)
        await asyncio.sleep(0.7)
        parts.server.ahead -= jump
        await parts.server.feed(20)
        await parts.settled()
        assert reconnects(parts) == 0
    parts.calm()
    assert parts.balance().in_gaps == 0
    assert not parts.historian.gaps


@pytest.mark.parametrize(
    ("before", "after"), [(-2.0, -2.0), (2.0, 2.0), (0.0, -2.0), (0.0, 2.0), (2.0, 0.0), (-2.0, 0.0)]
)
async def test_a_lost_subscription_is_a_gap_by_the_servers_clock_too(
    tmp_path: Path, before: float, after: float
) -> None:
    server = Server(3)
    server.ahead = before * HOURS
    async with line(tmp_path, server=server) as parts:
        await server.feed(10)
        await parts.settled()
        await parts.proxy.strike(Fault.RESET)
        await server.feed(5)
        server.drop_sessions()
        server.ahead = after * HOURS
        await server.feed(5)
        await parts.proxy.mend()
        await until(lambda: reconnects(parts) == 1 and parts.source.connected())
        await server.feed(10)
        await parts.settled()
    parts.calm()
    found = parts.balance()
    assert found.in_gaps >= 9 * parts.tags  # the last one is the initial value of the new items
    assert [gap.cause for gap in parts.historian.gaps.values()] == [GapCause.SUBSCRIPTION_LOST]


@pytest.mark.parametrize("ahead", [-2 * HOURS, 2 * HOURS])
async def test_a_lost_message_is_a_gap_by_the_servers_clock_too(tmp_path: Path, ahead: float) -> None:
    async def refuse(_request: Any, _connection: Connection) -> Any:
        raise Refusal(int(ua.StatusCodes.BadMessageNotAvailable))

    server = Server(3)
    server.ahead = ahead
    async with line(
        tmp_path, server=server, drop=lambda body: server.last == 5 and bool(message_number(body))
    ) as parts:
        server.answers["Republish"] = refuse
        for _ in range(10):
            server.write()
            await asyncio.sleep(0.07)
        await parts.settled()
    parts.calm()
    assert parts.proxy.dropped
    assert parts.balance().in_gaps
    assert {gap.cause for gap in parts.historian.gaps.values()} == {GapCause.SEQUENCE}
