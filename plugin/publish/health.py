"""DeviceHealth of an asset (OPC 10000-100, 4.5.4; NAMUR NE 107), from what is predicted of it.

The first of these that holds, over all its remaining lives and flags that are neither Bad nor left behind:

* FAILURE: a life is at its end (LimitValue, or below).
* OFF_SPEC: a flag is raised: the asset is not as it should be.
* MAINTENANCE_REQUIRED: a life is at or below the first of its WarningValues.
* NORMAL: none of these.

CHECK_FUNCTION is never given: nobody tells us of work at the machine. Where nothing can be judged by at present, the
last verdict stays as UncertainLastUsableValue; where something can't, or is itself Uncertain, it is UncertainSubNormal.
Its SourceTimestamp is the time at which the asset came into that state (OPC 10000-110, 9.2).
"""

from collections.abc import Sequence
from datetime import datetime
from enum import IntEnum

from plugin.domain import Meaning, Quality, Status, quality
from plugin.publish.cells import Cell
from plugin.publish.nodes import OutputNode


class DeviceHealth(IntEnum):
    """DeviceHealthEnumeration."""

    NORMAL = 0
    FAILURE = 1
    CHECK_FUNCTION = 2
    OFF_SPEC = 3
    MAINTENANCE_REQUIRED = 4


_WORST_FIRST = DeviceHealth.FAILURE, DeviceHealth.OFF_SPEC, DeviceHealth.MAINTENANCE_REQUIRED, DeviceHealth.NORMAL


class HealthNode:
    """One asset's."""

    def __init__(self, cell: Cell, outputs: Sequence[OutputNode]) -> None:
        """``outputs``: its remaining lives and flags."""
        self.cell = cell
        self._outputs = tuple(outputs)

    def judge(self, now: datetime) -> None:
        """Look at the outputs anew; written where the verdict, or what it is worth, has changed."""
        usable = [node for node in self._outputs if node.usable]
        if not usable:
            if self.cell.fact is not None:
                self.cell.note(self.cell.fact, self.cell.source_time, now, Status.UNCERTAIN_LAST_USABLE_VALUE)
            return
        verdict = min((verdict_of(node) for node in usable), key=_WORST_FIRST.index)
        sure = len(usable) == len(self._outputs) and all(quality(node.status) is Quality.GOOD for node in usable)
        status = Status.GOOD if sure else Status.UNCERTAIN_SUB_NORMAL
        same = self.cell.fact == verdict
        since = self.cell.source_time if same else max(node.source_time for node in usable)
        self.cell.note(int(verdict), since, now, status)


def verdict_of(node: OutputNode) -> DeviceHealth:
    """What one usable output says of the asset."""
    if node.tag.meaning is Meaning.FLAG:
        return DeviceHealth.OFF_SPEC if node.value else DeviceHealth.NORMAL
    if node.value <= node.tag.low:
        return DeviceHealth.FAILURE
    near = bool(node.tag.warnings) and node.value <= node.tag.warnings[0]
    return DeviceHealth.MAINTENANCE_REQUIRED if near else DeviceHealth.NORMAL
