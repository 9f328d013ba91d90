"""Faults of sensors, and outages of the server: on demand, or by a script.

A fault acts on what arrives in its time: on a laboratory value when it is published, not when the sample was drawn.
Each fault is written down before it acts, so the plant's past stays a pure function of the step.
"""

import csv
import fnmatch
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from opcua_sim import chance

BAD_SENSOR_FAILURE = 0x808C0000
UNCERTAIN_SENSOR_NOT_ACCURATE = 0x40930000
_SPIKE_SHARE = 0.1


class Kind(StrEnum):
    """What can go wrong. The magnitude is a share of the tag's range."""

    DRIFT = "drift"
    """A growing offset that reaches the magnitude at the end."""
    STUCK = "stuck"
    """The last value before the fault, with new times."""
    SPIKES = "spikes"
    """One value in ten is off by the magnitude, to either side."""
    DROPOUT = "dropout"
    """No new values, and none in the history."""
    BAD = "bad"
    """BadSensorFailure, no value."""
    UNCERTAIN = "uncertain"
    """The right value, but UncertainSensorNotAccurate."""
    RESTART = "restart"
    """The server goes down and comes back with the same nodes and no sessions; the plant goes on."""
    CUT = "cut"
    """Connections are broken and refused; sessions live, the plant goes on."""


OUTAGES = frozenset({Kind.RESTART, Kind.CUT})
MAGNITUDES = {Kind.DRIFT: 0.5, Kind.SPIKES: 1.0}
"""Where none is given."""


class FaultError(ValueError):
    """A fault, or a script of faults, that can't be understood."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of some tags, in steps."""

    kind: Kind
    tags: str
    """A tag's name or a pattern such as ``engine-0*.T*``."""
    start: int
    """The first step at which values arrive wrong."""
    end: int
    """The step after the last."""
    magnitude: float = 0.0

    def hits(self, tag: str) -> bool:
        """Whether it concerns a tag."""
        return fnmatch.fnmatchcase(tag, self.tags)


@dataclass(frozen=True, slots=True)
class Planned:
    """A fault to come, in seconds from the start of the process."""

    at: float
    kind: Kind
    tags: str
    seconds: float
    magnitude: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """Values of one tag at ascending steps."""

    step: NDArray[np.int64]
    """When each sample was taken."""
    value: NDArray[np.float64]
    """NaN where the status is Bad."""
    status: NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.step)


class FaultLog:
    """All faults of sensors that this plant ever had; kept in ``faults.csv`` where there is a folder for it."""

    _COLUMNS = ("kind", "tags", "start", "end", "magnitude")
    _CLEAR = "clear"

    def __init__(self, seed: int, path: Path | None = None) -> None:
        self.seed = seed
        self._path = path
        self._faults: list[Fault] = []
        if path is not None and path.exists():
            self._read(path)

    def add(self, fault: Fault) -> None:
        """Write a fault down; it must not begin before the next step."""
        self._faults.append(fault)
        self._append(fault.kind, fault.tags, fault.start, fault.end, repr(fault.magnitude))

    def clear(self, step: int) -> None:
        """End all faults at a step that is not over yet."""
        self._cut_off(step)
        self._append(self._CLEAR, "*", step, step, "")

    def active(self, step: int) -> tuple[Fault, ...]:
        """Faults that act on what arrives at a step."""
        return tuple(fault for fault in self._faults if fault.start <= step < fault.end)

    def between(self, tag: str, start: int, end: int) -> tuple[Fault, ...]:
        """Faults that act on what a tag brings at steps ``start <= step < end``."""
        return tuple(fault for fault in self._faults if fault.start < end and start < fault.end and fault.hits(tag))

    def _cut_off(self, step: int) -> None:
        shortened = (Fault(f.kind, f.tags, f.start, min(f.end, step), f.magnitude) for f in self._faults)
        self._faults = [fault for fault in shortened if fault.start < fault.end]

    def _read(self, path: Path) -> None:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if row["kind"] == self._CLEAR:
                    self._cut_off(int(row["start"]))
                    continue
                magnitude = float(row["magnitude"])
                self._faults.append(
                    Fault(Kind(row["kind"]), row["tags"], int(row["start"]), int(row["end"]), magnitude)
                )

    def _append(self, *row: object) -> None:
        if self._path is None:
            return
        fresh = not self._path.exists()
        with self._path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if fresh:
                writer.writerow(self._COLUMNS)
            writer.writerow(row)


def distort(
    faults: Sequence[Fault],
    series: Series,
    *,
    tag: str,
    span: float,
    delay: int,
    seed: int,
    at: Callable[[int], float],
) -> Series:
    """A series as it arrives: faults are applied in the order they began to be known.

    ``span``: width of the tag's range; ``at``: the true value at one step (for what is stuck).
    """
    step, value, status = series.step, series.value.copy(), series.status.copy()
    keep = np.ones(len(series), np.bool_)
    arrival = step + delay
    for fault in faults:
        now = (fault.start <= arrival) & (arrival < fault.end)
        size = fault.magnitude * span
        match fault.kind:
            case Kind.DRIFT:
                value[now] += size * (arrival[now] - fault.start + 1) / (fault.end - fault.start)
            case Kind.STUCK:
                value[now] = at(fault.start - 1 - delay)
            case Kind.SPIKES:
                value[now] += size * _spikes(seed, f"{tag} {fault.start}", arrival[now])
            case Kind.DROPOUT:
                keep &= ~now
            case Kind.BAD:
                value[now], status[now] = np.nan, BAD_SENSOR_FAILURE
            case Kind.UNCERTAIN:
                status[now] = np.maximum(status[now], np.uint32(UNCERTAIN_SENSOR_NOT_ACCURATE))
    return Series(step[keep], value[keep], status[keep])


def _spikes(seed: int, what: str, steps: NDArray[np.int64]) -> NDArray[np.float64]:
    """-1, 0 or 1 for each step."""
    hit = chance.uniform(seed, f"spike {what}", steps) < _SPIKE_SHARE
    return np.where(hit, np.sign(chance.uniform(seed, f"side {what}", steps) - 0.5), 0.0)


def parse_kind(text: str) -> Kind:
    """The kind of a name; :class:`FaultError` names the valid ones."""
    try:
        return Kind(text)
    except ValueError:
        raise FaultError(f"no fault {text!r}; there are {', '.join(Kind)}") from None


def read_script(path: Path) -> tuple[Planned, ...]:
    """Planned faults of a TOML file (tables ``[[fault]]``) or a CSV file, in order of time.

    Fields: ``at`` [s from the start], ``kind``, ``tags``, ``seconds``, ``magnitude`` (may be left out).
    """
    try:
        if path.suffix == ".toml":
            rows = tomllib.loads(path.read_text(encoding="utf-8")).get("fault", [])
        else:
            with path.open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file, skipinitialspace=True))
        planned = [_planned(row) for row in rows]
    except (OSError, KeyError, TypeError, AttributeError, ValueError) as error:
        missing = f"a fault has no {error}" if isinstance(error, KeyError) else str(error)
        raise FaultError(f"{path}: {missing}") from error
    return tuple(sorted(planned, key=lambda fault: fault.at))


def _planned(row: dict[str, str | float]) -> Planned:
    magnitude = row.get("magnitude") or None
    return Planned(
        float(row["at"]),
        parse_kind(str(row["kind"])),
        str(row.get("tags") or "*"),
        float(row["seconds"]),
        None if magnitude is None else float(magnitude),
    )
