"""What is opened before anything runs: the database, waited for where it is away, the spill, and the device."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar
from uuid import UUID, uuid4

from plugin.config import Config
from plugin.diagnostics import Diagnostics
from plugin.domain import Gap, SampleBatch, Tag
from plugin.errors import StoreUnavailable
from plugin.historian.postgres.connections import Place, PostgresServer
from plugin.historian.postgres.fence import Fence
from plugin.historian.spilling.spill import POSITION, Left, Spill
from plugin.historian.sqlite.integrity import check
from plugin.historian.stores import SqlStore, configured
from plugin.infer.compute import Compute
from plugin.pki import write_private
from plugin.protocols import Delivery, Store

log = logging.getLogger(__name__)

T = TypeVar("T")

_GAPS = 1_000_000
_PAUSE = 1.0
"""Between two tries of a database that is away [s]."""


class Stopped(Exception):
    """Stopped while waiting for the database."""


async def when_available(stop: asyncio.Event, call: Callable[[], Awaitable[T]]) -> T:
    """What a step of the start gives, tried until the database is there; Stopped where ``stop`` is set before."""
    said = False
    while True:
        try:
            return await call()
        except StoreUnavailable as error:
            if not said:
                log.warning("waiting for the database: %s", error)
            said = True
        with suppress(TimeoutError):
            async with asyncio.timeout(_PAUSE):
                await stop.wait()
            raise Stopped


def gateway_of(data: Path) -> str:
    """Who works on this data folder, among several gateways: a UUID, made at the first time and kept in the folder."""
    path = data / "gateway"
    with suppress(FileNotFoundError, ValueError):
        return str(UUID(path.read_text(encoding="ascii").strip()))
    found = str(uuid4())
    write_private(path, f"{found}\n".encode())
    return found


def shared_server(config: Config) -> PostgresServer | None:
    """The server of a database that other gateways may use too; None: the database is this one's alone."""
    if not config.historian.on_postgres:
        return None
    return PostgresServer(Place.of(config.historian.located(config.data)))


async def look_over(config: Config) -> None:
    """StoreDamaged where the database's file is, as far as a few seconds show. PostgreSQL looks after its own."""
    path = config.database
    if path is not None and path.exists():
        await asyncio.to_thread(check, path)


def open_store(config: Config, diagnostics: Diagnostics, *, alone: bool, fence: Fence | None = None) -> SqlStore:
    """The historian of a configuration; a context.

    ``alone``: this process writes the samples, so its ring of recent ones may stand in for the database, where there
    are models to read it. One beside a running service reads the database itself. ``fence``: of its term, where other
    gateways may use the database too.
    """
    with_ring = alone and bool(config.models)
    return configured(config.historian, config.data, diagnostics, with_ring=with_ring, fence=fence)


def spill_of(config: Config) -> Spill | None:
    """Where samples wait for the database; None: nowhere. On a database that is shared each has a position there."""
    mark = f"{POSITION}/{gateway_of(config.data)}" if config.historian.on_postgres else POSITION
    return Spill.configured(config.historian.spill, config.data, mark)


async def open_spill(spill: Spill | None, store: Store, tags: Sequence[Tag], diagnostics: Diagnostics) -> Left:
    """Take the spill, where there is one: what is left in it and the database does not have yet."""
    if spill is None:
        return Left({}, {})
    place = (await store.checkpoints(spill.mark)).get(spill.mark, "0")
    left = await spill.open(int(place))
    if spill.disowned:
        await know_gaps(spill, store)
    spill.know(tags)
    diagnostics.spill_torn.inc(spill.torn)
    if spill.rows:
        log.warning("%d samples of a run before this one are in the spill %s", spill.rows, spill.folder)
    return left


async def give_up_forsaken(store: SqlStore, sources: Collection[str]) -> None:
    """Open gaps of sources that were taken out of the file: else they would last for ever."""
    gaps = await store.forsaken_gaps(sources)
    if not gaps:
        return
    why, now = "the source was removed from the configuration", datetime.now(UTC)
    given_up = Delivery(SampleBatch.empty(), tuple(gap.given_up(why, now) for gap in gaps))
    names = ", ".join(sorted({gap.source for gap in gaps}))
    try:
        await store.write([given_up])
    except StoreUnavailable as error:  # nothing has to wait for it
        log.warning(
            "%d gap(s) of %s, configured no longer, stay open until the next start: %s", len(gaps), names, error
        )
    else:
        log.warning("%d gap(s) of %s, configured no longer, can't be filled any more", len(gaps), names)


async def open_gaps(store: Store, source: str) -> tuple[Gap, ...]:
    """All of a source's that may still be filled."""
    return await store.gaps(open_only=True, source=source, limit=_GAPS)


async def know_gaps(spill: Spill, store: Store) -> None:
    """What is left of a time before another gateway went on says nothing of gaps that the database has."""
    spill.know_gaps({gap.id for gap in await store.gaps(limit=_GAPS)})


def open_compute(config: Config, diagnostics: Diagnostics) -> Compute:
    """The device of a configuration and its thread; a context."""
    return Compute(config.runtime.device, config.data / "compiled", diagnostics, config.runtime.third_party_kinds)
