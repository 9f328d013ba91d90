"""The one bridge from the event loop to JAX: one thread for the device.

A compiled call releases the interpreter lock, so the loop stays prompt while the device works. The thread is niced and
JAX's backend starts in it: its worker threads inherit the lower priority and never starve acquisition. A fit occupies
the thread for long; whenever it reports progress, predictions that wait go first.
"""

import asyncio
import contextlib
import logging
import os
import queue
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
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
"""How long the end of the service waits for the device's thread [s]."""


class Cancelled(Exception):
    """Raised inside a fit, by its progress callback, when the service stops."""


class Compute:
    """A device and its thread; a context, entered once."""

    def __init__(self, device: str, cache: Path, diagnostics: Diagnostics, allowed: tuple[str, ...] = ()) -> None:
        self._name = device
        self._cache = cache
        self._diagnostics = diagnostics
        self._allowed = allowed
        self._stopping = threading.Event()
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        # No daemon: an interpreter that ends while a thread is inside the compiler is aborted.
        self._thread = threading.Thread(target=self._serve, name="device")
        self._beside = ThreadPoolExecutor(1, "beside the device")
        self.device: Any = None
        self.kinds: Mapping[str, ModelKind] = {}

    async def __aenter__(self) -> Self:
        self._thread.start()
        await self.run("infer", self._start)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._work.put(None)
        self._beside.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self._thread.join, _PATIENCE)
        if self._thread.is_alive():
            log.info("the device ends what it compiles at this moment; that can't be interrupted")

    def aside(self, stage: str, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Begin it in a thread beside the device's: for what takes long and must keep no prediction waiting."""

        def work() -> T:
            with contextlib.suppress(OSError, AttributeError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 2 * _NICENESS)
            with self._diagnostics.stage(stage):
                return function(*args, **kwargs)

        return self._beside.submit(work)

    async def run(self, stage: str, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run in the device's thread, its CPU time counted for ``stage``; cancelling the caller ends the wait."""
        result: Future[T] = Future()

        def work() -> None:
            if not result.set_running_or_notify_cancel():
                return
            try:
                with self._diagnostics.stage(stage):
                    found = function(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - whatever it was, it belongs to the caller
                result.set_exception(error)
            else:
                result.set_result(found)

        self._work.put(work)
        return await asyncio.wrap_future(result)

    def reporter(self, listener: Callable[[float, str], None]) -> Callable[[float, str], None]:
        """A progress callback for a fit in the thread: tells the loop, lets others go first, ends the fit on stop."""
        loop = asyncio.get_running_loop()

        def report(share: float, message: str) -> None:
            if self._stopping.is_set():
                raise Cancelled
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
                loop.call_soon_threadsafe(listener, share, message)
            self._let_others_go_first()

        return report

    def _serve(self) -> None:
        with contextlib.suppress(OSError, AttributeError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        while (work := self._work.get()) is not None:
            work()

    def _let_others_go_first(self) -> None:
        with contextlib.suppress(queue.Empty):
            while (work := self._work.get_nowait()) is not None:
                work()
            self._work.put(None)  # the end is for the thread itself to see

    def _start(self) -> None:
        runtime.enable_compile_cache(self._cache)
        self.device = runtime.choose_device(self._name)
        self.kinds = kinds(self._allowed)
