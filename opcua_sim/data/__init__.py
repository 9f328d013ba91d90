"""The measured and simulated data that the plant replays; origin and licence stand beside each set."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

DATASETS = ("FD001", "FD002", "FD003", "FD004")
"""Training sets of C-MAPSS: 001 and 003 at one operating condition, 002 and 004 at six; 003 and 004 with two faults."""

SENSORS = (
    *("T2", "T24", "T30", "T50", "P2", "P15", "P30", "Nf", "Nc", "epr", "Ps30", "phi"),
    *("NRf", "NRc", "BPR", "farB", "htBleed", "Nf_dmd", "PCNfR_dmd", "W31", "W32"),
)
SETTINGS = ("setting1", "setting2", "setting3")

Columns = Mapping[str, NDArray[np.float64]]

_FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True, eq=False)
class Fleet:
    """Complete lives of engines, from new to failure, one row a cycle."""

    columns: Columns
    """By name of setting or sensor, all units one after the other [rows]."""
    first: NDArray[np.int64]
    """Row of each unit's first cycle [units]."""
    life: NDArray[np.int64]
    """Cycles of each unit [units]; the last one is the cycle of failure."""


@dataclass(frozen=True, slots=True, eq=False)
class Emissions:
    """Hours of a gas turbine, 2011 to 2015, without the hours in which it stood."""

    columns: Columns
    """By name: nine process variables, CO and NOX [mg/m3], [hours]."""
    year: NDArray[np.int64]


@cache
def fleet(dataset: str = "FD001") -> Fleet:
    """One of :data:`DATASETS`; ValueError for any other name."""
    if dataset not in DATASETS:
        raise ValueError(f"no data set {dataset!r}; there are {', '.join(DATASETS)}")
    columns = dict(_load(_FOLDER / "cmapss" / f"train_{dataset}.npz"))
    unit = columns.pop("unit")
    del columns["cycle"]
    first = np.flatnonzero(np.diff(unit, prepend=-1.0))
    return Fleet(MappingProxyType(columns), first, np.diff(first, append=len(unit)))


@cache
def emissions() -> Emissions:
    """All five years."""
    columns = dict(_load(_FOLDER / "gas_turbine" / "gas_turbine.npz"))
    year = columns.pop("year").astype(np.int64)
    return Emissions(MappingProxyType(columns), year)


def _load(path: Path) -> Columns:
    """Columns of a packed file: integers, and the power of ten that each one is divided by."""
    with np.load(path) as packed:
        names = [name for name in packed.files if name != "decimals"]
        return {
            name: packed[name] / 10.0**decimals
            for name, decimals in zip(names, packed["decimals"].tolist(), strict=True)
        }
