"""What the log was told of things that fail: it hears of a change and, hourly, of what lasts; not of each time."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

_QUIET = 600.0
"""So long [s] a fault that comes and goes is not told again."""
_REMINDER = 3600.0
"""After so long [s] one that lasts is told again, with since when: logs are rotated, and shifts change."""


@dataclass(slots=True)
class _Told:
    text: str
    at: float
    since: datetime
    again: int = 0
    """How often it came back since."""
    lasts: bool = True


class Complaints:
    """By what fails. Counters and records tell of each time; this is for whoever reads the log."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
        most: int = 10_000,
    ) -> None:
        """``most``: so many different things are told of, and no further ones."""
        self._clock = clock
        self._wall = wall
        self._most = most
        self._told: dict[str, _Told] = {}

    def about(self, what: str, text: str) -> str:
        """What to log; nothing where the same was told within the hour and lasts, or came back soon."""
        now, before = self._clock(), self._told.get(what)
        same = before is not None and before.text == text
        if before is not None and same and before.lasts:
            if now - before.at < _REMINDER:
                return ""
            before.at = now
            return f"{text} (since {before.since:%Y-%m-%d %H:%M} UTC)"
        if before is not None and same and now - before.at < _QUIET:
            before.again += 1
            before.lasts = True
            return ""
        if before is None and len(self._told) >= self._most:
            return ""
        self._told[what] = _Told(text, now, self._wall())
        again = before.again if before is not None and same else 0
        return f"{text} ({again} more times since this was told last)" if again else text

    def over(self, what: str) -> None:
        """It works."""
        if what in self._told:
            self._told[what].lasts = False
