"""Before the first run: ``init``, ``check``, ``browse``."""

from pathlib import Path
from typing import Annotated

import typer

from plugin.commands.console import DEFAULT, ConfigPath, complete, load, out


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

    complete(write_first_config(endpoint, folder, root=root, force=force, confirm=confirm, console=out))


def check(config: ConfigPath = DEFAULT) -> None:
    """Validate the file, connect to every source, read each tag once, and show what came."""
    from plugin.commissioning import check_tags  # noqa: PLC0415

    if not complete(check_tags(load(config), out)):
        raise typer.Exit(1)


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

    search = Search(source, under, match, tuple(kind or ()))
    complete(browse_source(load(config), search, csv, out, force=force))
