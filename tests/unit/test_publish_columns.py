"""Numbers that are written together are read and heard as if each had a cell of its own."""

import math
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import numpy as np
import pytest
from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import struct_from_binary
from hypothesis import given, settings
from hypothesis import strategies as st

from plugin.domain import Status, to_micros
from plugin.publish.backlog import Backlog, Changes
from plugin.publish.cells import Cell, Face
from plugin.publish.columns import Column
from plugin.publish.items import Item, Scale
from plugin.publish.packed import Packed

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ROWS = 4
T = ua.VariantType
STAMPS = ua.DataChangeFilter(Trigger=ua.DataChangeTrigger.StatusValueTimestamp)
COARSE = ua.DataChangeFilter(ua.DataChangeTrigger.StatusValue, ua.UInt32(ua.DeadbandType.Absolute), 1.5)
DEMANDS: list[Any] = [None, STAMPS, COARSE]

ONE = st.tuples(
    st.sampled_from([1.0, 2.0, 4.0, math.nan, "running", "tripped"]),
    st.sampled_from([Status.GOOD, Status.UNCERTAIN_SUB_NORMAL, Status.BAD_NO_DATA]),
    st.integers(0, 2),
)
"""Value, status, seconds."""
STEPS = st.lists(
    st.one_of(
        st.dictionaries(st.integers(0, ROWS - 1), ONE, min_size=1),
        st.tuples(st.sampled_from(["leave", "join"]), st.integers(0, ROWS - 1), st.integers(0, len(DEMANDS) - 1)),
        st.just("take"),
    ),
    max_size=25,
)


class Side:
    """Variables, who monitors them, and what those heard."""

    def __init__(self, faces: list[Face]) -> None:
        self.faces = faces
        changes = Changes()
        self.backlogs = [changes.open() for _ in DEMANDS]
        self.items: dict[tuple[int, int], Item] = {}
        self.heard: list[tuple[int, int, Any, int, Any]] = []

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


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_who_listens_and_who_reads_can_not_tell_a_column_from_cells(steps: list[Any]) -> None:
    column, cells = Column(ROWS, NOW), [Cell(T.Double, NOW) for _ in range(ROWS)]
    together, apart = Side(list(column.faces)), Side(list(cells))
    for row, which in product(range(ROWS), range(len(DEMANDS))):
        together.join(row, which)
        apart.join(row, which)
    for seconds, step in enumerate([*steps, "take"]):
        now = NOW + timedelta(seconds=seconds)
        if step == "take":
            together.take()
            apart.take()
        elif isinstance(step, tuple):
            for side in (together, apart):
                (side.join if step[0] == "join" else side.leave)(step[1], step[2])
        else:
            write(column, step, now)
            for row, (value, status, second) in step.items():
                cells[row]._kind = T.String if isinstance(value, str) else T.Double
                cells[row].write(value, status, NOW + timedelta(seconds=second), now)
        for one, other in zip(column.faces, cells, strict=True):
            assert repr(one.value) == repr(other.value)
    assert together.heard == apart.heard


def write(column: Column, said: dict[int, tuple[Any, int, int]], now: datetime) -> None:
    """Texts one by one, numbers together."""
    numbers = {row: each for row, each in said.items() if not isinstance(each[0], str)}
    for row in said.keys() - numbers.keys():
        text, status, second = said[row]
        column.write_text(row, text, status, to_micros(NOW + timedelta(seconds=second)), now)
    values, statuses, seconds = zip(*numbers.values(), strict=True) if numbers else ((), (), ())
    rows, source = np.array(list(numbers), np.int64), to_micros(NOW) + 1_000_000 * np.array(seconds, np.int64)
    column.write(rows, np.array(values, np.float64), np.array(statuses, np.uint32), source, now)


def test_a_row_is_written_by_its_column_alone():
    column = Column(1, NOW)
    with pytest.raises(ua.UaError):
        column.faces[0].value = ua.DataValue()


CONTENTS = st.lists(st.binary(min_size=1, max_size=6), max_size=8)


@settings(max_examples=100, deadline=None)
@given(st.lists(CONTENTS, max_size=4), st.lists(st.booleans(), min_size=32, max_size=32))
def test_values_stay_what_they_are_however_they_are_picked_joined_and_replaced(parts: Any, which: Any) -> None:
    every = [content for part in parts for content in part]
    packed = Packed.joined([Packed.of(range(len(part)), part) for part in parts])
    chosen = np.array(which[: len(every)], np.bool_)
    wanted = [content for content, is_chosen in zip(every, chosen.tolist(), strict=True) if is_chosen]
    found = Packed.joined((packed.pick(chosen), Packed.of([7], [b"more"])))
    assert [found.bytes_at(at) for at in range(len(found))] == [*wanted, b"more"]
    assert len(found.content) <= 2 * sum(map(len, wanted)) + len(b"more")
    handles = np.arange(len(found), dtype=np.uint32)
    assert found.addressed(handles) == b"".join(
        at.to_bytes(4, "little") + content for at, content in enumerate([*wanted, b"more"])
    )
    other = found.replaced(np.array([0]), [b"another"])
    assert [other.bytes_at(at) for at in range(len(other))] == [b"another", *[*wanted, b"more"][1:]]
