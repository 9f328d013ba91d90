"""Rows of a file that follow one another, and its heading: what every format is read into."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from plugin.domain import Reject
from plugin.errors import ExchangeError
from plugin.exchange.columns import unescaped

CELLS = 200_000
"""In a piece, about."""


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Some rows of a file that follow one another."""

    rows: NDArray[np.int64]
    """Their numbers, from 1, the heading left out [n]."""
    columns: dict[int, Any]
    """Arrow arrays [n] of those that were asked for, by their place in the heading."""
    rejects: tuple[Reject, ...] = ()
    """What is not among the rows, or of a row among them can't be read."""

    def after(self, row: int) -> "Piece":
        """What is behind that row."""
        first = int(np.searchsorted(self.rows, row, side="right"))
        columns = {column: cells.slice(first) for column, cells in self.columns.items()}
        return Piece(self.rows[first:], columns, tuple(reject for reject in self.rejects if reject.row > row))


def heading(names: Sequence[str], path: Path, *, escaped: bool = False) -> tuple[str, ...]:
    """Without blanks round them, nor the mark that made them harmless. ExchangeError where it can be no heading."""
    found = tuple(name.strip() for name in names)
    found = tuple(unescaped(pa.array(found, pa.string())).to_pylist()) if escaped else found
    twins = sorted({name for name in found if name and found.count(name) > 1})
    if twins:
        raise ExchangeError(
            f"{path.name}: the heading has {twins[0]!r} {found.count(twins[0])} times: rename one of them"
        )
    if len([name for name in found if name]) < 2:
        raise ExchangeError(
            f"{path.name}: the heading {', '.join(found)[:80]!r} names fewer than two columns; --delimiter says what "
            "parts them, --skip how many lines stand above it"
        )
    return found
