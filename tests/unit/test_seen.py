"""What a grid is given of rows and chunks is what all of them say."""

import sqlite3

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateTable

from plugin.domain import SampleBatch, Status
from plugin.historian import schema
from plugin.historian.closed.chunks import Chunk, decode, encode
from plugin.historian.sqlite.samples import insert_samples
from plugin.historian.sqlite.seen import select_seen
from plugin.historian.sqlite.selecting import select_keyed, select_open, select_samples

TAGS = [3, 1, 2]
DAY = 86_400_000_000
SAMPLES = st.lists(
    st.tuples(
        st.integers(1, 4),
        st.integers(-20, 60) | st.integers(DAY - 5, DAY + 5),
        st.sampled_from([0.0, 1.25, np.nan, 1e300]),
        st.sampled_from([0, int(Status.BAD), 2**32 - 1]),
        st.integers(0, 100),
        st.booleans(),
    ),
    max_size=40,
)
"""Tag, time, value, status, received so much later, and whether it comes late: after the others were closed."""
BOUNDS = st.none() | st.integers(-20, 200)


def database(tags: int = 4) -> sqlite3.Connection:
    """``tags``: as many are known to be there; of most of them all rows are read."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for table in (schema.tags, schema.samples, schema.sample_texts, schema.sample_chunks, schema.modified_samples):
        connection.execute(str(CreateTable(table).compile(dialect=sqlite.dialect())))
    connection.execute(
        "INSERT INTO tags (id, name, source, node, feature, unit, deadband) VALUES (?, '', '', '', '', '', 0)", (tags,)
    )
    return connection


def batch_of(samples: list[tuple[int, int, float, int, int, bool]]) -> SampleBatch:
    if not samples:
        return SampleBatch.empty()
    tag, time, value, status, delay, _ = zip(*samples, strict=True)
    return SampleBatch.of(tag, time, value, status, np.array(time) + 2, np.array(time) + np.array(delay))


def close(connection: sqlite3.Connection) -> None:
    """All that is there, as chunks."""
    found = select_keyed(connection, [1, 2, 3, 4], -(2**62), 2**62)
    names = ", ".join((*Chunk._fields, "partition_id"))
    places = ", ".join(["?"] * (len(Chunk._fields) + 1))
    chunks = [(*chunk, 1) for chunk in encode(found.samples, found.ordinals)]
    connection.executemany(f"INSERT INTO sample_chunks ({names}) VALUES ({places})", chunks)  # noqa: S608
    connection.execute("DELETE FROM samples")


def taken_later(connection: sqlite3.Connection, samples: list[tuple[int, int, float, int, int, bool]]) -> None:
    """Late rows; one whose stamp is taken gets an ordinal behind, as the store gives it."""
    closed = select_keyed(connection, [1, 2, 3, 4], -(2**62), 2**62)
    taken = set(zip(closed.samples.tag.tolist(), closed.samples.source_time.tolist(), strict=True))
    insert_samples(connection, batch_of(samples))
    rows = select_open(connection, None, -(2**62), 2**62)
    for tag, time, ordinal in sorted(rows.each_key(), reverse=True):
        if (tag, time) in taken:
            key = (tag, time, ordinal)
            connection.execute(
                "UPDATE samples SET ordinal = ordinal + 50 WHERE (tag_id, source_time, ordinal) = (?, ?, ?)", key
            )


@settings(max_examples=150, deadline=None)
@given(SAMPLES, st.integers(3, 4), st.integers(-25, 70), st.integers(0, 90) | st.just(2 * DAY), BOUNDS, BOUNDS)
def test_rows_and_chunks_give_what_a_model_sees(samples, tags, start, length, known_by, received_by):
    connection = database(tags)
    insert_samples(connection, batch_of([each for each in samples if not each[-1]]))
    close(connection)
    taken_later(connection, [each for each in samples if each[-1]])
    asked = (TAGS, start, start + length, known_by, received_by)
    expected, got = select_samples(connection, *asked), select_seen(connection, *asked)
    connection.close()
    for name in ("tag", "source_time", "value", "status"):
        assert np.array_equal(getattr(got, name), getattr(expected, name), equal_nan=name == "value"), name


def test_clocks_are_decoded_where_a_sample_may_be_too_late_and_only_there(monkeypatch):
    asked = []

    def counted(chunks, *, clocks=True):
        asked.append((len(chunks), clocks))
        return decode(chunks, clocks=clocks)

    monkeypatch.setattr("plugin.historian.sqlite.seen.decode", counted)
    connection, time = database(), np.arange(2000)
    insert_samples(connection, SampleBatch.of(np.ones(2000), time, time * 1.0, 0, time, time + 10))
    close(connection)
    got = select_seen(connection, [1], 0, 2000, None, 1800)
    connection.close()
    assert got.source_time.tolist() == list(range(1791))
    assert asked == [(3, False), (1, True)]
