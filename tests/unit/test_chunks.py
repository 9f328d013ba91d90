"""What chunks give back, and how small they are."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from plugin.domain import SampleBatch, Status
from plugin.historian.closed.chunks import SAMPLES, SPAN, Chunk, decode, encode

BAD = int(Status.BAD)
YEAR_1601, YEAR_9999 = -11_644_473_600_000_000, 253_402_300_799_999_999
NOON = 1_714_564_800_000_000
SECOND = 1_000_000

TIMES = st.one_of(
    st.integers(0, 8),
    st.integers(0, 4).map(lambda i: NOON + i * SECOND),
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([YEAR_1601, YEAR_9999, -1, SPAN - 1, SPAN]),
)
VALUES = st.one_of(
    st.floats(),
    st.floats(width=32),
    st.integers(-300, 300).map(float),
    st.integers(-(10**6), 10**6).map(lambda i: i / 1000),
    st.integers(-(2**15), 2**15).map(lambda i: i * 2.0**-15),
    st.sampled_from([0.0, -0.0, np.nan, np.inf, -np.inf, 5e-324]),
)
STATUSES = st.one_of(st.just(0), st.integers(0, 2**32 - 1))
ROWS = st.lists(st.tuples(st.integers(1, 3), TIMES, VALUES, STATUSES, TIMES, TIMES), max_size=40)


def batch_of(rows: list[tuple[int, int, float, int, int, int]]) -> tuple[SampleBatch, NDArray[np.int16]]:
    """Sorted, with ordinals that follow one another."""
    if not rows:
        return SampleBatch.empty(), np.zeros(0, np.int16)
    batch = SampleBatch.of(*zip(*sorted(rows, key=lambda row: row[:2]), strict=True))
    keys = list(zip(batch.tag.tolist(), batch.source_time.tolist(), strict=True))
    return batch, np.array([keys[:row].count(key) for row, key in enumerate(keys)], np.int16)


def same(left: SampleBatch, right: SampleBatch) -> bool:
    """But for the bits of a NaN, and the sign of zero."""
    return all(
        a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype == np.float64)
        for a, b in zip(left.columns(), right.columns(), strict=True)
    )


def of_tag(time: NDArray[np.int64], value: object, status: object = 0, tag: object = 1) -> SampleBatch:
    return SampleBatch.of(np.full(len(time), tag), time, value, status, time, time)


def bytes_of(chunks: list[Chunk]) -> int:
    return sum(len(chunk.data) for chunk in chunks)


@settings(max_examples=200, deadline=None)
@given(ROWS)
def test_every_sample_comes_back(rows: list[tuple[int, int, float, int, int, int]]) -> None:
    batch, ordinals = batch_of(rows)
    chunks = encode(batch, ordinals)
    found, again = decode(chunks)
    assert same(found, batch)
    assert np.array_equal(again, ordinals)
    assert sum(chunk.samples for chunk in chunks) == len(batch)
    for chunk in chunks:
        assert chunk.first_time // SPAN == chunk.last_time // SPAN


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_without_clocks_the_rest_is_the_same(rows: list[tuple[int, int, float, int, int, int]]) -> None:
    batch, ordinals = batch_of(rows)
    found, again = decode(encode(batch, ordinals), clocks=False)
    assert same(found, replace(batch, server_time=batch.source_time, received_time=batch.source_time))
    assert np.array_equal(again, ordinals)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 700), st.integers(1, 700)), min_size=1, max_size=6), st.integers(0, 2**32))
def test_a_chunk_holds_so_many_and_cuts_no_time_in_two(lengths: list[tuple[int, int]], seed: int) -> None:
    random = np.random.default_rng(seed)
    time, ordinals = [], []
    for stamp, (alike, apart) in enumerate(lengths):
        time += [stamp * 10_000] * alike + [stamp * 10_000 + 1 + i for i in range(apart)]
        ordinals += [*range(alike), *[0] * apart]
    batch = of_tag(np.array(time), random.normal(size=len(time)))
    chunks = encode(batch, np.array(ordinals, np.int16))
    found, again = decode(chunks)
    assert same(found, batch)
    assert again.tolist() == ordinals
    assert max(chunk.samples for chunk in chunks) <= SAMPLES
    for before, after in pairwise(chunks):
        cut = before.last_time == after.first_time
        assert not cut or time.count(after.first_time) > SAMPLES
        assert (after.first_ordinal == 0) == (not cut)


def test_chunks_may_be_read_in_any_order_and_in_part() -> None:
    time = NOON + SECOND * np.arange(2000)
    batch = of_tag(time, np.sqrt(np.arange(2000)))
    chunks = encode(batch, np.zeros(2000, np.int16))
    found, _ = decode([chunks[2], chunks[0]])
    starts = np.cumsum([0, *(chunk.samples for chunk in chunks)])
    assert same(found, SampleBatch.concatenate([batch.take(slice(*starts[2:4])), batch.take(slice(*starts[:2]))]))


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (np.full(512, 21.5), 0),
        (np.full(512, np.nan), 0),
        (np.arange(512) % 2, 1),
        (np.where(np.arange(512) % 2, 1.0, np.nan), 1),
        (np.arange(512) / 10 + 100, 2),
        (2.0**45 + np.arange(512), 2),
        ((np.arange(512) * 127 % 65536 - 32768) * 2.0**-15, 2),
        ((50 + np.sqrt(np.arange(512))).astype(np.float32), 3),
        (np.sin(np.arange(512)).astype(np.float32), 4),
        (np.where(np.arange(512) % 2, np.inf, 1.5), 4),
        (64 + np.sqrt(np.arange(512)), 7),
        (np.sin(np.arange(512)), 8),
    ],
)
def test_bytes_of_a_value(value: NDArray[np.float64], size: int) -> None:
    (chunk,) = encode(of_tag(NOON + SECOND * np.arange(512), value), np.zeros(512, np.int16))
    assert len(chunk.data) == 512 * size


@pytest.mark.parametrize(
    ("offsets", "size"),
    [
        (np.arange(512) * SECOND, 0),
        (np.arange(512) * 999_700, 0),
        (np.arange(512) * 999_700 // 1000 * 1000, 1),
        (np.arange(512) * SECOND + np.arange(512) * 37 % 200 * 1000, 1),
        (np.arange(512) * SECOND + np.arange(512) * 3701 % 50_000, 2),
        (np.arange(512) * SECOND + np.where(np.arange(512) < 100, 0, 60 * SECOND), 1),
        (np.arange(512) * np.arange(512) // 200 * SECOND, 2),
    ],
)
def test_bytes_of_a_time(offsets: NDArray[np.int64], size: int) -> None:
    chunks = encode(of_tag(NOON + offsets, 1.0), np.zeros(512, np.int16))
    assert bytes_of(chunks) == 512 * size


def test_a_minute_of_an_odd_stamp_does_not_widen_the_other_chunks() -> None:
    time = np.sort(np.append(NOON + SECOND * np.arange(512), [YEAR_1601, YEAR_9999]))
    chunks = encode(of_tag(time, 1.0), np.zeros(514, np.int16))
    assert [chunk.samples for chunk in chunks] == [1, 512, 1]
    assert bytes_of(chunks) == 0
