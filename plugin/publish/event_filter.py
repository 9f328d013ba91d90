"""What a client wants to know of events, and of which: EventFilter (OPC 10000-4, 7.22.3), compiled once.

What differs from asyncua 2.1.0: fields are found by their whole path, ConditionId among them; OfType knows subtypes;
a comparison with what an event does not have is not true (asyncua fails, and logs it, for each event); what can't be
evaluated is refused when it is asked for, with BadEventFilterInvalid.
"""

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from asyncua import ua
from asyncua.common.utils import ServiceError

Fields = Mapping[str, ua.Variant]

CONDITION_ID = "\0"
"""The path of a condition's NodeId, which is an attribute (OPC 10000-9, 5.5.2)."""
_NULL = ua.Variant(None, ua.VariantType.Null)
_LONGEST = 1000
"""Characters of a text or a path: filters are kept for as long as an item, or a continuation point, is there."""
MOST_CLAUSES = 200
"""Select clauses, and elements of a where clause."""


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One event, ready to be selected from."""

    fields: Fields
    """By path below its type, such as ``ActiveState/Id``."""
    types: frozenset[ua.NodeId]
    """Its type and all that this derives from."""
    emitters: tuple[ua.NodeId, ...]
    """The nodes at which it can be heard, Server among them."""


Test = Callable[[Occurrence], Any]


class EventFilter:
    """Raises ServiceError BadEventFilterInvalid for one that can't be."""

    def __init__(self, asked: Any) -> None:
        if not isinstance(asked, ua.EventFilter) or len(asked.SelectClauses or ()) > MOST_CLAUSES:
            raise ServiceError(ua.StatusCodes.BadEventFilterInvalid)
        self._paths = [_path(clause) for clause in asked.SelectClauses or ()]
        elements = (asked.WhereClause.Elements if asked.WhereClause is not None else None) or ()
        if len(elements) > MOST_CLAUSES or _cost(elements) > MOST_CLAUSES:
            raise ServiceError(ua.StatusCodes.BadEventFilterInvalid)
        self._passes: Test = _element(elements, 0) if elements else lambda occurrence: True

    def passes(self, occurrence: Occurrence) -> bool:
        """Whether the where clause is true."""
        return self._passes(occurrence) is True

    def select(self, fields: Fields) -> list[ua.Variant]:
        """The values in the order of the select clauses; null for what the event does not have."""
        return [fields.get(path, _NULL) for path in self._paths]


def _path(clause: Any) -> str:
    """Empty where no event has such a field."""
    steps = clause.BrowsePath or ()
    if not steps and clause.AttributeId == ua.AttributeIds.NodeId:
        return CONDITION_ID
    if clause.AttributeId != ua.AttributeIds.Value or any(step.NamespaceIndex for step in steps):
        return ""
    path = "/".join(step.Name or "" for step in steps)
    return path if len(path) <= _LONGEST else ""


def _cost(elements: Sequence[Any]) -> int:
    """Evaluations for one event: an element that two others name counts twice, and what it names with it."""
    costs = [0] * len(elements)
    for index in reversed(range(len(elements))):
        named = [o.Index for o in elements[index].FilterOperands or () if isinstance(o, ua.ElementOperand)]
        costs[index] = 1 + sum(costs[each] for each in named if index < each < len(elements))
    return costs[0] if costs else 0


def _element(elements: Sequence[Any], index: int) -> Test:
    element = elements[index]
    operands = [_operand(elements, index, operand) for operand in element.FilterOperands or ()]
    operator = ua.FilterOperator(element.FilterOperator)
    if operator == ua.FilterOperator.InList:
        if not operands:
            raise ServiceError(ua.StatusCodes.BadEventFilterInvalid)
        first, *others = operands
        return lambda occurrence: _in(first(occurrence), [other(occurrence) for other in others])
    known = _OPERATORS.get(operator)
    if known is None or len(operands) != known[0]:
        raise ServiceError(ua.StatusCodes.BadEventFilterInvalid)
    compute = known[1]
    return lambda occurrence: compute(occurrence, *(operand(occurrence) for operand in operands))


def _operand(elements: Sequence[Any], index: int, operand: Any) -> Test:
    if isinstance(operand, ua.ElementOperand) and index < operand.Index < len(elements):  # forward alone: no circle
        return _element(elements, operand.Index)
    if isinstance(operand, ua.SimpleAttributeOperand):
        path = _path(operand)
        return lambda occurrence: occurrence.fields.get(path, _NULL).Value
    if isinstance(operand, ua.LiteralOperand):
        value = _plain(operand.Value.Value) if operand.Value is not None else None
        if _comparable(value):
            return lambda occurrence: value
    raise ServiceError(ua.StatusCodes.BadEventFilterInvalid)


def _comparable(value: Any) -> bool:
    """A field can be compared with it, and it is of a size."""
    said = value.Identifier if isinstance(value, ua.NodeId) else value
    if isinstance(said, str | bytes):
        return len(said) <= _LONGEST
    return said is None or isinstance(said, bool | int | float | datetime | uuid.UUID | ua.StatusCode)


def _in(value: Any, others: Sequence[Any]) -> bool:
    return any(_same(value, other) for other in others)


def _same(left: Any, right: Any) -> bool:
    return left is not None and bool(_plain(left) == _plain(right))


def _plain(value: Any) -> Any:
    return value.Text if isinstance(value, ua.LocalizedText) else value


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[..., Any]:
    def test(_: Occurrence, left: Any, right: Any) -> Any:
        try:
            return bool(compare(_plain(left), _plain(right)))
        except TypeError:  # of kinds that have no order, or one of them is null
            return None

    return test


def _between(occurrence: Occurrence, value: Any, low: Any, high: Any) -> Any:
    return _not_less(occurrence, value, low) and _not_less(occurrence, high, value)


def _like(_: Occurrence, text: Any, pattern: Any) -> Any:
    """OPC 10000-4, 7.4.3: ``%`` any text, ``_`` one character."""
    if not isinstance(_plain(text), str) or not isinstance(pattern, str) or len(pattern) > _LONGEST:
        return None
    return _matches(_plain(text), pattern)


def _matches(text: str, pattern: str) -> bool:
    """Only the last ``%`` is ever tried again: a regular expression would try all of them in all ways."""
    at = place = tried = 0
    star = -1
    while at < len(text):
        wanted = pattern[place : place + 1]
        if wanted == "%":
            star, tried, place = place, at, place + 1
        elif wanted in {"_", text[at]}:
            at, place = at + 1, place + 1
        elif star >= 0:
            tried += 1
            at, place = tried, star + 1
        else:
            return False
    return not pattern[place:].strip("%")


_not_less = _ordered(lambda left, right: left >= right)
_Operator = ua.FilterOperator
_OPERATORS: dict[ua.FilterOperator, tuple[int, Callable[..., Any]]] = {
    _Operator.Equals: (2, lambda _, left, right: _same(left, right)),
    _Operator.IsNull: (1, lambda _, value: value is None),
    _Operator.GreaterThan: (2, _ordered(lambda left, right: left > right)),
    _Operator.LessThan: (2, _ordered(lambda left, right: left < right)),
    _Operator.GreaterThanOrEqual: (2, _not_less),
    _Operator.LessThanOrEqual: (2, _ordered(lambda left, right: left <= right)),
    _Operator.Like: (2, _like),
    _Operator.Not: (1, lambda _, value: None if value is None else not value),
    _Operator.Between: (3, _between),
    _Operator.And: (2, lambda _, left, right: left and right),
    _Operator.Or: (2, lambda _, left, right: left or right),
    _Operator.OfType: (1, lambda occurrence, kind: kind in occurrence.types),
}
