"""Messages on their way to the database, without a server: what is counted, and what a cut in the middle costs."""

import asyncio
import contextlib
from datetime import UTC, datetime

from asyncua import ua
from asyncua.ua.ua_binary import struct_to_binary

from plugin.acquire.arrivals import Arrivals
from plugin.acquire.backfill import Backfill, Job, Window
from plugin.acquire.config import HistoryConfig, SourceConfig
from plugin.acquire.decoding import decode_values
from plugin.acquire.gaps import Gaps
from plugin.acquire.intake import Intake
from plugin.acquire.items import Item, ItemMaker
from plugin.acquire.losses import Losses
from plugin.acquire.outbox import Outbox
from plugin.acquire.subscription import Subscription
from plugin.acquire.wire import DATA_CHANGE, Message, Page
from plugin.diagnostics import Diagnostics
from plugin.domain import SampleBatch, Tag
from plugin.protocols import Delivery

TAGS = [Tag(f"t{number}", "plant", f"i={number}", id=number + 1) for number in range(3)]
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
OVERFLOW = 0x480


def message(*statuses: int) -> Message:
    """One value of each tag, with these statuses."""
    items = []
    for handle, status in enumerate(statuses):
        item = ua.MonitoredItemNotification()
        item.ClientHandle = ua.UInt32(handle)
        time = ua.DateTime(NOON.year, NOON.month, NOON.day, NOON.hour, tzinfo=UTC)
        variant = ua.Variant(float(handle), ua.VariantType.Double)
        item.Value = ua.DataValue(variant, ua.StatusCode(ua.UInt32(status)), time)
        items.append(item)
    body = struct_to_binary(ua.DataChangeNotification(MonitoredItems=items))
    return Message(7, 1, 0, 2_000_000_000_000_000, ((DATA_CHANGE, body),))


class Parts:
    """What stands between a subscription and the database."""

    def __init__(self, limit: int) -> None:
        self.diagnostics = Diagnostics()
        intake = Intake("plant", TAGS, {}, self.diagnostics)
        gaps = Gaps("plant", TAGS, self.diagnostics, {})
        self.outbox = Outbox(limit, gaps, self.diagnostics.queue_depth.labels("plant"))
        history = HistoryConfig(enabled=False)
        self.backfill = Backfill("plant", history, intake, self.outbox, gaps, self.diagnostics)
        losses = Losses("plant", history, intake, gaps, self.backfill)
        plant = SourceConfig(name="plant", endpoint="opc.tcp://127.0.0.1:1")
        self.arrivals = Arrivals(plant, intake, losses, self.outbox, self.diagnostics)
        items = [Item(handle, tag) for handle, tag in enumerate(TAGS)]
        self.subscription = Subscription(plant, items, ItemMaker(plant), self.arrivals.take, self.arrivals.miss)


def full() -> Delivery:
    return Delivery(SampleBatch.of([1], [0], [0.0], [0], [0], [0]))


async def test_a_message_cut_off_while_it_waits_is_counted_once() -> None:
    parts = Parts(limit=1)
    await parts.outbox.put(full())
    first = asyncio.create_task(parts.arrivals.take(parts.subscription, message(0, OVERFLOW, 0)))
    await asyncio.sleep(0)
    first.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await first
    await parts.outbox.get()
    await parts.arrivals.take(parts.subscription, message(0, OVERFLOW, 0))
    delivery = await parts.outbox.get()
    assert len(delivery.samples) == 3
    assert parts.diagnostics.value("samples_received_total", source="plant", path="live") == 3
    assert parts.diagnostics.total("gaps_total") == 1
    assert len(delivery.gaps) == 1


async def test_waiting_messages_take_room_one_after_the_other() -> None:
    parts = Parts(limit=1)
    await parts.outbox.put(full())
    takes = [asyncio.create_task(parts.arrivals.take(parts.subscription, message(0))) for _ in range(3)]
    for left in (3, 2, 1, 0):
        await parts.outbox.get()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert sum(not take.done() for take in takes) == max(left - 1, 0)


async def test_history_that_is_cut_off_while_it_waits_is_not_waited_for_ever_after() -> None:
    """A connection that is lost while the database is slow; what was not handed over is read again."""
    parts, window = Parts(limit=1), Window(0, 0, 10)
    values = ua.HistoryData(DataValues=[ua.DataValue(ua.Variant(1.0, ua.VariantType.Double))])
    page = Page(0, decode_values(struct_to_binary(values), 5), b"")
    await parts.outbox.put(full())
    for _ in range(5):
        reading = asyncio.create_task(parts.backfill._deliver(Job([window]), [window], [page]))
        await asyncio.sleep(0)
        reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reading
    assert (parts.backfill.uncommitted, parts.backfill.rows, window.rows) == (0, 0, 0)
    await parts.outbox.get()
    await parts.backfill._deliver(Job([window]), [window], [page])
    delivery = await parts.outbox.get()
    assert len(delivery.samples) == parts.backfill.uncommitted == window.rows == 1
    delivery.confirm()
    assert parts.backfill.uncommitted == 0
    assert parts.diagnostics.value("samples_received_total", source="plant", path="history") == 1
