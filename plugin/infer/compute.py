"""The one bridge from the event loop to JAX: one thread for the device.

A compiled call releases the interpreter lock, so the loop stays prompt while the device works. The thread is niced, and
JAX's backend starts in it: its worker threads inherit the lower priority and never starve acquisition.
"""

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

from models import catalogue, runtime
from models.kind import ModelKind
from plugin.diagnostics import Diagnostics

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)

_NICENESS = 5


class Cancelled(Exception):
    """Raised inside a fit, by its progress callback, when the service stops."""


class Compute:
    """A device and its thread; a context, entered once."""

    def __init__(self, device: str, cache: Path, diagnostics: Diagnostics, kinds: tuple[str, ...] = ()) -> None:
        self._name = device
        self._cache = cache
        self._diagnostics = diagnostics
        self._allowed = kinds
        self._stopping = threading.Event()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="device")
        self.device: Any = None
        self.kinds: Mapping[str, ModelKind] = {}

    async def __aenter__(self) -> Self:
        await self.run(self._start)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run in the device's thread, its CPU time counted; the wait ends when the caller is cancelled."""

        def timed() -> T:
            with self._diagnostics.stage("infer"):
                return function(*args, **kwargs)

        return await asyncio.get_running_loop().run_in_executor(self._executor, timed)

    def reporter(self, listener: Callable[[float, str], None]) -> Callable[[float, str], None]:
        """A progress callback for a fit in the thread: forwards to the loop, and ends the fit when we stop."""
        loop = asyncio.get_running_loop()

        def report(share: float, message: str) -> None:
            if self._stopping.is_set():
                raise Cancelled
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
                loop.call_soon_threadsafe(listener, share, message)

        return report

    def _start(self) -> None:
        with contextlib.suppress(OSError, AttributeError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        runtime.enable_compile_cache(self._cache)
        self.device = runtime.choose_device(self._name)
        self.kinds = catalogue.kinds(self._allowed)
