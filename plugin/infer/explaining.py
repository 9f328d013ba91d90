"""Why: which features made the flags that are raised, and the lives that are short, what they are.

As many programs as a kind has outputs to explain, each compiled once for the same number of windows, so that a run
that is computed again gives the same shares. It is a small number: reasons cost many times what the estimate does, and
few assets need them.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import nlargest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.explain import Explainer
from models.kind import Contributing, ModelKind, Params, Spec
from models.meaning import Meaning
from models.runtime import bucket
from plugin.domain import Explanation, Flag, ModelVersion, OutputTag, Prediction
from plugin.infer.config import ModelConfig

MEANS = "means"
"""In a version's provenance: the mean of each feature in its training data, None where it was never observed."""
_SCORE = "score"
_SMALLEST = 0.01
"""A share below it is left out."""
_LONGEST = 10
"""Features that are named, at most."""
_AT_ONCE = 4
"""Windows of one call; between two there is a look at the clock."""


@dataclass(frozen=True, slots=True)
class _Case:
    """What is to be explained."""

    tag: OutputTag
    output: str
    """That the model gives: of a flag its score."""
    badness: float


class Reasons:
    """Of one model over its assets."""

    def __init__(
        self, config: ModelConfig, kind: ModelKind, spec: Spec, tags: Mapping[str, Sequence[OutputTag]]
    ) -> None:
        """``tags``: by output, in the order of the assets."""
        self._config = config
        self._kind = kind
        self._rows = {tag.asset: row for of_assets in tags.values() for row, tag in enumerate(of_assets)}
        self._flags = {tag.asset: tag for of_assets in tags.values() for tag in of_assets if tag.flag}
        meanings = {output.name: output.meaning for output in kind.outputs(spec)}
        self._worse = {name: -1.0 for name, meaning in meanings.items() if meaning is Meaning.LIFETIME}
        if self._flags:
            self._worse[_SCORE] = 1.0
        self._most = min(config.explain.most, len(self._rows))

    def explainers(self, version: ModelVersion, spec: Spec, params: Params, device: Any) -> dict[str, Explainer]:
        """By output, for :meth:`warm` to compile; none where the version does not say what its features were like."""
        if not self._most:
            return {}
        known: Mapping[str, float | None] | None = version.provenance.get(MEANS)
        if known is None and not isinstance(self._kind, Contributing):
            return {}
        means = [np.nan if (mean := (known or {}).get(name)) is None else mean for name in spec.features]
        groups = self._config.explain.groups
        return {
            output: Explainer(self._kind, spec, params, output, groups=groups, means=means, device=device)
            for output in self._worse
        }

    def warm(self, explainers: Mapping[str, Explainer]) -> None:
        """Compile them; takes as long as to make the version ready to predict, or longer."""
        for explainer in explainers.values():
            explainer.warm(min(_AT_ONCE, bucket(self._most)))

    def asked(self, explainers: Mapping[str, Explainer], given: Sequence[Prediction], flags: Sequence[Flag]) -> bool:
        """Whether a run has anything to explain."""
        return any(True for output in explainers for _ in self._cases(output, given, flags))

    def of(
        self,
        explainers: Mapping[str, Explainer],
        values: NDArray[np.float32],
        observed: NDArray[np.bool_],
        given: Sequence[Prediction],
        flags: Sequence[Flag],
        until: float = math.inf,
    ) -> tuple[tuple[Explanation, ...], bool]:
        """Of one run: the worst assets of each output, the worst first; and whether there was time for all of them.

        None is begun after ``until`` [s of :func:`time.monotonic`]. Takes its thread for a while.
        """
        told: list[Explanation] = []
        for output, explainer in explainers.items():
            worst = nlargest(self._most, self._cases(output, given, flags), key=lambda case: case.badness)
            for first in range(0, len(worst), _AT_ONCE):
                if time.monotonic() > until:
                    return tuple(told), False
                told += self._told(explainer, worst[first : first + _AT_ONCE], values, observed, given[0])
        return tuple(told), True

    def _cases(self, output: str, given: Sequence[Prediction], flags: Sequence[Flag]) -> Iterator[_Case]:
        if output == _SCORE:
            for flag in flags:
                if flag.raised:
                    yield _Case(self._flags[flag.asset], output, flag.score / flag.threshold if flag.threshold else 0.0)
            return
        for told in given:
            if told.tag.output == output and told.value is not None and told.value <= self._limit(told.tag):
                yield _Case(told.tag, output, -told.value)

    def _limit(self, tag: OutputTag) -> float:
        below = self._config.explain.below
        return tag.warnings[0] if below is None else below

    def _told(
        self,
        explainer: Explainer,
        cases: Sequence[_Case],
        values: NDArray[np.float32],
        observed: NDArray[np.bool_],
        one: Prediction,
    ) -> Iterator[Explanation]:
        """``cases``: some, of one output. ``one``: any of the run."""
        rows = [self._rows[case.tag.asset] for case in cases]
        shares = explainer.shares(values[rows], observed[rows], self._worse[cases[0].output])
        for case, found in zip(cases, shares, strict=True):
            named = {name: share for name, share in [*found.items()][:_LONGEST] if share >= _SMALLEST}
            if named:
                yield Explanation(case.tag, one.as_of, one.run, named)
