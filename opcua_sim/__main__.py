"""Command line: run a plant, or break one that runs."""

import asyncio
import gc
import logging
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from asyncua import Client, ua
from asyncua.ua.uaerrors import UaError

from opcua_sim.address_space import NAMESPACE
from opcua_sim.data import DATASETS
from opcua_sim.faults import FaultError, Kind, read_script
from opcua_sim.options import MAX_ENGINES, Options, Security
from opcua_sim.server import serve
from opcua_sim.state import StateError

DEFAULT = Options()
TAGS_PER_ENGINE = 26
_TIMEOUT = 10.0  # [s] for each answer of a server

_log = logging.getLogger("opcua_sim")

app = typer.Typer(
    help="A plant to develop and test against: an OPC UA server with turbofan engines that run to failure and a gas "
    "turbine with real emissions, with years of history, and with faults and outages on demand. Without a command it "
    "runs the plant until Ctrl-C; any OPC UA client can read it.",
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=False,
)


@app.callback(invoke_without_command=True)
def run(
    context: typer.Context,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = DEFAULT.host,
    port: Annotated[int, typer.Option(min=0, max=65535, help="TCP port; 0: any free one.")] = DEFAULT.port,
    engines: Annotated[int, typer.Option(min=0, max=MAX_ENGINES, help="Engines in the fleet.")] = DEFAULT.engines,
    tags_per_second: Annotated[
        int | None, typer.Option(min=1, help="Choose as many engines as bring at least so many tags a second.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Another seed, another plant.")] = DEFAULT.seed,
    period: Annotated[
        float,
        typer.Option(min=0.01, max=3600, help="Seconds that a cycle of an engine and an hour of the turbine last."),
    ] = DEFAULT.period,
    dataset: Annotated[str, typer.Option(help=f"C-MAPSS set of the engines: {', '.join(DATASETS)}.")] = DEFAULT.dataset,
    history_runs: Annotated[
        int, typer.Option(min=0, help="Completed runs of each engine before the plant's first start.")
    ] = DEFAULT.history_runs,
    gas_turbine: Annotated[bool, typer.Option(help="With the gas turbine, or without.")] = DEFAULT.gas_turbine,
    gas_turbine_start: Annotated[
        int, typer.Option(min=2011, max=2015, help="Year that begins at the plant's first start.")
    ] = DEFAULT.gas_turbine_start,
    state: Annotated[
        Path | None, typer.Option(help="Folder to be the same plant again after a restart; else all is forgotten.")
    ] = None,
    truth: Annotated[
        Path | None, typer.Option(help="Folder for rul.csv and nox.csv, what only the simulator knows.")
    ] = None,
    faults: Annotated[
        Path | None,
        typer.Option(help="Script of faults: TOML ([[fault]]) or CSV with at, kind, tags, seconds, magnitude."),
    ] = None,
    security: Annotated[
        Security, typer.Option(help="none: open channels. sign-encrypt: only trusted clients, needs --state.")
    ] = Security.NONE,
) -> None:
    """Run the plant."""
    if context.invoked_subcommand is not None:
        return
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    _log.setLevel(logging.INFO)
    try:
        options = Options(
            host=host,
            port=port,
            engines=engines if tags_per_second is None else _engines_for(tags_per_second, period),
            seed=seed,
            period=period,
            dataset=dataset,
            history_runs=history_runs,
            gas_turbine=gas_turbine,
            gas_turbine_start=gas_turbine_start,
            state=state,
            truth=truth,
            faults=read_script(faults) if faults else (),
            security=security,
        )
        asyncio.run(_serve(options))
    except (OSError, ValueError, StateError) as error:
        raise _failure(str(error)) from error


@app.command()
def fault(
    kind: Annotated[Kind, typer.Argument(help="What goes wrong.")],
    tags: Annotated[str, typer.Argument(help="A tag's name, or a pattern such as 'engine-0*.T*'.")] = "*",
    seconds: Annotated[float, typer.Option(min=0.001, help="How long it lasts.")] = 60.0,
    magnitude: Annotated[float, typer.Option(help="Share of each tag's range; 0: the kind's usual one.")] = 0.0,
    endpoint: Annotated[str, typer.Option(help="The plant.")] = "opc.tcp://127.0.0.1:4840/plant",
) -> None:
    """Break something in a running plant, at once (a plant without security)."""
    logging.disable(logging.WARNING)
    try:
        count = asyncio.run(_inject(endpoint, kind, tags, seconds, magnitude))
    except (OSError, TimeoutError, UaError) as error:
        raise _failure(f"{endpoint}: {error or type(error).__name__}") from error
    typer.echo(f"{kind} for {seconds:g} s" + ("" if kind in {Kind.CUT, Kind.RESTART} else f" on {count} tags"))


@app.command()
def clear(endpoint: Annotated[str, typer.Option(help="The plant.")] = "opc.tcp://127.0.0.1:4840/plant") -> None:
    """End all faults of a running plant."""
    logging.disable(logging.WARNING)
    try:
        asyncio.run(_clear(endpoint))
    except (OSError, TimeoutError, UaError) as error:
        raise _failure(f"{endpoint}: {error or type(error).__name__}") from error
    typer.echo("faults cleared")


async def _serve(options: Options) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with serve(options) as plant:
        _log.info("%s: %d tags of %d machines", plant.endpoint, len(plant.plant.tags), len(plant.plant.machines))
        typer.echo(f"opcua_sim ready {plant.endpoint}")
        sys.stdout.flush()
        gc.freeze()  # the address space stays: collections need not look through it, which would hold up the ticks
        await stop.wait()
    _log.info("stopped")


async def _inject(endpoint: str, kind: Kind, tags: str, seconds: float, magnitude: float) -> int:
    arguments = [
        ua.Variant(kind.value, ua.VariantType.String),
        ua.Variant(tags, ua.VariantType.String),
        ua.Variant(seconds, ua.VariantType.Double),
        ua.Variant(magnitude, ua.VariantType.Double),
    ]
    return int(await _call(endpoint, "Inject", arguments) or 0)


async def _clear(endpoint: str) -> None:
    await _call(endpoint, "Clear", [])


async def _call(endpoint: str, method: str, arguments: list[ua.Variant]) -> int | None:
    client = Client(endpoint, timeout=_TIMEOUT)
    async with asyncio.timeout(2 * _TIMEOUT):
        await client.connect()
        try:
            namespace = await client.get_namespace_index(NAMESPACE)
            node = client.get_node(ua.NodeId(ua.String("faults"), ua.Int16(namespace)))
            answer: int | None = await node.call_method(f"{namespace}:{method}", *arguments)
            return answer
        finally:
            with suppress(OSError, UaError):  # a cut takes this connection too
                await client.disconnect()


def _engines_for(tags_per_second: int, period: float) -> int:
    wanted = -(-tags_per_second * period // TAGS_PER_ENGINE)
    if wanted > MAX_ENGINES:
        raise FaultError(
            f"{tags_per_second} tags a second are more than {MAX_ENGINES} engines bring; shorten the period"
        )
    return max(1, int(wanted))


def _failure(message: str) -> typer.Exit:
    typer.echo(f"opcua_sim: {message}", err=True)
    return typer.Exit(1)


def main() -> None:
    """Entry point."""
    app(prog_name="opcua_sim")


if __name__ == "__main__":
    main()
