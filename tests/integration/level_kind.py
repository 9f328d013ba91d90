"""The simplest soft sensor: a stranger's kind, which learns in no time."""

import jax
import jax.numpy as jnp
import numpy as np

from models.kind import Estimate, Fitted, OutputSpec, Params, Progress, Spec, TrainingData


class Level:
    """A stranger's kind: the laboratory's mean in training, whatever the inputs are."""

    name = "level"
    roles = ("lab",)

    def check(self, spec: Spec) -> None:
        """Any spec will do."""

    def outputs(self, spec: Spec) -> tuple[OutputSpec, ...]:
        return (OutputSpec("q", "", float("nan"), float("nan"), "The laboratory's mean"),)

    def init(self, spec: Spec, key: jax.Array) -> Params:
        return {"mean": np.zeros((), np.float32)}

    def fit(self, spec: Spec, data: TrainingData, progress: Progress) -> Fitted:
        return Fitted({"mean": np.float32(np.nanmean(data.target))}, {})

    def predict(self, spec: Spec, params: Params, values: jax.Array, observed: jax.Array) -> dict[str, Estimate]:
        value = jnp.where(observed.any((1, 2)), params["mean"], jnp.nan)
        return {"q": Estimate(value, value - 1.645, value + 1.645)}

    def uncorrected(self, spec: Spec, params: Params, values: jax.Array, observed: jax.Array) -> jax.Array:
        return jnp.broadcast_to(params["mean"], values[:, 0].shape)
