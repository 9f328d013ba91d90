"""What a Variant says, against asyncua's own encoder; parts of it; and bytes that are meant to hurt."""

import dataclasses
import json
import math
import struct
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from asyncua import ua as typed
from asyncua.ua.ua_binary import struct_to_binary, variant_to_binary
from hypothesis import given, settings
from hypothesis import strategies as st

from plugin.acquire import wire
from plugin.acquire.contents import Field, Structure, Undescribed, content, number_of, text_of
from plugin.acquire.decoding import decode_items
from plugin.acquire.elements import Missing, Path, parse, path_of
from plugin.acquire.measuring import Malformed
from plugin.acquire.portions import Portions
from plugin.acquire.reading import Key
from plugin.domain import SampleBatch, Tag
from tests.fuzz import decoder as fuzz

ua: Any = typed  # its constructors ask for types of their own
T = typed.VariantType

TIMES = st.datetimes(datetime(1602, 1, 1), datetime(9998, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SCALARS: dict[typed.VariantType, st.SearchStrategy[Any]] = {
    T.Boolean: st.booleans(),
    T.SByte: st.integers(-(2**7), 2**7 - 1),
    T.UInt16: st.integers(0, 2**16 - 1),
    T.Int32: st.integers(-(2**31), 2**31 - 1),
    T.Int64: st.integers(-(2**63), 2**63 - 1),
    T.UInt64: st.integers(0, 2**64 - 1),
    T.Float: st.floats(width=32),
    T.Double: st.floats(),
    T.String: TEXTS,
    T.DateTime: TIMES,
    T.Guid: st.uuids(),
    T.ByteString: st.binary(max_size=20),
    T.StatusCode: st.integers(0, 2**32 - 1).map(lambda code: ua.StatusCode(ua.UInt32(code))),
    T.NodeId: st.tuples(TEXTS.filter(bool), st.integers(1, 9)).map(lambda key: ua.NodeId(key[0], key[1])),
    T.QualifiedName: st.tuples(TEXTS, st.integers(0, 9)).map(lambda name: ua.QualifiedName(*name)),
    T.LocalizedText: TEXTS.map(lambda text: ua.LocalizedText(text, "en")),
}


def expected(value: Any) -> Any:
    """As content gives it."""
    if isinstance(value, ua.StatusCode):
        return value.value
    if isinstance(value, ua.NodeId):
        return value.NamespaceIndex, value.Identifier
    if isinstance(value, ua.QualifiedName):
        return f"{value.NamespaceIndex}:{value.Name}" if value.NamespaceIndex else value.Name
    if isinstance(value, ua.LocalizedText):
        return value.Text
    if isinstance(value, UUID):
        return str(value)
    return [expected(one) for one in value] if isinstance(value, list) else value


def plain(said: Any) -> Any:
    return said.tolist() if isinstance(said, np.ndarray) else said


def equal(left: Any, right: Any) -> bool:
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(equal, left, right))
    return bool(left == right) or (isinstance(left, float) and math.isnan(left) and math.isnan(right))


def read(variant: Any, find: Any = None) -> Any:
    return content(variant_to_binary(variant), 0, find or (lambda _: None))


@st.composite
def variants(draw: st.DrawFn) -> tuple[Any, Any]:
    """A Variant and its content: scalars, arrays, matrices."""
    kind = draw(st.sampled_from(sorted(SCALARS, key=lambda kind: kind.value)))
    shape = draw(st.sampled_from([(), (0,), (3,), (2, 3), (2, 1, 2)]))
    if not shape:
        value = draw(SCALARS[kind])
        return ua.Variant(value, kind), expected(value)
    flat = draw(st.lists(SCALARS[kind], min_size=math.prod(shape), max_size=math.prod(shape)))
    for size in reversed(shape[1:]):
        flat = [flat[at : at + size] for at in range(0, len(flat), size)]
    return ua.Variant(flat, kind, Dimensions=list(shape) if len(shape) > 1 else None, is_array=True), expected(flat)


@settings(max_examples=200, deadline=None)
@given(st.lists(variants(), min_size=1, max_size=5))
def test_a_variant_says_what_asyncua_put_into_it(several: list[tuple[Any, Any]]) -> None:
    for variant, value in several:
        assert equal(plain(read(variant)), value)
    together = ua.Variant([variant for variant, _ in several], T.Variant)
    assert equal([plain(one) for one in read(together)], [value for _, value in several])


def test_a_number_and_a_text_say_a_value() -> None:
    for said, number, text in [
        (True, 1.0, None), (2**53, 2.0**53, None), (-(2**53) - 1, -(2.0**53), "-9007199254740993"), ("", None, ""),
        (datetime(1970, 1, 2, tzinfo=UTC), 86400.0, None), (None, None, None), (b"\xff", None, "/w=="),
        ((3, "x"), None, "ns=3;s=x"), ([1, None, [b"a"]], None, '[1,null,["YQ=="]]'),
        ({"a": math.inf, "b": datetime(1970, 1, 1, tzinfo=UTC)}, None, '{"a":"inf","b":"1970-01-01T00:00:00+00:00"}'),
        (np.arange(4).reshape(2, 2), None, "[[0,1],[2,3]]"),
    ]:  # fmt: skip
        found = number_of(said)
        assert (None if math.isnan(found) else found, text_of(said)) == (number, text)


# --- structures ---


BUILD = Structure(
    "BuildInfo",
    fields=(
        *(
            Field(name, 12)
            for name in ("ProductUri", "ManufacturerName", "ProductName", "SoftwareVersion", "BuildNumber")
        ),
        Field("BuildDate", 13),
    ),
)
STATUS = Structure(
    "ServerStatusDataType",
    fields=(
        Field("StartTime", 13), Field("CurrentTime", 13), Field("State", 6), Field("BuildInfo", BUILD),
        Field("SecondsTillShutdown", 7), Field("ShutdownReason", 21),
    ),
)  # fmt: skip
ARGUMENT = Structure(
    "Argument",
    fields=(
        Field("Name", 12), Field("DataType", 17), Field("ValueRank", 6), Field("ArrayDimensions", 7, rank=1),
        Field("Description", 21),
    ),
)  # fmt: skip


def test_structures_of_structures_and_arrays() -> None:
    build = ua.BuildInfo("urn:x", "maker", "name", "1.2", "3", datetime(2026, 1, 1, tzinfo=UTC))
    state = ua.ServerStatusDataType(
        datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 1, 3, tzinfo=UTC), ua.ServerState.Failed, build, 7,
        ua.LocalizedText("because", "en"),
    )  # fmt: skip
    argument = ua.Argument("speed", ua.NodeId(11), 2, [3, 4], ua.LocalizedText("how fast"))
    known: dict[Key, Structure] = {(0, 864): STATUS, (0, 298): ARGUMENT}
    said = read(ua.Variant([state, argument], T.ExtensionObject), known.__getitem__)
    assert said[0]["State"] == 1
    assert said[0]["BuildInfo"]["ManufacturerName"] == "maker"
    assert said[0]["SecondsTillShutdown"] == 7
    assert said[0]["ShutdownReason"] == "because"
    assert (said[1]["Name"], said[1]["DataType"], said[1]["ArrayDimensions"].tolist()) == ("speed", (0, 11), [3, 4])
    assert json.loads(text_of(said) or "")[1]["Description"] == "how fast"


def extension(body: bytes, number: int = 1) -> Any:
    return ua.Variant(ua.ExtensionObject(ua.NodeId(number, 2), body), T.ExtensionObject)


def test_a_structure_that_is_not_known_is_asked_for_and_one_that_is_not_described_is_its_bytes() -> None:
    def ask(key: Key) -> Structure | None:
        raise Undescribed(key)

    with pytest.raises(Undescribed) as caught:
        read(extension(b"12"), ask)
    assert caught.value.encoding == (2, 1)
    assert read(extension(b"12")) == b"12"


@pytest.mark.parametrize(
    "body",
    [
        b"", b"\1", struct.pack("<i", 2**31 - 1), struct.pack("<i", 4) * 30,
        struct.pack("<i", 1) + struct.pack("<Id", 2, 1.0) + struct.pack("<i", 2**30),
    ],
)  # fmt: skip
def test_a_structure_that_does_not_fit_its_description_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        read(extension(body), fuzz._STRUCTURES.get)


def test_few_bytes_can_not_ask_for_much_work() -> None:
    """Elements of no size, and structures that hold themselves."""
    nothing = Structure("Nothing")
    hungry = Structure("Hungry", fields=(Field("none", nothing, rank=1),))
    many = Structure("Many", fields=(Field("of", hungry, rank=1),))
    body = struct.pack("<i", 1000) + struct.pack("<i", 4000) * 1000
    with pytest.raises(Malformed):
        read(extension(body), lambda _: many)
    endless = Structure("Endless")
    endless.fields = (Field("again", endless),)
    with pytest.raises(Malformed):
        read(extension(b""), lambda _: endless)
    wide = nothing
    for level in range(12):
        wide = Structure(f"level {level}", fields=tuple(Field(f"{n}", wide) for n in range(20)))
    with pytest.raises(Malformed):
        read(extension(b""), lambda _: wide)
    for hostile in (b"\x80" + struct.pack("<i", 2**31 - 1), b"\x8c" + struct.pack("<i", 2**31 - 1), b"\x18" * 5000):
        with pytest.raises(Malformed):
            content(hostile, 0, lambda _: None)


# --- parts ---


def test_elements_are_written_as_paths() -> None:
    assert parse("[3]") == ((3,),)
    assert parse(".Motors[2].Current") == ("Motors", (2,), "Current")
    assert parse('[1,2]."My field"') == ((1, 2), '"My field"')
    for wrong in ("3", "[", "[-1]", "[1:2]", ".", "Speed", ".a..b", "[1]x"):
        with pytest.raises(ValueError, match="is no element"):
            parse(wrong)


def test_a_name_may_say_the_element() -> None:
    assert path_of(Tag("p[3]", "plant", "i=1")) == Path(((3,),), implied=True)
    assert path_of(Tag("p[3]", "plant", "i=1", element="[0]")) == Path(((0,),))
    assert path_of(Tag("p[x]", "plant", "i=1")) is None
    assert path_of(Tag("[3]", "plant", "i=1")) is None


def test_a_part_that_is_not_there_is_missing() -> None:
    said = {"a": [1, {"b": np.array([[1, 2], [3, 4]])}]}
    assert Path(parse(".a[1].b[1,0]")).pick(said) == 3
    for missing in (".c", ".a[2]", ".a[0].b", ".a[1].b[2,0]", ".a[1].b[0,0,0]", "[0]"):
        with pytest.raises(Missing):
            Path(parse(missing)).pick(said)


def test_what_arrives_is_spread_and_read_by_tag() -> None:
    tags = [Tag(name, "plant", "i=1", element=element) for name, element in (("a", ""), ("b", "[1]"), ("c", "[9]"))]
    portions = Portions()
    portions.admit([*tags, Tag("d", "plant", "i=2")])
    portions.share(0, [0, 1, 2])
    values = [ua.Variant(5.0, T.Double), ua.Variant([1.5, 2.5], T.Double), ua.Variant("x", T.String)]
    notified = [
        ua.MonitoredItemNotification(handle, ua.DataValue(value))
        for handle, value in zip((3, 0, 3), values, strict=True)
    ]
    body = bytes(struct_to_binary(ua.DataChangeNotification(notified, [])))
    found = portions.take(decode_items(body, 1), lambda _: None)
    assert found.handle.tolist() == [3, 0, 1, 2, 3]
    np.testing.assert_array_equal(found.value, [5.0, np.nan, 2.5, np.nan, np.nan])
    assert found.status.tolist() == [0, 0, 0, 0x80370000, 0]
    assert found.text is not None
    assert found.text.tolist() == [None, "[1.5,2.5]", None, None, "x"]
    assert found.without_number == 2
    past = portions.take(decode_items(body, 1), lambda _: None, np.array([1, 1, 1]))
    np.testing.assert_array_equal(past.value, [np.nan, 2.5, np.nan])
    assert past.status.tolist() == [0x80370000, 0, 0x80370000]


def test_numbers_of_plain_tags_are_left_as_they_are() -> None:
    portions = Portions()
    portions.admit([Tag("a", "plant", "i=1")])
    notified = [ua.MonitoredItemNotification(0, ua.DataValue(ua.Variant(5.0, T.Double)))]
    values = decode_items(bytes(struct_to_binary(ua.DataChangeNotification(notified, []))), 1)
    assert portions.take(values, lambda _: None) is values


# --- hostile bytes ---


async def test_the_seeds_of_the_fuzzing_are_read_to_their_end() -> None:
    notification, published, history, answer, *_ = fuzz.corpus()
    assert len(decode_items(notification, 1)) == 39
    assert decode_items(notification, 1).lost == 0
    node, start = ua.NodeId(), datetime(2026, 1, 1, tzinfo=UTC)
    message = await wire.publish(session(published), [])
    assert [kind for kind, _ in message.notifications] == [wire.DATA_CHANGE]
    (page,) = await wire.history_read(session(history), [(node, b"")], start, start, 1)
    assert len(page.values) == 13
    assert (await wire.read(session(answer), [(node, 13)])).value.tolist() == [1.5]


def session(body: bytes) -> Any:
    return fuzz.Answer(body)


def test_a_few_hundred_mutated_messages_find_nothing() -> None:
    assert fuzz.mutate(seed=20260517, seconds=60, most=600) == 600


def test_samples_keep_their_texts_in_parts() -> None:
    batch = SampleBatch.of([1, 2], 1, np.nan, 0, 1, 1)
    text = dataclasses.replace(batch, text=np.array(["a", None], np.object_))
    both = SampleBatch.concatenate([text, batch])
    assert both.text is not None
    assert both.text.tolist() == ["a", None, None, None]
    assert both.with_text().tolist() == [True, False, False, False]
    assert batch.with_text().tolist() == [False, False]
