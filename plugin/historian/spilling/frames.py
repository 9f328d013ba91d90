"""Deliveries as bytes, for the spill: samples as columns, and as JSON what belongs to them. Reading executes nothing.

length of the notes (8 bytes, little endian), notes, columns one after the other
"""

import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from pydantic import TypeAdapter

from plugin.domain import Gap, Remark, SampleBatch, Tag
from plugin.protocols import Delivery

_COLUMNS = (
    ("source_time", "<i8"), ("server_time", "<i8"), ("received_time", "<i8"), ("value", "<f8"), ("tag", "<i4"),
    ("status", "<u4"),
)  # fmt: skip
"""Wide ones first, behind notes of whole words: each column begins at a multiple of its width."""
_WORD = 8


@dataclass(frozen=True, slots=True)
class Kept:
    """A delivery and its source. It has lost its ``confirm``, which does not outlive a process."""

    source: str
    delivery: Delivery


@dataclass(frozen=True, slots=True)
class _Note:
    source: str
    rows: int
    gaps: tuple[Gap, ...] = ()
    remarks: tuple[Remark, ...] = ()
    checkpoint: Mapping[str, str] = field(default_factory=dict)
    texts: Mapping[int, str] = field(default_factory=dict)
    """By row."""


_NOTES = TypeAdapter(tuple[_Note, ...])
_TAGS = TypeAdapter(tuple[Tag, ...])


def pack(kept: Sequence[Kept]) -> list[bytes]:
    """The parts of a frame's payload."""
    batch = SampleBatch.concatenate([each.delivery.samples for each in kept])
    # by way of json: it also writes text that is no valid Unicode, as a plant may send it
    notes = json.dumps(_NOTES.dump_python(tuple(map(_note, kept)), mode="json"), separators=(",", ":")).encode()
    notes += b" " * (-len(notes) % _WORD)
    columns = (np.asarray(getattr(batch, name), dtype).tobytes() for name, dtype in _COLUMNS)
    return [len(notes).to_bytes(_WORD, "little"), notes, *columns]


def unpack(payload: bytes) -> list[Kept]:
    """What :func:`pack` was given; the columns are views of the payload."""
    end = _WORD + int.from_bytes(payload[:_WORD], "little")
    notes = _NOTES.validate_python(json.loads(payload[_WORD:end]))
    rows = sum(note.rows for note in notes)
    columns = {}
    for name, dtype in _COLUMNS:
        columns[name] = np.frombuffer(payload, dtype, rows, end)
        end += columns[name].nbytes
    batch, kept, row = SampleBatch(**columns), [], 0
    for note in notes:
        samples = batch.take(slice(row, row + note.rows))
        if note.texts:
            text = np.full(note.rows, None, np.object_)
            text[list(note.texts)] = list(note.texts.values())
            samples = replace(samples, text=text)
        kept.append(Kept(note.source, Delivery(samples, note.gaps, note.checkpoint, note.remarks)))
        row += note.rows
    return kept


def _note(kept: Kept) -> _Note:
    delivery, text = kept.delivery, kept.delivery.samples.text
    texts = {} if text is None else {row: str(each) for row, each in enumerate(text) if each is not None}
    checkpoint = dict(delivery.checkpoint)
    return _Note(kept.source, len(delivery.samples), delivery.gaps, delivery.remarks, checkpoint, texts)


def pack_tags(tags: Iterable[Tag]) -> bytes:
    """Tags as the head of a file names them."""
    return zlib.compress(_TAGS.dump_json(tuple(tags)))


def unpack_tags(head: bytes) -> tuple[Tag, ...]:
    """What :func:`pack_tags` was given; none where the head could not be read."""
    return _TAGS.validate_json(zlib.decompress(head)) if head else ()
