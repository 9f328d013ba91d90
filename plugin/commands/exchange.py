"""History in files: ``import`` and ``export``."""

from pathlib import Path
from typing import Annotated

import typer

from plugin.commands.console import DEFAULT, ConfigPath, checked, complete, load, out


def import_(
    files: Annotated[list[Path], typer.Argument(help="CSV (also .gz), Parquet or Excel (.xlsx).")],
    config: ConfigPath = DEFAULT,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read all of it, write nothing, and show what would come of it.")
    ] = False,
    zone: Annotated[
        str, typer.Option(help="Time zone of times that name none, such as Europe/Berlin or UTC.", show_default=False)
    ] = "",
    ambiguous: Annotated[
        str, typer.Option(help="A local time that was there twice when clocks went back: reject, earlier or later.")
    ] = "reject",
    layout: Annotated[str, typer.Option(help="long: a line per sample; wide: a column per tag. Default: found.")] = "",
    time: Annotated[str, typer.Option(help="Heading of the times. Default: found, as those below.")] = "",
    tag: Annotated[str, typer.Option(help="Heading of the tags' names (long).")] = "",
    value: Annotated[str, typer.Option(help="Heading of the values (long).")] = "",
    status: Annotated[str, typer.Option(help="Heading of the statuses (long).")] = "",
    server_time: Annotated[str, typer.Option(help="Heading of when each value was known (long).")] = "",
    text: Annotated[str, typer.Option(help="Heading of texts (long).")] = "",
    format: Annotated[  # noqa: A002 - as the option is called
        str, typer.Option(help='Of the times: iso, s, ms, us, ns, excel, or such as "%d.%m.%Y %H:%M:%S".')
    ] = "",
    codes: Annotated[
        str, typer.Option(help="What statuses below 256 are: opcua (0 is Good) or classic (192 is Good).")
    ] = "",
    mapping: Annotated[
        Path | None, typer.Option("--map", help="CSV with the columns column, tag, and perhaps unit, scale, offset.")
    ] = None,
    create: Annotated[
        bool, typer.Option("--create", help="Make tags of names that are none; else their samples are left out.")
    ] = False,
    correct: Annotated[
        bool,
        typer.Option("--correct", help="Put values in the place of stored ones that they contradict; both are kept."),
    ] = False,
    texts: Annotated[
        bool, typer.Option("--texts", help="Keep values that are no number as texts; else they are quarantined.")
    ] = False,
    future: Annotated[bool, typer.Option("--future", help="Take times that are yet to come.")] = False,
    delimiter: Annotated[str, typer.Option(help="What parts the columns of a CSV. Default: found.")] = "",
    decimal: Annotated[str, typer.Option(help="Decimal mark, . or , (found where commas part no columns).")] = "",
    thousands: Annotated[str, typer.Option(help="Mark between thousands. Default: there is none.")] = "",
    encoding: Annotated[str, typer.Option(help="Of a CSV, such as cp1252 or utf-16.")] = "utf-8",
    skip: Annotated[int, typer.Option(help="Lines above the heading.", min=0)] = 0,
    sheet: Annotated[str, typer.Option(help="Of a workbook. Default: all that have the first one's heading.")] = "",
    rejects: Annotated[
        Path | None, typer.Option(help="Write what could not be taken to this CSV too.", dir_okay=False)
    ] = None,
    max_rejects: Annotated[int, typer.Option(help="Stop when more cells than this can't be taken.", min=0)] = 100_000,
) -> None:
    """Bring history from files into the historian: twice is as once, and what was cut off goes on where it was.

    Exit status 1: nothing in one of the files could be taken.
    """
    from plugin.exchange import terms  # noqa: PLC0415 - each command loads only what it needs

    for file in files:
        checked(lambda file=file: terms.needs(file))  # type: ignore[misc]
    from plugin.exchange.importing import Order  # noqa: PLC0415
    from plugin.exchange.roster import read_mapping  # noqa: PLC0415
    from plugin.exchanging import import_files  # noqa: PLC0415

    said = terms.Terms(
        checked(lambda: terms.choice("--layout", layout, terms.Layout)),
        time, tag, value, status, server_time, text, format, zone,
        checked(lambda: terms.choice("--ambiguous", ambiguous, terms.Ambiguous)) or terms.Ambiguous.REJECT,
        delimiter, decimal, thousands, checked(lambda: terms.choice("--codes", codes, terms.Codes)), encoding, skip,
        sheet, texts, future,
    )  # fmt: skip
    checked(said.check)
    entries = checked(lambda: read_mapping(mapping)) if mapping else {}
    orders = [Order(file, said, entries, create, correct, dry_run, max_rejects) for file in files]
    outcomes = complete(import_files(load(config), orders, rejects, out))
    if any(outcome.in_vain for outcome in outcomes):
        raise typer.Exit(1)


def export(
    to_file: Annotated[Path, typer.Argument(metavar="FILE", help="To write: .csv, .csv.gz, .parquet or .xlsx.")],
    tags: Annotated[list[str], typer.Option(help="Wildcards of tags' names, such as 'engine-01.*'; may be repeated.")],
    since: Annotated[str, typer.Option("--from", help="A date or time, or a duration before now such as 7d.")],
    until: Annotated[str, typer.Option("--to", help="The same, exclusive. Default: now.")] = "",
    config: ConfigPath = DEFAULT,
    layout: Annotated[str, typer.Option(help="long: a line per sample; wide: a column per tag.")] = "long",
    level: Annotated[str, typer.Option(help="Roll-ups by minute, hour or day, in place of samples.")] = "",
    zone: Annotated[str, typer.Option(help="Time zone of the times, and of --from and --to.")] = "UTC",
    statuses: Annotated[
        bool, typer.Option("--statuses", help="Wide: a column of statuses for each tag; else Bad is left out.")
    ] = False,
    texts: Annotated[bool, typer.Option("--texts", help="Wide: values as text, so that texts have a place.")] = False,
) -> None:
    """Write samples to a file that `foretag import`, a spreadsheet or a notebook reads."""
    from plugin.exchange import terms  # noqa: PLC0415

    checked(lambda: terms.needs(to_file))
    from plugin.domain import Level  # noqa: PLC0415
    from plugin.exchange.exporting import Extract  # noqa: PLC0415
    from plugin.exchanging import export_file  # noqa: PLC0415

    start, end = checked(lambda: terms.span(since, until, zone))
    shape = checked(lambda: terms.choice("--layout", layout, terms.Layout)) or terms.Layout.LONG
    rolled = checked(lambda: terms.choice("--level", level, Level))
    extract = Extract((), start, end, shape, zone, statuses, texts, rolled)
    complete(export_file(load(config), to_file, tags, extract, out))
