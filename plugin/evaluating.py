"""``foretag evaluate``: a version of a model over a stretch of the past, beside a running service or without one."""

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from plugin.asking import beside, moment
from plugin.config import Config
from plugin.diagnostics import Diagnostics
from plugin.errors import ConfigError, Fault, ModelError
from plugin.infer.evaluation import Evaluation, evaluate
from plugin.infer.registry import Registry
from plugin.opening import open_compute
from plugin.report.evaluation import evaluation_view
from plugin.report.plots import can_plot, write_plots
from plugin.scorers import Scorers


async def show_evaluation(
    config: Config,
    console: Console,
    *,
    model: str,
    number: int,
    span: tuple[str, str],
    json_file: Path | None,
    plots: Path | None = None,
) -> None:
    """Version ``number``, 0 being the one in force, from and until as a person writes it. ModelError, ConfigError."""
    if plots is not None and not can_plot():
        raise ModelError('--plots needs matplotlib: pip install "foretag[plots]"')
    config.model(model)
    start, end = moment(span[0], "--from"), moment(span[1], "--to") or datetime.now(UTC)
    if start is None or start >= end:
        fault = Fault("--from", span[0], f"is not before the end, {end:%Y-%m-%d %H:%M} UTC", "Name an earlier time")
        raise ConfigError("the command", [fault])
    found = await _evaluated(config, console, model, number, (start, end))
    console.print(evaluation_view(found))
    if json_file is not None:
        await asyncio.to_thread(json_file.write_text, json.dumps(found.record(), indent=2), encoding="utf-8")
    if plots is not None:
        for path in await asyncio.to_thread(write_plots, found, plots):
            console.print(f"Picture: {path}", markup=False, highlight=False)


async def _evaluated(
    config: Config, console: Console, model: str, number: int, span: tuple[datetime, datetime]
) -> Evaluation:
    diagnostics = Diagnostics()
    async with beside(config) as store, open_compute(config, diagnostics) as compute:
        registry = Registry(store, config.model_folder, key=config.model_key)
        scorers = Scorers(config, await store.tags(), store, registry, compute, diagnostics)
        scorer = next(each for each in scorers.in_force if each.config.name == model)
        version = await registry.version(model, number) if number else await scorer.version()
        if version is None:
            raise ModelError(f"model {model} has no version in force; name one with --version")
        with Progress(console=console, transient=True) as bar:
            task = bar.add_task("walking forward", total=1.0)

            def tell(share: float, line: str) -> None:
                bar.update(task, completed=share, description=line)

            return await evaluate(scorer, store, registry, version, span, tell)
