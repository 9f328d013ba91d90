"""From the scores of healthy cells to a threshold: how far a score goes by itself, as often as a budget allows.

Neighbouring cells share what they were computed from, so an excursion is one alarm and not many: only the highest score
of each block of ``spacing`` cells counts. All laws here are of these block maxima.
"""

from collections.abc import Sequence
from math import log, log1p
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.training import conformal

LAWS = ("pareto", "gumbel", "conformal")

_PEAKS = 0.95
_FEWEST_PEAKS = 10
_EULER = 0.5772

Scores = NDArray[np.floating[Any]]


def threshold(runs: Sequence[Scores], spacing: int, allowed: float, law: str) -> float:
    """The score that healthy cells pass in ``allowed`` clusters a cell; ``runs`` are stretches of consecutive cells.

    ``pareto`` and ``gumbel`` look beyond the data, where a budget of one in a week nearly always lies: the first lets
    the highest scores alone say how the tail falls, for which it takes many; the second counts on a tail that falls as
    that of a squared distance does. ``conformal`` promises no more than the data show: with fewer blocks than the
    budget has in one alarm it is the largest score seen.
    """
    every = np.concatenate(runs).astype(np.float64)
    tops = np.array([run[at : at + spacing].max() for run in runs for at in range(0, len(run), spacing)], np.float64)
    if law == "conformal":
        return conformal(tops, max(0.0, 1.0 - allowed * spacing))
    if law == "gumbel":
        return _gumbel(tops, allowed * spacing)
    return _pareto(every, tops, allowed)


def _pareto(every: Scores, tops: Scores, allowed: float) -> float:
    """Peaks over the 95 % quantile u follow a generalised Pareto law (Coles 2001, chapter 4).

    Fitted by probability-weighted moments (Hosking & Wallis 1987). With too few peaks: the largest score seen.
    """
    high = float(np.quantile(every, _PEAKS))
    excess = np.sort(tops[tops > high] - high)
    if len(excess) < _FEWEST_PEAKS:
        return float(every.max())
    rank = (np.arange(len(excess)) + 0.65) / len(excess)
    mean, weighted = excess.mean(), float(np.mean((1.0 - rank) * excess))
    shape = float(np.clip(mean / max(mean - 2.0 * weighted, 1e-12) - 2.0, -0.5, 0.5))
    scale = mean * (1.0 + shape)
    # Hosking's k; its Pareto quantile is u + s/k·(1 - p^k) with p the share of peaks that may pass.
    share = min(1.0, allowed * len(every) / len(excess))
    reach = -np.log(share) if abs(shape) < 1e-3 else (1.0 - share**shape) / shape
    return high + float(scale * reach)


def _gumbel(tops: Scores, share: float) -> float:
    """The block maximum that ``share`` of the blocks pass: they follow a Gumbel law (Coles 2001, chapter 3).

    Fitted by probability-weighted moments (Hosking et al. 1985). With a few blocks: the largest score seen.
    """
    if len(tops) < _FEWEST_PEAKS:
        return float(tops.max())
    rank = np.arange(len(tops)) / (len(tops) - 1)
    mean, weighted = float(tops.mean()), float(np.mean(rank * np.sort(tops)))
    scale = (2.0 * weighted - mean) / log(2.0)
    return mean - _EULER * scale - scale * log(-log1p(-min(share, 1.0 - 1e-9)))
