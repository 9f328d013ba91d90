"""What the tables ask of whatever keeps them."""

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncConnection


@dataclass(frozen=True, slots=True)
class Room:
    """What a database takes up of its disk."""

    used: int
    """What it holds; pages that are free inside it are left out [byte]."""
    free: int | None
    """By how much it can still grow [byte]; None: its disk can't be seen from here."""


class Database(Protocol):
    """Where the tables are. Its errors are :class:`plugin.errors.StoreError` and StoreUnavailable."""

    def reading(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A transaction that sees one moment."""

    def writing(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A transaction that is committed where the context ends well."""

    async def size(self) -> int:
        """On disk [byte]."""

    async def room(self) -> Room:
        """How much of its disk it takes up."""
