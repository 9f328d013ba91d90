"""What the kinds ``failure_mlp`` and ``failure_lstm`` share: the probability that a failure comes, and a state.

The target is 1 where the failure comes (within a horizon, as whoever labels has it), 0 where not, NaN where nobody
knows. Failures are rare: both classes are weighted (``balance``), which distorts the probability, and Platt's
calibration on held-out groups puts it right. Each member of the ensemble is trained without one fold of the groups;
what is calibrated, decided and told in the metrics comes from the members that had not seen the group.

Boosted trees may be asked beside the network (``trees``); they err elsewhere, and the same calibration says how much
either is to be believed.

A feature in the role ``outcome`` is what was found afterwards (0 or 1, such as an inspection): never an input.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from models import cells, failure_trees
from models.failure_held_out import HeldOut
from models.kind import Estimate, Fitted, OutputSpec, Params, Progress, Spec, TrainingData
from models.meaning import Meaning
from models.network import born
from models.options import check_axes, number, read
from models.training import Budget, alike, descend, folds

_FOLDS = 5
_JUDGED = 10_000
"""Cells that the calibration is learnt from, at most."""
_STATES = ("no failure expected", "failure expected")


@dataclass(frozen=True, slots=True)
class Options:
    """Hyperparameters of both kinds."""

    cost: float = number(0.0, 0.0, 1e6)
    """What a missed failure costs, in false alarms; 0: not known, the state then aims at the largest F1."""
    balance: float = number(0.5, 0.0, 1.0)
    """0: every cell weighs the same; 1: failures and the rest weigh the same together."""
    hidden: int = number(32, 2, 512)
    members: int = number(5, 1, 40)
    trees: int = number(0, 0, 10_000)
    """Of each fold that is held out, beside the network; 0: none."""
    steps: int = number(600, 1, 100_000)
    patience: int = number(0, 0, 100_000)
    """Steps without getting better on held-out groups after which the training ends; 0: all steps."""
    batch: int = number(64, 1, 65_536)
    rate: float = number(5e-3, 1e-6, 1.0)
    decay: float = number(0.01, 0.0, 10.0)
    noise: float = number(0.0, 0.0, 2.0)
    """Added to inputs while training [standard deviations]."""
    dropout: float = number(0.0, 0.0, 0.9)
    """Probability that a feature is missing while training: a dead tag must not be a surprise."""


def process(spec: Spec) -> NDArray[np.int64]:
    """Positions of the inputs: all features but the outcome."""
    return np.array([place for place, name in enumerate(spec.features) if name != spec.roles.get("outcome")], np.int64)


class Classifier(Protocol):
    """One way from inputs to a logit; stateless. ``options``: those of its kind."""

    def context(self, options: Any) -> int:
        """Cells that the network reads."""

    def unlearnt(self, spec: Spec, options: Any) -> Params:
        """What :meth:`learnt` gives before there are data."""

    def learnt(self, spec: Spec, options: Any, scale: Params, data: TrainingData) -> Params:
        """What is known of the inputs before any training, beside their ``scale``."""

    def units(self, scale: Params, values: jax.Array, observed: jax.Array) -> jax.Array:
        """[n, t, c·f] in standard deviations, channel by channel in the order of the inputs, from their [n, f, t]."""

    def build(self, spec: Spec, options: Any) -> Any:
        """Of a network."""

    def logit(
        self, spec: Spec, options: Any, fixed: Params, weights: Params, units: jax.Array, seen: jax.Array
    ) -> jax.Array:
        """[b, t] of one member's weights, for units [b, t, c·f] and which inputs are there [b, t, f].

        ``fixed``: what :meth:`learnt` gave.
        """

    def last_logit(
        self, spec: Spec, options: Any, fixed: Params, weights: Params, units: jax.Array, seen: jax.Array
    ) -> jax.Array:
        """[b] of the last cell alone."""

    def asked(self, options: Any, fixed: Params, units: jax.Array, seen: jax.Array) -> jax.Array:
        """What trees are asked about [m, d], of single cells [m, c·f] and [m, f]."""

    def penalty(self, options: Any, weights: Params) -> jax.Array:
        """What is added to the loss for one member's weights."""


class Failure:
    """A kind that classifies; a :class:`Classifier` tells one from another."""

    name = "failure"
    roles = ()

    def __init__(self, options: type[Options], classifier: Classifier) -> None:
        self._options = options
        self._classifier = classifier

    def check(self, spec: Spec) -> None:
        """See :class:`models.kind.ModelKind`."""
        read(self._options, spec)
        if unknown := sorted(set(spec.roles) - {"outcome"}):
            raise ValueError(f"roles.{unknown[0]}: {spec.kind} knows the role 'outcome' alone")
        check_axes(spec, self.roles)

    def outputs(self, spec: Spec) -> tuple[OutputSpec, ...]:
        """The state is decided from the probability and the threshold found on held-out groups."""
        probability = "Probability that a failure comes within the model's horizon"
        state = "Whether a failure is to be expected within the model's horizon"
        return (
            OutputSpec("failure_probability", "%", 0.0, 100.0, probability, Meaning.PROBABILITY),
            OutputSpec("failure_state", "", 0.0, 1.0, state, Meaning.STATE, _STATES),
        )

    def init(self, spec: Spec, key: jax.Array) -> Params:
        """See :class:`models.kind.ModelKind`."""
        options = read(self._options, spec)
        return {
            "network": born(self._classifier.build(spec, options), jax.random.split(key, options.members)),
            "scale": cells.unscaled(len(process(spec))),
            **self._classifier.unlearnt(spec, options),
            "trees": failure_trees.ungrown(_forests(options), options.trees),
            "calibration": np.array([1.0, 0.0, 0.0], np.float32),
            "threshold": np.full((), 0.5, np.float32),
        }

    def fit(self, spec: Spec, data: TrainingData, progress: Progress) -> Fitted:
        """Targets are 0 or 1, or a share between them. Needs failures in two groups, better five."""
        self.check(spec)
        options = read(self._options, spec)
        fold = _folds(data, spec.seed)
        key = jax.random.key(spec.seed)
        params = self.init(spec, key)
        inputs = process(spec)
        params["scale"] = cells.scale(data.values[:, inputs], data.observed[:, inputs])
        params |= self._classifier.learnt(spec, options, params["scale"], data)
        shared, own, held = self._crops(spec, params, data, fold)
        params["trees"] = self._grown(spec, shared, fold, progress)
        budget = Budget(options.steps, options.rate, options.decay, patience=options.patience)
        loss = partial(self._loss, spec, options)
        params["network"] = descend(loss, params["network"], shared, own, budget, key, progress, held)
        judged = self._held_out(spec, params, shared, fold)
        params |= judged.learnt(options.cost)
        return Fitted(jax.device_get(params), judged.metrics(options.cost))

    def predict(self, spec: Spec, params: Params, values: jax.Array, observed: jax.Array) -> dict[str, Estimate]:
        """See :class:`models.kind.ModelKind`; NaN where nothing is observed in the cells that the network reads."""
        options, inputs = read(self._options, spec), process(spec)
        context = min(self._classifier.context(options), values.shape[-1])
        units = self._classifier.units(params["scale"], values[:, inputs], observed[:, inputs])[:, -context:]
        seen = jnp.swapaxes(observed[:, inputs], 1, 2)[:, -context:]
        network, trees, shift = params["calibration"]
        logit = network * jnp.mean(self._members(spec, params, units, seen), 0) + shift
        logit += trees * jnp.mean(self._trees(spec, params, units[:, -1], seen[:, -1]), 0)
        probability = jax.nn.sigmoid(logit)
        there = seen.any((1, 2))
        unknown = jnp.full_like(logit, jnp.nan)

        def told(number: jax.Array) -> Estimate:
            return Estimate(jnp.where(there, number.astype(jnp.float32), jnp.nan), unknown, unknown)

        return {
            "failure_probability": told(100.0 * probability),
            "failure_state": told(probability >= params["threshold"]),
        }

    def _members(self, spec: Spec, params: Params, units: jax.Array, seen: jax.Array) -> jax.Array:
        """Logits [members, b] at the last cell."""
        options = read(self._options, spec)

        def member(weights: Params) -> jax.Array:
            return self._classifier.last_logit(spec, options, params, weights, units, seen)

        every: jax.Array = jax.vmap(member)(params["network"])
        return every

    def _trees(self, spec: Spec, params: Params, units: jax.Array, seen: jax.Array) -> jax.Array:
        """Logits [forests, m] of single cells."""
        asked = self._classifier.asked(read(self._options, spec), params, units, seen)
        return failure_trees.logit(params["trees"], asked)

    def _grown(self, spec: Spec, shared: Mapping[str, Any], fold: NDArray[np.int32], progress: Progress) -> Params:
        options = read(self._options, spec)
        row, last = np.nonzero(~np.isnan(shared["target"]))
        single = shared["units"][row, last], shared["seen"][row, last]
        asked = np.asarray(jax.jit(partial(self._classifier.asked, options))(shared["fixed"], *single))
        counted = _forests(options), options.trees, spec.seed
        return failure_trees.grown(asked, shared["target"][row, last], fold[row], *counted, progress)

    def _crops(
        self, spec: Spec, params: Params, data: TrainingData, fold: NDArray[np.int32]
    ) -> tuple[Mapping[str, Any], NDArray[np.intp], NDArray[np.intp]]:
        """What all members share, with cells in front that are not there; and per member the (row, end)s to train on,
        and those that it does not train on.

        ``end`` counts from the first cell of a crop, so that crop ``end`` ends in the data's cell ``end``.
        """
        options, inputs = read(self._options, spec), process(spec)
        scaled = jax.jit(self._classifier.units)
        units = np.asarray(scaled(params["scale"], data.values[:, inputs], data.observed[:, inputs]))
        seen = np.swapaxes(data.observed[:, inputs], 1, 2)
        target = np.where(seen.any(-1), data.target, np.nan).astype(np.float32)
        front = ((0, 0), (self._classifier.context(options) - 1, 0))
        apart = [(fold == member % (fold.max() + 1))[:, None] for member in range(options.members)]
        known = ~np.isnan(target)
        own, held = (alike([np.argwhere(known & rows) for rows in every]) for every in ([~a for a in apart], apart))
        shared = {
            "units": np.pad(units, (*front, (0, 0))),
            "seen": np.pad(seen, (*front, (0, 0))),
            "target": np.pad(target, front, constant_values=np.nan),
            "weight": _class_weights(target, options.balance),
            "fixed": {name: params[name] for name in self._classifier.unlearnt(spec, options)},
        }
        return shared, own, held

    def _loss(self, spec: Spec, options: Any, weights: Params, key: jax.Array, shared: Any, own: Any) -> jax.Array:
        """Weighted cross entropy over the later half of random crops."""
        picked, noisy, dead = jax.random.split(key, 3)
        row, end = own[jax.random.randint(picked, (options.batch,), 0, own.shape[0])].T
        span = end[:, None] + jnp.arange(self._classifier.context(options))
        units, seen, target = (shared[name][row[:, None], span] for name in ("units", "seen", "target"))
        seen = seen & jax.random.bernoulli(dead, 1.0 - options.dropout, (options.batch, 1, seen.shape[-1]))
        there = jnp.tile(seen, units.shape[-1] // seen.shape[-1])
        units = jnp.where(there, units + options.noise * jax.random.normal(noisy, units.shape), 0.0)
        logit = self._classifier.logit(spec, options, shared["fixed"], weights, units, seen)
        counted = seen.any(-1) & ~jnp.isnan(target) & (jnp.arange(span.shape[1]) >= span.shape[1] // 2)
        wanted = jnp.nan_to_num(target)
        other, failure = shared["weight"]
        error = failure * wanted * jax.nn.softplus(-logit) + other * (1.0 - wanted) * jax.nn.softplus(logit)
        mean = jnp.sum(jnp.where(counted, error, 0.0)) / jnp.maximum(counted.sum(), 1)
        return mean + self._classifier.penalty(options, weights)

    def _held_out(self, spec: Spec, params: Params, shared: Mapping[str, Any], fold: NDArray[np.int32]) -> HeldOut:
        """By the members that had not seen the fold."""
        options = read(self._options, spec)
        context, count = self._classifier.context(options), int(fold.max()) + 1
        known = ~np.isnan(shared["target"]) & (fold < options.members)[:, None]
        row, last = np.nonzero(known)
        if len(row) > _JUDGED:
            chosen = np.sort(np.random.default_rng(spec.seed).choice(len(row), _JUDGED, replace=False))
            row, last = row[chosen], last[chosen]
        span = last[:, None] - (context - 1) + np.arange(context)
        every = jax.jit(partial(self._members, spec))(
            params, shared["units"][row[:, None], span], shared["seen"][row[:, None], span]
        )
        forests = jax.jit(partial(self._trees, spec))(params, shared["units"][row, last], shared["seen"][row, last])
        found = (
            np.asarray(each).mean(0, where=_unseen(each, fold[row], count), dtype=np.float64)
            for each in (every, forests)
        )
        return HeldOut(
            logit=np.stack([*found], 1),
            target=shared["target"][row, last].astype(np.float64),
            fold=fold[row],
        )


def _forests(options: Options) -> int:
    return min(options.members, _FOLDS)


def _unseen(every: jax.Array, fold: NDArray[np.int32], count: int) -> NDArray[np.bool_]:
    """Which of what is trained without one of the folds, in turn [k, m], had not seen a cell of ``fold`` [m]."""
    without: NDArray[np.bool_] = np.arange(len(every))[:, None] % count == fold
    return without


def _folds(data: TrainingData, seed: int) -> NDArray[np.int32]:
    """Fold [n]; groups with a failure are dealt out apart from the others, so that each fold has some of both."""
    target = data.target[~np.isnan(data.target)]
    if ((target < 0.0) | (target > 1.0)).any():
        raise ValueError(f"labels must be 0 or 1; there are some from {target.min():g} to {target.max():g}")
    failed = np.isin(data.group, data.group[(np.nan_to_num(data.target) >= 0.5).any(1)])
    count = min(_FOLDS, len(np.unique(data.group[failed])))
    if count < 2:
        raise ValueError(f"{count} group of cells has a failure; it takes two or more to hold one out")
    if (target >= 0.5).all():
        raise ValueError("every labelled cell has a failure; it takes others to tell them apart")
    fold = np.zeros(len(data.group), np.int32)
    fold[failed] = folds(data.group[failed], count, seed)
    if len(np.unique(data.group[~failed])) >= count:
        fold[~failed] = folds(data.group[~failed], count, seed)
    return fold


def _class_weights(target: NDArray[np.float32], balance: float) -> NDArray[np.float32]:
    """Of the others and of failures; mean 1 over the cells."""
    share = float(np.nanmean(target))
    raw = np.array([(0.5 / (1.0 - share)) ** balance, (0.5 / share) ** balance])
    return np.asarray(raw / (raw @ [1.0 - share, share]), np.float32)
