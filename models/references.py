"""How the inputs of a training, and what the model left unexplained there, were distributed: stored with weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.drift import Reference, correlation_time
from models.kind import Params

_PARTS = 256
"""Of rows that are cut up, at most, spread over all."""
_QUANTILES = 101
_LONGEST = 100_000
"""Cells of a row that are looked at for its correlation, the newest."""
_ROWS = 8
"""Rows that are looked at for it, spread over all."""
_VALUES = 1_000_000
"""That quantiles are taken of, roughly."""


@dataclass(frozen=True, slots=True, eq=False)
class References:
    """What live values are compared with."""

    inputs: Mapping[int, Reference]
    """By position on the feature axis; those alone that can be compared."""
    residual: Reference | None
    """Truth less what the model says without any correction; None: the kind can't tell."""
    seasonal: Reference | None = None
    """The same, with movements of weeks for noise: what is otherwise than here is drift, see :func:`of_seasons`."""

    def packed(self) -> Params:
        """As arrays, for an artifact."""
        params = {"position": np.array(list(self.inputs), np.int64), "inputs": _packed([*self.inputs.values()])}
        residual = [each for each in (self.residual, self.seasonal) if each is not None]
        return {**params, "residual": _packed(residual)} if residual else params

    def ranges(self, count: int, margin: float, still: float) -> "Ranges":
        """Of ``count`` features, wider by a share of each range; of one that hardly moved, of its largest value."""
        low, high = np.full((count, 1), -np.inf, np.float32), np.full((count, 1), np.inf, np.float32)
        for place, reference in self.inputs.items():
            low[place], high[place] = _bounds(reference, margin, still)
        return Ranges(low, high)

    @classmethod
    def unpacked(cls, params: Params) -> "References":
        """The other way round."""
        inputs = dict(zip(params["position"].tolist(), _unpacked(params["inputs"]), strict=True))
        residual = _unpacked(params["residual"]) if "residual" in params else []
        return cls(inputs, *residual) if residual else cls(inputs, None)


@dataclass(frozen=True, slots=True, eq=False)
class Ranges:
    """From where to where values may be, feature by feature [f, 1]; infinite where nothing is known."""

    low: NDArray[np.float32]
    high: NDArray[np.float32]

    def beyond(self, values: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Which of the values [..., f, t] are not."""
        found: NDArray[np.bool_] = (values < self.low) | (values > self.high)
        return found


def of_rows(rows: Sequence[NDArray[np.floating]]) -> Reference | None:
    """Of one feature in rows [t] of any lengths, each as long as can be had in one piece; NaN: not observed.

    The longer the rows, the slower a movement that counts as usual. None: nothing was observed.
    """
    seen = [row[np.isfinite(row)].astype(np.float64) for row in rows]
    count = sum(map(len, seen))
    if not count:
        return None
    spread = rows[:: -(-len(rows) // _ROWS)]
    times = [correlation_time(row[None, -_LONGEST:]) for row in spread if np.isfinite(row).any()]
    time = float(np.median(times)) if times else 1.0
    thinned = np.concatenate([row[:: -(-count // _VALUES)] for row in seen])
    quantiles = np.quantile(thinned, np.linspace(0.0, 1.0, _QUANTILES))
    quantiles[0] = min(float(row.min()) for row in seen if len(row))
    quantiles[-1] = max(float(row.max()) for row in seen if len(row))
    return Reference(quantiles, int(np.ceil(time)), max(1.0, count / time))


def of_seasons(rows: Sequence[NDArray[np.floating]], cells: int) -> Reference | None:
    """Of one number in rows [t] of any lengths, cut into parts of ``cells`` or a little more; NaN: not observed.

    What moves slower than a part is long counts as drift, what moves faster as noise. None: nothing was observed.
    """
    parts = [part for row in rows for part in np.array_split(row, max(1, len(row) // cells))]
    parts = parts[:: max(1, -(-len(parts) // _PARTS))]
    longest = max(map(len, parts), default=0)
    filled = [np.pad(part.astype(np.float64), (0, longest - len(part)), constant_values=np.nan) for part in parts]
    return Reference.of(np.stack(filled)) if any(np.isfinite(part).any() for part in filled) else None


def outside(reference: Reference, values: NDArray[np.floating], margin: float) -> NDArray[np.bool_]:
    """Which values [t] are beyond all of the training by more than ``margin``, a share of its range; NaN is not."""
    low, high = _bounds(reference, margin, 1e-6)  # a constant is told by 32 bits
    found: NDArray[np.bool_] = (values < low) | (values > high)
    return found


def _bounds(reference: Reference, margin: float, still: float) -> tuple[float, float]:
    low, high = float(reference.quantiles[0]), float(reference.quantiles[-1])
    room = max(margin * (high - low), still * max(abs(low), abs(high)))
    return low - room, high + room


def _packed(references: Sequence[Reference]) -> Params:
    quantiles = [each.quantiles for each in references]
    return {
        "quantiles": np.array(quantiles, np.float64).reshape(len(references), _QUANTILES),
        "spacing": np.array([each.spacing for each in references], np.int64),
        "independent": np.array([each.independent for each in references], np.float64),
    }


def _unpacked(params: Params) -> list[Reference]:
    columns = params["quantiles"], params["spacing"].tolist(), params["independent"].tolist()
    return [Reference(*row) for row in zip(*columns, strict=True)]
