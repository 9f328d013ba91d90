"""A process that is killed while it writes: whatever it confirmed is there, and the database opens."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from plugin.historian.migrate import check_revision

KILLS = 6
WRITER = """
import asyncio, itertools, sys
import numpy as np
from plugin.domain import SampleBatch, Tag
from plugin.historian.sql import SqlStore
from plugin.protocols import Delivery

async def main():
    async with SqlStore(sys.argv[1]) as store:
        (tag,) = await store.register_tags([Tag("T", "plant", "nsu=urn:plant;s=T")])
        stored = (await store.latest([tag.id])).source_time
        first = int(stored[0]) + 1 if len(stored) else 0
        for size in itertools.cycle((1, 700, 20, 3000)):
            time = np.arange(first, first + size)
            batch = SampleBatch.of(np.full(size, tag.id), time, time * 0.5, 0, time, time)
            await store.write([Delivery(batch, checkpoint={"next": str(first + size)})])
            first += size
            print(first, flush=True)

asyncio.run(main())
"""


def confirmed_until_killed(url: str, lines: int) -> int:
    """The number of rows that the writer had confirmed when it was killed after so many commits."""
    writer = subprocess.Popen([sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    with writer, writer.stdout as output:
        read = [int(output.readline()) for _ in range(lines)]
        os.kill(writer.pid, signal.SIGKILL)
        return [*read, *(int(line) for line in output if line.endswith("\n"))][-1]


def test_what_was_confirmed_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "historian.db"
    url = f"sqlite+aiosqlite:///{path}"
    chance = random.Random(4)
    for _ in range(KILLS):
        confirmed = confirmed_until_killed(url, chance.randrange(1, 30))
        check_revision(url)
        with closing(sqlite3.connect(path)) as database:
            count, newest = database.execute("SELECT count(*), max(source_time) FROM samples").fetchone()
            assert count == newest + 1 >= confirmed
            assert database.execute("SELECT value FROM checkpoints").fetchone() == (str(count),)
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
