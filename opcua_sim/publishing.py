"""Brings what arrives in the plant to the nodes, instant by instant, on the grid."""

import asyncio
import math
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from asyncua import ua
from asyncua.server.address_space import AddressSpace

from opcua_sim.clock import Clock, Micros
from opcua_sim.history import History
from opcua_sim.plant import Plant
from opcua_sim.state import State
from opcua_sim.tags import Tag
from opcua_sim.truth import Truth

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LONGEST_SLEEP = 1.0  # [s] so that a wall clock that was set is noticed
_WRITES_BETWEEN_YIELDS = 200


class _Published(ua.DataValue):
    """A value that nobody alters: asyncua copies each one deeply per subscription, for ten times the rest."""

    __slots__ = ()

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Published":
        return self


class Publisher:
    """Publishes each step once, in order, whether in time or late."""

    def __init__(
        self,
        plant: Plant,
        nodes: Mapping[ua.NodeId, Tag],
        space: AddressSpace,
        state: State,
        history: History,
        truth: Truth | None,
    ) -> None:
        self._plant = plant
        self._nodes = list(nodes)
        self._kinds = [
            ua.VariantType.UInt32 if tag.feature.counter else ua.VariantType.Double for tag in nodes.values()
        ]
        self._delays = [tag.feature.delay for tag in nodes.values()]
        self._space = space
        self._state = state
        self._history = history
        self._truth = truth
        self._statuses: dict[int, ua.StatusCode] = {}
        self.next_step = self.clock.present
        """The first step that is not published yet."""
        self._flushed = 0

    @property
    def clock(self) -> Clock:
        """The plant's clock."""
        return self._state.clock

    async def wait(self) -> int:
        """Wait until the next step is due; the first step that is not due."""
        while True:
            now = wall_clock()
            due = self.clock.first_step(now + 1)
            if due > self.next_step:
                return due
            ahead = (self.clock.time(self.next_step) - now) / 1e6
            await asyncio.sleep(min(ahead, _LONGEST_SLEEP))

    async def show_last(self) -> None:
        """Set the nodes to what the plant knew last, so that who connects now reads values, not nothing."""
        await self._write(self.next_step - 1)

    async def publish(self) -> None:
        """Publish the next step."""
        step = self.next_step
        self._state.renew(step + 1)
        self.next_step = self._history.next_step = step + 1
        if self._truth is not None:
            self._write_truth(self._truth, step)
        await self._write(step)

    async def _write(self, step: int) -> None:
        arrivals = self._plant.arrivals(step)
        values, statuses, present = arrivals.value.tolist(), arrivals.status.tolist(), arrivals.present.tolist()
        stamps = {delay: self._stamp(step - delay) for delay in set(self._delays)}
        arrived = stamps[0] if 0 in stamps else self._stamp(step)
        for place, node in enumerate(self._nodes):
            if not present[place]:
                continue
            variant = _variant(values[place], self._kinds[place])
            status = self._status(statuses[place])
            published = _Published(variant, status, stamps[self._delays[place]], arrived)
            (await self._space.write_attribute_value(node, ua.AttributeIds.Value, published)).check()
            if place % _WRITES_BETWEEN_YIELDS == _WRITES_BETWEEN_YIELDS - 1:
                await asyncio.sleep(0)
        await asyncio.sleep(0)

    def _write_truth(self, truth: Truth, step: int) -> None:
        now = self.clock.time(step)
        truth.write(step, now)
        if now // 1_000_000 != self._flushed:
            self._flushed = now // 1_000_000
            truth.flush()

    def _status(self, code: int) -> ua.StatusCode:
        return self._statuses.setdefault(code, ua.StatusCode(ua.UInt32(code)))

    def _stamp(self, step: int) -> Any:
        return _EPOCH + timedelta(microseconds=self.clock.time(step))


def _variant(value: float, kind: ua.VariantType) -> ua.Variant:
    """NaN, which is what a Bad value is computed as, becomes null."""
    if math.isnan(value):
        return ua.Variant()
    return ua.Variant(int(value) if kind is ua.VariantType.UInt32 else value, kind)


def wall_clock() -> Micros:
    """Now."""
    return time.time_ns() // 1000
