"""A training that is cut off, in its own process or beside others, and what the same command makes of it later."""

import asyncio
import contextlib
import stat
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from models.artifact import Artifact
from models.artifact import load as load_artifact
from plugin.asking import beside
from plugin.config import Config, load
from plugin.domain import ModelVersion, SampleBatch, to_micros
from plugin.infer.compute import Cancelled
from plugin.infer.scoring import Scorer
from plugin.infer.training_runs import Training
from plugin.protocols import Delivery
from plugin.running import train_once
from tests.integration.model_bench import FEATURES, NOW, Bench, config, opened

FILE = """
[foretag]
data = "{data}"

[[sources]]
name = "plant"
endpoint = "opc.tcp://127.0.0.1:1/"

[[assets]]
names = ["pump-1"]
node = "nsu=u;s={{asset}}.{{feature}}"
tags = {{ a = {{}}, b = {{}}, c = {{}} }}

[[models]]
name = "soft"
kind = "failure_mlp"
assets = ["*"]
features = ["a", "b", "c"]
roles = {{ outcome = "c" }}
window = "30s"
step = "1s"
hold = "5s"
schedule = {{ every = "1s", deadline = "20s" }}
training = {{ learn = "labels", keep = "50ms" }}
options = {{ members = 1, hidden = 6, steps = 4000, batch = 64, products = 0, network = "tanh" }}
"""
SECONDS = 400


def configured(folder: Path) -> Config:
    path = folder / "foretag.toml"
    path.write_text(FILE.format(data=folder / "data"), encoding="utf-8")
    return load(path)


async def filled(config: Config) -> None:
    end = datetime(2026, 3, 1, tzinfo=UTC)
    times = to_micros(end) + np.arange(-SECONDS, 0, dtype=np.int64) * 1_000_000
    noise = np.random.default_rng(1)
    async with beside(config) as store:
        for tag in await store.register_tags(config.tags):
            values = noise.normal(10, 1, SECONDS)
            values = (values > 10).astype(float) if tag.feature == "c" else values
            await store.write([Delivery(SampleBatch.of([tag.id] * SECONDS, times, values, 0, times, times))])


@contextlib.asynccontextmanager
async def training_process(config: Config) -> AsyncIterator[asyncio.subprocess.Process]:
    """``foretag train soft``; one that still runs is killed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "plugin", "train", "soft", "--config", str(config.path),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def trained(config: Config) -> str:
    told = Console(file=StringIO(), width=200)
    await train_once(config, "soft", told)
    assert isinstance(told.file, StringIO)
    return told.file.getvalue()


async def newest(config: Config) -> Artifact:
    async with beside(config) as store:
        version = (await store.versions("soft"))[0]
    return load_artifact(config.model_folder / version.artifact, version.sha256)


async def killed(config: Config) -> Path:
    """Once something is kept of it."""
    folder = config.model_folder / "unfinished" / "soft"
    async with training_process(config) as process, asyncio.timeout(100):
        while not any(folder.glob("descent-*.safetensors")):
            assert process.returncode is None
            await asyncio.sleep(0.005)
        process.kill()
        await process.communicate()
    return folder


async def test_a_process_that_is_killed_is_gone_on_with_as_if_it_had_not_been(tmp_path):
    config = configured(tmp_path)
    await filled(config)
    kept = await killed(config)
    files = list(kept.iterdir())
    assert {path.name for path in files} == {"begun.json", "descent-0.safetensors"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert "was resumed at step" in await trained(config)
    assert not any(kept.iterdir()), "nothing is left once it is done"
    found = await newest(config)
    assert "resumed" not in await trained(config)
    wanted = await newest(config)
    for name, weights in wanted.params["network"].items():
        for leaf, value in weights.items():
            np.testing.assert_allclose(found.params["network"][name][leaf], value, rtol=0, atol=1e-6)
    assert found.metrics == pytest.approx(wanted.metrics)
    assert found.provenance["resumed_at_step"] > 0
    assert found.provenance["data_end"] == wanted.provenance["data_end"]


async def test_whoever_stops_a_training_is_told_that_it_can_go_on(tmp_path):
    config = configured(tmp_path)
    await filled(config)
    text = StringIO()
    task = asyncio.create_task(train_once(config, "soft", Console(file=text, width=200)))
    async with asyncio.timeout(60):
        while not (config.model_folder / "unfinished" / "soft" / "begun.json").exists():
            await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert "Stopped. The same command goes on" in text.getvalue()


# --- beside others in one process ---

OPTIONS = {"members": 1, "hidden": 6, "steps": 400, "batch": 16, "products": 0, "network": "tanh"}
SENSOR = {
    "name": "soft", "kind": "failure_mlp", "features": FEATURES, "roles": {"outcome": "c"}, "window": "30s",
    "options": OPTIONS, "training": {"learn": "labels"},
}  # fmt: skip
LATER = NOW + timedelta(minutes=5)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with opened(tmp_path) as bench:
        for asset in (0, 1):
            await bench.add("c", range(0, 400, 2), 0.0, asset=asset)
            await bench.add("c", range(1, 400, 2), 1.0, asset=asset)
        yield bench


class Stopping:
    """Ends a fit in its middle, as the end of a service does."""

    def __init__(self, bench: Bench) -> None:
        self._report = bench.compute.reporter

    def reporter(self, listener: object) -> object:
        def report(share: float, message: str) -> None:
            if share > 0.5:
                raise Cancelled

        return report


async def stopped(bench: Bench, scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(bench.compute, "reporter", Stopping(bench).reporter)
        with pytest.raises(Cancelled):
            await bench.training().train(scorer)


async def gone_on(bench: Bench, scorer: Scorer, now: datetime = LATER) -> ModelVersion:
    training = Training(
        bench.store, bench.registry, bench.compute, bench.diagnostics, lambda *told: None, clock=lambda: now
    )
    await training.train(scorer)
    return (await bench.store.versions("soft"))[0]


async def test_a_past_that_has_grown_is_looked_at_as_it_was(bench, monkeypatch):
    scorer = bench.scorer(config(**SENSOR))
    await stopped(bench, scorer, monkeypatch)
    for feature in FEATURES:
        await bench.add(feature, range(400, 500), 1.0)
    version = await gone_on(bench, scorer)
    assert version.provenance["resumed_at_step"] > 0
    assert version.provenance["data_end"] <= NOW.isoformat()
    assert (await gone_on(bench, scorer)).provenance["data_end"] > NOW.isoformat(), "the next one begins anew"


async def test_a_past_that_was_altered_is_learnt_from_anew(bench, monkeypatch, caplog):
    scorer = bench.scorer(config(**SENSOR))
    await stopped(bench, scorer, monkeypatch)
    await bench.add("a", [100, 101], 12.0)
    for feature in FEATURES:
        await bench.add(feature, range(400, 500), 1.0)
    version = await gone_on(bench, scorer)
    assert "resumed_at_step" not in version.provenance
    assert version.provenance["data_end"] > NOW.isoformat(), "with what has come since"
    assert "what it learnt from has been altered since" in caplog.text
