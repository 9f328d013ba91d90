"""What people said of an asset, as learning takes it: failures, work orders, and which of its flags were right."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from plugin.domain import Label, LabelKind, Micros, Verdict, micros, to_micros
from plugin.infer.config import ModelConfig
from plugin.protocols import Store

Span = tuple[Micros, Micros]
"""[start, end) [µs]."""


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """Of one asset."""

    until: Micros
    """What lies later is not known yet [µs]."""
    failures: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """When it failed [µs], ascending."""
    stops: tuple[Span, ...] = ()
    """Work orders: what was before is not the life that follows."""
    well: tuple[Span, ...] = ()
    """All was well: somebody said so, or a flag of that window was a false alarm."""
    ill: tuple[Span, ...] = ()
    """Windows of flags that were confirmed."""


async def told(config: ModelConfig, asset: str, store: Store, now: datetime) -> Told:
    """As it was known ``now``."""
    labels = await store.labels(asset, now - config.training.history, now, known_by=to_micros(now))
    return gathered(labels, config.recent or config.window, now)


def gathered(labels: Iterable[Label], window: timedelta, now: datetime) -> Told:
    """``window``: how far back from a flag its verdict speaks."""
    until = to_micros(now)
    spans: dict[LabelKind | Verdict, list[Span]] = {what: [] for what in (*LabelKind, *Verdict)}
    for label in labels:
        start, end = to_micros(label.start), until if label.end is None else to_micros(label.end)
        if label.verdict is not None:
            spans[label.verdict].append((start - micros(window), start))
        elif label.kind is LabelKind.NORMAL:  # of what comes nobody knows
            spans[label.kind].append((start, min(end, to_micros(label.created))))
        else:
            spans[label.kind].append((start, end))
    return Told(
        until,
        np.unique(np.array([start for start, _ in spans[LabelKind.FAILURE]], np.int64)),
        tuple(sorted(spans[LabelKind.WORK_ORDER])),
        (*spans[LabelKind.NORMAL], *spans[Verdict.FALSE_ALARM]),
        tuple(spans[Verdict.CONFIRMED]),
    )


def within(cells: NDArray[np.int64], spans: Iterable[Span]) -> NDArray[np.bool_]:
    """[cell] whether it begins in one of them; ``cells``: their starts [µs]."""
    found = np.zeros(len(cells), np.bool_)
    for start, end in spans:
        found |= (cells >= start) & (cells < end)
    return found
