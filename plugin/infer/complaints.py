"""What the log was told of things that fail: it hears of a change, not of each time."""

import time
from collections.abc import Callable
from dataclasses import dataclass

_QUIET = 600.0
"""So long [s] a fault that comes and goes is not told again."""


@dataclass(slots=True)
class _Told:
    text: str
    at: float
    again: int = 0
    """How often it came back since."""
    lasts: bool = True


class Complaints:
    """By what fails. Counters and records tell of each time; this is for whoever reads the log."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told: dict[str, _Told] = {}

    def about(self, what: str, text: str) -> str:
        """What to log; nothing where the same was told and lasts, or came back soon."""
        now, before = self._clock(), self._told.get(what)
        same = before is not None and before.text == text
        if before is not None and same and before.lasts:
            return ""
        if before is not None and same and now - before.at < _QUIET:
            before.again += 1
            before.lasts = True
            return ""
        self._told[what] = _Told(text, now)
        again = before.again if before is not None and same else 0
        return f"{text} ({again} more times since this was told last)" if again else text

    def over(self, what: str) -> None:
        """It works."""
        if what in self._told:
            self._told[what].lasts = False
