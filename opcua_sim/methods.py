"""Faults on demand, as methods of Objects/Plant/Faults that any client may call."""

import logging
from typing import Any, Protocol

from asyncua import Server, ua

from opcua_sim.faults import Kind

_log = logging.getLogger("opcua_sim")


class Breakable(Protocol):
    """What the methods act on: a running plant."""

    def inject(self, kind: str, tags: str, seconds: float, magnitude: float | None) -> int:
        """Begin a fault; ValueError: it can't be."""

    def clear(self) -> None:
        """End all faults."""


async def add_methods(server: Server, namespace: int, parent: ua.NodeId, plant: Breakable) -> None:
    """Inject(kind, tags, seconds, magnitude) → count and Clear(), for any client."""

    async def inject(_: ua.NodeId, kind: Any, tags: Any, seconds: Any, magnitude: Any) -> Any:
        try:
            size = float(magnitude.Value)
            count = plant.inject(str(kind.Value), str(tags.Value), float(seconds.Value), None if size == 0 else size)
        except (ValueError, TypeError) as error:
            _log.warning("fault refused: %s", error)
            return ua.StatusCode(ua.UInt32(ua.StatusCodes.BadInvalidArgument))
        return [ua.Variant(count, ua.VariantType.UInt32)]

    async def clear(_: ua.NodeId) -> list[ua.Variant]:
        plant.clear()
        return []

    inputs = [
        _argument("kind", ua.VariantType.String, ", ".join(Kind)),
        _argument("tags", ua.VariantType.String, "a tag's name or a pattern such as engine-0*.T24"),
        _argument("seconds", ua.VariantType.Double, "how long it lasts [s]"),
        _argument("magnitude", ua.VariantType.Double, "share of each tag's range; 0: the kind's usual one"),
    ]
    outputs = [_argument("count", ua.VariantType.UInt32, "tags that it concerns")]
    node = server.get_node(parent)
    name = ua.String("faults.Inject"), ua.String("faults.Clear")
    await node.add_method(ua.NodeId(name[0], ua.Int16(namespace)), f"{namespace}:Inject", inject, inputs, outputs)
    await node.add_method(ua.NodeId(name[1], ua.Int16(namespace)), f"{namespace}:Clear", clear)


def _argument(name: str, kind: ua.VariantType, text: str) -> ua.Argument:
    data_type = ua.NodeId(ua.Int32(kind.value))
    return ua.Argument(Name=ua.String(name), DataType=data_type, Description=ua.LocalizedText(text))
