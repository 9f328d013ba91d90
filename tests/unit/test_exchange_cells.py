"""Values, statuses, units and headings as files have them."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugin.domain import Quality, Status, quality
from plugin.errors import ConfigError
from plugin.exchange.columns import escape_text, escaped, unescaped
from plugin.exchange.plan import plan
from plugin.exchange.statuses import codes_of, is_small, state_of, status_of
from plugin.exchange.terms import Codes, Layout, Terms, Wrong
from plugin.exchange.units import conversion
from plugin.exchange.values import Notation, Numbers, decimal_of


def read(
    *cells: object, decimal: str = ".", thousands: str = "", texts: bool = False
) -> tuple[Numbers, dict[int, str]]:
    wrong = Wrong.none(len(cells))
    return Notation(decimal, thousands, texts).read(pa.array(cells), wrong), wrong.reasons


def values(numbers: Numbers) -> list[float | None]:
    return [None if math.isnan(value) else value for value in numbers.values.tolist()]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1), st.booleans())
def test_a_number_keeps_every_bit(numbers, among_words):
    cells = [repr(number) for number in numbers] + ["Bad"] * among_words
    assert read(*cells)[0].values.tolist()[: len(numbers)] == numbers
    commas = [cell.replace(".", ",") for cell in cells]
    assert read(*commas, decimal=",")[0].values.tolist()[: len(numbers)] == numbers


@pytest.mark.parametrize(
    ("cell", "notation", "wanted"),
    [
        ("1.234,5", {"decimal": ",", "thousands": "."}, 1234.5),
        ("-1.234.567", {"decimal": ",", "thousands": "."}, -1234567.0),
        ("1.5", {"decimal": ",", "thousands": "."}, None),
        ("1.5", {"decimal": ","}, None),
        ("1 234,5", {"decimal": ",", "thousands": " "}, 1234.5),
        ("12\u00a0345", {"decimal": ",", "thousands": " "}, 12345.0),
        ("1'234.5", {"thousands": "'"}, 1234.5),
        ("1,234.5", {"thousands": ","}, 1234.5),
        ("1,23", {"thousands": ","}, None),
        ("1,234", {}, None),
        (" +7 ", {}, 7.0),
        (".5", {}, 0.5),
        ("TRUE", {}, 1.0),
        ("-Infinity", {}, -math.inf),
        ("1e999", {}, None),
        ("0x10", {}, None),
        ("1_000", {}, None),
        ("12 bar", {}, None),
        ("1" * 500, {}, None),
    ],
)  # fmt: skip
def test_notations(cell, notation, wanted):
    numbers, reasons = read(cell, **notation)
    assert values(numbers) == [wanted]
    assert (reasons == {}) is (wanted is not None)


def test_what_stands_in_place_of_a_number():
    numbers, reasons = read("1", "No Data", "i/o timeout", "[-11059] No Good Data For Calculation", None, "NaN", "#N/A")
    assert reasons == {}
    assert values(numbers) == [1.0, *[None] * 6]
    assert numbers.status is not None
    assert numbers.known is not None
    assert [quality(code) for code in numbers.status.tolist()] == [0, 2, 2, 2, 0, 0, 2]
    assert numbers.known.tolist() == [False, True, True, True, False, False, True]


def test_words_are_texts_only_where_they_are_wanted():
    assert read("1", "running")[1] == {1: "is no number"}
    numbers, reasons = read("1", "running", " as it is ", "2,5", texts=True)
    assert reasons == {}
    assert numbers.texts is not None
    assert numbers.texts.tolist() == [None, "running", " as it is ", "2,5"]


@pytest.mark.parametrize("kind", [pa.string(), pa.int64(), pa.decimal128(30, 0)])
def test_integers_beyond_two_to_the_53_keep_their_digits(kind):
    cells = pa.array([2**53, 2**53 + 1, -(2**60) - 1, 7, None], pa.int64()).cast(kind)
    numbers = Notation().read(cells, Wrong.none(5))
    assert numbers.texts is not None
    assert numbers.texts.tolist() == [None, str(2**53 + 1), str(-(2**60) - 1), None, None]
    assert values(numbers)[3:] == [7.0, None]


def test_types_of_parquet():
    assert values(Notation().read(pa.array([True, False, None]), Wrong.none(3))) == [1.0, 0.0, None]
    assert values(Notation().read(pa.array([1.5, None], pa.float32()), Wrong.none(2))) == [1.5, None]


def test_the_decimal_mark_is_found():
    assert decimal_of(pa.array(["1,5", "20", "x", None])) == ","
    assert decimal_of(pa.array(["1.5", "20"])) == "."


@pytest.mark.parametrize(
    ("text", "codes", "wanted"),
    [
        ("0x80000000", None, Status.BAD), ("2147483648", None, Status.BAD), ("0", Codes.OPCUA, Status.GOOD),
        ("0", Codes.CLASSIC, Status.BAD), ("192", Codes.CLASSIC, Status.GOOD), ("216", Codes.CLASSIC, Status.GOOD),
        ("64", Codes.CLASSIC, Status.UNCERTAIN), ("192.0", Codes.CLASSIC, Status.GOOD), ("0", None, None),
        (" good ", None, Status.GOOD), ("Shutdown", None, Status.BAD_OUT_OF_SERVICE), ("maybe", None, None),
        ("4294967296", None, None), ("0x1ffffffff", None, None), ("", None, None),
    ],
)  # fmt: skip
def test_statuses(text, codes, wanted):
    assert status_of(text, codes) == wanted


def test_zero_alone_does_not_tell_what_it_is():
    assert codes_of(["0", "0"]) is None
    assert is_small("0")
    assert codes_of(["0", "192"]) is Codes.CLASSIC
    assert codes_of(["0", "2147483648"]) is Codes.OPCUA
    assert codes_of(["Good"]) is None
    assert not is_small("Good")


def test_every_state_is_bad():
    assert state_of("running") is None
    assert {quality(state_of(word) or 0) for word in ("bad", "pt created", "#DIV/0!", "[-1] x")} == {Quality.BAD}


@pytest.mark.parametrize(
    ("old", "new", "number", "wanted"),
    [
        ("degF", "degC", 212.0, 100.0), ("°C", "K", 0.0, 273.15), ("degR", "K", 491.67, 273.15),
        ("psi", "bar", 14.5038, 1.0),
        ("gpm", "m3/h", 1.0, 0.22712), ("%", "1", 50.0, 0.5), ("rpm", "Hz", 3000.0, 50.0), ("bar", "bar", 3.3, 3.3),
    ],
)  # fmt: skip
def test_units(old, new, number, wanted):
    scale, offset = conversion(old, new)
    assert number * scale + offset == pytest.approx(wanted, rel=1e-4)
    back, zero = conversion(new, old)
    assert (number * scale + offset) * back + zero == pytest.approx(number, rel=1e-9)


def test_units_that_do_not_fit_are_faults():
    for old, new, word in (("furlong", "m", "known"), ("degC", "bar", "does not measure"), ("degC", "", "known")):
        with pytest.raises(ConfigError, match=word):
            conversion(old, new)


@pytest.mark.parametrize(
    ("names", "terms", "wanted"),
    [
        (("TagName", "DateTime", "Value", "vValue", "Quality", "QualityDetail"), Terms(), (1, 0, 2, 4, 3)),
        (("time", "tag", "value", "status", "server time", "text"), Terms(), (0, 1, 2, 3, 5)),
        (("when", "who", "what"), Terms(time="when", tag="who", value="what"), (0, 1, 2, None, None)),
    ],
)  # fmt: skip
def test_long_headings(names, terms, wanted):
    found = plan(names, terms)
    assert found.layout is Layout.LONG
    assert (found.time, found.tag, found.value, found.status, found.text) == wanted


def test_wide_headings():
    found = plan(("Time", "T1", "T1:status", "", "T2", "T2_Quality", "T3"), Terms())
    assert (found.layout, found.time, found.values) == (Layout.WIDE, 0, ((1, 2), (4, 5), (6, None)))
    assert plan(("time", "tag", "value"), Terms(layout=Layout.WIDE)).values == ((1, None), (2, None))


def test_a_heading_that_does_not_tell_is_asked_for():
    for names, terms, option in (
        (("a", "b"), Terms(), "--time"),
        (("time", "value"), Terms(layout=Layout.LONG), "--tag"),
        (("time", "value"), Terms(status="quality"), "--status"),
    ):
        with pytest.raises(ConfigError, match=f"{option} = .*Columns are: "):
            plan(names, terms)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.none() | st.text(max_size=4) | st.sampled_from(["=1", "'", "''", "", "'=", "\r\n", "\t"]), min_size=1)
)
def test_no_text_is_a_formula_and_all_come_back(texts):
    column = pa.array(texts, pa.string())
    marked = escaped(column)
    assert unescaped(marked).to_pylist() == texts
    assert not any(text is not None and text[:1] in {"=", "+", "-", "@", "\t", "\r", ""} for text in marked.to_pylist())
    assert escape_text("=1") == "'=1"


def test_marks_that_can_not_be_are_faults():
    with pytest.raises(ConfigError) as refused:
        Terms(decimal="x", thousands=".", delimiter="||").check()
    assert "--decimal" in str(refused.value)
    assert "--delimiter" in str(refused.value)
    with pytest.raises(ConfigError, match="--thousands"):
        Terms(thousands=".").check()
    Terms(decimal=",", thousands=".", delimiter=";").check()
    assert np.dtype(np.float64) == read("1")[0].values.dtype
