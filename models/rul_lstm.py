"""Kind ``rul_lstm``: remaining useful life from a unit's age, its sensors and how far they left the unit's own start.

Features in the roles ``setting_1``, ``setting_2``, … say what is asked of the unit: all others but the age are then
scaled within the operating condition of their cell (see :mod:`models.regimes`), so that a change of load is not taken
for wear.

A window is a stretch of one unit's life that ends now; its cells before the last overhaul (``age`` falls) count as not
observed. An LSTM reads the last ``context`` cells. What it can't see any more, the own start, stands in its inputs.
Boosted trees are asked beside it, about means of the last 10, 30 and 100 cells. They err elsewhere: the estimate is
between the two, as near to the trees as units held out say.

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

from models import boosted, regimes, rul_inputs
from models.blend import shares
from models.gates import Cell
from models.intervals import share_below
from models.kind import Estimate, Fitted, OutputSpec, Params, Progress, Spec, TrainingData
from models.meaning import WITHIN_OR_BEYOND, Meaning
from models.network import Recurrent, born, bound
from models.options import check_axes, choice, number, read
from models.rul_held_out import HeldOut
from models.rul_lives import Grow, Lives
from models.training import Budget, descend, folds, pinball

_LEVELS = (0.05, 0.5, 0.95)
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
    trees: int = number(250, 1, 10_000)
    """Of each member."""
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
                WITHIN_OR_BEYOND,
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
            "trees": boosted.stacked([boosted.ungrown(options.trees)] * options.members),
            "share": np.zeros((), np.float32),
            **rul_inputs.unlearnt(spec, options.conditions),
            "margin": np.zeros(2, np.float32),
            "beyond": np.ones((), np.float32),
        }

    def fit(self, spec: Spec, data: TrainingData, progress: Progress) -> Fitted:
        """Targets are RUL [cells] at every labelled cell. Needs five units or runs."""
        self.check(spec)
        options = read(Options, spec)
        fold = _folds(options, data, spec.seed, _FOLDS)
        params = self.init(spec, jax.random.key(spec.seed)) | rul_inputs.learnt(spec, options.conditions, data)

        def grow(member: int, rows: Any, target: Any, told: Any) -> Params:
            return boosted.grown(rows, target, options.trees, spec.seed + member, told)

        return _learnt(spec, params, Lives(spec, params, data, fold, options.cap), grow, _budget(options), progress)

    def adapt(self, spec: Spec, start: Params, data: TrainingData, progress: Progress, *, head_only: bool) -> Fitted:
        """See :class:`models.kind.Adaptable`; needs two units or runs. Head: what reads the recurrent cell's state.

        The trees go on asking the same questions.
        """
        self.check(spec)
        options = read(Options, spec)
        budget = _budget(options).onwards(("head",) if head_only else ())
        fold = _folds(options, data, spec.seed, _FEWEST_FOLDS)

        def grow(member: int, rows: Any, target: Any, told: Any) -> Params:
            return boosted.onwards(jax.tree.map(lambda leaf: leaf[member], start["trees"]), rows, target, told)

        return _learnt(spec, start, Lives(spec, start, data, fold, options.cap), grow, budget, progress)

    def predict(self, spec: Spec, params: Params, values: jax.Array, observed: jax.Array) -> dict[str, Estimate]:
        """See :class:`models.kind.ModelKind`; NaN where none of the last ``context`` cells is observed."""
        options = read(Options, spec)
        life = rul_inputs.life(spec, params, values, observed)
        inputs, seen = rul_inputs.sequence(spec, life)[:, -options.context :], life.there[:, -options.context :]
        quantiles, trees = _told(spec, options, params, inputs, seen, rul_inputs.summary(life, 1)[:, 0])
        low, middle, high = jnp.mean(_nearer(quantiles, trees, params["share"]), 0).T
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


def _learnt(spec: Spec, params: Params, lives: Lives, grow: Grow, budget: Budget, progress: Progress) -> Fitted:
    """From the weights and with the scaling in ``params``, on all folds but each member's own."""
    options = read(Options, spec)
    crops = lives.crops(options.context, options.members)
    trees = lives.grown(grow, options.members, options.late_start, options.dropout, progress)
    loss = partial(_loss, _builder(spec, options), options, len(spec.features))
    key = jax.random.key(spec.seed)
    network = descend(loss, params["network"], crops["shared"], crops["own"], budget, key, progress, crops["held"])
    params = {**params, "network": network, "trees": trees}
    params["share"], judged = _held_out(spec, params, options, lives, crops["shared"])
    params["margin"] = judged.margin(np.ones(len(judged.fold), bool)).astype(np.float32)
    params["beyond"] = np.float32(judged.beyond())
    return Fitted(jax.device_get(params), judged.metrics(options.cap))


def _builder(spec: Spec, options: Options) -> Any:
    width = 2 * len(spec.features) + 2

    def build(rngs: nnx.Rngs) -> Recurrent:
        return Recurrent(width, options.hidden, len(_LEVELS), options.cell, rngs=rngs)

    return build


def _told(
    spec: Spec, options: Options, params: Params, inputs: jax.Array, seen: jax.Array, summary: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The network's quantiles [members, b, 3] at the last cell, and what the trees say [members, b]: cap's shares."""
    build = _builder(spec, options)

    def member(weights: Params, trees: Params) -> tuple[jax.Array, jax.Array]:
        return _ordered(bound(build, weights).last(inputs, seen)), boosted.told(trees, summary)

    every: tuple[jax.Array, jax.Array] = jax.vmap(member)(params["network"], params["trees"])
    return every


def _nearer(quantiles: Any, trees: Any, part: Any) -> Any:
    """All three quantiles [..., 3] moved, so that the middle is by a part nearer to what the trees say."""
    return quantiles + (part * (trees - quantiles[..., 1]))[..., None]


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


def _held_out(
    spec: Spec, params: Params, options: Options, lives: Lives, shared: dict[str, NDArray[Any]]
) -> tuple[np.float32, HeldOut]:
    """How near to the trees the estimate is to be, and what it is worth then."""
    rows = np.flatnonzero((lives.fold < options.members) & lives.labelled.any(1))
    if not len(rows):
        raise ValueError("none of the units that were held out has a labelled cell")
    ends = lives.random_ends(rows, _ENDS_PER_WINDOW, np.random.default_rng(spec.seed + 2))
    summary = lives.summaries(rows, ends)
    row, end = np.repeat(rows, _ENDS_PER_WINDOW), ends.ravel()
    span = end[:, None] + np.arange(options.context)
    inputs, seen = (shared[name][0, row[:, None], span] for name in ("inputs", "seen"))
    told = jax.jit(partial(_told, spec, options))(params, inputs, seen, summary.reshape(len(row), -1))
    fold, truth = lives.fold[row], lives.target[row, end]
    quantiles, trees = (np.asarray(part)[fold, np.arange(len(row))] for part in told)
    share = np.float32(shares((quantiles[:, 1], trees), truth)[1])
    return share, HeldOut(_nearer(quantiles, trees, share), truth, fold, lives.data.group[row])
