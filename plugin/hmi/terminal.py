"""The live view of one service in a terminal, and the plain lines that stand in for it where there is none."""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from operator import itemgetter

from rich.console import Console
from rich.live import Live

from plugin.domain import Quality, quality
from plugin.hmi.picture import headline, picture
from plugin.hmi.snapshot import AssetLine, Snapshot
from plugin.hmi.words import age, count, plain, reading

log = logging.getLogger(__name__)


class LiveView:
    """Shows what ``snapshot`` gives, for as long as :meth:`run` runs.

    While it does, write nothing else to the terminal: a log belongs in a file or on another stream.
    """

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        console: Console | None = None,
        *,
        refresh: timedelta = timedelta(seconds=1),
        line_every: timedelta = timedelta(seconds=10),
    ) -> None:
        self._snapshot = snapshot
        self._console = console or Console()
        self._refresh = refresh
        self._line_every = line_every

    async def run(self) -> None:
        """Until cancelled; the last picture, taken at that moment, stays on the screen.

        Returns when nobody can look any more, a closed pipe or a lost terminal: the service goes on unseen.
        """
        drawable = self._console.is_terminal and not self._console.is_dumb_terminal
        try:
            await (self._paint() if drawable else self._write())
        except (SystemExit, OSError) as error:  # rich asks the process to exit when a pipe is closed
            log.warning("the live view ended, its output is closed: %r", error)

    async def _paint(self) -> None:
        live = Live(console=self._console, auto_refresh=False, vertical_overflow="crop")
        with live:
            try:
                while True:
                    # In a thread: laying a picture out takes longer than the event loop may be held.
                    await asyncio.to_thread(self._refresh_picture, live, self._snapshot())
                    await asyncio.sleep(self._refresh.total_seconds())
            finally:
                self._refresh_picture(live, self._snapshot())

    def _refresh_picture(self, live: Live, snapshot: Snapshot) -> None:
        size = self._console.size
        live.update(picture(snapshot, size.width, size.height), refresh=True)

    async def _write(self) -> None:
        try:
            while True:
                await asyncio.to_thread(self._print_line, self._snapshot())
                await asyncio.sleep(self._line_every.total_seconds())
        finally:
            self._print_line(self._snapshot())

    def _print_line(self, snapshot: Snapshot) -> None:
        self._console.print(line(snapshot), markup=False, highlight=False, soft_wrap=True)


def line(snapshot: Snapshot) -> str:
    """The state in one line, for a pipe, a journal or a build log."""
    parts = [headline(snapshot).plain, *_work(snapshot), *_assets(snapshot.assets)]
    return " · ".join(parts)


def _work(snapshot: Snapshot) -> Iterator[str]:
    connected = sum(source.connected for source in snapshot.sources)
    yield f"{connected}/{count(len(snapshot.sources), 'source')} connected"
    for source in snapshot.sources:
        if source.trouble:
            yield plain(f"{source.name}: {source.trouble}")
        if source.unwell:
            yield f"{plain(source.name)}: " + ", ".join(f"{count(tags, 'tag')} {what}" for what, tags in source.unwell)
        if source.history_done < source.history_total:
            yield f"{plain(source.name)}: history of {source.history_done:,}/{source.history_total:,} tags read"
    for training in snapshot.trainings:
        yield f"training {plain(training.model)} {training.share:.0%}"
    for model in snapshot.models:
        if model.since_run is not None:
            yield f"{plain(model.name)}-{model.version} ran {age(model.since_run)} ago"


def _assets(assets: Sequence[AssetLine]) -> Iterator[str]:
    if flagged := [plain(asset.name) for asset in assets if asset.flag]:
        yield f"flagged: {', '.join(flagged)}"
    if doubtful := sum(quality(asset.status) is not Quality.GOOD for asset in assets):
        yield f"{count(doubtful, 'asset')} not Good"
    lives = [(asset.rul.value, asset) for asset in assets if asset.rul is not None and asset.rul.value is not None]
    if lives:
        shortest = min(lives, key=itemgetter(0))[1]
        unit = shortest.rul.unit if shortest.rul else ""
        yield f"shortest RUL: {plain(shortest.name)} {reading(shortest.rul)} {plain(unit)}".rstrip()
