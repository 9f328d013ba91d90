"""The form that every benchmark has: rows of a median, its spread, a peer and a goal; as a table and as JSON."""

import json
import math
import os
import platform
import statistics
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, minimum and maximum of several runs."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, figures: Iterable[float]) -> "Spread":
        """Of one figure or more; ValueError where there is none."""
        runs = sorted(figures)
        if not runs:
            raise ValueError("no run was measured")
        return cls(statistics.median(runs), runs[0], runs[-1])


class Better(Enum):
    """Which way a figure gets better."""

    LESS = "less"
    MORE = "more"


@dataclass(frozen=True, slots=True)
class Goal:
    """What was set out to be reached, by the value itself or by the ratio to the peer."""

    limit: float
    of_ratio: bool = False


@dataclass(frozen=True, slots=True)
class Peer:
    """Somebody else's way to do the same work, measured in the same run."""

    name: str
    value: Spread


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of a benchmark."""

    figure: str
    value: Spread
    unit: str
    better: Better = Better.LESS
    peer: Peer | None = None
    goal: Goal | None = None

    @property
    def ratio(self) -> float | None:
        """How many times better than the peer, whichever way is better: above 1 we lead."""
        if self.peer is None:
            return None
        ours, theirs = self.value.median, self.peer.value.median
        good, bad = (theirs, ours) if self.better is Better.LESS else (ours, theirs)
        return good / bad if bad else None

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None where there is none, or nothing to judge it by."""
        if self.goal is None:
            return None
        if self.goal.of_ratio:
            return None if self.ratio is None else self.ratio >= self.goal.limit
        median = self.value.median
        return median <= self.goal.limit if self.better is Better.LESS else median >= self.goal.limit

    @property
    def goal_text(self) -> str | None:
        """``<= 0.4`` (in the figure's unit) or ``ratio >= 30``."""
        if self.goal is None:
            return None
        if self.goal.of_ratio:
            return f"ratio >= {self.goal.limit:g}"
        return f"{'<=' if self.better is Better.LESS else '>='} {self.goal.limit:g}"

    def as_json(self, benchmark: str) -> dict[str, Any]:
        """The eight keys that every benchmark's rows have; ``peer`` is ``name: value`` in the figure's unit."""
        return {
            "benchmark": benchmark,
            "figure": self.figure,
            "value": self.value.median,
            "unit": self.unit,
            "peer": None if self.peer is None else f"{self.peer.name}: {digits(self.peer.value.median)}",
            "ratio": self.ratio,
            "goal": self.goal_text,
            "met": self.met,
        }


async def repeat(run: Callable[[], Awaitable[float]], times: int) -> Spread:
    """The spread of a figure over ``times`` runs, one after the other."""
    return Spread.of([await run() for _ in range(times)])


async def alternate(
    ours: Callable[[], Awaitable[float]], theirs: Callable[[], Awaitable[float]], times: int
) -> tuple[Spread, Spread]:
    """Both figures, taken in turns: what disturbs the machine for a while disturbs both."""
    pairs = [(await ours(), await theirs()) for _ in range(times)]
    return Spread.of(our for our, _ in pairs), Spread.of(their for _, their in pairs)


Histogram = Mapping[float, float]
"""Upper bound → how many were no larger; ascending, the last bound infinite (as Prometheus has it)."""


def quantile(histogram: Histogram, share: float) -> float:
    """A quantile, linear within its bucket; the largest finite bound where it lies beyond; NaN of nothing."""
    wanted = share * histogram[math.inf]
    low, under = 0.0, 0.0
    for bound, count in histogram.items():
        if count >= wanted > 0:
            return low if math.isinf(bound) else low + (bound - low) * (wanted - under) / (count - under)
        low, under = bound, count
    return math.nan


def digits(value: float) -> str:
    """Three significant digits, thousands grouped, no power of ten."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


# --- what is printed and written ---------------------------------------------------------------------------------


def view(benchmark: str, rows: Sequence[Row]) -> Group:
    """The table of one benchmark."""
    table = Table(title=benchmark, title_justify="left", caption_justify="left")
    table.caption = "median of the runs (least to most); ratio: times better than the peer, above 1 we lead"
    for column in ("figure", "value", "unit", "peer", "ratio", "goal", "met"):
        table.add_column(column, justify="right" if column in {"value", "peer", "ratio"} else "left")
    for row in rows:
        table.add_row(*map(Text, _cells(row)))
    return Group(Text(), table)


def _cells(row: Row) -> Sequence[str]:
    return (
        row.figure,
        _spread(row.value),
        row.unit,
        "" if row.peer is None else f"{row.peer.name} {_spread(row.peer.value)}",
        "" if row.ratio is None else f"{digits(row.ratio)}×",
        row.goal_text or "",
        "" if row.met is None else "yes" if row.met else "NO",
    )


def _spread(spread: Spread) -> str:
    if spread.low == spread.high:
        return digits(spread.median)
    return f"{digits(spread.median)} ({digits(spread.low)}–{digits(spread.high)})"


def write(path: Path, results: Iterable[tuple[str, Sequence[Row]]]) -> None:
    """All rows of all benchmarks as one JSON array."""
    rows = [row.as_json(benchmark) for benchmark, measured in results for row in measured]
    path.write_text(json.dumps(rows, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def machine() -> str:
    """What was measured on: processor, cores, memory, system, versions."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parts = [f"{_processor()}, {cores} cores, {memory:.1f} GiB", f"{platform.system()} {platform.machine()}"]
    parts += [
        f"Python {platform.python_version()}",
        *(f"{name} {_version(name)}" for name in ("jax", "asyncua", "sqlalchemy")),
    ]
    return ", ".join(parts)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "absent"
