"""A start of the service as a user starts it: ``python -m plugin run`` in a process, until its first result is stored.

20 pumps of 17 tags with the last four minutes in the database, one ``rul_lstm`` with its default options and its
explanations, scored each second, and foretag's own server with its certificate. The plant's server is away: a start
does not wait for it. The weights are those that a model is born with: what they are does not change how long it takes.
"""

import asyncio
import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jax
import numpy as np

from models.kind import Fitted
from models.rul_lstm import RulLstm
from plugin.asking import beside
from plugin.config import Config, load
from plugin.domain import RunKind, RunResult, SampleBatch, to_micros
from plugin.historian.stores import SqlStore
from plugin.infer.explaining import MEANS
from plugin.infer.outputs import model_spec
from plugin.infer.registry import Registry
from plugin.protocols import Delivery

_FEATURES = (*(f"f{number}" for number in range(16)), "age")
_CELLS = 240
_LIMIT = 120.0
"""Of a start [s]."""
_LOOK = 0.05
_FILE = f"""
[foretag]
device = "cpu"

[diagnostics]
listen = "127.0.0.1:0"

[publish]
endpoint = "opc.tcp://127.0.0.1:0/foretag"

[[sources]]
name = "plant"
endpoint = "opc.tcp://127.0.0.1:1/"

[[assets]]
names = ["pump-{{01..20}}"]
node = "nsu=urn:plant;s={{asset}}.{{feature}}"
tags = {{ {", ".join(f"{feature} = {{}}" for feature in _FEATURES)} }}

[[models]]
name = "rul"
kind = "rul_lstm"
assets = ["*"]
features = {list(_FEATURES)}
roles = {{ age = "age" }}
window = "{_CELLS}s"
step = "1s"
schedule = {{ every = "1s", deadline = "60s" }}
training = {{ learn = "failures", at_start = false }}
"""


@dataclass(frozen=True, slots=True)
class Starts:
    """From the process's birth to its first stored result [s]."""

    cold: float
    """With nothing compiled before."""
    warm: Sequence[float]


async def starts(turns: int) -> Starts:
    """One with an empty compile cache, then so many with what it left."""
    with tempfile.TemporaryDirectory(prefix="foretag-benchmark-") as name:
        path = Path(name) / "foretag.toml"
        path.write_text(_FILE, encoding="utf-8")
        config = load(path)
        await _furnish(config)
        shutil.rmtree(config.data / "compiled", ignore_errors=True)
        taken = [await _start(config) for _ in range(turns + 1)]
    return Starts(taken[0], taken[1:])


async def _furnish(config: Config) -> None:
    """Samples up to now, and a version that is in force."""
    now, model = datetime.now(UTC).replace(microsecond=0), config.models[0]
    times = to_micros(now) + np.arange(-_CELLS, 0, dtype=np.int64) * 1_000_000
    generator = np.random.default_rng(0)
    spec = model_spec(model)
    born = jax.device_get(RulLstm().init(spec, jax.random.key(0)))
    async with beside(config) as store:
        for tag in await store.register_tags(config.tags):
            values = np.arange(_CELLS) if tag.feature == "age" else generator.normal(size=_CELLS)
            batch = SampleBatch.of([tag.id] * _CELLS, times, values.astype(np.float64), 0, times, times)
            await store.write([Delivery(batch)])
        means = {MEANS: dict.fromkeys(spec.features, 0.0)}
        await Registry(store, config.model_folder).add(model.name, spec, Fitted(born, {}), means, now)


async def _start(config: Config) -> float:
    begin, wall = time.perf_counter(), datetime.now(UTC) - timedelta(milliseconds=1)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "plugin", "run", "--config", str(config.path), "--no-table",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with asyncio.timeout(_LIMIT), beside(config) as store:
            while not await _scored(store, config.models[0].name, wall):
                if process.returncode is not None:
                    raise RuntimeError(f"the service ended before it scored: {config.data / 'foretag.log'} says why")
                await asyncio.sleep(_LOOK)
        return time.perf_counter() - begin
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def _scored(store: SqlStore, model: str, since: datetime) -> bool:
    """A run that is done and was begun since then."""
    return any(
        run.kind is RunKind.SCORE and run.result is RunResult.DONE and run.started is not None and run.started >= since
        for run in await store.runs(model, limit=5)
    )
