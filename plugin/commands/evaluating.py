"""``foretag evaluate``: how good a model would have been."""

from pathlib import Path
from typing import Annotated

import typer

from plugin.commands.console import DEFAULT, ConfigPath, complete, load, out


def evaluate(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    start: Annotated[str, typer.Option("--from", help="Runs from then on: a duration (30d), or a date.")] = "30d",
    end: Annotated[str, typer.Option("--to", help="Runs before then; now, if it is not given.")] = "",
    version: Annotated[int, typer.Option(help="Another version than the one in force.", min=0)] = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures to this file as well.")] = None,
    plots: Annotated[Path | None, typer.Option(help="Write pictures (PNG) into this folder; needs matplotlib.")] = None,
    config: ConfigPath = DEFAULT,
) -> None:
    """Walk a model forward over the past, and show how good it would have been beside simple baselines."""
    from plugin.evaluating import show_evaluation  # noqa: PLC0415

    span = start, end
    complete(
        show_evaluation(load(config), out, model=model, number=version, span=span, json_file=json_file, plots=plots)
    )
