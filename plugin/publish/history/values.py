"""Answers as bytes: whole columns at once, for a page may have thousands of values (OPC 10000-6, 5.2.2)."""

import struct
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from asyncua import ua
from numpy.typing import NDArray

from plugin.domain import Micros, SampleBatch, UpdateType, from_micros, quality
from plugin.publish.stamps import Stamps
from plugin.publish.wire import any_data_value

_1601 = 11_644_473_600_000_000
"""From there to 1970 [µs]."""
_STATUS, _SOURCE, _SERVER, _VALUE = 0x02, 0x04, 0x08, 0x01
_SCALARS = {
    ua.VariantType.Double: (11, "<f8"),
    ua.VariantType.Boolean: (1, "<u1"),
    ua.VariantType.Int32: (6, "<i4"),
}
_UPDATES = {UpdateType.REPLACED: ua.HistoryUpdateType.Replace, UpdateType.DELETED: ua.HistoryUpdateType.Delete}


def data_values(batch: SampleBatch, kind: ua.VariantType, stamps: Stamps) -> bytes:
    """DataValues one after another; a Bad one, or one that is no number, has no value."""
    empty = np.isnan(batch.value) | (batch.status >= 0x8000_0000)
    mask = _STATUS | _SOURCE * stamps.source | _SERVER * stamps.server
    times = [column for column, asked in (("source", stamps.source), ("server", stamps.server)) if asked]
    ends = [("status", "<u4"), *((column, "<i8") for column in times)]
    code, width = _SCALARS[kind]
    whole = _filled(batch, [("mask", "u1"), ("type", "u1"), ("value", width), *ends], mask | _VALUE, code, ~empty)
    if not empty.any() and batch.text is None:
        return whole.tobytes()
    null = _filled(batch, [("mask", "u1"), *ends], mask, None, empty)
    rows = [(null if none else whole)[at].tobytes() for at, none in enumerate(empty.tolist())]
    for at in np.flatnonzero(batch.with_text()).tolist():
        rows[at] = _text(batch, at, stamps)
    return b"".join(rows)


def _filled(
    batch: SampleBatch, fields: list[tuple[str, str]], mask: int, code: int | None, valued: NDArray[np.bool_]
) -> NDArray[Any]:
    rows = np.zeros(len(batch), np.dtype(fields))
    rows["mask"], rows["status"] = mask, batch.status
    names = rows.dtype.names or ()
    if code is not None:
        rows["type"] = code
        rows["value"] = np.where(valued, batch.value, 0.0)
    for name, times in (("source", batch.source_time), ("server", batch.server_time)):
        if name in names:
            rows[name] = (times + _1601) * 10
    return rows


def _text(batch: SampleBatch, at: int, stamps: Stamps) -> bytes:
    status = int(batch.status[at])
    text = batch.text[at] if batch.text is not None and quality(status) < 2 else None
    value = ua.DataValue(ua.Variant(text, ua.VariantType.String) if text is not None else ua.Variant())
    made: Any = {"StatusCode": ua.StatusCode(ua.UInt32(status))}
    if stamps.source:
        made["SourceTimestamp"] = from_micros(int(batch.source_time[at]))
    if stamps.server:
        made["ServerTimestamp"] = from_micros(int(batch.server_time[at]))
    return any_data_value(replace(value, **made))


def history_data(values: bytes, count: int) -> ua.ExtensionObject:
    """HistoryData (OPC 10000-11, 6.6.2)."""
    kind = ua.NodeId(ua.Int32(ua.ObjectIds.HistoryData_Encoding_DefaultBinary))
    return ua.ExtensionObject(kind, ua.ByteString(struct.pack("<i", count) + values))


def modified_data(
    values: bytes, when: Sequence[Micros], what: Sequence[UpdateType], who: Sequence[str]
) -> ua.ExtensionObject:
    """HistoryModifiedData (OPC 10000-11, 6.6.3)."""
    infos = (
        struct.pack("<qi", (time + _1601) * 10, _UPDATES[update]) + _string(user)
        for time, update, user in zip(when, what, who, strict=True)
    )
    count = struct.pack("<i", len(when))
    kind = ua.NodeId(ua.Int32(ua.ObjectIds.HistoryModifiedData_Encoding_DefaultBinary))
    return ua.ExtensionObject(kind, ua.ByteString(b"".join((count, values, count, *infos))))


def _string(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<i", len(encoded)) + encoded
