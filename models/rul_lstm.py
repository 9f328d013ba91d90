"""Kind ``rul_lstm``: remaining useful life from a unit's age, its sensors and how far they left the unit's own start.

Features in the roles ``setting_1``, ``setting_2``, … say what is asked of the unit: all others but the age are then
scaled within the operating condition of their cell (see :mod:`models.regimes`), so that a change of load is not taken
for wear.

A window is a stretch of one unit's life that ends now; its cells before the last overhaul (``age`` falls) count as not
observed. An LSTM reads the last ``context`` cells. What it can't see any more, the own start, stands in its inputs.

RUL is counted in cells and learnt up to ``cap``: a unit that shows no wear yet says nothing about a longer life (Heimes
2008). ``rul_state`` is *beyond horizon* from the estimate on above which four of five cells of units held out had the
cap or more left. Such a unit's ``rul`` has no upper bound (NaN), nor has another one whose bound would reach the cap:
what it says is the lower bound, and the number is no date to plan by. A number at the cap stands for that or more.

Quantiles 5, 50 and 95 % (Koenker & Bassett 1978) can't cross by construction. Each member of the ensemble is trained
without one fold of the units, and the errors there widen or narrow the interval to 90 % (CQR, Romano et al. 2019;
cross-conformal, Vovk 2015), lower and upper side apart.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from numpy.typing import NDArray

from models import cells, regimes
from models.intervals import share_below
from models.kind import Estimate, Fitted, OutputSpec, Params, Progress, Spec, TrainingData
from models.meaning import Meaning
from models.network import Cell, Recurrent, born, bound
from models.options import check_axes, choice, number, read
from models.rul_held_out import HeldOut
from models.training import Budget, alike, descend, folds, pinball

_LEVELS = (0.05, 0.5, 0.95)
_LIMIT = 5.0
_STATES = ("within horizon", "beyond horizon")
_ENDS_PER_WINDOW = 24
_FOLDS = 5
_FEWEST_FOLDS = 2
"""Of what a trained model is adapted to."""


@dataclass(frozen=True, slots=True)
class Options:
    """Hyperparameters; the defaults come from C-MAPSS FD001, its units for training alone, each judged by the members
    that had not seen it.
    """

    cap: float = number(125.0, 1.0, 1e6)
    """RUL above which units are alike [cells]."""
    horizon: float = number(30.0, 1.0, 1e6)
    """Of ``failure_probability`` [cells]; below ``cap``."""
    context: int = number(32, 4, 1024)
    """Cells that the network reads."""
    cell: Cell = choice("lstm", get_args(Cell))
    """``gru`` and ``mingru`` have fewer weights."""
    hidden: int = number(48, 4, 512)
    members: int = number(5, 1, 16)
    steps: int = number(400, 1, 100_000)
    patience: int = number(0, 0, 100_000)
    """Steps without getting better on held-out units after which the training ends; 0: all steps."""
    batch: int = number(48, 1, 4096)
    rate: float = number(5e-3, 1e-6, 1.0)
    decay: float = number(0.1, 0.0, 1.0)
    noise: float = number(0.1, 0.0, 2.0)
    """Added to inputs while training [standard deviations]."""
    dropout: float = number(0.02, 0.0, 0.9)
    """Probability that a feature is missing from a crop while training: a dead tag must not be a surprise."""
    conditions: int = number(8, 1, 64)
    """Operating conditions that the settings may show, at most; how many there are is learnt."""
    late_start: float = number(0.25, 0.0, 1.0)
    """Share of crops whose unit is first seen in mid-life, as after a late commissioning."""


class RulLstm:
    """Remaining useful life of a unit; see the module."""

    name = "rul_lstm"
    roles = ("age",)
    free = frozenset({"horizon", "steps", "patience", "batch", "rate", "decay", "noise", "dropout", "late_start"})

    def check(self, spec: Spec) -> None:
        """See :class:`models.kind.ModelKind`."""
        check_axes(spec, self.roles, length=2)
        options = read(Options, spec)
        regimes.settings(spec)
        if options.horizon >= options.cap:
            raise ValueError(f"option horizon = {options.horizon}: must be below cap, {options.cap}")

    def outputs(self, spec: Spec) -> tuple[OutputSpec, ...]:
        """``rul`` at its upper end, with an open upper bound, means "at least ``cap``"."""
        options = read(Options, spec)
        return (
            OutputSpec(
                "rul",
                "cycles",
                0.0,
                options.cap,
                f"Remaining useful life; {options.cap:g}: that or more",
                Meaning.LIFETIME,
            ),
            OutputSpec(
                "rul_state",
                "",
                0.0,
                1.0,
                f"Whether it fails within {options.cap:g} cycles, as far as can be told",
                Meaning.STATE,
                _STATES,
            ),
            OutputSpec("health", "%", 0.0, 100.0, "Remaining useful life as a share of its range", Meaning.HEALTH),
            OutputSpec(
                "failure_probability",
                "%",
                0.0,
                100.0,
                f"Probability of failure within {options.horizon:g} cycles",
                Meaning.PROBABILITY,
            ),
        )

    def init(self, spec: Spec, key: jax.Array) -> Params:
        """See :class:`models.kind.ModelKind`."""
        options = read(Options, spec)
        return {
            "network": born(_builder(spec, options), jax.random.split(key, options.members)),
            **_unscaled(spec, options),
            "margin": np.zeros(2, np.float32),
            "beyond": np.ones((), np.float32),
        }

    def fit(self, spec: Spec, data: TrainingData, progress: Progress) -> Fitted:
        """Targets are RUL [cells] at every labelled cell. Needs five units or runs."""
        self.check(spec)
        options = read(Options, spec)
        params = self.init(spec, jax.random.key(spec.seed)) | _scale(spec, options, data)
        return _learnt(spec, params, data, _folds(options, data, spec.seed, _FOLDS), _budget(options), progress)

    def adapt(self, spec: Spec, start: Params, data: TrainingData, progress: Progress, *, head_only: bool) -> Fitted:
        """See :class:`models.kind.Adaptable`; needs two units or runs. Head: what reads the recurrent cell's state."""
        self.check(spec)
        options = read(Options, spec)
        budget = _budget(options).onwards(("head",) if head_only else ())
        return _learnt(spec, start, data, _folds(options, data, spec.seed, _FEWEST_FOLDS), budget, progress)

    def predict(self, spec: Spec, params: Params, values: jax.Array, observed: jax.Array) -> dict[str, Estimate]:
        """See :class:`models.kind.ModelKind`; NaN where none of the last ``context`` cells is observed."""
        options = read(Options, spec)
        inputs, seen = _inputs(spec, params, values, observed)
        context = min(options.context, inputs.shape[1])
        inputs, seen = inputs[:, -context:], seen[:, -context:]
        low, middle, high = jnp.mean(_quantiles(spec, options, params["network"], inputs, seen), 0).T
        low = jnp.minimum(low - params["margin"][0], middle)
        high = jnp.maximum(high + params["margin"][1], middle)
        there = seen.any(-1)
        beyond = middle >= params["beyond"]

        def shown(value: jax.Array) -> jax.Array:
            return jnp.where(there, jnp.clip(value, 0.0, 1.0), jnp.nan)

        value, lower, upper = shown(middle), shown(low), shown(high)
        risk = 100.0 * jnp.where(there, share_below(options.horizon / options.cap, low, middle, high), jnp.nan)
        unknown = jnp.full_like(risk, jnp.nan)
        bounded = jnp.where(beyond | (high >= 1.0), jnp.nan, upper)
        return {
            "rul": Estimate(options.cap * value, options.cap * lower, options.cap * bounded),
            "rul_state": Estimate(jnp.where(there, beyond.astype(jnp.float32), jnp.nan), unknown, unknown),
            "health": Estimate(100.0 * value, 100.0 * lower, 100.0 * upper),
            "failure_probability": Estimate(risk, unknown, unknown),
        }


def _budget(options: Options) -> Budget:
    return Budget(options.steps, options.rate, options.decay, patience=options.patience)


def _folds(options: Options, data: TrainingData, seed: int, least: int) -> NDArray[np.int32]:
    units = len(np.unique(data.group))
    return folds(data.group, max(least, min(max(_FOLDS, options.members), units)), seed)


def _learnt(
    spec: Spec, params: Params, data: TrainingData, fold: NDArray[np.int32], budget: Budget, progress: Progress
) -> Fitted:
    """From the weights and with the scaling in ``params``, on all folds but each member's own."""
    options = read(Options, spec)
    crops = _crops(spec, params, options, data, fold)
    loss = partial(_loss, _builder(spec, options), options, len(spec.features))
    key = jax.random.key(spec.seed)
    network = descend(loss, params["network"], crops["shared"], crops["own"], budget, key, progress, crops["held"])
    params = {**params, "network": network}
    judged = _held_out(spec, params, options, crops["shared"], data, fold)
    params["margin"] = judged.margin(np.ones(len(judged.fold), bool)).astype(np.float32)
    params["beyond"] = np.float32(judged.beyond())
    return Fitted(jax.device_get(params), judged.metrics(options.cap))


def _builder(spec: Spec, options: Options) -> Any:
    width = 2 * len(spec.features) + 2

    def build(rngs: nnx.Rngs) -> Recurrent:
        return Recurrent(width, options.hidden, len(_LEVELS), options.cell, rngs=rngs)

    return build


def _inputs(spec: Spec, params: Params, values: jax.Array, observed: jax.Array) -> tuple[jax.Array, jax.Array]:
    """What the LSTM reads at each cell, [n, t, 2f + 2], and which cells are there, [n, t].

    All features scaled; those features minus their own start (for ``age``: the age when the unit was first seen); the
    share of the own start that is known; and the share of features observed. A cell without an age is not there,
    nor is one whose operating condition is not known.
    """
    age = spec.index("age")
    there = observed[:, age] & (observed.sum(1) > 1)
    there = there & cells.since_reset(values[:, age], there)
    observed = observed & there[:, None]
    units, observed = _scaled(spec, params, values, observed)
    there = there & observed[:, age]
    left = jnp.where(observed, units - cells.own_start(units, observed), 0.0)
    counted = jnp.cumsum(there, -1)
    first = jnp.take_along_axis(units[:, age], jnp.argmax(there, -1)[:, None], -1)
    left = left.at[:, age].set(jnp.where(there, first, 0.0))
    known = jnp.where(there, jnp.minimum(counted, cells.BASELINE_CELLS) / cells.BASELINE_CELLS, 0.0)
    extra = jnp.stack([known, observed.mean(1)], 1)
    return jnp.swapaxes(jnp.concatenate([units, left, extra], 1), 1, 2), there


def _unscaled(spec: Spec, options: Options) -> Params:
    """What :func:`_scale` gives before there are data."""
    if not (settings := regimes.settings(spec)):
        return {"scale": cells.unscaled(len(spec.features))}
    return regimes.unlearnt(options.conditions, settings, len(spec.features))


def _scale(spec: Spec, options: Options, data: TrainingData) -> Params:
    if not (settings := regimes.settings(spec)):
        return {"scale": cells.scale(data.values, data.observed)}
    common = (spec.index("age"),)
    return regimes.learnt(data.values, data.observed, settings, common, options.conditions, spec.seed)


def _scaled(spec: Spec, params: Params, values: jax.Array, observed: jax.Array) -> tuple[jax.Array, jax.Array]:
    """In standard deviations, and what is observed: nothing in a cell whose condition is not known."""
    if not (settings := regimes.settings(spec)):
        return cells.scaled(params["scale"], values, observed, _LIMIT), observed
    units, known = regimes.scaled(params, values, observed, settings, _LIMIT)
    return units, observed & known[:, None]


def _quantiles(spec: Spec, options: Options, network: Params, inputs: jax.Array, seen: jax.Array) -> jax.Array:
    """[members, b, 3] at the last cell, as shares of the cap."""
    build = _builder(spec, options)

    def member(weights: Params) -> jax.Array:
        return _ordered(bound(build, weights).last(inputs, seen))

    every: jax.Array = jax.vmap(member)(network)
    return every


def _ordered(raw: jax.Array) -> jax.Array:
    middle = 0.7 + raw[..., 0]
    low = middle - jax.nn.softplus(raw[..., 1] - 1.5)
    high = middle + jax.nn.softplus(raw[..., 2] - 1.5)
    return jnp.stack([low, middle, high], -1)


def _loss(
    build: Any, options: Options, features: int, weights: Params, key: jax.Array, shared: Any, own: Any
) -> jax.Array:
    """Pinball loss of the outer quantiles and squared error of the middle, over the later half of random crops.

    The squared error makes the middle a mean: on FD001 it gives the smaller RMSE of the two.
    """
    picked, late, noise, dead = jax.random.split(key, 4)
    row, end = own[jax.random.randint(picked, (options.batch,), 0, own.shape[0])].T
    variant = jax.random.bernoulli(late, options.late_start, (options.batch,)).astype(jnp.int32)
    span = end[:, None] + jnp.arange(options.context)
    inputs, seen = (
        shared["inputs"][variant[:, None], row[:, None], span],
        shared["seen"][variant[:, None], row[:, None], span],
    )
    target = shared["target"][row[:, None], span]
    kept = jax.random.bernoulli(dead, 1.0 - options.dropout, (options.batch, 1, features))
    kept = jnp.concatenate([kept, kept, jnp.ones((options.batch, 1, 2), bool)], -1)
    inputs = (inputs + options.noise * jax.random.normal(noise, inputs.shape)) * kept * seen[..., None]
    quantiles = _ordered(bound(build, weights)(inputs, seen))
    weight = seen & ~jnp.isnan(target) & (jnp.arange(options.context) >= options.context // 2)
    error = jnp.where(weight[..., None], jnp.nan_to_num(target)[..., None] - quantiles, 0.0)
    low, middle, high = jnp.moveaxis(error, -1, 0)
    loss = jnp.sum(pinball(low, _LEVELS[0]) + 2.0 * middle**2 + pinball(high, _LEVELS[2]))
    return loss / jnp.maximum(weight.sum(), 1)


def _share(data: TrainingData, options: Options) -> NDArray[np.float32]:
    """Targets [n, t] as shares of the cap; NaN where not labelled."""
    share: NDArray[np.float32] = np.clip(data.target / options.cap, 0.0, 1.0).astype(np.float32)
    return share


def _crops(spec: Spec, params: Params, options: Options, data: TrainingData, fold: NDArray[np.int32]) -> dict[str, Any]:
    """Inputs of whole lives and of lives first seen late, and per member the ends that it may train on."""
    prepare = jax.jit(partial(_inputs, spec, params))
    late = data.observed & _after_a_late_start(data, spec)[:, None]
    whole, partly = jax.device_get((prepare(data.values, data.observed), prepare(data.values, late)))
    front = ((0, 0), (0, 0), (options.context - 1, 0))
    target = _share(data, options)
    labelled = whole[1] & ~np.isnan(target)
    generator = np.random.default_rng(spec.seed)
    own, held = [], []
    for member in range(options.members):
        apart = (fold == member % (fold.max() + 1))[:, None]
        ends = np.argwhere(labelled & ~apart)
        held.append(np.argwhere(labelled & apart))
        if not len(ends):
            raise ValueError("there is no labelled cell to train on")
        own.append(ends[generator.permutation(np.resize(np.arange(len(ends)), max(labelled.sum(), 1)))])
    shared = {
        "inputs": np.pad(np.stack([whole[0], partly[0]]), (*front, (0, 0))),
        "seen": np.pad(np.stack([whole[1], partly[1]]), front),
        "target": np.pad(target, front[1:]),
    }
    return {"shared": shared, "own": np.stack(own), "held": alike(held)}


def _after_a_late_start(data: TrainingData, spec: Spec) -> NDArray[np.bool_]:
    """Per window a random cut that leaves the last 40 observed cells, or half of them, to be seen: [n, t]."""
    generator = np.random.default_rng(spec.seed + 1)
    count = np.cumsum(data.observed[:, spec.index("age")], -1)
    total = count[:, -1]
    latest = np.maximum(total - 40, total // 2)
    late: NDArray[np.bool_] = count > generator.integers(0, latest + 1)[:, None]
    return late


def _held_out(
    spec: Spec,
    params: Params,
    options: Options,
    shared: dict[str, NDArray[Any]],
    data: TrainingData,
    fold: NDArray[np.int32],
) -> HeldOut:
    target = shared["target"]
    labelled = shared["seen"][0, :, options.context - 1 :] & ~np.isnan(target[:, options.context - 1 :])
    rows = np.flatnonzero((fold < options.members) & labelled.any(1))
    if not len(rows):
        raise ValueError("none of the units that were held out has a labelled cell")
    generator = np.random.default_rng(spec.seed + 2)
    end = np.concatenate([generator.choice(np.flatnonzero(labelled[row]), _ENDS_PER_WINDOW) for row in rows])
    row = np.repeat(rows, _ENDS_PER_WINDOW)
    span = end[:, None] + np.arange(options.context)
    inputs, seen = (shared[name][0, row[:, None], span] for name in ("inputs", "seen"))
    every = np.asarray(jax.jit(partial(_quantiles, spec, options))(params["network"], inputs, seen))
    truth = target[row, end + options.context - 1]
    return HeldOut(every[fold[row], np.arange(len(row))], truth, fold[row], data.group[row])
