"""Numbers that are written together are read and heard as if each had a cell of its own."""

import math
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest
from asyncua import ua
from hypothesis import given, settings
from hypothesis import strategies as st

from plugin.domain import Status, to_micros
from plugin.publish.cells import Cell
from plugin.publish.columns import Column
from plugin.publish.packed import Packed
from tests.unit.listening import DEMANDS, NOW, Side

ROWS = 4
T = ua.VariantType
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


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_who_listens_and_who_reads_can_not_tell_a_column_from_cells(steps: list[Any]) -> None:
    column, cells = Column(ROWS, NOW), [Cell(T.Double, NOW) for _ in range(ROWS)]
    together, apart = Side(list(column.faces)), Side(list(cells))
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
