"""The stores that the contract is asked of."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from plugin.historian.memory import MemoryStore
from plugin.historian.postgres.store import PostgresStore
from plugin.historian.recent.ring import Ring
from plugin.historian.sqlite.store import SqliteStore
from plugin.protocols import Store
from tests.postgres import Database

RINGS: dict[str, Callable[[], Ring | None]] = {
    "": Ring,
    " with a short ring": lambda: Ring(samples=1),
    " without a ring": lambda: None,
}
STORES = [*(f"sqlite{ring}" for ring in RINGS), "postgres", "postgres without a ring"]


@pytest.fixture(params=[*STORES, "memory"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    name, space, ring = request.param.partition(" ")
    opened: SqliteStore | PostgresStore
    if name == "memory":
        yield MemoryStore()
        return
    if name == "sqlite":
        opened = SqliteStore(f"sqlite+aiosqlite:///{tmp_path}/historian.db", ring=RINGS[space + ring]())
    else:
        database: Database = request.getfixturevalue("migrated_postgres")
        opened = PostgresStore(database.secret_url, ring=RINGS[space + ring]())
    async with opened as store:
        yield store
