"""From client handles to tags: what was decoded becomes samples, and how far each tag has come is known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plugin.acquire.decoding import Values
from plugin.acquire.portions import Portions
from plugin.acquire.reading import Key
from plugin.acquire.structures import Structures
from plugin.diagnostics import Diagnostics
from plugin.domain import Micros, SampleBatch, Tag

_NODE_GONE = (0x80330000, 0x80340000)  # BadNodeIdInvalid, BadNodeIdUnknown


@dataclass(frozen=True, slots=True)
class Overflow:
    """The server's queue for a tag dropped values between two that arrived."""

    handle: int
    start: Micros
    end: Micros


class Intake:
    """The tags of a source by client handle (their place in the list). A handle is never given to another tag."""

    def __init__(
        self,
        source: str,
        tags: Sequence[Tag],
        known: Mapping[int, Micros],
        diagnostics: Diagnostics,
        structures: Structures | None = None,
    ) -> None:
        self.tags: list[Tag] = []
        self.portions = Portions()
        """What each tag takes of its item's values."""
        self.structures = structures
        self._stage = diagnostics.stage
        self.reached: NDArray[np.int64] = np.zeros(0, np.int64)
        """Source time of the last value that arrived, by handle [µs], never later than its arrival; 0: none yet."""
        self.arrival: NDArray[np.int64] = np.zeros(0, np.int64)
        """When the last value arrived, by handle [µs]."""
        self.changed: NDArray[np.int64] = np.zeros(0, np.int64)
        """When the last value arrived that was another one than before, by handle [µs]; 0: none yet."""
        self.tracks_changes = False
        """Whether :attr:`changed` is kept up: it costs a comparison of every value."""
        self._last = np.zeros(0, np.float64)
        self._ids = np.zeros(0, np.int32)
        self._alive = np.zeros(1, np.bool_)
        """By handle; the last one stands for all that were never given."""
        self.admit(tags, known)
        self._live = diagnostics.samples_received.labels(source, "live")
        self._history = diagnostics.samples_received.labels(source, "history")
        self._without = diagnostics.values_without_number.labels(source)
        self._errors = diagnostics.decode_errors.labels(source)
        self._cut = diagnostics.texts_cut.labels(source)

    def admit(self, tags: Sequence[Tag], known: Mapping[int, Micros]) -> range:
        """Handles for more tags; ``known`` as for the source."""
        handles = range(len(self.tags), len(self.tags) + len(tags))
        self.tags += tags
        self.portions.admit(tags)
        self.reached = np.append(self.reached, np.array([known.get(tag.id, 0) for tag in tags], np.int64))
        nothing = np.zeros(len(tags), np.int64)
        self.arrival, self.changed = np.append(self.arrival, nothing), np.append(self.changed, nothing)
        self._last = np.append(self._last, np.full(len(tags), np.nan))
        self._ids = np.append(self._ids, np.array([tag.id for tag in tags], np.int32))
        self._alive = np.concatenate([self._alive[:-1], np.ones(len(tags), np.bool_), [False]])
        return handles

    def retire(self, handle: int) -> None:
        """What still arrives under this handle is of a tag that is configured no longer: it is left out."""
        self._alive[handle] = False

    def alive(self, handle: int) -> bool:
        """The handle's tag is configured."""
        return bool(self._alive[handle])

    @property
    def living(self) -> NDArray[np.bool_]:
        """The handles whose tag is configured."""
        return self._alive[:-1]

    async def read(self, values: Values, handles: NDArray[np.intp] | None = None) -> Values:
        """The values by tag, texts and elements read; the server is asked for structures that are not known yet.

        ``handles``: the tag of each row, where the message doesn't say. Nothing is counted yet.
        """
        structures = self.structures

        def take() -> Values:
            with self._stage("decode"):
                return self.portions.take(values, structures.find if structures else _nothing, handles)

        if structures is None:
            return take()
        found = await structures.knowing(take)
        # a plant's engineer may have changed a type while we are connected: then it is asked for again
        return await structures.knowing(take) if found.undecodable and structures.outdated() else found

    def live(self, values: Values, received: Micros) -> tuple[SampleBatch, list[Overflow]]:
        """Samples of a notification, and where the server's queue overflowed."""
        self._count(values)
        known = self._known(values)
        handle = values.handle[known].astype(np.intp)
        if len(handle) < len(values):
            self._errors.inc(int(np.count_nonzero(values.handle >= len(self.tags))))
        self._live.inc(len(handle))
        source = values.source_time[known]
        flagged = np.flatnonzero(values.overflowed()[known])
        overflows = [self._overflow(handle, source, int(row)) for row in flagged]
        return self._batch(values, known, self._ids[handle], received), overflows

    def arrived(self, values: Values, received: Micros) -> None:
        """These were handed over: what is older is no longer missing."""
        # a value that came without a source time was given a later one: it must not hide others that are late
        known = self._known(values)
        rows = known & values.timed
        # and a source whose clock runs ahead must not move the begin of a later gap into the future
        source = np.minimum(values.source_time[rows], received)
        self.reached[values.handle[rows]] = source  # of several the last one stays
        handle = values.handle[known]
        self.arrival[handle] = received
        if self.tracks_changes:
            value = values.value[known]
            # what is no number differs even from itself: it is never taken for one that does not change
            self.changed[handle[value != self._last[handle]]] = received
            self._last[handle] = value

    def history(self, handles: NDArray[np.intp], values: Values, received: Micros) -> SampleBatch:
        """Samples of the past; ``handles`` gives the tag of each row of what :meth:`read` gave."""
        self._count(values)
        self._history.inc(len(values))
        first = self.reached[handles] == 0
        np.maximum.at(self.reached, handles[first], np.minimum(values.source_time[first], received))
        return self._batch(values, slice(None), self._ids[handles], received)

    def gone(self, values: Values, received: Micros) -> dict[int, Micros]:
        """Handles whose node the server has removed, and when: by its clock or ours, whichever is behind [µs]."""
        rows = np.isin(values.status, _NODE_GONE) & self._known(values)
        if not rows.any():
            return {}
        times = np.minimum(values.source_time[rows], received)
        return dict(zip(values.handle[rows].tolist(), times.tolist(), strict=True))

    def _known(self, values: Values) -> NDArray[np.bool_]:
        known: NDArray[np.bool_] = self._alive[np.minimum(values.handle, len(self.tags))]
        return known

    def _count(self, values: Values) -> None:
        self._without.inc(values.without_number)
        self._errors.inc(values.lost + values.undecodable)
        self._cut.inc(values.cut)

    def _overflow(self, handle: NDArray[np.intp], source: NDArray[np.int64], row: int) -> Overflow:
        before = np.flatnonzero(handle[:row] == handle[row])
        end = int(source[row])
        start = int(source[before[-1]]) if len(before) else int(self.reached[handle[row]])
        return Overflow(int(handle[row]), min(start or end, end), end)

    @staticmethod
    def _batch(values: Values, rows: Any, tag: NDArray[np.int32], received: Micros) -> SampleBatch:
        return SampleBatch(
            tag,
            values.source_time[rows],
            values.value[rows],
            values.status[rows],
            values.server_time[rows],
            np.full(len(tag), received, np.int64),
            None if values.text is None else values.text[rows],
        )


def _nothing(_: Key) -> None:
    """No structure is described."""
