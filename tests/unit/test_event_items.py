"""What a client asks of events: which fields, of which events, and what a full queue says."""

from typing import Any

import pytest
from asyncua import ua
from asyncua.common.utils import ServiceError

from plugin.publish.event_filter import CONDITION_ID, EventFilter, Occurrence
from plugin.publish.event_items import EventItem
from tests.integration.alarm_plant import event_filter

_V, _O = ua.VariantType, ua.FilterOperator
_LEVEL, _LIMIT, _OTHER = (ua.NodeId(ua.Int32(number)) for number in (9482, 2955, 10637))
_EVENT = Occurrence(
    {
        "Severity": ua.Variant(500, _V.UInt16),
        "Message": ua.Variant(ua.LocalizedText("life is short"), _V.LocalizedText),
        "ActiveState/Id": ua.Variant(True, _V.Boolean),
        CONDITION_ID: ua.Variant(_OTHER, _V.NodeId),
    },
    frozenset({_LEVEL, _LIMIT}),
    (),
)


def _field(path: str) -> Any:
    return event_filter(path).SelectClauses[0]


def _literal(value: Any, kind: Any = None) -> Any:
    return ua.LiteralOperand(ua.Variant(value, kind))


def _where(*elements: tuple[Any, list[Any]]) -> ua.EventFilter:
    made = [ua.ContentFilterElement(operator, operands) for operator, operands in elements]
    return event_filter("Severity", where=ua.ContentFilter(made))


def test_fields_are_found_by_their_whole_path_and_null_where_there_is_none() -> None:
    asked = event_filter("ActiveState/Id", "ActiveState", "Severity")
    foreign = _field("Severity")
    foreign.BrowsePath = [ua.QualifiedName("Severity", ua.UInt16(1))]
    asked.SelectClauses.append(foreign)
    found = [variant.Value for variant in EventFilter(asked).select(_EVENT.fields)]
    assert found == [True, None, 500, _OTHER, None]


@pytest.mark.parametrize(("operator", "operands", "passes"), [
    (_O.Equals, [_field("Severity"), _literal(500)], True),
    (_O.Equals, [_field("Message"), _literal("life is short")], True),
    (_O.Equals, [_field("Nothing"), _literal(None)], False),
    (_O.IsNull, [_field("Nothing")], True),
    (_O.GreaterThan, [_field("Severity"), _literal(499)], True),
    (_O.GreaterThan, [_field("Nothing"), _literal(499)], False),
    (_O.LessThan, [_field("Severity"), _literal(500)], False),
    (_O.LessThanOrEqual, [_field("Severity"), _literal(500)], True),
    (_O.Between, [_field("Severity"), _literal(400), _literal(600)], True),
    (_O.Between, [_field("Severity"), _literal(501), _literal(600)], False),
    (_O.InList, [_field("Severity"), _literal(1), _literal(500)], True),
    (_O.Like, [_field("Message"), _literal("life%sh_rt")], True),
    (_O.Like, [_field("Message"), _literal("life")], False),
    (_O.Not, [_field("ActiveState/Id")], False),
    (_O.Not, [_field("Nothing")], False),
    (_O.OfType, [_literal(_LIMIT)], True),
    (_O.OfType, [_literal(_OTHER)], False),
])  # fmt: skip
def test_a_comparison_is_true_or_the_event_is_left_out(operator: Any, operands: list[Any], passes: bool) -> None:
    assert EventFilter(_where((operator, operands))).passes(_EVENT) is passes


@pytest.mark.parametrize("elements", [
    [(_O.Not, [ua.ElementOperand(0)])],
    [(_O.Not, [ua.ElementOperand(7)])],
    [(_O.Equals, [_literal(1)])],
    [(_O.BitwiseAnd, [_literal(1), _literal(1)])],
    [(_O.InList, [])],
])  # fmt: skip
def test_what_can_not_be_evaluated_is_refused_when_it_is_asked_for(elements: Any) -> None:
    with pytest.raises(ServiceError):
        EventFilter(_where(*elements))


def test_a_refresh_is_whole_however_short_the_queue_is_and_one_at_a_time() -> None:
    """More alarms may stand than a client's queue holds: it would never know them all."""
    waiting: dict[int, list[Any]] = {}
    asked = ua.MonitoringParameters(7, 0.0, event_filter("Severity"), 3, True)
    request = ua.MonitoredItemCreateRequest(ua.ReadValueId(), ua.MonitoringMode.Reporting, asked)
    lost: list[int] = []
    item = EventItem(1, request, waiting, lambda: lost.append(1))

    def event(severity: int) -> Occurrence:
        return Occurrence({"Severity": ua.Variant(severity, _V.UInt16)}, frozenset(), ())

    item.refresh(event(0).fields, map(event, range(1, 9)), event(9).fields)
    lasts = [item.refreshing]
    for severity in range(10, 14):
        item.offer(event(severity))
    assert [each.EventFields[0].Value for each in waiting[1][2:]] == list(range(2, 14))
    assert len(lost) == 1
    del waiting[1][:-3]
    lasts.append(item.refreshing)
    assert lasts == [True, False]
    item.offer(event(14))
    assert (len(waiting[1]), len(lost)) == (4, 2)


@pytest.mark.parametrize(("oldest", "severities"), [(True, [None, 4, 5, 6]), (False, [1, 2, 3, None])])
def test_a_full_queue_says_so_once(oldest: bool, severities: list[int | None]) -> None:
    waiting: dict[int, list[Any]] = {}
    asked = ua.MonitoringParameters(7, 0.0, event_filter("Severity", "EventType"), 3, oldest)
    request = ua.MonitoredItemCreateRequest(ua.ReadValueId(), ua.MonitoringMode.Reporting, asked)
    lost: list[int] = []
    item = EventItem(1, request, waiting, lambda: lost.append(1))
    for severity in range(1, 7):
        item.offer(Occurrence({"Severity": ua.Variant(severity, _V.UInt16)}, frozenset(), ()))
    overflow = ua.NodeId(ua.Int32(ua.ObjectIds.EventQueueOverflowEventType))
    found = [None if each.EventFields[1].Value == overflow else each.EventFields[0].Value for each in waiting[1]]
    assert found == severities
    assert len(lost) == 3
    assert {each.ClientHandle for each in waiting[1]} == {7}
