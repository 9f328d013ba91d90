"""From a model's numbers to predictions: the tags from the future, their ranges, and the status that each deserves."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from types import MappingProxyType
from typing import Any

import numpy as np

from models import light
from models.kind import OutputSpec, Spec
from models.meaning import Meaning
from models.runtime import Numbers
from plugin.domain import HIGH_LIMITED, Asset, OutputTag, Prediction, Run, Status, at_upper_limit
from plugin.infer.config import ModelConfig

_WARNING_SHARES = 0.25, 0.1
"""Of a life's range: what is left when it is a matter for maintenance, and when it is urgent."""


def model_spec(config: ModelConfig) -> Spec:
    """What the kind needs to know of the configuration, for the model that predicts."""
    return light.student(full_spec(config)) if config.training.light == "student" else full_spec(config)


def full_spec(config: ModelConfig) -> Spec:
    """For the model that a light one is made from; the same unless it is a student."""
    return Spec(
        kind=config.kind,
        features=config.inputs,
        length=config.length,
        roles=dict(config.roles),
        options=dict(config.options),
        seed=config.seed,
        cleaning=config.cleaning_steps,
        calendar=config.calendar_terms,
    )


def output_tag(config: ModelConfig, asset: Asset, spec: OutputSpec) -> OutputTag:
    """An output as a tag; where the kind leaves a quantity's unit or range open, those of the laboratory's or the
    target's hold."""
    same = spec.meaning in {Meaning.VALUE, Meaning.FORECAST}
    like = asset.tags.get(config.roles.get("lab", config.roles.get("target", ""))) if same else None
    low = _first_number(spec.low, like.low if like else None, 0.0)
    high = _first_number(spec.high, like.high if like else None, 100.0)
    return OutputTag(
        model=config.name,
        asset=asset.name,
        output=spec.name,
        unit=spec.unit or (like.unit if like else ""),
        low=low,
        high=high,
        description=spec.description,
        meaning=spec.meaning,
        states=spec.states,
        confidence=spec.confidence,
        warnings=_warnings(config, low, high) if spec.meaning is Meaning.LIFETIME else (),
        cycle=config.cycle if spec.meaning is Meaning.LIFETIME else None,
    )


def _warnings(config: ModelConfig, low: float, high: float) -> tuple[float, ...]:
    if config.warnings is not None:
        return tuple(sorted(config.warnings, reverse=True))
    return tuple(low + share * (high - low) for share in _WARNING_SHARES)


def input_status(*, connected: bool, complete: bool, coverage: float, required: float) -> Status:
    """The best status that the inputs allow (OPC 10000-8, A.4.3: fewer Good sources than required is SubNormal)."""
    if not connected:
        return Status.UNCERTAIN_NO_COMMUNICATION_LAST_USABLE_VALUE
    if complete and coverage >= required:
        return Status.GOOD
    return Status.UNCERTAIN_SUB_NORMAL


def output_status(inputs: Status, value: float | None, tag: OutputTag) -> Status:
    """No number is Bad; a Good number outside its range is UncertainEngineeringUnitsExceeded."""
    if value is None:
        return Status.BAD_NO_DATA
    if inputs is Status.GOOD and not np.float32(tag.low) <= value <= np.float32(tag.high):  # as the models count
        return Status.UNCERTAIN_ENGINEERING_UNITS_EXCEEDED
    return inputs


def simulated(prediction: Prediction) -> Prediction:
    """A challenger's word, which nobody is to act on; no number stays Bad."""
    if prediction.value is None:
        return prediction
    limited = HIGH_LIMITED if at_upper_limit(prediction.status) else 0
    return replace(prediction, status=Status.UNCERTAIN_SIMULATED_VALUE | limited)


def predictions(
    config: ModelConfig,
    run: Run,
    end: datetime,
    tags: Mapping[str, Sequence[OutputTag]],
    inputs: Sequence[Status],
    coverage: Sequence[float],
    estimates: Mapping[str, Numbers],
    ahead: Mapping[str, Sequence[int]] = MappingProxyType({}),
) -> Iterator[Prediction]:
    """One prediction per output and asset, of a forecast one for each of its horizons, the nearest first.

    ``tags`` by output, every sequence in the order of the assets; ``ahead``: of forecasts the horizons [cells].
    """
    for output, of_assets in tags.items():
        horizons = ahead.get(output) or (0,)
        value, lower, upper = (part.reshape(len(of_assets), len(horizons)) for part in estimates[output])
        for row, column in np.ndindex(value.shape):
            tag, number = of_assets[row], _number(value[row, column])
            yield Prediction(
                tag=tag,
                version=run.version,
                as_of=end,
                target_time=end + config.horizon + horizons[column] * config.step,
                valid_until=end + config.validity,
                value=number,
                lower=_number(lower[row, column]) if number is not None else None,
                upper=_number(upper[row, column]) if number is not None else None,
                status=output_status(inputs[row], number, tag)
                | _limited(number, float(lower[row, column]), float(upper[row, column]), tag),
                coverage=float(coverage[row]),
                run=run.id,
            )


def _limited(value: float | None, lower: float, upper: float, tag: OutputTag) -> int:
    """A value at the end of its range whose upper bound is open stands for that or more."""
    at_end = value is not None and value >= np.float32(tag.high)
    return HIGH_LIMITED if at_end and math.isnan(upper) and not math.isnan(lower) else 0


def _number(value: Any) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None


def _first_number(*candidates: float | None) -> float:
    return next(number for number in candidates if number is not None and not math.isnan(number))
