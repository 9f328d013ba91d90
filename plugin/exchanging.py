"""``foretag import`` and ``export`` in a terminal: the database, the lock, how far it is, and what came of it."""

import csv
import getpass
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from plugin import lock
from plugin.config import Config
from plugin.diagnostics import Diagnostics
from plugin.domain import Micros, Reject, from_micros
from plugin.errors import AlreadyRunning
from plugin.exchange.columns import escape_text
from plugin.exchange.exporting import Extract, chosen, export
from plugin.exchange.importing import Order, Outcome, bring
from plugin.exchange.terms import fault
from plugin.historian.stores import SqlStore, configured
from plugin.report.layout import duration, headed, printable

_TAGS_SHOWN = 40
_NAMES_SHOWN = 12

Told = Callable[[float, int], None]


async def import_files(
    config: Config, orders: Sequence[Order], rejects: Path | None, console: Console
) -> tuple[Outcome, ...]:
    """One after the other; ``rejects``: a CSV of what could not be taken. AlreadyRunning while a service runs."""
    outcomes = []
    dry = all(order.dry for order in orders)
    with _alone(config, dry=dry), _rejects_file(rejects, orders) as rejected:
        async with configured(config.historian, config.data, Diagnostics(), with_ring=False) as store:
            if not dry:
                await store.register_tags(config.tags)
            for order in orders:
                with _progress(console, order.path.name) as told:
                    order = replace(order, user=_user(), configured=config.tags if order.dry else ())  # noqa: PLW2901
                    outcome = await bring(store, order, told, rejected(order.path.name))
                console.print(outcome_view(outcome, dry=dry))
                outcomes.append(outcome)
            if not dry:
                await _put_in_order(store, config, console)
    return tuple(outcomes)


async def export_file(config: Config, path: Path, patterns: Sequence[str], extract: Extract, console: Console) -> None:
    """An extract of the tags that the patterns name."""
    async with configured(config.historian, config.data, Diagnostics(), with_ring=False) as store:
        tags = chosen(await store.tags(), patterns)
        with _progress(console, path.name) as told:
            written = await export(store, path, replace(extract, tags=tags), told)
        kept = await store.kept_since([tag.id for tag in tags])
    what = "roll-ups" if extract.level else "samples"
    line = f"{path}: {written.samples:,} {what} of {len(tags):,} tags in {written.rows:,} rows"
    console.print(line, markup=False, highlight=False)
    if written.left_out:
        console.print(
            f"{written.left_out:,} samples are left out: a wide file holds Bad ones only with --statuses, texts "
            "only with --texts; --layout long holds all of them",
            style="yellow",
        )
    dropped = [since for since in kept.values() if since > extract.start]
    if dropped and not extract.level:
        console.print(_dropped(dropped), style="yellow", markup=False, highlight=False)


def _dropped(since: Sequence[Micros]) -> str:
    """``since``: from when on samples of tags are whole."""
    of = f"{len(since):,} tags" if len(since) > 1 else "one tag"
    when = _moment(max(since))
    return f"samples of {of} before {when} UTC were dropped by retention"


@contextmanager
def _alone(config: Config, *, dry: bool) -> Iterator[None]:
    """What is written beside a running service would not be in its memory; to look is no harm."""
    if dry:
        yield
        return
    try:
        held = ExitStack()
        held.enter_context(lock.hold(config.lock_files, config.path))
    except AlreadyRunning as error:
        raise AlreadyRunning(f"{error}: history is imported while foretag is stopped") from error
    with held:
        yield


async def _put_in_order(store: SqlStore, config: Config, console: Console) -> None:
    """What the service would do at its next start: until then whoever reads one tag would go through all the rows."""
    with console.status("coding and rolling up what was imported"):
        for chore in store.chores(config.historian):
            await chore.do()


def _user() -> str:
    with suppress(OSError, KeyError):
        return getpass.getuser()
    return ""


@contextmanager
def _progress(console: Console, name: str) -> Iterator[Told]:
    """A bar on a terminal; else a line for each tenth."""
    if not console.is_terminal:
        yield _tenths(console, name)
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[rows]:,} rows"),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task(printable(name), total=1.0, rows=0)
        yield lambda share, rows: progress.update(bar, completed=share, rows=rows)


def _tenths(console: Console, name: str) -> Told:
    said = 0

    def told(share: float, rows: int) -> None:
        nonlocal said
        if int(share * 10) > said:
            said = int(share * 10)
            console.print(f"{printable(name)}: {said * 10} %, {rows:,} rows", markup=False, highlight=False)

    return told


@contextmanager
def _rejects_file(
    path: Path | None, orders: Sequence[Order]
) -> Iterator[Callable[[str], Callable[[Sequence[Reject]], None]]]:
    if path is None:
        yield lambda _name: lambda _rejects: None
        return
    if path.exists() and any(order.path.samefile(path) for order in orders):
        raise fault("--rejects", str(path), "is to be imported, and would be written over", "Name another file")
    with path.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.writer(lines)
        writer.writerow(["file", "row", "column", "content", "reason"])

        def of_file(name: str) -> Callable[[Sequence[Reject]], None]:
            def rejected(rejects: Sequence[Reject]) -> None:
                for each in rejects:
                    cells = map(escape_text, (each.column, each.content))
                    writer.writerow([escape_text(name), each.row, *cells, each.reason])
                lines.flush()

            return rejected

        yield of_file


# --- what came of it ---


def outcome_view(outcome: Outcome, *, dry: bool) -> Table:
    """How the file was read, a line per tag, what was left out, and the sum."""
    view = Table.grid()
    view.add_row(Text(_how(outcome), "dim"))
    if outcome.resumed:
        view.add_row(f"taken up again behind row {outcome.resumed:,}; the lines count from there")
    view.add_row(_tags(outcome))
    for text in _asides(outcome):
        view.add_row(Text(text, "yellow"))
    if outcome.tally.reasons:
        view.add_row(_reasons(outcome))
    view.add_row(Text(_sum(outcome, dry=dry), "bold"))
    return view


def _how(outcome: Outcome) -> str:
    said = ", ".join(f"{name} {printable(value)}" for name, value in outcome.found.items())
    return f"{printable(outcome.record.file)}: {said}"


def _tags(outcome: Outcome) -> Table:
    table = headed(
        "Tag", ">new", ">there already", ">contradicting", ">Bad", "first, UTC", "last, UTC", ">longest hole"
    )
    lines = sorted(outcome.tally.lines(), key=lambda line: (-line.conflicts, outcome.tags[line.tag].name))
    made = {tag.id for tag in outcome.created}
    for line in lines[:_TAGS_SHOWN]:
        name = Text(printable(outcome.tags[line.tag].name)).append(" (made)" if line.tag in made else "", "green")
        table.add_row(
            name, f"{line.new:,}", f"{line.duplicates:,}", Text(f"{line.conflicts:,}", "red" if line.conflicts else ""),
            f"{line.bad:,}", _moment(line.first), _moment(line.last), duration(timedelta(microseconds=line.hole)),
        )  # fmt: skip
    if len(lines) > _TAGS_SHOWN:
        table.add_row(Text(f"and {len(lines) - _TAGS_SHOWN:,} more", "dim"))
    return table


def _moment(micros: Micros) -> str:
    try:
        return f"{from_micros(micros):%Y-%m-%d %H:%M:%S}"
    except OverflowError:
        return "beyond the year 9999"


def _asides(outcome: Outcome) -> Iterator[str]:
    unknown = [(name, count) for name, count in outcome.unknown.items() if count]
    if unknown:
        shown = ", ".join(f"{printable(name)} ({count:,})" for name, count in unknown[:_NAMES_SHOWN])
        more = f", and {len(unknown) - _NAMES_SHOWN:,} more" if len(unknown) > _NAMES_SHOWN else ""
        yield f"left out, since they are no tags (--create makes them, --map names others): {shown}{more}"
    yield from map(printable, outcome.notes)


def _reasons(outcome: Outcome) -> Table:
    table = headed(">Quarantined", "because a cell or a row")
    for reason, count in outcome.tally.reasons.most_common():
        table.add_row(f"{count:,}", Text(printable(reason)))
    return table


def _sum(outcome: Outcome, *, dry: bool) -> str:
    record = outcome.record
    verb = "would be stored; nothing was written" if dry else "stored"
    corrected = f", {outcome.corrected:,} corrected" if outcome.corrected else ""
    return (
        f"{record.position:,} rows: {record.stored:,} samples {verb}{corrected}, {record.duplicates:,} were there "
        f"already, {record.quarantined:,} quarantined"
    )
