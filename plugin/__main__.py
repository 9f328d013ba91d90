"""The command line: ``foretag``, or ``python -m plugin``. Thin: each command calls a room and prints what it gives."""

import asyncio
import logging
import logging.handlers
import os
import sys
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from rich.console import Console

from plugin import __version__
from plugin.errors import ForetagError

T = TypeVar("T")

app = typer.Typer(
    name="foretag",
    help="A tag from the future: keeps a plant's OPC UA tags in SQL, runs models over them, and serves the predictions "
    "as OPC UA nodes.\n\n"
    "Start with [bold]foretag init[/bold], look with [bold]foretag check[/bold], then [bold]foretag run[/bold].",
    rich_markup_mode="rich",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
trust_app = typer.Typer(
    help="Whom we trust: the certificates of servers, clients and authorities.", no_args_is_help=True
)
app.add_typer(trust_app, name="trust")
out = Console()
err = Console(stderr=True)
log = logging.getLogger("foretag")

ConfigPath = Annotated[Path, typer.Option("--config", "-c", help="The configuration file.", envvar="FORETAG_CONFIG")]
Thumbprint = Annotated[str, typer.Argument(help="Beginning of its thumbprint, as `foretag trust list` shows it.")]
DEFAULT = Path("foretag.toml")
_OTHERS = {
    "asyncua": logging.ERROR,  # at WARNING a line per service fault, which the source tells of itself
    "asyncua.server.uaprocessor": logging.CRITICAL,  # a line per refused session: a port scan would fill the log
    "apscheduler": logging.CRITICAL,  # missed and failed runs are counted and told by ourselves
    "alembic": logging.WARNING,
    "jax": logging.WARNING,
}
"""Libraries and the lowest level that is of use to an operator."""
_TOLD_BY_US = ("asyncua.client.", "asyncua.common.connection")
"""Loggers, some with tracebacks, of what becomes an error of ours: its source tells of it in a line of its own."""


@app.command()
def init(
    endpoint: Annotated[
        str, typer.Argument(help="The plant's server, such as opc.tcp://plc1:4840; asked for when left out.")
    ] = "",
    folder: Annotated[Path, typer.Option(help="Where foretag.toml and tags.csv are written.")] = Path(),
    root: Annotated[str, typer.Option(help="Keep only what lies below this browse path, such as Plant/Line1.")] = "",
    trust: Annotated[bool, typer.Option("--trust", help="Trust the server's certificate without asking.")] = False,
    force: Annotated[bool, typer.Option(help="Overwrite files that are there.")] = False,
) -> None:
    """Connect to a plant's server, browse it, and write a commented foretag.toml and a tag CSV."""
    from plugin.commissioning import write_first_config  # noqa: PLC0415 - each command loads only what it needs

    endpoint = endpoint or typer.prompt("Endpoint of the plant's server", default="opc.tcp://127.0.0.1:4840")

    def confirm(question: str) -> bool:
        return trust or typer.confirm(question)

    _run(write_first_config(endpoint, folder, root=root, force=force, confirm=confirm, console=out))


@app.command()
def check(config: ConfigPath = DEFAULT) -> None:
    """Validate the file, connect to every source, read each tag once, and show what came."""
    from plugin.commissioning import check_tags  # noqa: PLC0415
    from plugin.config import load  # noqa: PLC0415

    if not _run(check_tags(_load(load, config), out)):
        raise typer.Exit(1)


@app.command()
def browse(
    config: ConfigPath = DEFAULT,
    source: Annotated[str, typer.Option(help="Name of the source; may be left out where there is one only.")] = "",
    under: Annotated[str, typer.Option(help="Only below this browse path, such as Plant/Line1.")] = "",
    match: Annotated[str, typer.Option(help="Only browse paths that fit these wildcards, such as '*/T2?'.")] = "*",
    kind: Annotated[
        list[str] | None, typer.Option("--type", help="Only this data type, such as Double; may be repeated.")
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Write a tag CSV in place of showing a table.")] = None,
    force: Annotated[bool, typer.Option(help="Overwrite the CSV where it is there.")] = False,
) -> None:
    """Look for variables of a plant's server: path, node, type, unit, value, and the tag that it is already."""
    from plugin.commissioning import Search, browse_source  # noqa: PLC0415
    from plugin.config import load  # noqa: PLC0415

    search = Search(source, under, match, tuple(kind or ()))
    _run(browse_source(_load(load, config), search, csv, out, force=force))


@app.command()
def run(
    config: ConfigPath = DEFAULT,
    seconds: Annotated[
        float | None, typer.Option(help="Stop by itself after so many seconds of scoring.", min=1)
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write what the run did to this JSON file when it stops.")] = None,
    table: Annotated[
        bool, typer.Option("--table/--no-table", help="Show the live table, where there is a terminal.")
    ] = True,
) -> None:
    """Acquire, keep, score and publish, until Ctrl-C."""
    from plugin.config import load  # noqa: PLC0415
    from plugin.running import run_service  # noqa: PLC0415

    os.umask(0o077)  # also what says nothing of its own mode, such as logs and models, is the service's alone
    loaded = _load(load, config)
    shown = table and out.is_terminal
    _log_to(loaded.data / "foretag.log", loaded.runtime.log_level, console=not shown)
    _run(run_service(loaded, seconds=seconds, report=report, console=out if table else None))


@app.command()
def reload(config: ConfigPath = DEFAULT) -> None:
    """Have the running service take up the tags that the file and its CSV name now; nothing else stops."""
    from plugin.asking import reload_running  # noqa: PLC0415
    from plugin.config import load  # noqa: PLC0415

    try:
        loaded = load(config)
    except ForetagError as error:
        _fail(error, code=1)
    reloaded = _run(reload_running(loaded))
    for line in reloaded.lines():
        (err if reloaded.faults else out).print(line, markup=False, highlight=False)
    if reloaded.faults:
        raise typer.Exit(1)


@app.command()
def train(model: Annotated[str, typer.Argument(help="Name of the model.")], config: ConfigPath = DEFAULT) -> None:
    """Train one model from the historian; the first version becomes the champion, a later one a challenger."""
    from plugin.config import load  # noqa: PLC0415
    from plugin.running import train_once  # noqa: PLC0415

    _run(train_once(_load(load, config), model, out))


@app.command()
def status(config: ConfigPath = DEFAULT) -> None:
    """Show how the running service is, what the historian holds, the models in force, and their last runs.

    Exit status: 0 all is well, 1 something is wrong, 2 the command or the file is, 3 it does not run, 4 not known.
    """
    from plugin.asking import show_status  # noqa: PLC0415
    from plugin.config import load  # noqa: PLC0415

    if verdict := _run(show_status(_load(load, config), out)):
        raise typer.Exit(verdict)


@app.command()
def gaps(
    config: ConfigPath = DEFAULT,
    open_only: Annotated[bool, typer.Option("--open", help="Only those that history may still fill.")] = False,
    since: Annotated[
        str, typer.Option(help="Only those that lasted into the time since then: a duration (24h), or a date.")
    ] = "",
    tag: Annotated[str, typer.Option(help="Only those that concern this tag: its own, and its whole source's.")] = "",
    source: Annotated[str, typer.Option(help="Only those of this source.")] = "",
    cause: Annotated[str, typer.Option(help="Only those of this cause, such as subscription_lost.")] = "",
    limit: Annotated[int, typer.Option(help="The newest so many.", min=1)] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON list instead of the table.")] = False,
) -> None:
    """List the gaps: when and why values were missed, and what became of it; the newest last."""
    from plugin.asking import Chosen, show_gaps  # noqa: PLC0415
    from plugin.config import load  # noqa: PLC0415

    chosen = Chosen(open_only=open_only, since=since, tag=tag, source=source, cause=cause, limit=limit)
    _run(show_gaps(_load(load, config), chosen, out, as_json=as_json))


@app.command()
def migrate(
    config: ConfigPath = DEFAULT,
    revision: Annotated[str, typer.Option(help="Revision to go to; older ones drop what they do not know.")] = "head",
) -> None:
    """Bring the database to this release's schema (or to another revision)."""
    from plugin.config import load  # noqa: PLC0415
    from plugin.historian.migrate import migrate as bring  # noqa: PLC0415

    loaded = _load(load, config)
    try:
        bring(loaded.historian.located(loaded.data), revision)
    except ForetagError as error:
        _fail(error)
    out.print(f"The database has revision {revision}.")


@trust_app.command("list")
def trust_list(config: ConfigPath = DEFAULT) -> None:
    """Show our own certificate, and who is trusted, who was refused, and until when."""
    from plugin.config import load  # noqa: PLC0415
    from plugin.report.trust import trust_view  # noqa: PLC0415

    out.print(trust_view(_load(load, config).pki_folder, datetime.now(UTC)))


@trust_app.command("show")
def trust_show(thumbprint: Thumbprint, config: ConfigPath = DEFAULT) -> None:
    """Show every field of one certificate, to be compared with what the peer shows."""
    from plugin import pki  # noqa: PLC0415
    from plugin.config import load  # noqa: PLC0415
    from plugin.report.trust import certificate_view  # noqa: PLC0415

    folder = _load(load, config).pki_folder
    out.print(certificate_view(_checked(lambda: pki.find(folder, thumbprint))))


@trust_app.command("add")
def trust_add(
    certificate: Annotated[
        str, typer.Argument(help="Beginning of a refused certificate's thumbprint; or a file: certificate or *.crl.")
    ],
    issuer: Annotated[
        bool, typer.Option("--issuer", help="An authority that completes chains and is not trusted by itself.")
    ] = False,
    config: ConfigPath = DEFAULT,
) -> None:
    """Trust a server, a client or an authority from now on; a running service needs no restart."""
    from plugin.config import load  # noqa: PLC0415
    from plugin.trusting import add  # noqa: PLC0415

    folder = _load(load, config).pki_folder
    out.print(_checked(lambda: add(folder, certificate, issuer=issuer)), markup=False, highlight=False)


@trust_app.command("reject")
def trust_reject(thumbprint: Thumbprint, config: ConfigPath = DEFAULT) -> None:
    """Trust it no more; a connection that stands ends within a minute."""
    from plugin.config import load  # noqa: PLC0415
    from plugin.trusting import reject  # noqa: PLC0415

    folder = _load(load, config).pki_folder
    out.print(_checked(lambda: reject(folder, thumbprint)), markup=False, highlight=False)


@app.command()
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

    summary = _run(run_demo(Demo(folder, seconds, engines, plant_port, publish_port)))
    out.print(summary_view(summary))
    if not summary.ok:
        raise typer.Exit(1)


@app.command()
def config(
    metrics: Annotated[bool, typer.Option("--metrics", help="The metrics of the Prometheus endpoint instead.")] = False,
) -> None:
    """Print every field of the configuration file, as Markdown."""
    from plugin import reference  # noqa: PLC0415

    typer.echo(reference.metrics() if metrics else reference.reference(), nl=False)


@app.command()
def version() -> None:
    """Print the version."""
    out.print(__version__)


def _load(load: Callable[[Path], T], path: Path) -> T:
    return _checked(lambda: load(path))


def _checked(work: Callable[[], T]) -> T:
    try:
        return work()
    except ForetagError as error:
        _fail(error)


def _run(work: Coroutine[Any, Any, T]) -> T:
    """The bridge from sync to async; an error that foretag raises on purpose ends the command with its text alone."""
    try:
        return asyncio.run(work)
    except ForetagError as error:
        _fail(error)
    except BaseExceptionGroup as group:
        ours, others = group.split(ForetagError)
        if ours is None or others is not None:
            raise
        _fail(_first(ours))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _first(group: BaseExceptionGroup[ForetagError]) -> ForetagError:
    found = group.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found


def _fail(error: ForetagError, code: int = 2) -> NoReturn:
    err.print(str(error), style="red", markup=False, highlight=False)
    raise typer.Exit(code)


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


def main() -> None:
    """The entry point of the ``foretag`` command."""
    app()


if __name__ == "__main__":
    main()
