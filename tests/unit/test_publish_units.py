"""Units as OPC UA clients know them."""

import pytest

from plugin.publish.units import UNECE, engineering_units, unit_id


@pytest.mark.parametrize(
    ("unit", "identifier"),  # UNECE to OPC UA mapping, OPC 10000-8, 5.6.4.3
    [("%", 20529), ("cycles", 16951), ("mg/m3", 18256), ("h", 4740434), ("degC", 4408652), ("", 4404786)],
)
def test_a_known_unit_has_the_number_that_its_common_code_spells(unit, identifier):
    units = engineering_units(unit, "urn:ours")
    assert units.UnitId == identifier
    assert units.NamespaceUri == UNECE
    assert units.DisplayName.Text == unit


def test_an_unknown_unit_keeps_its_text_under_our_own_name():
    units = engineering_units("furlong", "urn:ours")
    assert (units.UnitId, units.NamespaceUri, units.DisplayName.Text) == (-1, "urn:ours", "furlong")


def test_unit_ids_are_big_endian_text():
    assert unit_id("P1") == 0x5031
