"""What comes over a connection to our OPC UA server, before anybody looks at it."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from asyncua.common.connection import TransportLimits

from plugin.publish.asyncua_sockets import PlantProtocol

_CHUNK = b"MSGF" + (30).to_bytes(4, "little") + bytes(range(22))


class _Line(asyncio.Transport):
    """Tells whether it is read from."""

    reading = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return False


def _protocol(line: _Line | None = None) -> PlantProtocol:
    server: Any = SimpleNamespace(max_pending_messages_per_connection=500, cut_off=pytest.fail)
    protocol = PlantProtocol(server, [], [], [], TransportLimits(65535, 65535, 65, 4_000_000))
    protocol.transport = line
    return protocol


def _kept(protocol: PlantProtocol) -> list[bytes]:
    return [protocol.messages.get_nowait()[1]._data for _ in range(protocol.messages.qsize())]


def test_a_chunk_is_kept_without_what_came_with_it():
    """Of 256 KiB of small chunks that came at once, 100 MB were kept."""
    protocol = _protocol()
    protocol.data_received(_CHUNK * 400)
    assert _kept(protocol) == [_CHUNK] * 400


@pytest.mark.parametrize("size", [1, 7, 29, 31, 65])
def test_chunks_are_whole_wherever_they_were_cut_on_their_way(size):
    protocol, sent = _protocol(), _CHUNK * 10
    for start in range(0, len(sent), size):
        protocol.data_received(sent[start : start + size])
    assert _kept(protocol) == [_CHUNK] * 10


async def test_who_sends_faster_than_it_is_answered_waits():
    line = _Line()
    protocol = _protocol(line)
    protocol.data_received(_CHUNK * 40)
    reading = [line.reading]
    while protocol.messages.qsize():
        await protocol._process_one_msg(*protocol.messages.get_nowait())
        reading.append(line.reading)
    assert reading == [False] * 25 + [True] * 16
