"""What is left of a remaining life's fall as tags are put back to how they are while all is well.

Those that the explanation names first should undo the most (deletion curve, Samek et al. 2017).
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from models import explain, light
from models.explain import Explainer
from models.kind import ModelKind, Params, Spec, TrainingData

_ORDERS = 5
"""By chance."""
_LEAST = 0.1
"""Of the output's range: who fell by less has no fall to explain."""


def left(
    kind: ModelKind, spec: Spec, params: Params, means: Sequence[float], asked: TrainingData
) -> tuple[float, float]:
    """Area under the curve (1: nothing is undone), mean of the windows: in the explanation's order, and in any other.

    ``means`` [f] of the training data. ValueError where no window fell.
    """
    values, observed = asked.values, asked.observed
    base = explain.healthy(spec, jnp.asarray(means, jnp.float32), jnp.asarray(values), jnp.asarray(observed))
    read = jax.jit(partial(_life, kind, spec, light.unpacked(params)))
    (life,) = (output for output in kind.outputs(spec) if output.name == "rul")
    fell = np.asarray(read(base, observed) - read(values, observed)) >= _LEAST * (life.high - life.low)
    if not fell.any():
        raise ValueError("no window is below its start: there is nothing to explain")
    values, observed, base = values[fell], observed[fell], base[fell]
    groups = np.stack(list(explain.masks(spec, {}).values()))
    curve = jax.jit(partial(explain.deletion, read))

    def area(order: NDArray[np.intp]) -> float:
        return float(np.mean(np.asarray(curve(values, observed, base, groups, order))))

    effects = Explainer(kind, spec, params, "rul", groups={}, means=means).effects(values, observed)
    generator = np.random.default_rng(spec.seed)
    chance = [generator.permuted(np.tile(np.arange(len(groups)), (len(values), 1)), axis=1) for _ in range(_ORDERS)]
    return area(np.argsort(effects, axis=1)), float(np.mean([area(order) for order in chance]))


def _life(kind: ModelKind, spec: Spec, params: Params, values: jax.Array, observed: jax.Array) -> jax.Array:
    return kind.predict(spec, light.widened(params), values, observed)["rul"].value
