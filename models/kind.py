"""The seam of the models: what a kind of model must be. Arrays in, arrays out; no tag, database, clock or file.

Axes, here and everywhere in ``models``: ``n`` windows (one per asset and instant), ``f`` features in the order of
:attr:`Spec.features`, ``t`` cells of a regular grid, oldest first; the last cell ends at the window's end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from models.meaning import Meaning

if TYPE_CHECKING:  # the configuration names what is here, and commands that compute nothing start in half the time
    import jax

Params = dict[str, Any]
"""A nested dict of arrays: weights, scalers, calibration. All that prediction needs besides the :class:`Spec`."""

Form = Literal["no", "bf16", "int8", "pruned", "student"]
"""How light a model is to be, see :mod:`models.light`."""

Progress = Callable[[float, str], None]
"""Called during a fit with the share done, 0..1, and a line for a person; an exception that it raises ends the fit."""


@dataclass(frozen=True, slots=True)
class Spec:
    """Which model this is. JSON-able, stored with every artifact; equal specs mean interchangeable programs."""

    kind: str
    features: tuple[str, ...]
    """The feature axis, by name."""
    length: int
    """Cells in a window, at most."""
    roles: Mapping[str, str] = field(default_factory=dict)
    """Special features by role, such as ``{"age": "cycle"}`` or ``{"lab": "NOX_lab"}``; each is in ``features``."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Hyperparameters; the kind names the valid ones, with bounds, when it refuses one."""
    seed: int = 0
    cleaning: Mapping[str, Any] = field(default_factory=dict)
    """What was done to the values before the model saw them, see :mod:`models.cleaning`; empty: nothing."""
    calendar: Mapping[str, Any] = field(default_factory=dict)
    """By whose calendar the features of :mod:`models.calendar` were made; empty: there are none."""

    def index(self, role: str) -> int:
        """Position on the feature axis of a role's feature."""
        return self.features.index(self.roles[role])


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """One number that a kind gives per window."""

    name: str
    unit: str
    """Display unit; empty: that of the target."""
    low: float
    high: float
    """Range likely in normal operation [unit]; NaN: that of the target."""
    description: str
    meaning: Meaning = Meaning.VALUE
    states: tuple[str, ...] = ()
    """Of a :attr:`Meaning.STATE`: their names; the value is the index of one."""
    ahead: tuple[int, ...] = ()
    """Of a :attr:`Meaning.FORECAST`: how many cells after the window's end each of its numbers is about, ascending."""
    confidence: float = 0.9
    """Share of truths that its bounds are meant to hold."""
    beyond: tuple[float, float] | None = None
    """Of a :attr:`Meaning.PROBABILITY` that the truth of the kind's first output lies outside of them [its unit]."""


class Estimate(NamedTuple):
    """One output for ``n`` windows, each part [n], or [n, len(ahead)] for a forecast; a pytree. NaN: no number."""

    value: jax.Array
    lower: jax.Array
    upper: jax.Array


@dataclass(frozen=True, slots=True, eq=False)
class TrainingData:
    """Windows to learn from. What is not observed is 0 in ``values`` and False in ``observed``."""

    values: NDArray[np.float32]
    """[n, f, t] in the plant's units."""
    observed: NDArray[np.bool_]
    """[n, f, t]."""
    target: NDArray[np.float32]
    """[n, t] what is to be predicted at each cell; NaN: not labelled.

    For a forecast: what the target is when each cell ends. Blocks are longer than a window, and NaN where they only
    lead in: of two blocks that overlap, one alone has a cell's target.
    """
    group: NDArray[np.int32]
    """[n] unit, run or block: no split cuts a group. Numbers grow with time."""


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """What a fit gives."""

    params: Params
    metrics: Mapping[str, float]
    """On held-out groups; ``threshold`` where the kind gives a ``score``."""


class ModelKind(Protocol):
    """One kind of model; stateless. Strangers' kinds arrive by the entry point group ``foretag.model_kinds``.

    :mod:`models.checks` holds every kind to what is written here.
    """

    @property
    def name(self) -> str:
        """Name in the configuration, such as ``rul_lstm``."""

    @property
    def roles(self) -> tuple[str, ...]:
        """Roles that a spec must give."""

    def check(self, spec: Spec) -> None:
        """Raise ValueError with option, value and valid range where the spec is not usable."""

    def outputs(self, spec: Spec) -> tuple[OutputSpec, ...]:
        """What :meth:`predict` gives, by name."""

    def init(self, spec: Spec, key: jax.Array) -> Params:
        """Untrained parameters: the tree, shapes and dtypes that :meth:`fit` returns and :meth:`predict` takes."""

    def fit(self, spec: Spec, data: TrainingData, progress: Progress) -> Fitted:
        """Train from nothing; equal arguments give equal parameters on one device. ValueError: data of no use."""

    def predict(self, spec: Spec, params: Params, values: jax.Array, observed: jax.Array) -> dict[str, Estimate]:
        """Pure and jittable, for values [n, f, t] float32 and observed [n, f, t] bool, with any t ≤ ``spec.length``.

        Row i depends on row i of the input alone. A row with nothing observed gives NaN. Never raises inside jit.
        """


@runtime_checkable
class Contributing(Protocol):
    """A kind that knows itself what its ``score`` is made of; the others are explained by :mod:`models.explain`."""

    def contributions(self, spec: Spec, params: Params, values: jax.Array, observed: jax.Array) -> jax.Array:
        """Share of each feature in the output ``score``, [n, f], summing to 1; NaN where there is no score."""


@runtime_checkable
class Adaptable(Protocol):
    """A kind that can begin where another fit ended: with few runs of another asset, or with what came since."""

    @property
    def free(self) -> frozenset[str]:
        """Options that the start may have had otherwise: they steer the training, or what is read off the network."""

    def adapt(self, spec: Spec, start: Params, data: TrainingData, progress: Progress, *, head_only: bool) -> Fitted:
        """As :meth:`ModelKind.fit`, from the weights and with the scaling of ``start``, see :mod:`models.adapting`.

        ``head_only``: what comes before the last layer stays as it is. None of ``data`` may have been in the data that
        ``start`` was made from: what is held out is to be unseen by all that judge it.
        """


@runtime_checkable
class Corrected(Protocol):
    """A kind whose prediction follows late truths, so that what it says hides that its model does not fit any more."""

    def uncorrected(self, spec: Spec, params: Params, values: jax.Array, observed: jax.Array) -> jax.Array:
        """What the model alone says at every cell [n, t], in the target's unit; NaN: no number. Any t."""
