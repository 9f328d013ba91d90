"""Kind ``quality_mlp``: what the laboratory would say now, from the process as it is now and from its late answers.

An MLP turns a cell's process inputs into the laboratory's value; the laboratory itself is never among its inputs. Where
the laboratory answered, the residuals give a bias, an EWMA in time order, that is added to the estimate (the bias
update of soft sensors: Kadlec et al. 2011). The network is trained for this use: its loss is what is left *after* the
bias as it was known ``delay`` cells later, so it learns how quality moves and leaves slow drift to the update. Without
any answer in the window there is therefore no number: the network alone knows no level.

The interval comes from the window's own errors, each against the bias as it was known then: it widens and narrows with
the plant (split conformal over a moving window). Neighbouring errors are alike, so their quantiles alone would be too
bold: which of them hold 90 % is found by going through the window as it went by (adaptive conformal inference, see
:func:`models.intervals.adaptive_misses`), so that a prediction follows from window and parameters alone.

With ``spec_low`` or ``spec_high`` there are two more outputs: how much of the product is to be expected outside of its
specification, and whether it passes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from numpy.typing import NDArray

from models import cells
from models.intervals import adaptive_misses, quantile
from models.kind import Estimate, Fitted, OutputSpec, Params, Progress, Spec, TrainingData
from models.network import Mlp, born, bound
from models.options import check_axes, number, read
from models.specification import Specification
from models.training import Budget, conformal, descend

_LEVEL = 0.9
_LIMIT = 6.0
_LABELS = 10
"""Answers that a bias needs before training counts on it."""
_OWN_ERRORS = 40
"""Errors that a window needs before its interval is its own."""
_ENDS = 16
"""Instants of a held-out window at which its interval is judged."""
_HELD_OUT = 0.25
"""Share of the groups, the newest, that is held out for the metrics."""


@dataclass(frozen=True, slots=True)
class Options:
    """Hyperparameters; the defaults were measured on five years of a gas turbine (trained on three)."""

    output: str
    """Name of the output, such as ``nox``."""
    spec_low: float | None = number(None, -1e12, 1e12)
    """Specification limit [unit of the laboratory]; none: there is no limit on this side."""
    spec_high: float | None = number(None, -1e12, 1e12)
    alpha: float = number(0.05, 1e-4, 1.0)
    """Weight of the newest residual in the bias."""
    delay: int = number(24, 0, 10_000)
    """How late the laboratory answers, for the training [cells]; live, it is seen in the window."""
    hold: int = number(3, 0, 10_000)
    """How long an input's last value stands in for a missing one [cells]."""
    adapt: float = number(0.01, 0.0, 0.5)
    """How far one error outside of the interval moves the share of errors that may lie outside."""
    hidden: int = number(32, 2, 512)
    members: int = number(4, 1, 16)
    steps: int = number(600, 1, 100_000)
    batch: int = number(4, 1, 4096)
    """Windows in a step."""
    rate: float = number(5e-3, 1e-6, 1.0)
    decay: float = number(0.01, 0.0, 1.0)


class QualityMlp:
    """A soft sensor; see the module."""

    name = "quality_mlp"
    roles = ("lab",)
    free = frozenset({"spec_low", "spec_high", "delay", "adapt", "steps", "batch", "rate", "decay"})

    def check(self, spec: Spec) -> None:
        """See :class:`models.kind.ModelKind`."""
        options = read(Options, spec)
        check_axes(spec, self.roles, length=options.delay + 2 * _LABELS)
        _specification(options).check()

    def outputs(self, spec: Spec) -> tuple[OutputSpec, ...]:
        """One, named by the option ``output``, in the unit and range of the laboratory's tag; with limits two more."""
        options = read(Options, spec)
        name = options.output
        value = OutputSpec(name, "", float("nan"), float("nan"), f"Present {name} as the laboratory would report it")
        return (value, *_specification(options).outputs())

    def init(self, spec: Spec, key: jax.Array) -> Params:
        """See :class:`models.kind.ModelKind`."""
        options, count = read(Options, spec), len(spec.features) - 1
        return {
            "network": born(_builder(spec, options), jax.random.split(key, options.members)),
            "inputs": cells.unscaled(count),
            "lab": cells.unscaled(1),
            "margin": np.ones((), np.float32),
        }

    def fit(self, spec: Spec, data: TrainingData, progress: Progress) -> Fitted:
        """``data.target`` is the laboratory at its own source time; where it is NaN, its observed feature stands in.

        The ensemble is trained twice at once: on all groups, to be used, and without the newest, to be judged there.
        """
        self.check(spec)
        lab = _laboratory(spec, data)
        params = self.init(spec, jax.random.key(spec.seed))
        process = _process(spec)
        params["inputs"] = cells.scale(data.values[:, process], data.observed[:, process])
        params["lab"] = cells.scale(np.nan_to_num(lab)[:, None], ~np.isnan(lab)[:, None])
        return _learnt(spec, params, data, lab, _budget(spec), progress)

    def adapt(self, spec: Spec, start: Params, data: TrainingData, progress: Progress, *, head_only: bool) -> Fitted:
        """See :class:`models.kind.Adaptable`. Head: the last layer of the bent path, and the straight one."""
        self.check(spec)
        budget = _budget(spec).onwards(("head", "straight") if head_only else ())
        return _learnt(spec, start, data, _laboratory(spec, data), budget, progress)

    def predict(self, spec: Spec, params: Params, values: jax.Array, observed: jax.Array) -> dict[str, Estimate]:
        """See :class:`models.kind.ModelKind`; NaN where an input is missing for longer than ``hold`` cells, or
        where the laboratory gave no answer in the window.
        """
        options, lab = read(Options, spec), spec.index("lab")
        answers = jnp.where(observed[:, lab], values[:, lab], jnp.nan)
        r = _residual(spec, params, values, observed, answers)
        bias = cells.running_bias(r.residual, r.known, options.alpha)
        late = values.shape[-1] - 1 - cells.last_seen(r.known)[:, -1:]
        value = r.network[:, -1] + bias[:, -1]
        below, above = _margins(options, params, r, bias, late)
        there = r.usable[:, -1] & r.known.any(-1)
        found = _estimate(params, there, value, value - below, value + above)
        return {options.output: found, **_specification(options).judged(found)}

    def uncorrected(self, spec: Spec, params: Params, values: jax.Array, observed: jax.Array) -> jax.Array:
        """See :class:`models.kind.Corrected` and :func:`uncorrected`."""
        return uncorrected(spec, params, values, observed)


def uncorrected(spec: Spec, params: Params, values: jax.Array, observed: jax.Array) -> jax.Array:
    """What the network alone says at every cell [n, t], in the laboratory's unit; NaN where an input is missing.

    Its level means nothing, as the bias supplies it; how it moves against the laboratory tells drift, which the bias
    hides.
    """
    nothing = jnp.full(values[:, 0].shape, jnp.nan)
    r = _residual(spec, params, values, observed, nothing)
    return jnp.where(r.usable, _in_unit(params, r.network), jnp.nan)


def _specification(options: Options) -> Specification:
    return Specification(options.output, options.spec_low, options.spec_high)


def _budget(spec: Spec) -> Budget:
    options = read(Options, spec)
    return Budget(options.steps, options.rate, options.decay)


def _learnt(
    spec: Spec, params: Params, data: TrainingData, lab: NDArray[np.float32], budget: Budget, progress: Progress
) -> Fitted:
    """From the weights and with the scaling in ``params``; judged by the ensemble that did not see the newest."""
    newest = _newest(data.group)
    used, judged = _train(spec, params, data, lab, newest, budget, progress)
    params = {**params, "network": judged}
    corrected = jax.jit(partial(_corrected, spec))(params, data.values, data.observed, lab)
    metrics, params["margin"] = _judge(params, jax.device_get(corrected), lab, newest)
    metrics |= _coverage(spec, params, data, lab, newest)
    return Fitted(jax.device_get({**params, "network": used}), metrics)


def _builder(spec: Spec, options: Options) -> Any:
    def build(rngs: nnx.Rngs) -> Mlp:
        return Mlp(len(spec.features) - 1, options.hidden, rngs=rngs)

    return build


def _process(spec: Spec) -> NDArray[np.int64]:
    """Positions of the process inputs: all features but the laboratory."""
    return np.delete(np.arange(len(spec.features)), spec.index("lab"))


def _laboratory(spec: Spec, data: TrainingData) -> NDArray[np.float32]:
    """The laboratory's values at their own cells [n, t]; NaN where there is none."""
    lab = spec.index("lab")
    seen = np.where(data.observed[:, lab], data.values[:, lab], np.nan)
    labels: NDArray[np.float32] = np.where(np.isnan(data.target), seen, data.target).astype(np.float32)
    if np.isfinite(labels).sum() < 2 * _LABELS:
        raise ValueError(f"the laboratory has {np.isfinite(labels).sum()} values; it takes {2 * _LABELS} or more")
    return labels


def _newest(group: NDArray[np.int32]) -> NDArray[np.bool_]:
    """The newest quarter of the groups, at least one."""
    names = np.unique(group)
    if len(names) < 2:
        raise ValueError("there is one block of time; it takes two or more to hold the newest out")
    newest: NDArray[np.bool_] = group >= names[-max(1, round(_HELD_OUT * len(names)))]
    return newest


class _Residual(NamedTuple):
    """Of the network alone, in standard deviations of the laboratory, all [n, t]."""

    network: jax.Array
    residual: jax.Array
    known: jax.Array
    usable: jax.Array


def _inputs(
    spec: Spec, params: Mapping[str, Any], values: jax.Array, observed: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Scaled process inputs [n, t, d], held over short holes, and where all of them are there [n, t]."""
    process, hold = _process(spec), read(Options, spec).hold
    filled, fresh = cells.held(values[:, process], observed[:, process], hold)
    return jnp.swapaxes(cells.scaled(params["inputs"], filled, fresh, _LIMIT), 1, 2), fresh.all(1)


def _residual(spec: Spec, params: Params, values: jax.Array, observed: jax.Array, answers: jax.Array) -> _Residual:
    inputs, usable = _inputs(spec, params, values, observed)
    build = _builder(spec, read(Options, spec))

    def member(weights: Params) -> jax.Array:
        estimate: jax.Array = bound(build, weights)(inputs)
        return estimate

    network = jnp.mean(jax.vmap(member)(params["network"]), 0)
    known = usable & ~jnp.isnan(answers)
    truth = (answers - params["lab"]["mean"]) / params["lab"]["scale"]
    return _Residual(network, jnp.where(known, truth - network, 0.0), known, usable)


class _Corrected(NamedTuple):
    """Errors of whole windows in standard deviations of the laboratory, all [n, t]; the laboratory ``delay`` late."""

    error: jax.Array
    """Against the bias as it was known then."""
    persistence: jax.Array
    """Of the last answer that was known then: what to beat."""
    judged: jax.Array
    """Where there is an error, and answers enough before it."""


def _corrected(spec: Spec, params: Params, values: jax.Array, observed: jax.Array, answers: jax.Array) -> _Corrected:
    options = read(Options, spec)
    r = _residual(spec, params, values, observed, answers)
    bias = cells.running_bias(r.residual, r.known, options.alpha)
    judged = r.known & (cells.shifted(jnp.cumsum(r.known, -1), options.delay, 0) >= _LABELS)
    truth = r.residual + r.network
    last, _ = cells.held(truth, r.known, truth.shape[-1])
    error, persistence = (truth - cells.shifted(known, options.delay, 0.0) for known in (bias, last))
    return _Corrected(error - r.network, persistence, judged)


def _margins(
    options: Options, params: Params, r: _Residual, bias: jax.Array, late: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """How far the laboratory was below and above the corrected estimate in this window, so that 90 % lie between.

    With fewer errors than a window needs for that, the margin found in training.
    """
    count = jnp.cumsum(r.known, -1)
    judged = r.known & (cells.shifted(count, late, 0) >= _LABELS)
    error = r.residual - cells.shifted(bias, late, 0.0)
    level = 1.0 - adaptive_misses(error, judged, late, 1.0 - _LEVEL, options.adapt, _OWN_ERRORS) / 2.0
    enough = judged.sum(-1) >= _OWN_ERRORS
    sides = (jnp.maximum(quantile(sign * error, judged, level), 0.0) for sign in (-1.0, 1.0))
    below, above = (jnp.where(enough, side, params["margin"]) for side in sides)
    return below, above


def _estimate(params: Params, there: jax.Array, *parts: jax.Array) -> Estimate:
    return Estimate(*(jnp.where(there, _in_unit(params, part), jnp.nan) for part in parts))


def _in_unit(params: Params, standard: jax.Array) -> jax.Array:
    """Of the laboratory."""
    found: jax.Array = params["lab"]["mean"][0] + params["lab"]["scale"][0] * standard
    return found


def _train(
    spec: Spec,
    params: Params,
    data: TrainingData,
    lab: NDArray[np.float32],
    newest: NDArray[np.bool_],
    budget: Budget,
    progress: Progress,
) -> tuple[Params, Params]:
    """Two ensembles: of all windows, and of those that are not the newest."""
    options = read(Options, spec)
    inputs, usable = jax.jit(partial(_inputs, spec, params))(data.values, data.observed)
    shared = {"inputs": inputs, "target": (lab - params["lab"]["mean"]) / params["lab"]["scale"], "usable": usable}
    rows = np.arange(len(lab))
    older = np.resize(rows[~newest], len(rows))
    own = np.stack([rows] * options.members + [older] * options.members)
    twice = jax.tree.map(lambda leaf: np.concatenate([leaf, leaf]), jax.device_get(params["network"]))
    loss = partial(_loss, _builder(spec, options), options)
    trained = jax.device_get(descend(loss, twice, shared, own, budget, jax.random.key(spec.seed), progress))
    used = jax.tree.map(lambda leaf: leaf[: options.members], trained)
    return used, jax.tree.map(lambda leaf: leaf[options.members :], trained)


def _loss(build: Any, options: Options, weights: Params, key: jax.Array, shared: Any, own: Any) -> jax.Array:
    """Squared error after the bias, as it was known ``delay`` cells later."""
    row = own[jax.random.randint(key, (options.batch,), 0, own.shape[0])]
    target = shared["target"][row]
    known = shared["usable"][row] & ~jnp.isnan(target)
    residual = jnp.where(known, jnp.nan_to_num(target) - bound(build, weights)(shared["inputs"][row]), 0.0)
    bias = cells.shifted(cells.running_bias(residual, known, options.alpha), options.delay, 0.0)
    corrected = known & (cells.shifted(jnp.cumsum(known, -1), options.delay, 0) >= _LABELS)
    return jnp.sum(jnp.where(corrected, residual - bias, 0.0) ** 2) / jnp.maximum(corrected.sum(), 1)


def _judge(
    params: Params, found: _Corrected, lab: NDArray[np.float32], newest: NDArray[np.bool_]
) -> tuple[dict[str, float], np.float32]:
    """Metrics on the newest windows, and the margin that holds 90 % there. ``r2_last_lab``: of the last answer."""
    judged = np.asarray(found.judged) & newest[:, None]
    if judged.sum() < _LABELS:
        raise ValueError("the newest quarter of the data holds too few answers of the laboratory to judge by")
    scale = float(params["lab"]["scale"][0])
    error, last, truth = np.asarray(found.error)[judged], np.asarray(found.persistence)[judged], lab[judged] / scale
    spread = max(float(np.sum((truth - truth.mean()) ** 2)), 1e-12)
    metrics = {
        "rmse": scale * float(np.sqrt(np.mean(error**2))),
        "mae": scale * float(np.mean(np.abs(error))),
        "r2": 1.0 - float(np.sum(error**2)) / spread,
        "r2_last_lab": 1.0 - float(np.sum(last**2)) / spread,
        "labels": float(judged.sum()),
    }
    return metrics, np.float32(conformal(np.abs(error), _LEVEL))


def _coverage(
    spec: Spec, params: Params, data: TrainingData, lab: NDArray[np.float32], newest: NDArray[np.bool_]
) -> dict[str, float]:
    """``coverage``: share of held-out answers that the interval holds, the newest windows cut off at several ends as
    if each were now.
    """
    options, t = read(Options, spec), lab.shape[1]
    cut = [(row, end) for row in np.flatnonzero(newest) for end in _ends(lab[row])]
    row, end = np.array(cut).T
    source = end[:, None] - (t - 1) + np.arange(t)
    values = np.swapaxes(data.values[row[:, None], :, np.maximum(source, 0)], 1, 2)
    observed = np.swapaxes(data.observed[row[:, None], :, np.maximum(source, 0)], 1, 2) & (source >= 0)[:, None]
    observed[:, spec.index("lab"), t - options.delay :] = False
    found = jax.device_get(jax.jit(partial(QualityMlp().predict, spec))(params, values, observed)[options.output])
    there = np.isfinite(found.value)
    inside = (found.lower <= lab[row, end]) & (lab[row, end] <= found.upper)
    return {"coverage": float(inside[there].mean())} if there.any() else {}


def _ends(lab: NDArray[np.float32]) -> NDArray[np.intp]:
    """Labelled cells spread over the later half of a window."""
    labelled = np.flatnonzero(~np.isnan(lab))
    return (
        labelled[np.unique(np.linspace(len(labelled) // 2, len(labelled) - 1, _ENDS).astype(int))]
        if len(labelled)
        else labelled
    )
