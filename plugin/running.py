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
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from plugin import lock
from plugin.config import Config
from plugin.diagnostics import Diagnostics
from plugin.domain import GapCause, RunKind, RunResult
from plugin.errors import ConfigError, Fault, ForetagError, ServiceError
from plugin.fields import parse_duration
from plugin.hmi.terminal import LiveView
from plugin.infer.registry import Registry
from plugin.infer.runs import Training
from plugin.reloading import Reloaded
from plugin.report.gaps import gap_record, gaps_view
from plugin.report.status import Verdict, status_view
from plugin.report.told import ask
from plugin.service import Service, open_compute, open_store

log = logging.getLogger(__name__)

_COLLECT = (50_000, 20, 100)
"""Garbage collection's thresholds: the usual first one, 700, costs a quarter of what decoding and publishing take."""
_OUTCOME = "reload.json"
"""File in the data folder: what became of the last reload."""
_SWITCH_INTERVAL = 0.0005
"""How long a thread that computes in Python may hold the interpreter [s]: SQLite's driver asks at every statement,
and with the usual 5 ms a commit beside a thread that traces a model takes ten times as long."""


async def run_service(config: Config, *, seconds: float | None, report: Path | None, console: Console | None) -> None:
    """Run until SIGINT or SIGTERM, or for ``seconds`` of scoring; ``console``: where the live view goes.

    SIGHUP: the configuration file is read again. Where it says that our terminal is gone, we stop as well.
    """
    sys.setswitchinterval(_SWITCH_INTERVAL)
    gc.set_threshold(*_COLLECT)
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
        reloaded = await _reload(service)
        for line in reloaded.lines(names=5):
            log.log(logging.ERROR if reloaded.faults else logging.INFO, "reload: %s", line)
        outcome = {"pid": os.getpid(), "begun": begun, **asdict(reloaded)}
        await asyncio.to_thread(_write_json, service.config.data / _OUTCOME, outcome)


async def _reload(service: Service) -> Reloaded:
    try:
        return await service.reload()
    except ConfigError as error:
        return Reloaded(faults=tuple(map(str, error.faults)))
    except ForetagError as error:
        return Reloaded(faults=(str(error),))
    except Exception as error:  # the wrapper of this job: logged and counted, the service goes on
        service.diagnostics.task_failures.labels("reload").inc()
        log.exception("reload failed")
        return Reloaded(faults=(f"{type(error).__name__}: {error}; the log has more",))


async def reload_running(config: Config, wait: float = 60.0) -> Reloaded:
    """Have the service that runs with this configuration's data folder read its file again; ServiceError where none
    answers within ``wait`` [s]."""
    found = lock.holder(config.data / lock.NAME)
    if found is None:
        raise ServiceError(f"no foretag runs with the data folder {config.data}; start one with `foretag run`")
    if found.config != config.path.resolve():
        raise ServiceError(
            f"the foretag of {config.data} runs with {found.config}; edit that, or name it with --config"
        )
    asked = time.monotonic()
    try:
        os.kill(found.pid, signal.SIGHUP)
    except PermissionError as error:
        raise ServiceError(f"foretag (process {found.pid}) belongs to another user; ask as that user") from error
    while time.monotonic() < asked + wait:
        outcome = _outcome(config.data / _OUTCOME, found.pid, asked)
        if outcome is not None:
            return outcome
        if lock.holder(config.data / lock.NAME) is None:
            raise ServiceError(f"foretag (process {found.pid}) ended meanwhile; its log has more")
        await asyncio.sleep(0.05)
    raise ServiceError(f"foretag (process {found.pid}) did not answer within {wait:g} s; its log may have more")


def _outcome(path: Path, pid: int, since: float) -> Reloaded | None:
    """What the service left there, where it began after ``since``: monotonic clocks of one machine agree."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if found.pop("pid", None) != pid or found.pop("begun", 0.0) < since:
        return None
    return Reloaded(**{name: tuple(rows) for name, rows in found.items()})


async def _view(service: Service, console: Console, stop: asyncio.Event) -> None:
    """The last picture is that of the running service, not of the stopped one."""
    overview = await service.overview
    view = asyncio.create_task(LiveView(overview.snapshot, console).run())
    try:
        await stop.wait()
    finally:
        view.cancel()
        await asyncio.wait({view})


async def _stop_after(service: Service, seconds: float, stop: asyncio.Event) -> None:
    """Counted from the moment that every model has published its first result."""
    runs = await service.runs
    while len(runs.published) < len(service.config.models):
        runs.news.clear()
        await runs.news.wait()
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


async def train_once(config: Config, model: str, console: Console) -> None:
    """Train one model in a process of its own, beside a running service or without one."""
    if model not in {m.name for m in config.models}:
        known = ", ".join(m.name for m in config.models)
        raise ConfigError(str(config.path), [Fault("MODEL", model, "is no model", f"Models are: {known}")])
    diagnostics = Diagnostics()
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task(model, total=1.0, text="")

        def listen(name: str, share: float | None, text: str) -> None:
            progress.update(bar, completed=1.0 if share is None else share, text=text)

        async with open_store(config, diagnostics, alone=False) as store, open_compute(config, diagnostics) as compute:
            registry = Registry(store, config.model_folder)
            tags = await store.register_tags(config.tags)
            scorers = Service(config, diagnostics).scorers(tags, store, registry, compute)
            training = Training(store, registry, compute, diagnostics, listen)
            await training.train(next(s for s in scorers if s.config.name == model))
            newest = (await store.versions(model))[0]
    console.print(f"{newest.label} is stored as {newest.state.value}: {dict(newest.metrics)}", markup=False)


async def show_status(config: Config, console: Console) -> Verdict:
    """What the running service tells, where it runs; and what the database tells."""
    told = await ask(config.diagnostics.address) if config.diagnostics.listen else None
    whose = told.facts("foretag_build_info").get("data") if told is not None else None
    verdict, absence = Verdict.NOT_RUNNING, "foretag is not running"
    if not config.diagnostics.listen:
        verdict, absence = Verdict.UNKNOWN, "whether foretag runs is not known: [diagnostics] listen is empty"
    elif whose == str(config.data):
        verdict = Verdict.WELL
    elif told is not None:
        absence += f": who answers at {config.diagnostics.listen} works on {whose or 'something else'}"
    else:
        absence += f": nobody answers at {config.diagnostics.listen}"
    mine = told if verdict is Verdict.WELL else None
    async with open_store(config, Diagnostics(), alone=False) as store:
        patience = {model.name: model.validity + model.schedule.every for model in config.models}
        view, well = await status_view(store, config.tags, patience, mine, absence)
    console.print(view)
    return Verdict.UNWELL if verdict is Verdict.WELL and not well else verdict


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which gaps a person wants to see, as they wrote it; empty: all."""

    open_only: bool = False
    since: str = ""
    tag: str = ""
    source: str = ""
    cause: str = ""
    limit: int = 100


async def show_gaps(config: Config, chosen: Chosen, console: Console, *, as_json: bool) -> None:
    """The gaps that the database holds, the newest last. ConfigError where a choice names nothing that there is."""
    now = datetime.now(UTC)
    source, tag, cause, since = _choice(config, chosen, now)
    async with open_store(config, Diagnostics(), alone=False) as store:
        found = await store.gaps(
            open_only=chosen.open_only, since=since, source=source, tag=tag, cause=cause, limit=chosen.limit
        )
    if as_json:
        console.print_json(data=[gap_record(gap) for gap in reversed(found)])
    else:
        console.print(gaps_view(found[::-1], now, limit=chosen.limit, width=console.width))


def _choice(
    config: Config, chosen: Chosen, now: datetime
) -> tuple[str | None, str | None, GapCause | None, datetime | None]:
    """Source, tag, cause and time."""
    sources = {source.name for source in config.sources}
    of_tag = {tag.name: tag.source for tag in config.tags}
    causes = [cause.value for cause in GapCause]
    faults = []
    if chosen.source and chosen.source not in sources:
        faults.append(Fault("--source", chosen.source, "is no source", f"Sources are: {', '.join(sorted(sources))}"))
    if chosen.tag and chosen.tag not in of_tag:
        like = ", ".join(get_close_matches(chosen.tag, of_tag, 3)) or "see the tag files"
        faults.append(Fault("--tag", chosen.tag, "is no tag", f"Name one that there is: {like}"))
    if chosen.cause and chosen.cause not in causes:
        faults.append(Fault("--cause", chosen.cause, "is no cause", f"Causes are: {', '.join(causes)}"))
    try:
        since = _moment(chosen.since, now) if chosen.since else None
    except ValueError:
        since = None
        faults.append(
            Fault(
                "--since", chosen.since, "is neither", 'Write a duration, such as "24h", or a date: "2026-03-01T08:00"'
            )
        )
    if faults:
        raise ConfigError(str(config.path), faults)
    source = chosen.source or of_tag.get(chosen.tag) or None
    return source, chosen.tag or None, GapCause(chosen.cause) if chosen.cause else None, since


def _moment(text: str, now: datetime) -> datetime:
    """A date or time as a person writes it, in this machine's zone where it names none; or so long ago."""
    try:
        return now - parse_duration(text)
    except ValueError:
        return datetime.fromisoformat(text).astimezone()
