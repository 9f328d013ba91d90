"""Several gateways on one database: what one does until it leads its shard, and how it hears that it leads no more.

    waiting ──lock──> leading ──another epoch──> waiting        (SQLite: leading from start to stop)

A gateway that waits acquires nothing and publishes nothing. What lies in its spill from a time when it led it still
brings into the database: samples are written once however often they come, and of progress it says nothing.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from plugin.config import Config
from plugin.diagnostics import Diagnostics
from plugin.errors import StoreUnavailable
from plugin.historian.ingest import Ingest
from plugin.historian.postgres.fence import Fence
from plugin.historian.postgres.leadership import Candidate, Leader, Leadership
from plugin.historian.spilling.spill import Spill
from plugin.opening import (
    Stopped,
    gateway_of,
    know_gaps,
    open_spill,
    open_store,
    shared_server,
    spill_of,
    when_available,
)
from plugin.protocols import Store
from plugin.tasks import Supervision, running

log = logging.getLogger(__name__)

T = TypeVar("T")

_PAUSE = 1.0
"""Before a database that is away is asked again [s]."""


@dataclass(frozen=True, slots=True)
class Term:
    """While it lasts this gateway acquires, scores and publishes."""

    over: asyncio.Event
    """Set when it is told to stop, or another gateway leads."""
    fence: Fence | None = None
    """What every write is checked against; None: the database is this gateway's alone."""


@asynccontextmanager
async def leading(config: Config, diagnostics: Diagnostics, stop: asyncio.Event) -> AsyncIterator[Term]:
    """Wait until this gateway leads its shard; it does until the context ends. Stopped where ``stop`` is set before."""
    server = shared_server(config)
    if server is None:
        yield Term(stop)
        return
    sources = tuple(source.name for source in config.sources if source.enabled)
    models = tuple(model.name for model in config.models)
    candidate = Candidate(config.historian.shard, gateway_of(config.data), sources, models)
    told = _Told(candidate, diagnostics)
    leadership = Leadership(server, candidate)
    try:
        fence = await _unless(stop, _gain(config, diagnostics, leadership, told, stop))
        told.leads(fence)
        over = asyncio.Event()
        async with running(_forward(stop, over), _keep(leadership, fence, told, over)):
            yield Term(over, fence)
    finally:
        told.leads(None)
        await leadership.close()


class _Told:
    """What a person sees of it: a metric, and a line for each change."""

    def __init__(self, candidate: Candidate, diagnostics: Diagnostics) -> None:
        self._mine = candidate
        self._diagnostics = diagnostics
        self._leader = ""
        self.leads(None)

    def leads(self, fence: Fence | None) -> None:
        """We do, or nobody that we know of."""
        self._diagnostics.leader.labels(self._mine.shard).set(fence is not None)
        if fence is not None:
            log.info("leading shard %r, term %d", fence.shard, fence.epoch)
            self._is_led_by(self._mine.holder)

    def other(self, leader: Leader) -> None:
        """Another process does."""
        if self._leader != leader.holder:
            log.info("standing by for shard %r, which %s leads", self._mine.shard, leader.holder)
        self._is_led_by(leader.holder)

    def _is_led_by(self, holder: str) -> None:
        self._leader = holder
        self._diagnostics.shard.labels(self._mine.shard).info({"leader": holder})


async def _gain(
    config: Config, diagnostics: Diagnostics, leadership: Leadership, told: _Told, stop: asyncio.Event
) -> Fence:
    """Ready to lead: the database is as this release needs it, and what is in the spill is known."""
    async with AsyncExitStack() as stack:
        store = await when_available(
            stop, lambda: stack.enter_async_context(open_store(config, diagnostics, alone=False))
        )
        spill = spill_of(config)
        if spill is None:
            return await leadership.gain(told.other)
        await when_available(stop, lambda: open_spill(spill, store, (), diagnostics))
        stack.callback(spill.close)
        replaced = asyncio.Event()

        def seen(leader: Leader) -> None:
            told.other(leader)
            if leader.gateway != leadership.candidate.gateway:
                replaced.set()

        bring = partial(_bring_what_is_left, config, diagnostics, store, spill, replaced)
        async with running(Supervision(diagnostics).keep("bringing what is in the spill", bring)):
            return await leadership.gain(seen, spill.disown)


async def _bring_what_is_left(
    config: Config, diagnostics: Diagnostics, store: Store, spill: Spill, replaced: asyncio.Event
) -> None:
    """When another gateway leads: what a term of ours has left in the spill goes into the database."""
    await replaced.wait()
    if spill.empty:
        return
    rows = spill.rows
    while True:
        try:
            await spill.disown()
            spill.know(await store.register_tags(config.tags))
            await know_gaps(spill, store)
            break
        except StoreUnavailable:  # whoever tries for the lock has said so
            await asyncio.sleep(_PAUSE)
    await Ingest([], store, diagnostics, rows_per_commit=config.historian.rows_per_commit, spill=spill).run()
    log.info("the %d samples that were in the spill are in the database", rows)


async def _keep(leadership: Leadership, fence: Fence, told: _Told, over: asyncio.Event) -> None:
    successor = await leadership.keep(fence)
    log.warning("%s leads shard %r now: acquiring and scoring end here", successor.holder, fence.shard)
    told.leads(None)
    over.set()


async def _forward(event: asyncio.Event, to: asyncio.Event) -> None:
    await event.wait()
    to.set()


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T:
    """What the work gives; Stopped where ``stop`` is set before."""
    task, told = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({task, told}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise Stopped
    finally:
        for each in (task, told):
            each.cancel()
        await asyncio.gather(task, told, return_exceptions=True)
