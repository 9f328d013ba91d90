"""Promotion by rule: a challenger that was better in shadow, for long enough, and is no worse calibrated."""

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from plugin.complaints import Complaints
from plugin.domain import ModelVersion
from plugin.errors import ModelError
from plugin.infer.comparing import Comparison, compare
from plugin.infer.config import ModelConfig, PromotionConfig
from plugin.infer.outputs import model_spec
from plugin.infer.registry import Registry
from plugin.infer.scoring import Scorer
from plugin.protocols import Store

log = logging.getLogger(__name__)

_LONGEST = timedelta(days=60)
"""Of shadow that is judged."""


class Promotion:
    """Looks at the challengers of all models now and then; which scorers there are is looked at each time."""

    def __init__(
        self,
        store: Store,
        registry: Registry,
        scorers: Sequence[Scorer],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._registry = registry
        self._scorers = scorers
        self._clock = clock
        self._complaints = Complaints()

    async def look(self) -> None:
        """Promote what its model's rule allows; the audit log has the figures."""
        for scorer in tuple(self._scorers):
            if scorer.config.enabled and scorer.config.promotion.by == "rule":
                await self._look_at(scorer)

    async def _look_at(self, scorer: Scorer) -> None:
        config = scorer.config
        line_up = await self._registry.line_up(config.name, model_spec(config))
        if line_up.champion is None:
            return
        for challenger in line_up.challengers[: config.shadow]:
            now = self._clock()
            span = max(challenger.created, now - _LONGEST), now
            versions = line_up.champion, challenger
            found = await compare(self._store, config, scorer.assets, scorer.tags, versions, span)
            if passes(config.promotion, found) and await self._promoted(config, challenger, found):
                log.warning(
                    "model %s is promoted by rule: its error is %.0f %% lower than that of %s over %d outcomes",
                    challenger.label, 100 * found.better, line_up.champion.label, found.outcomes,
                )  # fmt: skip
                return

    async def _promoted(self, config: ModelConfig, challenger: ModelVersion, found: Comparison) -> bool:
        """False: it can't be put in force, of which the log is told once; the next one may be."""
        because = {"rule": config.promotion.model_dump(mode="json"), **found.figures()}
        try:
            await self._registry.promote(config.name, challenger.version, model_spec(config), because=because)
        except ModelError as error:
            if told := self._complaints.about(challenger.label, str(error)):
                log.warning("a challenger that was better in shadow is not promoted: %s", told)
            return False
        return True


def passes(rule: PromotionConfig, found: Comparison) -> bool:
    """Whether a challenger may be put in force."""
    enough = found.outcomes >= rule.outcomes
    return enough and found.better >= rule.margin and found.as_well_calibrated(rule.tolerance)
