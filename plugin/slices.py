"""Long stretches of samples in bounded memory: read slice by slice, each as wide as they are dense."""

from collections.abc import AsyncIterator, Sequence

from plugin.domain import Micros, SampleBatch
from plugin.protocols import Store

_FIRST_WIDTH: Micros = 60_000_000
_HOLE: Micros = 86_400_000_000
"""Where nothing came for so long, what follows may be of another density; what comes by the hour has no holes."""
_WIDEST: Micros = 32 * 86_400_000_000
_MOST = 10_000_000
"""Samples that a slice may turn out to have where it was wide because there were few, if all tags then have one a
second."""


async def slices(
    store: Store, tags: Sequence[int], start: Micros, end: Micros, *, size: int, received_by: Micros | None = None
) -> AsyncIterator[tuple[SampleBatch, Micros]]:
    """Samples of ``[start, end)`` as the store gives them, about ``size`` at a time and none empty, each with the time
    up to which all have come.

    The width follows how dense they are: twice the last where that gave few, and narrow anew behind a hole.
    """
    width = _FIRST_WIDTH
    widest = max(_FIRST_WIDTH, min(_WIDEST, _MOST // max(1, len(tags)) * 1_000_000))
    while (begin := await store.next_time(start)) is not None and begin < end:
        width = _FIRST_WIDTH if begin > start + max(width, _HOLE) else width
        until = min(begin + width, end)
        batch = await store.read_samples(tags, begin, until, received_by=received_by)
        if len(batch):
            yield batch, until
        start = until
        if 2 * len(batch) < size:
            width = min(2 * width, widest)
        elif len(batch) > size:
            width = max(width // 2, 1)
