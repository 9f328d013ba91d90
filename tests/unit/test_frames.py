"""Deliveries as bytes: what comes out is what went in."""

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from plugin.domain import Gap, GapCause, GapState, Remark, RemarkKind, SampleBatch, Tag
from plugin.historian.spilling.frames import Kept, pack, pack_tags, unpack, unpack_tags
from plugin.protocols import Delivery

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=20)
"""Lone surrogates included: a plant may send what is no text."""
TIMES = st.datetimes(timezones=st.just(UTC))
GAPS = st.builds(
    Gap, ANY_TEXT, ANY_TEXT, st.none() | ANY_TEXT, TIMES, st.none() | TIMES, st.sampled_from(GapCause), TIMES,
    st.sampled_from(GapState), st.integers(0, 2**40), ANY_TEXT,
)  # fmt: skip
REMARKS = st.builds(Remark, ANY_TEXT, ANY_TEXT, st.sampled_from(RemarkKind), TIMES, ANY_TEXT)


@st.composite
def batches(draw: Any) -> SampleBatch:
    rows = draw(st.integers(0, 20))
    types = (np.int32, np.int64, np.float64, np.uint32, np.int64, np.int64)
    columns = [draw(hnp.arrays(dtype, rows)) for dtype in types]
    batch = SampleBatch(*columns)
    if rows and draw(st.booleans()):
        texts = draw(st.lists(st.none() | ANY_TEXT, min_size=rows, max_size=rows))
        text = np.full(rows, None, np.object_)
        text[:] = texts
        batch = replace(batch, text=text)
    return batch


DELIVERIES = st.builds(
    Delivery, batches(), st.lists(GAPS, max_size=2).map(tuple), st.dictionaries(st.text(), ANY_TEXT, max_size=2),
    st.lists(REMARKS, max_size=2).map(tuple),
)  # fmt: skip


def plain(kept: Kept) -> tuple[Any, ...]:
    """Comparable: NaN equals NaN, a batch whose texts are all None has none."""
    delivery = kept.delivery
    columns = [[None if isinstance(x, float) and math.isnan(x) else x for x in c] for c in delivery.samples.columns()]
    text = delivery.samples.text
    texts = {} if text is None else {row: each for row, each in enumerate(text) if each is not None}
    return kept.source, columns, texts, delivery.gaps, dict(delivery.checkpoint), delivery.remarks


@given(st.lists(st.builds(Kept, ANY_TEXT, DELIVERIES), max_size=4))
def test_what_comes_out_is_what_went_in(kept: list[Kept]) -> None:
    back = unpack(b"".join(pack(kept)))
    assert list(map(plain, back)) == list(map(plain, kept))
    for each in back:
        assert [column.dtype for column in each.delivery.samples.columns()] == [
            np.int32, np.int64, np.float64, np.uint32, np.int64, np.int64
        ]  # fmt: skip


def test_columns_lie_at_multiples_of_their_width() -> None:
    time = np.arange(5)
    payload = b"".join(pack([Kept("a", Delivery(SampleBatch.of(time + 1, time, time, 0, time, time)))] * 3))
    for kept in unpack(payload):
        assert all(column.ctypes.data % column.itemsize == 0 for column in kept.delivery.samples.columns())


def test_times_are_utc_again() -> None:
    east = datetime(2024, 5, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    gap = Gap("id", "a", None, east, None, GapCause.SEQUENCE, east)
    (back,) = unpack(b"".join(pack([Kept("a", Delivery(SampleBatch.empty(), (gap,)))])))
    assert back.delivery.gaps == (gap,)


def test_tags_keep_all_their_fields() -> None:
    tags = (
        Tag("T1", "plant", "nsu=urn:plant;s=T1", "engine", "T1", "K", 1.5, None, 0.1, timedelta(milliseconds=250), 7),
        Tag("T2", "plant", "nsu=urn:plant;i=2", element="[3]", id=8),
    )
    assert unpack_tags(pack_tags(tags)) == tags
    assert unpack_tags(b"") == ()
