"""From scores to flags: the decision, kept apart from the score.

A flag is raised when the score has been over the threshold for ``on_delay``, and withdrawn when it has been at or under
``threshold · (1 - dead_band)`` for ``off_delay``; where a delay is not given, ``persistence`` runs in a row do instead.
A run stands for the time since the run before it, but never for more than ``every``: while nothing is known (no run,
or one without a number) no time counts, and none is lost. The state follows from the stored flags alone.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from plugin.domain import Flag


@dataclass(frozen=True, slots=True)
class Rule:
    """When the flags of a model are raised and withdrawn."""

    persistence: int
    every: timedelta
    on_delay: timedelta | None = None
    off_delay: timedelta | None = None
    dead_band: float = 0.0

    @property
    def memory(self) -> int:
        """Flags that say all there is to know of one asset's state."""
        longest = max(self.on_delay or timedelta(0), self.off_delay or timedelta(0))
        return max(self.persistence, -(-longest // self.every) + 1) + 1

    def enough(self, raised: bool, runs: int, lasting: timedelta) -> bool:
        """Whether so many runs in a row against the state, and so long a time, change it."""
        delay = self.off_delay if raised else self.on_delay
        return runs >= self.persistence if delay is None else runs > 0 and lasting >= delay


class Decision:
    """The flag of one asset."""

    def __init__(self, threshold: float, rule: Rule, past: Iterable[Flag] = ()) -> None:
        """``past``: its stored flags, in order of time, at least the last :attr:`Rule.memory` of them."""
        self.threshold = threshold
        self.raised = False
        self._rule = rule
        self._last: datetime | None = None
        self._runs, self._lasting = 0, timedelta(0)
        for flag in past:
            if self._last is None:
                self.raised = flag.raised
            self._take(flag.score, flag.threshold, flag.as_of)
            if self.raised != flag.raised:
                self._become(flag.raised)

    def decide(self, score: float | None, as_of: datetime) -> bool:
        """Take one score, in order of time; returns whether the flag is raised now."""
        if score is not None:
            self._take(score, self.threshold, as_of)
        return self.raised

    def _take(self, score: float, threshold: float, as_of: datetime) -> None:
        if self._against(score, threshold):
            if self._runs and self._last is not None:
                self._lasting += max(timedelta(0), min(as_of - self._last, self._rule.every))
            self._runs += 1
        else:
            self._runs, self._lasting = 0, timedelta(0)
        self._last = as_of
        if self._rule.enough(self.raised, self._runs, self._lasting):
            self._become(not self.raised)

    def _against(self, score: float, threshold: float) -> bool:
        return score <= threshold * (1.0 - self._rule.dead_band) if self.raised else score > threshold

    def _become(self, raised: bool) -> None:
        self.raised, self._runs, self._lasting = raised, 0, timedelta(0)
