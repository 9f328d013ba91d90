"""The historian on PostgreSQL, beside a raw binary COPY of the same rows into a table of the same columns and key.

The server is the tests' own: it does not wait for its disk, so what is compared is work.
"""

import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext
from typing import Any

import asyncpg

from plugin.domain import SampleBatch, Tag
from plugin.historian.postgres.copying import STORED, encoded
from plugin.historian.postgres.partitions import Partitions
from plugin.historian.postgres.store import PostgresStore
from plugin.protocols import Delivery
from tests.benchmarks._plain import BEGIN
from tests.postgres import Database, Postgres, installed

_PLAIN = """
CREATE TABLE plain (source_time bigint, tag_id int, ordinal smallint, value double precision, status bigint,
  server_delay bigint, received_delay bigint, PRIMARY KEY (source_time, tag_id, ordinal))
"""


@contextmanager
def server() -> Iterator[Postgres]:
    """Running; NoPostgres says why there is none."""
    installed()
    running = Postgres()
    try:
        running.create()
        yield running
    finally:
        running.remove()


async def rates(server: Postgres, tags: int, batches: Sequence[SampleBatch]) -> tuple[float, float]:
    """Rows per second of ours, into partitions made ahead as the service has them, and of a raw COPY.

    In turns, batch by batch: whatever else the machine does slows both.
    """
    ours, theirs = server.fresh(), server.fresh()
    async with _store(ours, tags) as store, _connected(theirs) as connection:
        await connection.execute(_PLAIN)
        took = [0.0, 0.0]
        for batch in batches:
            begin = time.perf_counter()
            assert not (await store.write([Delivery(batch)])).duplicates
            middle = time.perf_counter()
            await connection.copy_to_table("plain", source=_pieces(batch), format="binary")
            took = [took[0] + middle - begin, took[1] + time.perf_counter() - middle]
    rows = sum(map(len, batches))
    return rows / took[0], rows / took[1]


@asynccontextmanager
async def _store(database: Database, tags: int) -> AsyncIterator[PostgresStore]:
    async with PostgresStore(database.secret_url) as store:
        await store.register_tags([Tag(f"t{n}", "plant", f"nsu=urn:plant;s=t{n}") for n in range(1, tags + 1)])
        async with _connected(database) as connection:
            await Partitions(lambda: nullcontext(connection), lambda: BEGIN, closing=True).tend()
        yield store


@asynccontextmanager
async def _connected(database: Database) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(database.secret_url.replace("+asyncpg", ""))
    try:
        yield connection
    finally:
        await connection.close()


async def _pieces(batch: SampleBatch) -> AsyncIterator[bytes]:
    for piece in encoded(batch, STORED):
        yield piece
