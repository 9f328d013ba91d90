"""A production line for tests: a server that counts what it writes, a proxy, our source, and who keeps its values."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plugin.acquire.source import OpcUaSource
from plugin.diagnostics import Diagnostics
from tests.acceptance.account import Account, account
from tests.acceptance.proxy import Proxy
from tests.acceptance.scripted import Server
from tests.integration.acquire_plant import Historian, config, running, tags, until


@dataclass(frozen=True, slots=True)
class Line:
    """All parts, running."""

    server: Server
    proxy: Proxy
    source: OpcUaSource
    historian: Historian
    diagnostics: Diagnostics
    tags: int

    async def settled(self, seconds: float = 30.0) -> None:
        """The newest number that was written has come for every tag."""
        newest = [0] * (self.tags + 1)
        seen = 0

        def all_came() -> bool:
            nonlocal seen
            for batch in self.historian.batches[seen:]:
                for tag, value in zip(batch.tag.tolist(), batch.value.tolist(), strict=True):
                    newest[tag] = max(newest[tag], int(value)) if value > 0 else newest[tag]
            seen = len(self.historian.batches)
            return min(newest[1:]) >= self.server.last

        await until(all_came, seconds)

    def balance(self) -> Account:
        """The account, which must be sound."""
        names = {number + 1: f"t{number}" for number in range(self.tags)}
        found = account(self.server.times, names, self.historian.batches, self.historian.gaps.values())
        assert found.sound, found.faults[:5]
        return found

    def calm(self) -> None:
        """No task of ours broke down."""
        assert self.diagnostics.total("task_failures_total") == 0


@asynccontextmanager
async def line(
    folder: Path,
    tag_count: int = 3,
    *,
    server: Server | None = None,
    drop: Callable[[bytes], bool] | None = None,
    connected: bool = True,
    **more: Any,
) -> AsyncIterator[Line]:
    """Until the context ends; ``connected``: wait until values are expected. ``more``: fields of the source."""
    plant, historian, diagnostics = server or Server(tag_count), Historian(), Diagnostics()
    async with plant, Proxy(plant.port, drop) as proxy:
        source = OpcUaSource(config(proxy.port, **more), tags(tag_count), diagnostics, folder / "pki")
        async with running(source, historian):
            if connected:
                await until(source.connected)
            yield Line(plant, proxy, source, historian, diagnostics, tag_count)


async def at_once(cases: Mapping[str, Coroutine[Any, Any, None]]) -> None:
    """All cases side by side; raises those that failed, by name."""
    results = await asyncio.gather(*cases.values(), return_exceptions=True)
    failed = []
    for name, error in zip(cases, results, strict=True):
        if isinstance(error, Exception):
            error.add_note(f"in the case: {name}")
            failed.append(error)
    if failed:
        raise ExceptionGroup(f"{len(failed)} of {len(cases)} cases", failed)
