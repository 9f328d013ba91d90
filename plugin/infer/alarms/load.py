"""How many alarms operators have to deal with (EEMUA 191; AlarmMetricsType of OPC 10000-9, 9.2)."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from plugin.domain import Alarm

WINDOW = timedelta(minutes=10)
"""What rates are about."""
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Load:
    """Rates are alarms in 10 minutes; all is since :attr:`since`."""

    current: int
    average: float
    """Over the last day, or since the start where that is later."""
    maximum: int
    """Of any 10 minutes."""
    since: datetime
    """The start, or the last reset."""
    count: int
    """Alarms that called for an operator."""
    longest_active: timedelta
    """One that still is counts too, and so below."""
    longest_unacknowledged: timedelta
    most_repeats: int
    """How often one alarm was raised again."""


class _Longest:
    """Of stretches of time by key: the longest one."""

    def __init__(self) -> None:
        self._open: dict[str, datetime] = {}
        self._ended = timedelta(0)

    def follow(self, key: str, lasts: bool, since: datetime, now: datetime) -> None:
        """How it is now; ``since``: when it began, if it does."""
        if lasts:
            self._open.setdefault(key, since)
        elif key in self._open:
            self._ended = max(self._ended, now - self._open.pop(key))

    def hand_on(self, key: str, heir: str) -> None:
        """What lasts goes on under another key."""
        if key in self._open:
            self._open[heir] = self._open.pop(key)

    def reset(self, now: datetime) -> None:
        """What lasts begins anew."""
        self._open, self._ended = dict.fromkeys(self._open, now), timedelta(0)

    def longest(self, now: datetime) -> timedelta:
        """Ended or not."""
        return max(self._ended, now - min(self._open.values(), default=now))


class Meter:
    """Counts what calls for an operator, and how long it did."""

    def __init__(self, now: datetime) -> None:
        self._since = now
        self._raised: deque[datetime] = deque()
        self._maximum = self._count = self._repeats = 0
        self._active, self._waiting = _Longest(), _Longest()
        self._branches: dict[str, frozenset[str]] = {}
        """By alarm, keys of its branches."""

    def count(self, now: datetime) -> None:
        """One more."""
        self._raised.append(now)
        self._count += 1
        self._maximum = max(self._maximum, self._recent(now))

    def follow(self, alarm: Alarm, now: datetime, branches: Sequence[Alarm] = ()) -> None:
        """The current state of a condition, whenever it has changed, and its branches, which wait as well."""
        self._active.follow(alarm.id, alarm.active, alarm.active_time or now, now)
        waiting = {f"{alarm.id} {branch.branch}": branch for branch in branches}
        known = self._branches.get(alarm.id, frozenset())
        for key in waiting.keys() - known:  # it is what the current state was
            self._waiting.hand_on(alarm.id, key)
        for key in known - waiting.keys():
            self._waiting.follow(key, False, now, now)
        for key, each in {alarm.id: alarm, **waiting}.items():
            self._waiting.follow(key, not each.acknowledged, each.active_time or now, now)
        self._branches[alarm.id] = frozenset(waiting)
        self._repeats = max(self._repeats, alarm.repeats)

    def reset(self, now: datetime) -> None:
        """Begin anew; the rate of the last 10 minutes stands."""
        self._since, self._maximum, self._count, self._repeats = now, self._recent(now), 0, 0
        self._active.reset(now)
        self._waiting.reset(now)

    def load(self, now: datetime) -> Load:
        """As it is now."""
        while self._raised and self._raised[0] <= now - _DAY:
            self._raised.popleft()
        windows = max(min(now - self._since, _DAY) / WINDOW, 1.0)
        counted = sum(time >= self._since for time in self._raised)
        return Load(
            self._recent(now), counted / windows, self._maximum, self._since, self._count,
            self._active.longest(now), self._waiting.longest(now), self._repeats,
        )  # fmt: skip

    def _recent(self, now: datetime) -> int:
        count = 0
        for time in reversed(self._raised):
            if time <= now - WINDOW:
                break
            count += 1
        return count
