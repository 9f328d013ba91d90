"""Clients of variables, to see whether those that are kept together can be told from those that are kept apart."""

from datetime import UTC, datetime
from itertools import product
from typing import Any

from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import struct_from_binary

from plugin.publish.backlog import Backlog, Changes
from plugin.publish.cells import Face
from plugin.publish.items import Item, Scale

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
STAMPS = ua.DataChangeFilter(Trigger=ua.DataChangeTrigger.StatusValueTimestamp)
COARSE = ua.DataChangeFilter(ua.DataChangeTrigger.StatusValue, ua.UInt32(ua.DeadbandType.Absolute), 1.5)
DEMANDS: list[Any] = [None, STAMPS, COARSE]
"""What each wants to hear: changes, source times as well, what leaves a deadband."""


class Side:
    """Variables, who monitors them, and what those heard."""

    def __init__(self, faces: list[Face]) -> None:
        self.faces = faces
        changes = Changes()
        self.backlogs = [changes.open() for _ in DEMANDS]
        self.items: dict[tuple[int, int], Item] = {}
        self.heard: list[tuple[int, int, Any, int, Any]] = []
        for row, which in product(range(len(faces)), range(len(DEMANDS))):
            self.join(row, which)

    def join(self, row: int, which: int) -> None:
        if (row, which) in self.items:
            return
        asked = ua.MonitoredItemCreateRequest(MonitoringMode=ua.MonitoringMode.Reporting)
        item = self.items[row, which] = Item(row, asked, self.backlogs[which])
        item.ask(ua.MonitoringParameters(ua.UInt32(row), QueueSize=ua.UInt32(3), Filter=DEMANDS[which]), 3, Scale())
        item.watch(self.faces[row])
        self.faces[row].tell(item)

    def leave(self, row: int, which: int) -> None:
        if (row, which) in self.items:
            self.items.pop((row, which)).close()

    def take(self) -> None:
        for which, backlog in enumerate(self.backlogs):
            said = [(which, *each) for each in read(backlog)]
            self.heard += sorted(said, key=lambda each: each[1])  # of one item in order, of several in any


def read(backlog: Backlog) -> list[tuple[int, Any, int, Any]]:
    """Handle, value, status and source time of what the next message says."""
    _, parts = backlog.take(10_000)
    body, found = Buffer(b"".join(parts)), []
    while len(body):
        said = struct_from_binary(ua.MonitoredItemNotification, body)
        value = said.Value
        found.append((said.ClientHandle, plain(value.Value.Value), value.StatusCode.value, value.SourceTimestamp))
    return found


def plain(value: Any) -> Any:
    """NaN equals nothing, not even what a test expects."""
    return "no number" if value != value else value  # noqa: PLR0124
