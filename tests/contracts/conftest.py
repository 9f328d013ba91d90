"""The stores that the contract is asked of."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from plugin.historian.memory import MemoryStore
from plugin.historian.ring import Ring
from plugin.historian.sqlite_store import SqliteStore
from plugin.protocols import Store

RINGS: dict[str, Callable[[], Ring | None]] = {
    "sql": Ring,
    "sql with a short ring": lambda: Ring(samples=1),
    "sql without a ring": lambda: None,
}


@pytest.fixture(params=[*RINGS, "memory"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    if request.param == "memory":
        yield MemoryStore()
        return
    async with SqliteStore(f"sqlite+aiosqlite:///{tmp_path}/historian.db", ring=RINGS[request.param]()) as store:
        yield store
