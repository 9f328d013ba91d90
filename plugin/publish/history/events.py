"""Events of the past, page by page (OPC 10000-11, 6.5.2): those of an asset, or of all at the Server object."""

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from asyncua import ua

from plugin.domain import Event, Micros, from_micros, to_micros
from plugin.protocols import Store
from plugin.publish.event_filter import CONDITION_ID, EventFilter, Occurrence
from plugin.publish.history.past import YEAR_1, YEAR_9999
from plugin.publish.history.raw import Page
from plugin.publish.tree import Tree
from plugin.publish.types import event_type

PAGE = 500
"""Events of one node in one answer, at most, and as many as are looked at for it."""
_T = ua.VariantType
_FOREIGN = ua.NodeId()


@dataclass(frozen=True, slots=True)
class EventReading:
    """Time flows from ``begin``, which belongs to the range, to ``end``, which does not."""

    told: "Told"
    asset: str | None
    filter: EventFilter
    begin: Micros
    end: Micros | None
    """None: it ends with the ``left`` events."""
    backwards: bool
    per_page: int
    left: int | None = None
    skip: int = 0
    """Events of ``begin`` that were looked at already."""

    async def page(self, most: int) -> Page:
        """See the protocol."""
        room = min(most, PAGE, self.per_page or PAGE, PAGE if self.left is None else self.left)
        found = (await self.told.read(self.asset, *self._span(), PAGE + self.skip + 1, self.backwards))[self.skip :]
        looked = 0
        given: list[ua.HistoryEventFieldList] = []
        for event in found[:PAGE]:
            if len(given) == room:
                break
            looked += 1
            occurrence = self.told.occurrence(event)
            if self.filter.passes(occurrence):
                given.append(ua.HistoryEventFieldList(self.filter.select(occurrence.fields)))
        rest = self._after(found[:looked], len(given)) if looked < len(found) else None
        content: Any = ua.HistoryEvent(given)
        return Page(content, len(given), rest)

    def _span(self) -> tuple[Micros, Micros]:
        if self.backwards:
            return (YEAR_1 if self.end is None else self.end + 1), self.begin + 1
        return self.begin, (YEAR_9999 if self.end is None else max(self.end, self.begin + (self.end == self.begin)))

    def _after(self, looked: tuple[Event, ...], given: int) -> "EventReading | None":
        left = None if self.left is None else self.left - given
        if left == 0:
            return None
        if not looked:
            return replace(self, left=left)
        last = to_micros(looked[-1].time)
        same = sum(to_micros(event.time) == last for event in looked) + (self.skip if last == self.begin else 0)
        return replace(self, begin=last, skip=same, left=left)


class Told:
    """Events as clients select from them."""

    def __init__(self, store: Store, tree: Tree) -> None:
        self._store = store
        self._tree = tree
        self._types: dict[str, tuple[ua.NodeId, frozenset[ua.NodeId]]] = {}

    async def read(self, asset: str | None, start: Micros, end: Micros, limit: int, newest: bool) -> tuple[Event, ...]:
        """At most so many with ``start <= time < end``."""
        span = from_micros(max(start, YEAR_1)), from_micros(min(end, YEAR_9999))
        return await self._store.events(*span, asset=asset, limit=limit, oldest_first=not newest)

    def occurrence(self, event: Event) -> Occurrence:
        """Its fields by path, and the types that it is of."""
        kind, kinds = self._kind(event.type)
        source = f"Foretag.Assets.{event.asset}"
        known = self._tree.id(source) if event.asset and self._tree.has(source) else _FOREIGN
        fields = {
            "EventId": ua.Variant(_event_id(event.id), _T.ByteString),
            "EventType": ua.Variant(kind, _T.NodeId),
            "SourceNode": ua.Variant(known, _T.NodeId),
            "SourceName": ua.Variant(event.source_name, _T.String),
            "Time": ua.Variant(event.time, _T.DateTime),
            "ReceiveTime": ua.Variant(event.received, _T.DateTime),
            "Message": ua.Variant(ua.LocalizedText(event.message), _T.LocalizedText),
            "Severity": ua.Variant(event.severity, _T.UInt16),
        }
        if event.condition:
            fields[CONDITION_ID] = ua.Variant(self._tree.id(event.condition), _T.NodeId)
        return Occurrence(self._others(event.fields) | fields, kinds, ())

    def _kind(self, name: str) -> tuple[ua.NodeId, frozenset[ua.NodeId]]:
        if name not in self._types:
            ref = event_type(name)
            self._types[name] = self._tree.ref(ref), self._tree.types_of(ref)
        return self._types[name]

    def _others(self, stored: Mapping[str, Any]) -> dict[str, ua.Variant]:
        return {path: self._variant(path, fact) for path, fact in stored.items() if fact is not None}

    def _variant(self, path: str, fact: Any) -> ua.Variant:
        """JSON as what the field's type is (OPC 10000-9, 5.5 to 5.8)."""
        if path in _TEXTS:
            return ua.Variant(ua.LocalizedText(str(fact)), _T.LocalizedText)
        if path in _NODES:
            return ua.Variant(self._tree.id(str(fact)) if fact else ua.NodeId(), _T.NodeId)
        if path in _KINDS:
            kind, made = _KINDS[path]
            return ua.Variant(made(fact), kind)
        kind = _PLAIN.get(type(fact), _T.String)
        return ua.Variant(fact if type(fact) in _PLAIN else str(fact), kind)


_TEXTS = frozenset(("ConditionClassName", "Comment", "ShelvingState/CurrentState", "LimitState/CurrentState"))
_NODES = frozenset(("BranchId", "InputNode"))
_KINDS: Mapping[str, tuple[ua.VariantType, Callable[[Any], Any]]] = {
    "Quality": (_T.StatusCode, lambda fact: ua.StatusCode(ua.UInt32(int(fact)))),
    "LastSeverity": (_T.UInt16, int),
    "ReAlarmRepeatCount": (_T.Int16, int),
    "ActiveState/TransitionTime": (_T.DateTime, datetime.fromisoformat),
    **{f"{name}Limit": (_T.Double, float) for name in ("HighHigh", "High", "Low", "LowLow")},
}


_PLAIN = {bool: _T.Boolean, int: _T.Int64, float: _T.Double, str: _T.String}


def _event_id(text: str) -> bytes:
    """Hexadecimal digits or a UUID."""
    try:
        return bytes.fromhex(text)
    except ValueError:
        return _of_uuid(text)


def _of_uuid(text: str) -> bytes:
    try:
        return uuid.UUID(text).bytes
    except ValueError:
        return text.encode()
