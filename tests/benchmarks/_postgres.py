"""The historian on PostgreSQL, beside a raw binary COPY of the same rows into a table of the same columns and key.

The server is the tests' own: it does not wait for its disk, so what is compared is work.
"""

import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager

import asyncpg

from plugin.domain import SampleBatch, Tag
from plugin.historian.postgres.copying import STORED, encoded
from plugin.historian.postgres.store import PostgresStore
from plugin.protocols import Delivery
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


async def stored(database: Database, tags: int, batches: Sequence[SampleBatch]) -> float:
    """Rows per second."""
    async with PostgresStore(database.secret_url) as store:
        await store.register_tags([Tag(f"t{n}", "plant", f"nsu=urn:plant;s=t{n}") for n in range(1, tags + 1)])
        begin = time.perf_counter()
        for batch in batches:
            assert not (await store.write([Delivery(batch)])).duplicates
        return sum(map(len, batches)) / (time.perf_counter() - begin)


async def copied(database: Database, batches: Sequence[SampleBatch]) -> float:
    """The same, raw."""
    connection = await asyncpg.connect(database.secret_url.replace("+asyncpg", ""))
    try:
        await connection.execute(_PLAIN)
        begin = time.perf_counter()
        for batch in batches:
            await connection.copy_to_table("plain", source=_pieces(batch), format="binary")
        return sum(map(len, batches)) / (time.perf_counter() - begin)
    finally:
        await connection.close()


async def _pieces(batch: SampleBatch) -> AsyncIterator[bytes]:
    for piece in encoded(batch, STORED):
        yield piece
