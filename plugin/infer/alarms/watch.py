"""What finds alarms: results of models as they come, how models stand, sources, and what was measured since."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from plugin.domain import Asset, Meaning, Outage, Outcome, OutputTag, RunKind, Standing, Tag
from plugin.errors import StoreError
from plugin.infer.alarms.catalogue import alarm_of, conditions
from plugin.infer.alarms.config import AlarmsConfig
from plugin.infer.alarms.findings import Found, of_health, of_outcome, of_proof, of_standings
from plugin.infer.alarms.room import Room
from plugin.infer.scoring import Scorer
from plugin.infer.truths import Proof, proofs
from plugin.protocols import Source, Store

_log = logging.getLogger(__name__)

_EVERY = 1.0
"""Between two looks at sources and clocks [s]."""
_PROVE = timedelta(minutes=1)
"""Between two looks at what came true."""
_REACH = timedelta(days=2)
"""How late a laboratory's value may be and still raise an alarm."""


class AlarmWatch:
    """A :class:`plugin.protocols.Sink` that raises alarms on what it is told, and a task that looks at the rest."""

    def __init__(
        self,
        config: AlarmsConfig,
        room: Room,
        store: Store,
        sources: Sequence[Source] = (),
        tags: Iterable[Tag] = (),
        scorers: Sequence[Scorer] = (),
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """``scorers``: looked at each time."""
        self._config = config
        self._room = room
        self._store = store
        self._sources = sources
        self._assets: dict[str, dict[str, str]] = {source.name: {} for source in sources}
        for tag in tags:
            if tag.asset and tag.source in self._assets:
                self._assets[tag.source][tag.name] = tag.asset
        self._scorers = scorers
        self._clock = clock
        self._flags: dict[tuple[str, str], str] = {}
        self._proven: dict[str, datetime] = {}
        self._next_proof = clock()
        self._complaint = ""

    @property
    def name(self) -> str:
        """Name in logs and diagnostics."""
        return "alarms"

    async def furnish(self, tags: Sequence[OutputTag]) -> None:
        """Make the conditions of these outputs, of all sources and assets. Raises StoreError."""
        assets = [asset for of_source in self._assets.values() for asset in of_source.values()]
        await self._room.furnish(conditions(self._config, tags, [source.name for source in self._sources], assets))
        self._note_flags(tags)

    @asynccontextmanager
    async def open(self, tags: Sequence[OutputTag]) -> AsyncIterator[None]:
        """See the protocol; :meth:`furnish` came before."""
        yield

    async def extend(self, tags: Sequence[OutputTag]) -> None:
        """See the protocol."""
        await self._room.furnish(conditions(self._config, tags, (), ()), all_there_are=False)
        self._note_flags(tags)

    async def publish(self, outcome: Outcome) -> None:
        """See the protocol; a challenger raises nothing."""
        if outcome.run.kind is RunKind.SCORE:
            await self._room.take(of_outcome(self._config, self._room.states, self._flags, outcome))

    async def degrade(self, outage: Outage) -> None:
        """Sources are looked at by :meth:`watch`."""

    async def inform(self, standings: Sequence[Standing]) -> None:
        """See the protocol."""
        await self._room.take(of_standings(standings))

    async def watch(self) -> None:
        """For ever. What can't be stored is found again at the next look."""
        while True:
            try:
                await self.look()
            except StoreError as error:
                self._complain(str(error))
            else:
                self._complaint = ""
            await asyncio.sleep(_EVERY)

    async def look(self) -> None:
        """Once at everything. Raises StoreError."""
        await self._room.take(self._of_sources())
        now = self._clock()
        if now >= self._next_proof:
            self._next_proof = now + _PROVE
            await self._room.take([found async for found in self._deviations(now)])
        await self._room.pass_time()

    def _of_sources(self) -> Iterator[Found]:
        for source in self._sources:
            yield from of_health(source.name, source.health(), self._assets[source.name])

    async def _deviations(self, now: datetime) -> AsyncIterator[Found]:
        """Of each soft sensor whose truth is measured: the newest result that was not looked at yet."""
        for scorer in list(self._scorers):
            proven = [tag for tag in scorer.tags if tag.meaning is Meaning.VALUE and _measured(scorer, tag)]
            if not proven:
                continue
            given = await self._store.predictions(scorer.config.name, now - _REACH, now)
            came_true = await proofs(self._store, scorer.config, scorer.assets, given)
            newest = {proof.prediction.tag.name: proof for proof in came_true}
            for proof in newest.values():
                found = self._news(proof)
                if found is not None:
                    yield found

    def _news(self, proof: Proof) -> Found | None:
        name = proof.prediction.tag.name
        if self._proven.get(name) == proof.time:
            return None
        self._proven[name] = proof.time
        return of_proof(self._config, proof)

    def _note_flags(self, tags: Iterable[OutputTag]) -> None:
        self._flags |= {(tag.model, tag.asset): alarm_of(tag) for tag in tags if tag.flag}

    def _complain(self, text: str) -> None:
        """Once per change of the text."""
        if text != self._complaint:
            _log.warning("alarms can't be stored, and are found again: %s", text)
            self._complaint = text


def _measured(scorer: Scorer, tag: OutputTag) -> bool:
    assets: Iterable[Asset] = (asset for asset in scorer.assets if asset.name == tag.asset)
    return "lab" in scorer.config.roles or any(tag.output in asset.tags for asset in assets)
