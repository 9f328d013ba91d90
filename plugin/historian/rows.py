"""A sample as a row of ``samples`` has it: of its three clocks the first, and by how much each other one is later.

SQLite writes small numbers in few bytes: so a row takes 11 bytes less than with three whole stamps. Differences wrap
round like the numbers they are of, so that any stamps come back as they were.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plugin.domain import SampleBatch

COLUMNS = "tag_id, source_time, value, status, server_delay, received_delay"
"""In the order of :func:`to_rows`."""
_TYPES = (np.int32, np.int64, np.float64, np.uint32, np.int64, np.int64)


def to_rows(batch: SampleBatch) -> tuple[NDArray[Any], ...]:
    """``COLUMNS`` of a batch."""
    tag, source, value, status, server, received = batch.columns()
    return tag, source, value, status, server - source, received - server


def from_rows(columns: Sequence[Sequence[Any] | NDArray[Any]]) -> SampleBatch:
    """A batch of ``COLUMNS``; NULL becomes NaN."""
    tag, source, value, status, server, received = (
        np.asarray(column, dtype) for column, dtype in zip(columns, _TYPES, strict=True)
    )
    server = source + server
    return SampleBatch(tag, source, value, status, server, server + received)
