"""Chunks in plain SQL: ``v_samples`` says of each what decoding it says, in SQLite and in PostgreSQL."""

import asyncio
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from plugin.domain import SampleBatch, Tag
from plugin.historian.closed.chunks import SPAN, Chunk, decode, encode
from plugin.historian.migrate import migrate
from plugin.historian.schema.plant import clocks
from plugin.historian.sqlite.store import SqliteStore
from plugin.protocols import Delivery
from tests.postgres import Database

NOON = 1_714_564_800_000_000
SECOND, HOUR = 1_000_000, 3_600_000_000
YEAR_1601, YEAR_9999 = -11_644_473_600_000_000, 253_402_300_799_999_999
COLUMNS = "time_us, value, status, server_time_us, received_time_us, ordinal"
ASK = f"SELECT {COLUMNS} FROM v_samples ORDER BY tag, time_us, ordinal"  # noqa: S608

TIMES = st.one_of(
    st.integers(0, 8),
    st.integers(0, 4).map(lambda i: NOON + i * SECOND),
    st.integers(-5, 300).map(lambda i: NOON + i * HOUR),
    st.integers(YEAR_1601, YEAR_9999),
    st.sampled_from([YEAR_1601, YEAR_9999, -1, SPAN - 1, SPAN]),
)
VALUES = st.one_of(
    st.floats(),
    st.floats(width=32),
    st.integers(-300, 300).map(float),
    st.integers(-(10**6), 10**6).map(lambda i: i / 1000),
    st.sampled_from([0.0, -0.0, np.nan, np.inf, -np.inf, 5e-324, -5e-324, 2.2250738585072014e-308, 1e-45, 2.0**-126]),
)
STATUSES = st.one_of(st.just(0), st.integers(0, 2**32 - 1))
ROWS = st.lists(st.tuples(st.integers(1, 3), TIMES, VALUES, STATUSES, TIMES, TIMES), min_size=1, max_size=24)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("view") / "historian.db"
    migrate(f"sqlite+aiosqlite:///{path}")
    with closing(sqlite3.connect(path)) as database, database:
        database.executemany(
            "INSERT INTO tags (id, name, source, node, feature, unit, deadband) VALUES (?, ?, 'p', '', 'f', 'K', 0)",
            [(1, "a"), (2, "b"), (3, "c")],
        )
    return path


@pytest.fixture
def database(path: Path) -> Iterator[sqlite3.Connection]:
    """Whose chunks are gone when the test ends."""
    with closing(sqlite3.connect(path)) as database:
        yield database


def put(database: sqlite3.Connection, chunks: Sequence[Chunk]) -> None:
    places = ", ".join("?" * len(Chunk._fields))
    insert = f"INSERT INTO sample_chunks ({', '.join(Chunk._fields)}, partition_id) VALUES ({places}, 1)"  # noqa: S608
    database.executemany(insert, chunks)


def batch_of(rows: Sequence[tuple[int, int, float, int, int, int]]) -> tuple[SampleBatch, NDArray[np.int16]]:
    """Sorted, with ordinals that follow one another."""
    tag, time, *rest = zip(*sorted(rows, key=lambda row: row[:2]), strict=True)
    keys = list(zip(tag, time, strict=True))
    return SampleBatch.of(tag, time, *rest), np.array([keys[:row].count(key) for row, key in enumerate(keys)], np.int16)


def decoded(chunks: Sequence[Chunk]) -> list[tuple[Any, ...]]:
    batch, ordinals = decode(chunks)
    value = [None if np.isnan(each) else each for each in batch.value.tolist()]
    columns = [column.tolist() for column in (batch.status, batch.server_time, batch.received_time, ordinals)]
    return list(zip(batch.source_time.tolist(), value, *columns, strict=True))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ROWS)
def test_sql_decodes_what_python_decodes(
    database: sqlite3.Connection, rows: list[tuple[int, int, float, int, int, int]]
) -> None:
    chunks = encode(*batch_of(rows))
    put(database, chunks)
    found = database.execute(ASK).fetchall()
    database.rollback()
    assert found == decoded(chunks)


def of_every_width() -> tuple[SampleBatch, NDArray[np.int16]]:
    """1,024 samples by kind of value, with times and clocks of every width."""
    random = np.random.default_rng(3)
    place = np.arange(512)
    kinds = [
        np.full(512, 2.5),
        np.full(512, np.nan),
        place % 3 / 10,
        place * 100,
        place * 1001 / 1000,
        64 + np.sqrt(place),
        place * 2.0**20 + 0.125,
        random.normal(size=512).astype(np.float32),
        random.normal(size=512),
        np.exp2(random.uniform(-1080, 1020, 512)) * np.where(place % 2, 1, -1),
        np.exp2(random.uniform(-148, 127, 512)).astype(np.float32),
        np.where(place % 5 == 0, np.inf, np.where(place % 7 == 0, np.nan, -random.random(512))),
    ]
    parts: list[SampleBatch] = []
    for number, value in enumerate(kinds):
        for wide in (1, 1 << 6 * (number % 8) + 1):
            source = NOON + SPAN * (len(parts) + 1) + place * SECOND + random.integers(0, min(wide, HOUR), 512)
            server = np.sort(source) + random.integers(-wide, wide + 1, 512)
            received = server + random.integers(0, wide + 1, 512)
            status = random.integers(0, 1 << min(4 * number, 32), 512)
            parts.append(SampleBatch.of(np.ones(512), np.sort(source), value, status, server, received))
    batch = SampleBatch.concatenate(parts)
    return batch, np.zeros(len(batch), np.int16)


def test_sqlite_decodes_chunks_of_every_width(database: sqlite3.Connection) -> None:
    chunks = encode(*of_every_width())
    assert {chunk.value_width for chunk in chunks} >= {0, 1, 2, 3, 4, 7, 8}
    assert {chunk.ieee for chunk in chunks} == {0, 32, 64}
    assert {chunk.received_width for chunk in chunks} >= {1, 2, 3, 4, 5, 6}
    put(database, chunks)
    assert database.execute(ASK).fetchall() == decoded(chunks)
    database.rollback()


async def test_postgresql_decodes_chunks_of_every_width(migrated_postgres: Database) -> None:
    chunks = encode(*of_every_width())
    reader = await asyncpg.connect(migrated_postgres.secret_url.replace("+asyncpg", ""), timeout=10)
    try:
        await reader.execute(
            "INSERT INTO tags (id, name, source, node, feature, unit, deadband) VALUES (1, 'a', 'p', '', 'f', 'K', 0)"
        )
        columns = [*Chunk._fields, "partition_id"]
        await reader.copy_records_to_table("sample_chunks", records=[(*c, 1) for c in chunks], columns=columns)
        assert [tuple(row) for row in await reader.fetch(ASK)] == decoded(chunks)
    finally:
        await reader.close(timeout=10)
    await asyncio.to_thread(migrate, migrated_postgres.secret_url, "0003")
    rows = migrated_postgres.psql("SELECT count(*), sum(source_time), sum(received_time), sum(status) FROM samples")
    batch = decode(chunks)[0]
    sums = [sum(column.tolist()) for column in (batch.source_time, batch.received_time, batch.status)]
    assert rows == [[str(number) for number in (len(batch), *sums)]]


def test_rows_and_chunks_are_seen_as_one_with_their_texts(database: sqlite3.Connection) -> None:
    time = NOON + SECOND * np.arange(4)
    batch = SampleBatch.of(np.ones(4), time, [1.5, 2.5, np.nan, 4.5], [0, 0, 2**31, 2**30], time + 1, time + 3)
    put(database, encode(batch, np.zeros(4, np.int16)))
    database.execute("INSERT INTO samples VALUES (?, 2, 0, 7.5, 0, 0, 0)", (NOON,))
    database.executemany(
        "INSERT INTO sample_texts VALUES (?, ?, 0, ?)", [(NOON, 2, "hot"), (NOON + 2 * SECOND, 1, "closed")]
    )
    rows = database.execute("SELECT tag, time, value, text, quality, unit FROM v_samples ORDER BY tag, time").fetchall()
    database.rollback()
    assert rows == [
        ("a", "2024-05-01T12:00:00.000000Z", 1.5, None, "Good", "K"),
        ("a", "2024-05-01T12:00:01.000000Z", 2.5, None, "Good", "K"),
        ("a", "2024-05-01T12:00:02.000000Z", None, "closed", "Bad", "K"),
        ("a", "2024-05-01T12:00:03.000000Z", 4.5, None, "Uncertain", "K"),
        ("b", "2024-05-01T12:00:00.000000Z", 7.5, "hot", "Good", "K"),
    ]


WINDOW = "tag = 'a' AND time_us >= 20 AND time_us < 30 AND block_start_us < 30 AND block_end_us >= 20"


def plan(database: sqlite3.Connection, query: str) -> str:
    return "\n".join(row[-1] for row in database.execute(f"EXPLAIN QUERY PLAN {query}"))


def test_a_filter_of_tag_and_time_reaches_the_keys_of_rows_and_chunks(database: sqlite3.Connection) -> None:
    for what in ("time, value", "avg(value)"):
        steps = plan(database, f"SELECT {what} FROM v_samples WHERE {WINDOW} AND block_start_us > 20 - {SPAN}")  # noqa: S608
        assert "h USING PRIMARY KEY (source_time>? AND source_time<?)" in steps
        assert "c USING INDEX sqlite_autoindex_sample_chunks_1 (tag_id=? AND first_time>? AND first_time<?)" in steps
    steps = plan(database, "SELECT value FROM v_samples WHERE tag = 'a' AND time_us >= 20 AND time_us < 30")
    assert "h USING PRIMARY KEY (source_time>? AND source_time<?)" in steps


def test_what_nobody_asks_for_is_not_decoded(database: sqlite3.Connection) -> None:
    """One column costs a fraction of all, for SQLite takes the view apart."""

    def steps(what: str) -> int:
        return len(database.execute(f"EXPLAIN SELECT {what} FROM v_samples").fetchall())  # noqa: S608

    assert steps("time_us") < steps("*") / 4
    assert "CO-ROUTINE s" not in plan(database, "SELECT time_us FROM v_samples")


def test_samples_outlive_the_way_down_and_up_again(tmp_path: Path) -> None:
    path = tmp_path / "historian.db"
    url = f"sqlite+aiosqlite:///{path}"
    migrate(url)
    batch, ordinals = of_every_width()
    chunks = encode(batch, ordinals)
    with closing(sqlite3.connect(path)) as database, database:
        put(database, chunks)
        database.execute("INSERT INTO samples VALUES (5, 1, 0, 1.5, 0, 6, 7)")
    migrate(url, "0003")
    migrate(url)
    columns = f"source_time, value, status, {clocks('samples')}, ordinal"
    with closing(sqlite3.connect(path)) as database:
        rows = database.execute(f"SELECT {columns} FROM samples ORDER BY tag_id, source_time").fetchall()  # noqa: S608
        assert rows == [(5, 1.5, 0, 11, 18, 0), *decoded(chunks)]
        assert database.execute("SELECT count(*) FROM sample_chunks").fetchall() == [(0,)]


async def test_what_a_store_has_closed_is_seen_as_what_it_reads(tmp_path: Path) -> None:
    random, path = np.random.default_rng(11), tmp_path / "historian.db"
    time = NOON + np.sort(random.integers(0, 6 * HOUR, 3_000)) // 1000 * 1000
    value = np.where(random.random(3_000) < 0.05, np.nan, np.round(random.normal(size=3_000), 2))
    tag = random.integers(1, 4, 3_000)
    batch = SampleBatch.of(tag, time, value, random.choice([0, 2**30, 2**31], 3_000), time + 5, time + 9)
    said = np.full(3_000, None, np.object_)
    said[::100] = "said"
    batch = replace(batch, text=said)
    late = batch.take(random.random(3_000) < 0.2)
    every = (-(2**62), 2**62)
    async with SqliteStore(f"sqlite+aiosqlite:///{path}") as store:
        await store.register_tags([Tag(name, "plant", f"nsu=urn:plant;s={name}") for name in "abc"])
        for part in (batch.take(slice(0, 2_000)), replace(late, source_time=late.source_time + 3), batch):
            await store.write([Delivery(part)])
            await store.close_before(int(time[1_500]))
        expected = await store.read_samples([1, 2, 3], *every)
    with closing(sqlite3.connect(path)) as database:
        hot = database.execute("SELECT count(*) FROM samples").fetchone()[0]
        rows = database.execute(
            "SELECT tag, time_us, value, status, server_time_us, text FROM v_samples ORDER BY tag, time_us, ordinal"
        ).fetchall()
    assert 1_000 < hot < 2_000, "the others are in chunks"
    assert len(rows) == len(expected) > 3_000
    assert [row[0] for row in rows] == ["_abc"[tag] for tag in expected.tag.tolist()]
    assert [row[1] for row in rows] == expected.source_time.tolist()
    assert [row[2] for row in rows] == [None if np.isnan(each) else each for each in expected.value.tolist()]
    assert [row[3] for row in rows] == expected.status.tolist()
    assert [row[4] for row in rows] == expected.server_time.tolist()
    assert expected.text is not None
    assert [row[5] for row in rows] == expected.text.tolist()
