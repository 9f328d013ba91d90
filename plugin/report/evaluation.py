"""``foretag evaluate`` as tables."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from math import isnan

from rich.console import Group, RenderableType
from rich.text import Text

from plugin.infer.evaluation import Evaluation, Flags, Judgement
from plugin.infer.occurrences import Occurrence
from plugin.report.layout import duration, headed, printable


def evaluation_view(found: Evaluation) -> RenderableType:
    """How good the version was beside its baselines, how its intervals held, and what it is sensitive to."""
    return Group(*_parts(found))


def _parts(found: Evaluation) -> Iterator[RenderableType]:
    yield Text(
        f"{found.version.label} from {found.start:%Y-%m-%d %H:%M} to {found.end:%Y-%m-%d %H:%M} UTC, walked forward"
    )
    if found.leak:
        yield Text(
            "It was trained on data of this stretch, or that is not known: these figures flatter it.", style="red"
        )
    if not found.judgements:
        yield Text("Nothing that it said of numbers has come true in this stretch.")
        yield Text(
            "A life comes true by a failure that is told (foretag label add failure ASSET --at TIME), a soft sensor by "
            "the laboratory (foretag lab add, or its tag), anything else by the tag that measures it."
        )
    for each in found.judgements:
        yield Text()
        yield from _judgement(each)
    for whether in found.occurrences:
        yield Text()
        yield _occurrence(whether)
        yield from _strain(whether.strain, "Brier")
    if found.flags is not None:
        yield Text()
        yield from _flags(found.flags)
    if found.importance:
        important = headed("importance", ">share")
        for name, share in found.importance.items():
            important.add_row(printable(name), f"{100 * share:.1f} %")
        yield Text()
        yield important
    if found.note:
        yield Text(printable(found.note))


def _judgement(found: Judgement) -> Iterator[RenderableType]:
    unit = f" [{found.unit}]" if found.unit else ""
    ahead = f", {duration(found.ahead)} ahead" if found.ahead else ""
    table = headed(printable(f"{found.output}{unit}{ahead}"), ">truths", ">RMSE", ">MAE", ">R²", ">PHM")
    for each in found.errors:
        phm = "" if each.phm is None else f"{each.phm:,.0f}"
        figures = f"{each.rmse:.4g}", f"{each.mae:.4g}", f"{each.r2:.3f}", phm
        table.add_row(each.who, f"{each.outcomes:,}", *figures)
    yield table
    if found.coverage is not None:
        width = "" if found.width is None else f"; they are {found.width:.4g} wide on average"
        yield Text(f"{100 * found.coverage:.1f} % of the truths lay within the bounds{width}.")
    yield from _strain(found.strain, "RMSE")


def _strain(found: Mapping[str, float], measure: str) -> Iterator[RenderableType]:
    if found:
        strained = headed("error under strain", f">{measure}")
        for name, error in found.items():
            strained.add_row(printable(name), "no result" if isnan(error) else f"{error:.4g}")
        yield strained


def _occurrence(found: Occurrence) -> RenderableType:
    title = f"{found.output}, the case in {100 * found.share:.1f} % of {found.outcomes:,}"
    table = headed(printable(title), ">PR-AUC", ">Brier", ">calibration error")
    for each in found.ranked:
        figures = (f"{each.pr_auc:.3f}", *("" if x is None else f"{x:.4f}" for x in (each.brier, each.reliability)))
        table.add_row(each.who, *figures)
    return table


def _flags(found: Flags) -> Iterator[RenderableType]:
    yield Text(
        f"Flags: raised in {100 * found.share:.2f} % of {found.runs:,} runs, {found.rises_per_week:.3g} times a week "
        f"and asset; {found.budget_per_week:.3g} false ones were allowed."
    )
    if found.failures:
        by = "" if found.delay is None else f", by the middle of them {_apart(found.delay)}"
        yield Text(f"Of {found.failures} failures that people told of it saw {found.detected}{by}.")
    if found.false_per_week is None:
        yield Text("Nobody has said of any of them whether something was wrong; see `foretag label`.")
    else:
        yield Text(f"Of these {found.false_per_week:.3g} a week were false, by what people said.")


def _apart(delay: timedelta) -> str:
    return f"{duration(abs(delay))} {'before' if delay < timedelta(0) else 'after'} it was told to begin"
