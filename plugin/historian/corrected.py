"""What a correction is to be compared with, what there was before one, and what the audit log says of it."""

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plugin.domain import Audit, Level, Micros, Modified, SampleBatch, UpdateType, from_micros
from plugin.historian.closed.chunks import Chunk, decode, encode
from plugin.historian.closed.closing import size_of
from plugin.historian.closed.keyed import Key, Keyed
from plugin.historian.closed.late import places
from plugin.historian.people_records import CORRECT, readable
from plugin.protocols import Corrected

_NAMED = 100
"""Tags that one entry of the audit log names at most."""


@dataclass(frozen=True, slots=True)
class Act:
    """A correction as what somebody did."""

    time: Micros
    user: str
    reason: str
    origin: str

    def entry(self, done: Corrected, changed: SampleBatch, tags: Sequence[str]) -> Audit:
        """For the audit log; ``changed``: the samples that were replaced or inserted, ``tags``: their names."""
        after = {
            "replaced": done.replaced,
            "inserted": done.inserted,
            "first": readable(int(changed.source_time.min())),
            "last": readable(int(changed.source_time.max())),
            "reason": self.reason,
            "tags": sorted(tags)[:_NAMED],
        }
        subject = f"samples of {tags[0]}" if len(tags) == 1 else f"samples of {len(tags)} tags"
        return Audit(from_micros(self.time), self.user, self.origin, CORRECT, subject, after=after)


def last_of_each(batch: SampleBatch) -> SampleBatch:
    """Of several corrections of one stamp the last, sorted by tag and time."""
    order = np.lexsort((batch.source_time, batch.tag))  # stable: the last to come is the last of its stamp
    tag, time = batch.tag[order], batch.source_time[order]
    return batch.take(order[np.append((tag[1:] != tag[:-1]) | (time[1:] != time[:-1]), True)[: len(order)]])


def standing(known: Keyed, batch: SampleBatch) -> tuple[NDArray[np.bool_], Keyed]:
    """Which stamps of the batch, that is sorted, have a value among the known ones; and the last one of each of these.

    ``known``: sorted by tag, source time and ordinal.
    """
    first = places(known, batch)
    found = first >= 0
    last = first[found]
    tag, time = known.samples.tag, known.samples.source_time
    while True:
        after = np.minimum(last + 1, len(known) - 1)
        more = (after > last) & (tag[after] == tag[last]) & (time[after] == time[last])
        if not more.any():
            return found, known.take(last)
        last = np.where(more, after, last)


@dataclass(frozen=True, slots=True)
class Rest:
    """Of a chunk out of which samples were taken."""

    chunks: Sequence[Chunk]
    taken: int
    """Samples."""
    growth: int
    """Of what all takes in the database [byte]; mostly below 0."""
    minutes: Sequence[tuple[int, Micros]]
    """(tag, start) of the roll-ups that no longer hold."""


def without(chunk: Chunk, gone: Set[Key]) -> Rest | None:
    """None: it has none of these."""
    content = Keyed(*decode([chunk]))
    keep = np.array([key not in gone for key in content.each_key()], np.bool_)
    if keep.all():
        return None
    rest, width = content.take(keep), Level.MINUTE.width
    left = encode(rest.samples, rest.ordinals)
    minutes = {(tag, time // width * width) for tag, time, _ in content.take(~keep).each_key()}
    return Rest(left, int((~keep).sum()), size_of(left) - size_of([chunk]), sorted(minutes))


def equal(left: SampleBatch, right: SampleBatch) -> NDArray[np.bool_]:
    """Mask of the rows that are equal in value, status and text."""
    value = (left.value == right.value) | (np.isnan(left.value) & np.isnan(right.value))
    words = [np.full(len(each), None, np.object_) if each.text is None else each.text for each in (left, right)]
    text = np.array([a == b for a, b in zip(*(each.tolist() for each in words), strict=True)], np.bool_)
    same: NDArray[np.bool_] = value & (left.status == right.status) & text
    return same


def as_known(now: Keyed, earlier: Keyed, known_by: Micros | None, received_by: Micros | None) -> SampleBatch:
    """Of each sample the last state that was known by then; ``earlier``: in the order in which they were replaced."""
    states = SampleBatch.concatenate([earlier.samples, now.samples])
    numbers = np.append(earlier.ordinals, now.ordinals)
    seen = np.ones(len(states), np.bool_)
    for clock, bound in ((states.server_time, known_by), (states.received_time, received_by)):
        if bound is not None:
            seen &= clock <= bound
    states, numbers = states.take(seen), numbers[seen]
    order = np.lexsort((numbers, states.source_time, states.tag))  # stable: the last state is the last of its key
    states, numbers = states.take(order), numbers[order]
    same = (np.diff(states.tag) == 0) & (np.diff(states.source_time) == 0) & (np.diff(numbers) == 0)
    states = states.take(np.append(~same, True)[: len(states)])
    return states if states.with_text().any() else replace(states, text=None)


def modified_of(rows: Sequence[Sequence[Any]]) -> Modified:
    """From rows of tag, source time, value, status, server and received time, ordinal, text, when, what, who, why."""
    if not rows:
        return Modified(SampleBatch.empty(), np.zeros(0, np.int64), (), (), ())
    *columns, _, text, modified, update, user, reason = zip(*rows, strict=True)
    value = np.array(columns[2], np.float64)
    batch = SampleBatch.of(columns[0], columns[1], value, *columns[3:])
    if any(each is not None for each in text):
        batch = replace(batch, text=np.array(text, np.object_))
    return Modified(batch, np.array(modified, np.int64), tuple(map(UpdateType, update)), user, reason)
