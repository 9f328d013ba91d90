"""How many alarms operators have to deal with, as a node: AlarmMetricsType (OPC 10000-9, 9.2)."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from asyncua import ua

from plugin.infer.alarms.load import WINDOW, Load
from plugin.infer.alarms.room import Room
from plugin.publish.asyncua_server import PlantServer
from plugin.publish.cells import Cell, status_code
from plugin.publish.people import Permission
from plugin.publish.tree import Tree
from plugin.publish.types import DOUBLE, DURATION, PROPERTY, STANDARD, UINT32, UTC_TIME, Member, Name, Ref

_ID = ua.ObjectIds
_NODE = "Foretag.AlarmMetrics"
_RATE = Ref(_ID.AlarmRateVariableType)
_MEMBERS: Mapping[str, tuple[Ref, Ref]] = {
    "AlarmCount": (UINT32, Ref(_ID.BaseDataVariableType)),
    "StartTime": (UTC_TIME, Ref(_ID.BaseDataVariableType)),
    "MaximumActiveState": (DURATION, Ref(_ID.BaseDataVariableType)),
    "MaximumUnAck": (DURATION, Ref(_ID.BaseDataVariableType)),
    "MaximumReAlarmCount": (UINT32, Ref(_ID.BaseDataVariableType)),
    "CurrentAlarmRate": (DOUBLE, _RATE),
    "MaximumAlarmRate": (DOUBLE, _RATE),
    "AverageAlarmRate": (DOUBLE, _RATE),
}
"""Data type and type."""
_SECONDS = int(WINDOW.total_seconds())


class Metrics:
    """Below ``Foretag``; an engineer may reset it."""

    def __init__(self, room: Room, tree: Tree, server: PlantServer) -> None:
        self._room = room
        kind = Ref(_ID.AlarmMetricsType)
        self._node = tree.component(_NODE, Name("AlarmMetrics"), tree.id("Foretag"), kind)
        self._cells = {name: _member(tree, name, *of) for name, of in _MEMBERS.items()}
        reset = Ref(_ID.AlarmMetricsType_Reset)
        tree.link(self._node, _ID.HasComponent, reset)
        tree.answer(tree.ref(reset), self._reset)
        server.permit(tree.ref(reset), Permission.ENGINEER)

    def show(self, now: datetime) -> None:
        """As it is now."""
        for name, fact in _facts(self._room.load, now).items():
            self._cells[name].note(fact, now, now)

    async def _reset(self, owner: ua.NodeId, *given: ua.Variant) -> ua.StatusCode:
        if owner != self._node:
            return status_code(ua.StatusCodes.BadMethodInvalid)
        if given:
            return status_code(ua.StatusCodes.BadTooManyArguments)
        self._room.reset_load()
        return ua.StatusCode()


def _member(tree: Tree, name: str, data_type: Ref, kind: Ref) -> Cell:
    cell = tree.member(_NODE, Member(Name(name, STANDARD), data_type, kind))
    if kind == _RATE:
        rate = Member(Name("Rate", STANDARD), Ref(_ID.UInt16), PROPERTY)
        tree.member(f"{_NODE}.{name}", rate, _SECONDS)  # alarms in so many seconds
    return cell


def _facts(load: Load, now: datetime) -> dict[str, Any]:
    """The average is since StartTime."""
    windows = max((now - load.since) / WINDOW, 1.0)
    return {
        "AlarmCount": load.count,
        "StartTime": load.since,
        "MaximumActiveState": load.longest_active.total_seconds() * 1000.0,
        "MaximumUnAck": load.longest_unacknowledged.total_seconds() * 1000.0,
        "MaximumReAlarmCount": load.most_repeats,
        "CurrentAlarmRate": float(load.current),
        "MaximumAlarmRate": float(load.maximum),
        "AverageAlarmRate": load.count / windows,
    }
