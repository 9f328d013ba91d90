"""Kinds that give a score: one detector of :mod:`models.residuals`, or the best of several.

With several, each is shown small faults in healthy cells that it has not learnt from (:mod:`models.faults`), and the
one that sees most of them at the same rate of false alarms is used. No label is needed for that.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from models import cells, faults, residuals
from models.calibration import Healthy
from models.keeping import part
from models.kind import Estimate, Fitted, OutputSpec, Params, Progress, Spec, TrainingData
from models.meaning import Meaning
from models.options import check_axes, read
from models.residuals import Detector, Options


class Scored:
    """The model kind of one detector; ``several`` says which of several a spec asks for."""

    name = "scored"
    roles = ()

    def __init__(self, options: type[Options], *detectors: Detector) -> None:
        self._options = options
        self._detectors = detectors

    def chosen_from(self, spec: Spec) -> Sequence[Detector]:
        """The detectors that take part."""
        return self._detectors

    def check(self, spec: Spec) -> None:
        """See :class:`models.kind.ModelKind`."""
        options = read(self._options, spec)
        unknown = sorted(set(spec.roles) - {"age"})
        if unknown:
            raise ValueError(f"roles.{unknown[0]}: {spec.kind} knows the role 'age' alone")
        longest = max(detector.reach(options) - options.smooth + 1 for detector in self.chosen_from(spec))
        check_axes(spec, self.roles, inputs=2, length=longest)

    def outputs(self, spec: Spec) -> tuple[OutputSpec, ...]:
        """``flag`` is decided outside, see :class:`models.kind.OutputSpec`."""
        return (
            OutputSpec(
                "score", "1", 0.0, 100.0, "Distance from healthy; 1: as far as 1 % of the healthy cells", Meaning.SCORE
            ),
            OutputSpec("flag", "", 0.0, 1.0, "Anomaly", Meaning.FLAG),
        )

    def init(self, spec: Spec, key: jax.Array) -> Params:
        """See :class:`models.kind.ModelKind`."""
        options, count = read(self._options, spec), len(residuals.process(spec))
        every = {
            detector.name: detector.init(options, count, key) | residuals.unlearnt(detector.forms, count)
            for detector in self.chosen_from(spec)
        }
        return {"scale": cells.unscaled(count), "chosen": np.zeros((), np.int32), **every}

    def fit(self, spec: Spec, data: TrainingData, progress: Progress) -> Fitted:
        """Learns from cells whose target is 0 (healthy); needs three groups or more, so that some can be held out.

        Known anomalous cells (target 1) only judge: metrics ``detected`` and ``false``, shares over the threshold.
        """
        self.check(spec)
        options = read(self._options, spec)
        healthy = Healthy(spec, options, data)
        detectors = self.chosen_from(spec)
        found = []
        for place, detector in enumerate(detectors):
            found.append(healthy.calibrated(detector, part(progress, place, len(detectors))))
        pairs = zip(detectors, found, strict=True) if len(found) > 1 else ()
        seen = [faults.seen(*pair, healthy.held_out, options, spec.seed) for pair in pairs]
        best = int(np.argmax(seen)) if seen else 0
        params = {detector.name: one.params for detector, one in zip(detectors, found, strict=True)}
        metrics = healthy.metrics(detectors[best], found[best], data.target == 1)
        if seen:
            names = [detector.name for detector in detectors]
            metrics |= {f"sees_{name}": share for name, share in zip(names, seen, strict=True)}
            metrics |= {f"uses_{name}": float(place == best) for place, name in enumerate(names)}
        progress(1.0, f"{detectors[best].name}, threshold {metrics['threshold']:.2f}")
        return Fitted({"scale": healthy.scale, "chosen": np.int32(best), **params}, metrics)

    def predict(self, spec: Spec, params: Params, values: jax.Array, observed: jax.Array) -> dict[str, Estimate]:
        """``score`` of the window's last ``smooth`` cells; NaN where a feature is observed in none of them."""

        def score(mean: jax.Array, own: Params) -> jax.Array:
            return jnp.max(residuals.distances(own, mean), -1)

        found, known = self._last(spec, params, values, observed, score)
        score_ = jnp.where(known, found, jnp.nan)
        unknown = jnp.full_like(score_, jnp.nan)
        return {"score": Estimate(score_, unknown, unknown)}

    def contributions(self, spec: Spec, params: Params, values: jax.Array, observed: jax.Array) -> jax.Array:
        """Share of each feature in the score, [n, f], summing to 1 (0 for ``age``); NaN where there is no score."""

        def shares(mean: jax.Array, own: Params) -> jax.Array:
            every = residuals.parts(own, mean)
            larger = jnp.argmax(residuals.distances(own, mean), -1)
            part = jnp.take_along_axis(every, larger[:, None, None], axis=1)[:, 0]
            return part / jnp.maximum(part.sum(-1, keepdims=True), 1e-12)

        found, known = self._last(spec, params, values, observed, shares)
        found = jnp.where(known[:, None], found, jnp.nan)
        return jnp.zeros(values.shape[:2]).at[:, residuals.process(spec)].set(found)

    def _last(
        self,
        spec: Spec,
        params: Params,
        values: jax.Array,
        observed: jax.Array,
        measure: Callable[[jax.Array, Params], jax.Array],
    ) -> tuple[jax.Array, jax.Array]:
        """``measure`` of the last mean residuals [n, d] with the parameters of the detector in use; where known [n]."""
        options = read(self._options, spec)
        window = residuals.units(spec, options, params["scale"], values, observed)

        def branch(detector: Detector) -> Callable[[Params], tuple[jax.Array, jax.Array]]:
            def measured(params: Params) -> tuple[jax.Array, jax.Array]:
                own = params[detector.name]
                cut = (residuals.tail(part, detector.reach(options)) for part in window)
                mean, known = detector.residuals(options, own, *cut, last=True)
                return measure(mean[:, 0], own), known[:, 0]

            return measured

        branches = [branch(detector) for detector in self.chosen_from(spec)]
        if len(branches) == 1:
            return branches[0](params)
        found: tuple[jax.Array, jax.Array] = jax.lax.switch(params["chosen"], branches, params)
        return found
