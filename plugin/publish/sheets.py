"""What one prediction says, on several nodes, kept once for all of them: a run costs a few references for each.

A cell for each node would have to be fetched from memory and written when its turn comes, and mostly for nobody.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from asyncua import ua

from plugin.domain import HIGH_LIMITED, Status
from plugin.publish.cells import BAD, Face, data_of
from plugin.publish.wire import data_value

_NOT_LIMITED = ~HIGH_LIMITED


class Sheet:
    """Variables that are written in one go: a value, what shares its status, and the times that it is about.

    What is at its limit is the value, not what stands beside it; and where there is nothing to be said the status is
    BadNoData, or the Bad one that all have. The times are Good, and stay when the value is taken back.
    """

    __slots__ = (
        "_blank_now", "_blank_source", "_given_now", "_given_source", "_heard", "_now", "_source", "faces", "facts",
        "status", "times",
    )  # fmt: skip

    def __init__(self, kinds: Sequence[ua.VariantType], times: int, now: datetime) -> None:
        """Waiting for their first data since ``now``; ``kinds``: of the value, and of what shares its status."""
        every = (*kinds, *[ua.VariantType.DateTime] * times)
        self.faces = tuple(_Face(self, place, kind) for place, kind in enumerate(every))
        """The value's, those that share its status, and those of its times."""
        self.facts: tuple[Any, ...] = (None,) * len(kinds)
        """The value and what shares its status, whatever that is; None: there is none."""
        self.times: tuple[datetime | None, ...] = (None,) * times
        self.status: int = Status.BAD_WAITING_FOR_INITIAL_DATA
        """Of the value."""
        self._source = self._blank_source = self._given_source = now
        self._now = self._blank_now = self._given_now = now
        self._heard: tuple[_Face, ...] = ()

    def write(
        self, facts: tuple[Any, ...], times: tuple[datetime, ...], status: int, source: datetime, now: datetime
    ) -> None:
        """Set all, and hand them to the subscriptions before it returns. Times that no variable shows may follow."""
        before = [face.present for face in self._heard] if self._heard else None
        self.facts = facts
        self.times = times
        self.status = status
        self._source = self._blank_source = self._given_source = source
        self._now = self._blank_now = self._given_now = now
        if before:
            self._tell(before)

    def withhold(self, status: int, now: datetime) -> None:
        """There is no value any more, and why; ``status`` is Bad."""
        before = [face.present for face in self._heard]
        self.facts, self.status = (None,) * len(self.facts), status
        self._source = self._blank_source = self._now = self._blank_now = now
        self._tell(before)

    def restate(self, status: int, now: datetime, source: datetime | None = None) -> None:
        """Another status for what there is; ``source``: and another source time."""
        before = [face.present for face in self._heard]
        self.status, self._source, self._now = status, source or self._source, now
        self._tell(before)

    def _tell(self, before: Sequence[tuple[Any, int, datetime]]) -> None:
        for face, present in zip(self._heard, before, strict=True):
            face.tell_news(present)

    def at(self, place: int) -> tuple[Any, int, datetime, datetime]:
        """Of one variable: value (None under a Bad status), status, source time and server time."""
        shared = len(self.facts)
        if place >= shared:
            time = self.times[place - shared]
            status = Status.BAD_WAITING_FOR_INITIAL_DATA if time is None else Status.GOOD
            return time, status, self._given_source, self._given_now
        fact, its = self.facts[place], self.status & _NOT_LIMITED if place else self.status
        if fact is None:
            return None, its if its >= BAD else Status.BAD_NO_DATA, self._blank_source, self._blank_now
        return None if its >= BAD else fact, its, self._source, self._now

    @property
    def source_time(self) -> datetime:
        """Of the value."""
        return self.faces[0].present[2]

    def settle(self) -> None:
        """Who listens has changed."""
        self._heard = tuple(face for face in self.faces if face.audience)


class _Face(Face):
    """Of one variable."""

    __slots__ = ("_kind", "_place", "_sheet")

    def __init__(self, sheet: Sheet, place: int, kind: ua.VariantType) -> None:
        super().__init__()
        self._sheet = sheet
        self._place = place
        self._kind = kind

    @property
    def value(self) -> ua.DataValue:
        """What a client reads at present."""
        return data_of(self._kind, *self._sheet.at(self._place))

    @value.setter
    def value(self, value: ua.DataValue) -> None:
        raise ua.UaError("what belongs to a sheet is written with all of it")

    @property
    def present(self) -> tuple[Any, int, datetime]:
        """As :class:`Face`."""
        return self._sheet.at(self._place)[:3]

    @property
    def content(self) -> bytes:
        """As :class:`Face`."""
        fact, status, source, now = self._sheet.at(self._place)
        return data_value(fact, self._kind, status, source, now)

    def _settle(self) -> None:
        self._sheet.settle()
