"""What runs: ``run``, ``train``, ``demo``; and ``reload``, told to what runs."""

import logging
import logging.handlers
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from plugin.commands.console import DEFAULT, ConfigPath, checked, complete, err, load, out

_OTHERS = {
    "asyncio": logging.ERROR,  # at WARNING a line where a client that has gone was still being answered
    "asyncua": logging.ERROR,  # at WARNING a line per service fault, which the source tells of itself
    "asyncua.server.binary_server_asyncio": logging.CRITICAL,  # a stack per message that is no OPC UA; it is counted
    "asyncua.server.uaprocessor": logging.CRITICAL,  # a line per refused session; failures are told by our server
    "apscheduler": logging.CRITICAL,  # missed and failed runs are counted and told by ourselves
    "alembic": logging.WARNING,
    "jax": logging.WARNING,
}
"""Libraries and the lowest level that is of use to an operator."""
_TOLD_BY_US = ("asyncua.client.", "asyncua.common.connection")
"""Loggers, some with tracebacks, of what becomes an error of ours: its source tells of it in a line of its own."""


def run(
    config: ConfigPath = DEFAULT,
    seconds: Annotated[
        float | None,
        typer.Option(
            help="Stop by itself after so many seconds of scoring, counted from every model's first result, or from "
            "15 minutes after the start.",
            min=1,
        ),
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write what the run did to this JSON file when it stops.")] = None,
    table: Annotated[
        bool, typer.Option("--table/--no-table", help="Show the live table, where there is a terminal.")
    ] = True,
) -> None:
    """Acquire, keep, score and publish, until Ctrl-C."""
    from plugin.running import run_service  # noqa: PLC0415

    os.umask(0o077)  # also what says nothing of its own mode, such as logs and models, is the service's alone
    loaded = load(config)
    shown = table and out.is_terminal
    checked(lambda: _log_to(loaded.data / "foretag.log", loaded.runtime.log_level, console=not shown))
    complete(run_service(loaded, seconds=seconds, report=report, console=out if table else None))


def reload(config: ConfigPath = DEFAULT) -> None:
    """Have the running service take up the tags that the file and its CSV name now; nothing else stops."""
    from plugin.asking import reload_running  # noqa: PLC0415

    reloaded = complete(reload_running(load(config, code=1)))
    for line in reloaded.lines():
        (err if reloaded.faults else out).print(line, markup=False, highlight=False)
    if reloaded.faults:
        raise typer.Exit(1)


def train(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    begin: Annotated[
        str,
        typer.Option(
            "--from", metavar="VERSION", help="Begin from this version (3), or another model's (rul-3): few runs do."
        ),
    ] = "",
    head_only: Annotated[
        bool, typer.Option("--head-only", help="With --from: train the last layer alone, for very few runs.")
    ] = False,
    config: ConfigPath = DEFAULT,
) -> None:
    """Train one model from the historian; the first version becomes the champion, a later one a challenger.

    What a version of --from has seen of an asset is not learnt from again.
    """
    if head_only and not begin:
        raise typer.BadParameter("it goes with --from: there is no head without a version to begin from")
    from plugin.infer.ancestors import Wish  # noqa: PLC0415
    from plugin.running import train_once  # noqa: PLC0415

    complete(train_once(load(config), model, out, Wish(begin, head_only) if begin else None))


def demo(
    folder: Annotated[Path, typer.Option(help="Where the demonstration keeps its files.")] = Path("demo"),
    seconds: Annotated[float | None, typer.Option(help="Stop after so many seconds of scoring.", min=1)] = None,
    engines: Annotated[int, typer.Option(help="Turbofan engines in the simulated plant.", min=1, max=500)] = 20,
    plant_port: Annotated[int, typer.Option(help="Port of the simulated plant.")] = 4840,
    publish_port: Annotated[int, typer.Option(help="Port of foretag's own server.")] = 4841,
) -> None:
    """Run a simulated plant and foretag beside it; stop with Ctrl-C, or by itself with --seconds, for a summary."""
    from plugin.demo.job import Demo  # noqa: PLC0415
    from plugin.demo.job import run as run_demo  # noqa: PLC0415
    from plugin.report.summary import summary_view  # noqa: PLC0415

    summary = complete(run_demo(Demo(folder, seconds, engines, plant_port, publish_port)))
    out.print(summary_view(summary))
    if not summary.ok:
        raise typer.Exit(1)


def _log_to(path: Path, level: str, *, console: bool) -> None:
    """To a file that rotates at 10 MB, and to stderr where no table needs the terminal."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handlers: list[logging.Handler] = [logging.handlers.RotatingFileHandler(path, maxBytes=10_000_000, backupCount=3)]
    if console:
        handlers.append(logging.StreamHandler(sys.stderr))
    for handler in handlers:
        handler.addFilter(_once)
    logging.basicConfig(
        level=level.upper(), handlers=handlers, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    )
    # What was written to a plant is for an auditor: a file of its own, and not between the lines of the log.
    audit = logging.getLogger("foretag.audit")
    audit.propagate = False
    audit.addHandler(
        logging.handlers.RotatingFileHandler(path.with_name("audit.log"), maxBytes=10_000_000, backupCount=9)
    )
    audit.handlers[0].setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    for name, lowest in _OTHERS.items():
        logging.getLogger(name).setLevel(lowest)


def _once(record: logging.LogRecord) -> bool:
    """What we tell ourselves is for who debugs, and lower in rank."""
    if record.name.startswith(_TOLD_BY_US):
        record.levelno, record.levelname = logging.DEBUG, "DEBUG"
    return record.levelno >= logging.getLogger().level
