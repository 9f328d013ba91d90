"""Monitored items: what is asked of the server for each tag, and what it grants."""

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from asyncua import ua
from asyncua.client.ua_session import UaSession

from plugin.acquire.config import SourceConfig
from plugin.acquire.creation import Wish, create_items
from plugin.acquire.intake import Intake
from plugin.acquire.server import ServerInfo, resolve
from plugin.acquire.session import ServiceFault, status_name, translated
from plugin.domain import Quality, Status, Tag, quality
from plugin.errors import SourceUnreachable

_Row = TypeVar("_Row")

_TOO_MUCH = frozenset(
    getattr(ua.StatusCodes, name)
    for name in (
        "BadTooManyOperations", "BadTcpMessageTooLarge", "BadRequestTooLarge", "BadResponseTooLarge",
        "BadEncodingLimitsExceeded", "BadTooManyMonitoredItems",
    )
)  # fmt: skip
_NO_FILTER = frozenset(
    getattr(ua.StatusCodes, name)
    for name in (
        "BadMonitoredItemFilterUnsupported", "BadMonitoredItemFilterInvalid", "BadFilterNotAllowed",
        "BadDeadbandFilterInvalid",
    )
)  # fmt: skip
_FULL = int(ua.StatusCodes.BadTooManyMonitoredItems)
_NODE_UNKNOWN = int(ua.StatusCodes.BadNodeIdUnknown)
_TYPE_UNKNOWN = int(ua.StatusCodes.BadDataTypeIdUnknown)


@dataclass(slots=True, eq=False)
class Item:
    """A tag at the server."""

    handle: int
    """Of the tag, in this process."""
    tag: Tag
    node: ua.NodeId | None = None
    """Of the present session; None: the server has no such namespace."""
    id: int = 0
    """Given by the server; 0: there is none."""
    status: int = Status.BAD_WAITING_FOR_INITIAL_DATA
    """What the server answered when the item was last asked for."""
    plain: bool = False
    """The server refused the filter; every change is reported instead."""
    sampling: float = 0.0
    """Granted [ms]."""
    queue: int = 0
    """Granted [values]."""
    client: int = 0
    """ClientHandle: how the server names the tag in its messages. Tags that ask the same of a node share the item of
    the first."""
    detail: str = ""
    """Why it is refused, where the status doesn't say it."""
    bridged: bool = False
    """It was made by the process before this one, and has been reporting since."""

    @property
    def asked(self) -> bool:
        """The server has been asked for it."""
        return bool(self.id) or self.status != Status.BAD_WAITING_FOR_INITIAL_DATA

    @property
    def monitored(self) -> bool:
        return bool(self.id)

    def forget(self, status: int = Status.BAD_NO_COMMUNICATION) -> None:
        """The server has it no longer."""
        self.id, self.status, self.bridged, self.detail = 0, status, False, ""


async def in_batches(rows: Sequence[_Row], size: int, call: Callable[[Sequence[_Row]], Awaitable[None]]) -> int:
    """Call with parts of the rows, smaller ones where the server finds them too big; returns the size that worked."""
    position = 0
    while position < len(rows):
        part = rows[position : position + size]
        try:
            await call(part)
        except SourceUnreachable as error:
            if len(part) == 1 or not too_much(error):
                raise
            size = max(1, len(part) // 2)
        else:
            position += len(part)
    return size


def too_much(error: SourceUnreachable) -> bool:
    """The request, or its answer, was too big, or took too long."""
    if isinstance(error, ServiceFault):
        return error.code in _TOO_MUCH
    return isinstance(error.__cause__, TimeoutError)


class ItemMaker:
    """Creates items in batches that the server can take; what it refuses is seen in the item and costs no other."""

    def __init__(self, config: SourceConfig, intake: Intake | None = None) -> None:
        self._config = config
        self._batch = config.batch
        self._demands: dict[tuple[timedelta | None, float], str] = {}
        self._intake = intake

    async def create(self, services: UaSession, info: ServerInfo, subscription: int, items: Sequence[Item]) -> None:
        """Create those that can be; the rest keep a Bad :attr:`Item.status`."""
        for item in items:
            item.node = resolve(item.tag.node, info.namespaces)
            item.forget(_NODE_UNKNOWN if item.node is None else Status.BAD_WAITING_FOR_INITIAL_DATA)
        found = await self._describable([item for item in items if item.node is not None])
        groups: dict[str, list[Item]] = {}
        for item in found:
            groups.setdefault(f"{item.plain} {self.demand(item.tag)}", []).append(item)
        found = [group[0] for group in groups.values()]
        limit, full = min(self._batch, info.items_per_call or self._batch), 0

        async def call(part: Sequence[Item]) -> None:
            nonlocal full
            for item in part if full else ():
                item.status = full
            try:
                if not full:
                    await self._create(services, subscription, part)
            except ServiceFault as fault:
                if len(part) > 1 or not too_much(fault):
                    raise
                part[0].status = fault.code
                full = fault.code if fault.code == _FULL else 0  # not even one more: the others need not be asked for

        size = await in_batches(found, limit, call)
        self._batch = self._batch if full else size
        again = [item for item in found if not item.monitored and item.status in _NO_FILTER and not item.plain]
        for item in again:
            item.plain = True
        await in_batches(again, self._batch, call)
        for group in groups.values():
            self._share(group)

    def take_up(self, items: Sequence[Item]) -> None:
        """Items that the process before this one left: tags that shared one share it again."""
        groups: dict[int, list[Item]] = {}
        for item in items:
            groups.setdefault(item.id, []).append(item)
        for group in groups.values():
            self._share(group)

    def _share(self, group: Sequence[Item]) -> None:
        """The first one's item serves all."""
        first, *others = group
        for item in others:
            item.client, item.id, item.status, item.detail = first.client, first.id, first.status, first.detail
            item.plain, item.sampling, item.queue = first.plain, first.sampling, first.queue
        if self._intake is not None:
            self._intake.portions.share(first.handle, [item.handle for item in group])

    async def _describable(self, items: Sequence[Item]) -> list[Item]:
        """Without those of a structure's field where the server doesn't describe its type: they are refused."""
        structures = self._intake.structures if self._intake is not None else None
        inside = [item for item in items if "." in item.tag.element]
        if structures is None or not inside:
            return list(items)
        try:
            types = await structures.types_of([item.node for item in inside if item.node is not None])
        except ServiceFault:
            return list(items)  # then each value says what is wrong
        for item, type_ in zip(inside, types, strict=True):
            if type_ is None:
                item.status, item.detail = _TYPE_UNKNOWN, "the server does not describe the type of its value"
        return [item for item in items if item.status != _TYPE_UNKNOWN]

    async def delete(self, services: UaSession, subscription: int, ids: Sequence[int]) -> None:
        """Take items away; the server may have forgotten them already."""

        async def call(part: Sequence[int]) -> None:
            parameters = ua.DeleteMonitoredItemsParameters()
            parameters.SubscriptionId = ua.UInt32(subscription)
            parameters.MonitoredItemIds = [ua.UInt32(number) for number in part]
            with translated("delete monitored items"):
                await services.delete_monitored_items(parameters)

        await in_batches(ids, self._batch, call)

    async def _create(self, services: UaSession, subscription: int, items: Sequence[Item]) -> None:
        with translated("create monitored items"):
            answers = await create_items(services, subscription, [self._wish(item) for item in items])
        if len(answers) != len(items):  # which answer is whose can't be known
            raise SourceUnreachable(f"create monitored items: {len(answers)} answers to {len(items)} items")
        for item, granted in zip(items, answers, strict=True):
            item.status = granted.status
            if quality(item.status) is not Quality.BAD:
                item.id, item.sampling, item.queue = granted.id, granted.sampling, granted.queue

    def demand(self, tag: Tag) -> str:
        """All that is asked of the server for a tag: an item made for the same demand serves the tag as well."""
        key = (tag.sampling, tag.deadband)
        if key not in self._demands:
            sampling, queue = self._sampling(tag)
            report = self._config.report if self._config.filters else "unfiltered"
            self._demands[key] = f"{sampling.total_seconds():g} {queue} {tag.deadband:g} {report}"
        return f"{tag.node} {self._demands[key]}"

    def _sampling(self, tag: Tag) -> tuple[timedelta, int]:
        """Interval, and the values that the server should queue."""
        config = self._config
        sampling = tag.sampling if tag.sampling is not None else config.sampling_interval
        queue = math.ceil(config.bridge / sampling) if sampling else config.queue_limit
        return sampling, max(2, min(queue, config.queue_limit))

    def _wish(self, item: Item) -> Wish:
        sampling, queue = self._sampling(item.tag)
        wanted: Any = None if item.plain else self._filter(item.tag)
        interval = ua.Double(sampling.total_seconds() * 1000)
        return Wish(item.node or ua.NodeId(), ua.UInt32(item.client), interval, wanted, ua.UInt32(queue))

    def _filter(self, tag: Tag) -> ua.DataChangeFilter | None:
        """OPC 10000-4, 7.22.2. With a deadband the trigger on timestamps is one on values."""
        if not self._config.filters:
            return None
        if tag.deadband > 0:
            kind = ua.UInt32(ua.DeadbandType.Absolute)
            return ua.DataChangeFilter(ua.DataChangeTrigger.StatusValue, kind, tag.deadband)
        if self._config.report == "update":
            return ua.DataChangeFilter(ua.DataChangeTrigger.StatusValueTimestamp, ua.UInt32(0), 0.0)
        return None


def describe_refusal(item: Item) -> str:
    """For a log line or a gap."""
    why = f", {item.detail}" if item.detail else ""
    return f"{item.tag.node}{item.tag.element}: {status_name(item.status)}{why}"
