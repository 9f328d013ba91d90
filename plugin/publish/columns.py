"""Numbers that are written thousands at once: what a value costs is NumPy's arithmetic, also where somebody listens.

A cell for each, in its own lines of the processor's cache, costs 1 to 2 µs a value when its turn comes once a second.
"""

from datetime import datetime
from typing import Any

import numpy as np
from asyncua import ua
from numpy.typing import NDArray

from plugin.domain import Micros, Status, from_micros, to_micros
from plugin.publish.audience import NOWHERE, Audience, Wish
from plugin.publish.cells import BAD, Face, data_of
from plugin.publish.packed import Packed
from plugin.publish.wire import data_value, doubles, nulls

_Rows = NDArray[np.int64]


class Column:
    """Variables of Doubles; the value of one may be a text at times."""

    def __init__(self, rows: int, now: datetime) -> None:
        """Waiting for their first data since ``now``."""
        self.value = np.full(rows, np.nan)
        self.text: dict[int, str] = {}
        """In place of the number."""
        self.status = np.full(rows, Status.BAD_WAITING_FOR_INITIAL_DATA, np.uint32)
        self.source = np.full(rows, to_micros(now))
        self.server = self.source.copy()
        self.faces = tuple(_Face(self, row) for row in range(rows))
        self._places = {wish: np.full(rows, NOWHERE) for wish in (Wish.CHANGE, Wish.STAMP)}
        self._choosy = np.zeros(rows, np.bool_)
        self._audience: Audience | None = None
        """Of any of them: their server is the same."""

    def write(
        self,
        rows: _Rows,
        value: NDArray[np.float64],
        status: NDArray[np.uint32],
        source: NDArray[np.int64],
        now: datetime,
    ) -> None:
        """Set numbers, of each row one, and hand them to the subscriptions before it returns."""
        audience, server = self._audience, to_micros(now)
        if audience is not None:
            # What was reported to those that share is what was said before: it is compared once for all of them.
            differs = (value != self.value[rows]) & (status < BAD)
            change = differs | (status != self.status[rows])
            stamp = change | (source != self.source[rows])
        self.value[rows], self.status[rows], self.source[rows], self.server[rows] = value, status, source, server
        if self.text:
            for row in rows.tolist():
                self.text.pop(row, None)
        if audience is not None:
            self._tell(audience, {Wish.CHANGE: rows[change], Wish.STAMP: rows[stamp]}, server)

    def write_text(self, row: int, text: str, status: int, source: Micros, now: datetime) -> None:
        """Set one that is no number."""
        face = self.faces[row]
        before = face.present
        self.text[row], self.value[row] = text, np.nan
        self.status[row], self.source[row], self.server[row] = status, source, to_micros(now)
        face.tell_news(before)

    def hear(self, row: int, audience: Audience) -> None:
        """Who listens to a row is as the audience says from now on."""
        self._audience = audience
        for wish, places in self._places.items():
            places[row] = audience.place(wish)
        self._choosy[row] = bool(audience.choosy)

    def _tell(self, audience: Audience, news: dict[Wish, _Rows], server: Micros) -> None:
        for wish, rows in news.items():
            places = self._places[wish][rows]
            heard = places != NOWHERE
            self._say(audience, rows[heard], places[heard], server)
        stamped = news[Wish.STAMP]
        for row in stamped[self._choosy[stamped]].tolist():
            self.faces[row].tell_choosy()

    def _say(self, audience: Audience, rows: _Rows, places: _Rows, server: Micros) -> None:
        status, source = self.status[rows], self.source[rows]
        empty = status >= BAD
        plain = ~empty
        if plain.any():
            said = doubles(self.value[rows[plain]], status[plain], source[plain], server)
            audience.changes.add_all(Packed.records(places[plain], said))
        if empty.any():
            said = nulls(status[empty], source[empty], server)
            audience.changes.add_all(Packed.records(places[empty], said))


class _Face(Face):
    """Of one row."""

    __slots__ = ("_column", "_row")

    def __init__(self, column: Column, row: int) -> None:
        super().__init__()
        self._column = column
        self._row = row

    @property
    def value(self) -> ua.DataValue:
        """What a client reads at present."""
        return data_of(self._kind, *self.present, self._server)

    @value.setter
    def value(self, value: ua.DataValue) -> None:
        raise ua.UaError("a row of a column is written by its column")

    @property
    def present(self) -> tuple[Any, int, datetime]:
        """As :class:`Face`."""
        column, row = self._column, self._row
        status, source = int(column.status[row]), from_micros(int(column.source[row]))
        return None if status >= BAD else column.text.get(row, float(column.value[row])), status, source

    @property
    def content(self) -> bytes:
        """As :class:`Face`."""
        fact, status, source = self.present
        return data_value(fact, self._kind, status, source, self._server)

    @property
    def _kind(self) -> ua.VariantType:
        return ua.VariantType.String if self._row in self._column.text else ua.VariantType.Double

    @property
    def _server(self) -> datetime:
        return from_micros(int(self._column.server[self._row]))

    def _settle(self) -> None:
        if self.audience is not None:
            self._column.hear(self._row, self.audience)
