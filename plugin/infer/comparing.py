"""A challenger beside the champion: what both said of the same instants, and what came true of it.

Predictions are paired where they are of one asset, output, instant and truth; what only one of them said is left out.
Results of the laboratory and verdicts are all looked up. Where there is a truth for nearly every run (a remaining life,
a forecast of what is measured, a time when all was normal) the runs at the beginning of each hour are taken: their
neighbours say much the same, and would only count it more often.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from plugin.domain import Asset, Flag, LabelKind, Meaning, ModelVersion, OutputTag, Prediction
from plugin.infer.config import ModelConfig
from plugin.infer.truths import FOREVER, Proof, Truth, judged, proofs, results
from plugin.protocols import Store

NOMINAL = 0.9
"""What the intervals of all kinds are meant to cover."""
_HOUR = timedelta(hours=1)
_INSTANT = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PREDICTIONS = 100_000
"""That are looked at, of truths that are dense."""
_TINY = 1e-12

Span = tuple[datetime, datetime]


@dataclass(frozen=True, slots=True)
class Beside:
    """Both versions on one output."""

    output: str
    unit: str
    outcomes: int
    """Pairs."""
    errors: tuple[float, float]
    """Root of the mean squared error [unit], champion and challenger; of a flag of the share that was wrong."""
    coverages: tuple[float, float] | None
    """Share of truths within the bounds, 0..1; None: not both have both bounds."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both versions on all outputs."""

    champion: int
    challenger: int
    outputs: tuple[Beside, ...]

    @property
    def outcomes(self) -> int:
        """Pairs in all."""
        return sum(each.outcomes for each in self.outputs)

    @property
    def better(self) -> float:
        """By which share the challenger's error is lower; negative: it is higher. Outputs count by their pairs."""
        if not self.outcomes:
            return 0.0
        ratios = (
            each.outcomes * math.log((each.errors[1] + _TINY) / (each.errors[0] + _TINY)) for each in self.outputs
        )
        return 1.0 - math.exp(min(sum(ratios) / self.outcomes, 50.0))

    def as_well_calibrated(self, tolerance: float) -> bool:
        """No output's coverage is farther from :data:`NOMINAL` than the champion's, or than ``tolerance``."""
        off = [tuple(abs(share - NOMINAL) for share in each.coverages) for each in self.outputs if each.coverages]
        return all(challenger <= max(champion, tolerance) for champion, challenger in off)

    def figures(self) -> Mapping[str, Any]:
        """As JSON, for the audit log."""
        outputs = {each.output: {k: v for k, v in asdict(each).items() if k != "output"} for each in self.outputs}
        return {
            "against": self.champion,
            "outcomes": self.outcomes,
            "better": round(self.better, 6),
            "outputs": outputs,
        }


class _Pair(NamedTuple):
    """Of one outcome, champion and challenger."""

    output: str
    unit: str
    errors: tuple[float, float]
    inside: tuple[bool | None, bool | None]


async def compare(
    store: Store,
    config: ModelConfig,
    assets: Sequence[Asset],
    tags: Sequence[OutputTag],
    versions: tuple[ModelVersion, ModelVersion],
    span: Span,
) -> Comparison:
    """Champion and challenger over the runs of a stretch. ``tags``: every output of the model, asset by asset."""
    numbers = versions[0].version, versions[1].version
    at = await moments(store, config, assets, tags, span)
    pairs = [
        *await _numbers(store, config, assets, numbers, at),
        *await _flags(store, config, numbers, at),
    ]
    return Comparison(*numbers, tuple(_beside(pairs)))


def _beside(pairs: Iterable[_Pair]) -> Iterator[Beside]:
    by_output: defaultdict[tuple[str, str], list[_Pair]] = defaultdict(list)
    for pair in pairs:
        by_output[pair.output, pair.unit].append(pair)
    for (output, unit), of_output in sorted(by_output.items()):
        squares = [sum(pair.errors[who] ** 2 for pair in of_output) / len(of_output) for who in (0, 1)]
        bounded = [pair.inside for pair in of_output if None not in pair.inside]
        shares = [sum(bool(inside[who]) for inside in bounded) / max(len(bounded), 1) for who in (0, 1)]
        errors = math.sqrt(squares[0]), math.sqrt(squares[1])
        yield Beside(output, unit, len(of_output), errors, (shares[0], shares[1]) if bounded else None)


async def _numbers(
    store: Store, config: ModelConfig, assets: Sequence[Asset], versions: tuple[int, int], at: Sequence[Span]
) -> list[_Pair]:
    said: list[Prediction] = []
    for span in at:
        for shadow in (False, True):
            given = await store.predictions(config.name, *span, shadow=shadow)
            said += (each for each in given if each.version in versions)
    found: dict[tuple[Any, ...], Proof] = {}
    for proof in await proofs(store, config, assets, said):
        made = proof.prediction
        if proof.truth is Truth.LABORATORY and not any(start <= proof.time < end for start, end in at):
            continue  # what was said just before it is not among these
        about = made.tag.asset, made.tag.output, made.as_of, made.target_time, proof.truth, proof.time
        found[made.version, about] = proof
    both = (
        (mine, found[versions[1], about])
        for (version, about), mine in found.items()
        if version == versions[0] and (versions[1], about) in found
    )
    return [
        _Pair(a.prediction.tag.output, a.prediction.tag.unit, (a.error, b.error), (a.inside, b.inside)) for a, b in both
    ]


async def _flags(store: Store, config: ModelConfig, versions: tuple[int, int], at: Iterable[Span]) -> list[_Pair]:
    raised: dict[tuple[int, str, datetime], Flag] = {}
    for span in at:
        for shadow in (False, True):
            for flag in await store.flags(*span, shadow=shadow):
                if flag.model == config.name and flag.version in versions:
                    raised[flag.version, flag.asset, flag.as_of] = flag
    mine = [flag for (version, *_), flag in raised.items() if version == versions[0]]
    both = (
        (each.flag.raised, raised[versions[1], each.flag.asset, each.flag.as_of].raised, each.real)
        for each in await judged(store, config, mine)
        if (versions[1], each.flag.asset, each.flag.as_of) in raised
    )
    return [_Pair("flag", "", (float(a != real), float(b != real)), (None, None)) for a, b, real in both]


async def moments(
    store: Store, config: ModelConfig, assets: Sequence[Asset], tags: Sequence[OutputTag], span: Span
) -> list[Span]:
    """Stretches of ``as_of`` that hold whatever may have come true, in order of time and apart."""
    machines = {asset.name: asset for asset in assets}
    found: list[Span] = []
    dense = False
    for tag in tags:
        asset = machines[tag.asset]
        if tag.flag:
            for label in await store.labels(tag.asset, span[0], FOREVER):
                dense |= label.kind in {LabelKind.NORMAL, LabelKind.FAILURE}
                if label.as_of is not None and label.model == config.name:
                    found.append((label.as_of, label.as_of + _INSTANT))
            continue
        dense |= tag.meaning is Meaning.LIFETIME or tag.output in asset.tags
        for taken, _, _ in await results(store, config, asset, tag, *span):
            found.append((taken - config.validity - config.horizon, taken + _INSTANT))
    if dense:
        found += _hourly(config, len(tags), span)
    return _merged(found, span)


def _hourly(config: ModelConfig, outputs: int, span: Span) -> Iterator[Span]:
    """The runs at the beginning of each hour, or of fewer where that were too many predictions."""
    hours = int((span[1] - span[0]) / _HOUR) + 1
    apart = -(-2 * hours * outputs // _PREDICTIONS) * _HOUR
    at = _EPOCH - (_EPOCH - span[0]) // apart * apart
    while at < span[1]:
        yield at, at + config.schedule.every
        at += apart


def _merged(spans: Iterable[Span], within: Span) -> list[Span]:
    """Those that touch are one."""
    merged: list[Span] = []
    for start, end in sorted((max(start, within[0]), min(end, within[1])) for start, end in spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        elif start < end:
            merged.append((start, end))
    return merged
