"""What a fit may begin from: another version's weights, where both read the same of the same features.

The weights that come before the last layer say how a machine of this make wears or reacts; few runs are enough to learn
what is different about one of them (transfer by fine-tuning: Yosinski et al. 2014).
"""

from dataclasses import dataclass
from typing import Any

import jax

from models.kind import Adaptable, Fitted, ModelKind, Params, Progress, Spec, TrainingData
from models.light import unpacked, widened
from models.runtime import check_tree


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """Of a fit: where another one ended."""

    spec: Spec
    params: Params
    head_only: bool
    """Train the last layer alone."""


def fit(kind: ModelKind, spec: Spec, start: Start, data: TrainingData, progress: Progress) -> Fitted:
    """As the kind's own fit, from ``start``; ValueError names what does not fit. Windows may be of another length."""
    if not isinstance(kind, Adaptable):
        message = f"kind {kind.name} can't begin from another version; train it from scratch"
        raise ValueError(message)  # noqa: TRY004 - it is what was asked for that is wrong
    _check_spec(kind, spec, start.spec)
    params: Params = jax.device_get(widened(unpacked(start.params)))
    check_tree(kind, spec, params)
    return kind.adapt(spec, params, data, progress, head_only=start.head_only)


def _check_spec(kind: Adaptable, spec: Spec, start: Spec) -> None:
    for field in ("kind", "features", "roles", "cleaning", "calendar"):
        _check_same(field, getattr(spec, field), getattr(start, field))
    for option in sorted({*spec.options, *start.options} - kind.free):
        _check_same(f"option {option}", spec.options.get(option), start.options.get(option))


def _check_same(field: str, ours: Any, theirs: Any) -> None:
    if _plain(ours) != _plain(theirs):
        raise ValueError(
            f"{field} = {_plain(ours)!r}, in the version to begin from {_plain(theirs)!r}: it must be the same"
        )


def _plain(value: Any) -> Any:
    """Lists and tuples alike: an artifact knows no tuples."""
    return list(value) if isinstance(value, tuple) else value
