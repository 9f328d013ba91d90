"""Which conditions a plant has: they follow from its outputs, models, sources and tags.

=====================  ===================================  ==========================================================
of each                type, class                          active while
=====================  ===================================  ==========================================================
remaining life         ExclusiveLevel, maintenance          less is left than the first (Low), the second limit (LowLow)
flag                   ExclusiveLevel, maintenance          it is raised (High); the score is far over (HighHigh)
state                  OffNormal, process                   it is none of the normal ones; of a life's horizon: none
value                  ExclusiveDeviation, process          what was measured is far from what was expected
model                  SystemDiagnostic, system             it drifts
source                 SourceLost (of ours), system         it is away
asset                  InstrumentDiagnostic, maintenance    tags of it are silent, late or flat
asset                  OffNormal, maintenance               its case: it has raised too many alarms to show each
=====================  ===================================  ==========================================================
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from models.meaning import WITHIN_OR_BEYOND
from plugin.domain import Meaning, OutputTag
from plugin.infer.alarms.condition import Condition, ConditionClass, ConditionType
from plugin.infer.alarms.config import AlarmsConfig

_LEVELS = 2


def conditions(
    config: AlarmsConfig, outputs: Iterable[OutputTag], sources: Iterable[str], assets: Iterable[str]
) -> Iterator[Condition]:
    """``assets``: all that have tags, whether a model watches them or not."""
    outputs = tuple(outputs)
    for tag in outputs:
        yield from _of_output(config, tag, outputs)
    for model in dict.fromkeys(tag.model for tag in outputs):
        yield _of_model(config, model)
    for source in sources:
        yield _of_source(config, source)
    for asset in dict.fromkeys((*assets, *(tag.asset for tag in outputs))):
        yield from _of_asset(config, asset)


def drift_of(model: str) -> str:
    """Key of the condition that a model drifts."""
    return f"Foretag.Models.{model}.Drift"


def loss_of(source: str) -> str:
    """Key of the condition that a source is away."""
    return f"Foretag.Sources.{source}.Away"


def instruments_of(asset: str) -> str:
    """Key of the condition that tags of an asset are silent, late or flat."""
    return f"Foretag.Assets.{asset}.Instruments"


def case_of(asset: str) -> str:
    """Key of the case of an asset."""
    return f"Foretag.Assets.{asset}.Case"


def alarm_of(tag: OutputTag) -> str:
    """Key of the condition that follows an output."""
    return f"{tag.name}.Alarm"


def normal_states(config: AlarmsConfig, tag: OutputTag) -> frozenset[int]:
    """Indexes of the states of an output that are no alarm."""
    names = {name.casefold() for name in config.normal_states}
    return frozenset(n for n, state in enumerate(tag.states) if state.casefold() in names) or frozenset({0})


def _of_output(config: AlarmsConfig, tag: OutputTag, outputs: Sequence[OutputTag]) -> Iterator[Condition]:
    made = Condition(
        id=alarm_of(tag), name="", type=ConditionType.LEVEL, classed=ConditionClass.MAINTENANCE, source=tag.asset,
        severities=(config.warning, config.urgent), asset=tag.asset, model=tag.model, input=tag.name,
        advice=config.advice.get(tag.model, ""), rules=config.rules,
    )  # fmt: skip
    if tag.meaning is Meaning.LIFETIME and tag.warnings:
        limits = tag.warnings[:_LEVELS]
        span = config.dead_band * (tag.high - tag.low)
        yield replace(made, name=f"{tag.model}: remaining life short", limits=limits, low=True, dead_band=span)
    elif tag.meaning is Meaning.FLAG:
        scores = (each.name for each in outputs if _scores(each, tag))
        yield replace(made, name=f"{tag.model}: anomaly", input=next(scores, tag.name))
    elif tag.meaning is Meaning.STATE and tag.states != WITHIN_OR_BEYOND:
        yield replace(
            made, name=f"{tag.model}: {tag.output} not normal", type=ConditionType.OFF_NORMAL,
            classed=ConditionClass.PROCESS, severities=(config.warning,),
        )  # fmt: skip
    elif tag.meaning is Meaning.VALUE:
        yield replace(
            made, name=f"{tag.model}: {tag.output} not as expected", type=ConditionType.DEVIATION,
            classed=ConditionClass.PROCESS,
        )  # fmt: skip


def _scores(score: OutputTag, flag: OutputTag) -> bool:
    return score.meaning is Meaning.SCORE and (score.model, score.asset) == (flag.model, flag.asset)


def _of_model(config: AlarmsConfig, model: str) -> Condition:
    return Condition(
        drift_of(model), f"{model}: drifts", ConditionType.SYSTEM, ConditionClass.SYSTEM, model, (config.notice,),
        model=model, advice="Look at the data, then train the model anew.", rules=config.rules,
    )  # fmt: skip


def _of_source(config: AlarmsConfig, source: str) -> Condition:
    return Condition(
        loss_of(source), f"{source}: away", ConditionType.SOURCE_LOST, ConditionClass.SYSTEM, source, (config.urgent,),
        advice="Look at the network and the plant's server; foretag status says more.", rules=config.source_rules,
    )  # fmt: skip


def _of_asset(config: AlarmsConfig, asset: str) -> Iterator[Condition]:
    yield Condition(
        instruments_of(asset), "Instruments at fault", ConditionType.INSTRUMENT, ConditionClass.MAINTENANCE, asset,
        (config.notice,), asset=asset, advice="Have the instruments looked at.", rules=config.source_rules,
    )  # fmt: skip
    yield Condition(
        case_of(asset), "Many alarms at once", ConditionType.OFF_NORMAL, ConditionClass.MAINTENANCE, asset,
        (config.urgent,), asset=asset, advice="Look for a common cause; the alarms are listed as suppressed.",
        rules=replace(config.rules, on_delay=config.rules.on_delay * 0, off_delay=config.rules.off_delay * 0),
    )  # fmt: skip
