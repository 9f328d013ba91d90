"""Servers that lie: no unhandled error, no busy loop, no value lost in silence, and all is well when they stop."""

import asyncio
import itertools
import math
import random
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from asyncua import ua

from plugin.acquire.source import State
from plugin.domain import GapCause, SampleBatch
from tests.acceptance.channel import Connection, Datum, data_change, status_change
from tests.acceptance.line import Line, at_once, line
from tests.acceptance.proxy import Fault
from tests.acceptance.scripted import UA, URI, Refusal, Server, Subscription
from tests.integration.acquire_plant import until

BUSY = 150  # requests in a second, from one client with three tags: more is a loop
FOREVER = 0xFFFF_FFFF
PATIENT: dict[str, Any] = {"timeout": "5s"}


@pytest.fixture(autouse=True)
def no_orphans(caplog: pytest.LogCaptureFixture) -> Any:
    """No task of ours or of asyncua's ended with an error that nobody took."""
    yield
    assert not [record.message for record in caplog.records if record.name == "asyncio" and record.levelname == "ERROR"]


async def suffer(parts: Line, seconds: float = 1.5) -> None:
    """Numbers while the server lies, and the requests that it got counted."""
    before = parts.server.calls.total()
    loop = asyncio.get_running_loop()
    begin = loop.time()
    await parts.server.feed(int(seconds * 20), 0.05)
    assert parts.server.calls.total() - before < BUSY * (loop.time() - begin + 1), parts.server.calls


async def well_again(parts: Line) -> None:
    """All tags are monitored, and values come."""
    await until(parts.source.connected, 30)
    await parts.server.feed(5, 0.03)
    await parts.settled()
    parts.calm()


# --- numbers ---------------------------------------------------------------------------------------------------


def goes_back(_: Subscription, number: int) -> int:
    return number - 3 if number % 7 == 0 else number


def jumps(_: Subscription, number: int) -> int:
    return number + 50 * (number // 6)


def jumps_far(_: Subscription, number: int) -> int:
    return number + 100_000 * (number // 6)


def repeats(_: Subscription, number: int) -> int:
    return min(number, 5)


def zero(_: Subscription, number: int) -> int:
    return 0 if number > 5 else number


def counts_anew(_: Subscription, number: int) -> int:
    return number % 6 + 1


_DICE = random.Random(4711)


def at_random(_: Subscription, number: int) -> int:
    return number if number < 5 else _DICE.randrange(1 << 32)


async def test_lies_about_numbers_lose_no_value(tmp_path: Path) -> None:
    lies = (goes_back, jumps, jumps_far, repeats, zero, counts_anew, at_random)
    await at_once({lie.__name__: numbered(tmp_path / lie.__name__, lie) for lie in lies})


async def numbered(folder: Path, forge: Callable[[Subscription, int], int]) -> None:
    async with line(folder, **PATIENT) as parts:
        parts.server.forge = forge
        await suffer(parts)
        await parts.settled()
        parts.server.forge = Server(0).forge
        await well_again(parts)
    found = parts.balance()
    assert found.stored == found.written


# --- answers to Publish ----------------------------------------------------------------------------------------


async def spam(parts: Line, seconds: float, message: Callable[[int], tuple[int, bytes]]) -> None:
    """Answer every Publish request at once with (subscription, message); the server's own messages go on."""
    server, loop = parts.server, asyncio.get_running_loop()
    end = loop.time() + seconds
    while loop.time() < end:
        for session in list(server.sessions):
            while waiting := server.take(session):
                subscription = next(iter(server.subscriptions), 0)
                server.answer(waiting, *message(subscription), more=True)
        await asyncio.sleep(0)


def stranger(server: Server) -> Callable[[int], tuple[int, bytes]]:
    return lambda _: (4711, server.message(1, [data_change([(0, Datum(1e9, 1.0))], 1.0)]))


def keep_alive(server: Server) -> Callable[[int], tuple[int, bytes]]:
    return lambda subscription: (subscription, server.message(server.subscriptions[subscription].next, []))


def no_subscription(server: Server) -> Callable[[int], tuple[int, bytes]]:
    return lambda _: (0, server.message(0, []))


async def test_empty_answers_at_full_speed_are_no_busy_loop(tmp_path: Path) -> None:
    for flood in (stranger, keep_alive, no_subscription):
        await flooded(tmp_path / flood.__name__, flood)


async def flooded(folder: Path, flood: Callable[[Server], Callable[[int], tuple[int, bytes]]]) -> None:
    async with line(folder, **PATIENT) as parts:
        await parts.server.feed(5)
        await parts.settled()
        before = parts.server.calls["Publish"]
        await spam(parts, 1.5, flood(parts.server))
        assert parts.server.calls["Publish"] - before < BUSY * 1.5
        await well_again(parts)
    assert parts.balance().in_gaps == 0


def no_items(server: Server) -> list[tuple[int, bytes]]:
    return [data_change([], server.now())]


def null_items(_: Server) -> list[tuple[int, bytes]]:
    return [(811, struct.pack("<ii", -1, -1))]


def events(_: Server) -> list[tuple[int, bytes]]:
    return [(916, struct.pack("<i", 0))]


def unheard_of(_: Server) -> list[tuple[int, bytes]]:
    return [(4711, b"?")]


def no_body(_: Server) -> list[tuple[int, bytes]]:
    return [(811, b"")]


def cut_short(server: Server) -> list[tuple[int, bytes]]:
    kind, body = data_change([(0, Datum(1e9, 1.0))], server.now())
    return [(kind, body[:-15])]


def many_announced(_: Server) -> list[tuple[int, bytes]]:
    return [(811, struct.pack("<i", 0x7FFF_FFFF))]


def unknown_handles(server: Server) -> list[tuple[int, bytes]]:
    return [data_change([(FOREVER, Datum(1e9, 1.0)), (77, Datum(1e9, 1.0))], server.now())]


COUNTED = {no_body, cut_short, many_announced, unknown_handles}


async def test_odd_notifications_cost_only_themselves(tmp_path: Path) -> None:
    oddities = (no_items, null_items, events, unheard_of, no_body, cut_short, many_announced, unknown_handles)
    await at_once({odd.__name__: oddly_notified(tmp_path / odd.__name__, odd) for odd in oddities})


async def oddly_notified(folder: Path, odd: Callable[[Server], list[tuple[int, bytes]]]) -> None:
    async with line(folder, **PATIENT) as parts:
        server = parts.server
        await server.feed(5, 0.03)
        await parts.settled()
        for _ in range(5):
            (subscription,) = server.subscriptions.values()
            waiting = server.take(subscription.session)
            if waiting is not None:
                subscription.kept[subscription.next] = message = server.message(subscription.next, odd(server))
                subscription.next += 1
                server.answer(waiting, subscription.id, message)
            await asyncio.sleep(0.05)
            server.write()
        await well_again(parts)
        assert parts.diagnostics.total("reconnects_total") == 1
    assert parts.balance().in_gaps == 0
    assert (parts.diagnostics.total("decode_errors_total") > 0) == (odd in COUNTED)


async def test_values_of_a_subscription_that_is_not_ours_are_counted_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told, sent = "plant: values of subscription 4711, which is not ours, are left out", 0
    async with line(tmp_path, timeout="500ms") as parts:
        server = parts.server
        (subscription,) = server.subscriptions.values()

        def one_more() -> bool:
            nonlocal sent
            if waiting := server.take(subscription.session):
                sent += 1
                message = server.message(sent, [data_change([(0, Datum(1e9, 1.0))], server.now())])
                server.answer(waiting, 4711, message)
            return told in caplog.messages

        await until(one_more, 60)
        await well_again(parts)
        assert sent - 1 <= parts.diagnostics.value("foreign_messages_total", source="plant") <= sent
        assert server.calls["DeleteSubscriptions"] == 1
    assert caplog.messages.count(told) == 1
    assert 1e9 not in SampleBatch.concatenate(parts.historian.batches).value


async def test_a_flood_of_status_changes(tmp_path: Path) -> None:
    async with line(tmp_path, **PATIENT) as parts:
        server = parts.server

        async def flooding() -> None:
            while True:
                for subscription in list(server.subscriptions.values()):
                    if waiting := server.take(subscription.session):
                        ended = server.message(subscription.next, [status_change(int(ua.StatusCodes.BadTimeout))])
                        server.end(subscription)
                        server.answer(waiting, subscription.id, ended)
                await asyncio.sleep(0)

        task = asyncio.create_task(flooding())
        await suffer(parts, 3.0)
        task.cancel()
        await well_again(parts)
    parts.balance()
    assert {gap.cause for gap in parts.historian.gaps.values()} == {GapCause.SUBSCRIPTION_LOST}


# --- answers to other requests ---------------------------------------------------------------------------------


REVISED: tuple[dict[str, Any], ...] = (
    *({"RevisedPublishingInterval": value} for value in (0.0, math.nan, -1.0, math.inf, float(FOREVER))),
    {"RevisedMaxKeepAliveCount": 0},
    {"RevisedMaxKeepAliveCount": FOREVER, "RevisedLifetimeCount": FOREVER},
    {"RevisedLifetimeCount": 0},
    {"RevisedSamplingInterval": math.nan, "RevisedQueueSize": 0},
    {"RevisedSamplingInterval": -1.0, "RevisedQueueSize": FOREVER},
    {"SubscriptionId": FOREVER},
)


async def test_revised_values_that_make_no_sense(tmp_path: Path) -> None:
    await at_once({str(values): revised(tmp_path / str(place), values) for place, values in enumerate(REVISED)})


async def revised(folder: Path, values: dict[str, Any]) -> None:
    server = Server(3)
    server.revise = values
    known = "SubscriptionId" not in values
    async with line(folder, server=server, connected=known, **PATIENT) as parts:
        await suffer(parts, 2.0)
        if known:  # else nothing can come
            await parts.settled()
            assert parts.diagnostics.total("reconnects_total") == 1
        server.revise = {}
        await parts.proxy.outage(Fault.RESET, 0.1)
        await well_again(parts)
    if known:  # what was written before we had ever listened was not missed
        parts.balance()


def fewer(response: Any) -> None:
    response.Results.clear()


def more(response: Any) -> None:
    response.Results += response.Results


def nested_fewer(response: Any) -> None:
    response.Parameters.Results.clear()


async def test_more_or_fewer_results_than_asked(tmp_path: Path) -> None:
    cases = (
        ("CreateMonitoredItems", fewer), ("CreateMonitoredItems", more), ("Read", fewer), ("Read", more),
        ("SetPublishingMode", nested_fewer), ("TransferSubscriptions", nested_fewer),
    )  # fmt: skip
    await at_once({f"{name}, {how.__name__}": spoilt(tmp_path / name / how.__name__, name, how) for name, how in cases})


async def spoilt(folder: Path, name: str, spoil: Callable[[Any], None]) -> None:
    server = Server(3)
    honest: Any = getattr(server, f"_on_{name}")

    async def answer(request: Any, connection: Connection) -> Any:
        response = await honest(request, connection)
        spoil(response)
        return response

    server.answers[name] = answer
    async with line(folder, server=server, connected=name == "TransferSubscriptions", **PATIENT) as parts:
        await suffer(parts)
        server.sessions.clear()  # a new session, so that subscriptions are transferred
        await parts.proxy.outage(Fault.RESET, 0.1)
        await suffer(parts)
        parts.calm()
        assert parts.source.state is not State.RUNNING or name == "TransferSubscriptions"
        server.answers.clear()
        await well_again(parts)
        assert all(item.monitored for item in parts.source.items)


async def test_a_description_of_other_types(tmp_path: Path) -> None:
    values = (
        ua.Variant(5, ua.VariantType.Int32),
        ua.Variant(-1, ua.VariantType.Int32),
        ua.Variant("text", ua.VariantType.String),
        ua.Variant([1.0, 2.0], ua.VariantType.Double, is_array=True),
        ua.Variant(),
        ua.Variant([None, None, URI], ua.VariantType.String, is_array=True),
    )
    await at_once({str(value): described(tmp_path / str(place), value) for place, value in enumerate(values)})


async def described(folder: Path, value: ua.Variant) -> None:
    server = Server(3)

    async def other(request: Any, _connection: Connection) -> Any:
        server.session_of(request)
        response = ua.ReadResponse()
        response.Results = [ua.DataValue(value) for _ in request.Parameters.NodesToRead]
        return response

    server.answers["Read"] = other
    async with line(folder, server=server, connected=False, **PATIENT) as parts:
        await suffer(parts, 1.0)
        parts.calm()
        server.answers.clear()
        await parts.proxy.outage(Fault.RESET, 0.1)
        await until(lambda: all(item.monitored for item in parts.source.items), 30)
        await well_again(parts)


async def test_a_service_that_is_refused_for_ever_is_asked_for_less_often(tmp_path: Path) -> None:
    names = ("Publish", "CreateSubscription", "CreateMonitoredItems", "Read", "ActivateSession")
    await at_once({name: refused(tmp_path / name, name) for name in names})


async def refused(folder: Path, name: str) -> None:
    server = Server(3)
    codes = itertools.cycle(
        (ua.StatusCodes.BadInternalError, ua.StatusCodes.BadOutOfMemory, ua.StatusCodes.BadServiceUnsupported)
    )

    async def refuse(_request: Any, _connection: Connection) -> Any:
        raise Refusal(int(next(codes)))

    server.answers[name] = refuse
    async with line(folder, server=server, connected=False, reconnect_max="5s", **PATIENT) as parts:
        await suffer(parts, 3.0)
        parts.calm()
        assert parts.proxy.accepted < 12
        server.answers.clear()
        await well_again(parts)


async def test_many_namespaces_and_namespaces_that_move(tmp_path: Path) -> None:
    server = Server(3, namespaces=[UA, *(f"urn:other:{number}" for number in range(20_000)), URI])
    async with line(tmp_path, server=server) as parts:
        await server.feed(10)
        await parts.settled()
        await server.stop()
        server.namespaces = [UA, URI, "urn:other:1"]
        await server.start()
        await until(lambda: parts.diagnostics.total("reconnects_total") == 2)
        await well_again(parts)
    parts.balance()


async def test_a_clock_out_of_this_world(tmp_path: Path) -> None:
    await at_once({str(year): at_the_end_of_time(tmp_path / str(year), year) for year in (1601, 1970, 9999)})


async def at_the_end_of_time(folder: Path, year: int) -> None:
    seconds = {1601: -11_644_473_599.0, 1970: 1.0, 9999: 253_402_300_000.0}[year]
    server = Server(3)
    server.ahead, server.access_level = seconds - server.now(), 5
    async with line(folder, server=server, history={"back": "30d", "settle": "0s"}, **PATIENT) as parts:
        await server.feed(10)
        await parts.settled()
        await parts.proxy.strike(Fault.RESET)
        server.drop_sessions()
        await server.feed(5)
        await parts.proxy.mend()
        await until(lambda: parts.diagnostics.total("reconnects_total") == 2)
        await well_again(parts)
    if year == 1970:
        parts.balance()
    else:  # the ends of time say that there is no clock
        assert {gap.cause for gap in parts.historian.gaps.values()} == {GapCause.SUBSCRIPTION_LOST}


# --- the wire --------------------------------------------------------------------------------------------------


async def unasked(parts: Line) -> None:
    for connection in parts.server.connections:
        connection.send(99_999, parts.server.header(1))


async def twice(parts: Line) -> None:
    (subscription,) = parts.server.subscriptions.values()
    if waiting := parts.server.take(subscription.session):
        for _ in range(2):
            parts.server.answer(waiting, subscription.id, parts.server.message(subscription.next, []))


async def half_a_chunk(parts: Line) -> None:
    for connection in parts.server.connections:
        connection.write(b"MSGF" + struct.pack("<I", 5000) + b"x" * 100)
        await asyncio.sleep(0.05)
        connection.abort()


async def garbage(parts: Line) -> None:
    for connection in parts.server.connections:
        connection.write(_DICE.randbytes(500))


async def wrong_type(parts: Line) -> None:
    (subscription,) = parts.server.subscriptions.values()
    if waiting := parts.server.take(subscription.session):
        waiting.connection.send(waiting.request, b"\x01\0\x01\0" + parts.server.header(waiting.handle))


async def an_error(parts: Line) -> None:
    for connection in parts.server.connections:
        connection.write(b"ERRF" + struct.pack("<III", 16, int(ua.StatusCodes.BadTcpInternalError), FOREVER))


async def test_a_broken_stream_is_a_new_connection(tmp_path: Path) -> None:
    acts = (unasked, twice, half_a_chunk, garbage, wrong_type, an_error)
    await at_once({act.__name__: broken(tmp_path / act.__name__, act) for act in acts})


async def broken(folder: Path, act: Callable[[Line], Awaitable[None]]) -> None:
    async with line(folder) as parts:
        for _ in range(4):
            await until(parts.source.connected)
            await parts.server.feed(3, 0.05)
            await act(parts)
            await parts.server.feed(3, 0.05)
        await well_again(parts)
    assert parts.balance().in_gaps == 0
    assert not parts.historian.gaps


async def test_a_stream_that_comes_byte_by_byte(tmp_path: Path) -> None:
    async with line(tmp_path, timeout="5s", connected=False) as parts:
        parts.proxy.piece = 1
        await until(parts.source.connected)
        await parts.server.feed(10, 0.05)
        await well_again(parts)
        assert parts.diagnostics.total("reconnects_total") == 1
    assert parts.balance().in_gaps == 0


@pytest.mark.parametrize("kind", ["one chunk", "many chunks"])
async def test_a_message_without_end_is_not_collected(tmp_path: Path, kind: str) -> None:
    async with line(tmp_path, timeout="60s") as parts:
        await parts.server.feed(3)
        await parts.settled()
        (connection,) = parts.server.connections
        for subscription in parts.server.subscriptions.values():
            subscription.enabled, subscription.keep_alive = False, 1_000_000  # its messages would come between
        if kind == "one chunk":
            connection.write(b"MSGF" + struct.pack("<I", 0x7FFF_FFFF))
        for _ in range({"one chunk": 16 << 4, "many chunks": 80 << 4}[kind]):
            if kind == "one chunk":
                connection.write(bytes(1 << 16))
            else:
                connection.chunk(b"C", 1, bytes(1 << 15))
                connection.chunk(b"C", 1, bytes(1 << 15))
            await asyncio.sleep(0)
        await until(lambda: connection not in parts.server.connections)  # hung up on
        for subscription in parts.server.subscriptions.values():
            subscription.enabled, subscription.keep_alive = True, 6
        await well_again(parts)
    assert parts.balance().in_gaps == 0


# --- history ---------------------------------------------------------------------------------------------------


def endless_nothing(point: int) -> tuple[bytes, bytes]:
    return point.to_bytes(4, "big"), b""


def endless_the_same(point: int) -> tuple[bytes, bytes]:
    value = struct.pack("<BBdq", 0x05, 11, 1.0, 130_000_000_000_000_000)
    return point.to_bytes(4, "big"), value


def one_point_for_ever(_: int) -> tuple[bytes, bytes]:
    return b"here", b""


async def test_history_that_never_ends(tmp_path: Path) -> None:
    pages = (endless_nothing, endless_the_same, one_point_for_ever)
    await at_once({page.__name__: endless(tmp_path / page.__name__, page) for page in pages})


async def endless(folder: Path, page: Callable[[int], tuple[bytes, bytes]]) -> None:
    server = Server(3)
    server.access_level = 5
    points = itertools.count(1)

    async def read(request: Any, _connection: Connection) -> Any:
        response = ua.HistoryReadResponse()
        if request.Parameters.ReleaseContinuationPoints:
            return response
        for _ in request.Parameters.NodesToRead:
            point, value = page(next(points))
            body = struct.pack("<i", bool(value)) + value
            data = ua.ExtensionObject(ua.FourByteNodeId(ua.Int32(658)), ua.ByteString(body))
            result = ua.HistoryReadResult(ua.StatusCode(ua.UInt32(0)), ua.ByteString(point), data)
            response.Results.append(result)
        return response

    server.answers["HistoryRead"] = read
    history = {"back": "all", "settle": "0s"}
    async with line(folder, server=server, history=history, **PATIENT) as parts:
        await server.feed(5)
        await until(lambda: parts.source.history_progress().finished, 30)
        assert server.calls["HistoryRead"] < 1500
        await well_again(parts)


def no_results(_: Any) -> list[ua.HistoryReadResult] | None:
    return []


def broken_pages(request: Any) -> list[ua.HistoryReadResult] | None:
    many = ua.ExtensionObject(ua.FourByteNodeId(ua.Int32(658)), ua.ByteString(struct.pack("<i", 1_000_000)))
    result = ua.HistoryReadResult(ua.StatusCode(ua.UInt32(0)), ua.ByteString(b""), many)
    return [result] * len(request.Parameters.NodesToRead)


def no_answer(_: Any) -> list[ua.HistoryReadResult] | None:
    return None


async def test_history_that_can_not_be_read_costs_no_connection(tmp_path: Path) -> None:
    answers = (no_results, broken_pages, no_answer)
    await at_once({each.__name__: unreadable(tmp_path / each.__name__, each) for each in answers})


async def unreadable(folder: Path, results: Callable[[Any], list[ua.HistoryReadResult] | None]) -> None:
    server = Server(3)
    server.access_level = 5

    async def read(request: Any, _connection: Connection) -> Any:
        response, found = ua.HistoryReadResponse(), results(request)
        response.Results = found or []
        return None if found is None else response

    server.answers["HistoryRead"] = read
    history = {"back": "all", "settle": "0s", "tags": 2, "page": 100}
    async with line(folder, server=server, history=history, timeout="700ms") as parts:
        await until(lambda: parts.source.history_progress().finished, 60)
        assert parts.proxy.accepted == 1
        await well_again(parts)
