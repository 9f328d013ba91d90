"""A few bytes must not become gigabytes: what a stranger's first message may hold."""

import struct

import pytest
from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import variant_from_binary, variant_to_binary

from plugin.publish.decoding import guard

_ARRAY, _SHAPED = 0x80, 0xC0
_INT32 = ua.VariantType.Int32.value

guard()


def _variant(encoding: int, *numbers: int) -> ua.Variant:
    return variant_from_binary(Buffer(bytes([encoding]) + struct.pack(f"<{len(numbers)}i", *numbers)))


def test_an_array_of_nothing_has_no_elements():
    with pytest.raises(ua.UaError, match="array of 1000000 Null"):
        _variant(_ARRAY, 1_000_000)
    assert _variant(_ARRAY, 0).Value == []
    assert _variant(_ARRAY, -1).Value is None


@pytest.mark.parametrize("dimensions", [(1000,), (10, 100), (1000, 0)])
def test_dimensions_announce_no_more_than_there_is(dimensions):
    with pytest.raises(ua.UaError, match="dimensions of 1000 elements where there are 0"):
        _variant(_SHAPED | _INT32, 0, len(dimensions), *dimensions)


@pytest.mark.parametrize("value", [[[1, 2, 3], [4, 5, 6]], [[[1], [2]], [[3], [4]]]])
def test_a_matrix_comes_through(value):
    packed = variant_to_binary(ua.Variant(value, ua.VariantType.Int32))
    assert variant_from_binary(Buffer(packed)).Value == value


def test_an_empty_matrix_and_an_empty_array_come_through():
    assert _variant(_SHAPED | _INT32, 0, 2, 0, 0).Value == []
    assert _variant(_SHAPED | _INT32, 0, 2, 2, 0).Value == [[], []]
    assert variant_from_binary(Buffer(variant_to_binary(ua.Variant([], ua.VariantType.Null)))).Value == []
