"""Which store a configuration asks for."""

from collections.abc import Collection
from pathlib import Path
from typing import Protocol, Self

from plugin.diagnostics import Diagnostics
from plugin.domain import Gap
from plugin.historian.config import HistorianConfig
from plugin.historian.keeping.upkeep import Chore
from plugin.historian.postgres.fence import Fence
from plugin.historian.postgres.store import PostgresStore
from plugin.historian.sqlite.store import SqliteStore
from plugin.historian.tables import Summary
from plugin.protocols import Store


class SqlStore(Store, Protocol):
    """A store in a database, open while the context lasts."""

    async def keep_recent(self, tags: Collection[int]) -> None:
        """Have the ring, where there is one, hold these tags and no others: those that are read again and again."""

    async def forsaken_gaps(self, sources: Collection[str]) -> tuple[Gap, ...]:
        """Open gaps that nobody looks after: their source is none of these, nor another gateway's."""

    async def product(self) -> str:
        """What database it is, with its version, for a person."""

    async def used(self) -> int:
        """What it holds now, without its free pages [byte]."""

    async def summary(self) -> Summary:
        """Rows, newest sample, size on disk and open gaps."""

    def chores(self, config: HistorianConfig) -> tuple[Chore, ...]:
        """What is to be done beside the writing, for as long as the service runs."""

    async def __aenter__(self) -> Self:
        """Make a new database or check the one that is there, and fill the ring from it."""

    async def __aexit__(self, *_error: object) -> None:
        """Close it."""


def configured(
    config: HistorianConfig,
    data: Path,
    diagnostics: Diagnostics,
    *,
    with_ring: bool = True,
    fence: Fence | None = None,
) -> SqlStore:
    """The store, not yet open; relative files lie in ``data``.

    ``with_ring``: one that holds nothing until ``keep_recent``; False for a command beside the running service.
    ``fence``: of the gateway that leads, where several may share the database.
    """
    if config.on_postgres:
        return PostgresStore.configured(config, data, diagnostics, with_ring=with_ring, fence=fence)
    return SqliteStore.configured(config, data, diagnostics, with_ring=with_ring)
