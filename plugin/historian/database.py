"""What the tables ask of whatever keeps them."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec, Protocol, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

P = ParamSpec("P")
T = TypeVar("T")


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


def to_its_end(method: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """A method that ends what it has begun before a cancellation goes on: bounded by the database's busy timeout.

    SQLAlchemy's transaction that is cancelled between two answers of the driver's thread leaves its connection in the
    middle of it, and the database locked for everybody.
    """

    @wraps(method)
    async def whole(*args: P.args, **kwargs: P.kwargs) -> T:
        task = asyncio.ensure_future(method(*args, **kwargs))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait({task})
            if not task.cancelled():
                task.exception()  # looked at, so that nobody is warned of it: the caller asked for no answer
            raise

    return whole
