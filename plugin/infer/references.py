"""What live values are compared with: how the inputs and the residuals of a training were."""

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models import references, runtime
from models.drift import Reference
from models.kind import Corrected, ModelKind, Params
from models.references import References
from plugin.domain import Micros, micros
from plugin.infer.config import ModelConfig
from plugin.infer.outputs import model_spec

if TYPE_CHECKING:
    from plugin.infer.cutting import Stretch


def references_of(config: ModelConfig, kind: ModelKind, found: Sequence["Stretch"], params: Params) -> References:
    """Of a training's stretches, in order of their ends, and of what was learnt from them."""
    step, watched = micros(config.step), watched_inputs(config)
    rows = [_joined(of_asset, step) for of_asset in _by_asset(found)]
    inputs = {place: references.of_rows([row[place] for row in rows]) for place in watched}
    known = {place: reference for place, reference in inputs.items() if reference is not None}
    return References(known, _residual(config, kind, found, params))


def watched_inputs(config: ModelConfig) -> tuple[int, ...]:
    """Positions on the feature axis. What looks for anomalies says itself when an input is not as it was; an age grows
    by nature, and a laboratory is the truth."""
    if config.training.learn == "normal":
        return ()
    apart = {config.roles.get("age"), *(name for name, late in zip(config.features, config.late, strict=True) if late)}
    return tuple(place for place, name in enumerate(config.features) if name not in apart)


def _residual(config: ModelConfig, kind: ModelKind, found: Sequence["Stretch"], params: Params) -> Reference | None:
    """Rows are the stretches themselves: what moves slower than one lasts is drift."""
    if not isinstance(kind, Corrected):
        return None
    longest = max(stretch.values.shape[1] for stretch in found)
    rows, said = [], runtime.program(kind.uncorrected, model_spec(config))
    for stretch in found:
        short = longest - stretch.values.shape[1]
        values = np.pad(stretch.values, ((0, 0), (short, 0)))[None]
        observed = np.pad(stretch.observed, ((0, 0), (short, 0)))[None]
        truth = np.pad(stretch.target, (short, 0), constant_values=np.nan).astype(np.float64)
        rows.append(truth - said(params, values, observed)[0])
    return references.of_rows(rows)


def _by_asset(found: Sequence["Stretch"]) -> list[list["Stretch"]]:
    by_asset: defaultdict[int, list[Stretch]] = defaultdict(list)
    for stretch in found:
        by_asset[stretch.group[1]].append(stretch)
    return list(by_asset.values())


def _joined(found: Sequence["Stretch"], step: Micros) -> NDArray[np.float32]:
    """All of one asset in one piece [feature, cell], NaN where not observed; what two stretches share comes once."""
    parts, end = [], 0
    for stretch in found:
        count = stretch.values.shape[1]
        shared = min(max(0, end - (stretch.end - count * step)) // step, count)
        parts.append(np.where(stretch.observed, stretch.values, np.float32(np.nan))[:, shared:])
        end = stretch.end
    return np.concatenate(parts, axis=1)
