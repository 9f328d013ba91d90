"""The history of a server's nodes: what the sink opens."""

from collections.abc import Sequence

from asyncua import ua

from plugin.diagnostics import Diagnostics
from plugin.domain import OutputTag, Tag
from plugin.protocols import Store
from plugin.publish.asyncua_server import PlantServer
from plugin.publish.history import nodes
from plugin.publish.history.answering import History
from plugin.publish.history.arithmetic import AGGREGATES
from plugin.publish.history.events import PAGE, Told
from plugin.publish.history.finding import Finder
from plugin.publish.tree import Tree
from plugin.publish.types import Ref


class Served:
    """The past of outputs and of mirrored tags."""

    def __init__(self, store: Store, tags: Sequence[Tag], diagnostics: Diagnostics) -> None:
        self._store = store
        self._tags = tags
        self._diagnostics = diagnostics
        self._finder = Finder(store, 0, ())
        self._assets: dict[ua.NodeId, str] = {}

    def open(self, server: PlantServer, tree: Tree, tags: Sequence[OutputTag]) -> None:
        """For a server that does not listen yet, and has the nodes of all tags."""
        self._finder = Finder(self._store, tree.id("").NamespaceIndex, self._tags)
        nodes.build(tree, self._tags)
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
        nodes.extend(tree, tags)
        for asset in dict.fromkeys(tag.asset for tag in tags):
            node = tree.id(f"Foretag.Assets.{asset}")
            if node not in self._assets:
                self._assets[node] = asset
                tree.remember_events(node)
