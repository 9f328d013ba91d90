"""``foretag models``: versions in a table, one in full, and two beside each other."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from plugin.domain import Audit, Drift, ModelVersion
from plugin.infer.comparing import NOMINAL, Comparison
from plugin.infer.config import PromotionConfig
from plugin.report.layout import headed, printable

_METRICS = 4
"""In a line of the list; `foretag models show` has all."""


def versions_view(versions: Sequence[ModelVersion]) -> RenderableType:
    """A line per version, in the order given."""
    table = headed("model", ">version", "state", "trained, local", "data until", "kind", "held-out data")
    for version in versions:
        until = str(version.provenance.get("data_end", ""))[:16].replace("T", " ")
        metrics = ", ".join(f"{name} {value:.4g}" for name, value in [*version.metrics.items()][:_METRICS])
        row = (
            version.model,
            str(version.version),
            version.state.value,
            _local(version.created),
            until,
            version.kind,
            metrics,
        )
        table.add_row(*(Text(printable(text)) for text in row))
    return table if versions else Text("No model has been trained yet.")


def version_view(version: ModelVersion, changes: Sequence[Audit], drifts: Sequence[Drift]) -> RenderableType:
    """All of one version; ``changes``: the entries of the audit log that are about it, newest first; ``drifts`` that
    last."""
    table = Table(box=None, show_header=False, pad_edge=False)
    facts = {
        "state": version.state.value,
        "kind": version.kind,
        "trained": _local(version.created),
        "artifact": version.artifact,
        "sha256": version.sha256,
    }
    for part, content in (
        ("", facts),
        ("metric ", version.metrics),
        ("trained: ", version.provenance),
        ("spec: ", version.spec),
    ):
        for name, value in content.items():
            table.add_row(Text(f"{part}{name}", style="bold"), Text(printable(_short(value))))
    for drift in drifts:
        word = "drift" if drift.doubtful else "remark"
        told = f"{drift.kind} of {drift.asset} {drift.subject} since {_local(drift.since)}: {drift.detail}"
        table.add_row(Text(word, style="bold"), Text(printable(told)))
    for entry in changes:
        told = f"{entry.action} by {entry.user}: {_short(dict(entry.after))}"
        table.add_row(Text(_local(entry.time), style="bold"), Text(printable(told)))
    return Group(Text(version.label, style="bold"), table)


def version_record(version: ModelVersion) -> dict[str, Any]:
    """As JSON: times in ISO 8601, UTC."""
    created = version.created.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return {**asdict(version), "state": version.state.value, "created": created}


def drift_record(drift: Drift) -> dict[str, Any]:
    """As JSON: times in ISO 8601, UTC; ``doubtful``: it makes what is published Uncertain."""
    times = {name: getattr(drift, name).astimezone(UTC).isoformat() for name in ("since", "noticed")}
    return {**asdict(drift), **times, "until": None, "doubtful": drift.doubtful}


def comparison_view(
    champion: ModelVersion, challenger: ModelVersion, found: Comparison, rule: PromotionConfig, passed: bool
) -> RenderableType:
    """A line per metric on held-out data and per output that something came true of."""
    table = headed("", "unit", ">outcomes", f">{champion.label}", f">{challenger.label}")
    for name in [metric for metric in champion.metrics if metric in challenger.metrics]:
        table.add_row(f"{name}, held-out", "", "", f"{champion.metrics[name]:.4g}", f"{challenger.metrics[name]:.4g}")
    for each in found.outputs:
        table.add_row(
            f"{each.output}: error", each.unit, f"{each.outcomes:,}", *(f"{error:.4g}" for error in each.errors)
        )
        if each.coverages:
            table.add_row(f"{each.output}: within bounds", "%", "", *(f"{100 * share:.1f}" for share in each.coverages))
    return Group(table, Text(), *_verdict(challenger, found, rule, passed))


def _verdict(
    challenger: ModelVersion, found: Comparison, rule: PromotionConfig, passed: bool
) -> Iterable[RenderableType]:
    if not found.outcomes:
        yield Text("Nothing that both said has come true yet: a challenger runs in shadow once it is there.")
        return
    side = "lower" if found.better >= 0 else "higher"
    yield Text(f"The error of {challenger.label} is {100 * abs(found.better):.1f} % {side}.")
    wanted = (
        f"{rule.outcomes} outcomes, an error {100 * rule.margin:g} % lower, "
        f"coverage within {100 * rule.tolerance:g} points of {100 * NOMINAL:g} %"
    )
    allowed = "allows its promotion" if passed else "does not allow its promotion"
    yield Text(f"The rule ({wanted}) {allowed}.")


def _local(time: datetime) -> str:
    return f"{time.astimezone():%Y-%m-%d %H:%M:%S}"


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
