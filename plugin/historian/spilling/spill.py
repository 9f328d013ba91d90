"""Deliveries that wait on disk for a database that is away: durable before they are confirmed, given back in order.

One append is one frame of :mod:`plugin.historian.spilling.journal`. The head of a file says which tags its numbers
mean, so that what is left in it finds its way into a database that numbers them otherwise.
"""

import asyncio
import logging
import os
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Self
from uuid import NAMESPACE_OID, uuid4, uuid5

import numpy as np
from numpy.typing import NDArray

from plugin.domain import Gap, GapCause, GapState, Micros, SampleBatch, Tag, from_micros, to_micros
from plugin.errors import StoreError, StoreUnavailable
from plugin.historian.config import SpillConfig
from plugin.historian.spilling.frames import Kept, pack, pack_tags, unpack, unpack_tags
from plugin.historian.spilling.journal import Found, Journal
from plugin.historian.spilling.segment import Damage, Frame
from plugin.pki import write_private
from plugin.protocols import Delivery

_log = logging.getLogger(__name__)

_SEGMENT = 16 * 2**20
_SEGMENTS = 8
"""A spill has at least so many files, so that leaving out the oldest leaves out little."""
POSITION = "/spill"
"""The checkpoint that says up to which frame the database has the spill; no source has a name that begins so. Where
several gateways share a database, each has its own below it."""
_DISOWNED = "disowned"
"""File in the folder: the number of the newest frame that says nothing of progress any more."""
_NEVER = np.iinfo(np.int64).min
_YEARS = to_micros(datetime.min.replace(tzinfo=UTC)), to_micros(datetime.max.replace(tzinfo=UTC))


@dataclass(frozen=True, slots=True)
class Chunk:
    """What follows in the spill, to be committed together."""

    number: int
    """To be released when it is committed."""
    kept: tuple[Kept, ...]

    @property
    def rows(self) -> int:
        """Samples in it."""
        return sum(len(each.delivery.samples) for each in self.kept)


@dataclass(frozen=True, slots=True)
class Left:
    """Where the sources stood, as far as it is newer than what the database says."""

    known: Mapping[str, Micros]
    """Newest source time by the tag's name."""
    checkpoints: Mapping[str, str]

    def checkpoints_after(self, stored: Mapping[str, str], prefix: str) -> dict[str, str]:
        """The checkpoints under a prefix: what the database has, and what is newer."""
        return {**stored, **{key: text for key, text in self.checkpoints.items() if key.startswith(prefix)}}


class Spill:
    """A folder of deliveries; see :class:`plugin.historian.config.SpillConfig` for its bounds.

    Raises :class:`plugin.errors.StoreUnavailable` where the disk, or a bound, is in the way: nothing has changed then.
    """

    def __init__(self, folder: Path, config: SpillConfig, mark: str = POSITION) -> None:
        """``mark``: the checkpoint for its position."""
        self.folder = folder
        self.mark = mark
        self.torn = 0
        """Bytes that a crash had left unfinished when it was opened: no one had been told that we have them."""
        self._config = config
        self._journal = Journal(folder, min(_SEGMENT, config.limit // _SEGMENTS))
        self._tags: dict[str, Tag] = {}
        self._head_of: dict[str, Tag] | None = None
        """The tags that the head was made of."""
        self._head = b""
        self._heads: dict[bytes, tuple[Tag, ...]] = {}
        self._dropped: dict[str, int] = {}
        self._disowned = 0
        self._known_gaps: Collection[str] = ()

    @classmethod
    def configured(cls, config: SpillConfig, data: Path, mark: str = POSITION) -> Self | None:
        """The spill of a configuration; None where there is none."""
        return cls(data / config.folder, config, mark) if config.limit else None

    async def open(self, position: int) -> Left:
        """Take the folder and look through what is left in it; ``position``: up to where the database has it."""
        try:
            self.torn = await asyncio.to_thread(self._journal.open, position)
            self._disowned = await asyncio.to_thread(self._read_disowned)
            return await asyncio.to_thread(self._look_through)
        except BlockingIOError as error:
            raise StoreError(f"{self.folder} is in use by another foretag: stop it, or name another folder") from error
        except (PermissionError, NotADirectoryError, FileExistsError) as error:
            raise StoreError(f"{self.folder} is no folder that we may write to: {error.strerror}") from error
        except OSError as error:
            raise StoreUnavailable(f"{self.folder}: {error}") from error

    def close(self) -> None:
        """Leave the folder."""
        self._journal.close()

    @property
    def after(self) -> float:
        """How long a live sample may wait for the database [s]."""
        return self._config.after.total_seconds()

    # --- what an operator asks ---

    @property
    def empty(self) -> bool:
        """Everything that was ever in it is committed."""
        return self._journal.newest <= self._journal.released

    @property
    def all_read(self) -> bool:
        """Nothing follows on what was read."""
        return self._journal.all_read

    @property
    def size(self) -> int:
        """On disk [byte]."""
        return self._journal.size

    @property
    def rows(self) -> int:
        """Samples in it."""
        return self._journal.rows

    def take_dropped(self) -> dict[str, int]:
        """Samples by source that were left out to make room, since the last call."""
        dropped, self._dropped = self._dropped, {}
        return dropped

    # --- tags ---

    def know(self, tags: Iterable[Tag]) -> None:
        """Tags with their keys in the database, in addition to those known before; at any time."""
        self._tags = self._tags | {tag.name: tag for tag in tags}  # a new one: a thread may be reading the old one

    def strangers(self) -> list[Tag]:
        """Tags of samples left by a run before this one, that are not in the configuration any more."""
        found = {tag.name: tag for tags in self._heads.values() for tag in tags if tag.name not in self._tags}
        return list(found.values())

    # --- of a gateway that another one has replaced ---

    @property
    def disowned(self) -> bool:
        """Something in it may be of a time before another gateway went on: :meth:`know_gaps` is needed to read it."""
        return self._disowned > self._journal.released

    def know_gaps(self, ids: Collection[str]) -> None:
        """Gaps that the database has: it knows more of them than what is disowned here."""
        self._known_gaps = ids

    async def disown(self) -> None:
        """Another gateway goes on where this one stood: what is in here now is read as samples, remarks, and gaps that
        nobody has heard of; not as progress, which is the other's. StoreUnavailable: the disk is in the way."""
        try:
            await asyncio.to_thread(self._disown)
        except OSError as error:
            raise StoreUnavailable(f"{self.folder}: {error.strerror or error}") from error

    def _disown(self) -> None:
        if self.empty or self._disowned == self._journal.newest:
            return
        number = self._journal.newest
        write_private(self.folder / _DISOWNED, str(number).encode())
        self._disowned = number

    def _read_disowned(self) -> int:
        path = self.folder / _DISOWNED
        try:
            number = int(path.read_text())
        except FileNotFoundError:
            return 0
        except ValueError:  # whatever it said, progress that was another's must not come back
            number = self._journal.newest
        if number <= self._journal.released:
            path.unlink()
            return 0
        return number

    # --- in and out ---

    async def append(self, kept: Sequence[Kept]) -> int:
        """Make deliveries durable together, and give the number of the frame that holds them."""
        return await asyncio.to_thread(self._append, kept)

    def _append(self, kept: Sequence[Kept]) -> int:
        parts = pack(kept)
        size = sum(len(part) for part in parts)
        try:
            self._make_room(size)
            tags = self._tags
            if self._head_of is not tags:
                self._head, self._head_of = pack_tags(tags.values()), tags
            return self._journal.append(self._head, sum(len(each.delivery.samples) for each in kept), parts)
        except OSError as error:
            raise StoreUnavailable(f"{self.folder}: {error.strerror or error}") from error

    def _make_room(self, size: int) -> None:
        disk, reserve = os.statvfs(self.folder), self._config.reserve
        if reserve and disk.f_bavail * disk.f_frsize - size < reserve:
            raise StoreUnavailable(f"{self.folder}: less than {reserve} would be left free on the disk")
        while self._journal.size + size > self._config.limit:
            if self._config.keep == "oldest" or not self._leave_out_oldest():
                raise StoreUnavailable(f"{self.folder}: the limit of {self._config.limit} is reached")

    def _leave_out_oldest(self) -> bool:
        """OSError: they are still there, and not counted."""
        before = dict(self._dropped)
        try:
            return self._journal.squeeze(self._without_samples) is not None
        except OSError:
            self._dropped = before
            raise

    async def read(self, rows: int) -> Chunk | None:
        """What follows on what was read before, about so many samples of it; None: all has been read."""
        return await asyncio.to_thread(self._read, rows)

    def _read(self, rows: int) -> Chunk | None:
        try:
            found = self._journal.read(rows)
        except OSError as error:
            raise StoreUnavailable(f"{self.folder}: {error.strerror or error}") from error
        if not found:
            return None
        number = max((each.content.number for each in found if isinstance(each.content, Frame)), default=0)
        kept = [item for each in found for item in self._items(each)]
        return Chunk(number or found[-1].segment.last, tuple(kept))

    def _items(self, found: Found) -> list[Kept]:
        if isinstance(found.content, Damage):
            return self._damage(found, found.content)
        kept = unpack(found.content.payload)
        if found.content.number <= self._disowned:
            kept = [_without_progress(each, self._known_gaps) for each in kept]
        lookup = self._lookup(found.segment.head)
        return kept if lookup is None else [_renumbered(each, lookup) for each in kept]

    def rewind(self) -> None:
        """Read again from the oldest that is not released."""
        self._journal.rewind()

    def position(self, number: int) -> Delivery:
        """What goes into the database together with all up to a frame: it will not be read again."""
        return Delivery(SampleBatch.empty(), checkpoint={self.mark: str(number)})

    async def release(self, number: int, rows: int) -> None:
        """What was read up to this number, so many samples, is committed."""
        await asyncio.to_thread(self._journal.release, number, rows)

    # --- left by a run before this one ---

    def _look_through(self) -> Left:
        newest: dict[bytes, NDArray[np.int64]] = {}
        checkpoints: dict[str, str] = {}
        while found := self._journal.read(1_000_000):
            for each in found:
                if isinstance(each.content, Frame):
                    head = each.segment.head
                    times = newest.setdefault(head, _none_yet(self._opened(head)))
                    for kept in unpack(each.content.payload):
                        if each.content.number > self._disowned:
                            checkpoints |= kept.delivery.checkpoint
                        known = kept.delivery.samples.take(kept.delivery.samples.tag < len(times))
                        np.maximum.at(times, known.tag, known.source_time)
        self._journal.rewind()
        known_by_name: dict[str, Micros] = {}
        for head, times in newest.items():
            for tag in self._opened(head):
                if times[tag.id] > _NEVER:
                    known_by_name[tag.name] = max(known_by_name.get(tag.name, _NEVER), int(times[tag.id]))
        return Left(known_by_name, checkpoints)

    def _opened(self, head: bytes) -> tuple[Tag, ...]:
        if head not in self._heads:
            self._heads[head] = unpack_tags(head)
        return self._heads[head]

    def _lookup(self, head: bytes) -> NDArray[np.int32] | None:
        """Today's numbers by those of a head; None where they are the same."""
        if head is self._head:
            return None
        then = {tag.id: tag.name for tag in self._opened(head)}
        if all(name not in self._tags or self._tags[name].id == number for number, name in then.items()):
            return None
        lookup = np.arange(max(then, default=0) + 1, dtype=np.int32)
        for number, name in then.items():
            if name in self._tags:
                lookup[number] = self._tags[name].id
        return lookup

    # --- what is left out ---

    def _without_samples(self, contents: Sequence[Found]) -> list[bytes]:
        """One frame's payload of several: all gaps, remarks and progress, and per source a gap for its samples."""
        by_source: dict[str, list[Delivery]] = {}
        for found in contents:
            for item in self._items(found):
                by_source.setdefault(item.source, []).append(item.delivery)
        return pack([Kept(source, self._merged(source, deliveries)) for source, deliveries in by_source.items()])

    def _merged(self, source: str, deliveries: Sequence[Delivery]) -> Delivery:
        batch = SampleBatch.concatenate([delivery.samples for delivery in deliveries])
        gaps = {gap.id: gap for delivery in deliveries for gap in delivery.gaps}
        if len(batch):
            self._dropped[source] = self._dropped.get(source, 0) + len(batch)
            before = next((gap for gap in gaps.values() if gap.cause is GapCause.SPILL_OVERFLOW), None)
            gap = _overflow(source, batch, before)
            gaps[gap.id] = gap
        marks = {key: text for delivery in deliveries for key, text in delivery.checkpoint.items()}
        remarks = tuple(remark for delivery in deliveries for remark in delivery.remarks)
        return Delivery(SampleBatch.empty(), tuple(gaps.values()), marks, remarks)

    def _damage(self, found: Found, damage: Damage) -> list[Kept]:
        """A gap for each source: what it was can't be known."""
        path, now = found.segment.path, datetime.now(UTC)
        _log.error("%s: %d bytes can't be read; the file is kept as .damaged", path, damage.size)
        start = min(datetime.fromtimestamp(found.segment.begun, UTC), now)
        detail = f"{damage.size} bytes of {path.name} can't be read"
        kept = []
        for source in sorted({tag.source for tag in self._opened(found.segment.head) or self._tags.values()}):
            key = str(uuid5(NAMESPACE_OID, f"{path.name} {damage.offset} {source}"))
            gap = Gap(key, source, None, start, now, GapCause.DECODE_ERROR, now, GapState.UNFILLABLE, detail=detail)
            kept.append(Kept(source, Delivery(SampleBatch.empty(), (gap,))))
        return kept


def _none_yet(tags: Sequence[Tag]) -> NDArray[np.int64]:
    """A newest source time for each tag, by its number."""
    return np.full(max((tag.id for tag in tags), default=0) + 1, _NEVER, np.int64)


def _renumbered(kept: Kept, lookup: NDArray[np.int32]) -> Kept:
    samples = kept.delivery.samples
    return replace(kept, delivery=replace(kept.delivery, samples=replace(samples, tag=lookup[samples.tag])))


def _without_progress(kept: Kept, known: Collection[str]) -> Kept:
    """Its samples are received now: no run of the gateway that went on has seen them."""
    gaps = tuple(_settled(gap) for gap in kept.delivery.gaps if gap.id not in known)
    samples = kept.delivery.samples
    samples = replace(samples, received_time=np.full(len(samples), time.time_ns() // 1000))
    return replace(kept, delivery=Delivery(samples, gaps, remarks=kept.delivery.remarks))


def _settled(gap: Gap) -> Gap:
    """The gateway that went on has a gap of its own for what it missed."""
    if gap.state is not GapState.OPEN:
        return gap
    return gap.given_up("another gateway went on before it could be filled", gap.detected)


def _overflow(source: str, batch: SampleBatch, before: Gap | None) -> Gap:
    """The gap of samples that were left out; joined with the one for those just before them."""
    first, last = batch.source_time.min(), batch.source_time.max() + 1
    start, end = (from_micros(int(np.clip(time, *_YEARS))) for time in (first, last))
    if before is not None and before.end is not None:
        return replace(before, start=min(start, before.start), end=max(end, before.end))
    now = datetime.now(UTC)
    return Gap(
        str(uuid4()), source, None, start, end, GapCause.SPILL_OVERFLOW, now, GapState.UNFILLABLE,
        detail="the spill was full",
    )  # fmt: skip
