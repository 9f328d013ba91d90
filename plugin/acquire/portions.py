"""What each tag takes of the values that arrive: its share of the item, its element, its number and its text.

Nothing is done for numbers of tags that take all of a node's value, which are nearly all. The rest is read value by
value, and a value that can't be read costs no other.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plugin.acquire.contents import LONGEST_TEXT, Find, content, number_of, text_of
from plugin.acquire.decoding import Values
from plugin.acquire.elements import Missing, Path, path_of
from plugin.acquire.measuring import Malformed
from plugin.domain import Quality, Tag, qualities

_BAD_DECODING = 0x80070000
_BAD_NO_ELEMENT = 0x80370000  # BadIndexRangeNoData
_INFO_BITS = 0xFFFF

Handles = NDArray[np.intp]


class Portions:
    """The tags of a source by handle."""

    def __init__(self) -> None:
        self._paths: list[Path | None] = []
        self._shared: dict[int, tuple[int, ...]] = {}
        self._elements = np.zeros(0, np.bool_)
        """By handle: it takes an element."""

    def admit(self, tags: Sequence[Tag]) -> None:
        """More tags, with the handles that follow."""
        paths = [path_of(tag) for tag in tags]
        self._paths += paths
        self._elements = np.append(self._elements, np.array([path is not None for path in paths], np.bool_))

    def share(self, handle: int, handles: Iterable[int]) -> None:
        """What arrives under a handle is for all of these from now on."""
        several = tuple(handles)
        if len(several) > 1:
            self._shared[handle] = several
        else:
            self._shared.pop(handle, None)

    def take(self, values: Values, find: Find, handles: Handles | None = None) -> Values:
        """The values by tag, in their order: ``handle`` is the tag's, and there may be more of them.

        ``handles``: the tag of each row, where the message doesn't say. Raises :class:`.contents.Undescribed`.
        """
        rows = None
        if handles is not None:
            values = replace(values, handle=handles.astype(np.uint32))
        elif self._shared:
            values, rows = self._spread(values)
        wanted = self._wanted(values, rows)
        if not len(wanted):
            return values
        return _Reading(values, wanted if rows is None else rows[wanted], find).read(wanted, self._path)

    def _spread(self, values: Values) -> tuple[Values, Handles | None]:
        """One row for each tag of an item; and the row that each came from, where that is another one."""
        shared = np.flatnonzero(np.isin(values.handle, np.fromiter(self._shared, np.uint32)))
        if not len(shared):
            return values, None
        groups = [self._shared[handle] for handle in values.handle[shared].tolist()]
        counts = np.ones(len(values), np.intp)
        counts[shared] = [len(group) for group in groups]
        rows = np.repeat(np.arange(len(values)), counts)
        handle = values.handle[rows]
        handle[np.repeat(counts > 1, counts)] = np.concatenate(groups)
        spread = replace(
            values, handle=handle, source_time=values.source_time[rows], timed=values.timed[rows],
            server_time=values.server_time[rows], value=values.value[rows], status=values.status[rows],
            kind=values.kind[rows],
        )  # fmt: skip
        return spread, rows

    def _wanted(self, values: Values, rows: Handles | None) -> Handles:
        """Rows that have to be read one by one: by their tag, or because the decoder could not."""
        odd = values.odd if rows is None else np.flatnonzero(np.isin(rows, values.odd))
        if not self._elements.any():
            return odd
        known = np.minimum(values.handle, len(self._elements) - 1)
        mine = np.flatnonzero(self._elements[known] & (values.handle < len(self._elements)))
        return np.union1d(mine, odd) if len(mine) else odd

    def _path(self, handle: int) -> Path | None:
        return self._paths[handle] if handle < len(self._paths) else None


class _Reading:
    """The rows of one message that are read one by one."""

    def __init__(self, values: Values, sources: Handles, find: Find) -> None:
        self._values = values
        self._sources: list[int] = sources.tolist()
        """Row of the message that each wanted row comes from."""
        self._find = find
        self._variants = dict(zip(values.odd.tolist(), values.variants.tolist(), strict=True))
        self._undecodable = 0
        self._cut = 0

    def read(self, wanted: Handles, path_of_handle: Callable[[int], Path | None]) -> Values:
        """The values with the wanted rows' numbers, texts and faults."""
        values = self._values
        value, status = values.value.copy(), values.status.copy()
        text = np.full(len(values), None, np.object_)
        bad = (qualities(status[wanted]) == Quality.BAD).tolist()
        handles = values.handle[wanted].tolist()
        latest, said = -1, None
        for place, row, handle, is_bad in zip(wanted.tolist(), self._sources, handles, bad, strict=True):
            if is_bad:
                continue
            if row != latest:
                latest, said = row, self._content(row, value[place])
            part, fault = _picked(said, path_of_handle(handle))
            if fault:
                value[place], status[place] = np.nan, fault | int(status[place]) & _INFO_BITS
            elif part is not said or row in self._variants:
                value[place], text[place] = number_of(part), self._bounded(text_of(part))
        without = int(np.count_nonzero(np.isnan(value) & (qualities(status) != Quality.BAD)))
        return replace(
            values, value=value, status=status, text=None if _none(text) else text, without_number=without,
            undecodable=self._undecodable, cut=self._cut, odd=_NOTHING, variants=_NOTHING, body=b"",
        )  # fmt: skip

    def _content(self, row: int, number: float) -> Any:
        """What a value says; the fault itself where it can't be read."""
        variant = self._variants.get(row)
        if variant is None:
            return number
        try:
            return content(self._values.body, variant, self._find)
        except Malformed as fault:
            self._undecodable += 1
            return fault

    def _bounded(self, text: str | None) -> str | None:
        if text is None or len(text) <= LONGEST_TEXT:
            return text
        self._cut += 1
        return text[:LONGEST_TEXT]


_NOTHING = np.zeros(0, np.intp)


def _none(text: NDArray[np.object_]) -> bool:
    return all(one is None for one in text.tolist())


def _picked(said: Any, path: Path | None) -> tuple[Any, int]:
    """A tag's part of a content, or the status that says why there is none."""
    if isinstance(said, Malformed):
        return None, _BAD_DECODING
    if path is None:
        return said, 0
    try:
        return path.pick(said), 0
    except Missing:
        return None, _BAD_NO_ELEMENT
