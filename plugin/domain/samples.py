"""What arrives."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from plugin.domain.times import Micros


@dataclass(frozen=True, slots=True, eq=False)
class SampleBatch:
    """Samples as columns of one length, in order of arrival (per tag: in the order the source reported them)."""

    tag: NDArray[np.int32]
    """:attr:`Tag.id` [n]."""
    source_time: NDArray[np.int64]
    """When the source took the value [µs]."""
    value: NDArray[np.float64]
    """The number [unit]; NaN where there is none (Bad status, null, not a number)."""
    status: NDArray[np.uint32]
    """Full OPC UA StatusCode."""
    server_time: NDArray[np.int64]
    """When the server had the value [µs]: later than source_time for a late laboratory value."""
    received_time: NDArray[np.int64]
    """When we had it [µs]. A store moves it on to when it was stored, where a scoring run had begun in between."""
    text: NDArray[np.object_] | None = None
    """What the number can't say, a ``str`` or None by row: a String, or the digits of an integer beyond 2^53.
    None for the whole batch (the usual case, and what costs nothing): no row has any."""

    def __len__(self) -> int:
        return len(self.tag)

    @classmethod
    def empty(cls) -> Self:
        """A batch of no samples."""
        return cls.of([], [], [], [], [], [])

    @classmethod
    def of(cls, tag: Any, source_time: Any, value: Any, status: Any, server_time: Any, received_time: Any) -> Self:
        """A batch from anything that NumPy takes; scalars are repeated to the length of ``tag``."""
        tag = np.asarray(tag, np.int32)

        def column(values: Any, dtype: Any) -> NDArray[Any]:
            array = np.asarray(values, dtype)
            return np.full(tag.shape, array) if array.ndim == 0 else array

        return cls(
            tag,
            column(source_time, np.int64),
            column(value, np.float64),
            column(status, np.uint32),
            column(server_time, np.int64),
            column(received_time, np.int64),
        )

    @classmethod
    def concatenate(cls, batches: Sequence["SampleBatch"]) -> "SampleBatch":
        """One batch of several, order kept."""
        if not batches:
            return cls.empty()
        if len(batches) == 1:
            return batches[0]
        columns = (np.concatenate(parts) for parts in zip(*(b.columns() for b in batches), strict=True))
        if all(batch.text is None for batch in batches):
            return cls(*columns)
        texts = [np.full(len(b), None, np.object_) if b.text is None else b.text for b in batches]
        return replace(cls(*columns), text=np.concatenate(texts))

    def columns(self) -> tuple[NDArray[Any], ...]:
        """The columns that every row has, in the order of the fields."""
        return self.tag, self.source_time, self.value, self.status, self.server_time, self.received_time

    def with_text(self) -> NDArray[np.bool_]:
        """Mask of the rows that have a text."""
        if self.text is None:
            return np.zeros(len(self), np.bool_)
        return np.array([text is not None for text in self.text.tolist()], np.bool_)

    def known(self, known_by: Micros | None, received_by: Micros | None) -> "SampleBatch":
        """The rows that the plant's server had by ``known_by``, and we by ``received_by``; None: whenever."""
        batch = self if known_by is None else self.take(self.server_time <= known_by)
        return batch if received_by is None else batch.take(batch.received_time <= received_by)

    def take(self, rows: Any) -> "SampleBatch":
        """The rows of an index array, a mask or a slice."""
        taken = SampleBatch(*(column[rows] for column in self.columns()))
        return taken if self.text is None else replace(taken, text=self.text[rows])
