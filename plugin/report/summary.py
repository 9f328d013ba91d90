"""The summary of a run, as a person reads it when the run has ended."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from plugin.report.layout import headed


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of merit of the run."""

    name: str
    """Such as ``RUL RMSE``."""
    value: float | None
    """None: there was nothing to compute it from, and ``note`` says why."""
    unit: str = ""
    n: int = 0
    """Pairs of prediction and truth behind it."""
    note: str = ""
    """What a reader must know to believe it: the cap of the labels, the baseline beside it."""


@dataclass(frozen=True, slots=True)
class ModelRuns:
    """Scoring runs of one model, by how they ended."""

    model: str
    version: int
    """0: none was ever trained."""
    done: int
    failed: int
    missed: int


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A run from start to end."""

    duration: timedelta
    samples_stored: int
    gaps: int
    gaps_open: int
    dropped: int
    published: int
    publish_failures: int
    figures: tuple[Figure, ...]
    runs: tuple[ModelRuns, ...]
    problems: tuple[str, ...] = ()
    """Why the job did not really run, one sentence each; empty: it did."""

    @property
    def ok(self) -> bool:
        """Whether the job really ran."""
        return not self.problems


def summary_view(summary: RunSummary) -> Group:
    """Figures, counts, runs and the verdict, for ``Console.print``."""
    parts: list[RenderableType] = [Text("Summary", "bold"), _counts(summary)]
    if summary.figures:
        parts += [Text(), _figures(summary.figures)]
    if summary.runs:
        parts += [Text(), _runs(summary.runs)]
    parts += [Text(), *_verdict(summary)]
    return Group(*parts)


def _counts(summary: RunSummary) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(justify="right")
    for name, value, alarming in (
        ("ran for", str(timedelta(seconds=round(summary.duration.total_seconds()))), False),
        ("samples stored", f"{summary.samples_stored:,}", summary.samples_stored == 0),
        ("gaps found", f"{summary.gaps:,}", False),
        ("  of them still open", f"{summary.gaps_open:,}", summary.gaps_open > 0),
        ("samples dropped", f"{summary.dropped:,}", summary.dropped > 0),
        ("values published", f"{summary.published:,}", False),
        ("  could not be published", f"{summary.publish_failures:,}", summary.publish_failures > 0),
    ):
        table.add_row(name, Text(value, "bold red" if alarming else ""))
    return table


def _figures(figures: Sequence[Figure]) -> Table:
    table = headed("Figure", ">value", "unit", ">pairs", "note")
    for figure in figures:
        table.add_row(*map(Text, (figure.name, _digits(figure.value), figure.unit, f"{figure.n:,}", figure.note)))
    return table


def _digits(value: float | None) -> str:
    if value is None:
        return "none"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _runs(runs: Sequence[ModelRuns]) -> Table:
    table = headed("Model", ">version", ">runs done", ">failed", ">missed")
    for run in runs:
        version = str(run.version) if run.version else "none"
        counts = [Text(f"{number:,}", "red" if number else "") for number in (run.failed, run.missed)]
        table.add_row(Text(run.model), version, f"{run.done:,}", *counts)
    return table


def _verdict(summary: RunSummary) -> Sequence[Text]:
    if summary.ok:
        return [Text("The job ran.", "green")]
    return [Text("The job did not really run:", "bold red"), *(Text(f"  {problem}") for problem in summary.problems)]
