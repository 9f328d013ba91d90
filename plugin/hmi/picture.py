"""The live table as rich renderables: a pure function of the snapshot and the size of the terminal."""

from collections.abc import Iterable, Sequence
from datetime import timedelta

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from plugin.domain import Quality, quality
from plugin.hmi.snapshot import AssetLine, ModelLine, Reading, Snapshot, SourceLine, TrainingLine
from plugin.hmi.words import (
    NOTHING,
    age,
    bounds,
    count,
    is_bad,
    milliseconds,
    number,
    plain,
    reading,
    severity_name,
    share,
    status_name,
)

_SOON = timedelta(days=3)
_WIDE = 100
"""Columns from which there is room for bars and full status names."""

_SHORTEST = 9
"""Columns that the first and the last column of a table keep, such as for "Uncertain"."""

_STYLES = {Quality.GOOD: "", Quality.UNCERTAIN: "yellow", Quality.BAD: "red"}


def picture(snapshot: Snapshot, width: int, height: int) -> Group:
    """All of it. Where not all assets fit, the most urgent are shown and the others counted."""
    parts: list[RenderableType] = [headline(snapshot), _sources(snapshot.sources)]
    if snapshot.trainings:
        parts.append(_trainings(snapshot.trainings))
    used = (
        2
        + len(snapshot.sources)
        + sum(bool(source.trouble) for source in snapshot.sources)
        + len(snapshot.trainings)
        + (len(snapshot.models) + 3 if snapshot.models else 0)
    )
    shown = most_urgent(snapshot.assets, max(3, height - used - 8))
    wide = width >= _WIDE
    if aging := [asset for asset in shown if asset.rul is not None or asset.quality is None]:
        parts += [Text(), _aging_assets(aging, wide)]
    if inferred := [asset for asset in shown if asset.quality is not None]:
        parts += [Text(), _inferred_quality(inferred, wide)]
    if hidden := len(snapshot.assets) - len(shown):
        parts.append(Text(f"and {hidden} more assets, none more urgent", "dim"))
    if snapshot.models:
        parts += [Text(), _models(snapshot.models, wide)]
    return Group(*parts)


def headline(snapshot: Snapshot) -> Text:
    """Name, uptime and totals; what must not happen is set off by words and colour."""
    totals = snapshot.totals
    line = Text.assemble(("foretag", "bold"), f"  up {timedelta(seconds=int(snapshot.uptime.total_seconds()))}")
    line.append(f" · {count(totals.samples_stored, 'sample')} ({totals.samples_per_second:,.0f}/s) · ")
    line.append(f"{count(totals.gaps_open, 'gap')} open", "yellow" if totals.gaps_open else "")
    line.append(" · ")
    line.append(
        f"{totals.dropped:,} {'DROPPED' if totals.dropped else 'dropped'}", "bold red" if totals.dropped else ""
    )
    if totals.disk_full is not None:
        line.append(f" · DISK FULL in {age(totals.disk_full)}", "bold red" if totals.disk_full < _SOON else "yellow")
    if totals.storing == "waiting":
        line.append(" · DATABASE AWAY, sources wait", "bold red")
    elif totals.storing == "spilling":
        line.append(f" · {totals.spilled:,} in the SPILL", "yellow")
    else:
        line.append(f" · loop lag p99 {milliseconds(totals.loop_lag_p99)}")
    return line


def most_urgent(assets: Sequence[AssetLine], room: int) -> Sequence[AssetLine]:
    """All in their order where there is room; else the flagged, then the Bad and Uncertain, then the shortest RUL."""
    if len(assets) <= room:
        return assets
    return sorted(assets, key=_urgency)[:room]


def _urgency(asset: AssetLine) -> tuple[bool, int, float]:
    rul = asset.rul.value if asset.rul is not None else None
    return not asset.flag, -quality(asset.status), float("inf") if rul is None else rul


def _row(table: Table, *cells: RenderableType) -> None:
    """Strings as they are: a bracket in a plant's name or unit is no markup."""
    table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in cells))


def _sources(sources: Sequence[SourceLine]) -> Group:
    table = Table.grid(padding=(0, 2, 0, 0))
    for source in sources:
        unwell = _cut(", ".join(f"{count(tags, 'tag')} {what}" for what, tags in source.unwell))
        unwell.stylize("yellow")
        _row(table, plain(source.name), _connection(source), "history", *_history(source), unwell)
    troubles = [_cut(f"{source.name}: {source.trouble}") for source in sources if source.trouble]
    for trouble in troubles:
        trouble.stylize("red")
    return Group(table, *troubles)


def _connection(source: SourceLine) -> Text:
    if not source.connected:
        return Text("NOT CONNECTED", "bold red")
    return Text("NOT RELIED ON", "bold red") if source.away else Text("connected", "green")


def _history(source: SourceLine) -> tuple[RenderableType, Text]:
    samples = count(source.history_samples, "sample")
    if not source.history_total:
        return NOTHING, _cut("")
    if source.history_done >= source.history_total:
        return "read", _cut(f"{count(source.history_total, 'tag')}, {samples}")
    bar = ProgressBar(total=source.history_total, completed=source.history_done, width=14)
    return bar, _cut(f"{source.history_done:,}/{source.history_total:,} tags, {samples}")


def _trainings(trainings: Sequence[TrainingLine]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    for training in trainings:
        bar = ProgressBar(total=1.0, completed=training.share, width=20)
        _row(table, plain(training.model), "training", bar, f"{training.share:4.0%}", _cut(training.message))
    return table


def _table(wide: bool, *columns: str) -> Table:
    """One line per row; ``>name`` is a column of numbers, never cut: the first and the last column make room."""
    padding = (0, 1 if wide else 0, 0, 0)
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=padding, header_style="bold")
    for place, column in enumerate(columns):
        table.add_column(
            Text(column.removeprefix(">")),
            justify="right" if column.startswith(">") else "left",
            no_wrap=0 < place < len(columns) - 1,
        )
        if column in {"Asset", "Status"}:
            table.columns[-1].min_width = _SHORTEST
    return table


_COMMON_COLUMNS = (">anomaly", "flag", ">age", "Status")


def _aging_assets(assets: Sequence[AssetLine], wide: bool) -> Table:
    unit = _common_unit(asset.rul for asset in assets)
    table = _table(wide, "Asset", f">RUL{unit}", "bounds", ">health", *([""] if wide else []), *_COMMON_COLUMNS)
    for asset in assets:
        bar = [_bar(asset.health)] if wide else []
        rul = _value(asset.rul), bounds(asset.rul)
        _row(table, _name(asset), *rul, share(asset.health), *bar, *_common_cells(asset, wide))
    return table


def _inferred_quality(assets: Sequence[AssetLine], wide: bool) -> Table:
    table = _table(wide, "Asset", "quality", ">inferred", "bounds", ">lab", ">lab age", *_COMMON_COLUMNS)
    for asset in assets:
        unit = _common_unit([asset.quality]) if wide else ""
        inferred = plain(asset.quality_name) + unit, _value(asset.quality), bounds(asset.quality)
        _row(table, _name(asset), *inferred, number(asset.lab), age(asset.lab_age), *_common_cells(asset, wide))
    return table


def _common_cells(asset: AssetLine, wide: bool) -> tuple[RenderableType, ...]:
    """Anomaly score against its threshold, the decision, the age of the data and the status."""
    score = NOTHING if asset.score is None else f"{number(asset.score)}/{number(asset.threshold)}"
    flag = Text("FLAG", "bold red") if asset.flag else Text(NOTHING if asset.flag is None else "no")
    status = _cut(status_name(asset.status) if wide else severity_name(asset.status))
    status.stylize(_STYLES[quality(asset.status)])
    return score, flag, age(asset.data_age), status


def _models(models: Sequence[ModelLine], wide: bool) -> Table:
    table = _table(wide, "Model", ">version", ">last run", ">assets", ">inference", ">missed", ">failed")
    for model in models:
        _row(
            table,
            plain(model.name),
            str(model.version) if model.version else "none yet",
            f"{age(model.since_run)} ago" if model.since_run is not None else NOTHING,
            str(model.assets),
            milliseconds(model.inference),
            Text(f"{model.missed:,}", "yellow" if model.missed else ""),
            Text(f"{model.failed:,}", "red" if model.failed else ""),
        )
    return table


def _name(asset: AssetLine) -> Text:
    name = _cut(asset.name)
    name.stylize("bold" if asset.flag else "")
    return name


def _cut(text: str) -> Text:
    """Text that is shortened rather than wrapped."""
    return Text(plain(text), no_wrap=True, overflow="ellipsis")


def _value(shown: Reading | None) -> Text:
    return Text(reading(shown), _STYLES[quality(shown.status)] if shown is not None else "")


def _bar(health: Reading | None) -> RenderableType:
    if health is None or health.value is None or is_bad(health):
        return ""
    # No colour of its own: colours are for what is not normal (ISA-101), and rich's are red until all is done.
    return ProgressBar(total=1.0, completed=health.value, width=10, complete_style="default", finished_style="default")


def _common_unit(readings: Iterable[Reading | None]) -> str:
    """`` [h]`` where all readings share a unit; assets of one fleet do."""
    units = {shown.unit for shown in readings if shown is not None}
    return f" [{plain(units.pop())}]" if len(units) == 1 and units != {""} else ""
