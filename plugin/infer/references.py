"""What live values are compared with: how the inputs and the residuals of a training were."""

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models import references, runtime
from models.kind import Corrected, ModelKind, Params
from models.references import References
from plugin.domain import Micros, micros
from plugin.infer.config import ModelConfig
from plugin.infer.outputs import model_spec

if TYPE_CHECKING:
    from plugin.infer.cutting import Stretch

_SEASON = 9
"""Windows: what a residual does slower than in so many is drift, not noise."""


def references_of(config: ModelConfig, kind: ModelKind, found: Sequence["Stretch"], params: Params) -> References:
    """Of a training's stretches, in order of their ends, and of what was learnt from them."""
    step, watched = micros(config.step), watched_inputs(config)
    rows = [_joined(of_asset, step) for of_asset in _by_asset(found)]
    inputs = {place: references.of_rows([row[place] for row in rows]) for place in watched}
    known = {place: reference for place, reference in inputs.items() if reference is not None}
    residual = _residuals(config, kind, found, params)
    seasons = [np.concatenate(of_asset) for of_asset in residual.values()]
    each = [row for of_asset in residual.values() for row in of_asset]
    return References(known, references.of_rows(each), references.of_seasons(seasons, _SEASON * config.length))


def watched_inputs(config: ModelConfig) -> tuple[int, ...]:
    """Positions on the feature axis. What looks for anomalies says itself when an input is not as it was; an age grows
    by nature, and a laboratory is the truth."""
    if config.training.learn == "normal":
        return ()
    apart = {config.roles.get("age"), *(name for name, late in zip(config.features, config.late, strict=True) if late)}
    return tuple(place for place, name in enumerate(config.features) if name not in apart)


def _residuals(
    config: ModelConfig, kind: ModelKind, found: Sequence["Stretch"], params: Params
) -> dict[int, list[NDArray[np.float64]]]:
    """By asset its stretches, one after the other; what moves slower than one lasts is not the model's to follow."""
    by_asset: defaultdict[int, list[NDArray[np.float64]]] = defaultdict(list)
    if not isinstance(kind, Corrected):
        return by_asset
    longest = max(stretch.values.shape[1] for stretch in found)
    said = runtime.program(kind.uncorrected, model_spec(config))
    for stretch in found:
        short = longest - stretch.values.shape[1]
        values = np.pad(stretch.values, ((0, 0), (short, 0)))[None]
        observed = np.pad(stretch.observed, ((0, 0), (short, 0)))[None]
        truth = np.pad(stretch.target, (short, 0), constant_values=np.nan).astype(np.float64)
        by_asset[stretch.group[1]].append(truth - said(params, values, observed)[0])
    return by_asset


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
