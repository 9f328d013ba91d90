"""Values as people and historians write them, a column at a time."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from plugin.exchange.columns import is_text, nulls
from plugin.exchange.statuses import state_of
from plugin.exchange.terms import Wrong

_EXACT = 2.0**53
_NUMBER = r"^[+-]?(\d{1,400}\.?\d{0,400}|\.\d{1,400})([eE][+-]?\d{1,4})?$"
_ODD = {
    "true": 1.0, "false": 0.0, "nan": np.nan, "inf": np.inf, "+inf": np.inf, "-inf": -np.inf,
    "infinity": np.inf, "-infinity": -np.inf,
}  # fmt: skip
_GROUPED = {",": r",(\d{3})", ".": r"\.(\d{3})", " ": "[ \u00a0\u202f](\\d{3})", "'": "['\u2019](\\d{3})"}


@dataclass(frozen=True, slots=True)
class Notation:
    """How numbers are written in one file."""

    decimal: str = "."
    thousands: str = ""
    """``,``, ``.``, a space or an apostrophe between groups of three digits; empty: there is none."""
    texts: bool = False
    """What is no number is a text; else it is wrong."""

    def read(self, cells: Any, wrong: Wrong) -> "Numbers":
        """What is no number is noted in ``wrong``; a null is NaN."""
        kind = cells.type
        if pa.types.is_integer(kind) or pa.types.is_decimal(kind):
            return _whole(cells)
        if not is_text(kind):
            return Numbers(_floats(pc.cast(pc.cast(cells, pa.int8()) if kind == pa.bool_() else cells, pa.float64())))
        cells = pc.utf8_trim_whitespace(cells) if not self.texts else cells
        plain = self._plain(cells)
        try:
            values = _floats(pc.cast(plain, pa.float64()))
        except pa.ArrowInvalid:
            return self._mixed(cells, plain, wrong)
        if np.isinf(values).any():
            return self._mixed(cells, plain, wrong)
        return Numbers(values, _digits(plain, values))

    def _plain(self, cells: Any) -> Any:
        """As programs write numbers, where a cell is one."""
        if self.thousands:
            group = _GROUPED[self.thousands]
            grouped = pc.match_substring_regex(cells, rf"^\s*[+-]?\d{{1,3}}({group})+(\D|$)")
            without = pc.replace_substring_regex(cells, group, r"\1")
            cells = pc.if_else(pc.fill_null(grouped, False), without, cells)
        if self.decimal == ",":
            stop = pc.fill_null(pc.match_substring(cells, "."), False)
            comma = pc.replace_substring(cells, ",", ".", max_replacements=1)
            cells = pc.if_else(stop, "1.5?", comma)  # no number: a stop may have been meant to part thousands
        return cells

    def _mixed(self, cells: Any, plain: Any, wrong: Wrong) -> "Numbers":
        trimmed = pc.utf8_trim_whitespace(plain)
        numeric = pc.match_substring_regex(trimmed, _NUMBER)
        plain = pc.if_else(numeric, trimmed, pa.scalar(None, trimmed.type))
        values = _floats(pc.cast(plain, pa.float64())).copy()
        wrong.add(np.isinf(values), "is too large a number")
        values[np.isinf(values)] = np.nan
        texts = _digits(plain, values)
        status = np.zeros(len(cells), np.uint32)
        known = np.zeros(len(cells), np.bool_)
        other = pc.if_else(pc.fill_null(numeric, True), pa.scalar(None, cells.type), cells).dictionary_encode()
        index = pc.fill_null(other.indices, -1).to_numpy(zero_copy_only=False)
        by_word = np.argsort(index, kind="stable")
        begins = np.searchsorted(index[by_word], np.arange(len(other.dictionary) + 1))
        for number, word in enumerate(other.dictionary.to_pylist()):
            rows = by_word[begins[number] : begins[number + 1]]
            code = state_of(word)
            if word.strip().casefold() in _ODD and not (self.texts and code is None and word.strip() != word):
                values[rows] = _ODD[word.strip().casefold()]
            elif code is not None:
                status[rows], known[rows] = code, True
            elif self.texts:
                texts = np.full(len(cells), None, np.object_) if texts is None else texts
                texts[rows] = word
            else:
                mask = np.zeros(len(cells), np.bool_)
                mask[rows] = True
                wrong.add(mask, "is no number")
        return Numbers(values, texts, status, known)


@dataclass(frozen=True, slots=True, eq=False)
class Numbers:
    """Cells as values."""

    values: NDArray[np.float64]
    texts: NDArray[np.object_] | None = None
    """As :attr:`plugin.domain.SampleBatch.text`."""
    status: NDArray[np.uint32] | None = None
    known: NDArray[np.bool_] | None = None
    """Where ``status`` is what the cell says: a state stood in place of the number."""


def _whole(cells: Any) -> Numbers:
    values = _floats(pc.cast(cells, pa.float64(), safe=False))
    return Numbers(values, _digits(pc.cast(cells, pa.string()), values))


def _digits(cells: Any, values: NDArray[np.float64]) -> NDArray[np.object_] | None:
    """The digits of whole numbers that a double can't hold; None: there are none."""
    rows = np.flatnonzero(np.abs(values) >= _EXACT)
    if not len(rows):
        return None
    texts = np.full(len(values), None, np.object_)
    for row, cell in zip(rows.tolist(), cells.take(pa.array(rows)).to_pylist(), strict=True):
        digits = cell.strip().lstrip("+")
        if digits.lstrip("-").isdigit() and abs(int(digits)) > _EXACT:
            texts[row] = digits
    return texts if any(text is not None for text in texts[rows]) else None


def _floats(cells: Any) -> NDArray[np.float64]:
    floats: NDArray[np.float64] = cells.to_numpy(zero_copy_only=False)
    return floats if not cells.null_count else np.where(nulls(cells), np.nan, floats)


def decimal_of(cells: Any) -> str:
    """The decimal mark of a file that does not part its columns by commas: a comma where numbers have one."""
    if not is_text(cells.type):
        return "."
    trimmed = pc.ascii_trim_whitespace(cells)
    commas = pc.sum(pc.match_substring_regex(trimmed, r"^[+-]?\d+,\d+([eE][+-]?\d+)?$")).as_py() or 0
    stops = pc.sum(pc.match_substring_regex(trimmed, r"^[+-]?\d*\.\d+([eE][+-]?\d+)?$")).as_py() or 0
    return "," if commas > stops else "."
