"""Who guesses passwords has to wait longer and longer."""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass

_FORGOTTEN = 900.0
"""After so long without a failure, all is as if there had been none [s]."""
_LONGEST = 900.0
_FIRST = 30.0
_PAUSE = 60.0
"""Between two records of the same thing [s]."""
_REMEMBERED = 4096
"""Keys at most: the one that failed longest ago is forgotten, and a lockout is no way to fill the memory."""


@dataclass(slots=True)
class _Failures:
    count: int = 0
    last: float = 0.0
    until: float = 0.0


class Lockout:
    """Failures by key, such as a user's name or an address.

    From the ``limit``-th failure on the key is locked: for 30 s, and twice as long after each further one, up to 15
    minutes. ``clock`` gives seconds that never go back.
    """

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._failures: OrderedDict[Hashable, _Failures] = OrderedDict()

    def locked(self, key: Hashable) -> bool:
        """Not to be let in now, whatever it shows."""
        return key in self._failures and self._failures[key].until > self._clock()

    def fail(self, key: Hashable) -> float:
        """One failure more; for how long the key is locked now [s], 0 where it is not."""
        now = self._clock()
        found = self._failures.pop(key, _Failures())
        if now - found.last > _FORGOTTEN:
            found = _Failures()
        self._failures[key] = found
        if len(self._failures) > _REMEMBERED:
            self._failures.popitem(last=False)
        found.count, found.last = found.count + 1, now
        beyond = found.count - self._limit
        pause = 0.0 if beyond < 0 else min(_LONGEST, _FIRST * 2.0 ** min(beyond, 10))
        found.until = now + pause
        return pause

    def forgive(self, key: Hashable) -> None:
        """It showed what it should."""
        self._failures.pop(key, None)


class Throttle:
    """What happens again and again is recorded once a minute, with how often. ``clock``: as above."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: OrderedDict[Hashable, tuple[float, int]] = OrderedDict()

    def due(self, key: Hashable, *, at_once: bool = False) -> int:
        """It happened: how often since its last record, this time included, where it is to be recorded now; else 0."""
        now = self._clock()
        last, times = self._seen.pop(key, (now - _PAUSE, 0))
        due = at_once or now - last >= _PAUSE
        self._seen[key] = (now, 0) if due else (last, times + 1)
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        return times + 1 if due else 0
