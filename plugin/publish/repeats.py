"""Who comes in again and again: a row of the audit log for the first time, and one a minute for all after it.

A client that opens a session each second, and does so for a month, would make 2.6 million rows that say the same, in a
log from which nothing is ever deleted.
"""

import time
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from plugin.domain import Audit

_PAUSE = 60.0
"""Between two rows of the same [s]."""
_REMEMBERED = 4096
"""Of so many at a time; each time of any other is a row."""


@dataclass(slots=True)
class _Series:
    since: float
    """When there was a row last."""
    times: int = 0
    """From then on."""
    first: datetime | None = None
    last: Audit | None = None


class Repeats:
    """``clock`` gives seconds that never go back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._series: dict[Hashable, _Series] = {}

    def waits(self, key: Hashable, entry: Audit) -> bool:
        """It is kept for a row of several; False: it needs one of its own, now."""
        series = self._series.get(key)
        if series is None:
            if len(self._series) < _REMEMBERED:
                self._series[key] = _Series(self._clock())
            return False
        series.times += 1
        series.first, series.last = series.first or entry.time, entry
        return True

    def due(self, *, at_once: bool = False) -> Iterator[Audit]:
        """Rows of several whose minute is over, or all of them: as the last time was, with how many since when."""
        now = self._clock()
        for key, series in list(self._series.items()):
            if not at_once and now - series.since < _PAUSE:
                continue
            if series.last is None or series.first is None:
                del self._series[key]
                continue
            self._series[key] = _Series(now)
            told = {"times": series.times, "since": series.first.isoformat()}
            yield replace(series.last, after={**series.last.after, **told})
