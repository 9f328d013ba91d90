"""Bytes that a server should not send, thrown at all that reads answers: ``make fuzz SECONDS=60``.

Allowed is :class:`Malformed`, or rows; a Bad result of the service; and nothing else. Coverage guides the bytes where
atheris is installed; else real messages are mutated, the same for the same seed.
"""

import argparse
import asyncio
import contextlib
import importlib
import random
import struct
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import struct_to_binary

from plugin.acquire.contents import Field, Structure, StructureKind
from plugin.acquire.decoding import Memory, decode_items, decode_values
from plugin.acquire.measuring import Malformed
from plugin.acquire.portions import Portions
from plugin.acquire.reading import Key
from plugin.acquire.wire import history_read, publish, read, republish, status_change
from plugin.domain import Tag, from_micros

_SLOW = 2.0  # [s] for one message; the longest have 64 KiB
_LONGEST = 65_536

_INNER = Structure("Inner", StructureKind.OPTIONAL, (Field("a", 11), Field("b", 12, optional=True)))
_LOOP = Structure("Loop")
_LOOP.fields = (Field("next", _LOOP, rank=1), Field("nothing", Structure("Nothing"), rank=1), Field("any", 24, rank=1))
_STRUCTURES: dict[Key, Structure] = {
    (2, 1): Structure("Outer", fields=(Field("inner", _INNER, rank=1), Field("matrix", 11, rank=2), Field("x", 22))),
    (2, 2): Structure("Choice", StructureKind.UNION, (Field("number", 8), Field("inner", _INNER))),
    (2, 3): _LOOP,
}
_ELEMENTS = ("", "[1]", "[0,1]", ".inner[0].b", ".number", ".next[0].next")


class Answer:
    """What asyncua's session gives to whoever asks: these bytes."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def _send_request(self, *_: object) -> Buffer:
        return Buffer(self._body)


def items(body: bytes, memory: Memory) -> None:
    """A DataChangeNotification: decoded, spread to tags, read; twice, by what is remembered too."""
    tags = [Tag(f"t{number}", "plant", "i=1", element=element) for number, element in enumerate(_ELEMENTS)]
    portions = Portions()
    portions.admit(tags)
    portions.share(0, range(len(tags)))
    plain = portions.take(decode_items(body, 1), _STRUCTURES.get)
    again = portions.take(decode_items(body, 1, memory=memory), _STRUCTURES.get)
    assert len(plain) == len(again)
    np.testing.assert_array_equal(plain.value, again.value)
    for time_ in (*plain.source_time.tolist(), *plain.server_time.tolist()):
        from_micros(time_)  # all times are such that a person can be told of


def answers(body: bytes) -> None:
    """Answers of the services."""
    session: Any = Answer(body)
    node: Any = ua.NodeId()
    start = from_micros(0)
    asked: list[Coroutine[Any, Any, Any]] = [
        publish(session, []), republish(session, 1, 1), history_read(session, [(node, b"")], start, start, 1),
        read(session, [(node, 13)]),
    ]  # fmt: skip
    for one in asked:
        allowed(lambda one=one: asyncio.run(one))  # type: ignore[misc]
    allowed(lambda: decode_values(body, 1))
    allowed(lambda: status_change(body))


def allowed(look: Callable[[], object]) -> None:
    """Run; whatever else it raises is a find."""
    with contextlib.suppress(Malformed, ua.UaStatusCodeError):
        look()


def throw(body: bytes, memory: Memory) -> None:
    """All targets, at one message."""
    begin = time.process_time()
    allowed(lambda: items(body, memory))
    answers(body)
    took = time.process_time() - begin
    assert took < _SLOW, f"{took:.1f} s for {len(body)} bytes"


# --- without guidance ---


def corpus() -> list[bytes]:
    """Messages of all kinds, as a server sends them."""
    kinds = ua.VariantType
    now = from_micros(1_700_000_000_000_000)
    dimensions: Any = [2, 2]
    said: list[Any] = [
        ua.Variant(1.5, kinds.Double), ua.Variant(2**60, kinds.Int64), ua.Variant("text", kinds.String),
        ua.Variant([1.0, 2.0], kinds.Double), ua.Variant([[1, 2], [3, 4]], kinds.Int32, Dimensions=dimensions),
        ua.Variant(ua.LocalizedText("a", "en"), kinds.LocalizedText), ua.Variant(now, kinds.DateTime),
        ua.Variant([ua.Variant(1, kinds.Int16), ua.Variant("x", kinds.String)], kinds.Variant),
        ua.Variant(ua.Range(0.0, 1.0), kinds.ExtensionObject), ua.Variant(),
        *(_structure(number, body) for number, body in enumerate(_BODIES, start=1)),
    ]  # fmt: skip
    values = [ua.DataValue(one, SourceTimestamp=now, ServerTimestamp=now) for one in said]  # type: ignore[arg-type]
    notification = ua.DataChangeNotification([_item(n, value) for n, value in enumerate(values * 3)], [])
    message = ua.NotificationMessage(NotificationData=[notification])
    published = ua.PublishResponse()
    published.Parameters.NotificationMessage = message
    history = ua.HistoryReadResponse()
    history.Results = [ua.HistoryReadResult(HistoryData=ua.HistoryData(values))]
    answer = ua.ReadResponse()
    answer.Results = values[:1]
    parts = [struct_to_binary(part) for part in (notification, published, history, answer)]
    nested = struct.pack("<iIB", 1, 0, 1) + b"\x98\1\0\0\0" * 200
    return [bytes(part) for part in (*parts, nested, struct.pack("<iIBBi", 1, 0, 1, 0x80, 2**31 - 1))]


def _item(handle: int, value: ua.DataValue) -> ua.MonitoredItemNotification:
    return ua.MonitoredItemNotification(ua.UInt32(handle % 8), value)


_INNER_BODY = struct.pack("<Idi", 1, 2.5, 1) + b"b"
_BODIES = (
    struct.pack("<i", 1) + _INNER_BODY + struct.pack("<iii", 2, 1, 1) + struct.pack("<d", 1.0) + b"\0\0\0",
    struct.pack("<I", 2) + _INNER_BODY,
    struct.pack("<ii", 1, 0) * 3 + struct.pack("<i", 0) * 3,
)


def _structure(number: int, body: bytes) -> ua.Variant:
    kind = ua.NodeId(ua.Int32(number), ua.Int16(2))
    return ua.Variant(ua.ExtensionObject(kind, ua.ByteString(body)), ua.VariantType.ExtensionObject)


_EDGES = [struct.pack("<i", n) for n in (-1, 0, 1, 2**31 - 1, -(2**31), 65_536)] + [b"\x80", b"\xff", b"\x18\x18\x18"]


def mutated(chance: random.Random, seeds: list[bytes]) -> bytes:
    """A message with a few faults."""
    body = bytearray(chance.choice(seeds))
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(body) + 1)
        act = chance.randrange(5)
        if act == 0 and at < len(body):
            body[at] = chance.randrange(256)
        elif act == 1:
            body[at : at + 4] = chance.choice(_EDGES)
        elif act == 2:
            del body[at:]
        elif act == 3:
            other = chance.choice(seeds)
            body[at:at] = other[chance.randrange(len(other)) :][: chance.randrange(200)]
        else:
            body[at:at] = bytes(body[at : at + 20]) * chance.randint(1, 200)
    return bytes(body[:_LONGEST])


def mutate(seed: int, seconds: float, most: int = sys.maxsize) -> int:
    """Throw mutated messages for so long, or so many of them; returns how many."""
    chance, seeds, memory = random.Random(seed), corpus(), Memory()
    end, thrown = time.monotonic() + seconds, 0
    while thrown < most and time.monotonic() < end:
        body = mutated(chance, seeds)
        try:
            throw(body, memory)
        except BaseException:
            print(f"seed {seed}, message {thrown}: {body.hex()}", file=sys.stderr)
            raise
        thrown += 1
    return thrown


def main() -> None:
    """For a time, by atheris where it is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=None)
    asked = parser.parse_args()
    try:
        atheris: Any = importlib.import_module("atheris")
    except ImportError:
        seed = asked.seed if asked.seed is not None else random.SystemRandom().randrange(2**32)
        print(f"{mutate(seed, asked.seconds)} messages, nothing found (seed {seed})")
        return
    memory: Memory = {}
    atheris.instrument_all()
    atheris.Setup([sys.argv[0], f"-max_total_time={asked.seconds:.0f}"], lambda body: throw(bytes(body), memory))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
