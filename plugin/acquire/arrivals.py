"""Messages become deliveries: decoded, with the gaps they tell of, in order, acknowledged once they are stored."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial

from plugin.acquire.config import SourceConfig
from plugin.acquire.current import Currents
from plugin.acquire.decoding import Values, decode_items
from plugin.acquire.gaps import Loss
from plugin.acquire.intake import Intake, Overflow
from plugin.acquire.items import Item
from plugin.acquire.losses import Losses
from plugin.acquire.measuring import Malformed
from plugin.acquire.outbox import Outbox
from plugin.acquire.pump import Acknowledgements
from plugin.acquire.remarks import Remarks
from plugin.acquire.subscription import Subscription
from plugin.acquire.wire import DATA_CHANGE, Message, now_micros
from plugin.diagnostics import Diagnostics
from plugin.domain import GapCause, Micros, Remark, SampleBatch
from plugin.protocols import Delivery

_MANY = 20  # tags that overflow in one message before they share a gap


class Arrivals:
    """What a source's subscriptions receive, and what they should have."""

    def __init__(
        self, config: SourceConfig, intake: Intake, losses: Losses, outbox: Outbox, diagnostics: Diagnostics
    ) -> None:
        self.acks = Acknowledgements()
        self.currents = Currents(config, intake, outbox)
        self.removed: dict[int, Micros] = {}
        """Tags by handle whose node the server has removed, and when [µs]."""
        self.awaited: set[int] = set()
        """Handles whose first value is waited for; one that comes leaves the set."""
        self._intake = intake
        self._losses = losses
        self._outbox = outbox
        self._diagnostics = diagnostics
        self._errors = diagnostics.decode_errors.labels(config.name)
        self._remarks = Remarks(config.name, intake.tags, diagnostics)
        self._ceased: dict[Subscription, Loss] = {}

    async def take(self, subscription: Subscription, message: Message) -> None:
        """A message that is due becomes one delivery, with the gaps it tells of; waits where the database is slow.

        Cut off while it waits, nothing of the message was counted yet: it comes again.
        """
        await self._outbox.room()
        batches: list[SampleBatch] = []
        remarks: list[Remark] = []
        decoded = [await self._read(subscription, body, message) for body in _bodies(message)]
        for values in decoded:
            if values is None or values.lost:
                self._undecodable(subscription, message, values)
            if values is not None:
                batch, overflows = self._intake.live(values, message.received)
                self._overflowed(overflows)
                if gone := self._intake.gone(values, message.received):
                    self.removed = gone | self.removed  # the first time that it was said counts
                batches.append(batch)
                remarks += self._remarks.of(values, message.received)
        confirm = partial(self.acks.add, (subscription.id, message.sequence))
        marks = subscription.checkpoint(message)
        samples = SampleBatch.concatenate(batches)
        self._outbox.add(Delivery(samples, checkpoint=marks, remarks=tuple(remarks), confirm=confirm))
        for values in decoded:
            if values is not None:
                self._intake.arrived(values, message.received)
                self.currents.heard(values)
                if self.awaited:
                    self.awaited.difference_update(values.handle.tolist())

    async def miss(self, subscription: Subscription, numbers: Sequence[int], after: Micros) -> None:
        """Messages that the server doesn't have any more: told at once, what follows may be long in coming."""
        handles = [item.handle for item in subscription.items]
        start, end = _span(subscription.latest, after)
        detail = f"messages {numbers[0]} to {numbers[-1]}"
        self._losses.past(GapCause.SEQUENCE, handles, start, end, detail=detail)
        self.currents.expect(handles, resend=subscription.id)
        await self._outbox.tell()

    async def unheard(self, items: Iterable[Item]) -> None:
        """These said nothing yet, in the place of others that may have had values left, which will not come."""
        for item in items:
            start, detail = int(self._intake.reached[item.handle]), "the tag was changed"
            self._losses.past(
                GapCause.SUBSCRIPTION_LOST, [item.handle], start, now_micros(), tag=item.tag.name, detail=detail
            )
        await self._outbox.tell()

    # --- subscriptions that end, and begin ---

    async def cease(self, subscription: Subscription, cause: GapCause, start: Micros, detail: str = "") -> None:
        """Nothing of it arrives from ``start`` on, until :meth:`resume`; told at once, and only once."""
        if subscription not in self._ceased:
            handles = [item.handle for item in subscription.items]
            self._ceased[subscription] = self._losses.begin(cause, handles, start, detail=detail)
            await self._outbox.tell()

    def resume(self, subscription: Subscription) -> None:
        """Its values arrive, or should."""
        if subscription in self._ceased:
            self._losses.end(self._ceased.pop(subscription))
        self.expect(subscription.items)

    def expect(self, items: Iterable[Item]) -> None:
        """A value of each of these that is monitored should come soon."""
        self.currents.expect(item.handle for item in items if item.monitored)

    def mark(self, subscription: Subscription) -> None:
        """What has to outlive our own restart, where it changed."""
        if marks := subscription.checkpoint():
            self._outbox.add(Delivery(SampleBatch.empty(), checkpoint=marks))

    # --- what is in a message ---

    async def _read(self, subscription: Subscription, body: bytes, message: Message) -> Values | None:
        """The values by tag; None where there is no telling what they are. Nothing is counted yet."""
        with self._diagnostics.stage("decode"):
            try:
                values = decode_items(body, message.received, memory=subscription.places)
            except Malformed:
                return None
            values = replace(values, handle=subscription.handles.tags(values.handle))
        return await self._intake.read(values)

    def _undecodable(self, subscription: Subscription, message: Message, values: Values | None) -> None:
        """Which tags it was can't be known."""
        if values is None:
            self._errors.inc()
        handles = [item.handle for item in subscription.items]
        detail = f"{values.lost if values else 'all'} values of message {message.sequence}"
        start, end = _span(subscription.latest, message.published)
        self._losses.past(GapCause.DECODE_ERROR, handles, start, end, detail=detail)
        self.currents.expect(handles, resend=subscription.id)

    def _overflowed(self, overflows: Sequence[Overflow]) -> None:
        if len(overflows) > _MANY:
            handles = [overflow.handle for overflow in overflows]
            start, end = min(o.start for o in overflows), max(o.end for o in overflows)
            self._losses.past(GapCause.OVERFLOW, handles, start, end, detail=f"{len(handles)} tags")
            return
        for one in overflows:
            tag = self._intake.tags[one.handle].name
            self._losses.past(GapCause.OVERFLOW, [one.handle], one.start, one.end, tag=tag)


def _bodies(message: Message) -> list[bytes]:
    return [body for kind, body in message.notifications if kind == DATA_CHANGE]


def _span(before: Micros, after: Micros) -> tuple[Micros, Micros]:
    """What lies between two messages, by the server's clock and by ours; the server's may have been set meanwhile."""
    return min(before, after or before), max(before, after, now_micros()) + 1
