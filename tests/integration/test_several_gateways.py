"""Several gateways on one PostgreSQL: service processes that are killed, stopped and cut off, and a plant that counts.

Every number that the plant has written is in the database, once, whoever led when it came.
"""

import asyncio
import io
import logging
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from plugin.asking import show_status
from plugin.config import Config, load
from plugin.diagnostics import Diagnostics
from plugin.errors import ConfigError
from plugin.opening import open_store
from plugin.report.status import Verdict
from plugin.service import Service
from tests.acceptance.life import free_port
from tests.acceptance.proxy import Fault, Proxy
from tests.integration.acquire_plant import URI, Plant
from tests.postgres import Database, Postgres

pytestmark = pytest.mark.timeout(150)

TAKE_OVER = 10.0
"""What is promised [s]."""
TAGS = 2
PERIOD = 0.05
"""Between two numbers [s]."""
FILE = """
tags = ["tags.csv"]
[historian]
url = "{url}"
password_env = "DATABASE_PASSWORD"
shard = "{shard}"
spill = {{ after = "200ms", reserve = "0" }}
[[sources]]
name = "{source}"
endpoint = "opc.tcp://127.0.0.1:{plant}/"
security_policy = "None"
publishing_interval = "100ms"
sampling_interval = "20ms"
keep_alive = "500ms"
timeout = "2s"
reconnect_max = "500ms"
history = {{ back = "all", settle = "200ms" }}
[publish]
enabled = false
[diagnostics]
listen = "{listen}"
"""

MODEL = """
[[models]]
name = "wear"
kind = "nonsense"
assets = ["pump"]
features = ["heat"]
window = "10s"
step = "1s"
schedule = { every = "1s", offset = "0s", deadline = "1s" }
training = { learn = "normal" }
"""


@dataclass
class Gateway:
    """A data folder, and the process that works on it."""

    folder: Path
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def log(self) -> str:
        path = self.folder / "data" / "foretag.log"
        return path.read_text() if path.exists() else ""

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self, password: str) -> None:
        command = [sys.executable, "-m", "plugin", "run", "--no-table", "-c", str(self.folder / "foretag.toml")]
        told = {**os.environ, "DATABASE_PASSWORD": password}
        with (self.folder / "output").open("ab") as output:
            self.process = subprocess.Popen(command, env=told, stdout=output, stderr=output)

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    async def end(self, number: signal.Signals) -> int:
        self.send(number)
        assert self.process is not None
        return await asyncio.to_thread(self.process.wait, 30)

    async def says(self, text: str, times: int = 1) -> None:
        await until(lambda: self.log.count(text) >= times, lambda: f"{text!r} is not in the log:\n{self.log}")


@dataclass
class Site:
    """A plant that counts, a database, and gateways."""

    database: Database
    plant: Plant
    folder: Path
    stack: ExitStack
    written: list[int] = field(default_factory=list)

    def configured(
        self,
        name: str,
        *,
        port: int = 0,
        shard: str = "line 1",
        source: str = "plant",
        prefix: str = "",
        listen: str = "",
    ) -> Path:
        """A configuration in a folder of its own; ``port``: where it finds the database."""
        folder = self.folder / name
        folder.mkdir()
        rows = "".join(f"{prefix}t{n},nsu={URI};s=t{n}\n" for n in range(TAGS))
        (folder / "tags.csv").write_text(f"name,node\n{rows}")
        url = self.database.url.replace(f":{self.database.port}/", f":{port or self.database.port}/")
        text = FILE.format(url=url, plant=self.plant.port, shard=shard, source=source, listen=listen)
        (folder / "foretag.toml").write_text(text)
        return folder / "foretag.toml"

    def gateway(self, name: str) -> Gateway:
        """A process."""
        gateway = Gateway(self.configured(name).parent)
        self.stack.callback(_kill, gateway)
        gateway.start(self.database.password)
        return gateway

    @asynccontextmanager
    async def service(self, path: Path) -> AsyncIterator[Service]:
        """In this process."""
        stop, service = asyncio.Event(), Service(load(path))
        task = asyncio.create_task(service.run(stop))
        try:
            yield service
        finally:
            stop.set()
            async with asyncio.timeout(20):
                await task

    async def standby(self, name: str) -> Gateway:
        """Another one, when there is a leader."""
        await self.reaches(5)
        gateway = self.gateway(name)
        await gateway.says("standing by for shard 'line 1'")
        return gateway

    async def count(self) -> None:
        """For ever: another number for every tag."""
        while True:
            self.written.append(len(self.written) + 1)
            for node in self.plant.nodes:
                await self.plant.put(node, float(self.written[-1]), datetime.now(UTC))
            await asyncio.sleep(PERIOD)

    def progress(self) -> dict[str, str]:
        return dict(self.query("SELECT key, value FROM checkpoints"))

    def query(self, statement: str) -> list[list[str]]:
        return self.database.psql(statement)

    def newest(self) -> int:
        """The newest number that every tag has in the database."""
        rows = self.query("SELECT coalesce(max(value), 0) FROM tags LEFT JOIN samples ON tag_id = id GROUP BY id")
        return min((int(float(row[0])) for row in rows), default=0)

    def numbers(self, prefix: str = "") -> list[list[int]]:
        """What is stored of each tag, in order of time; the plant's initial 0 is none."""
        chosen = "SELECT value FROM samples JOIN tags ON id = tag_id WHERE name = '{}' AND value > 0"
        query = f"{chosen} ORDER BY source_time, ordinal"
        return [[int(float(row[0])) for row in self.query(query.format(f"{prefix}t{n}"))] for n in range(TAGS)]

    def leader(self) -> list[str]:
        """Epoch and process."""
        ((epoch, holder),) = self.query("SELECT epoch, holder FROM leaders WHERE shard = 'line 1'")
        return [epoch, holder.rpartition(" ")[2]]

    async def reaches(self, number: int) -> None:
        await until(lambda: self.newest() >= number, lambda: f"{number} is not stored, {self.newest()} is")

    async def is_complete(self, prefix: str = "") -> None:
        """All that was written up to now is there, once."""
        last = len(self.written)
        await self.reaches(last)
        await until(
            lambda: all(row == self.written[: len(row)] and len(row) >= last for row in self.numbers(prefix)),
            lambda: f"{last} numbers were written; stored: {[_holes(row) for row in self.numbers(prefix)]}",
        )


def _holes(row: list[int]) -> str:
    missing = sorted(set(range(1, max(row, default=0) + 1)) - set(row))
    return f"{len(row)} up to {max(row, default=0)}, without {missing[:20]}, twice: {len(row) - len(set(row))}"


def _kill(gateway: Gateway) -> None:
    if gateway.process is not None and gateway.process.poll() is None:
        gateway.process.kill()
        gateway.process.wait()


async def until(condition: Callable[[], bool], told: Callable[[], str], seconds: float = 40) -> None:
    try:
        async with asyncio.timeout(seconds):
            while not await asyncio.to_thread(condition):
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(told()) from None


@asynccontextmanager
async def _counting(site: Site) -> AsyncIterator[None]:
    task = asyncio.create_task(site.count())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


@pytest.fixture
async def site(migrated_postgres: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    monkeypatch.setenv("DATABASE_PASSWORD", migrated_postgres.password)
    plant = Plant(TAGS, history=True)
    await plant.start()
    with ExitStack() as stack:
        site = Site(migrated_postgres, plant, tmp_path, stack)
        async with _counting(site):
            yield site
    await plant.stop()


async def replaces(site: Site, gateway: Gateway) -> float:
    """Until this gateway writes [s]."""
    begin, known = asyncio.get_running_loop().time(), len(site.written)
    await site.reaches(known + 1)
    took = asyncio.get_running_loop().time() - begin
    assert site.leader()[1] == str(gateway.pid)
    print(f"replaced after {took:.1f} s")
    return took


async def test_one_that_is_stopped_and_one_that_is_killed_are_replaced_and_nothing_is_lost(site: Site) -> None:
    first = site.gateway("a")
    second = await site.standby("b")
    first.send(signal.SIGSTOP)
    assert await replaces(site, second) < TAKE_OVER
    first.send(signal.SIGCONT)
    await first.says(f"process {second.pid} leads shard 'line 1' now")
    await first.says("standing by for shard 'line 1'")
    assert site.leader() == ["2", str(second.pid)]
    second.send(signal.SIGKILL)
    assert await replaces(site, first) < TAKE_OVER
    await site.is_complete()
    assert await first.end(signal.SIGINT) == 0
    assert site.query("SELECT count(*) FROM gaps WHERE state = 'open'") == [["0"]]


async def test_one_that_is_cut_off_spills_and_brings_it_when_another_leads(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with Proxy(site.database.port) as wire, AsyncExitStack() as stack:
        first = await stack.enter_async_context(site.service(site.configured("a", port=wire.port)))
        await site.reaches(5)
        await stack.enter_async_context(site.service(site.configured("b")))
        await until(lambda: "standing by for shard 'line 1'" in caplog.text, lambda: caplog.text)
        await wire.strike(Fault.HOLE)
        await until(lambda: site.leader()[0] == "2", lambda: caplog.text)
        await site.reaches(len(site.written) + 1)
        await until(lambda: first.diagnostics.value("spill_samples") > 0, lambda: "nothing is spilled")
        before = site.progress()
        await wire.mend()
        await until(lambda: "that were in the spill are in the database" in caplog.text, lambda: caplog.text)
        await site.is_complete()
        assert first.diagnostics.value("leader", shard="line 1") == 0
        assert first.diagnostics.value("source_connected", source="plant") == 0
        assert site.progress().keys() >= before.keys()
    assert not list(site.folder.glob("*/data/spill/*.spill"))


async def told(config: Config, text: str) -> Verdict:
    """When ``foretag status`` says so, its verdict."""
    async with asyncio.timeout(40):
        while True:
            console = Console(file=io.StringIO(), width=160)
            verdict = await show_status(config, console)
            assert isinstance(console.file, io.StringIO)
            if text in console.file.getvalue():
                return verdict
            await asyncio.sleep(0.1)


async def test_one_that_stands_by_says_so_and_takes_up_its_file_when_it_leads(site: Site) -> None:
    async with AsyncExitStack() as stack, AsyncExitStack() as term:
        first = await term.enter_async_context(site.service(site.configured("a")))
        await site.reaches(3)
        path = site.configured("b", listen=f"127.0.0.1:{free_port()}")
        second = await stack.enter_async_context(site.service(path))
        assert await told(second.config, "stands by for shard line 1") is Verdict.WELL
        assert await told(second.config, f"process {os.getpid()} leads") is Verdict.WELL
        assert first.diagnostics.value("leader", shard="line 1") == 1
        assert second.diagnostics.value("leader", shard="line 1") == 0
        with (path.parent / "tags.csv").open("a") as file:
            file.write(f"later,nsu={URI};s=t0\n")
        assert (await second.reload()).lines() == ["takes effect when this gateway leads: 1 (tags)"]
        assert not second.overview.done()
        await term.aclose()
        await told(second.config, "leads shard line 1")
        assert [tag.name for tag in second.config.tags] == ["t0", "t1", "later"]
        await site.is_complete()
        assert site.query("SELECT name FROM tags JOIN samples ON id = tag_id GROUP BY 1 ORDER BY 1")[0] == ["later"]


async def test_the_database_restarts_and_the_leader_stays(site: Site, postgres_server: Postgres) -> None:
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(site.service(site.configured("a")))
        await site.reaches(5)
        path = site.configured("b", listen=f"127.0.0.1:{free_port()}")
        second = await stack.enter_async_context(site.service(path))
        await told(second.config, f"process {os.getpid()} leads")
        await asyncio.to_thread(postgres_server.stop)
        await until(lambda: first.diagnostics.value("samples_spilled_total") > 10, lambda: "nothing is spilled")
        postgres_server.start()  # not in a thread: the server ends with the thread that started it
        await site.is_complete()
        assert site.leader() == ["1", str(os.getpid())]
        assert first.diagnostics.value("leader", shard="line 1") == 1
        assert second.diagnostics.value("leader", shard="line 1") == 0


async def test_two_shards_side_by_side_have_nothing_in_common_but_the_database(site: Site) -> None:
    other = site.configured("b", shard="line 2", source="other", prefix="other ")
    async with site.service(site.configured("a")), site.service(other):
        await until(lambda: len(site.query("SELECT 1 FROM tags")) == 2 * TAGS, lambda: "there are not the tags of both")
        await site.is_complete()
        await site.is_complete("other ")
        assert site.query("SELECT shard, epoch FROM leaders ORDER BY 1") == [["line 1", "1"], ["line 2", "1"]]
        assert site.query("SELECT name, shard FROM claims ORDER BY 1") == [["other", "line 2"], ["plant", "line 1"]]
        counted = dict(site.query("SELECT name, value FROM bookkeeping WHERE name LIKE 'samples of shard %'"))
        assert counted.keys() == {"samples of shard line 1", "samples of shard line 2"}
        async with open_store(load(other), Diagnostics(), alone=False) as store:
            assert (await store.counts())["samples"] >= sum(map(int, counted.values()))
        assert {key.partition("/")[0] for key in site.progress()} >= {"plant", "other"}
    sessions = [path.name for path in site.folder.glob("*/data/sessions/*")]
    assert len(sessions) == 2, sessions


async def test_a_model_that_can_not_be_is_told_of_before_the_gateway_has_to_lead(site: Site) -> None:
    path = site.configured("a")
    (path.parent / "tags.csv").write_text(f"name,node,asset,feature\nt0,nsu={URI};s=t0,pump,heat\n")
    with path.open("a") as file:
        file.write(MODEL)
    with pytest.raises(ConfigError, match="is no model kind"):
        await Service(load(path)).run(asyncio.Event())
    assert site.query("SELECT * FROM leaders") == []
