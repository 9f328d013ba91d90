"""What is exported and imported again is what it was: every value, status, text and microsecond."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plugin.domain import SampleBatch, Tag
from plugin.exchange.exporting import Extract, export
from plugin.exchange.importing import Order, bring
from plugin.exchange.terms import Layout, Terms
from plugin.historian.memory import MemoryStore
from plugin.protocols import Delivery

NAMES = ("engine.T24", "=cmd|' /C calc'!A0", '-minus, "quoted"', "Ölfluß °C")
ENDINGS = (".csv", ".csv.gz", ".parquet", ".xlsx")
START, END = 0, 5_000_000_000_000_000

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    [
        "=1+1",
        "+49",
        "-",
        "@home",
        "'",
        "''",
        "'=x",
        "\t",
        "\r\nx",
        "",
        " ",
        "9007199254740993",
        "nan",
        "_x000D_",
        "a\0b",
    ]
)
numbers = st.floats(width=64) | st.floats(width=32) | st.sampled_from([0.1, 5e-324, 1.7976931348623157e308, math.inf])
sample = st.tuples(
    st.integers(1, len(NAMES)),
    st.integers(1, 40_000).map(lambda n: 946_684_800_000_000 + n * 86_400_000_037)
    | st.integers(1, 30).map(lambda n: n * 1000),
    numbers,
    st.sampled_from([0, 0x80000000, 0x40920480, 0xFFFFFFFF]),
    st.integers(-5, 10**12),
    st.none() | texts,
)


def batch_of(rows: Sequence[tuple[int, int, float, int, int, str | None]]) -> SampleBatch:
    tag, time, value, status, late, words = zip(*rows, strict=True)
    times = np.array(time, np.int64)
    batch = SampleBatch.of(tag, times, value, status, np.maximum(times + np.array(late), 1), 5)
    return replace(batch, text=np.array(words, np.object_)) if any(word is not None for word in words) else batch


async def filled(batch: SampleBatch) -> MemoryStore:
    store = await empty()
    await store.write([Delivery(batch)])
    return store


async def empty() -> MemoryStore:
    store = MemoryStore()
    await store.register_tags([Tag(name, "plant", f"nsu=u;s={n}") for n, name in enumerate(NAMES)])
    return store


async def content(store: MemoryStore, *, server: bool = True) -> list[tuple[object, ...]]:
    batch = await store.read_samples(range(1, len(NAMES) + 1), -(2**62), 2**62)
    words = [None] * len(batch) if batch.text is None else batch.text.tolist()
    columns: list[Any] = [batch.tag, batch.source_time, batch.status, *([batch.server_time] if server else [])]
    values = [None if math.isnan(value) else value.hex() for value in batch.value.tolist()]
    return list(zip(*(column.tolist() for column in columns), values, words, strict=True))


@pytest.mark.parametrize("ending", ENDINGS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(sample, min_size=1, max_size=30))
async def test_a_long_file_holds_all_of_it(tmp_path, ending, rows):
    before = await filled(batch_of(rows))
    path = tmp_path / f"long{ending}"
    await export(before, path, Extract(await before.tags(), START, END, zone="Europe/Berlin"))
    after = await empty()
    outcome = await bring(after, Order(path, Terms(zone="Europe/Berlin", future=True)))
    assert outcome.tally.reasons == {}
    assert await content(after) == await content(before)


@pytest.mark.parametrize("ending", ENDINGS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(sample, min_size=1, max_size=30))
async def test_a_wide_file_with_statuses_and_texts_holds_all_but_the_servers_times(tmp_path, ending, rows):
    rows = [
        (*row[:5], row[5] if row[5] is not None and math.isnan(row[2]) and is_plain(row[5]) else None) for row in rows
    ]
    before = await filled(batch_of(rows))
    path = tmp_path / f"wide{ending}"
    extract = Extract(await before.tags(), START, END, Layout.WIDE, "Europe/Berlin", statuses=True, texts=True)
    written = await export(before, path, extract)
    assert written.left_out == 0
    after = await empty()
    terms = Terms(zone="Europe/Berlin", future=True, texts=True)
    outcome = await bring(after, Order(path, terms))
    assert outcome.tally.reasons == {}
    assert sorted(map(str, await content(after, server=False))) == sorted(map(str, await content(before, server=False)))


def is_plain(word: str) -> bool:
    """Whether a cell with it can be told from a number or a state that stands for one."""
    from plugin.exchange.statuses import state_of

    try:
        float(word.replace("_", "x"))
    except ValueError:
        return word.strip().casefold() not in {"true", "false"} and state_of(word) is None
    return False
