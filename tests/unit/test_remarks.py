"""Remarks on odd values: found in columns as a plain loop finds them, and never too many."""

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from plugin.acquire.decoding import Values
from plugin.acquire.remarks import Remarks
from plugin.diagnostics import Diagnostics
from plugin.domain import RemarkKind, Tag, from_micros

NOBODY = 2**32 - 1
MINUTE = 60_000_000


def tags(count: int) -> list[Tag]:
    return [Tag(f"t{number}", "plant", f"i={number}") for number in range(count)]


def values(*rows: tuple[int, int, int], status: int = 0) -> Values:
    """Rows of (handle, source time, encoding byte); time 0: it had none."""
    handle, time, kind = (np.array(column) for column in zip(*rows, strict=True))
    none = np.zeros(0, np.intp)
    return Values(
        handle.astype(np.uint32), time.astype(np.int64), time > 0, time.astype(np.int64), np.ones(len(rows)),
        np.full(len(rows), status, np.uint32), kind.astype(np.uint8), 0, 0, b"", none, none,
    )  # fmt: skip


ROWS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 5), st.sampled_from([0, 6, 11, 0x8B])), min_size=1, max_size=8
)


@given(st.lists(ROWS, min_size=1, max_size=5))
def test_what_is_odd_equals_a_plain_loop(messages: list[list[tuple[int, int, int]]]) -> None:
    remarks = Remarks("plant", tags(3), Diagnostics())  # a fourth handle is nobody's
    last_time: dict[int, int] = {}
    last_kind: dict[int, int] = {}
    for number, rows in enumerate(messages):
        expected: dict[tuple[str, RemarkKind], int] = {}
        for handle, time, kind in rows:
            if handle > 2:
                continue
            if time and time < last_time.get(handle, 0):
                expected.setdefault((f"t{handle}", RemarkKind.TIME_WENT_BACK), time)
            if kind and kind != (last_kind.get(handle) or kind):
                expected.setdefault((f"t{handle}", RemarkKind.TYPE_CHANGED), time)
            last_time[handle] = time or last_time.get(handle, 0)
            last_kind[handle] = kind or last_kind.get(handle, 0)
        found = remarks.of(values(*rows), 2 * MINUTE * (number + 1))
        assert {(one.tag, one.kind): one.source_time for one in found} == {
            key: from_micros(time) for key, time in expected.items()
        }
        assert len(found) == len(expected)


def test_a_remark_is_made_once_a_minute_and_counted_each_time() -> None:
    diagnostics = Diagnostics()
    remarks = Remarks("plant", tags(1), diagnostics)
    assert remarks.of(values((0, 100, 11)), 0) == ()
    for second in range(120):
        found = remarks.of(values((0, 90, 11), (0, 100, 11)), second * 1_000_000)
        assert len(found) == (second in {0, 60})
    assert diagnostics.value("remarks_total", source="plant", kind="time_went_back") == 120


def test_a_clock_that_is_set_back_makes_a_bounded_number_of_remarks() -> None:
    remarks = Remarks("plant", tags(5000), Diagnostics())
    rows = [(handle, 5_000_000, 11) for handle in range(5000)]
    assert remarks.of(values(*rows), 0) == ()
    back = replace(values(*rows), source_time=np.full(5000, 4_000_000))
    found = remarks.of(back, 1)
    assert len(found) == 1000
    assert found[0].detail == "1 value up to 1 s older than the one before"
    assert remarks.of(replace(back, source_time=back.source_time - 1), 2) == ()


def test_what_is_bad_or_null_has_no_type() -> None:
    remarks = Remarks("plant", tags(1), Diagnostics())
    assert remarks.of(values((0, 1, 11)), 0) == ()
    assert remarks.of(values((0, 2, 0)), 0) == ()
    assert remarks.of(values((0, 3, 6), status=0x80000000), 0) == ()
    assert remarks.of(values((0, 4, 11), (NOBODY, 1, 3)), 0) == ()
    (found,) = remarks.of(values((0, 5, 0x8B)), 0)
    assert found.detail == "Double before, Double array now"


def test_tags_may_join() -> None:
    known = tags(1)
    remarks = Remarks("plant", known, Diagnostics())
    assert remarks.of(values((0, 5, 11), (1, 5, 11)), 0) == ()
    known.extend(tags(2)[1:])
    assert remarks.of(values((1, 4, 11)), 0) == ()
    assert len(remarks.of(values((1, 3, 11)), 0)) == 1
