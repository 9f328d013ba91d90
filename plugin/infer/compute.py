"""The one bridge from the event loop to JAX: a thread for predictions, and three for what may take long.

A compiled call releases the interpreter lock, so the loop stays prompt while the device works. No prediction waits for
a fit, for the compiler or for the reasons of another: they have threads of their own, and the operating system shares
the processor out between them. All are niced; JAX's backend starts in the first, so that its worker threads inherit the
lower priority and never starve acquisition.
"""

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

from models import runtime
from models.catalogue import kinds
from models.kind import ModelKind
from plugin.diagnostics import Diagnostics

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)

_NICENESS = 5
_PATIENCE = 2.0
"""How long the end of the service waits for these threads [s]."""


class Cancelled(Exception):
    """Raised inside a fit, by its progress callback, when the service stops."""


class Compute:
    """A device and its threads; a context, entered once."""

    def __init__(self, device: str, cache: Path, diagnostics: Diagnostics, allowed: tuple[str, ...] = ()) -> None:
        self._name = device
        self._cache = cache
        self._diagnostics = diagnostics
        self._allowed = allowed
        self._stopping = threading.Event()
        # No daemons: an interpreter that ends while a thread is inside the compiler is aborted.
        self._predicting = ThreadPoolExecutor(1, "device", initializer=_nice)
        self._preparing = ThreadPoolExecutor(1, "beside the device", initializer=_nice)
        self._explaining = ThreadPoolExecutor(1, "explaining", initializer=_nice)
        self._training = ThreadPoolExecutor(1, "training", initializer=_nice)
        self._begun: set[Future[Any]] = set()
        self.device: Any = None
        self.kinds: Mapping[str, ModelKind] = {}

    async def __aenter__(self) -> Self:
        await self.run("infer", self._start)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        for threads in (self._predicting, self._preparing, self._explaining, self._training):
            threads.shutdown(wait=False, cancel_futures=True)
        _, going_on = await asyncio.to_thread(wait, tuple(self._begun), _PATIENCE)
        if going_on:
            log.info("the device ends what it compiles at this moment; that can't be interrupted")

    async def run(self, stage: str, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """A prediction, and what else takes no longer; its CPU time counts for ``stage``. Cancelling ends the wait."""
        return await asyncio.wrap_future(self._begin(self._predicting, stage, partial(function, *args, **kwargs)))

    async def fit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """A training; one after the other."""
        return await asyncio.wrap_future(self._begin(self._training, "train", partial(function, *args, **kwargs)))

    async def explain(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Why predictions are as they are. Cancelling ends the wait, and what had not begun."""
        return await asyncio.wrap_future(self._begin(self._explaining, "explain", partial(function, *args, **kwargs)))

    def aside(self, stage: str, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Begin what makes a version ready, and compiles: no prediction is to wait for it."""
        return self._begin(self._preparing, stage, partial(function, *args, **kwargs))

    def _begin(self, threads: ThreadPoolExecutor, stage: str, function: Callable[[], T]) -> Future[T]:
        todo = [function]

        def work() -> T:
            with self._diagnostics.stage(stage):
                return todo.pop()()

        future = threads.submit(work)
        self._begun.add(future)
        future.add_done_callback(self._begun.discard)
        # What nobody waits for any more stands in the queue until its turn, behind a device that may hang: without
        # the windows that it was to look at.
        future.add_done_callback(lambda _: todo.clear())
        return future

    def reporter(self, listener: Callable[[float, str], None]) -> Callable[[float, str], None]:
        """A progress callback for a fit: tells the loop, ends the fit on stop."""
        loop = asyncio.get_running_loop()

        def report(share: float, message: str) -> None:
            if self._stopping.is_set():
                raise Cancelled
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
                loop.call_soon_threadsafe(listener, share, message)

        return report

    def _start(self) -> None:
        runtime.enable_compile_cache(self._cache)
        self.device = runtime.choose_device(self._name)
        self.kinds = kinds(self._allowed)


def _nice() -> None:
    """The calling thread alone, as Linux can."""
    with contextlib.suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
