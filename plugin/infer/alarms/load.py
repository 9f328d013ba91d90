"""How many alarms operators have to deal with (EEMUA 191; AlarmMetricsType of OPC 10000-9, 5.10)."""

from collections import deque
from dataclasses import dataclass
from datetime import datetime, timedelta

_WINDOW = timedelta(minutes=10)
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Load:
    """Rates are alarms in 10 minutes."""

    current: int
    average: float
    """Over the last day, or since the start where that is later."""
    maximum: int
    """Of any 10 minutes since the start."""


class Meter:
    """Counts what calls for an operator."""

    def __init__(self, now: datetime) -> None:
        self._since = now
        self._raised: deque[datetime] = deque()
        self._maximum = 0

    def count(self, now: datetime) -> None:
        """One more."""
        self._raised.append(now)
        self._maximum = max(self._maximum, self._recent(now))

    def load(self, now: datetime) -> Load:
        """As it is now."""
        while self._raised and self._raised[0] <= now - _DAY:
            self._raised.popleft()
        windows = max(min(now - self._since, _DAY) / _WINDOW, 1.0)
        return Load(self._recent(now), len(self._raised) / windows, self._maximum)

    def _recent(self, now: datetime) -> int:
        count = 0
        for time in reversed(self._raised):
            if time <= now - _WINDOW:
                break
            count += 1
        return count
