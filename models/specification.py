"""What a product has to be: limits of a quality, and what an estimate with its interval says against them."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from models.intervals import share_below
from models.kind import Estimate, OutputSpec
from models.meaning import Meaning

_STATES = ("pass", "doubtful", "fail")


@dataclass(frozen=True, slots=True)
class Specification:
    """Of one output."""

    output: str
    low: float | None
    """[unit of the output]; None: there is no limit on this side."""
    high: float | None

    def check(self) -> None:
        """Raises ValueError."""
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"option spec_low = {self.low}: must be below spec_high, {self.high}")

    def outputs(self) -> tuple[OutputSpec, ...]:
        """The two that limits add; none without a limit."""
        if self.low is None and self.high is None:
            return ()
        name, limits = self.output, " to ".join(f"{limit:g}" for limit in (self.low, self.high) if limit is not None)
        ends = (-math.inf if self.low is None else self.low, math.inf if self.high is None else self.high)
        share = f"Share of {name} to be expected outside of its specification, {limits}"
        verdict = f"{name} against its specification, {limits}: doubtful where the interval reaches over a limit"
        return (
            OutputSpec(f"{name}_out_of_spec", "%", 0.0, 100.0, share, Meaning.PROBABILITY, beyond=ends),
            OutputSpec(f"{name}_verdict", "", 0.0, 2.0, verdict, Meaning.STATE, states=_STATES),
        )

    def judged(self, found: Estimate) -> dict[str, Estimate]:
        """Those outputs of an estimate; NaN where it is."""
        if self.low is None and self.high is None:
            return {}
        low = -jnp.inf if self.low is None else self.low
        high = jnp.inf if self.high is None else self.high
        value, lower, upper = found
        outside = share_below(low, lower, value, upper) + 1.0 - share_below(high, lower, value, upper)
        failed, passed = (value < low) | (value > high), (lower >= low) & (upper <= high)
        state = jnp.where(failed, 2.0, jnp.where(passed, 0.0, 1.0))
        unknown = jnp.full_like(value, jnp.nan)

        def told(number: jax.Array) -> Estimate:
            return Estimate(jnp.where(jnp.isnan(value), jnp.nan, number), unknown, unknown)

        return {f"{self.output}_out_of_spec": told(100.0 * outside), f"{self.output}_verdict": told(state)}
