"""The plant's own tags beside what is predicted of them: value, status and source time as the plant gave them.

Values are shown when they are in the database, so that who sees one can ask for its history too. Of several values of
one tag in a transaction the newest is shown; older ones, such as history that is read afterwards, are not. A stamp from
the future counts as the time at which it came: what comes after it is shown. Both a commit and the writing of the nodes
are arithmetic over rows; the nodes are written in batches that give the loop its turn.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from fnmatch import fnmatchcase

import numpy as np
from asyncua import ua
from numpy.typing import NDArray

from plugin.domain import SampleBatch, Status, Tag
from plugin.publish import types
from plugin.publish.address_space import asset_of
from plugin.publish.cells import BAD, Face
from plugin.publish.columns import Column
from plugin.publish.tree import Tree
from plugin.publish.types import Name, Ref
from plugin.publish.units import engineering_units

_BATCH = 1000  # values written before the loop gets its turn: 0.1 ms, 5 ms where each is a text or has a deadband
_NEVER = np.iinfo(np.int64).min


class Mirror:
    """The tags whose name fits one of the patterns."""

    def __init__(self, patterns: Sequence[str], tags: Sequence[Tag]) -> None:
        """``tags``: with their keys."""
        self.tags = tuple(tag for tag in tags if any(fnmatchcase(tag.name, pattern) for pattern in patterns))
        count = len(self.tags)
        self._place = np.full(1 + max((tag.id for tag in self.tags), default=-1), -1, np.int64)
        self._place[[tag.id for tag in self.tags]] = np.arange(count)
        self._time = np.full(count, _NEVER, np.int64)
        self._after = np.full(count, _NEVER, np.int64)
        self._value = np.full(count, np.nan)
        self._status = np.full(count, Status.BAD_WAITING_FOR_INITIAL_DATA, np.uint32)
        self._text: dict[int, str] = {}
        self._changed = np.zeros(count, np.bool_)
        self._away = np.zeros(count, np.bool_)
        self._takes_any = np.array([_takes_any(tag) for tag in self.tags], np.bool_)
        self._column: Column | None = None
        self._news = asyncio.Event()

    def committed(self, samples: SampleBatch) -> None:
        """Samples that are in the database now; quick, and raises nothing."""
        if not self.tags:
            return
        known = samples.take(samples.tag < len(self._place))
        known = known.take(self._place[known.tag] >= 0)
        known = known.take(np.argsort(known.source_time, kind="stable"))
        known = known.take(known.source_time >= self._after[self._place[known.tag]])
        place = self._place[known.tag]
        self._after[place] = np.minimum(known.source_time, known.received_time)
        self._time[place] = known.source_time  # of several values of one place the last stands
        self._value[place] = known.value
        self._status[place] = known.status
        self._keep_texts(place, known.text)
        self._changed[place] = True
        self._news.set()

    def _keep_texts(self, place: NDArray[np.int64], texts: NDArray[np.object_] | None) -> None:
        said = [None] * len(place) if texts is None else texts.tolist()
        if self._text or texts is not None:
            for at, text in zip(place.tolist(), said, strict=True):
                if text is None:
                    self._text.pop(at, None)
                else:
                    self._text[at] = text

    def cut_off(self, away: Collection[str]) -> None:
        """The tags of these sources, and no others, can't be seen at present."""
        before, self._away = self._away, np.array([tag.source in away for tag in self.tags], np.bool_)
        self._changed |= before != self._away
        self._news.set()

    def build(self, tree: Tree) -> None:
        """Add the nodes. ``ua.UaError`` where a name is there already."""
        self._column = Column(len(self.tags), tree.begun)
        for tag, face in zip(self.tags, self._column.faces, strict=True):
            _show(tree, tag, face)
        self._changed[:] = self._time > _NEVER
        self._news.set()

    async def run(self, now: Callable[[], datetime], measure: Callable[[], AbstractContextManager[None]]) -> None:
        """For ever: write what has changed."""
        while True:
            await self._news.wait()
            self._news.clear()
            changed = np.flatnonzero(self._changed & (self._time > _NEVER))
            self._changed[:] = False
            for start in range(0, len(changed), _BATCH):
                with measure():
                    self._write(changed[start : start + _BATCH], now())
                await asyncio.sleep(0)

    def _write(self, places: NDArray[np.int64], now: datetime) -> None:
        if self._column is None:
            return
        value, status, source = self._value[places], self._status[places], self._time[places]
        status[self._away[places] & (status < BAD)] = Status.UNCERTAIN_NO_COMMUNICATION_LAST_USABLE_VALUE
        if self._text:
            told = np.fromiter(map(self._text.__contains__, places.tolist()), np.bool_, len(places))
            value[told], status[told & ~self._takes_any[places]] = np.nan, Status.BAD_NO_DATA
            told &= self._takes_any[places]
            for row, its, time in zip(places[told].tolist(), status[told].tolist(), source[told].tolist(), strict=True):
                self._column.write_text(row, self._text[row], its, time, now)
            places, value, status, source = places[~told], value[~told], status[~told], source[~told]
        self._column.write(places, value, status, source, now)


def _takes_any(tag: Tag) -> bool:
    """It has neither unit nor range, and may be a text."""
    return not tag.unit and tag.low is None and tag.high is None


def _show(tree: Tree, tag: Tag, face: Face) -> None:
    ranged = tag.low is not None and tag.high is not None
    kind = ua.ObjectIds.AnalogUnitRangeType if ranged else ua.ObjectIds.AnalogUnitType
    data_type = types.DOUBLE
    if _takes_any(tag):
        kind, data_type = ua.ObjectIds.BaseDataVariableType, Ref(ua.ObjectIds.BaseDataType)
    name, label = f"Foretag.Tags.{tag.name}", Name(tag.feature or tag.name)
    tree.show(face, name, label, _folder(tree, tag), Ref(kind), data_type, text=tag.name)
    if not _takes_any(tag):
        tree.member(name, types.ENGINEERING_UNITS, engineering_units(tag.unit, types.OURS))
    if tag.low is not None and tag.high is not None:
        tree.member(name, types.EU_RANGE, ua.Range(tag.low, tag.high))


def _folder(tree: Tree, tag: Tag) -> ua.NodeId:
    """Of an asset's tags; of those of no asset."""
    name = f"Foretag.Assets.{tag.asset}.Tags" if tag.asset else "Foretag.Tags"
    if tree.has(name):
        return tree.id(name)
    return tree.folder(name, "Tags", asset_of(tree, tag.asset) if tag.asset else tree.id("Foretag"))
