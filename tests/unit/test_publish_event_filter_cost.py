"""What an event filter may cost: any observer sends one, and each event is held against it."""

import pytest
from asyncua import ua
from asyncua.common.utils import ServiceError

from plugin.publish.event_filter import EventFilter, Occurrence

_EVENT = Occurrence({"Message": ua.Variant("a" * 40)}, frozenset(), ())
_IS_NULL = ua.ContentFilterElement(ua.FilterOperator.IsNull, [ua.LiteralOperand(ua.Variant(1))])


def _filter(*elements: ua.ContentFilterElement) -> EventFilter:
    return EventFilter(ua.EventFilter([], ua.ContentFilter(list(elements))))


def _both(index: int) -> ua.ContentFilterElement:
    return ua.ContentFilterElement(ua.FilterOperator.Or, [ua.ElementOperand(ua.UInt32(index + 1))] * 2)


@pytest.mark.parametrize(
    "literal",
    [
        "a" * 1001, b"a" * 1001, ua.LocalizedText("a" * 1001), ua.NodeId(ua.String("a" * 1001), ua.Int16(1)), ["a"],
        ua.Argument(),
    ],
    ids=["text", "bytes", "localized", "node", "array", "structure"],
)  # fmt: skip
def test_what_a_filter_remembers_is_small(literal):
    """It is kept with each item and each continuation point, of which a client has thousands."""
    operands = [ua.LiteralOperand(ua.Variant(1)), ua.LiteralOperand(ua.Variant(literal))]
    with pytest.raises(ServiceError) as refusal:
        _filter(ua.ContentFilterElement(ua.FilterOperator.Equals, operands))
    assert refusal.value.code == ua.StatusCodes.BadEventFilterInvalid


def test_elements_that_double_themselves_are_refused():
    """Twelve are 8191 evaluations for each event; the 200 that are allowed would never end."""
    with pytest.raises(ServiceError):
        _filter(*(_both(index) for index in range(12)), _IS_NULL)
    assert not _filter(*(_both(index) for index in range(4)), _IS_NULL).passes(_EVENT)


@pytest.mark.parametrize(
    ("pattern", "fits"),
    [
        ("%", True), ("a%", True), ("%b%", False), ("_%_", True), ("a" * 40, True), ("a" * 39, False), ("", False),
        ("%a" * 20 + "%b", False), ("%a" * 20 + "%", True),
    ],
)  # fmt: skip
def test_a_pattern_is_matched_without_trying_all_ways(pattern, fits):
    message = ua.SimpleAttributeOperand(
        BrowsePath=[ua.QualifiedName("Message")], AttributeId=ua.UInt32(ua.AttributeIds.Value)
    )
    operands = [message, ua.LiteralOperand(ua.Variant(pattern))]
    assert _filter(ua.ContentFilterElement(ua.FilterOperator.Like, operands)).passes(_EVENT) is fits
