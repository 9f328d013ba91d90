"""A fleet of turbofan engines: each one lives through one C-MAPSS unit after another, from overhaul to failure.

Six tenths of the units are the history pool, the rest the live pool, drawn by the seed. What an engine ran before step
0 is from the history pool and ended in failure; its run at step 0 and all later ones are from the live pool. So whoever
learns from the past has never seen an engine of the present. With more engines than units (FD001: 20 engines with
three completed runs each take all 60 of the history pool), units serve several engines, at different times.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from opcua_sim import chance, data
from opcua_sim.tags import Feature, normal_range

HISTORY_SHARE = 0.6
YOUNGEST, OLDEST = 0.15, 0.95
"""Ages at step 0 lie between these shares of a unit's life."""

_DESCRIPTIONS = {
    "setting1": ("kft", "Altitude"),
    "setting2": ("Mach", "Mach number"),
    "setting3": ("%", "Throttle resolver angle"),
    "T2": ("degR", "Total temperature at fan inlet"),
    "T24": ("degR", "Total temperature at low-pressure compressor outlet"),
    "T30": ("degR", "Total temperature at high-pressure compressor outlet"),
    "T50": ("degR", "Total temperature at low-pressure turbine outlet"),
    "P2": ("psia", "Pressure at fan inlet"),
    "P15": ("psia", "Total pressure in bypass duct"),
    "P30": ("psia", "Total pressure at high-pressure compressor outlet"),
    "Nf": ("rpm", "Physical fan speed"),
    "Nc": ("rpm", "Physical core speed"),
    "epr": ("", "Engine pressure ratio"),
    "Ps30": ("psia", "Static pressure at high-pressure compressor outlet"),
    "phi": ("pps/psi", "Ratio of fuel flow to Ps30"),
    "NRf": ("rpm", "Corrected fan speed"),
    "NRc": ("rpm", "Corrected core speed"),
    "BPR": ("", "Bypass ratio"),
    "farB": ("", "Burner fuel-air ratio"),
    "htBleed": ("", "Bleed enthalpy"),
    "Nf_dmd": ("rpm", "Demanded fan speed"),
    "PCNfR_dmd": ("%", "Demanded corrected fan speed"),
    "W31": ("lbm/s", "High-pressure turbine coolant bleed"),
    "W32": ("lbm/s", "Low-pressure turbine coolant bleed"),
}


@dataclass(frozen=True, slots=True, eq=False)
class FleetData:
    """A data set, laid out for the engines that share it."""

    features: tuple[Feature, ...]
    """Settings and sensors, then ``cycle`` and ``overhauls``."""
    matrix: NDArray[np.float64]
    """[rows, settings and sensors]."""
    column: dict[str, NDArray[np.float64]]
    first: NDArray[np.int64]
    life: NDArray[np.int64]


class Engine:
    """One engine. Its runs are laid end to end, in steps; the list grows as time goes on."""

    def __init__(self, name: str, fleet: FleetData, past: Sequence[int], live: Sequence[int], age: float) -> None:
        """``past``: units of completed runs; ``live``: units from step 0 on, over and over; ``age``: share of life."""
        self.name = name
        self.features = fleet.features
        self._fleet = fleet
        self._live = live
        first_life = int(fleet.life[live[0]])
        self._units = [*past, live[0]]
        cycles_done = min(max(round(age * first_life), 1), first_life) - 1
        lives = fleet.life[np.asarray(self._units)]
        starts = -cycles_done - int(lives[:-1].sum()) + np.concatenate([[0], np.cumsum(lives)])
        self._starts: list[int] = starts.tolist()  # one more than units: where the next run begins
        self._runs_past = len(past)
        self._arrays = (np.array(self._starts), np.array(self._units))

    @property
    def first_step(self) -> int:
        """Cycle 1 of the oldest run."""
        return self._starts[0]

    def cycle(self, step: int) -> int:
        """Operating cycles since overhaul, 1 for the first."""
        return int(self._locate(np.array([step]))[1][0])

    def remaining(self, step: int) -> int:
        """Cycles that are left: 0 in the cycle of failure."""
        _, cycle, run = self._locate(np.array([step]))
        return int(self._fleet.life[self._units[int(run[0])]] - cycle[0])

    def row(self, step: int) -> NDArray[np.float64]:
        """See :class:`opcua_sim.tags.Machine`."""
        row, cycle, run = self._locate(np.array([step]))
        return np.concatenate([self._fleet.matrix[row[0]], cycle, run])

    def values(self, feature: str, steps: NDArray[np.int64]) -> NDArray[np.float64]:
        """See :class:`opcua_sim.tags.Machine`."""
        row, cycle, run = self._locate(steps)
        if feature == "cycle":
            return cycle.astype(np.float64)
        if feature == "overhauls":
            return run.astype(np.float64)
        return self._fleet.column[feature][row]

    def _locate(self, steps: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Row of the data set, cycle, and number of the run (which is the count of overhauls), for each step."""
        if len(steps):
            self._extend(int(steps.max()))
        starts, units = self._arrays
        run = np.searchsorted(starts, steps, side="right") - 1
        cycle = steps - starts[run] + 1
        return self._fleet.first[units[run]] + cycle - 1, cycle, run

    def _extend(self, step: int) -> None:
        """Append runs until the list reaches beyond a step."""
        if step < self._starts[-1]:
            return
        while step >= self._starts[-1]:
            unit = self._live[(len(self._units) - self._runs_past) % len(self._live)]
            self._units.append(unit)
            self._starts.append(self._starts[-1] + int(self._fleet.life[unit]))
        self._arrays = (np.array(self._starts), np.array(self._units))


def engines(count: int, seed: int, dataset: str = "FD001", history_runs: int = 3) -> tuple[Engine, ...]:
    """``engine-01`` to ``engine-<count>``; the same arguments always give the same fleet."""
    fleet = _lay_out(dataset)
    units = chance.shuffled(seed, "pools", len(fleet.life))
    split = round(HISTORY_SHARE * len(units))
    history, live = units[:split].tolist(), units[split:].tolist()
    rank = chance.shuffled(seed, "ages", count)
    ages = YOUNGEST + (OLDEST - YOUNGEST) * (rank + chance.uniform(seed, "age", np.arange(count))) / count
    width = max(2, len(str(count)))
    return tuple(
        Engine(
            f"engine-{number + 1:0{width}}",
            fleet,
            [history[(number * history_runs + run) % len(history)] for run in range(history_runs)],
            _queue(live, number, count),
            float(ages[number]),
        )
        for number in range(count)
    )


def _queue(live: list[int], number: int, count: int) -> list[int]:
    """Units of one engine: the fleet walks through the pool together, moved on by one each time around."""
    places = [number + turn * count for turn in range(len(live))]
    return [live[(place + place // len(live)) % len(live)] for place in places]


def _lay_out(dataset: str) -> FleetData:
    source = data.fleet(dataset)
    names = data.SETTINGS + data.SENSORS
    measured = [
        Feature(name, unit, *normal_range(source.columns[name]), text)
        for name, (unit, text) in ((name, _DESCRIPTIONS[name]) for name in names)
    ]
    longest = float(source.life.max())
    counted = [
        Feature("cycle", "cycles", 0.0, np.ceil(longest / 50) * 50, "Operating cycles since overhaul", counter=True),
        Feature("overhauls", "", 0.0, 100.0, "Overhauls since records began", counter=True),
    ]
    matrix = np.column_stack([source.columns[name] for name in names])
    return FleetData((*measured, *counted), matrix, dict(source.columns), source.first, source.life)
