"""The plant goes quiet and we end, politely or not: its last number is stored, though nothing follows to tell of it."""

import asyncio
import io
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.channel import Connection
from tests.acceptance.line import at_once
from tests.acceptance.one_life import TAGS, TOGETHER, live
from tests.acceptance.proxy import Fault, Proxy
from tests.acceptance.scripted import Server, answering
from tests.integration.acquire_plant import until

SUBSCRIPTIONS = -(-TAGS // TOGETHER)
PATIENT, HASTY = 60.0, 0.05  # [s] with a database that is away


@dataclass(frozen=True, slots=True)
class Scene:
    """A plant, the line to it, and the folder of our database."""

    server: Server
    proxy: Proxy
    folder: Path

    @contextmanager
    def locked(self) -> Iterator[None]:
        with closing(sqlite3.connect(self.folder / "historian.db", isolation_level=None, timeout=10)) as other:
            other.execute("BEGIN EXCLUSIVE")
            yield

    def stored(self) -> list[list[float]]:
        """The numbers of each tag in their order; the initial value is none."""
        if not (self.folder / "historian.db").exists():
            return []
        query = "SELECT value FROM samples JOIN tags ON tags.id = tag_id WHERE name = ? AND value > 0 ORDER BY value"
        with closing(sqlite3.connect(self.folder / "historian.db")) as database, suppress(sqlite3.OperationalError):
            return [[value for (value,) in database.execute(query, (f"t{tag}",))] for tag in range(TAGS)]
        return []

    def complete(self) -> bool:
        return self.stored() == [[float(number) for number in range(1, self.server.last + 1)]] * TAGS

    def acknowledged(self) -> bool:
        standing = self.server.subscriptions.values()
        return len(standing) == SUBSCRIPTIONS and not any(each.kept for each in standing)

    def sent(self) -> bool:
        """The last number went out, in a message of each subscription."""
        items = [item for each in self.server.subscriptions.values() for item in each.items.values()]
        return not any(item.queue for item in items)


async def at_rest(scene: Scene, after: float) -> asyncio.subprocess.Process:
    """Our first life, with three numbers stored and acknowledged."""
    command = (sys.executable, "-m", "tests.acceptance.one_life", str(scene.proxy.port), str(scene.folder), str(after))
    process = await asyncio.create_subprocess_exec(*command)
    try:
        await until(lambda: bool(scene.server.subscriptions) and scene.acknowledged(), 60)
        for _ in range(3):
            scene.server.write()
            await until(lambda: scene.complete() and scene.acknowledged(), 30)
    except BaseException:
        process.kill()
        await process.wait()
        raise
    return process


# --- how far the last number has come when we end ---


@asynccontextmanager
async def written(scene: Scene) -> AsyncIterator[None]:
    """Somewhere between the plant and the database."""
    scene.server.write()
    yield


@asynccontextmanager
async def on_its_way(scene: Scene) -> AsyncIterator[None]:
    """Sent, and never received."""
    await scene.proxy.strike(Fault.HOLE_DOWN)
    scene.server.write()
    await until(scene.sent)
    yield
    await scene.proxy.mend()


@asynccontextmanager
async def received(scene: Scene) -> AsyncIterator[None]:
    """In memory, for the database takes nothing."""
    with scene.locked():
        scene.server.write()
        await until(scene.sent)
        asked = scene.server.calls["Publish"]
        await until(lambda: scene.server.calls["Publish"] > asked + SUBSCRIPTIONS)  # each follows on a message taken
        yield
    assert not scene.complete()


@asynccontextmanager
async def spilled(scene: Scene) -> AsyncIterator[None]:
    """Acknowledged, and the database has nothing of it."""
    with scene.locked():
        scene.server.write()
        await until(lambda: scene.sent() and scene.acknowledged())
        yield
    assert not scene.complete()


@asynccontextmanager
async def committed(scene: Scene) -> AsyncIterator[None]:
    """Stored, and the server does not know."""

    async def deaf(request: Any, connection: Connection) -> None:
        request.Parameters.SubscriptionAcknowledgements = []
        await scene.server._on_Publish(request, connection)

    with answering(scene.server, "Publish", deaf):
        scene.server.write()
        await until(scene.complete)
        assert not scene.acknowledged()
        yield


Step = Callable[[Scene], AbstractAsyncContextManager[None]]


async def last_number(folder: Path, step: Step, after: float, end: signal.Signals) -> None:
    async with Server(TAGS) as server, Proxy(server.port) as proxy:
        scene = Scene(server, proxy, folder)
        process = await at_rest(scene, after)
        try:
            async with step(scene):
                process.send_signal(end)
                await asyncio.wait_for(process.wait(), 30)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        life = asyncio.create_task(live(proxy.port, folder))
        try:
            await until(scene.complete, 30)
        finally:
            life.cancel()
            _, hanging = await asyncio.wait({life}, timeout=30)
            assert not hanging, stacks()
        assert server.calls["CreateSubscription"] == SUBSCRIPTIONS  # no new one, whose first value would hide a loss
    with closing(sqlite3.connect(folder / "historian.db")) as database:
        assert database.execute("SELECT count(*) FROM gaps").fetchone() == (0,)


def stacks() -> str:
    """What every task waits for."""
    told = io.StringIO()
    for task in asyncio.all_tasks():
        task.print_stack(file=told)
    return told.getvalue()


@pytest.mark.timeout(300)  # ten processes start in it
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL], ids=["stopped", "killed"])
async def test_the_last_number_of_a_quiet_plant_is_stored(tmp_path: Path, end: signal.Signals) -> None:
    cases = {}
    for step in (written, on_its_way, received, spilled, committed):
        folder = tmp_path / step.__name__
        folder.mkdir()
        cases[step.__name__] = last_number(folder, step, HASTY if step is spilled else PATIENT, end)
    await at_once(cases)
