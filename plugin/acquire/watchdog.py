"""Tags that live no longer although their server does: silent, late or flat. All tags at once, in columns by handle.

A tag that seldom changes is not silent for it. Where no time is configured, a tag is measured against itself: only one
that has reported for an hour, and then not for ten times its own longest interval of late, is called silent. A false
alarm happens at most once: the pause that caused it is then the longest interval.
"""

import asyncio
import logging
import re
from collections.abc import Collection, Iterator
from datetime import timedelta
from fnmatch import translate

import numpy as np
from numpy.typing import NDArray

from plugin.acquire.config import WatchdogConfig
from plugin.acquire.intake import Intake
from plugin.acquire.wire import now_micros
from plugin.diagnostics import Diagnostics, some
from plugin.domain import Micros, micros

_log = logging.getLogger(__name__)

Mask = NDArray[np.bool_]
"""By handle."""

_SECOND = 1_000_000
_LOOK = 1.0  # [s]
_HELD_UP = 5 * _SECOND  # between two looks: we slept, or the clock was set; the tags are not to blame
_LEARN = 3600 * _SECOND  # a tag is known well enough
_SEEN = 100  # looks that found something new
_TIMES = 10  # its own longest interval
_LEAST_SILENCE = 30 * _SECOND
_FORGET = 86_400 * _SECOND  # half-life of the longest interval
_LATE_FOR = 10 * _SECOND  # what is sent again after a cut is late too, and soon over
_SAY_EVERY = 60 * _SECOND  # flapping tags fill no log
_NAMED = 3
_KNOWN = 3  # looks that found something new: before them its own interval says nothing
_WORDS = {
    "silent": ("have not reported for longer than expected", "report again"),
    "late": ("have values that are old when they arrive", "are in time again"),
    "flat": ("do not change", "change again"),
}


class Watchdog:
    """Of one source, over many connections; while there is none no tag is blamed."""

    def __init__(self, source: str, config: WatchdogConfig, intake: Intake, diagnostics: Diagnostics) -> None:
        self.names: dict[str, tuple[str, ...]] = dict.fromkeys(_WORDS, ())
        """The tags in each state."""
        self._source = source
        self._intake = intake
        self._silent, self._late, self._flat = (_micros(limit) for limit in (config.silent, config.late, config.flat))
        self._auto = config.silent == "auto"
        intake.tracks_changes = self._flat is not None
        self._skip = re.compile("|".join(map(translate, config.skip)) or r"(?!)")
        gauges = diagnostics.tags_silent, diagnostics.tags_late, diagnostics.tags_flat
        self._gauges = {name: gauge.labels(source) for name, gauge in zip(_WORDS, gauges, strict=True)}
        self._watched: Mask = np.zeros(0, np.bool_)
        self._first = np.zeros(0, np.int64)
        self._before = np.zeros(0, np.int64)
        self._reached = np.zeros(0, np.int64)
        self._longest = np.zeros(0, np.float64)
        self._seen = np.zeros(0, np.int32)
        self._late_since = np.zeros(0, np.int64)
        self._looked: Micros = 0
        self._found: dict[str, Mask] = {}
        self._said: dict[str, tuple[Micros, Mask]] = {}

    async def run(self, refused: Collection[int]) -> None:
        """For as long as the connection lasts. ``refused``: handles that the server refuses, looked at each time."""
        self.begin(now_micros())
        try:
            while True:
                await asyncio.sleep(_LOOK)
                self.look(now_micros(), refused)
        finally:
            self._blame_nobody()

    def begin(self, now: Micros) -> None:
        """From now on values are expected; what happened before is no interval of theirs."""
        self._grow(now)
        self._blame_nobody()
        self._intake.arrival[:] = now
        self._before[:] = now
        self._late_since[:] = 0
        self._reached[:] = self._intake.reached
        self._looked = now

    def look(self, now: Micros, refused: Collection[int] = ()) -> None:
        """Judge all tags; what changed is logged, in one line a state."""
        since, self._looked = now - self._looked, now
        if not 0 <= since <= _HELD_UP:
            self.begin(now)
            return
        self._grow(now)
        self._learn(since)
        blame = self._watched & self._intake.living
        blame[list(refused)] = False
        for state, mask in self._judge(now):
            self._note(state, mask & blame, now)

    def _grow(self, now: Micros) -> None:
        """New tags begin now."""
        known, all_ = len(self._first), len(self._intake.tags)
        if known == all_:
            return
        more = all_ - known
        watched = [not self._skip.match(tag.name) for tag in self._intake.tags[known:]]
        self._watched = np.append(self._watched, np.array(watched, np.bool_))
        self._intake.arrival[known:] = now
        self._first, self._before = (np.append(old, np.full(more, now)) for old in (self._first, self._before))
        self._reached = np.append(self._reached, self._intake.reached[known:])
        self._longest = np.append(self._longest, np.zeros(more))
        self._seen = np.append(self._seen, np.zeros(more, np.int32))
        self._late_since = np.append(self._late_since, np.zeros(more, np.int64))

    def _learn(self, since: Micros) -> None:
        """Intervals and ages of what arrived since the last look."""
        arrival, reached = self._intake.arrival, self._intake.reached
        interval = arrival - self._before
        heard = interval > 0
        self._longest *= 2.0 ** (-since / _FORGET)
        np.maximum(self._longest, interval, out=self._longest)
        self._seen += heard
        if self._late is not None:
            advanced = heard & (reached > self._reached)
            age = arrival - reached
            late = (age > self._late) & (age > _TIMES * self._longest) & (self._seen > _KNOWN)
            self._late_since[advanced & ~late] = 0
            begun = advanced & late & (self._late_since == 0)
            self._late_since[begun] = arrival[begun]
        np.copyto(self._before, arrival)
        np.copyto(self._reached, reached)

    def _judge(self, now: Micros) -> Iterator[tuple[str, Mask]]:
        quiet = now - self._intake.arrival
        if self._silent is not None:
            yield "silent", quiet > self._silent
        elif self._auto:
            known_well = (self._seen >= _SEEN) & (now - self._first >= _LEARN)
            yield "silent", known_well & (quiet > np.maximum(_TIMES * self._longest, _LEAST_SILENCE))
        if self._late is not None:
            yield "late", (self._late_since > 0) & (now - self._late_since >= _LATE_FOR)
        if self._flat is not None:
            changed = self._intake.changed
            yield "flat", (changed > 0) & (now - changed > self._flat)

    def _note(self, state: str, mask: Mask, now: Micros) -> None:
        before = self._found.get(state)
        if before is None or not np.array_equal(before, mask):
            self._found[state] = mask
            self.names[state] = self._names(mask)
            self._gauges[state].set(len(self.names[state]))
        at, said = self._said.get(state, (0, np.zeros(0, np.bool_)))
        said = np.append(said, np.zeros(len(mask) - len(said), np.bool_))
        if now - at < _SAY_EVERY or np.array_equal(said, mask):
            return
        self._said[state] = now, mask
        for change, level, words in zip(
            (mask & ~said, said & ~mask & self._intake.living), (logging.WARNING, logging.INFO), _WORDS[state],
            strict=True,
        ):  # fmt: skip
            if names := self._names(change):
                _log.log(level, "%s: %d tag(s) %s: %s", self._source, len(names), words, some(names, _NAMED))

    def _names(self, mask: Mask) -> tuple[str, ...]:
        return tuple(self._intake.tags[handle].name for handle in np.flatnonzero(mask))

    def _blame_nobody(self) -> None:
        """Who is silent on a server that is away can't be known; the log says that the server is."""
        self._found.clear()
        self._said.clear()
        for state in _WORDS:
            self.names[state] = ()
            self._gauges[state].set(0)


def _micros(limit: timedelta | str) -> Micros | None:
    return micros(limit) if isinstance(limit, timedelta) else None
