"""What is written in one go is read and heard as if each variable had a cell of its own."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from asyncua import ua
from hypothesis import given, settings
from hypothesis import strategies as st

from plugin.domain import HIGH_LIMITED, Quality, Status, quality
from plugin.publish.cells import Cell
from plugin.publish.sheets import Sheet
from tests.unit.listening import DEMANDS, NOW, Side

T = ua.VariantType
KINDS = [T.Double, T.Double]
TIMES = 2
GOOD, LIMITED, UNCERTAIN, BAD = Status.GOOD, Status.GOOD | HIGH_LIMITED, Status.UNCERTAIN_SUB_NORMAL, Status.BAD_NO_DATA

FACTS = st.tuples(*[st.sampled_from([1.0, 2.0, 4.0, None]) for _ in KINDS])
SECOND = st.integers(0, 2).map(lambda seconds: NOW + timedelta(seconds=seconds))
PLACES, WHICH = st.integers(0, len(KINDS) + TIMES - 1), st.integers(0, len(DEMANDS) - 1)
STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("write"), FACTS, st.tuples(SECOND, SECOND, SECOND),
            st.sampled_from([GOOD, LIMITED, UNCERTAIN, BAD]), SECOND,
        ),
        st.tuples(st.just("restate"), st.sampled_from([GOOD, LIMITED, UNCERTAIN]), SECOND | st.none()),
        st.tuples(st.just("withhold"), st.sampled_from([BAD, Status.BAD_OUT_OF_SERVICE])),
        st.tuples(st.sampled_from(["leave", "join"]), PLACES, WHICH),
        st.just(("take",)),
    ),
    max_size=25,
)  # fmt: skip


class Apart:
    """A cell for each variable."""

    def __init__(self) -> None:
        self.said = [Cell(kind, NOW) for kind in KINDS]
        self.times = [Cell(T.DateTime, NOW) for _ in range(TIMES)]

    def write(self, facts: Any, times: Any, status: int, source: datetime, now: datetime) -> None:
        for cell, time in zip(self.times, times, strict=False):
            cell.write(time, Status.GOOD, source, now)
        for cell, fact, its in zip(self.said, facts, self._statuses(status), strict=True):
            cell.write(fact, its if fact is not None or quality(its) is Quality.BAD else BAD, source, now)

    def withhold(self, status: int, now: datetime) -> None:
        for cell in self.said:
            cell.write(None, status, now, now)

    def restate(self, status: int, now: datetime, source: datetime | None) -> None:
        for cell, its in zip(self.said, self._statuses(status), strict=True):
            cell.restate(its, now, source)

    def _statuses(self, status: int) -> list[int]:
        return [status, *[status & ~HIGH_LIMITED for _ in self.said[1:]]]


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_who_listens_and_who_reads_can_not_tell_a_sheet_from_cells(steps: list[Any]) -> None:
    sheet, apart = Sheet(KINDS, TIMES, NOW), Apart()
    cells = [*apart.said, *apart.times]
    together, alone = Side(list(sheet.faces)), Side(list(cells))
    for seconds, (what, *given_) in enumerate([*steps, ("take",)]):
        now = NOW + timedelta(seconds=seconds)
        kept: Any
        for side, kept in ((together, sheet), (alone, apart)):
            if what in ("join", "leave"):
                (side.join if what == "join" else side.leave)(*given_)
            elif what == "take":
                side.take()
            elif what == "write":
                kept.write(*given_, now)
            elif what == "withhold":
                kept.withhold(*given_, now)
            elif sheet.status < 0x8000_0000:  # nobody states anything of a value that is Bad
                kept.restate(given_[0], now, given_[1])
        for one, other in zip(sheet.faces, cells, strict=True):
            assert repr(one.value) == repr(other.value)
    assert together.heard == alone.heard


def test_what_belongs_to_a_sheet_is_written_with_all_of_it():
    with pytest.raises(ua.UaError):
        Sheet(KINDS, TIMES, NOW).faces[0].value = ua.DataValue()
