"""A gas turbine: real hours of 2011 to 2015, one a step; then it starts over with 2011.

The laboratory's NOx value of an hour is known :data:`LAB_DELAY` steps later.
"""

import numpy as np
from numpy.typing import NDArray

from opcua_sim import data
from opcua_sim.tags import Feature, normal_range

NAME = "gas-turbine"
LAB = "NOX_lab"
LAB_DELAY = 24

_DESCRIPTIONS = {
    "AT": ("degC", "Ambient temperature"),
    "AP": ("mbar", "Ambient pressure"),
    "AH": ("%", "Ambient humidity"),
    "AFDP": ("mbar", "Air filter difference pressure"),
    "GTEP": ("mbar", "Gas turbine exhaust pressure"),
    "TIT": ("degC", "Turbine inlet temperature"),
    "TAT": ("degC", "Turbine after temperature"),
    "TEY": ("MWh", "Turbine energy yield of the hour"),
    "CDP": ("bar", "Compressor discharge pressure"),
    "CO": ("mg/m3", "Carbon monoxide in the flue gas"),
}


class GasTurbine:
    """The machine; see :class:`opcua_sim.tags.Machine`."""

    def __init__(self, start: int = 2014) -> None:
        """Step 0 is the first hour of the year ``start``; the years before it are the past."""
        source = data.emissions()
        if start not in source.year:
            raise ValueError(f"the gas turbine has no year {start}; it has 2011 to 2015")
        self.name = NAME
        self._hours = len(source.year)
        self._start = int(np.searchsorted(source.year, start))
        self._column = {name: source.columns[name] for name in _DESCRIPTIONS} | {LAB: source.columns["NOX"]}
        self._matrix = np.column_stack(list(self._column.values()))
        measured = [
            Feature(name, unit, *normal_range(self._column[name]), text) for name, (unit, text) in _DESCRIPTIONS.items()
        ]
        low, high = normal_range(self._column[LAB])
        lab = Feature(LAB, "mg/m3", low, high, "Nitrogen oxides, by laboratory, a day late", delay=LAB_DELAY)
        self.features = (*measured, lab)

    @property
    def first_step(self) -> int:
        """The first hour of 2011."""
        return -self._start

    def row(self, step: int) -> NDArray[np.float64]:
        """See :class:`opcua_sim.tags.Machine`."""
        row: NDArray[np.float64] = self._matrix[(self._start + step) % self._hours]
        return row

    def values(self, feature: str, steps: NDArray[np.int64]) -> NDArray[np.float64]:
        """See :class:`opcua_sim.tags.Machine`."""
        return self._column[feature][(self._start + steps) % self._hours]

    def nox(self, step: int) -> float:
        """The truth of an hour [mg/m3]."""
        return float(self.row(step)[-1])
