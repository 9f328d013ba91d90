"""From what models and sources say to what is seen of each condition: level and message. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from plugin.domain import (
    Drift,
    Explanation,
    Flag,
    Meaning,
    Outcome,
    OutputTag,
    Prediction,
    Quality,
    Standing,
    quality,
)
from plugin.infer.alarms.catalogue import alarm_of, drift_of, instruments_of, loss_of, normal_states
from plugin.infer.alarms.condition import Condition
from plugin.infer.alarms.config import AlarmsConfig
from plugin.infer.alarms.inputs import Seen
from plugin.infer.alarms.state import State
from plugin.infer.truths import Proof
from plugin.protocols import Health

_CAUSES, _NAMED = 3, 5
"""Features and tags that a message names."""

Found = tuple[str, Seen]
"""Key of a condition, and what was seen of it."""


def of_outcome(
    config: AlarmsConfig, states: Mapping[str, State], flags: Mapping[tuple[str, str], str], outcome: Outcome
) -> Iterator[Found]:
    """What one scoring run says; ``flags``: keys of conditions by model and asset.

    A result without a number says nothing: what was known stands.
    """
    causes = {(each.tag.model, each.tag.asset): each for each in reversed(outcome.explanations)}
    exact = {each.tag.name: each for each in outcome.explanations}
    for prediction in outcome.predictions:
        tag = prediction.tag
        state = states.get(alarm_of(tag))
        if state is not None and prediction.value is not None:
            cause = exact.get(tag.name) or causes.get((tag.model, tag.asset))
            yield from _of_prediction(config, state, prediction, prediction.value, cause)
    for flag in outcome.flags:
        state = states.get(flags.get((flag.model, flag.asset), ""))
        if state is not None:
            yield state.condition.id, _of_flag(config, state, flag, causes.get((flag.model, flag.asset)))


def of_standings(standings: Iterable[Standing]) -> Iterator[Found]:
    """Which models drift: level 1 is a remark, at level 2 what is published is in doubt."""
    for standing in standings:
        drifts = [drift for drift in standing.drifts if drift.until is None]
        level = 2 if any(drift.doubtful for drift in drifts) else min(len(drifts), 1)
        message = _of_drifts(standing.model, drifts) if drifts else ""
        model = standing.model if standing.version else ""
        yield drift_of(standing.model), Seen(level, message, model=model, version=standing.version)


def of_health(source: str, health: Health, assets: Mapping[str, str]) -> Iterator[Found]:
    """Whether a source is away, and which assets have tags that are at fault; ``assets``: by tag of this source.

    While the source is away nothing is known of its tags, and their alarms stay as they are.
    """
    away = health.away_since is not None
    yield (
        loss_of(source),
        Seen(int(away), f"{source} is away: {health.trouble or 'it does not answer'}." if away else ""),
    )
    if away:
        return
    faults: dict[str, list[str]] = {asset: [] for asset in assets.values()}
    for what, names in (("silent", health.silent), ("late", health.late), ("flat", health.flat)):
        for name in names:
            if name in assets:
                faults[assets[name]].append(f"{name} is {what}")
    for asset, found in faults.items():
        more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        yield instruments_of(asset), Seen(min(len(found), 1), f"{', '.join(found[:_NAMED])}{more}." if found else "")


def of_proof(config: AlarmsConfig, proof: Proof) -> Found | None:
    """How far what was measured is from what was expected; None where no interval was given."""
    prediction, tag = proof.prediction, proof.prediction.tag
    if prediction.lower is None or prediction.upper is None or prediction.upper <= prediction.lower:
        return None
    away = 2.0 * abs(proof.actual - proof.value) / (prediction.upper - prediction.lower)
    level = sum(away > limit for limit in config.deviation)
    text = f"{tag.output} is {_number(proof.actual, tag)} where {_number(proof.value, tag)} was expected."
    return alarm_of(tag), Seen(level, text if level else "", **_origin(prediction))


def with_advice(condition: Condition, seen: Seen) -> Seen:
    """The message as an operator reads it: what, why, what to do."""
    if not seen.level or not seen.message:
        return seen
    return replace(seen, message=f"{seen.message} {condition.advice}".strip())


def _of_prediction(
    config: AlarmsConfig, state: State, prediction: Prediction, value: float, cause: Explanation | None
) -> Iterator[Found]:
    tag, condition = prediction.tag, state.condition
    if quality(prediction.status) is Quality.BAD:
        return
    if tag.meaning is Meaning.LIFETIME:
        level = condition.level_of(value, state.current.level)
        limit = condition.limits[max(level, 1) - 1]
        text = f"{tag.output} {_number(value, tag)} is under {_number(limit, tag)}.{_because(cause)}"
    elif tag.meaning is Meaning.STATE:
        index = round(value)
        level = int(index not in normal_states(config, tag))
        name = tag.states[index] if 0 <= index < len(tag.states) else str(index)
        text = f"{tag.output} is {name}.{_because(cause)}"
    else:
        return  # a value is judged by what is measured, a flag is no prediction
    yield condition.id, Seen(level, text if level else "", **_origin(prediction))


def _of_flag(config: AlarmsConfig, state: State, flag: Flag, cause: Explanation | None) -> Seen:
    """The flag decides, so that it and its alarm are never at odds; the score says how bad it is."""
    urgent = flag.threshold > 0.0 and flag.score > config.urgent_score * flag.threshold
    level = 0 if not flag.raised else 2 if urgent or (state.current.level == 2 and flag.score > flag.threshold) else 1
    text = f"Anomaly score {flag.score:.3g} is over {flag.threshold:.3g}.{_because(cause)}"
    if flag.score <= flag.threshold:  # it outlasts the score by the off-delay
        text = f"Anomaly score {flag.score:.3g} is no longer over {flag.threshold:.3g}, and not yet for long enough."
    return Seen(level, text if flag.raised else "", flag.status, flag.model, flag.version, flag.run, flag.as_of)


def _origin(prediction: Prediction) -> dict[str, Any]:
    model = prediction.tag.model if prediction.version else ""
    return {
        "quality": prediction.status, "model": model, "version": prediction.version, "run": prediction.run,
        "as_of": prediction.as_of,
    }  # fmt: skip


def _because(cause: Explanation | None) -> str:
    if cause is None or not cause.shares:
        return ""
    top: Sequence[tuple[str, float]] = sorted(cause.shares.items(), key=lambda each: -each[1])[:_CAUSES]
    return f" Mostly by {', '.join(f'{feature} ({share:.0%})' for feature, share in top)}."


def _of_drifts(model: str, drifts: Sequence[Drift]) -> str:
    """Those that put what is published in doubt come first; without one the model is merely to be trained anew."""
    doubtful = [drift for drift in drifts if drift.doubtful]
    if not doubtful:
        return f"{model} should be trained anew: {'; '.join(_remark(drift) for drift in drifts[:_CAUSES])}."
    return f"{model} no longer fits: {'; '.join(_of_drift(drift) for drift in doubtful[:_CAUSES])}."


def _remark(drift: Drift) -> str:
    return f"{drift.asset}: {drift.detail}"


def _of_drift(drift: Drift) -> str:
    return f"{drift.kind.value} {drift.subject} of {drift.asset} since {drift.since:%Y-%m-%d %H:%M} UTC"


def _number(value: float, tag: OutputTag) -> str:
    return f"{value:.4g} {tag.unit}".strip()
