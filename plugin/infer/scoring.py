"""One scoring run: windows of all assets → one jitted call → predictions with status → flags.

Live, replay and backtest call :meth:`Scorer.score`; they differ in the clock alone.
"""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from models.explain import Explainer
from models.kind import ModelKind, Params, Spec
from models.references import Ranges
from models.runtime import Numbers, Predictor, check_tree
from plugin.diagnostics import Diagnostics
from plugin.domain import (
    Asset,
    Explanation,
    Flag,
    Meaning,
    Micros,
    ModelVersion,
    Outcome,
    OutputTag,
    Prediction,
    Run,
    RunKind,
)
from plugin.errors import ArtifactError, ModelError
from plugin.infer.compute import Compute, T
from plugin.infer.config import ExplainConfig, ModelConfig
from plugin.infer.explaining import Reasons
from plugin.infer.far_off import FarOff, believable
from plugin.infer.flags import Decision
from plugin.infer.looking import Look, Looking, Windows
from plugin.infer.outputs import model_spec, output_tag, predictions, simulated
from plugin.infer.registry import Registry
from plugin.infer.sight import Sight
from plugin.infer.windows import whole_steps
from plugin.tasks import job

log = logging.getLogger(__name__)

_LONGEST_STILL = timedelta(days=90)
"""How far back flags are looked for that say whether one is raised now."""


@dataclass(frozen=True, slots=True, eq=False)
class Ready:
    """A version that is ready to predict."""

    version: ModelVersion
    predictor: Predictor
    explainers: dict[str, Explainer]
    """By output; none where nothing is to be explained, or where it broke."""
    ranges: Ranges
    """Of its inputs: what is beyond can't be."""
    decisions: dict[str, Decision] = field(default_factory=dict)
    """On flags, by asset; empty until the first run, which looks into the past for them."""
    warming: list[Future[None]] = field(default_factory=list)
    """Of the explainers, one; empty until the first run, whose numbers do not wait for what compiles as long again."""


class Scorer:
    """One model over all its assets."""

    def __init__(
        self,
        config: ModelConfig,
        kind: ModelKind,
        assets: Sequence[Asset],
        store: Sight,
        registry: Registry,
        compute: Compute,
        diagnostics: Diagnostics,
        away: Callable[[str], Micros | None] = lambda source: None,
        only: ModelVersion | None = None,
    ) -> None:
        """``away``: last word of a source that is away [µs]. ``only``: score by this version, whichever is in force."""
        self.config = config
        self.kind = kind
        self.assets = tuple(assets)
        self._store = store
        self._registry = registry
        self._compute = compute
        self._diagnostics = diagnostics
        self._only = only
        self.challengers: tuple[ModelVersion, ...] = ()
        """Those to be scored in shadow, newest first, as they were when :meth:`refresh` looked."""
        self._champion: Ready | None = None
        self._shadows: dict[int, Ready] = {}
        self._loading: dict[int, Future[Ready]] = {}
        self._refreshing = asyncio.Lock()
        self._look: Look | None = None
        self._far_off = FarOff(config, self.assets)
        self._looking = Looking(config, self.assets, store, away)
        self._spec = model_spec(config)
        outputs = kind.outputs(self._spec)
        self._tags = {spec.name: [output_tag(config, asset, spec) for asset in self.assets] for spec in outputs}
        self._ahead = {spec.name: spec.ahead for spec in outputs}
        self._reasons = Reasons(config, kind, self._spec, self._tags)
        self._flag = next((spec.name for spec in outputs if spec.meaning is Meaning.FLAG), None)

    @property
    def tags(self) -> tuple[OutputTag, ...]:
        """Every tag from the future that this model gives."""
        return tuple(tag for of_assets in self._tags.values() for tag in of_assets)

    async def refresh(self) -> Ready | None:
        """Take up the version in force; a new one is loaded and compiled, and has effect from this run on."""
        async with self._refreshing:
            version = self._only
            if version is None:
                line_up = await self._registry.line_up(self.config.name, self._spec)
                version, self.challengers = line_up.champion, line_up.challengers[: self.config.shadow]
            if version is None:
                self._champion = None
            elif self._champion is None or self._champion.version.version != version.version:
                known = self._shadows.get(version.version)
                self._champion = replace(known, decisions={}) if known else await self._load(version)
                log.info("model %s is in force for %d asset(s)", version.label, len(self.assets))
            kept = {challenger.version for challenger in self.challengers}
            self._shadows = {number: ready for number, ready in self._shadows.items() if number in kept}
            for number in self._loading.keys() - kept:
                self._loading.pop(number).cancel()
            return self._champion

    @property
    def seen_until(self) -> datetime | None:
        """End of the window that was scored last; None: none was."""
        return None if self._look is None else self._look.end

    async def past(self, end: datetime, cells: int) -> Windows:
        """What there is now of so many cells before ``end``, of all assets, as windows show it."""
        return await self._looking.windows(Run(0, self.config.name, RunKind.SCORE, end), end, None, cells)

    async def compute(self, work: Callable[[], T]) -> T:
        """Done by the device, in its thread."""
        return await self._compute.run("infer", work)

    async def version(self) -> ModelVersion | None:
        """The version that is to be scored by, taken up or not; None: there is none for this configuration."""
        return self._only or await self._registry.champion(self.config.name, self._spec)

    def by(self, version: ModelVersion, store: Sight) -> "Scorer":
        """The same model over the same assets by this version alone, with no source away and no explanations."""
        config = self.config.model_copy(update={"explain": ExplainConfig(most=0)})
        return Scorer(
            config, self.kind, self.assets, store, self._registry, self._compute, self._diagnostics, only=version
        )

    async def score(self, run: Run, end: datetime, *, known_by: Micros | None = None) -> Outcome | None:
        """Predictions of every asset for the window up to ``end``; None while there is no model.

        The window ends with the last whole step that is not after ``end``, and so does what is said of it (``as_of``).

        It looks at what the store had when the run was begun (``started``; None: at all that there is); ``known_by`` as
        in :meth:`plugin.protocols.Store.read_samples`. What else it could not see is in the outcome's run.
        """
        end = whole_steps(self.config, end)
        champion = self._champion or await self.refresh()  # a scheduled run has refreshed just before
        if champion is None:
            return None
        run = replace(run, unheard=self._looking.sources_away())
        until = time.monotonic() + self.config.schedule.limit.total_seconds() / 2
        self._look = await self._looking.look(run, end, known_by)
        self._looking.count(self._look, self._diagnostics)
        return await self._outcome(champion, self._look, until)

    async def shadow(self, version: ModelVersion, run: Run) -> Outcome:
        """What a challenger says of what the last :meth:`score` saw; ``run`` is of the kind that says so.

        Its numbers are UncertainSimulatedValue, its flags follow from its own scores alone.
        """
        if self._look is None:
            raise ModelError(f"model {version.label}: there is no run that it could stand beside")
        ready = self._shadows.get(version.version) or await self._load_aside(version)
        seen = self._look.run
        run = replace(run, started=seen.started, unheard=seen.unheard)
        return await self._outcome(ready, replace(self._look, run=run))

    async def _load_aside(self, version: ModelVersion) -> Ready:
        """Where the caller can't wait for so long, it goes on, and the next one finds it further."""
        future = self._loading.get(version.version)
        if future is None:
            future = self._loading[version.version] = await self._compiling(version)
        try:
            ready = await asyncio.shield(asyncio.wrap_future(future))
        finally:
            if future.done():
                self._loading.pop(version.version, None)
        self._count_compiled(ready)
        self._shadows[version.version] = ready
        return ready

    async def _compiling(self, version: ModelVersion) -> Future[Ready]:
        found = await self._registry.contents(version)
        ranges = believable(self.config, found.references)
        return self._compute.aside("infer", self._compiled, version, found.spec, found.params, ranges)

    def _compiled(self, version: ModelVersion, spec: Spec, params: Params, ranges: Ranges) -> Ready:
        try:
            check_tree(self.kind, spec, params)
        except ValueError as error:
            raise ArtifactError(f"model {version.label}: {error}") from error
        predictor = Predictor(self.kind, spec, params, self._compute.device)
        predictor.warm(len(self.assets))
        return Ready(version, predictor, self._reasons.explainers(version, spec, params, self._compute.device), ranges)

    def _count_compiled(self, ready: Ready) -> None:
        self._diagnostics.compilations.labels(self.config.name).inc(ready.predictor.compilations)

    def forget(self) -> None:
        """What was decided and could not be stored was not decided: the next run begins with the stored flags."""
        for ready in (self._champion, *self._shadows.values()):
            if ready is not None:
                ready.decisions.clear()

    async def again(self, run: Run, end: datetime) -> Outcome:
        """What a stored run gave as of ``end``, computed again from what it could see.

        By the version that it names, whichever is in force now. Raises ModelError where that is not to be had.
        """
        champion = self._champion
        if champion is None or champion.version.version != run.version:
            champion = await self._load(await self._registry.version(run.model, run.version))
        return await self._outcome(replace(champion, decisions={}), await self._looking.look(run, end))

    async def _outcome(self, ready: Ready, look: Look, until: float = math.inf) -> Outcome:
        """``until``: reasons are waited for no longer [s of :func:`time.monotonic`]."""
        begin = time.perf_counter()
        estimates = await self._predict(ready.predictor, look.windows)
        run = replace(
            look.run,
            version=ready.version.version,
            assets=len(self.assets),
            stages={"window": look.seconds, "infer": time.perf_counter() - begin},
        )
        numbers = {name: tags for name, tags in self._tags.items() if name != self._flag}
        far = self._looking.far(look.windows, ready.ranges)
        if look is self._look and self._only is None:  # not of the past, nor what a challenger thinks of it
            self._far_off.tell(ready.version.label, ready.ranges, far)
        inputs = await self._looking.statuses(look.windows, run, far)
        coverage = look.windows.coverage.tolist()
        given = tuple(predictions(self.config, run, look.end, numbers, inputs, coverage, estimates, self._ahead))
        if run.kind is RunKind.SHADOW:
            given = tuple(map(simulated, given))
        if not ready.decisions:
            ready.decisions.update(await self._past_decisions(ready.version, look.end, run.kind))
        flags = self._decide(ready.version, given, ready.decisions)
        if run.kind is RunKind.SHADOW or not ready.explainers:
            return Outcome(run, given, flags)
        return Outcome(run, given, flags, await self._explain(ready, look.windows, given, flags, until))

    async def _explain(
        self, ready: Ready, windows: Windows, given: Sequence[Prediction], flags: Sequence[Flag], until: float
    ) -> tuple[Explanation, ...]:
        """No result is lost for its reasons: what is not found in time is left out, and counted.

        A version whose reasons break has none any more, which is said once: they would break again at each run.
        """
        warm = self._warm(ready)
        if not self._reasons.asked(ready.explainers, given, flags):
            return ()
        told: tuple[Explanation, ...] = ()
        complete = False

        async def tell() -> tuple[tuple[Explanation, ...], bool]:
            await asyncio.shield(asyncio.wrap_future(warm))
            seen = ready.explainers, windows.values, windows.observed
            return await self._compute.explain(self._reasons.of, *seen, given, flags, until)

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if math.isinf(until) else max(0.0, until - time.monotonic())):
                what = f"model {ready.version.label}: to tell why its results are what they are"
                found = await job(self._diagnostics, "explanations", what, tell())
                if found is None:
                    ready.explainers.clear()
                    return ()
                told, complete = found
        if not complete:
            self._diagnostics.explanations_late.labels(self.config.name).inc()
        return told

    def _warm(self, ready: Ready) -> Future[None]:
        """Done when the explainers are compiled; begun here the first time."""
        if not ready.warming:
            ready.warming.append(self._compute.aside("explain", self._reasons.warm, ready.explainers))
            self._diagnostics.compilations.labels(self.config.name).inc(len(ready.explainers))
        return ready.warming[0]

    async def _load(self, version: ModelVersion) -> Ready:
        ready = await asyncio.wrap_future(await self._compiling(version))
        self._count_compiled(ready)
        return ready

    async def _predict(self, predictor: Predictor, windows: Windows) -> Mapping[str, Numbers]:
        before = predictor.compilations
        estimates = await self._compute.run("infer", predictor.predict, windows.values, windows.observed)
        self._diagnostics.compilations.labels(self.config.name).inc(predictor.compilations - before)
        return estimates

    def cut_off(self, away: frozenset[str]) -> Iterator[OutputTag]:
        """The outputs that draw on one of these sources."""
        assets = self._looking.cut_off(away)
        return (tag for tag in self.tags if tag.asset in assets)

    def _decide(
        self, version: ModelVersion, given: Sequence[Prediction], decisions: Mapping[str, Decision]
    ) -> tuple[Flag, ...]:
        return tuple(
            Flag(
                model=self.config.name,
                asset=score.tag.asset,
                version=version.version,
                as_of=score.as_of,
                raised=decisions[score.tag.asset].decide(score.value, score.as_of),
                score=score.value,
                threshold=decisions[score.tag.asset].threshold,
                status=score.status,
                run=score.run,
            )
            for score in given
            if decisions and score.tag.output == "score" and score.value is not None
        )

    async def _past_decisions(self, version: ModelVersion, now: datetime, kind: RunKind) -> dict[str, Decision]:
        """By asset; none where the model gives no flags. In shadow only what the same version said there counts."""
        threshold = version.metrics.get("threshold")
        if self._flag is None or threshold is None:
            return {}
        rule = self.config.rule
        past = await self._past_flags(version, now, kind is RunKind.SHADOW, rule.memory)
        return {asset.name: Decision(float(threshold), rule, past[asset.name]) for asset in self.assets}

    async def _past_flags(
        self, version: ModelVersion, now: datetime, shadow: bool, enough: int
    ) -> dict[str, list[Flag]]:
        """By asset: ``enough`` of its last flags. A plant that stood still for weeks has them that far back."""
        reach = 2 * enough * self.config.schedule.every
        while True:
            found: dict[str, list[Flag]] = {asset.name: [] for asset in self.assets}
            for flag in await self._store.flags(now - reach, now, shadow=shadow):
                ours = flag.model == version.model and (not shadow or flag.version == version.version)
                if ours and flag.asset in found:
                    found[flag.asset].append(flag)
            if reach >= _LONGEST_STILL or all(len(flags) >= enough for flags in found.values()):
                return found
            reach = min(_LONGEST_STILL, 16 * reach)
