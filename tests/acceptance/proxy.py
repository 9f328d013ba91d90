"""A TCP proxy between our client and a server: it cuts, swallows, delays, chops and drops as it is told."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable, Iterator
from enum import Enum

from asyncua import ua

_RESET = struct.pack("ii", 1, 0)  # linger for no time: close() resets
_PUBLISH_RESPONSE = b"\x01\0" + struct.pack("<H", ua.ObjectIds.PublishResponse_Encoding_DefaultBinary)


class Fault(Enum):
    """How a connection is lost."""

    RESET = "reset"
    """Connections are reset; new ones are accepted and reset."""
    REFUSED = "refused"
    """Connections are reset; the port is closed."""
    HOLE = "hole"
    """Half open: connections stay, nothing passes."""
    HOLE_DOWN = "hole-down"
    """The server hears us, we don't hear it."""


class Proxy:
    """An async context manager. ``drop``: True for a Publish answer (its body) that is to get lost on its way."""

    def __init__(self, target: int, drop: Callable[[bytes], bool] | None = None) -> None:
        self.target = target
        self.port = 0
        self.delay = 0.0
        """One way [s]."""
        self.piece = 0
        """Bytes that are sent at a time to the client; 0: as they come."""
        self.drop = drop
        self.dropped = 0
        self.accepted = 0
        self._fault: Fault | None = None
        self._server: asyncio.Server | None = None
        self._sockets: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Proxy":
        await self._listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._close()
        self._reset()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def strike(self, fault: Fault) -> None:
        """From now on until :meth:`mend`."""
        self._fault = fault
        if fault is Fault.REFUSED:
            self._close()
        if fault in {Fault.RESET, Fault.REFUSED}:
            self._reset()
        await asyncio.sleep(0)

    async def mend(self) -> None:
        """Connections that lost bytes are reset: no network gives back what it swallowed."""
        if self._fault in {Fault.HOLE, Fault.HOLE_DOWN}:
            self._reset()
        if self._fault is Fault.REFUSED:
            await self._listen()
        self._fault = None

    async def outage(self, fault: Fault, seconds: float) -> None:
        await self.strike(fault)
        await asyncio.sleep(seconds)
        await self.mend()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def _reset(self) -> None:
        for writer in list(self._sockets):
            found = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._sockets.add(writer)
        there: asyncio.StreamWriter | None = None
        try:
            if self._fault is Fault.RESET:
                self._reset()
                return
            there_reader, there = await asyncio.open_connection("127.0.0.1", self.target)
            self._sockets.add(there)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._up(reader, there))
                group.create_task(self._down(there_reader, writer))
        except* (OSError, asyncio.IncompleteReadError, _Ended):
            pass
        finally:
            self._tasks.discard(task)
            for each in (writer, there):
                if each is not None:
                    self._sockets.discard(each)
                    each.transport.abort()

    async def _up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.TaskGroup() as group:
            late = _Late(writer, group)
            while data := await reader.read(65536):
                if self._fault is not Fault.HOLE:
                    late.write(data, self.delay, 0)
            raise _Ended

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.TaskGroup() as group:
            late, filtered = _Late(writer, group), _Filter(self)
            while data := await reader.read(65536):
                if self._fault not in {Fault.HOLE, Fault.HOLE_DOWN}:
                    for part in filtered.pass_on(data):
                        late.write(part, self.delay, self.piece)
            raise _Ended


class _Ended(Exception):
    """One side has closed."""


class _Late:
    """Writes in order, after a delay."""

    def __init__(self, writer: asyncio.StreamWriter, group: asyncio.TaskGroup) -> None:
        self._writer = writer
        self._queue: asyncio.Queue[tuple[float, bytes, int]] = asyncio.Queue()
        group.create_task(self._run())

    def write(self, data: bytes, delay: float, piece: int) -> None:
        self._queue.put_nowait((asyncio.get_running_loop().time() + delay, data, piece))

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        self._writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            due, data, piece = await self._queue.get()
            if due > loop.time():
                await asyncio.sleep(due - loop.time())
            for at in range(0, len(data), piece or len(data)):
                self._writer.write(data[at : at + (piece or len(data))])
                await self._writer.drain()
                if piece:
                    await asyncio.sleep(0)


class _Filter:
    """Takes Publish answers out of an unsecured stream; the chunks behind them are numbered anew, so it has no seam."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._rest = b""
        self._fewer = 0

    def pass_on(self, data: bytes) -> Iterator[bytes]:
        drop = self._proxy.drop
        if drop is None:
            yield data
            return
        self._rest += data
        while len(self._rest) >= 8 and len(self._rest) >= (size := int.from_bytes(self._rest[4:8], "little")):
            chunk, self._rest = self._rest[:size], self._rest[size:]
            if chunk[:4] == b"MSGF":
                body = chunk[24:]
                if body.startswith(_PUBLISH_RESPONSE) and drop(body):
                    self._proxy.dropped += 1
                    self._fewer += 1
                    continue
                number = int.from_bytes(chunk[16:20], "little") - self._fewer
                chunk = chunk[:16] + number.to_bytes(4, "little") + chunk[20:]
            yield chunk


def message_number(body: bytes) -> int:
    """The number of the message in a Publish answer; 0 for a keep-alive."""
    position = 4 + 24  # type, response header
    (known,) = struct.unpack_from("<i", body, position + 4)
    number, _, notifications = struct.unpack_from("<Iqi", body, position + 8 + 4 * known + 1)
    return int(number) if notifications > 0 else 0
