"""Gradient descent for an ensemble: one compiled chunk of steps, called again and again, all members at once."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax  # type: ignore[import-untyped]  # ships no types
from numpy.typing import NDArray

from models.keeping import descent
from models.kind import Params, Progress
from models.stopping import Watch

CHUNK = 4
"""Steps per call: between calls progress is told, a fit can be cancelled, and others may use the device."""
_TELL = 0.05
"""While something compiles, progress is told so often [s]."""
_TUNING = 0.2
"""Share of the rate at which all weights of a trained network are trained on."""

Loss = Callable[[Params, jax.Array, Any, Any], jax.Array]
"""Of one member's weights, a random key, data shared by all members, and data of this member."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How far to train. The number of steps is the regulariser: what is fixed beforehand can't be tuned on the test."""

    steps: int
    """Rounded up to whole chunks."""
    rate: float
    """Peak of a one-cycle learning rate (Smith & Topin 2017)."""
    decay: float
    """Decoupled weight decay (Loshchilov & Hutter 2019)."""
    only: tuple[str, ...] = ()
    """Branches of the weights that are trained, the others stay as they are; none: all are."""
    patience: int = 0
    """Steps without a better loss on what is held out, after which it ends (:mod:`models.stopping`); 0: all steps."""

    def onwards(self, head: tuple[str, ...]) -> "Budget":
        """From where another fit ended: ``head`` alone, or without one all weights, so slowly that they stay near
        (Howard & Ruder 2018, section 3.2)."""
        return replace(self, only=head) if head else replace(self, rate=_TUNING * self.rate)


def descend(
    loss: Loss,
    weights: Params,
    shared: Any,
    own: Any,
    budget: Budget,
    key: jax.Array,
    progress: Progress,
    held: Any = None,
) -> Params:
    """Weights [members, ...] after AdamW on ``loss``; leaves of ``own`` have the members as their first axis.

    ``held``: as ``own``, of what each member does not learn from; with it and a budget that has patience it may end
    early, and gives the weights that were best there. An exception out of ``progress`` ends it; one that keeps how far
    it is lets it be resumed (:mod:`models.keeping`). A loss that is no number ends it with ValueError.
    """
    steps = -(-budget.steps // CHUNK) * CHUNK
    optimiser = _optimiser(budget, steps)
    loss = partial(_partly, loss, budget.only) if budget.only else loss
    progress(0.0, "compiling")
    watch = Watch(loss, budget.patience, key, shared, held) if budget.patience and held is not None else None
    first = (weights, jax.jit(jax.vmap(optimiser.init))(weights))
    shared, own = jax.device_put((shared, own))
    chunk = compiled(jax.jit(partial(_chunk, loss, optimiser)), (first, key, shared, own), progress)
    with descent(progress, (first, None if watch is None else watch.begin(weights))) as here:
        if here.done:
            progress(here.done / steps, f"resumed at step {here.done} of {steps}")
        while here.done < steps and not (watch and watch.over(here.state[1])):
            state, losses = chunk(here.state[0], jax.random.fold_in(key, here.done // CHUNK), shared, own)
            mean, step = float(losses.mean()), here.done + CHUNK
            if not np.isfinite(mean):
                raise ValueError("the training diverged: the data hold values that no scaling can mend")
            best = watch and watch.look(here.state[1], state[0], step, last=step == steps)
            here.reached(step, (state, best))
            progress(step / steps, f"step {step} of {steps}, loss {mean:.4f}")
    trained: Params = here.state[0][0] if watch is None else here.state[1].weights
    return trained


def _optimiser(budget: Budget, steps: int) -> optax.GradientTransformation:
    rate = optax.cosine_onecycle_schedule(steps, budget.rate, pct_start=0.15)
    adamw = optax.adamw(rate, weight_decay=budget.decay, mask=partial(_trained, budget.only))
    return optax.chain(optax.clip_by_global_norm(1.0), adamw)


def _trained(only: tuple[str, ...], weights: Params) -> dict[str, bool]:
    return {name: not only or name in only for name in weights}


def _partly(loss: Loss, only: tuple[str, ...], weights: Params, key: jax.Array, shared: Any, own: Any) -> jax.Array:
    """No gradient reaches the other weights, nor is one computed: a frozen cell costs no way back through time."""
    frozen = {name: branch if name in only else jax.lax.stop_gradient(branch) for name, branch in weights.items()}
    return loss(frozen, key, shared, own)


def compiled(program: Any, arguments: Sequence[Any], progress: Progress) -> Any:
    """Trace and compile beside this thread, which goes on telling progress: seconds in which others use the device."""
    with ThreadPoolExecutor(1) as beside:
        compiling = beside.submit(lambda: program.lower(*arguments).compile())
        while not compiling.done():
            progress(0.0, "compiling")
            wait((compiling,), timeout=_TELL)
    return compiling.result()


def _chunk(
    loss: Loss, optimiser: optax.GradientTransformation, state: Any, key: jax.Array, shared: Any, own: Any
) -> tuple[Any, jax.Array]:
    def member(state: Any, key: jax.Array, own: Any) -> tuple[Any, jax.Array]:
        weights, moments = state
        value, gradient = jax.value_and_grad(loss)(weights, key, shared, own)
        updates, moments = optimiser.update(gradient, moments, weights)
        return (optax.apply_updates(weights, updates), moments), value

    def step(state: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        members = jax.tree.leaves(state[0])[0].shape[0]
        return jax.vmap(member)(state, jax.random.split(key, members), own)

    return jax.lax.scan(step, state, jax.random.split(key, CHUNK))


def pinball(error: jax.Array, level: float) -> jax.Array:
    """Of truth minus estimate; least, on average, where the estimate is this quantile (Koenker & Bassett 1978)."""
    return jnp.maximum(level * error, (level - 1.0) * error)


def folds(group: NDArray[np.int32], count: int, seed: int) -> NDArray[np.int32]:
    """Fold number [n], 0..count-1, so that no group is cut; ValueError with fewer groups than folds."""
    names, position = np.unique(group, return_inverse=True)
    if len(names) < count:
        raise ValueError(f"there are {len(names)} units or runs; it takes {count} or more to hold some out")
    order = np.random.default_rng(seed).permutation(len(names)) % count
    return order[position].astype(np.int32)


def alike(ends: Sequence[NDArray[np.intp]]) -> NDArray[np.intp]:
    """Rows [k, d] of each member as one array [members, k, d]: who has fewer has some more than once, who has none has
    the first of the others."""
    some = next((each for each in ends if len(each)), np.zeros((1, 2), np.intp))
    ends = [each if len(each) else some[:1] for each in ends]
    return np.stack([np.resize(each, (max(map(len, ends)), each.shape[1])) for each in ends])


def conformal(scores: NDArray[np.floating[Any]], level: float, independent: int | None = None) -> float:
    """The quantile of ``scores`` that a new one stays below with probability ``level`` (Vovk et al. 2005).

    ``independent``: how many of the scores count as independent (units, not cells), for the finite-sample correction.
    """
    count = independent or len(scores)
    return float(np.quantile(scores, min(1.0, np.ceil((count + 1) * level) / count), method="inverted_cdf"))
