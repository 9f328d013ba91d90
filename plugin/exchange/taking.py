"""Rows of a file as samples."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from plugin.domain import Micros, Quality, Reject, SampleBatch, Status, qualities
from plugin.exchange.columns import is_text, nulls, unescaped
from plugin.exchange.pieces import Piece
from plugin.exchange.plan import Plan
from plugin.exchange.roster import Roster
from plugin.exchange.statuses import status_of
from plugin.exchange.terms import Codes, Layout, Wrong
from plugin.exchange.times import Clock
from plugin.exchange.values import Notation, Numbers

_SHOWN = 200
"""Characters of a cell that is quarantined."""


@dataclass(frozen=True, slots=True)
class Reader:
    """How the cells of one file are read."""

    names: Sequence[str]
    """Its heading."""
    plan: Plan
    clock: Clock
    server_clock: Clock
    notation: Notation
    codes: Codes | None
    """None: small numbers are no status."""
    escaped: bool
    """Texts have a mark before them where a spreadsheet would take them for a formula."""
    latest: Micros
    """Source times after this one are refused."""

    def cleaned(self, piece: Piece) -> Piece:
        """What the two below want: without blanks in place of nothing, and without marks before texts."""
        return replace(piece, columns={column: self._clean(column, cells) for column, cells in piece.columns.items()})

    def tags(self, piece: Piece) -> list[str]:
        """Names of tags in it."""
        if self.plan.layout is Layout.WIDE:
            return [self.names[column] for column, _ in self.plan.values]
        assert self.plan.tag is not None  # noqa: S101 - the plan of a long file has it
        return [name for name in pc.unique(_text(piece.columns[self.plan.tag])).to_pylist() if name is not None]

    def take(self, piece: Piece, roster: Roster, received: Micros) -> "Taken":
        """Its samples, in order of time; ``received``: our clock."""
        taken = self._wide(piece, roster) if self.plan.layout is Layout.WIDE else self._long(piece, roster)
        batch = _scaled(taken.samples, roster)
        batch = replace(batch, received_time=np.full(len(batch), received))
        order = np.argsort(batch.source_time, kind="stable")
        return replace(taken, samples=batch.take(order), rows=taken.rows[order], names=taken.names[order])

    def _clean(self, column: int, cells: Any) -> Any:
        """Without cells that hold blanks alone, and texts without the mark that kept them from being formulas."""
        if not is_text(cells.type):
            return cells
        is_value = column == self.plan.value or any(column == value for value, _ in self.plan.values)
        if self.escaped and (column in {self.plan.text, self.plan.tag} or (is_value and self.notation.texts)):
            cells = unescaped(cells)
        if column == self.plan.text or (is_value and self.notation.texts):
            return cells
        return pc.if_else(pc.equal(pc.utf8_trim_whitespace(cells), ""), pa.scalar(None, cells.type), cells)

    # --- a line per sample ---

    def _long(self, piece: Piece, roster: Roster) -> "Taken":
        plan, cells = self.plan, piece.columns
        assert plan.tag is not None  # noqa: S101 - the plan of a long file has it, and
        assert plan.value is not None  # noqa: S101 - this too
        names = _text(cells[plan.tag]).dictionary_encode()
        wrong: dict[int, Wrong] = {column: Wrong.none(len(piece.rows)) for column in plan.columns}
        wrong[plan.tag].add(nulls(names), "there is no tag")
        keys = np.array([roster.ids.get(name, 0) for name in names.dictionary.to_pylist()] + [0], np.int32)
        place = pc.fill_null(names.indices, len(keys) - 1).to_numpy(zero_copy_only=False)
        times = self._times(cells[plan.time], wrong[plan.time])
        numbers = self.notation.read(cells[plan.value], wrong[plan.value])
        texts = self._texts(cells, numbers)
        status = self._statuses(cells, numbers, texts, wrong)
        server = times
        if plan.server_time is not None:
            column = cells[plan.server_time]
            told = ~nulls(column)
            found = self.server_clock.read(column, late := Wrong.none(len(piece.rows)))
            late.forget(~told)
            wrong[plan.server_time] = late
            server = np.where(told, found, times)
        blank = np.logical_and.reduce([nulls(cells[column]) for column in plan.columns])
        bad = np.logical_or.reduce([each.mask for each in wrong.values()])
        bad |= np.isin(piece.rows, [reject.row for reject in piece.rejects])
        known = keys[place] > 0
        for name, count in zip(*np.unique(place[~known & ~bad], return_counts=True), strict=True):
            roster.unknown[names.dictionary[int(name)].as_py()] += int(count)
        fine = np.flatnonzero(~bad & known)
        batch = SampleBatch(keys[place], times, numbers.values, status, server, times)
        batch = batch if texts is None else replace(batch, text=texts)
        rejects = [r for column, each in wrong.items() for r in self._rejects(piece, column, each, ~blank)]
        names_of = np.full(len(fine), plan.value)
        return Taken(batch.take(fine), piece.rows[fine], names_of, (*piece.rejects, *rejects))

    def _times(self, cells: Any, wrong: Wrong) -> NDArray[np.int64]:
        times = self.clock.read(cells, wrong)
        wrong.add(times > self.latest, "is yet to come; --future takes it")
        return times

    def _texts(self, cells: dict[int, Any], numbers: Numbers) -> NDArray[np.object_] | None:
        if self.plan.text is None:
            return numbers.texts
        column = _text(cells[self.plan.text])
        if column.null_count == len(column):
            return numbers.texts
        told: NDArray[np.object_] = column.to_numpy(zero_copy_only=False)
        return told if numbers.texts is None else np.where(nulls(column), numbers.texts, told)

    def _statuses(
        self, cells: dict[int, Any], numbers: Numbers, texts: NDArray[np.object_] | None, wrong: dict[int, Wrong]
    ) -> NDArray[np.uint32]:
        told = None
        if self.plan.status is not None:
            told = self._told(cells[self.plan.status], wrong[self.plan.status])
        empty = np.isnan(numbers.values)
        if texts is not None:
            empty &= np.array([text is None for text in texts.tolist()], np.bool_)
        return _status(told, numbers, np.where(empty, np.uint32(Status.BAD_NO_DATA), np.uint32(Status.GOOD)))

    def _told(self, cells: Any, wrong: Wrong) -> tuple[NDArray[np.uint32], NDArray[np.bool_]]:
        """What a column of statuses says, and where it says anything."""
        different = _text(cells).dictionary_encode()
        codes = [status_of(text, self.codes) for text in different.dictionary.to_pylist()]
        place = pc.fill_null(different.indices, len(codes)).to_numpy(zero_copy_only=False)
        unknown = np.array([*(code is None for code in codes), False])
        wrong.add(unknown[place], "is no status that is known; of numbers below 256 --codes says what they are")
        return np.array([*(code or 0 for code in codes), 0], np.uint32)[place], place < len(codes)

    # --- a column per tag ---

    def _wide(self, piece: Piece, roster: Roster) -> "Taken":
        rejects = list(piece.rejects)
        late = Wrong.none(len(piece.rows))
        times = self._times(piece.columns[self.plan.time], late)
        blank = np.logical_and.reduce([nulls(piece.columns[column]) for column in self.plan.columns])
        rejects += self._rejects(piece, self.plan.time, late, ~blank)
        late.mask |= np.isin(piece.rows, [reject.row for reject in piece.rejects if not reject.column])
        parts = [self._stacked(piece, pairs, times, late.mask, roster, rejects) for pairs in self._alike(piece, roster)]
        if not parts:
            return Taken(SampleBatch.empty(), np.array([], np.int64), np.array([], np.int64), tuple(rejects))
        return Taken(
            SampleBatch.concatenate([part.samples for part in parts]),
            np.concatenate([part.rows for part in parts]),
            np.concatenate([part.names for part in parts]),
            tuple(rejects),
        )

    def _alike(self, piece: Piece, roster: Roster) -> Iterator[list[tuple[int, int | None]]]:
        """Columns of known tags that have one type, so that they can be read as one; the others are counted."""
        kinds: dict[Any, list[tuple[int, int | None]]] = {}
        for column, status in self.plan.values:
            cells = piece.columns[column]
            if roster.ids.get(self.names[column]):
                kinds.setdefault(cells.type, []).append((column, status))
            else:
                roster.unknown[self.names[column]] += len(cells) - cells.null_count
        yield from kinds.values()

    def _stacked(
        self, piece: Piece, pairs: Sequence[tuple[int, int | None]], times: NDArray[np.int64],
        left_out: NDArray[np.bool_], roster: Roster, rejects: list[Reject],
    ) -> "Taken":  # fmt: skip
        count, columns = len(piece.rows), [column for column, _ in pairs]
        cells = pa.concat_arrays([piece.columns[column] for column in columns])
        wrong, unsure = Wrong.none(len(cells)), Wrong.none(len(cells))
        numbers = self.notation.read(cells, wrong)
        told = self._stacked_statuses(piece, pairs, unsure)
        status = _status(told, numbers, np.full(len(cells), Status.GOOD, np.uint32))
        place, row = np.divmod(np.arange(len(cells)), count)
        there = ~nulls(cells) | (told[1] if told is not None else False)
        wrong.forget(left_out[row])
        unsure.forget(left_out[row])
        rejects += _cells(piece, columns, self.names, wrong)
        rejects += _cells(piece, [status or column for column, status in pairs], self.names, unsure)
        fine = np.flatnonzero(there & ~left_out[row] & ~wrong.mask & ~unsure.mask)
        keys = np.array([roster.ids[self.names[column]] for column in columns], np.int32)
        batch = SampleBatch(keys[place], times[row], numbers.values, status, times[row], times[row])
        batch = batch if numbers.texts is None else replace(batch, text=numbers.texts)
        return Taken(batch.take(fine), piece.rows[row[fine]], np.array(columns)[place[fine]], ())

    def _stacked_statuses(
        self, piece: Piece, pairs: Sequence[tuple[int, int | None]], wrong: Wrong
    ) -> tuple[NDArray[np.uint32], NDArray[np.bool_]] | None:
        if all(status is None for _, status in pairs):
            return None
        empty = pa.nulls(len(piece.rows), pa.string())
        columns = [empty if status is None else _text(piece.columns[status]) for _, status in pairs]
        return self._told(pa.concat_arrays(columns), wrong)

    def _rejects(self, piece: Piece, column: int, wrong: Wrong, there: NDArray[np.bool_]) -> list[Reject]:
        cells = piece.columns[column]
        return [
            Reject(int(piece.rows[row]), self.names[column], shown(cells[row].as_py()), reason)
            for row, reason in wrong.reasons.items()
            if there[row]
        ]


@dataclass(frozen=True, slots=True, eq=False)
class Taken:
    """What a piece of a file came to."""

    samples: SampleBatch
    rows: NDArray[np.int64]
    """The row of the file that each sample is from."""
    names: NDArray[np.int64]
    """The column that its value is from, by its place in the heading."""
    rejects: tuple[Reject, ...]


def _scaled(batch: SampleBatch, roster: Roster) -> SampleBatch:
    """In the units of the tags. Digits that the double could not hold are no longer those of the number."""
    scales = roster.scales(batch.tag)
    if scales is None:
        return batch
    if batch.text is not None:
        changed = ~np.isnan(batch.value) & ((scales[0] != 1.0) | (scales[1] != 0.0))
        texts = batch.text.copy()
        texts[changed] = None
        batch = replace(batch, text=texts)
    return replace(batch, value=batch.value * scales[0] + scales[1])


def _status(
    told: tuple[NDArray[np.uint32], NDArray[np.bool_]] | None, numbers: Numbers, otherwise: NDArray[np.uint32]
) -> NDArray[np.uint32]:
    """What the status column says; where that says Good or nothing, the state in place of the number."""
    status = otherwise if told is None else np.where(told[1], told[0], otherwise)
    if numbers.status is None or numbers.known is None:
        return status
    better = numbers.known & ((qualities(status) == Quality.GOOD) | ~(told[1] if told is not None else numbers.known))
    return np.where(better, numbers.status, status)


def _cells(piece: Piece, columns: Sequence[int], names: Sequence[str], wrong: Wrong) -> Iterator[Reject]:
    """Of columns that were stacked."""
    for index, reason in wrong.reasons.items():
        place, row = divmod(index, len(piece.rows))
        column = columns[place]
        yield Reject(int(piece.rows[row]), names[column], shown(piece.columns[column][row].as_py()), reason)


def _text(cells: Any) -> Any:
    return cells if is_text(cells.type) else pc.cast(cells, pa.string())


def shown(cell: Any) -> str:
    """A cell as it is quarantined: short, and without what would steer a terminal."""
    text = "" if cell is None else str(cell)
    printable = "".join(character if character.isprintable() else "�" for character in text[: _SHOWN + 1])
    return printable if len(printable) <= _SHOWN else printable[: _SHOWN - 1] + "…"
