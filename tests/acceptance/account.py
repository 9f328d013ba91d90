"""The account of a run: what was written is stored or lies in a recorded gap; each once, in order per tag."""

from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from plugin.domain import Gap, Micros, SampleBatch, to_micros


@dataclass(frozen=True, slots=True)
class Account:
    """What became of the numbers that were written. ``faults`` is empty where all is well."""

    written: int
    """Numbers, times tags."""
    stored: int
    in_gaps: int
    again: int
    """Came once more; a store keeps one of them."""
    faults: tuple[str, ...]

    @property
    def sound(self) -> bool:
        return not self.faults


def account(
    times: Sequence[float], tags: Mapping[int, str], arrived: Sequence[SampleBatch], gaps: Iterable[Gap]
) -> Account:
    """``times``: source times [s] of the numbers 1, 2, … that were written to every tag; ``tags``: names by key."""
    written = {number: round(time * 1e6) for number, time in enumerate(times, 1)}
    batch, gaps = SampleBatch.concatenate(arrived), tuple(gaps)
    faults: list[str] = []
    stored = missed = again = 0
    for key, name in tags.items():
        mine = batch.take(batch.tag == key)
        numbers = mine.value.tolist()
        found, repeated = _in_order(name, numbers, mine.source_time.tolist(), written, faults)
        missing = [written[number] for number in written.keys() - found]
        faults += _uncovered(name, missing, [gap for gap in gaps if gap.tag in (None, name)])
        stored, missed, again = stored + len(found), missed + len(missing), again + repeated
    return Account(len(written) * len(tags), stored, missed, again, tuple(faults))


def _in_order(
    name: str, numbers: Sequence[float], times: Sequence[Micros], written: Mapping[int, Micros], faults: list[str]
) -> tuple[Collection[int], int]:
    found: set[int] = set()
    newest = again = 0
    for value, time in zip(numbers, times, strict=True):
        if np.isnan(value) or value <= 0:  # the initial value is no number
            continue
        number = int(value)
        if number in found:
            again += 1
            continue
        if number < newest:
            faults.append(f"{name}: {number} came after {newest}")
        if written.get(number) != time:
            faults.append(f"{name}: {number} has another source time than was written")
        found.add(number)
        newest = max(newest, number)
    return found & written.keys(), again


def _uncovered(name: str, missing: Iterable[Micros], gaps: Iterable[Gap]) -> list[str]:
    """Source times that lie in no gap."""
    spans = sorted((to_micros(gap.start), to_micros(gap.end) if gap.end else 1 << 62) for gap in gaps)
    starts, ends = [start for start, _ in spans], list(np.maximum.accumulate([end for _, end in spans] or [0]))
    found = []
    for time in sorted(missing):
        place = bisect_right(starts, time)
        if not place or time >= ends[place - 1]:
            found.append(f"{name}: the value of {time} is neither stored nor in a gap")
    return found
