"""Watching, beside the runs, whether the version in force still fits its plant: inputs, bias, errors, intervals.

Each look reads what it needs from the store's past, so that nothing is lost by a restart. There is news when a run has
seen new cells, and as many of them as it takes for an input to be independent of what it was. While a drift of what is
published lasts, or an input lies beyond the training, what the version says of that asset is Uncertain; other drifts
are remarks on the model. A drift ends when values are as before, or with the version.

A verdict has effect a moment after it is stored: a run that is computed again then finds just what it found.
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import uuid4

import numpy as np

from models import runtime
from models.kind import Corrected, Params
from models.references import References
from plugin.diagnostics import Diagnostics
from plugin.domain import Drift, DriftKind, Micros, ModelVersion, OutputTag, Prediction, from_micros, micros, to_micros
from plugin.errors import ArtifactError
from plugin.infer.comparing import moments
from plugin.infer.compute import Compute
from plugin.infer.fitting import (
    INDEPENDENT,
    RECENT,
    Verdict,
    bias_verdicts,
    coverage_verdict,
    error_verdict,
    input_verdicts,
    worst,
)
from plugin.infer.outputs import model_spec
from plugin.infer.registry import Registry
from plugin.infer.scoring import Scorer
from plugin.infer.truths import Proof, proofs
from plugin.protocols import Store

log = logging.getLogger(__name__)

_SOON = timedelta(seconds=2)
"""After which a verdict has effect: it is stored by then."""
_OFTEN = 20
"""Independent values that are new to an input when it is looked at again."""
_CELLS = 20_000
"""Of an input that are looked at, at most: one that moves slower is only compared with its range."""
_WINDOWS = 4
"""Of a model's windows whose residuals are looked at."""
_OUTCOMES = timedelta(hours=1)
"""Between two looks at truths."""
_LONGEST = timedelta(days=60)
"""Of predictions that are held against truths."""
_NEWEST = 400
"""Truths of an output of an asset that count, the newest."""
_DRIFTS = 10_000


@dataclass(slots=True)
class _Watched:
    """A version, and when it is due to be looked at again."""

    version: ModelVersion
    references: References | None
    uncorrected: Callable[..., Any] | None
    params: Params
    inputs_due: datetime
    outcomes_due: datetime


class Monitoring:
    """Looks at all models; which scorers there are is looked at each time."""

    def __init__(
        self,
        store: Store,
        registry: Registry,
        compute: Compute,
        scorers: Sequence[Scorer],
        diagnostics: Diagnostics,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._registry = registry
        self._compute = compute
        self._scorers = scorers
        self._diagnostics = diagnostics
        self._clock = clock
        self._watched: dict[str, _Watched] = {}

    async def look(self) -> None:
        """At each model that has seen something new since the last look."""
        for scorer in tuple(self._scorers):
            if scorer.config.enabled and scorer.config.monitor and scorer.seen_until is not None:
                await self._look_at(scorer, scorer.seen_until)

    async def _look_at(self, scorer: Scorer, end: datetime) -> None:
        name, version = scorer.config.name, await scorer.version()
        if version is None:
            return
        watched = self._watched.get(name)
        if watched is None or watched.version.version != version.version:
            watched = self._watched[name] = await self._take_up(scorer, version, end)
        due = end >= watched.inputs_due, end >= watched.outcomes_due
        if not any(due):
            return
        begin = time.perf_counter()
        lasting = await self._store.drifts(model=name, open_only=True, limit=_DRIFTS)
        verdicts = [
            *(await self._inputs(scorer, watched, end) if due[0] else ()),
            *(await self._bias(scorer, watched, end, lasting) if due[1] else ()),
            *(await self._outcomes(scorer, watched, end) if due[1] else ()),
        ]
        changed = [*self._changed(version, lasting, worst(verdicts))]
        await self._store.write_drifts(changed)
        for drift in changed:
            _tell(drift)
        lasting = await self._store.drifts(model=name, open_only=True, limit=_DRIFTS)
        self._diagnostics.drifts_open.labels(name).set(len(lasting))
        self._diagnostics.monitor_seconds.labels(name).observe(time.perf_counter() - begin)

    async def _take_up(self, scorer: Scorer, version: ModelVersion, end: datetime) -> _Watched:
        """Due at once."""
        try:
            _, params, references = await self._registry.contents(version)
            if references is None or references.residual is None:
                params = {}
        except ArtifactError as error:
            log.warning("%s; whether it still fits is told by its intervals alone", error)
            references, params = None, {}
        kind, uncorrected = scorer.kind, None
        if isinstance(kind, Corrected) and "lab" in scorer.config.roles:  # whose truths are in the window itself
            uncorrected = runtime.program(kind.uncorrected, model_spec(scorer.config))
        return _Watched(version, references, uncorrected, params, end, end)

    async def _inputs(self, scorer: Scorer, watched: _Watched, end: datetime) -> list[Verdict]:
        config, references = scorer.config, watched.references
        if references is None or not references.inputs:
            watched.inputs_due = datetime.max.replace(tzinfo=UTC)
            return []
        spacing = [reference.spacing for reference in references.inputs.values()]
        watched.inputs_due = end + _OFTEN * int(np.median(spacing)) * config.step
        cells = min(_CELLS, max(RECENT, config.recent_cells, INDEPENDENT * max(spacing)))
        windows = await scorer.past(end, cells)
        recent = np.where(windows.observed, windows.values.astype(np.float64), np.nan)
        judge = partial(
            input_verdicts,
            [asset.name for asset in scorer.assets],
            dict(enumerate(config.inputs)),
            references.inputs,
            recent,
            _times(end, cells, config.step),
            ages="age" in config.roles,
            recently=max(RECENT, config.recent_cells),
        )
        return await asyncio.to_thread(lambda: [*judge()])

    async def _bias(self, scorer: Scorer, watched: _Watched, end: datetime, lasting: Iterable[Drift]) -> list[Verdict]:
        config, references = scorer.config, watched.references
        watched.outcomes_due = end + max(_OUTCOMES, config.schedule.every)
        if references is None or references.residual is None or watched.uncorrected is None:
            return []
        newest, seasonal = _WINDOWS * config.length, references.seasonal
        cells = max(newest, min(_CELLS, INDEPENDENT * seasonal.spacing if seasonal else 0))
        windows, times = await scorer.past(end, cells), _times(end, cells, config.step)
        saying = self._compute.aside("infer", watched.uncorrected, watched.params, windows.values, windows.observed)
        said = await asyncio.wrap_future(saying)
        lab, output = config.features.index(config.roles["lab"]), scorer.tags[0]
        residual = np.where(windows.observed[:, lab], windows.values[:, lab] - said.astype(np.float64), np.nan)
        remarked = {drift.asset for drift in lasting if drift.kind is DriftKind.BIAS}
        found: list[Verdict] = []
        for row, asset in enumerate(scorer.assets):
            past, lasts = (residual[row], times), asset.name in remarked
            judge = partial(
                bias_verdicts, asset.name, output, references, past, newest, lasts=lasts, of=len(scorer.assets)
            )
            found += await asyncio.to_thread(judge)  # ADWIN goes value by value
        return found

    async def _outcomes(self, scorer: Scorer, watched: _Watched, end: datetime) -> list[Verdict]:
        """Of what came true: how often intervals held it and, of a model with a bias, how far it was from it."""
        config, version = scorer.config, watched.version
        by_tag: defaultdict[OutputTag, list[Proof]] = defaultdict(list)
        said: list[Prediction] = []
        for part in await moments(self._store, config, scorer.assets, scorer.tags, (end - _LONGEST, end)):
            said += await self._store.predictions(config.name, *part)
        of_version = [prediction for prediction in said if prediction.version == version.version]
        for proof in await proofs(self._store, config, scorer.assets, of_version):
            by_tag[proof.prediction.tag].append(proof)
        found, shares = [], defaultdict(list)
        for tag, proven in by_tag.items():
            newest = sorted(proven, key=lambda proof: proof.prediction.as_of)[-_NEWEST:]
            usual = version.metrics.get("rmse") if watched.uncorrected is not None else None
            if usual is not None:
                found.append(_errors(tag, newest, usual))
            if held := [proof for proof in newest if proof.inside is not None]:
                verdict, share = coverage_verdict(
                    tag.asset, tag.output, [bool(proof.inside) for proof in held], tag.confidence, _as_of(held)
                )
                shares[tag.output].append(share)
                found.append(verdict)
        for output, of_assets in shares.items():
            self._diagnostics.coverage.labels(config.name, output).set(float(np.mean(of_assets)))
        return [verdict for verdict in found if verdict is not None]

    def _changed(self, version: ModelVersion, lasting: Iterable[Drift], verdicts: Iterable[Verdict]) -> Iterable[Drift]:
        """Drifts that began or ended by these verdicts, and those of versions that are no longer in force."""
        effect = self._clock() + _SOON
        open_here = {
            (drift.kind, drift.asset, drift.subject): drift for drift in lasting if drift.version == version.version
        }
        yield from (replace(drift, until=effect) for drift in lasting if drift.version != version.version)
        for verdict in verdicts:
            drift = open_here.get(verdict.key)
            if drift is not None and not verdict.drifted:
                yield replace(drift, until=effect)
            elif drift is None and verdict.drifted:
                yield _begun(version, verdict, effect)


def _errors(tag: OutputTag, proven: Sequence[Proof], usual: float) -> Verdict | None:
    errors = np.array([proof.error for proof in proven])
    return error_verdict(tag.asset, tag, errors, _as_of(proven), usual)


def _as_of(proven: Sequence[Proof]) -> list[Micros]:
    return [to_micros(proof.prediction.as_of) for proof in proven]


def _begun(version: ModelVersion, verdict: Verdict, noticed: datetime) -> Drift:
    return Drift(
        id=str(uuid4()),
        model=version.model,
        version=version.version,
        kind=verdict.kind,
        asset=verdict.asset,
        subject=verdict.subject,
        since=from_micros(verdict.since),
        noticed=noticed,
        until=None,
        statistic=verdict.statistic,
        limit=verdict.limit,
        detail=verdict.detail,
    )


def _tell(drift: Drift) -> None:
    label = f"{drift.model}-{drift.version}"
    if drift.until is not None:
        log.info("model %s: the %s of %s of %s is over", label, drift.kind, drift.subject, drift.asset)
    elif drift.doubtful:
        log.warning("model %s does not fit %s any more: %s", label, drift.asset, drift.detail)
    else:
        log.info("model %s should be trained anew for %s: %s", label, drift.asset, drift.detail)


def _times(end: datetime, cells: int, step: timedelta) -> range:
    """Beginnings of the cells before ``end`` [µs]."""
    return range(to_micros(end) - cells * micros(step), to_micros(end), micros(step))
