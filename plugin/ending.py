"""What must not be cut off in the middle."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def to_its_end(method: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """A method that ends what it has begun before a cancellation goes on; what it awaits has to be bounded in time.

    SQLAlchemy's transaction that is cancelled between two answers of the driver's thread leaves its connection in the
    middle of it, and the database locked for everybody. A call of a client that goes away would be stored, and then
    neither be in force nor on record.
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
