"""The service in a terminal: signals, the live table, a bounded stop, and what a run leaves behind."""

import asyncio
import contextlib
import gc
import json
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from plugin import pki
from plugin.asking import OUTCOME, asker
from plugin.auditing import whoami
from plugin.config import Config
from plugin.diagnostics import Diagnostics
from plugin.domain import RunKind, RunResult
from plugin.errors import ConfigError, ForetagError
from plugin.hmi.snapshot import Snapshot
from plugin.hmi.terminal import LiveView
from plugin.infer.ancestors import Wish
from plugin.infer.registry import Registry
from plugin.infer.training_runs import Training
from plugin.opening import open_compute, open_store
from plugin.reloading import Reloaded
from plugin.scorers import Scorers
from plugin.service import Service
from plugin.tasks import job

log = logging.getLogger(__name__)

_COLLECT = (50_000, 20, 100)
"""Garbage collection's thresholds: the usual first one, 700, costs a quarter of what decoding and publishing take."""
_SWITCH_INTERVAL = 0.0005
"""How long a thread that computes in Python may hold the interpreter [s]: SQLite's driver asks at every statement,
and with the usual 5 ms a commit beside a thread that traces a model takes ten times as long."""
_FIRST_RESULTS = 900.0
"""That models may take to be trained and give their first results, where the run ends by itself [s]."""


def tune_interpreter() -> None:
    """For a loop that must not wait beside threads that compute, and for many values that live briefly."""
    sys.setswitchinterval(_SWITCH_INTERVAL)
    gc.set_threshold(*_COLLECT)


async def run_service(config: Config, *, seconds: float | None, report: Path | None, console: Console | None) -> None:
    """Run until SIGINT or SIGTERM, or for ``seconds`` of scoring; ``console``: where the live view goes.

    SIGHUP: the configuration file is read again. Where it says that our terminal is gone, we stop as well.
    """
    tune_interpreter()
    stop = asyncio.Event()
    service = Service(config)
    started = datetime.now(UTC)
    with stop_on_signals(stop), on_hangup() as hangup:
        async with asyncio.TaskGroup() as group:
            beside = [group.create_task(_reload_on(hangup, service, stop))]
            if console:
                beside.append(group.create_task(_view(service, console, stop)))
            if seconds is not None:
                beside.append(group.create_task(_stop_after(service, seconds, stop)))
            try:
                await service.run(stop)
            finally:
                for task in beside:
                    task.cancel()
    if report is not None:
        await asyncio.to_thread(_write_json, report, _report(service, started))


@contextlib.contextmanager
def stop_on_signals(stop: asyncio.Event) -> Iterator[None]:
    """SIGINT and SIGTERM set ``stop``, for as long as the context lasts."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


@contextlib.contextmanager
def on_hangup() -> Iterator[asyncio.Event]:
    """An event that SIGHUP sets, for as long as the context lasts."""
    loop, hangup = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGHUP, hangup.set)
    try:
        yield hangup
    finally:
        loop.remove_signal_handler(signal.SIGHUP)


async def _reload_on(hangup: asyncio.Event, service: Service, stop: asyncio.Event) -> None:
    """For ever: reload, and leave the outcome for who asked."""
    at_terminal = os.isatty(0)
    while True:
        await hangup.wait()
        hangup.clear()
        if at_terminal and not os.isatty(0):
            stop.set()
            return
        begun = time.monotonic()
        reloaded = await _reload(service, await asyncio.to_thread(asker, service.config.data))
        for line in reloaded.lines(names=5):
            log.log(logging.ERROR if reloaded.faults else logging.INFO, "reload: %s", line)
        outcome = {"pid": os.getpid(), "begun": begun, **asdict(reloaded)}
        try:
            await asyncio.to_thread(_write_json, service.config.data / OUTCOME, outcome)
        except OSError as error:  # who asked hears nothing, and the plant is acquired all the same
            log.warning("what became of the reload can't be left in %s: %s", service.config.data, error)


async def _reload(service: Service, user: str | None) -> Reloaded:
    try:
        asked = service.reload() if user is None else service.reload(user, "command")
        done = await job(service.diagnostics, "reload", "reload", asked)
    except ConfigError as error:
        return Reloaded(faults=tuple(map(str, error.faults)))
    except ForetagError as error:
        return Reloaded(faults=(str(error),))
    return done or Reloaded(faults=("an error that nobody foresaw; the log has more",))


async def _view(service: Service, console: Console, stop: asyncio.Event) -> None:
    """The last picture is that of the running service, not of the stopped one."""
    overview = await service.overview

    def snapshot() -> Snapshot:
        nonlocal overview
        if service.overview.done():  # else this gateway stands by, and what it saw last stays on the screen
            overview = service.overview.result()
        return overview.snapshot()

    view = asyncio.create_task(LiveView(snapshot, console).run())
    try:
        await stop.wait()
    finally:
        view.cancel()
        await asyncio.wait({view})


async def _stop_after(service: Service, seconds: float, stop: asyncio.Event) -> None:
    """Counted from the moment that every model has published its first result, or was waited for long enough."""
    runs = await service.runs
    awaited = {model.name for model in service.config.models if model.enabled}
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_FIRST_RESULTS):
            while not awaited <= runs.published.keys():
                runs.news.clear()
                await runs.news.wait()
    if silent := sorted(awaited - runs.published.keys()):
        log.warning(
            "no result of %s in %.0f min; the seconds count from now on", ", ".join(silent), _FIRST_RESULTS / 60
        )
    await asyncio.sleep(seconds)
    stop.set()


def _report(service: Service, started: datetime) -> dict[str, Any]:
    diagnostics = service.diagnostics
    totals = ("samples_received", "samples_stored", "samples_dropped", "gaps", "published", "publish_failures")
    published = service.runs.result().published if service.runs.done() else {}
    lag = diagnostics.lag_p99()

    return {
        "started": started.isoformat(),
        "ended": datetime.now(UTC).isoformat(),
        "totals": {name: diagnostics.total(f"{name}_total") for name in totals},
        "gaps_open": service.overview.result().gaps_open if service.overview.done() else 0,
        "loop_lag_p99_ms": lag.total_seconds() * 1e3 if lag else None,
        "first_results": {model: (time - started).total_seconds() for model, time in published.items()},
        "runs": {
            m.name: {r.value: diagnostics.runs_so_far(m.name, RunKind.SCORE, r) for r in RunResult}
            for m in service.config.models
        },
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(json.dumps(content, indent=1), encoding="utf-8")
    unfinished.replace(path)


@contextlib.asynccontextmanager
async def _handing_over(config: Config, console: Console) -> AsyncIterator[None]:
    """What root writes meanwhile is the service's afterwards: it could neither read nor renew it else."""
    try:
        yield
    finally:
        for folder in dict.fromkeys((config.data, config.model_folder)):
            if await asyncio.to_thread(pki.hand_over, folder):
                text = f"This ran as root: what it left in {folder} now belongs to that folder's owner."
                console.print(text, style="yellow", markup=False, highlight=False)


async def train_once(config: Config, model: str, console: Console, wish: Wish | None = None) -> None:
    """Train one model in a process of its own, beside a running service or without one; ``wish``: not from scratch."""
    config.model(model)
    diagnostics = Diagnostics()
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task(model, total=1.0, text="")

        def listen(name: str, share: float | None, text: str) -> None:
            progress.update(bar, completed=1.0 if share is None else share, text=text)

        async with (
            _handing_over(config, console),
            open_store(config, diagnostics, alone=False) as store,
            open_compute(config, diagnostics) as compute,
        ):
            registry = Registry(store, config.model_folder, user=whoami(), origin="command", key=config.model_key)
            tags = await store.register_tags(config.tags)
            scorers = Scorers(config, tags, store, registry, compute, diagnostics)
            training = Training(store, registry, compute, diagnostics, listen)
            try:
                await training.train(next(s for s in scorers.in_force if s.config.name == model), wish=wish)
            except asyncio.CancelledError:
                if config.model(model).training.keep:
                    console.print("Stopped. The same command goes on where this one was, if it is told within a day.")
                raise
            newest = (await store.versions(model))[0]
    if step := newest.provenance.get("resumed_at_step"):
        console.print(f"The training that was begun {newest.provenance['begun']} was resumed at step {step}.")
    console.print(f"{newest.label} is stored as {newest.state.value}: {newest.figures}", markup=False)
