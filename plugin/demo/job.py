"""Two processes over real sockets: the simulated plant, and ``foretag run`` against it; then the figures.

The truth is read from the folder that the plant keeps for itself, after the fact; foretag never sees it.
"""

import asyncio
import contextlib
import csv
import json
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from plugin import pki
from plugin.config import Config, load
from plugin.diagnostics import Diagnostics
from plugin.domain import Prediction
from plugin.errors import ForetagError
from plugin.opening import open_store
from plugin.protocols import Store
from plugin.report.accuracy import Accuracy, Truth, accuracy
from plugin.report.summary import Figure, ModelRuns, RunSummary
from plugin.running import stop_on_signals

_PLANT_START_LIMIT = 60.0
_PLANT_STOP_LIMIT = 3.0
_STOP_LIMIT = 20.0
_CYCLE = timedelta(seconds=1)
_RUL_CAP = 125.0
_OPERATOR = "urn:foretag:demo:operator"
_TURBINE_START = "2013"
"""Two years of past to learn from, and a year that behaves like them: from 2014 on the emissions drift."""
_LABORATORY = 24 * _CYCLE
"""The laboratory's delay: 24 hours of the turbine, each as long as a cycle."""


@dataclass(frozen=True, slots=True)
class Demo:
    """What a person may choose."""

    folder: Path
    seconds: float | None = None
    """Of scoring, counted from the first result of every model; None: until Ctrl-C."""
    engines: int = 20
    plant_port: int = 4840
    publish_port: int = 4841


async def run(demo: Demo) -> RunSummary:
    """Run the demonstration to its end."""
    demo.folder.mkdir(parents=True, exist_ok=True)
    _report(demo).unlink(missing_ok=True)  # one that a demonstration before left is none of this
    async with _plant(demo) as endpoint:
        path = write_config(demo, endpoint)
        code = await _foretag(demo, path)
    return await summarise(demo, load(path), code)


def write_config(demo: Demo, plant: str) -> Path:
    """The demonstration's ``foretag.toml``, made anew at each start: it holds the ports and the number of engines."""
    text = Template((files("plugin.demo") / "foretag.toml").read_text(encoding="utf-8")).substitute(
        plant=plant,
        publish=f"opc.tcp://127.0.0.1:{demo.publish_port}/foretag",
        first="1".zfill(max(2, len(str(demo.engines)))),
        last=str(demo.engines).zfill(2),
        operator=pki.ensure_own_certificate(demo.folder / "operator", _OPERATOR, ["localhost"]).thumbprint,
    )
    path = demo.folder / "foretag.toml"
    path.write_text(text, encoding="utf-8")
    return path


@asynccontextmanager
async def _plant(demo: Demo) -> AsyncIterator[str]:
    """The plant's process, in a session of its own: Ctrl-C reaches foretag first, and the plant when that has ended."""
    log = (demo.folder / "plant.log").open("ab")
    with log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "opcua_sim", "--port", str(demo.plant_port), "--engines", str(demo.engines),
            "--gas-turbine-start", _TURBINE_START,
            "--state", str(demo.folder / "plant"), "--truth", str(demo.folder / "plant-truth"),
            stdout=asyncio.subprocess.PIPE, stderr=log, start_new_session=True,
        )  # fmt: skip
        drain = None
        try:
            assert process.stdout is not None  # noqa: S101 - it was asked for
            endpoint = await _ready(process.stdout, demo)
            drain = asyncio.create_task(_copy(process.stdout, log))
            yield endpoint
        finally:
            await _end(process, _PLANT_STOP_LIMIT)
            if drain is not None:
                await drain


async def _ready(output: asyncio.StreamReader, demo: Demo) -> str:
    try:
        async with asyncio.timeout(_PLANT_START_LIMIT):
            async for line in output:
                if line.startswith(b"opcua_sim ready "):
                    return line.split()[2].decode()
    except TimeoutError:
        pass
    raise ForetagError(f"the simulated plant did not start; {demo.folder / 'plant.log'} says why (is its port in use?)")


async def _copy(output: asyncio.StreamReader, log: Any) -> None:
    async for line in output:
        log.write(line)


async def _foretag(demo: Demo, config: Path) -> int:
    """``foretag run`` with this terminal; signals are passed on, and it has 20 s to stop in order."""
    seconds = [] if demo.seconds is None else ["--seconds", str(demo.seconds)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "plugin", "run", "--config", str(config), "--report", str(_report(demo)), *seconds
    )
    stopping = asyncio.Event()
    ended, asked = asyncio.create_task(process.wait()), asyncio.create_task(stopping.wait())
    with stop_on_signals(stopping):
        await asyncio.wait({ended, asked}, return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        if not ended.done():
            await _end(process, _STOP_LIMIT + 1.0)
        return await ended


async def _end(process: asyncio.subprocess.Process, limit: float) -> None:
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(limit):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def _report(demo: Demo) -> Path:
    return demo.folder / "data" / "last-run.json"


# --- what came of it ---------------------------------------------------------------------------------------------


async def summarise(demo: Demo, config: Config, code: int) -> RunSummary:
    """The figures of the run that has just ended, against the plant's own truth."""
    report = json.loads(_report(demo).read_text()) if _report(demo).exists() else {}
    started, ended = (datetime.fromisoformat(report[key]) for key in ("started", "ended")) if report else (None, None)
    figures: list[Figure] = []
    runs: tuple[ModelRuns, ...] = ()
    if started and ended:
        async with open_store(config, Diagnostics(), alone=False) as store:
            figures = [figure async for figure in _figures(demo, store, started, ended)]
            runs = tuple([await _runs(store, model.name, report) for model in config.models])
    totals = report.get("totals", {})
    return RunSummary(
        duration=ended - started if started and ended else timedelta(0),
        samples_stored=int(totals.get("samples_stored", 0)),
        gaps=int(totals.get("gaps", 0)),
        gaps_open=int(report.get("gaps_open", 0)),
        dropped=int(totals.get("samples_dropped", 0)),
        published=int(totals.get("published", 0)),
        publish_failures=int(totals.get("publish_failures", 0)),
        figures=(*figures, *_first_results(report)),
        runs=runs,
        problems=tuple(_problems(code, report, figures)),
    )


async def _figures(demo: Demo, store: Store, started: datetime, ended: datetime) -> AsyncIterator[Figure]:
    rul = await store.predictions("rul", started, ended, output="rul")
    found = accuracy(rul, _truth(demo, "rul", started), _CYCLE / 4, cap=_RUL_CAP)
    yield _figure("RUL RMSE", "cycles", found, found.rmse if found else None, f"truth capped at {_RUL_CAP:.0f}")

    nox, truth = await store.predictions("nox", started, ended, output="nox"), list(_truth(demo, "nox", started))
    found = accuracy(nox, truth, _CYCLE / 4)
    last_lab = accuracy(_last_laboratory(nox, _truth(demo, "nox", started - 2 * _LABORATORY)), truth, _CYCLE / 4)
    yield _figure("NOx RMSE", "mg/m3", found, found.rmse if found else None, "laboratory 24 h late")
    yield _figure("NOx R²", "", found, found.r2 if found else None, _beside(last_lab))


def _figure(name: str, unit: str, found: Accuracy | None, value: float | None, note: str) -> Figure:
    if found is None:
        return Figure(name, None, unit, 0, "no prediction met its truth")
    held = "" if found.coverage is None or name.endswith("R²") else f"; bounds hold {found.coverage:.0%} of the truth"
    return Figure(name, value, unit, found.n, note + held)


def _last_laboratory(predictions: Sequence[Prediction], truth: Iterator[Truth]) -> list[Prediction]:
    """What one would say without a model: the newest laboratory value that was there."""
    known = {row.time: row.value for row in truth}
    return [replace(p, value=known[p.as_of - _LABORATORY]) for p in predictions if p.as_of - _LABORATORY in known]


def _beside(last_lab: Accuracy | None) -> str:
    """R² over a few hours says little by itself: their variance is small."""
    if last_lab is None or last_lab.r2 is None:
        return "over these hours alone"
    return f"over these hours alone; the last laboratory value would give {last_lab.r2:.2f}"


def _truth(demo: Demo, what: str, since: datetime) -> Iterator[Truth]:
    """The plant's own record; a prediction as of an instant speaks of the cell that ends there, one cycle wide."""
    path = demo.folder / "plant-truth" / f"{what}.csv"
    if not path.exists():
        return
    with path.open(newline="") as lines:
        for row in csv.DictReader(lines):
            time = datetime.fromisoformat(row["time"]) + _CYCLE
            if time >= since:
                yield Truth(time, row["asset"], float(row[what]))


async def _runs(store: Store, model: str, report: dict[str, Any]) -> ModelRuns:
    versions = await store.versions(model)
    done, failed, missed = (report["runs"].get(model, {}).get(result, 0) for result in ("done", "failed", "missed"))
    return ModelRuns(model, versions[0].version if versions else 0, int(done), int(failed), int(missed))


def _first_results(report: dict[str, Any]) -> Iterator[Figure]:
    for model, seconds in report.get("first_results", {}).items():
        yield Figure(f"first {model} on a node", seconds, "s", 1, "since foretag was started")


def _problems(code: int, report: dict[str, Any], figures: list[Figure]) -> Iterator[str]:
    if code != 0:
        yield f"foretag ended with exit code {code}"
    if not report:
        yield "foretag left no report"
        return
    if not report["totals"].get("samples_stored"):
        yield "no sample was stored"
    for figure in figures:
        if figure.n == 0:
            yield f"{figure.name}: {figure.note}"
    for model, results in report["runs"].items():
        if not results.get("done"):
            yield f"model {model} never gave a result"
