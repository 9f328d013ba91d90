"""Another configuration for a service that runs: its tags, and whether anything is written into the plant, take effect
at once; what else changed is named.

The file is read whole and checked whole first: with a fault in it nothing changes.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime

from plugin import auditing
from plugin.acquire.source import OpcUaSource
from plugin.config import Config
from plugin.diagnostics import some
from plugin.domain import Asset, Audit, Micros, Tag
from plugin.historian.spilling.spill import Spill
from plugin.hmi.overview import Overview
from plugin.protocols import Store
from plugin.publish.config import WriteBackConfig
from plugin.publish.writeback import WriteBack

log = logging.getLogger(__name__)

_FIXED = tuple(field.name for field in fields(Config) if field.name not in {"path", "data", "tags", "write_back"})
"""Sections of the configuration that a running service can't change."""
_ANSWER = 5.0
"""How long the servers' answers for tags that are new are waited for [s]; they go on being asked after it."""

Rescore = Callable[[Sequence[Tag]], Awaitable[tuple[list[str], list[str]]]]
"""Have the models watch the assets of these tags; models that do now, and those that need a restart for it."""


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What became of a reload."""

    added: tuple[str, ...] = ()
    """Names of tags."""
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    """Of those that were added or changed: what the server does not give us at present."""
    rescored: tuple[str, ...] = ()
    """Models that watch other assets from now on."""
    restart: tuple[str, ...] = ()
    """What else changed in the file, and takes effect at the next start only."""
    writing: tuple[str, ...] = ()
    """What `[write_back]` does from now on, where that changed."""
    later: tuple[str, ...] = ()
    """What takes effect as soon as this gateway leads: it stands by."""
    faults: tuple[str, ...] = ()
    """Why nothing changed; empty: it took effect."""

    def lines(self, names: int = 20) -> list[str]:
        """For a person; at most so many names of each kind."""
        if self.faults:
            return ["Nothing was changed:", *(f"  {fault}" for fault in self.faults)]
        told = (
            ("added", self.added), ("removed", self.removed), ("changed", self.changed),
            ("refused by the server (asked for again by itself)", self.refused),
            ("models that watch other assets now", self.rescored), ("takes effect at the next start", self.restart),
            ("takes effect when this gateway leads", self.later),
        )  # fmt: skip
        found = [f"{what}: {len(which)} ({some(which, names)})" for what, which in told if which]
        found += [f"writing into the plant: {state}" for state in self.writing]
        return found or ["Nothing in the file has changed."]


class Reloading:
    """Brings a running service to another configuration."""

    def __init__(
        self,
        config: Config,
        store: Store,
        sources: Sequence[OpcUaSource],
        overview: Overview,
        rescore: Rescore,
        spill: Spill | None = None,
        write_backs: Sequence[WriteBack] = (),
    ) -> None:
        self.config = config
        """What is in force."""
        self._store = store
        self._sources = tuple(sources)
        self._overview = overview
        self._rescore = rescore
        self._spill = spill
        self._write_backs = tuple(write_backs)

    async def apply(self, config: Config, user: str = "foretag", origin: str = "service") -> Reloaded:
        """Take up the tags of another configuration, and put on record for whom.

        StoreError where the database is away: no tag changed then, but writing into the plant is off if it is to be.
        """
        switched = await self._switch(config.write_back, user, origin)
        before = {tag.name: tag for tag in self.config.tags}
        after = {tag.name: tag for tag in config.tags}
        added = tuple(name for name in after if name not in before)
        removed = tuple(name for name in before if name not in after)
        changed = tuple(name for name in after if name in before and after[name] != before[name])
        restart = [
            "foretag" if name == "runtime" else name
            for name in _FIXED
            if getattr(config, name) != getattr(self.config, name)
        ]
        if config.write_back.rules != self.config.write_back.rules:
            restart.append("write_back.rules")
        rescored: list[str] = []
        if added or removed or changed:
            tags = await self._store.register_tags(config.tags)
            if self._spill is not None:
                self._spill.know(tags)
            for source in self._sources:
                await self._change(source, tags, frozenset(added))
            self._overview.change(Asset.gather(tags))
            self.config = replace(self.config, tags=tags_in_force(tags))
            if "models" not in restart:  # else the tags may not be those that the running models need
                rescored, later = await self._rescore(tags)
                restart += later
            what = {"added": added, "removed": removed, "changed": changed, "models": tuple(rescored)}
            entry = Audit(datetime.now(UTC), user, origin, "reload", str(config.path), after=what)
            await auditing.keep(self._store, self.config.data, entry)
        refused = await self._refused(frozenset((*added, *changed)))
        return Reloaded(added, removed, changed, refused, tuple(rescored), tuple(restart), switched)

    async def _switch(self, asked: WriteBackConfig, user: str, origin: str) -> tuple[str, ...]:
        before, after = self.config.write_back, writing(self.config.write_back, asked)
        if before == after:
            return ()
        for sink in self._write_backs:
            sink.switch(after)
        self.config = replace(self.config, write_back=after)
        states = [{"enabled": each.enabled, "dry_run": each.dry_run} for each in (before, after)]
        entry = Audit(datetime.now(UTC), user, origin, "write back", "[write_back]", *states)
        await auditing.keep(self._store, self.config.data, entry)
        return (("dry run" if after.dry_run else "on") if after.enabled else "off",)

    async def _change(self, source: OpcUaSource, tags: Sequence[Tag], added: frozenset[str]) -> None:
        mine = [tag for tag in tags if tag.source == source.name]
        new = [tag.id for tag in mine if tag.name in added]
        newest = await self._store.latest(new)
        known: Mapping[int, Micros] = dict(zip(newest.tag.tolist(), newest.source_time.tolist(), strict=True))
        source.change(mine, known, await self._store.checkpoints(f"{source.name}/history/") if new else {})

    async def _refused(self, names: frozenset[str]) -> tuple[str, ...]:
        items = [item for source in self._sources for item in source.items if item.tag.name in names]
        try:
            async with asyncio.timeout(_ANSWER):
                while not all(item.asked for item in items):  # noqa: ASYNC110 - whether a server answers at all is not told
                    await asyncio.sleep(0.05)
        except TimeoutError:
            log.info("the tags that are new are asked for as soon as their servers are there")
        return tuple(item.tag.name for item in items if item.asked and not item.monitored)


def writing(now: WriteBackConfig, asked: WriteBackConfig) -> WriteBackConfig:
    """The rules in force, switched as asked; with other rules, which wait for the next start, no more than is written
    now."""
    other = now.rules != asked.rules
    enabled = asked.enabled and (now.enabled or not other)
    return now.model_copy(update={"enabled": enabled, "dry_run": asked.dry_run or (other and now.dry_run)})


def tags_in_force(tags: Sequence[Tag]) -> tuple[Tag, ...]:
    """As a configuration has them: without the historian's keys."""
    return tuple(replace(tag, id=0) for tag in tags)
