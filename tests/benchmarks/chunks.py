"""What a closed sample costs: bytes in the file, coding and decoding it, and reading it with plain SQL.

Signals as plants have them: a sample a second with the jitter of a scan cycle and stamps of whole milliseconds, heard
up to a second later; 16 tags of 4,096 samples each.
"""

import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from plugin.domain import SampleBatch
from plugin.historian.closed.chunks import Chunk, decode, encode
from plugin.historian.migrate import migrate
from tests.benchmarks.harness import Goal, Row, Spread

TAGS, SAMPLES = 16, 4_096
_BEGIN, _SECOND, _DAY = 1_714_521_600_000_000, 1_000_000, 86_400_000_000
_PAGE = 4_096

Walk = NDArray[np.float64]
_SIGNALS: Mapping[str, Callable[[Walk], NDArray[np.floating]]] = {
    "a PLC's real": lambda walk: (50 + walk / 10).astype(np.float32),
    "two decimals": lambda walk: np.round(50 + walk, 2),
    "a counter": lambda walk: 1e6 + np.cumsum(np.abs(walk) > 1, axis=1),
    "on and off": lambda walk: (walk > 0).astype(np.float64),
    "a full double": lambda walk: 50 + walk,
}


async def measure(quick: bool) -> Sequence[Row]:
    """By kind of signal, then all of them in one file."""
    times = 3 if quick else 7
    rows, batches = [], []
    for number, (name, signal) in enumerate(_SIGNALS.items()):
        batch = _batch(signal, 1 + number * TAGS)
        rows += _coded(name, batch, times)
        batches.append(batch)
    usual = SampleBatch.concatenate(batches[:-1])
    rows += [
        Row("the first four together: in SQLite's file", Spread.of([_bytes(usual)]), "B", goal=Goal(12)),
        Row("full doubles: in SQLite's file", Spread.of([_bytes(batches[-1])]), "B"),
    ]
    return [*rows, *_in_sql(SampleBatch.concatenate(batches), times)]


def _batch(signal: Callable[[Walk], NDArray[np.floating]], first_tag: int) -> SampleBatch:
    random, shape = np.random.default_rng(first_tag), (TAGS, SAMPLES)
    source = _BEGIN + _SECOND * np.arange(SAMPLES) + 1000 * random.integers(0, 20, shape)
    server = source + 1000 * random.integers(0, 50, shape)
    received = server + random.integers(0, _SECOND, shape)
    value = signal(random.normal(size=shape).cumsum(axis=1))
    tag = np.repeat(np.arange(first_tag, first_tag + TAGS), SAMPLES)
    return SampleBatch.of(tag, source.ravel(), value.ravel(), 0, server.ravel(), received.ravel())


def _coded(name: str, batch: SampleBatch, times: int) -> list[Row]:
    figures = []
    for _ in range(times):
        begin = time.perf_counter()
        chunks = _chunks(batch)
        middle = time.perf_counter()
        decode(chunks)
        figures.append((1e9 * (middle - begin) / len(batch), 1e9 * (time.perf_counter() - middle) / len(batch)))
    size = sum(len(chunk.data) for chunk in chunks) / len(batch)
    return [
        Row(f"{name}: codes", Spread.of([size]), "B"),
        Row(f"{name}: coded", Spread.of(each for each, _ in figures), "ns", goal=Goal(333)),
        Row(f"{name}: decoded", Spread.of(each for _, each in figures), "ns", goal=Goal(100)),
    ]


def _chunks(batch: SampleBatch) -> list[Chunk]:
    return encode(batch, np.zeros(len(batch), np.int16))


def _bytes(batch: SampleBatch) -> float:
    """A sample in the file, indices included."""
    with _database(SampleBatch.empty()) as empty, _database(batch) as full:
        pages = [database.execute("PRAGMA page_count").fetchone()[0] for database in (empty, full)]
    return float(_PAGE * (pages[1] - pages[0]) / len(batch))


@contextmanager
def _database(batch: SampleBatch) -> Iterator[sqlite3.Connection]:
    with tempfile.TemporaryDirectory(prefix="foretag-benchmark-") as folder:
        path = Path(folder) / "historian.db"
        migrate(f"sqlite+aiosqlite:///{path}")
        with closing(sqlite3.connect(path)) as database:
            tags = [(tag, f"t{tag}") for tag in np.unique(batch.tag).tolist()]
            columns = "id, name, source, node, feature, unit, deadband"
            database.executemany(f"INSERT INTO tags ({columns}) VALUES (?, ?, '', '', '', '', 0)", tags)  # noqa: S608
            names, places = ", ".join(Chunk._fields), ", ".join("?" * len(Chunk._fields))
            insert = f"INSERT INTO sample_chunks ({names}, partition_id) VALUES ({places}, 1)"  # noqa: S608
            database.executemany(insert, _chunks(batch))
            database.commit()
            yield database


def _in_sql(batch: SampleBatch, times: int) -> list[Row]:
    rows = []
    with _database(batch) as database:
        for number, name in enumerate(_SIGNALS):
            ask = f"SELECT time_us, value FROM v_samples WHERE tag = 't{1 + number * TAGS}'"  # noqa: S608
            rows.append(Row(f"{name}: time and value by SQL", _asked(database, ask, 1e6 / SAMPLES, times), "µs"))
        start, end = _BEGIN + 400 * _SECOND, _BEGIN + 4_000 * _SECOND
        hour = (
            "SELECT time, value, quality FROM v_samples "  # noqa: S608
            f"WHERE tag = 't1' AND time_us >= {start} AND time_us < {end} AND block_start_us > {start - _DAY} "
            f"AND block_start_us < {end} AND block_end_us >= {start} ORDER BY time_us"
        )
        rows.append(Row("an hour of one tag by SQL", _asked(database, hour, 1e3, times), "ms"))
    return rows


def _asked(database: sqlite3.Connection, query: str, scale: float, times: int) -> Spread:
    figures = []
    for _ in range(times):
        begin = time.perf_counter()
        database.execute(query).fetchall()
        figures.append(scale * (time.perf_counter() - begin))
    return Spread.of(figures)
