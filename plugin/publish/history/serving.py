"""The history of a server's nodes: what the sink opens."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime

from asyncua import ua

from plugin.diagnostics import Diagnostics
from plugin.domain import Micros, OutputTag, Part, Tag, from_micros
from plugin.errors import StoreError
from plugin.protocols import Store
from plugin.publish.asyncua_server import PlantServer
from plugin.publish.cells import Cell
from plugin.publish.history import nodes
from plugin.publish.history.answering import History
from plugin.publish.history.arithmetic import AGGREGATES
from plugin.publish.history.events import PAGE, Told
from plugin.publish.history.finding import Finder
from plugin.publish.history.past import LATEST
from plugin.publish.tree import Tree
from plugin.publish.types import Ref

_EVERY = 3600.0
"""Between two looks at where the archive begins [s]."""
_ASKED = 1000
"""Outputs that share what is said of their archive, at most: of more it is not said when it begins."""


class Served:
    """The past of outputs and of mirrored tags."""

    def __init__(self, store: Store, tags: Sequence[Tag], diagnostics: Diagnostics) -> None:
        self._store = store
        self._tags = tags
        self._diagnostics = diagnostics
        self._finder = Finder(store, 0, ())
        self._assets: dict[ua.NodeId, str] = {}
        self._measured: tuple[Cell, ...] = ()
        self._said: dict[tuple[str, str], tuple[Cell, ...]] = {}
        self._outputs: dict[tuple[str, str], list[OutputTag]] = {}

    def open(self, server: PlantServer, tree: Tree, tags: Sequence[OutputTag]) -> None:
        """For a server that does not listen yet, and has the nodes of all tags."""
        self._finder = Finder(self._store, tree.id("").NamespaceIndex, self._tags)
        self._said, self._outputs = {}, {}
        self._measured = nodes.build(tree, self._tags)
        self.extend(tree, tags)
        nodes.tell_capabilities(tree, server.iserver, tuple(AGGREGATES), PAGE)
        self._assets[tree.ref(Ref(ua.ObjectIds.Server))] = ""
        tree.remember_events(tree.ref(Ref(ua.ObjectIds.Server)))
        history = History(
            self._finder, server.iserver.aspace.__contains__, self._diagnostics, Told(self._store, tree),
            self._assets.get,
        )  # fmt: skip
        server.serve_history(history.answer)

    def extend(self, tree: Tree, tags: Sequence[OutputTag]) -> None:
        """The nodes of more outputs are there."""
        self._finder.add(tags)
        self._said |= nodes.extend(tree, tags)
        for tag in tags:
            self._outputs.setdefault((tag.model, tag.output), []).append(tag)
        for asset in dict.fromkeys(tag.asset for tag in tags):
            node = tree.id(f"Foretag.Assets.{asset}")
            if node not in self._assets:
                self._assets[node] = asset
                tree.remember_events(node)

    async def watch(self) -> None:
        """For ever: tell since when there is an archive (OPC 10000-11, 5.2.3). Retention moves it, seldom."""
        while True:
            with suppress(StoreError):  # what was told stands
                await self._tell_starts()
            await asyncio.sleep(_EVERY)

    async def _tell_starts(self) -> None:
        if self._measured:
            _tell(self._measured, await self._store.next_time(0))
        for key, cells in list(self._said.items()):
            sharing = self._outputs[key]
            if len(sharing) <= _ASKED:  # one query each
                _tell(cells, min([time for tag in sharing for time in await self._first(tag)], default=None))

    async def _first(self, tag: OutputTag) -> list[int]:
        found = await self._store.told(tag, Part.VALUE, 0, LATEST, limit=1)
        return [int(time) for time in found.source_time]


def _tell(cells: Sequence[Cell], start: Micros | None) -> None:
    now = datetime.now(UTC)
    for cell in cells if start is not None else ():
        cell.note(from_micros(start or 0), now, now)
