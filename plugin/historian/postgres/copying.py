"""Samples in PostgreSQL's binary COPY format (PostgreSQL manual, COPY, "Binary Format"): columns to rows and back.

Each row is a count of fields, and before each field its length; all big-endian. Rows of one table are alike but for
NULL, which has the length -1 and no bytes: rows are built alike, and those bytes taken out.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plugin.domain import SampleBatch
from plugin.historian.rows import COLUMNS, from_rows, to_rows

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"

_PORTION = 4096
"""Rows built at once: some 0.3 MB, and less than 1 ms of the event loop."""
_NULL = -1

Fields = Sequence[tuple[str, str]]

STORED: Fields = (
    ("source_time", ">i8"), ("tag_id", ">i4"), ("ordinal", ">i4"), ("value", ">f8"), ("status", ">i8"),
    ("server_delay", ">i8"), ("received_delay", ">i8"),
)  # fmt: skip
"""Columns of ``samples``, in their order."""
ARRIVED: Fields = (("place", ">i4"), *(field for field in STORED if field[0] != "ordinal"))
"""Columns of samples that have no ordinal yet, but a place in the order of arrival."""


def _row(fields: Fields) -> np.dtype[Any]:
    parts = [part for name, dtype in fields for part in ((f"{name} length", ">i4"), (name, dtype))]
    return np.dtype([("fields", ">i2"), *parts])


_ROWS = {fields: _row(fields) for fields in (STORED, ARRIVED)}


def encoded(batch: SampleBatch, fields: Fields) -> Iterator[bytes]:
    """A batch in portions, header and trailer included; NaN becomes NULL, and every ordinal is 0."""
    yield HEADER
    for start in range(0, len(batch), _PORTION):
        yield _portion(batch.take(slice(start, start + _PORTION)), fields, start)
    yield TRAILER


def _portion(batch: SampleBatch, fields: Fields, start: int) -> bytes:
    rows = np.empty(len(batch), _ROWS[fields])
    rows["fields"] = len(fields)
    for name, dtype in fields:
        rows[f"{name} length"] = np.dtype(dtype).itemsize
    tag, source, value, status, server, received = to_rows(batch)
    rows["place" if fields is ARRIVED else "ordinal"] = np.arange(start, start + len(batch)) if fields is ARRIVED else 0
    columns = {
        "source_time": source,
        "tag_id": tag,
        "status": status,
        "server_delay": server,
        "received_delay": received,
    }
    for name, column in columns.items():
        rows[name] = column
    rows["value"] = value + 0.0  # -0.0 becomes 0.0: it is the same value, and comes back the same from every store
    null = np.isnan(value)
    return _without(rows, null) if null.any() else rows.tobytes()


def _without(rows: NDArray[Any], null: NDArray[np.bool_]) -> bytes:
    """Rows whose values are NULL where the mask says so."""
    rows["value length"][null] = _NULL
    place = rows.dtype.fields["value"][1] if rows.dtype.fields is not None else 0
    keep = np.ones((len(rows), rows.dtype.itemsize), np.bool_)
    keep[null, place : place + 8] = False
    flat: NDArray[np.uint8] = rows.view(np.uint8).reshape(keep.shape)
    return flat[keep].tobytes()


class Decoder:
    """Takes what a COPY of :data:`STORED` columns sends, in pieces of any size; values are sent as NaN, never NULL."""

    def __init__(self) -> None:
        self._left = b""
        self._begun = False
        self._parts: list[NDArray[Any]] = []

    async def take(self, data: bytes) -> None:
        """The next piece."""
        if self._left:
            data = self._left + data
        if not self._begun:
            if len(data) < len(HEADER):
                self._left = data
                return
            data, self._begun = data[len(HEADER) :], True
        size = _ROWS[STORED].itemsize
        whole = len(data) // size
        if whole:
            self._parts.append(np.frombuffer(data, _ROWS[STORED], whole))
        self._left = data[whole * size :]

    def rows(self) -> tuple[SampleBatch, NDArray[np.int32]]:
        """All samples ordered by (tag, source time, ordinal), and their ordinals."""
        rows = np.concatenate(self._parts) if self._parts else np.empty(0, _ROWS[STORED])
        batch = from_rows([rows[name] for name in COLUMNS.split(", ")])
        ordinal = rows["ordinal"].astype(np.int32)
        order = _order(batch, ordinal)
        return batch.take(order), ordinal[order]


def _order(batch: SampleBatch, ordinal: NDArray[np.int32]) -> NDArray[np.intp]:
    """By tag, then source time, then ordinal: two stable sorts where, as nearly always, every ordinal is 0."""
    if ordinal.any():
        return np.lexsort((ordinal, batch.source_time, batch.tag))
    by_time = np.argsort(batch.source_time, kind="stable")
    return by_time[np.argsort(batch.tag[by_time], kind="stable")]
