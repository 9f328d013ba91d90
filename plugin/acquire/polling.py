"""A server that knows no subscriptions is read, again and again: every tag at its own sampling interval.

Ticks do not drift. One that would begin while the reading before it still lasts is left out and counted, and while that
goes on there is a gap: what happens between two readings is seen by nobody. A reading that says nothing new (the same
source time, value and status) is no sample.
"""

import asyncio
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from asyncua import ua
from asyncua.client.ua_session import UaSession
from numpy.typing import NDArray

from plugin.acquire.config import SourceConfig
from plugin.acquire.connection import Connection, Review
from plugin.acquire.decoding import Values
from plugin.acquire.gaps import Loss
from plugin.acquire.intake import Intake
from plugin.acquire.items import Item, too_much
from plugin.acquire.losses import Losses
from plugin.acquire.outbox import Outbox
from plugin.acquire.remarks import Remarks
from plugin.acquire.roster import Roster
from plugin.acquire.server import ServerInfo, resolve
from plugin.acquire.session import ServiceFault, translated
from plugin.acquire.wire import now_micros, read
from plugin.diagnostics import Diagnostics
from plugin.domain import GapCause, Micros, Status
from plugin.errors import SourceUnreachable
from plugin.protocols import Delivery

_log = logging.getLogger(__name__)

_RETRY = (2.0, 60.0)  # [s] first and longest pause before refused tags are read again
_IN_TIME = 10  # ticks in a row that end a gap of ticks that were left out
_REFUSALS = np.array(
    [
        int(getattr(ua.StatusCodes, name))
        for name in (
            "BadNodeIdInvalid", "BadNodeIdUnknown", "BadAttributeIdInvalid", "BadIndexRangeInvalid",
            "BadIndexRangeNoData", "BadDataEncodingInvalid", "BadDataEncodingUnsupported", "BadNotReadable",
            "BadUserAccessDenied", "BadSecurityModeInsufficient",
        )
    ],
    np.uint32,
)  # fmt: skip
"""Answers that speak of the question (OPC 10000-4, 5.11.2.4): no value of the tag is meant."""


@dataclass(slots=True)
class _Group:
    """The tags of one sampling interval."""

    period: float
    """[s]"""
    retry_at: float = 0.0
    """When its refused tags are read again [s, loop time]."""
    pause: float = _RETRY[0]
    loss: Loss | None = None
    """Lasts while ticks are left out."""
    in_time: int = 0
    """Ticks since the last one that was left out."""
    last: Micros = 0
    """Begin of the newest reading."""


class Polling:
    """Of one source, over many connections."""

    def __init__(
        self,
        config: SourceConfig,
        roster: Roster,
        intake: Intake,
        losses: Losses,
        outbox: Outbox,
        diagnostics: Diagnostics,
    ) -> None:
        self._config = config
        self._roster = roster
        self._intake = intake
        self._losses = losses
        self._outbox = outbox
        self._skipped = diagnostics.polls_skipped.labels(config.name)
        self._batch = config.batch
        self._groups: dict[float, _Group] = {}
        self._parted: tuple[tuple[Item, ...], dict[float, list[Item]]] = ((), {})
        self._known = _Known()
        self._remarks = Remarks(config.name, intake.tags, diagnostics)

    def failed(self) -> int:
        """Tags that the server refuses to read."""
        return self._roster.refused()

    async def begin(self, connection: Connection) -> None:
        """What was not read since the last connection is missing; every tag is asked for anew."""
        now = now_micros()
        cause = GapCause.SERVER_DOWN if connection.restarted else GapCause.POLL_MISSED
        for group in self._groups.values():
            if group.loss is not None:
                self._losses.end(group.loss)
                group.loss = None
            handles = [item.handle for item in self._parts().get(group.period, ()) if item.monitored]
            if group.last and handles:
                self._losses.past(cause, handles, group.last, now, detail="not read meanwhile")
        for item in self._roster.items:
            item.forget(Status.BAD_WAITING_FOR_INITIAL_DATA)

    async def run(self, connection: Connection, review: Review) -> None:
        """Until the connection is lost: that is raised."""
        async with asyncio.TaskGroup() as tasks:
            running: dict[float, asyncio.Task[None]] = {}
            while True:
                self._roster.changed.clear()
                self._roster.drop_replaced()
                for period in self._parts():
                    if period not in running or running[period].done():
                        group = self._groups.setdefault(period, _Group(period))
                        running[period] = tasks.create_task(self._poll(group, connection, review))
                await self._roster.changed.wait()

    def _parts(self) -> dict[float, list[Item]]:
        """The items by sampling interval [s]; found anew when the tags have changed."""
        items, parts = self._parted
        if items is not self._roster.items:
            parts = {}
            for item in self._roster.items:
                parts.setdefault(self._period(item), []).append(item)
            self._parted = self._roster.items, parts
        return parts

    def _period(self, item: Item) -> float:
        wanted = self._config.sampling_interval if item.tag.sampling is None else item.tag.sampling
        return (wanted or self._config.publishing_interval).total_seconds()

    # --- ticks ---

    async def _poll(self, group: _Group, connection: Connection, review: Review) -> None:
        """Until no tag has this interval any more."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while items := self._parts().get(group.period):
            before, group.last = group.last, now_micros()
            await self._tick(group, items, connection, review)
            missed = max(0, math.floor((loop.time() - due) / group.period))
            await self._note(group, missed, before or group.last)
            due += (missed + 1) * group.period
            await asyncio.sleep(due - loop.time())
        if group.loss is not None:
            self._losses.end(group.loss)
        del self._groups[group.period]

    async def _tick(self, group: _Group, items: Sequence[Item], connection: Connection, review: Review) -> None:
        now = asyncio.get_running_loop().time()
        retried = now >= group.retry_at
        wanted = [item for item in items if item.monitored or not item.asked or retried]
        doubtful = [item for item in wanted if not item.monitored]
        before = [item.monitored for item in wanted]
        for item in doubtful:
            item.node = resolve(item.tag.node, connection.info.namespaces)
            item.forget(int(ua.StatusCodes.BadNodeIdUnknown))
        readable = [item for item in wanted if item.node is not None]
        position = 0
        while position < len(readable):
            part = readable[position : position + self._size(connection.info)]
            position += await self._read(part, connection.services)
        if retried:
            better = any(item.monitored for item in doubtful)
            group.pause = _RETRY[0] if better or not doubtful else min(2 * group.pause, _RETRY[1])
            group.retry_at = now + group.pause
        if doubtful or before != [item.monitored for item in wanted]:
            await review(wanted, now_micros())

    async def _note(self, group: _Group, missed: int, since: Micros) -> None:
        """Ticks that were left out, or none."""
        group.in_time = 0 if missed else group.in_time + 1
        if missed:
            self._skipped.inc(missed)
            if group.loss is None:
                items = self._parts().get(group.period, ())
                detail = f"{len(items)} tag(s) can't be read every {group.period:g} s"
                tag = items[0].tag.name if len(items) == 1 else None
                handles = [item.handle for item in items]
                group.loss = self._losses.begin(GapCause.POLL_MISSED, handles, since, tag=tag, detail=detail)
                _log.warning("%s: %s; readings are left out and counted", self._config.name, detail)
                await self._outbox.tell()
        elif group.loss is not None and group.in_time >= _IN_TIME:
            self._losses.end(group.loss)
            group.loss = None
            _log.info("%s: tags are read every %g s again", self._config.name, group.period)
            await self._outbox.tell()

    # --- readings ---

    def _size(self, info: ServerInfo) -> int:
        return min(self._batch, info.nodes_per_read or self._batch)

    async def _read(self, items: Sequence[Item], services: UaSession) -> int:
        """Read these, or some of them where the server finds them too many; returns how many were."""
        await self._outbox.room()
        nodes = [(item.node, int(ua.AttributeIds.Value)) for item in items if item.node is not None]
        try:
            with translated(f"{self._config.name}: read {len(items)} tags"):
                values = await read(services, nodes)
        except SourceUnreachable as error:
            if too_much(error) and len(items) > 1:
                self._batch = max(1, len(items) // 2)
                if isinstance(error, ServiceFault):
                    return 0
            raise  # without an answer the server may be gone: the next connection begins with fewer
        refused = np.isin(values.status, _REFUSALS)
        values = await self._intake.read(values, np.array([item.handle for item in items], np.intp))
        self._take(items, values, refused)
        return len(items)

    def _take(self, items: Sequence[Item], values: Values, refused: NDArray[np.bool_]) -> None:
        for row, item in enumerate(items):
            if refused[row]:
                item.forget(int(values.status[row]))
            else:
                item.id, item.status = 1, 0
        deadbands = np.array([item.tag.deadband for item in items])
        fresh = values.take(~refused & self._known.news(values, deadbands, changes=self._config.report == "change"))
        if len(fresh):
            received = now_micros()
            batch, _ = self._intake.live(fresh, received)
            self._outbox.add(Delivery(batch, remarks=tuple(self._remarks.of(fresh, received))))
            self._intake.arrived(fresh, received)


class _Known:
    """The last sample of each handle that was passed on."""

    def __init__(self) -> None:
        self._time = np.zeros(0, np.int64)
        self._value = np.zeros(0)
        self._status = np.zeros(0, np.int64)
        self._text = np.zeros(0, np.object_)

    def news(self, values: Values, deadbands: NDArray[np.float64], *, changes: bool) -> NDArray[np.bool_]:
        """Rows that say something new, taken note of; ``changes``: a new source time alone is not enough."""
        self._grow(int(values.handle.max(initial=0)) + 1)
        handle = values.handle.astype(np.intp)
        status = values.status.astype(np.int64)
        with np.errstate(invalid="ignore"):  # infinity less infinity
            near = np.abs(values.value - self._value[handle]) <= deadbands
        equal = (values.value == self._value[handle]) | (near & (deadbands > 0))
        equal |= np.isnan(values.value) & np.isnan(self._value[handle])
        text = np.full(len(handle), None, np.object_) if values.text is None else values.text
        equal &= (status == self._status[handle]) & (text == self._text[handle]).astype(np.bool_)
        unmoved = values.timed & (values.source_time == self._time[handle])
        new: NDArray[np.bool_] = ~(equal & (unmoved | (deadbands > 0) | changes))
        rows = handle[new]
        self._time[rows], self._value[rows] = values.source_time[new], values.value[new]
        self._status[rows], self._text[rows] = status[new], text[new]
        return new

    def _grow(self, size: int) -> None:
        more = max(0, size - len(self._time))
        self._time = np.append(self._time, np.zeros(more, np.int64))
        self._value = np.append(self._value, np.full(more, np.nan))
        self._status = np.append(self._status, np.full(more, -1, np.int64))
        self._text = np.append(self._text, np.full(more, None, np.object_))
