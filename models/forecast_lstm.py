"""Kind ``forecast_lstm``: what a measurement will be, at several instants to come, with a likely range for each.

Three forecasters on the same inputs, which are of the past but for the calendar (see :mod:`models.lagged`). A ridge
(Hoerl & Kennard 1970), in closed form. An ensemble that learns what the ridge leaves: a recurrent layer reads the
last ``context`` cells, and per horizon two layers see its state and the ridge's inputs; a middle and, below and above
it, 10 and 90 % quantiles (Koenker & Bassett 1978) that can't cross by construction. And boosted trees (see
:mod:`models.boosted`), for what goes up or down at a threshold.

Blocks of time are dealt to folds; each member, with a ridge and trees of its own, is trained without one of them.
Errors there say what share each of the three has, horizon by horizon, down to nothing; and they widen or narrow the
range to 80 % (CQR, Romano et al. 2019), lower and upper side apart. Where the network has no number, as after an outage
that is longer than its ``context``, the ridge stands in.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from numpy.typing import NDArray

from models import boosted, cells
from models.forecast_trees import grown, told_ahead
from models.gates import Cell
from models.horizons import HIGH, LOW, HeldOut, mixed
from models.kind import Estimate, Fitted, OutputSpec, Params, Progress, Spec, TrainingData
from models.lagged import Lags, plain, series, table, width
from models.meaning import Meaning
from models.network import Ahead, born, bound
from models.options import ascending, check_axes, choice, number, read
from models.training import Budget, alike, descend, folds, pinball

_FOLDS = 5
_TAIL = 32
"""Cells at the end of a crop, each of which is learnt from as if it were now."""
_ENDS_PER_BLOCK = 128
_PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
"""Of the ridge, as shares of the rows; the best on held-out blocks is taken."""


@dataclass(frozen=True, slots=True)
class Options:
    """Hyperparameters; the defaults were chosen on ten months of a steel works' load, the newest fifth of them held
    out."""

    ahead: tuple[int, ...] = ascending((1, 4, 96), 1, 100_000, 96)
    """Horizons: how many cells after the window's end."""
    day: int = number(96, 2, 86_400)
    """Cells in a day."""
    hold: int = number(4, 0, 10_000)
    """How long a last value stands in for a missing one [cells]."""
    context: int = number(48, 4, 4096)
    """Cells that the network reads one by one."""
    middle: str = choice("mean", ("mean", "median"))
    """What the value is: the mean has the smaller squared error, the median the smaller absolute error."""
    cell: Cell = choice("lstm", get_args(Cell))
    hidden: int = number(48, 4, 512)
    members: int = number(5, 1, 16)
    trees: int = number(300, 1, 10_000)
    """Of each member and horizon."""
    steps: int = number(800, 1, 100_000)
    patience: int = number(0, 0, 100_000)
    """Steps without getting better on held-out blocks after which the training ends; 0: all steps."""
    batch: int = number(16, 1, 4096)
    rate: float = number(5e-3, 1e-6, 1.0)
    decay: float = number(0.3, 0.0, 1.0)
    noise: float = number(0.05, 0.0, 2.0)
    """Added to inputs while training [standard deviations]."""


class ForecastLstm:
    """A forecaster of one measurement; see the module."""

    name = "forecast_lstm"
    roles = ("target",)

    def check(self, spec: Spec) -> None:
        """See :class:`models.kind.ModelKind`."""
        options = read(Options, spec)
        check_axes(spec, self.roles, inputs=0, length=2)
        if options.context > spec.length:
            raise ValueError(f"option context = {options.context}: must be at most the window, {spec.length} cells")

    def outputs(self, spec: Spec) -> tuple[OutputSpec, ...]:
        """One, named as the target, in the unit and range of its tag."""
        unknown, name = float("nan"), spec.roles["target"]
        says, ahead = f"Forecast of {name}", read(Options, spec).ahead
        return (OutputSpec(name, "", unknown, unknown, says, Meaning.FORECAST, (), ahead, HIGH - LOW),)

    def init(self, spec: Spec, key: jax.Array) -> Params:
        """See :class:`models.kind.ModelKind`."""
        options = read(Options, spec)
        count, horizons = options.members, len(options.ahead)
        line = np.zeros((horizons, width(spec, _lags(spec, options))), np.float32)
        return {
            "network": born(_builder(spec, options), jax.random.split(key, count)),
            "ridges": np.tile(line, (count, 1, 1)),
            "trees": jax.tree.map(lambda leaf: np.tile(leaf, (count, horizons)), boosted.ungrown(options.trees)),
            "ridge": line,
            "scale": cells.unscaled(len(spec.features)),
            "spread": np.ones(horizons, np.float32),
            "share": np.zeros((2, horizons), np.float32),
            "margin": np.zeros((2, horizons), np.float32),
            "ridge_margin": np.zeros((2, horizons), np.float32),
        }

    def fit(self, spec: Spec, data: TrainingData, progress: Progress) -> Fitted:
        """Targets are the measurement's own values [n, t]; a block's cells without one only lead in to those with one.

        Needs five blocks, or ``members`` if that is more.
        """
        self.check(spec)
        options = read(Options, spec)
        fold = folds(data.group, max(_FOLDS, options.members), spec.seed)
        params = self.init(spec, jax.random.key(spec.seed))
        params["scale"] = cells.scale(data.values, data.observed)
        blocks = _blocks(spec, options, params, data)
        ridges = _ridges(spec, options, blocks, fold)
        params |= {"ridge": ridges.whole, "ridges": ridges.without[: options.members], "spread": ridges.spread}
        rows = blocks.rows[:, _TAIL - 1 :]
        count = options.members, options.trees
        params["trees"] = grown(spec, _lags(spec, options), rows, blocks.truth, fold, *count, progress)
        params["network"] = _train(spec, options, params, blocks, fold, progress)
        judged = _held_out(spec, options, params, blocks, ridges, fold)
        params |= judged.calibration()
        unit = float(params["scale"]["scale"][spec.index("target")])
        return Fitted(jax.device_get(params), judged.metrics(params, options.ahead, unit))

    def predict(self, spec: Spec, params: Params, values: jax.Array, observed: jax.Array) -> dict[str, Estimate]:
        """See :class:`models.kind.ModelKind`; NaN where the target is not observed at all."""
        options, target = read(Options, spec), spec.index("target")
        front = ((0, 0), (0, 0), (spec.length - values.shape[-1], 0))
        values, observed = jnp.pad(values, front), jnp.pad(observed, front)
        rows, seen = series(spec, params["scale"], _lags(spec, options), values, observed)
        told = _told(spec, options, params, rows, seen)
        below, above = params["ridge_margin"]
        alone = jnp.stack([told.ridge - below, told.ridge, told.ridge + above])
        network = jnp.mean(told.members, 0)
        middle = mixed(params["share"], told.ridge, network[..., 0], jnp.mean(told.trees, 0))
        low = jnp.minimum(middle - network[..., 1] - params["margin"][0], middle)
        high = jnp.maximum(middle + network[..., 2] + params["margin"][1], middle)
        both = jnp.stack([low, middle, high])
        usable = seen[:, -options.context :].any(-1)[:, None] & jnp.isfinite(both).all(0)
        low, middle, high = jnp.where(usable, both, alone)
        there = observed[:, target].any(-1)[:, None]
        mean, scale = params["scale"]["mean"][target], params["scale"]["scale"][target]
        shown = (jnp.where(there, mean + scale * part, jnp.nan) for part in (middle, low, high))
        return {spec.roles["target"]: Estimate(*shown)}


def _lags(spec: Spec, options: Options) -> Lags:
    return Lags(spec.length, options.ahead, options.day, options.hold)


def _builder(spec: Spec, options: Options) -> Any:
    columns = width(spec, _lags(spec, options))

    def build(rngs: nnx.Rngs) -> Ahead:
        return Ahead(len(spec.features), columns, len(options.ahead), options.hidden, options.cell, rngs=rngs)

    return build


class _Told(NamedTuple):
    """In standard deviations of the target, of the last cell."""

    ridge: jax.Array
    """[n, horizon], of all data."""
    members: jax.Array
    """[member, n, horizon, 3]: middle, and how far the quantiles are below and above it."""
    trees: jax.Array
    """[member, n, horizon]."""


def _told(spec: Spec, options: Options, params: Params, rows: jax.Array, seen: jax.Array) -> _Told:
    lags, build = _lags(spec, options), _builder(spec, options)
    known, asked = table(spec, lags, rows, 1), plain(spec, lags, rows, 1)[:, 0]

    def member(weights: Params, line: jax.Array) -> jax.Array:
        found = bound(build, weights)(rows[:, -options.context :], seen[:, -options.context :], known)
        return _numbers(found, _line(known, line), params["spread"])[:, 0]

    members = jax.vmap(member)(params["network"], params["ridges"])
    trees = jax.vmap(told_ahead, (0, None))(params["trees"], asked)
    return _Told(_line(known, params["ridge"])[:, 0], members, trees)


def _line(known: jax.Array, weights: jax.Array) -> jax.Array:
    """[..., horizon, d] to [..., horizon]."""
    return jnp.einsum("...hd,hd->...h", known, weights, precision="highest")


def _numbers(raw: jax.Array, line: jax.Array, spread: jax.Array) -> jax.Array:
    """What the network adds to the ridge, in the ridge's own errors; and distances that are never negative."""
    below, above = (spread * jax.nn.softplus(raw[..., n] + 1.0) for n in (1, 2))
    return jnp.stack([line + spread * raw[..., 0], below, above], -1)


class _Blocks(NamedTuple):
    """All blocks, in standard deviations, with room in front for the first crop."""

    rows: NDArray[np.float32]
    """[n, front + t, f]."""
    seen: NDArray[np.bool_]
    """[n, front + t]."""
    truth: NDArray[np.float32]
    """[n, t, horizon] what came true after each cell; NaN: not known, or not to be learnt from."""

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """[n, t] whether anything is known of what came after the cell."""
        return np.asarray(np.isfinite(self.truth).any(axis=-1))


def _blocks(spec: Spec, options: Options, params: Params, data: TrainingData) -> _Blocks:
    target = spec.index("target")
    rows, seen = jax.device_get(
        jax.jit(partial(series, spec, params["scale"], _lags(spec, options)))(data.values, data.observed)
    )
    units = (data.target - params["scale"]["mean"][target]) / params["scale"]["scale"][target]
    units = np.pad(units, ((0, 0), (0, options.ahead[-1])), constant_values=np.nan)
    t = data.target.shape[1]
    truth = np.stack([units[:, ahead : ahead + t] for ahead in options.ahead], -1)
    truth = np.where(np.logical_or.accumulate(seen, 1)[..., None], truth, np.nan).astype(np.float32)
    if not np.isfinite(truth).any((0, 1)).all():
        raise ValueError(f"no block holds the target so many cells later: {list(options.ahead)}")
    front = ((0, 0), (spec.length + _TAIL - 2, 0))
    return _Blocks(np.pad(rows, (*front, (0, 0))), np.pad(seen, front), truth)


class _Ridges(NamedTuple):
    without: NDArray[np.float32]
    """[fold, horizon, d], each of the other folds."""
    whole: NDArray[np.float32]
    """[horizon, d]."""
    spread: NDArray[np.float32]
    """[horizon] root mean square of the errors on held-out folds, in standard deviations."""


def _ridges(spec: Spec, options: Options, blocks: _Blocks, fold: NDArray[np.int32]) -> _Ridges:
    """By normal equations, gathered fold by fold; the target's column stands last in them."""
    lags, t = _lags(spec, options), blocks.truth.shape[1]
    every = jax.jit(partial(table, spec, lags, last=t))
    horizons, d = len(options.ahead), width(spec, lags)
    sums = np.zeros((int(fold.max()) + 1, horizons, d + 1, d + 1))
    for row, truth in enumerate(blocks.truth):
        known = np.asarray(every(blocks.rows[row : row + 1, _TAIL - 1 :]), np.float64)[0]
        both = np.concatenate([known, truth[..., None]], -1)
        both = np.where(np.isnan(truth)[..., None], 0.0, both)
        sums[fold[row]] += both.transpose(1, 2, 0) @ both.transpose(1, 0, 2)
    others = sums.sum(0) - sums
    tried = [np.stack([_solve(each, penalty) for each in others]) for penalty in _PENALTIES]
    count = np.maximum(sums[:, :, 0, 0].sum(0), 1.0)
    left = np.stack([np.einsum("fhd,fhde,fhe->h", full, sums, full) for full in map(_with_target, tried)]) / count
    best, place = left.argmin(0), np.arange(horizons)
    whole = np.stack([_solve(sums.sum(0), penalty) for penalty in _PENALTIES])
    return _Ridges(
        np.stack(tried)[best, :, place].swapaxes(0, 1).astype(np.float32),
        whole[best, place].astype(np.float32),
        np.sqrt(np.maximum(left.min(0), 1e-6)).astype(np.float32),
    )


def _solve(sums: NDArray[np.float64], penalty: float) -> NDArray[np.float64]:
    """Weights [..., d] of normal equations [..., d + 1, d + 1]; the first column counts the rows."""
    square, product = sums[..., :-1, :-1], sums[..., :-1, -1]
    size = penalty * np.maximum(sums[..., :1, :1], 1.0) * np.eye(square.shape[-1])
    return np.asarray(np.linalg.solve(square + size, product[..., None])[..., 0])


def _with_target(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """So that the quadratic form of normal equations is the sum of squared errors."""
    return np.concatenate([weights, np.full((*weights.shape[:-1], 1), -1.0)], -1)


def _train(
    spec: Spec, options: Options, params: Params, blocks: _Blocks, fold: NDArray[np.int32], progress: Progress
) -> Params:
    labelled = blocks.labelled
    generator = np.random.default_rng(spec.seed)
    ends = []
    for member in range(options.members):
        own = np.argwhere(labelled & (fold != member)[:, None])
        if not len(own):
            raise ValueError("all of the target lies in one block; there must be several to learn from and to judge by")
        ends.append(own[generator.permutation(np.resize(np.arange(len(own)), labelled.sum()))])
    front = ((0, 0), (_TAIL - 1, 0), (0, 0))
    shared = {"rows": blocks.rows, "seen": blocks.seen, "spread": params["spread"]}
    shared["truth"] = np.pad(blocks.truth, front, constant_values=np.nan)
    own_part = {"ends": np.stack(ends), "ridge": params["ridges"]}
    apart = [np.argwhere(labelled & (fold == member)[:, None]) for member in range(options.members)]
    held = {"ends": alike(apart), "ridge": params["ridges"]}
    budget = Budget(options.steps, options.rate, options.decay, patience=options.patience)
    loss = partial(_loss, spec, options)
    key = jax.random.key(spec.seed)
    return descend(loss, params["network"], shared, own_part, budget, key, progress, held)


def _loss(spec: Spec, options: Options, weights: Params, key: jax.Array, shared: Any, own: Any) -> jax.Array:
    """Of the last cells of random crops: squared or absolute error of the middle, pinball loss of the quantiles."""
    picked, noise = jax.random.split(key)
    row, end = own["ends"][jax.random.randint(picked, (options.batch,), 0, own["ends"].shape[0])].T
    span = end[:, None] + jnp.arange(spec.length + _TAIL - 1)
    rows, seen = shared["rows"][row[:, None], span], shared["seen"][row[:, None], span]
    truth = shared["truth"][row[:, None], end[:, None] + jnp.arange(_TAIL)]
    known = table(spec, _lags(spec, options), rows, _TAIL)
    line = _line(known, own["ridge"])
    rows = rows + options.noise * jax.random.normal(noise, rows.shape)
    known = known + options.noise * jax.random.normal(jax.random.fold_in(noise, 1), known.shape)
    read_by = options.context + _TAIL - 1
    raw = bound(_builder(spec, options), weights)(rows[:, -read_by:], seen[:, -read_by:], known)
    middle, below, above = jnp.moveaxis(_numbers(raw, line, shared["spread"]) / shared["spread"][:, None], -1, 0)
    weight = jnp.isfinite(truth)
    error = jnp.where(weight, jnp.nan_to_num(truth) / shared["spread"] - middle, 0.0)
    centre = error**2 if options.middle == "mean" else jnp.abs(error)
    aside = jax.lax.stop_gradient(error)
    spread = pinball(aside + below, LOW) + pinball(aside - above, HIGH)
    return jnp.sum(jnp.where(weight, centre + spread, 0.0)) / jnp.maximum(weight.sum(), 1)


def _held_out(
    spec: Spec, options: Options, params: Params, blocks: _Blocks, ridges: _Ridges, fold: NDArray[np.int32]
) -> HeldOut:
    """Each block by a member that was trained without it, as it is used live."""
    labelled = blocks.labelled
    told = jax.jit(partial(_told, spec, options))
    parts: list[tuple[NDArray[Any], ...]] = []
    for row in np.flatnonzero((fold < options.members) & labelled.any(axis=1)):
        ends = np.flatnonzero(labelled[row])
        ends = ends[np.linspace(0, len(ends) - 1, _ENDS_PER_BLOCK).astype(int)]
        span = ends[:, None] + _TAIL - 1 + np.arange(spec.length)
        own = {**params, **jax.tree.map(lambda leaf, own=fold[row]: leaf[own : own + 1], _of_members(params))}
        own["ridge"] = ridges.without[fold[row]]
        found = jax.device_get(told(own, blocks.rows[row][span], blocks.seen[row][span]))
        last = blocks.rows[row, ends + spec.length + _TAIL - 2, :1]
        network, *aside = np.moveaxis(found.members[0], -1, 0)
        parts.append((blocks.truth[row, ends], found.ridge, network, found.trees[0], *aside, last))
    if not parts:
        raise ValueError("none of the blocks that were held out holds the target")
    seen = int(labelled[fold < options.members].sum())
    columns = (np.concatenate(column) for column in zip(*parts, strict=True))
    return HeldOut(max(1, seen // options.day), *columns)


def _of_members(params: Params) -> Params:
    return {name: params[name] for name in ("network", "ridges", "trees")}
