"""Messages that get lost on their way, and servers that answer Republish in ways of their own."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from asyncua import ua

from plugin.domain import GapCause, GapState
from tests.acceptance.channel import Connection, Datum, data_change
from tests.acceptance.line import Line, line
from tests.acceptance.proxy import Fault, message_number
from tests.acceptance.scripted import Refusal, Server
from tests.integration.acquire_plant import until

Answer = Callable[[Any, Connection], Awaitable[Any]]

NOT_AVAILABLE = int(ua.StatusCodes.BadMessageNotAvailable)


class Thief:
    """Takes the next messages away."""

    def __init__(self) -> None:
        self.wanted = 0
        self.taken: list[int] = []

    def __call__(self, body: bytes) -> bool:
        number = message_number(body)
        if not number or len(self.taken) >= self.wanted:
            return False
        self.taken.append(number)
        return True


async def write_slowly(parts: Line, count: int) -> None:
    """A message for each number."""
    for _ in range(count):
        parts.server.write()
        await asyncio.sleep(0.06)


@pytest.mark.parametrize("lost", [1, 2])  # two: no Publish request is left at the server, which looks like silence
async def test_a_message_lost_on_its_way_is_fetched_before_its_follower(tmp_path: Path, lost: int) -> None:
    thief = Thief()
    async with line(tmp_path, drop=thief) as parts:
        await write_slowly(parts, 4)
        await parts.settled()
        thief.wanted = lost
        await write_slowly(parts, 8)
        await parts.settled()
        assert len(thief.taken) == lost
        assert lost <= parts.server.calls["Republish"] <= lost + 1
    parts.calm()
    assert parts.balance().in_gaps == 0
    assert not parts.historian.gaps


@pytest.mark.parametrize("followed_by", ["a message", "a keep-alive"])
async def test_a_message_that_can_not_be_fetched_lies_in_a_gap(tmp_path: Path, followed_by: str) -> None:
    async def refuse(_request: Any, _connection: Connection) -> Any:
        raise Refusal(NOT_AVAILABLE)

    thief = Thief()
    async with line(tmp_path, drop=thief) as parts:
        parts.server.answers["Republish"] = refuse
        await write_slowly(parts, 4)
        await parts.settled()
        thief.wanted = 1
        await write_slowly(parts, 1)
        await until(lambda: bool(thief.taken))
        if followed_by == "a keep-alive":
            await until(lambda: bool(parts.historian.gaps))
        await write_slowly(parts, 4)
        await parts.settled()
        await until(lambda: bool(parts.historian.gaps))
    parts.calm()
    found = parts.balance()
    assert found.in_gaps == parts.tags
    (gap,) = parts.historian.gaps.values()
    assert (gap.cause, gap.tag, gap.state) == (GapCause.SEQUENCE, None, GapState.UNFILLABLE)
    assert gap.detail.startswith(f"messages {thief.taken[0]} to {thief.taken[0]}")


def refusing(_: Server) -> Answer:
    async def answer(_request: Any, _connection: Connection) -> Any:
        raise Refusal(NOT_AVAILABLE)

    return answer


def bad_result(_: Server) -> Answer:
    async def answer(_request: Any, _connection: Connection) -> Any:
        response = ua.RepublishResponse()
        response.ResponseHeader.ServiceResult = ua.StatusCode(ua.UInt32(NOT_AVAILABLE))
        return response

    return answer


def empty(server: Server) -> Answer:
    async def answer(request: Any, _connection: Connection) -> Any:
        number = request.Parameters.RetransmitSequenceNumber
        return server.republished(request, server.message(number, []))

    return answer


def the_same(server: Server) -> Answer:
    async def answer(request: Any, _connection: Connection) -> Any:
        return server.republished(request, server.message(2, [data_change([(0, Datum(0.0, 1.0))], 1.0)]))

    return answer


def cut_short(server: Server) -> Answer:
    async def answer(request: Any, _connection: Connection) -> Any:
        number = request.Parameters.RetransmitSequenceNumber
        return server.republished(request, server.message(number, [])[:-2])

    return answer


@pytest.mark.parametrize("kind", [refusing, bad_result, empty, the_same, cut_short])
async def test_republish_ends_after_one_answer_without_a_message(
    tmp_path: Path, kind: Callable[[Server], Answer]
) -> None:
    async with line(tmp_path) as parts:
        await write_slowly(parts, 3)
        await parts.settled()
        parts.server.answers["Republish"] = kind(parts.server)
        for subscription in parts.server.subscriptions.values():
            subscription.kept.clear()  # all is acknowledged: there is nothing to send again
        before = parts.server.calls["Republish"]
        await parts.proxy.outage(Fault.RESET, 0.2)
        await write_slowly(parts, 3)
        await parts.settled()
        assert parts.server.calls["Republish"] - before <= 2
    parts.calm()
    assert parts.balance().in_gaps == 0


async def test_a_server_that_makes_up_messages_for_ever_does_not_hold_us(tmp_path: Path) -> None:
    async with line(tmp_path) as parts:

        async def invent(request: Any, _connection: Connection) -> Any:
            number = request.Parameters.RetransmitSequenceNumber
            old = data_change([(0, Datum(0.0, 1e9))], 1e9)
            return parts.server.republished(request, parts.server.message(number, [old]))

        await write_slowly(parts, 2)
        await parts.settled()
        parts.server.answers["Republish"] = invent
        await parts.proxy.outage(Fault.RESET, 0.2)
        await write_slowly(parts, 3)
        await parts.settled(60)
        assert parts.server.calls["Republish"] < 30_000
    parts.calm()
    parts.balance()
