"""Reading the past (OPC 10000-11, 6.4.3), while live data runs: at the first start, after our downtime, into gaps.

A window of each tag is read page by page, several tags to a request. Servers differ in how they end a page, so a window
goes on by the server's continuation point where there is one, else from the newest source time that came.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from asyncua import ua
from asyncua.client.ua_session import UaSession

from plugin.acquire.config import HistoryConfig
from plugin.acquire.gaps import REMOVED, Gaps, Loss
from plugin.acquire.intake import Intake
from plugin.acquire.items import in_batches, too_much
from plugin.acquire.measuring import Malformed
from plugin.acquire.outbox import Outbox
from plugin.acquire.server import ServerInfo, describe, resolve
from plugin.acquire.session import ServiceFault, status_name, translated
from plugin.acquire.wire import Page, history_read, now_micros, release
from plugin.diagnostics import Diagnostics
from plugin.domain import GapCause, GapState, Micros, Quality, SampleBatch, from_micros, micros, quality, to_micros
from plugin.errors import SourceUnreachable
from plugin.protocols import Delivery

_log = logging.getLogger(__name__)

_SHARE = 0.5  # of the outbox: history yields to live data
_AHEAD = 4  # deliveries that the database does not have yet; history can wait, and needs no room meanwhile
_NEIGHBOURS = 60_000_000  # [µs] windows that begin so close together share a request
_MAX_PAGE = 100_000
_MAX_EMPTY = 100
_TRIES = 3

_CANNOT = frozenset(
    getattr(ua.StatusCodes, name)
    for name in (
        "BadHistoryOperationUnsupported", "BadHistoryOperationInvalid", "BadNotReadable", "BadUserAccessDenied",
        "BadServiceUnsupported", "BadNotImplemented", "BadNotSupported",
    )
)  # fmt: skip
_NO_NODE = frozenset((int(ua.StatusCodes.BadNodeIdUnknown), int(ua.StatusCodes.BadNodeIdInvalid)))
_POINT_LOST = int(ua.StatusCodes.BadContinuationPointInvalid)


@dataclass(slots=True)
class Window:
    """A stretch of one tag's past; what was read of it is behind ``cursor``."""

    handle: int
    cursor: Micros
    end: Micros
    rows: int = 0
    done: bool = False
    failure: str = ""
    tries: int = 0
    empty: int = 0
    """Pages in a row that brought nothing newer."""
    page: int = 0
    """Values to ask for; 0: as configured. Grows where more values than fit have one and the same time."""


@dataclass(slots=True)
class Job:
    """Windows to read, and the gap that they fill; without a gap it is the past of tags that are new."""

    windows: list[Window]
    loss: Loss | None = None
    ready: float = 0.0
    """Not before this [s, loop time]."""

    def left(self) -> list[Window]:
        return [window for window in self.windows if not window.done]


class Backfill:
    """The history jobs of a source, one after the other; cut off by a lost connection, they go on after it."""

    def __init__(
        self, source: str, config: HistoryConfig, intake: Intake, outbox: Outbox, gaps: Gaps, diagnostics: Diagnostics
    ) -> None:
        self.rows = 0
        """Values read so far."""
        self.uncommitted = 0
        """Deliveries that were read and are not in the database yet."""
        self._source = source
        self._config = config
        self._intake = intake
        self._outbox = outbox
        self._gaps = gaps
        self._diagnostics = diagnostics
        self._jobs: deque[Job] = deque()
        self._arrived = asyncio.Event()
        self._stored = asyncio.Event()
        self._readable: dict[int, bool] = {}
        self._together = config.tags

    def add(self, job: Job) -> None:
        """Do this too, after those that were added before."""
        if job.loss is not None:
            job.ready = asyncio.get_running_loop().time() + self._config.settle.total_seconds()
        self._jobs.append(job)
        self._arrived.set()

    def leave(self, handle: int) -> None:
        """A tag is configured no longer: its past is not asked for."""
        for job in self._jobs:
            for window in job.windows:
                if window.handle == handle and not window.done:
                    window.done, window.failure = True, REMOVED

    def left(self) -> int:
        """Tags whose first reading (of the past, or of our downtime) is not finished."""
        first = {None, GapCause.CLIENT_DOWN}
        return len({w.handle for job in self._jobs if (job.loss and job.loss.gap.cause) in first for w in job.left()})

    async def run(self, services: UaSession, info: ServerInfo) -> None:
        """Work for as long as the session lasts."""
        while True:
            while not self._jobs:
                self._arrived.clear()
                await self._arrived.wait()
            job = self._jobs[0]
            await asyncio.sleep(max(0.0, job.ready - asyncio.get_running_loop().time()))
            await self._do(job, services, info)
            await self._finish(job)
            self._jobs.popleft()

    async def _do(self, job: Job, services: UaSession, info: ServerInfo) -> None:
        self._look_back(job)
        nodes = {w.handle: resolve(self._intake.tags[w.handle].node, info.namespaces) for w in job.left()}
        await self._ask_access(services, info, {handle: node for handle, node in nodes.items() if node is not None})
        for window in job.left():
            if nodes[window.handle] is None:
                window.done, window.failure = True, "the server has no such namespace"
            elif not self._readable.get(window.handle, True):
                window.done, window.failure = True, "the node has no history"
        found = {handle: node for handle, node in nodes.items() if node is not None}
        while left := job.left():
            limit = min(self._together, info.history_nodes_per_call or self._together)
            await self._read(job, _neighbours(left)[:limit], found, services)

    def _look_back(self, job: Job) -> None:
        """Where the source's clock was set back during a loss, what was missed after that is older than what came
        before it; but not older than the first value after the loss by more than the loss was long."""
        if job.loss is None or job.loss.gap.end is None:
            return
        length = to_micros(job.loss.gap.end) - to_micros(job.loss.gap.start)
        margin = micros(self._config.margin)
        for window in job.left():
            first = int(self._intake.reached[window.handle])
            if first < job.loss.reached.get(window.handle, 0):
                window.cursor = min(window.cursor, max(0, first - length - margin))

    async def _ask_access(self, services: UaSession, info: ServerInfo, nodes: Mapping[int, ua.NodeId]) -> None:
        """Which nodes have history at all; a server may answer Good, and nothing, for those that have none."""
        unknown = [handle for handle in nodes if handle not in self._readable]

        async def call(part: Sequence[int]) -> None:
            with translated("read access levels"):
                ids = [nodes[handle] for handle in part]
                values = await services.read_attributes(ids, ua.AttributeIds.AccessLevel)
            for handle, value in zip(part, values, strict=False):
                level = value.Value.Value if value.Value else None
                if isinstance(level, int):
                    self._readable[handle] = bool(level >> ua.AccessLevel.HistoryRead & 1)

        await in_batches(unknown, min(500, info.nodes_per_read or 500), call)

    async def _read(
        self, job: Job, windows: Sequence[Window], nodes: Mapping[int, ua.NodeId], services: UaSession
    ) -> None:
        """Read these windows, which begin close together, until the server's continuation points end."""
        points = {window.handle: b"" for window in windows}
        start, end = min(w.cursor for w in windows), max(w.end for w in windows)
        size = max(w.page for w in windows) or self._config.page
        asked = list(windows)
        try:
            while asked:
                request = [(nodes[w.handle], points[w.handle]) for w in asked]
                with translated("read history"):
                    pages = await history_read(services, request, from_micros(start), from_micros(end), size)
                await self._deliver(job, asked, pages)
                going, left = [], []
                for window, page in zip(asked, pages, strict=True):
                    if self._goes_on(window, page, size, points[window.handle]):
                        points[window.handle] = page.continuation
                        going.append(window)
                    elif page.continuation:
                        left.append((nodes[window.handle], page.continuation))
                asked = going
                if left:
                    with translated("release continuation points"):
                        await release(services, left)
        except SourceUnreachable as error:
            if not self._refused(windows, error, size):
                await self._unanswered(windows, error, services)

    def _goes_on(self, window: Window, page: Page, size: int, point: bytes) -> bool:
        """Note what a page says of its window; True: its continuation point leads on."""
        if quality(page.status) is Quality.BAD:
            self._failed(window, page.status)
            return False
        count = len(page.values)
        newest = int(page.values.source_time.max()) if count else window.cursor
        moved, window.cursor = newest > window.cursor, max(window.cursor, newest)
        if page.continuation and page.continuation != point:
            window.empty = 0 if moved else window.empty + 1
            if window.empty < _MAX_EMPTY:
                return True
        if not page.continuation and (count < size or window.cursor >= window.end):
            window.done = True
        elif not moved:
            window.page = min(2 * size, _MAX_PAGE)
            window.done = size >= _MAX_PAGE or not count
            window.failure = "the server's pages lead nowhere" if window.done else ""
        return False

    def _failed(self, window: Window, status: int) -> None:
        """A tag can't be read: never, or perhaps a moment later."""
        window.tries += 1
        if status in _CANNOT:
            self._readable[window.handle] = False
        tries = _TRIES * 10 if status == _POINT_LOST else _TRIES
        if status in _CANNOT or status in _NO_NODE or window.tries >= tries:
            window.done, window.failure = True, status_name(status)

    def _refused(self, windows: Sequence[Window], error: SourceUnreachable, size: int) -> bool:
        """The whole request failed: ask for less, or give up on it. False: the server did not say why."""
        if too_much(error) and len(windows) > 1:
            self._together = max(1, len(windows) // 2)
        elif too_much(error) and size > 100:
            for window in windows:
                window.page = size // 4
        elif isinstance(error, ServiceFault) and (error.code in _CANNOT or too_much(error)):
            for window in windows:
                window.done, window.failure = True, status_name(error.code)
        elif isinstance(error, ServiceFault) and error.code == _POINT_LOST:
            for window in windows:
                self._failed(window, error.code)
        else:
            return False
        return True

    async def _unanswered(self, windows: Sequence[Window], error: SourceUnreachable, services: UaSession) -> None:
        """No answer, or none that can be read, from a server that answers else: it is not asked for this for ever.

        A lost connection is raised.
        """
        if not isinstance(error.__cause__, TimeoutError | Malformed):
            raise error
        await describe(services)
        if len(windows) > 1:  # one of them must not cost the others
            self._together = max(1, len(windows) // 2)
            return
        for window in windows:
            window.tries += 1
            if window.tries >= _TRIES:
                window.done, window.failure = True, str(error)

    async def _deliver(self, job: Job, windows: Sequence[Window], pages: Sequence[Page]) -> None:
        """Hand over a request's values; for tags that are new, with how far their past is complete.

        Cut off while it waits, nothing of them was counted yet: they are read again.
        """
        received = now_micros()
        batches, read = [], []
        for window, page in zip(windows, pages, strict=True):
            handles = np.full(len(page.values), window.handle, np.intp)
            read.append((handles, await self._intake.read(page.values, handles)))
        if any(len(page.values) for page in pages):
            await self._room()
        for window, page, (handles, values) in zip(windows, pages, read, strict=True):
            batches.append(self._intake.history(handles, values, received))
            window.rows += len(page.values)
            self.rows += len(page.values)
            if page.values.lost:
                window.failure = "a part could not be decoded"
        samples = SampleBatch.concatenate(batches)
        if len(samples):
            self.uncommitted += 1
            progress = self._progress(job, windows, pages)
            self._outbox.add(Delivery(samples, checkpoint=progress, confirm=self._committed, patient=True))

    async def _room(self) -> None:
        while self.uncommitted >= _AHEAD:
            self._stored.clear()
            await self._stored.wait()
        await self._outbox.room(_SHARE)

    def _committed(self) -> None:
        self.uncommitted -= 1
        self._stored.set()

    def _progress(self, job: Job, windows: Sequence[Window], pages: Sequence[Page]) -> dict[str, str]:
        if job.loss is not None:
            return {}
        reached = {}
        for window, page in zip(windows, pages, strict=True):
            if len(page.values):
                name = self._intake.tags[window.handle].name
                reached[history_key(self._source, name)] = str(int(page.values.source_time.max()))
        return reached

    async def _finish(self, job: Job) -> None:
        """Say what became of the job: a gap filled or not; the past of new tags read."""
        if job.loss is None:
            read = (w for w in job.windows if not w.failure or self._readable.get(w.handle) is False)
            keys = (history_key(self._source, self._intake.tags[w.handle].name) for w in read)
            await self._outbox.put(Delivery(SampleBatch.empty(), checkpoint=dict.fromkeys(keys, DONE)))
            return  # the others are asked for again at the next start
        self._judge(job.loss, job.windows)
        await self._outbox.tell()

    def _judge(self, loss: Loss, windows: Sequence[Window]) -> None:
        """What became of the gap; tags that stay without their values get an unfillable gap of their own."""
        if loss.gap.state is not GapState.OPEN:  # its tag was removed meanwhile
            return
        failed = [window for window in windows if window.failure]
        rows = sum(window.rows for window in windows)
        if len(failed) == len(windows):
            why = failed[0].failure if failed else "nothing to read it from"
            self._gaps.settle(loss, GapState.UNFILLABLE, rows, why)
            return
        gap = loss.gap
        for window in failed:
            tag, end = self._intake.tags[window.handle].name, None if gap.end is None else to_micros(gap.end)
            part = self._gaps.open(gap.cause, {}, to_micros(gap.start), end, tag=tag)
            self._gaps.settle(part, GapState.UNFILLABLE, window.rows, window.failure)
        note = f"{len(failed)} of {len(windows)} tags have no history" if failed else ""
        self._gaps.settle(loss, GapState.FILLED, rows, note)


DONE = "done"
"""The checkpoint of a tag whose past is read; before that, the newest source time [µs] of what was."""


def history_key(source: str, tag: str) -> str:
    """Key of a tag's checkpoint."""
    return f"{source}/history/{tag}"


def _neighbours(windows: Sequence[Window]) -> list[Window]:
    """Those that may share a request: beginning close to the earliest, with pages of one size."""
    ordered = sorted(windows, key=lambda window: (window.page, window.cursor))
    first = ordered[0]
    return [w for w in ordered if w.page == first.page and w.cursor - first.cursor <= _NEIGHBOURS]
