"""How long an alarm is still shelved: a number that nobody writes, for it is another one whenever it is looked at."""

from datetime import UTC, datetime
from typing import Any

from asyncua import ua

from plugin.domain import Status
from plugin.publish.cells import Face, data_of
from plugin.publish.wire import data_value

_DURATION = ua.VariantType.Double


def time_left(until: datetime | None, now: datetime) -> float:
    """UnshelveTime [ms]; 0 of what is not shelved, or not any more (OPC 10000-9, 5.8.17)."""
    return max((until - now).total_seconds() * 1000.0, 0.0) if until is not None else 0.0


class UnshelveTime(Face):
    """The value of that node."""

    __slots__ = ("_since", "_told", "_until")

    def __init__(self, now: datetime) -> None:
        """Not shelved."""
        super().__init__()
        self._until: datetime | None = None
        self._since = now
        self._told = self.present

    def shelve(self, until: datetime | None, now: datetime) -> None:
        """None: not shelved from now on."""
        if until != self._until:
            self._until, self._since = until, now
            self.tell_left()

    def tell_left(self) -> None:
        """To who listens: a value that nobody writes does not tell itself."""
        before, self._told = self._told, self.present
        self.tell_news(before)

    @property
    def present(self) -> tuple[Any, int, datetime]:
        """As :class:`Face`."""
        now = self._since if self._until is None else datetime.now(UTC)
        return time_left(self._until, now), Status.GOOD, now

    @property
    def value(self) -> ua.DataValue:
        """What a client reads at present."""
        return data_of(_DURATION, *self.present, datetime.now(UTC))

    @value.setter
    def value(self, value: ua.DataValue) -> None:
        raise ua.UaError("the time that is left is nobody's to write")

    @property
    def content(self) -> bytes:
        """As :class:`Face`."""
        fact, status, source = self.present
        return data_value(fact, _DURATION, status, source, datetime.now(UTC))
