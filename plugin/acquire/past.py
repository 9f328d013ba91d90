"""The past that a source still has to get: of new tags, and of the time when we were down."""

from collections.abc import Mapping, Sequence

from plugin.acquire.backfill import Backfill
from plugin.acquire.gaps import Gaps
from plugin.acquire.items import Item
from plugin.acquire.losses import Losses
from plugin.acquire.refusals import Refusals
from plugin.acquire.roster import Changed
from plugin.domain import GapCause
from plugin.protocols import HistoryProgress


class Past:
    """Of one source. It begins with the first connection of this process; ``checkpoints``: what the one before left."""

    def __init__(
        self,
        source: str,
        gaps: Gaps,
        losses: Losses,
        refusals: Refusals,
        backfill: Backfill,
        checkpoints: Mapping[str, str],
    ) -> None:
        self._source = source
        self._gaps = gaps
        self._losses = losses
        self._refusals = refusals
        self._backfill = backfill
        self._checkpoints = dict(checkpoints)
        self._inherited = frozenset(loss.gap.id for loss in gaps.left_open())
        self._total: int | None = None

    @property
    def begun(self) -> bool:
        return self._total is not None

    def begin(self, items: Sequence[Item]) -> None:
        """Our own downtime, the gaps that the process before this one left open, and the past of new tags."""
        by_name = {item.tag.name: item.handle for item in items}
        for loss in self._gaps.left_open():
            if loss.gap.id not in self._inherited:
                continue
            handle = by_name.get(loss.gap.tag or "")
            refused = loss.gap.cause is GapCause.BAD_ITEM and loss.gap.end is None
            if refused and handle is not None and handle not in self._refusals.handles:
                self._refusals.resume(handle, loss)
            else:
                self._losses.resume(loss)
        self._total = self._losses.first(items, self._checkpoints)
        self._checkpoints.clear()

    def change(self, changed: Changed, checkpoints: Mapping[str, str]) -> None:
        """Other tags: gaps go with them, and those that were added have a past; ``checkpoints`` are theirs."""
        self._gaps.admit([item.tag for item in (*changed.added, *(new for _, new in changed.replaced))])
        for old, new in changed.replaced:
            self._gaps.replace(old.handle, new.handle)
            self._refusals.replace(old.handle, new.handle)
        for item in changed.removed:
            self._refusals.leave(item.handle)
            self._backfill.leave(item.handle)
            self._gaps.leave(item.handle)
        if self._total is None:
            self._checkpoints.update(checkpoints)
        else:
            self._total += self._losses.added(changed.added, checkpoints)

    def progress(self, tags: int) -> HistoryProgress:
        """How far it has come; ``tags``: how many there are, as long as it is not known how many it concerns."""
        if self._total is None:
            return HistoryProgress(self._source, 0, tags, 0, finished=False)
        left = self._backfill.left()
        finished = left == 0 and self._backfill.uncommitted == 0
        return HistoryProgress(self._source, max(0, self._total - left), self._total, self._backfill.rows, finished)
