"""Acquisition into a database and a spill, as a process that can be killed: ``python -m tests.acceptance.one_life``."""

import asyncio
import signal
import sys
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from plugin.acquire.source import OpcUaSource
from plugin.diagnostics import Diagnostics
from plugin.domain import Tag
from plugin.fields import ByteCount
from plugin.historian.config import SpillConfig
from plugin.historian.ingest import Ingest
from plugin.historian.spilling.spill import POSITION, Spill
from plugin.historian.sqlite.store import SqliteStore
from tests.acceptance.scripted import URI
from tests.integration.acquire_plant import config

TAGS, TOGETHER = 5, 2
"""Tags, and how many of them share a subscription."""


async def live(port: int, folder: Path, after: float = 60.0) -> None:
    """Until it is cancelled; ``after``: patience with the database before values go into the spill [s]."""
    diagnostics, wait = Diagnostics(), timedelta(milliseconds=100)
    async with SqliteStore(f"sqlite+aiosqlite:///{folder}/historian.db", diagnostics, busy_timeout=wait) as store:
        tags = await store.register_tags([Tag(f"t{n}", "plant", f"nsu={URI};s=t{n}") for n in range(TAGS)])
        spill = Spill(folder / "spill", SpillConfig(after=timedelta(seconds=after), reserve=ByteCount(0)))
        left = await spill.open(int((await store.checkpoints(POSITION)).get(POSITION, "0")))
        spill.know(tags)
        newest = await store.latest([tag.id for tag in tags])
        known = dict(zip(newest.tag.tolist(), newest.source_time.tolist(), strict=True))
        known |= {tag.id: max(left.known[tag.name], known.get(tag.id, 0)) for tag in tags if tag.name in left.known}
        marks = left.checkpoints_after(await store.checkpoints("plant/"), "plant/")
        settings = config(port, subscription_size=TOGETHER)
        sessions = folder / "sessions"
        source = OpcUaSource(settings, tags, diagnostics, folder / "pki", known, marks, session_folder=sessions)
        try:
            await Ingest([source], store, diagnostics, spill=spill).run()
        finally:
            spill.close()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job is born deaf to it
    with suppress(KeyboardInterrupt):  # asyncio.run has cancelled and awaited it
        asyncio.run(live(int(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])))
