"""The value of one node, made of as little as it takes: a write stores five references, encoding waits for a reader.

A :class:`Cell` stands in the address space where asyncua has an ``AttributeValue``. Most values are written each second
and read by nobody: what a client would get is put together when one asks, or when a subscription is there to be told.
Private names of asyncua are used: ``tests/contracts`` fails when one of them changes.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from asyncua import ua
from asyncua.server.address_space import AttributeValue

from plugin.domain import Quality, Status, quality

_NULL = ua.Variant(None, ua.VariantType.Null)
_STATUSES: dict[int, ua.StatusCode] = {}
"""Those that were given so far; they are never changed, and few."""
_MOST_STATUSES = 1000


def status_code(status: int) -> ua.StatusCode:
    """One object for one code."""
    if status not in _STATUSES and len(_STATUSES) < _MOST_STATUSES:
        _STATUSES[status] = ua.StatusCode(ua.UInt32(status))
    return _STATUSES.get(status) or ua.StatusCode(ua.UInt32(status))


class Cell(AttributeValue):
    """The value of one node. Values are replaced, never changed: subscriptions keep references to them."""

    __slots__ = ("_kind", "_made", "_said", "datachange_callbacks", "value_callback", "value_setter")

    def __init__(self, kind: ua.VariantType, now: datetime) -> None:
        """Waiting for its first data since ``now``."""
        self.value_callback = None
        self.value_setter = None
        self.datachange_callbacks: dict[int, Callable[..., Any]] = {}
        self._kind = kind
        self._said: tuple[Any, int, datetime, datetime] = (None, Status.BAD_WAITING_FOR_INITIAL_DATA, now, now)
        self._made: ua.DataValue | None = None

    @property
    def value(self) -> ua.DataValue:
        """What a client reads at present."""
        if self._made is None:
            fact, status, source, now = self._said
            empty = fact is None or quality(status) is Quality.BAD
            variant = _NULL if empty else ua.Variant(fact, self._kind)
            self._made = ua.DataValue(variant, status_code(status), source, now)  # type: ignore[arg-type]
        return self._made

    @value.setter
    def value(self, value: ua.DataValue) -> None:  # asyncua's own writes, to standard nodes alone
        fact = value.Value.Value if value.Value is not None else None
        status = value.StatusCode.value if value.StatusCode is not None else Status.GOOD
        _, _, source, now = self._said
        self._said = fact, status, value.SourceTimestamp or source, value.ServerTimestamp or now
        self._made = value

    @property
    def fact(self) -> Any:
        """The value, whatever its status; None: there is none."""
        return self._said[0]

    @property
    def source_time(self) -> datetime:
        """Source time of the value."""
        return self._said[2]

    def write(self, fact: Any, status: int, source: datetime, now: datetime) -> None:
        """Set value, status and times, and hand them to the subscriptions before it returns."""
        self._said = fact, status, source, now
        self._made = None
        if self.datachange_callbacks:
            value = self.value
            for handle, report in tuple(self.datachange_callbacks.items()):
                report(handle, value)

    def note(self, fact: Any, source: datetime, now: datetime, status: int = Status.GOOD) -> None:
        """Write a value if it, or its status, differs from the present one: for what seldom changes."""
        said = self._said
        if said[0] != fact or said[1] != status:
            self.write(fact, status, source, now)

    def restate(self, status: int, now: datetime, source: datetime | None = None) -> None:
        """Another status for the value that there is, if there is one; ``source``: and another source time."""
        fact, _, of_value, _ = self._said
        if fact is not None:
            self.write(fact, status, source or of_value, now)
