"""Samples to rows and back: their clocks as differences."""

import sqlite3

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from plugin.domain import SampleBatch
from plugin.historian.rows import from_rows, to_rows
from plugin.historian.schema.plant import clocks

ANY = st.integers(-(2**63), 2**63 - 1)
BETWEEN_1601_AND_9999 = st.integers(-11_644_473_600_000_000, 253_402_300_799_999_999)


@given(st.lists(st.tuples(ANY, ANY, ANY), max_size=20))
@settings(max_examples=50)
def test_any_three_stamps_come_back(stamps: list[tuple[int, int, int]]) -> None:
    source, server, received = np.array(stamps, np.int64).reshape(-1, 3).T
    batch = SampleBatch.of(np.ones(len(stamps)), source, np.zeros(len(stamps)), 0, server, received)
    again = from_rows([column.tolist() for column in to_rows(batch)])
    assert all((a == b).all() for a, b in zip(again.columns(), batch.columns(), strict=True))


@given(*[BETWEEN_1601_AND_9999] * 3)
@settings(max_examples=50)
def test_sql_makes_the_same_of_a_row(source: int, server: int, received: int) -> None:
    row = to_rows(SampleBatch.of([1], [source], [0.0], 0, server, received))
    parameters = [column.tolist()[0] for column in (row[1], row[4], row[5])]
    database = sqlite3.connect(":memory:")
    query = f"SELECT {clocks('s')} FROM (SELECT ? AS source_time, ? AS server_delay, ? AS received_delay) AS s"  # noqa: S608
    assert database.execute(query, parameters).fetchone() == (server, received)
    database.close()


def test_a_value_that_is_no_number_is_null_in_a_row() -> None:
    assert np.isnan(from_rows([[1], [10], [None], [0], [1], [2]]).value).all()
