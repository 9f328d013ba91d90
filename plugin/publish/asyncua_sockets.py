"""The listening socket of our OPC UA server, and what comes over a connection before it is a message.

What differs from asyncua 2.1.0 is told in :mod:`plugin.publish.asyncua_server`. Private names of asyncua are used:
``tests/contracts`` fails when one of them changes.
"""

import asyncio
import contextlib
from collections import Counter
from typing import Any

from asyncua.common.utils import Buffer
from asyncua.server.binary_server_asyncio import BinaryServer, OPCUAProtocol

from plugin.publish.asyncua_connection import CHUNK_BYTES, PlantProcessor
from plugin.publish.asyncua_inner import PlantInternalServer

_KINDS = frozenset((b"HEL", b"OPN", b"MSG", b"CLO", b"ERR", b"ACK"))
_STOP_SECONDS = 2.0
_ENOUGH = 16
"""Chunks of one connection that wait for their turn, about: it is not read from meanwhile."""


class PlantProtocol(OPCUAProtocol):
    """One connection."""

    iserver: PlantInternalServer

    _arrived = b""
    """The beginning of a chunk."""

    def data_received(self, data: bytes) -> None:
        """As asyncua's, chunk by chunk: of some bytes that came at once it keeps all for each chunk among them. One
        that announces no chunk, or one that is too large, is closed before it is kept."""
        arrived, start = self._arrived + data, 0
        while self.transport is None or not self.transport.is_closing():
            head = arrived[start : start + 8]
            end = start + int.from_bytes(head[4:], "little")
            if not self._is_chunk(head):
                self._cut_off()
                return
            if len(head) < 8 or end > len(arrived):
                break
            super().data_received(arrived[start:end])
            if self._buffer:  # asyncua could do nothing with it
                self._cut_off()
                return
            start = end
        self._arrived = arrived[start:]
        if self.messages.qsize() >= _ENOUGH and self.transport is not None:
            self.transport.pause_reading()

    async def _process_one_msg(self, header: Any, buf: Buffer) -> bool:
        """As asyncua's; what waits outside comes in when there is room for it."""
        try:
            return await super()._process_one_msg(header, buf)
        finally:
            if self.messages.qsize() < _ENOUGH and self.transport is not None:
                self.transport.resume_reading()

    @property
    def in_use(self) -> bool:
        """A user stands behind it."""
        return isinstance(self.processor, PlantProcessor) and self.processor.in_use

    def _is_chunk(self, head: bytes) -> bool:
        fits = len(head) < 8 or len(head) <= int.from_bytes(head[4:8], "little") <= CHUNK_BYTES
        return fits and (len(head) < 4 or (head[:3] in _KINDS and head[3:4] in b"FCA"))

    def _cut_off(self, cause: str = "protocol") -> None:
        self._buffer = self._arrived = b""
        self.iserver.cut_off(cause)
        if self.transport is not None:
            self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As asyncua's, with our processor; where all are taken, the oldest that nobody uses makes room, of the address
        that has most of them."""
        address = _address(transport.get_extra_info("peername"))
        if isinstance(transport, asyncio.WriteTransport) and not self.iserver.reception.lets_in(address):
            self.iserver.cut_off("rate")
            transport.abort()
            return
        if len(self.clients) >= self.iserver.max_connections:
            self._make_room()
        super().connection_made(transport)
        if self.processor is not None:
            self.processor = PlantProcessor(self.iserver, self.transport, self.limits)
            self.processor.neighbours = self.clients
            self.processor.set_policies(self.policies)  # type: ignore[no-untyped-call]

    def _make_room(self) -> None:
        idle = [each for each in self.clients if isinstance(each, PlantProtocol) and not each.in_use]
        crowd = Counter(_address(each.peer_name) for each in idle)
        if idle:
            oldest = max(idle, key=lambda each: crowd[_address(each.peer_name)])
            self.clients.remove(oldest)
            oldest._cut_off("full")


def _address(peer: Any) -> str:
    return str(peer[0]) if peer else ""


class PlantBinaryServer(BinaryServer):
    """The listening socket."""

    def _make_protocol(self) -> PlantProtocol:
        return PlantProtocol(self.iserver, self._policies, self.clients, self.closing_tasks, self.limits)

    async def stop(self) -> None:
        """As asyncua's, and the connections that close meanwhile are awaited too."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_SECONDS):
                await super().stop()
        await asyncio.sleep(0)
        await self._close_tasks()
