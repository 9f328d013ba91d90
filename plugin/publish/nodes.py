"""What a prediction, a flag or a run looks like on its nodes: value, status and times. No sockets, no clock.

Rules that hold for every write (OPC 10000-4, 7.11 and 7.39; OPC 10000-8, 6.3):

* A Bad status carries no value; a missing number never goes out as Good.
* The SourceTimestamp of a prediction is its ``as_of``, never null and never in the future; that of a value that grew
  stale is the instant at which it did, so that a client's history shows both.
* All nodes of one prediction are written in one go: no client sees new bounds with an old value.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from asyncua import ua
from asyncua.server.address_space import AttributeValue

from plugin.domain import Flag, OutputTag, Prediction, Quality, Run, RunKind, Status, quality

_DOUBLE, _BOOLEAN, _STRING = ua.VariantType.Double, ua.VariantType.Boolean, ua.VariantType.String
_TIME, _UINT32 = ua.VariantType.DateTime, ua.VariantType.UInt32
_NULL = ua.Variant(None, ua.VariantType.Null)

SERVICE_LEVEL_NO_DATA = 1
SERVICE_LEVEL_HEALTHY = 255
_DEGRADED = 2, 199


class Cell:
    """The value of one node. Values are replaced, never changed: subscriptions keep references to them."""

    __slots__ = ("_attribute",)

    def __init__(self, attribute: AttributeValue) -> None:
        self._attribute = attribute

    @property
    def value(self) -> ua.DataValue:
        """What a client reads at present."""
        value = self._attribute.value
        return value if value is not None else ua.DataValue()

    def write(self, number: Any, kind: ua.VariantType, status: int, source: datetime, now: datetime) -> None:
        """Set value, status and times, and hand them to the subscriptions before it returns."""
        variant = _NULL if number is None or quality(status) is Quality.BAD else ua.Variant(number, kind)
        value = ua.DataValue(variant, ua.StatusCode(ua.UInt32(status)), source, now)  # type: ignore[arg-type]
        self._attribute.value = value
        for handle, report in tuple(self._attribute.datachange_callbacks.items()):
            report(handle, value)

    def note(self, fact: Any, kind: ua.VariantType, source: datetime, now: datetime) -> None:
        """Set a Good value if it differs from the present one: for what seldom changes."""
        present = self._attribute.value
        if present is None or present.Value is None or present.Value.Value != fact:
            self.write(fact, kind, Status.GOOD, source, now)


@dataclass(frozen=True, slots=True)
class Context:
    """The nodes that number and flag have in common."""

    as_of: Cell
    valid_until: Cell
    version: Cell

    def write(self, as_of: datetime, valid_until: datetime, version: int, source: datetime, now: datetime) -> None:
        """What the value is about."""
        self.as_of.write(as_of, _TIME, Status.GOOD, source, now)
        self.valid_until.write(valid_until, _TIME, Status.GOOD, source, now)
        self.version.note(version, _UINT32, source, now)


@dataclass(slots=True)
class _Shown:
    """What a node shows at present, as far as its expiry and its inputs' source ask for it."""

    status: int = Status.BAD_WAITING_FOR_INITIAL_DATA
    given: int = Status.BAD_WAITING_FOR_INITIAL_DATA
    """The status that the run gave."""
    valid_until: datetime | None = None
    cut_off: bool = False
    """The inputs' source is away."""

    def take(self, given: int, valid_until: datetime | None) -> int:
        """A new value; returns the status that it is shown with."""
        self.given, self.valid_until = given, valid_until
        in_doubt = self.cut_off and quality(given) is not Quality.BAD
        self.status = Status.UNCERTAIN_NO_COMMUNICATION_LAST_USABLE_VALUE if in_doubt else given
        return self.status

    def expired(self, now: datetime) -> bool:
        return self.valid_until is not None and self.valid_until <= now and quality(self.status) is not Quality.BAD


class NumberNode:
    """A predicted number with its bounds."""

    def __init__(
        self, tag: OutputTag, value: Cell, lower: Cell, upper: Cell, context: Context, target: Cell, coverage: Cell
    ) -> None:
        self.tag = tag
        self._cells = value, lower, upper
        self._context = context
        self._target = target
        self._coverage = coverage
        self._shown = _Shown()

    @property
    def usable(self) -> bool:
        """True while the value is neither Bad nor stale."""
        return _usable(self._shown.status)

    def show(self, prediction: Prediction, now: datetime) -> None:
        """Write one prediction."""
        source = min(prediction.as_of, now)
        given = prediction.status if _is_number(prediction.value) else _without_number(prediction.status)
        status = self._shown.take(given, prediction.valid_until)
        self._context.write(prediction.as_of, prediction.valid_until, prediction.version, source, now)
        self._target.write(prediction.target_time, _TIME, Status.GOOD, source, now)
        self._coverage.note(prediction.coverage, _DOUBLE, source, now)
        for cell, number in zip(self._cells, (prediction.value, prediction.lower, prediction.upper), strict=True):
            cell.write(number, _DOUBLE, status if _is_number(number) else _without_number(status), source, now)
        self.expire(now)

    def expire(self, now: datetime) -> bool:
        """Past its time a value stays, as UncertainLastUsableValue; True where that happened just now."""
        return _expire(self._shown, self._cells, now)

    def cut_off(self, away: bool, now: datetime) -> None:
        """While the inputs' source is ``away`` the value is UncertainNoCommunicationLastUsableValue, its source time
        that of the prediction; when it is back and there is no newer one, what was said holds again."""
        _cut_off(self._shown, self._cells, away, now)


class FlagNode:
    """An anomaly flag with the score and the threshold that decided it."""

    def __init__(self, tag: OutputTag, raised: Cell, score: Cell, threshold: Cell, context: Context) -> None:
        self.tag = tag
        self._cells = raised, score, threshold
        self._context = context
        self._shown = _Shown()

    @property
    def usable(self) -> bool:
        """True while the flag is neither Bad nor stale."""
        return _usable(self._shown.status)

    def show(self, flag: Flag, valid_until: datetime | None, now: datetime) -> None:
        """Write one flag; ``valid_until`` is that of the predictions that it was decided with."""
        source = min(flag.as_of, now)
        status = self._shown.take(flag.status, valid_until)
        self._context.write(flag.as_of, valid_until or flag.as_of, flag.version, source, now)
        raised, *numbers = self._cells
        raised.write(flag.raised, _BOOLEAN, status, source, now)
        for cell, number in zip(numbers, (flag.score, flag.threshold), strict=True):
            cell.write(number, _DOUBLE, status if _is_number(number) else _without_number(status), source, now)
        self.expire(now)

    def expire(self, now: datetime) -> bool:
        """As :meth:`NumberNode.expire`."""
        return _expire(self._shown, self._cells, now)

    def cut_off(self, away: bool, now: datetime) -> None:
        """As :meth:`NumberNode.cut_off`."""
        _cut_off(self._shown, self._cells, away, now)


OutputNode = NumberNode | FlagNode


class ModelNode:
    """The last run of a model."""

    def __init__(self, version: Cell, time: Cell, result: Cell, duration: Cell) -> None:
        self._version = version
        self._time = time
        self._result = result
        self._duration = duration

    def show(self, run: Run, now: datetime) -> None:
        """Write how a scoring run went; runs of training leave the nodes as they are."""
        if run.kind is not RunKind.SCORE:
            return
        source = min(run.finished or run.started or run.scheduled, now)
        self._version.note(run.version, _UINT32, source, now)
        self._time.write(run.started or run.scheduled, _TIME, Status.GOOD, source, now)
        self._result.write(str(run.result), _STRING, Status.GOOD, source, now)
        seconds = None if run.started is None else ((run.finished or now) - run.started).total_seconds()
        status = Status.BAD_NO_DATA if seconds is None else Status.GOOD
        self._duration.write(seconds and 1e3 * seconds, _DOUBLE, status, source, now)


class ServerNode:
    """Signs of life: a counter that moves at least once a second, and how far the server is to be relied on."""

    def __init__(self, heartbeat: Cell, service_level: Cell) -> None:
        self._heartbeat = heartbeat
        self._service_level = service_level
        self._beats = 0

    def beat(self, service_level: int, now: datetime) -> None:
        """A second, or less, has passed."""
        self._beats = (self._beats + 1) % 2**32
        self._heartbeat.write(self._beats, _UINT32, Status.GOOD, now, now)
        self._service_level.note(service_level, ua.VariantType.Byte, now, now)


def service_level(usable: int, total: int) -> int:
    """OPC 10000-4, 6.6.2.4.2: 1 no data, 2 to 199 degraded (the share that is usable), 255 all is well."""
    if usable == 0:
        return SERVICE_LEVEL_NO_DATA
    low, high = _DEGRADED
    return SERVICE_LEVEL_HEALTHY if usable == total else low + (high - low) * usable // total


def freshness(predictions: Sequence[Prediction]) -> dict[tuple[str, str], datetime]:
    """Until when the results of a model for an asset are fresh: a flag carries no such time of its own."""
    fresh: dict[tuple[str, str], datetime] = {}
    for prediction in predictions:
        key = prediction.tag.model, prediction.tag.asset
        fresh[key] = min(fresh.get(key, prediction.valid_until), prediction.valid_until)
    return fresh


_LEFT_BEHIND = frozenset((Status.UNCERTAIN_LAST_USABLE_VALUE, Status.UNCERTAIN_NO_COMMUNICATION_LAST_USABLE_VALUE))
"""Of a value that was right when it was made, and is not renewed."""


def _usable(status: int) -> bool:
    return quality(status) is not Quality.BAD and status not in _LEFT_BEHIND


def _is_number(number: float | None) -> bool:
    return number is not None and math.isfinite(number)


def _without_number(status: int) -> int:
    return status if quality(status) is Quality.BAD else Status.BAD_NO_DATA


def _expire(shown: _Shown, cells: tuple[Cell, ...], now: datetime) -> bool:
    if not shown.expired(now) or shown.valid_until is None:
        return False
    shown.status = Status.UNCERTAIN_LAST_USABLE_VALUE
    _restate(cells, shown.status, now, shown.valid_until)
    return True


def _cut_off(shown: _Shown, cells: tuple[Cell, ...], away: bool, now: datetime) -> None:
    if shown.cut_off is away:
        return
    shown.cut_off = away
    stale = shown.status == Status.UNCERTAIN_LAST_USABLE_VALUE and shown.given != shown.status
    if quality(shown.status) is Quality.BAD or stale:
        return
    before = shown.status
    if shown.take(shown.given, shown.valid_until) != before:
        _restate(cells, shown.status, now)


def _restate(cells: tuple[Cell, ...], status: int, now: datetime, source: datetime | None = None) -> None:
    """Another status for the values that there are; ``source``: and another source time."""
    for cell in cells:
        value = cell.value
        if value.Value is not None and value.Value.Value is not None:
            cell.write(value.Value.Value, value.Value.VariantType, status, source or value.SourceTimestamp or now, now)
