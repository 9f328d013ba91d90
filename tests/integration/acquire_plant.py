"""A small plant for the tests of acquisition: an asyncua server with numbered writes, and a wire that can be cut."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from asyncua import Server, ua
from asyncua.server.history import HistoryDict

from plugin.acquire.config import SourceConfig
from plugin.acquire.source import OpcUaSource
from plugin.diagnostics import Diagnostics
from plugin.domain import Gap, GapState, Micros, SampleBatch, Tag
from plugin.protocols import Delivery

URI = "urn:test:plant"
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


async def until(condition: Callable[[], Any], seconds: float = 20.0) -> None:
    """Wait for something to become true; a bound on the test, not an assertion on time."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


class Plant:
    """A server with Double tags ``t0`` … whose values count up, a source time of its own for each."""

    def __init__(self, tags: int, port: int = 0, history: bool = False) -> None:
        self.tags = tags
        self.port = port
        self.written: list[int] = []
        self.server = Server()
        self._history = history
        self.nodes: list[Any] = []
        self.index = 0

    async def start(self, missing: int = 0) -> None:
        server = self.server
        await server.init()
        server.set_endpoint(f"opc.tcp://127.0.0.1:{self.port}/plant")
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        self.index = await server.register_namespace(URI)
        await self.add(*range(missing, self.tags))
        await server.start()
        binary: Any = server.bserver
        self.port = binary._server.sockets[0].getsockname()[1]

    def node_id(self, number: int) -> ua.NodeId:
        return ua.NodeId(ua.String(f"t{number}"), ua.Int16(self.index))

    async def add(self, *numbers: int) -> None:
        for number in numbers:
            node = await self.server.nodes.objects.add_variable(
                self.node_id(number), f"t{number}", 0.0, ua.VariantType.Double
            )
            if self._history:
                bits = {ua.AccessLevel.CurrentRead, ua.AccessLevel.HistoryRead}
                await node.write_attribute(
                    ua.AttributeIds.AccessLevel,
                    ua.DataValue(ua.Variant(sum(1 << bit for bit in bits), ua.VariantType.Byte)),
                )
                storage = self.server.iserver.history_manager.storage
                assert isinstance(storage, HistoryDict)
                await storage.new_historized_node(node.nodeid, None, 0)
            self.nodes.append(node)
            await self._set(node, _value(0.0, EPOCH))  # asyncua dates it to now, later than all that is written

    async def write(self, number: int, status: int = 0) -> None:
        """Write the number to all tags, with the number as seconds of source time."""
        self.written.append(number)
        for node in self.nodes:
            await self.put(node, float(number), EPOCH + timedelta(seconds=number), status)

    async def put(self, node: Any, value: Any, time: datetime, status: int = 0) -> None:
        data = _value(value, time, status)
        await self._set(node, data)
        if self._history:
            await self.server.iserver.history_manager.storage.save_node_value(node.nodeid, data)

    async def _set(self, node: Any, data: ua.DataValue) -> None:
        await self.server.iserver.aspace.write_attribute_value(node.nodeid, ua.AttributeIds.Value, data)

    async def stop(self) -> None:
        await self.server.stop()


def _value(value: float, time: datetime, status: int = 0) -> ua.DataValue:
    variant = ua.Variant(value, ua.VariantType.Double)
    return ua.DataValue(variant, ua.StatusCode(ua.UInt32(status)), _time(time), _time(datetime.now(UTC)))


def _time(time: datetime) -> ua.DateTime:
    return ua.DateTime(time.year, time.month, time.day, time.hour, time.minute, time.second, time.microsecond, UTC)


class Wire:
    """A TCP proxy that can cut, and swallow what passes."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._swallow = False
        self._open = True
        self.port = 0
        self.delay = 0.0
        """Each way takes so much longer [s]."""

    async def __aenter__(self) -> "Wire":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await asyncio.sleep(0.05)

    def cut(self) -> None:
        """Reset all connections; refuse new ones until :meth:`mend`."""
        self._open = False
        for writer in self._writers:
            writer.transport.abort()

    def swallow(self) -> None:
        """Half open: connections stay, nothing passes; new ones hang."""
        self._swallow = True

    def mend(self) -> None:
        if self._swallow:
            self.cut()
        self._open, self._swallow = True, False

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._open:
            writer.transport.abort()
            return
        self._writers.add(writer)
        try:
            there_reader, there = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers.add(there)
        await asyncio.gather(self._pass(reader, there), self._pass(there_reader, writer))
        self._writers -= {writer, there}

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if self.delay:
                    await asyncio.sleep(self.delay)
                if not self._swallow:
                    writer.write(data)
                    await writer.drain()
        writer.transport.abort()


class Historian:
    """A consumer that keeps what it is given, as a store would; and may be slow."""

    def __init__(self) -> None:
        self.batches: list[SampleBatch] = []
        self.gaps: dict[str, Gap] = {}
        self.checkpoints: dict[str, str] = {}
        self.deliveries = 0
        self.pause = 0.0
        self.confirming = True

    def take(self, delivery: Delivery) -> None:
        self.deliveries += 1
        if len(delivery.samples):
            self.batches.append(delivery.samples)
        self.gaps.update({gap.id: gap for gap in delivery.gaps})
        self.checkpoints.update(delivery.checkpoint)
        if self.confirming:
            delivery.confirm()

    def numbers(self, tag: int) -> list[int]:
        """Written values of a tag in order of arrival; the initial value is none."""
        samples = SampleBatch.concatenate(self.batches)
        mine = samples.take((samples.tag == tag) & (samples.value > 0))
        return [int(value) for value in mine.value]

    def stored(self, tag: int) -> list[int]:
        """The same as a store keeps them: what comes twice is kept once, ordered by source time."""
        return sorted(set(self.numbers(tag)))

    def known(self) -> dict[int, Micros]:
        samples = SampleBatch.concatenate(self.batches)
        return {int(tag): int(samples.source_time[samples.tag == tag].max()) for tag in set(samples.tag.tolist())}


def tags(count: int) -> list[Tag]:
    return [Tag(f"t{number}", "plant", f"nsu={URI};s=t{number}", id=number + 1) for number in range(count)]


def config(port: int, **more: Any) -> SourceConfig:
    quick: dict[str, Any] = {
        "name": "plant", "endpoint": f"opc.tcp://127.0.0.1:{port}/plant", "security_policy": "None",
        "publishing_interval": "50ms", "sampling_interval": "50ms", "keep_alive": "300ms", "timeout": "1s",
        "reconnect_max": "300ms", "history": {"enabled": False},
    }  # fmt: skip
    return SourceConfig(**{**quick, **more})


@contextlib.asynccontextmanager
async def running(source: OpcUaSource, historian: Historian) -> AsyncIterator[OpcUaSource]:
    """The source with its consumer, until the context ends."""

    async def consume() -> None:
        async with contextlib.aclosing(source.deliveries()) as deliveries:  # type: ignore[type-var]
            async for delivery in deliveries:
                historian.take(delivery)
                if historian.pause:
                    await asyncio.sleep(historian.pause)

    task = asyncio.create_task(consume())
    try:
        yield source
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def make(
    port: int, count: int | list[Tag], folder: Path, historian: Historian | None = None, **more: Any
) -> OpcUaSource:
    """A source of ``count`` tags; with a historian's memory, and the kept session, where one is given."""
    known = historian.known() if historian and historian.batches else {}
    marks = historian.checkpoints if historian else {}
    own = tags(count) if isinstance(count, int) else count
    sessions = folder / "sessions" if historian else None
    gaps = [gap for gap in historian.gaps.values() if gap.state is GapState.OPEN] if historian else []
    settings, diagnostics = config(port, **more), Diagnostics()
    return OpcUaSource(
        settings, own, diagnostics, folder / "pki", known, marks, session_folder=sessions, open_gaps=gaps
    )
