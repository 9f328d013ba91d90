"""The simplest soft sensor, and the simplest classifier: a stranger's kinds, which learn in no time."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from models.kind import Estimate, Fitted, OutputSpec, Params, Progress, Spec, TrainingData
from models.meaning import Meaning


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


class Limited(Level):
    """With a limit to what the laboratory may find: the last of the first feature says whether it is passed."""

    name = "limited"

    def outputs(self, spec: Spec) -> tuple[OutputSpec, ...]:
        says = "How likely it is beyond the limit"
        share = OutputSpec("q_out_of_spec", "%", 0.0, 100.0, says, Meaning.PROBABILITY, beyond=(-math.inf, 10.0))
        return (*super().outputs(spec), share)

    def predict(self, spec: Spec, params: Params, values: jax.Array, observed: jax.Array) -> dict[str, Estimate]:
        share = 100.0 * jax.nn.sigmoid(4.0 * (values[:, 0, -1] - 10.0))
        unknown = jnp.full_like(share, jnp.nan)
        found = super().predict(spec, params, values, observed)
        return {**found, "q_out_of_spec": Estimate(jnp.where(observed[:, 0, -1], share, jnp.nan), unknown, unknown)}


class Odds:
    """A stranger's kind: how likely a failure is grows with the first feature."""

    name = "odds"
    roles = ()

    def check(self, spec: Spec) -> None:
        """Any spec will do."""

    def outputs(self, spec: Spec) -> tuple[OutputSpec, ...]:
        return (OutputSpec("failure_probability", "%", 0.0, 100.0, "How likely it is", Meaning.PROBABILITY),)

    def init(self, spec: Spec, key: jax.Array) -> Params:
        return {"mean": np.zeros((), np.float32)}

    def fit(self, spec: Spec, data: TrainingData, progress: Progress) -> Fitted:
        return Fitted({"mean": np.float32(np.mean(data.values[:, 0][data.observed[:, 0]]))}, {})

    def predict(self, spec: Spec, params: Params, values: jax.Array, observed: jax.Array) -> dict[str, Estimate]:
        value = 100.0 * jax.nn.sigmoid(4.0 * (values[:, 0, -1] - params["mean"]))
        unknown = jnp.full_like(value, jnp.nan)
        return {"failure_probability": Estimate(jnp.where(observed[:, 0, -1], value, jnp.nan), unknown, unknown)}
