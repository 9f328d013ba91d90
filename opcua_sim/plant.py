"""The plant as a pure function of time: what each tag has at each step, faults included. It remembers nothing else."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from opcua_sim.faults import Fault, FaultLog, Series, distort
from opcua_sim.fleet import Engine
from opcua_sim.gas_turbine import GasTurbine
from opcua_sim.tags import Machine, Tag


class Arrivals(NamedTuple):
    """What arrives at one step, one entry per tag of :attr:`Plant.tags`."""

    present: NDArray[np.bool_]
    """False: the tag brings nothing at this step."""
    value: NDArray[np.float64]
    status: NDArray[np.uint32]


class Plant:
    """Engines and perhaps a gas turbine, with their faults."""

    def __init__(self, engines: Sequence[Engine], turbine: GasTurbine | None, faults: FaultLog) -> None:
        self.engines = tuple(engines)
        self.turbine = turbine
        self.faults = faults
        self.machines: tuple[Machine, ...] = (*engines, *([turbine] if turbine else []))
        self.tags = tuple(Tag(machine.name, feature) for machine in self.machines for feature in machine.features)
        self._machine = {machine.name: machine for machine in self.machines}
        self._late = [(place, tag) for place, tag in enumerate(self.tags) if tag.feature.delay]

    def first_step(self, tag: Tag) -> int:
        """Where a tag's history begins."""
        return self._machine[tag.machine].first_step

    def series(self, tag: Tag, start: int, end: int) -> Series:
        """What was sampled at steps ``start <= step < end``, all of it known ``tag.feature.delay`` steps later."""
        start = max(start, self.first_step(tag))
        true = self._true(tag, np.arange(start, max(start, end)))
        delay = tag.feature.delay
        return self._faulty(tag, self.faults.between(tag.name, start + delay, end + delay), true)

    def arrivals(self, step: int) -> Arrivals:
        """What all tags bring at a step, the same as in :meth:`series`; tag by tag only where there are faults."""
        begun = [step >= machine.first_step for machine in self.machines]
        value = np.concatenate([machine.row(max(step, machine.first_step)) for machine in self.machines])
        present = np.repeat(begun, [len(machine.features) for machine in self.machines])
        status = np.zeros(len(value), np.uint32)
        special = dict(self._late)
        active = self.faults.active(step)
        if active:
            special |= {p: tag for p, tag in enumerate(self.tags) if any(fault.hits(tag.name) for fault in active)}
        for place, tag in special.items():
            sampled = step - tag.feature.delay
            one = self.series(tag, sampled, sampled + 1)
            present[place] = len(one) > 0
            if len(one):
                value[place], status[place] = one.value[0], one.status[0]
        return Arrivals(present, value, status)

    def matching(self, fault: Fault) -> int:
        """How many tags a fault concerns."""
        return sum(fault.hits(tag.name) for tag in self.tags)

    def _true(self, tag: Tag, steps: NDArray[np.int64]) -> Series:
        values = self._machine[tag.machine].values(tag.feature.name, steps)
        return Series(steps, values, np.zeros(len(steps), np.uint32))

    def _faulty(self, tag: Tag, faults: Sequence[Fault], series: Series) -> Series:
        if not faults:
            return series

        def at(step: int) -> float:
            return float(self._true(tag, np.array([max(step, self.first_step(tag))])).value[0])

        feature = tag.feature
        seed = self.faults.seed
        wrong = distort(faults, series, tag=tag.name, span=feature.span, delay=feature.delay, seed=seed, at=at)
        if not feature.counter:
            return wrong
        return Series(wrong.step, np.maximum(np.round(wrong.value), 0.0), wrong.status)
