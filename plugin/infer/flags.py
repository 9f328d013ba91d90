"""From scores to flags: the decision, kept apart from the score.

A flag is raised after ``persistence`` runs in a row over the threshold, withdrawn after as many at or under it. A run
without a number (Bad) neither counts nor starts the count anew. The state follows from the stored flags alone.
"""

from collections import deque
from collections.abc import Iterable

from plugin.domain import Flag


class Decision:
    """The flag of one asset."""

    def __init__(self, threshold: float, persistence: int, past: Iterable[Flag] = ()) -> None:
        self.threshold = threshold
        self.raised = False
        self._recent: deque[bool] = deque(maxlen=persistence)
        for flag in past:
            self.raised = flag.raised
            self._recent.append(flag.score > threshold)

    def decide(self, score: float | None) -> bool:
        """Take one score, in order of time; returns whether the flag is raised now."""
        if score is not None:
            self._recent.append(score > self.threshold)
        if len(self._recent) == self._recent.maxlen and len(set(self._recent)) == 1:
            self.raised = self._recent[-1]
        return self.raised
