"""``foretag evaluate --plots``: pictures of what its tables say. Needs matplotlib, the extra ``plots``.

Colours are those of Okabe & Ito (2008), which colour-blind people can tell apart; lines differ in their style as well.
"""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models.probability import recalls
from plugin.infer.evaluation import Evaluation, Judgement
from plugin.infer.occurrences import Occurrence
from plugin.infer.truths import Proof
from plugin.report.layout import duration

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BLUE, _ORANGE, _GREY, _BLACK = "#0072B2", "#D55E00", "#999999", "#000000"
_ASSETS = 4
"""That are drawn over time, those with the most truths."""
_DOTS = 150


def can_plot() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def write_plots(found: Evaluation, folder: Path) -> list[Path]:
    """Write the pictures as PNG, which replace those of before, and name them."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, figure in _figures(found):
        path = folder / f"{found.version.label}-{name}.png"
        figure.savefig(path, dpi=_DOTS)
        paths.append(path)
    return paths


def _figures(found: Evaluation) -> Iterator[tuple[str, "Figure"]]:
    for judged in found.judgements:
        ahead = f"-{duration(judged.ahead).replace(' ', '')}" if judged.ahead else ""
        yield f"{judged.output}{ahead}-over-time", _over_time(found, judged)
        yield f"{judged.output}{ahead}-residuals", _residuals(found, judged)
    for whether in found.occurrences:
        yield f"{whether.output}-precision", _precision(found, whether)
        if whether.bins:
            yield f"{whether.output}-reliability", _reliability(found, whether)


def _figure(rows: int = 1, columns: int = 1, *, height: float = 4.5) -> tuple["Figure", NDArray[Any]]:
    from matplotlib.figure import Figure  # noqa: PLC0415  # an extra

    figure = Figure(figsize=(9.0, height), layout="constrained")
    axes: NDArray[Any] = figure.subplots(rows, columns, squeeze=False)
    for each in axes.flat:
        each.grid(visible=True, color="#dddddd", linewidth=0.6)
        each.set_axisbelow(True)
        each.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _unit(judged: Judgement) -> str:
    return f"{judged.output} [{judged.unit}]" if judged.unit else judged.output


def _ahead(judged: Judgement) -> str:
    return f", {duration(judged.ahead)} ahead" if judged.ahead > timedelta(0) else ""


def _over_time(found: Evaluation, judged: Judgement) -> "Figure":
    """What was said, its bounds and what came true, an axis for each asset."""
    by_asset: dict[str, list[Proof]] = {}
    for proof in judged.proofs:
        by_asset.setdefault(proof.prediction.tag.asset, []).append(proof)
    most = sorted(by_asset, key=lambda asset: -len(by_asset[asset]))[:_ASSETS]
    figure, axes = _figure(len(most), height=1.2 + 2.6 * len(most))
    for axis, asset in zip(axes[:, 0], sorted(most), strict=True):
        _one_asset(axis, by_asset[asset])
        axis.set_title(asset, loc="left", fontsize=10)
        axis.set_ylabel(_unit(judged))
    axes[-1, 0].set_xlabel("time it speaks of [UTC]")
    left_out = f" ({len(most)} of {len(by_asset)} assets)" if len(by_asset) > len(most) else ""
    figure.suptitle(f"{found.version.label}: predicted and true{_ahead(judged)}{left_out}")
    axes[0, 0].legend(loc="best", fontsize=8)
    return figure


def _one_asset(axis: "Axes", proofs: Sequence[Proof]) -> None:
    ordered = sorted(proofs, key=lambda proof: proof.prediction.target_time)
    times: Any = [proof.prediction.target_time for proof in ordered]
    # A bound that is open is drawn at the end of the range.
    tag = ordered[0].prediction.tag
    given = [(proof.prediction.lower, proof.prediction.upper) for proof in ordered]
    lower = np.array([tag.low if low is None and high is not None else low for low, high in given], np.float64)
    upper = np.array([tag.high if high is None and low is not None else high for low, high in given], np.float64)
    if np.isfinite(lower + upper).any():
        axis.fill_between(times, lower, upper, color=_BLUE, alpha=0.2, linewidth=0, label="its bounds")
    axis.plot(times, [proof.value for proof in ordered], color=_BLUE, linewidth=1.2, label="predicted")
    true = [proof.said_at_best for proof in ordered]
    axis.plot(times, true, color=_ORANGE, linestyle="none", marker=".", markersize=4, label="true")
    axis.tick_params(axis="x", labelsize=8)


def _residuals(found: Evaluation, judged: Judgement) -> "Figure":
    """Against what was true, and how they are distributed."""
    true = np.array([proof.said_at_best for proof in judged.proofs])
    error = np.array([proof.error for proof in judged.proofs])
    figure, axes = _figure(1, 2)
    against, spread = axes[0]
    against.plot(true, error, color=_BLUE, linestyle="none", marker=".", markersize=3, alpha=0.5)
    spread.hist(error, bins=min(40, max(5, len(error) // 5)), color=_BLUE, alpha=0.8)
    against.axhline(0.0, color=_BLACK, linewidth=0.8)
    spread.axvline(0.0, color=_BLACK, linewidth=0.8)
    spread.axvline(float(error.mean()), color=_ORANGE, linestyle="--", label=f"mean {error.mean():.3g}")
    against.set_xlabel(f"true {_unit(judged)}")
    against.set_ylabel(f"predicted less true{f' [{judged.unit}]' if judged.unit else ''}")
    spread.set_xlabel(f"predicted less true{f' [{judged.unit}]' if judged.unit else ''}")
    spread.set_ylabel("outcomes")
    spread.legend(loc="best", fontsize=8)
    figure.suptitle(f"{found.version.label}: errors of {judged.output}{_ahead(judged)}, {len(error):,} outcomes")
    return figure


def _precision(found: Evaluation, whether: Occurrence) -> "Figure":
    """Precision over recall."""
    figure, axes = _figure()
    axis, ours = axes[0, 0], whether.ranked[0]
    recall, precision = recalls(whether.told, whether.came)
    axis.step(recall, precision, where="pre", color=_BLUE, label=f"{found.version.label}, area {ours.pr_auc:.3f}")
    axis.axhline(whether.share, color=_GREY, linestyle="--", label=f"knowing nothing, area {whether.share:.3f}")
    for each in whether.ranked[1:]:
        axis.plot([], [], linestyle="none", label=f"beside it: {each.who}, area {each.pr_auc:.3f}")
    axis.set(xlim=(0, 1.01), ylim=(0, 1.01), xlabel="recall: share of what was the case that was told")
    axis.set_ylabel("precision: share of what was told that was the case")
    axis.legend(loc="best", fontsize=8)
    figure.suptitle(f"{whether.output}: precision over recall, {whether.outcomes:,} outcomes")
    return figure


def _reliability(found: Evaluation, whether: Occurrence) -> "Figure":
    """How often it came where so much was told."""
    figure, axes = _figure(height=5.5)
    axis = axes[0, 0]
    told, came = (np.array([getattr(each, name) for each in whether.bins]) for name in ("told", "came"))
    axis.plot([0, 1], [0, 1], color=_GREY, linestyle="--", label="as it should be")
    error = whether.ranked[0].reliability or 0.0
    axis.plot(told, came, color=_BLUE, marker="o", label=f"{found.version.label}, calibration error {error:.3f}")
    most = max(0.05, 1.1 * float(max(told.max(), came.max())))
    axis.set(xlim=(0, min(1.0, most)), ylim=(0, min(1.0, most)))
    axis.set_xlabel("probability that was told, mean of a tenth of the outcomes")
    axis.set_ylabel("share of them in which it came")
    axis.legend(loc="best", fontsize=8)
    figure.suptitle(f"{whether.output}: how reliable, {whether.outcomes:,} outcomes")
    return figure
