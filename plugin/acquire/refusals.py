"""Tags that the server refuses: each has a gap from the refusal on, until it is monitored."""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence

from plugin.acquire.gaps import Loss
from plugin.acquire.intake import Intake
from plugin.acquire.items import Item, describe_refusal
from plugin.acquire.losses import Losses
from plugin.diagnostics import some
from plugin.domain import GapCause, Micros

_log = logging.getLogger(__name__)

_NAMED = 5  # tags in a line of the log


class Refusals:
    """Of one source, over many connections."""

    def __init__(self, source: str, intake: Intake, losses: Losses) -> None:
        self._source = source
        self._intake = intake
        self._losses = losses
        self._gaps: dict[int, Loss] = {}

    @property
    def handles(self) -> Collection[int]:
        """Tags that are refused; a view, as it is when it is looked at."""
        return self._gaps.keys()

    def resume(self, handle: int, loss: Loss) -> None:
        """The process before this one had begun this gap."""
        self._gaps[handle] = loss

    def replace(self, old: int, new: int) -> None:
        """A tag has another handle."""
        if old in self._gaps:
            self._gaps[new] = self._gaps.pop(old)

    def leave(self, handle: int) -> None:
        """A tag is configured no longer; what becomes of its gap is not ours to say."""
        self._gaps.pop(handle, None)

    def removed(self, since: Mapping[int, Micros]) -> None:
        """A node that went away may be there again when we ask: what it had to say meanwhile is missing."""
        for handle, time in since.items():
            if handle not in self._gaps and self._intake.alive(handle):
                tag, detail = self._intake.tags[handle], "the server had removed the node"
                self._gaps[handle] = self._losses.begin(
                    GapCause.BAD_ITEM, [handle], time, tag=tag.name, detail=f"{tag.node}: {detail}"
                )

    def review(self, items: Iterable[Item], since: Micros) -> None:
        """A gap begins with a refusal (at ``since``, by our clock), and ends when the tag is monitored."""
        since += self._losses.behind
        back, refused = [], []
        for item in items:
            if not item.asked or not self._intake.alive(item.handle):
                continue
            if item.monitored and item.handle in self._gaps:
                self._losses.end(self._gaps.pop(item.handle))
                back.append(item.tag.name)
            elif not item.monitored and item.handle not in self._gaps:
                detail = describe_refusal(item)
                refused.append(f"{item.tag.name} ({detail})")
                self._gaps[item.handle] = self._losses.begin(
                    GapCause.BAD_ITEM, [item.handle], since, tag=item.tag.name, detail=detail
                )
        if refused:
            _log.warning("%s: the server refuses %d tag(s): %s", self._source, len(refused), _some(refused))
        if back:
            _log.info("%s: %d tag(s) are monitored again: %s", self._source, len(back), _some(back))


def _some(names: Sequence[str]) -> str:
    """A few of many, in one line: each has a gap row of its own."""
    return some(names, _NAMED) + ("; `foretag check` lists them" if len(names) > _NAMED else "")
