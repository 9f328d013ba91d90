"""All conditions as clients see them: nodes, notifications, refresh."""

from collections.abc import Sequence
from datetime import UTC, datetime

from asyncua import ua

from plugin.infer.alarms.condition import Condition
from plugin.infer.alarms.room import Room
from plugin.infer.alarms.told import Notice
from plugin.publish.address_space import asset_of
from plugin.publish.asyncua_items import PlantItems
from plugin.publish.asyncua_server import PlantServer
from plugin.publish.asyncua_subscriptions import PlantSubscriptions
from plugin.publish.cells import status_code
from plugin.publish.conditions.instances import Instance
from plugin.publish.conditions.methods import Methods
from plugin.publish.conditions.metrics import Metrics
from plugin.publish.conditions.notification import occurrence, type_of
from plugin.publish.event_filter import Occurrence
from plugin.publish.event_items import EventItem, plain_event
from plugin.publish.tree import Tree
from plugin.publish.types import Ref

_ID = ua.ObjectIds
_SERVER = Ref(_ID.Server)


class Conditions:
    """Of one open server; ``room`` knows what is so."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._instances: dict[str, Instance] = {}
        self._types: dict[str, frozenset[ua.NodeId]] = {}
        self._sources: dict[str, ua.NodeId] = {}
        self._shelved: dict[str, Instance] = {}
        self._tree: Tree | None = None
        self._subscriptions: PlantSubscriptions | None = None
        self._metrics: Metrics | None = None
        room.listen(self.announce)

    def open(self, tree: Tree, server: PlantServer) -> None:
        """Nodes and methods, before the server listens."""
        self._tree = tree
        self._subscriptions = server.subscriptions
        for parent, child in (("", "Foretag"), ("Foretag", "Foretag.Assets"), ("Foretag", "Foretag.Models"),
                              ("Foretag", "Foretag.Server")):  # fmt: skip
            tree.emit(tree.id(child), tree.id(parent) if parent else tree.ref(_SERVER))
        tree.emit(tree.ref(_SERVER))
        Methods(self._room, self.refresh).open(tree, server)
        self._metrics = Metrics(self._room, tree, server)
        self.grow()

    def close(self) -> None:
        """What is announced from now on is not published; a refresh after the next start shows it."""
        self._tree = self._subscriptions = self._metrics = None
        for known in (self._instances, self._types, self._sources, self._shelved):
            known.clear()

    def grow(self) -> None:
        """Nodes of the conditions that have none yet."""
        if self._tree is None:
            return
        now = datetime.now(UTC)
        for key, state in self._room.states.items():
            if key not in self._instances:
                self._sources[key] = source = self._source(self._tree, state.condition)
                self._instances[key] = Instance(self._tree, state.condition, source)
                self._show(Notice(state.condition, state.current), now)

    def announce(self, notices: Sequence[Notice]) -> None:
        """Publish what is stored."""
        if self._tree is None or self._subscriptions is None:
            return
        if len(self._instances) < len(self._room.states):
            self.grow()
        now = datetime.now(UTC)
        for notice in notices:
            if notice.condition.id in self._instances:
                self._subscriptions.tell_event(self._occurrence(self._tree, notice))
                if not notice.alarm.branch:
                    self._show(notice, now)

    def meter(self, now: datetime) -> None:
        """Show how many alarms operators have to deal with, and how long those that are shelved still are."""
        if self._metrics is not None:
            self._metrics.show(now)
        for instance in self._shelved.values():
            instance.tell_left()

    def refresh(self, subscription: int, item: int | None = None) -> ua.StatusCode:
        """ConditionRefresh and ConditionRefresh2: to all items of a subscription, or to one (OPC 10000-9, 5.5.7)."""
        tree, service = self._tree, self._subscriptions
        found = service.subscriptions.get(subscription) if service is not None else None
        items = found.monitored_item_srv if found is not None else None
        if tree is None or not isinstance(items, PlantItems):
            return status_code(ua.StatusCodes.BadSubscriptionIdInvalid)
        hearing = items.event_items(item)
        if item is not None and not hearing:
            return status_code(ua.StatusCodes.BadMonitoredItemIdInvalid)
        shown = [notice for notice in self._room.retained() if notice.condition.id in self._instances]
        retained = [self._occurrence(tree, notice) for notice in shown]
        if any(each.refreshing for each in hearing):
            return status_code(ua.StatusCodes.BadRefreshInProgress)
        for each in hearing:
            _refresh(each, retained)
        return ua.StatusCode()

    def _occurrence(self, tree: Tree, notice: Notice) -> Occurrence:
        condition = notice.condition
        if condition.type not in self._types:
            self._types[condition.type] = tree.types_of(type_of(condition))
        source = self._sources[condition.id]
        return occurrence(tree, notice, source, _emitters(tree, condition, source), self._types[condition.type])

    def _show(self, notice: Notice, now: datetime) -> None:
        if self._tree is not None:
            fields = self._occurrence(self._tree, notice).fields
            until, instance = notice.alarm.shelved_until, self._instances[notice.condition.id]
            instance.show(fields, until, now)
            if until is not None:
                self._shelved[notice.condition.id] = instance
            else:
                self._shelved.pop(notice.condition.id, None)

    def _source(self, tree: Tree, condition: Condition) -> ua.NodeId:
        """The node that it is about: asset or model; of a plant's server, ours that misses it."""
        if condition.asset:
            asset = asset_of(tree, condition.asset)
            tree.emit(asset, tree.id("Foretag.Assets"))
            return asset
        model = f"Foretag.Models.{condition.model}"
        if condition.model and tree.has(model):
            tree.emit(tree.id(model), tree.id("Foretag.Models"))
            return tree.id(model)
        return tree.id("Foretag.Server")


def _emitters(tree: Tree, condition: Condition, source: ua.NodeId) -> tuple[ua.NodeId, ...]:
    folder = "Foretag.Assets" if condition.asset else "Foretag.Models" if condition.model else ""
    above = (tree.id(folder),) if folder else ()
    return (source, *above, tree.id("Foretag"), tree.ref(_SERVER))


def _refresh(item: EventItem, retained: Sequence[Occurrence]) -> None:
    """The events are those of before, with their EventId and Time."""
    node = item.read_value_id.NodeId if item.read_value_id is not None else None
    begin = plain_event(_ID.RefreshStartEventType, "Refresh begins")
    heard = (each for each in retained if node in each.emitters)
    item.refresh(begin, heard, plain_event(_ID.RefreshEndEventType, "Refresh ends"))
