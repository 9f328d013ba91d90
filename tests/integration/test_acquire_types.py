"""Values of every type from a real server: as numbers, as texts, and in parts; and what is odd about them."""

import contextlib
import json
import math
import struct
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from asyncua import ua as typed
from asyncua.common.structures104 import new_enum, new_struct, new_struct_field

from plugin.acquire.source import OpcUaSource
from plugin.diagnostics import Diagnostics
from plugin.domain import Remark, RemarkKind, SampleBatch, Tag
from plugin.protocols import Delivery
from tests.integration.acquire_plant import EPOCH, URI, Historian, Plant, _time, config, running, until

ua: Any = typed  # its constructors ask for types of their own
T = typed.VariantType
BAD = 0x80000000
TIME = datetime(2026, 5, 17, 12, 30, 45, 123456, UTC)


class Reader(Historian):
    """Keeps remarks too, and tells the newest of a tag."""

    def __init__(self, tags: Sequence[Tag]) -> None:
        super().__init__()
        self.tags = {tag.name: tag.id for tag in tags}
        self.remarks: list[Remark] = []

    def take(self, delivery: Delivery) -> None:
        super().take(delivery)
        self.remarks += delivery.remarks

    def rows(self, name: str) -> SampleBatch:
        samples = SampleBatch.concatenate(self.batches)
        return samples.take(samples.tag == self.tags[name])

    def newest(self, name: str) -> tuple[float, str | None, int]:
        """Number, text, status."""
        row = self.rows(name).take([-1])
        return float(row.value[0]), None if row.text is None else row.text[0], int(row.status[0])


def tags_of(nodes: dict[str, tuple[str, str]]) -> list[Tag]:
    """Tags by name, from (identifier, element)."""
    return [
        Tag(name, "plant", f"nsu={URI};s={node}", id=number, element=element)
        for number, (name, (node, element)) in enumerate(nodes.items(), start=1)
    ]


@contextlib.asynccontextmanager
async def plant_with(values: dict[str, Any]) -> AsyncIterator[Plant]:
    """A plant with one node per value, a Variant or something to put into one."""
    plant = Plant(0)
    await plant.start()
    try:
        for name, value in values.items():
            await add(plant, name, value)
        yield plant
    finally:
        await plant.stop()


async def add(plant: Plant, name: str, value: Any, data_type: Any = None) -> Any:
    """``data_type``: of the node, where it is not that of the value."""
    node_id = ua.NodeId(ua.String(name), ua.Int16(plant.index))
    variant = value if isinstance(value, ua.Variant) else ua.Variant(value)
    return await plant.server.nodes.objects.add_variable(node_id, name, variant, datatype=data_type)


async def put(plant: Plant, node: Any, value: Any, seconds: float, status: int = 0) -> None:
    variant = value if isinstance(value, ua.Variant) else ua.Variant(value)
    time = _time(EPOCH + timedelta(days=365, seconds=seconds))
    await plant._set(node, ua.DataValue(variant, ua.StatusCode(ua.UInt32(status)), time, time))


def source_of(
    plant: Plant, tags: Sequence[Tag], folder: Path, historian: Historian | None = None, **more: Any
) -> tuple[OpcUaSource, Diagnostics]:
    """With a historian's memory where one is given."""
    diagnostics = Diagnostics()
    known, marks = (historian.known(), historian.checkpoints) if historian else ({}, {})
    section = config(plant.port, **more)
    return OpcUaSource(section, tags, diagnostics, folder / "pki", known, marks, session_folder=folder), diagnostics


SCALARS: dict[str, tuple[ua.Variant, float | None, str | None]] = {
    "Boolean": (ua.Variant(True, T.Boolean), 1.0, None),
    "SByte": (ua.Variant(-7, T.SByte), -7.0, None),
    "UInt16": (ua.Variant(60000, T.UInt16), 60000.0, None),
    "Int64": (ua.Variant(-(2**53), T.Int64), -(2.0**53), None),
    "wide Int64": (ua.Variant(-(2**53) - 1, T.Int64), -(2.0**53), "-9007199254740993"),
    "wide UInt64": (ua.Variant(2**64 - 1, T.UInt64), 2.0**64, "18446744073709551615"),
    "Float": (ua.Variant(0.5, T.Float), 0.5, None),
    "Double": (ua.Variant(math.pi, T.Double), math.pi, None),
    "StatusCode": (ua.Variant(ua.StatusCode(ua.UInt32(0x80340000)), T.StatusCode), float(0x80340000), None),
    "DateTime": (ua.Variant(TIME, T.DateTime), TIME.timestamp(), None),
    "String": (ua.Variant("läuft", T.String), None, "läuft"),
    "empty String": (ua.Variant("", T.String), None, ""),
    "null String": (ua.Variant(None, T.String), None, None),
    "LocalizedText": (ua.Variant(ua.LocalizedText("Auf", "de"), T.LocalizedText), None, "Auf"),
    "QualifiedName": (ua.Variant(ua.QualifiedName("Name", 2), T.QualifiedName), None, "2:Name"),
    "NodeId": (ua.Variant(ua.NodeId("x", 3), T.NodeId), None, "ns=3;s=x"),
    "Guid": (ua.Variant(UUID(int=5), T.Guid), None, str(UUID(int=5))),
    "ByteString": (ua.Variant(b"\0\1\2", T.ByteString), None, "AAEC"),
    "array": (ua.Variant([1.5, math.nan], T.Double), None, '[1.5,"nan"]'),
    "long String": (ua.Variant("x" * 70_000, T.String), None, "x" * 65_536),
}


async def test_scalars_are_numbers_or_texts(tmp_path: Path) -> None:
    tags = tags_of({name: (name, "") for name in SCALARS})
    historian = Reader(tags)
    async with plant_with({name: variant for name, (variant, _, _) in SCALARS.items()}) as plant:
        source, diagnostics = source_of(plant, tags, tmp_path)
        async with running(source, historian):
            await until(lambda: len(set(SampleBatch.concatenate(historian.batches).tag.tolist())) == len(tags))
    for name, (_, number, text) in SCALARS.items():
        found, said, status = historian.newest(name)
        assert (None if math.isnan(found) else found, said, status) == (number, text, 0), name
    assert diagnostics.total("decode_errors_total") == 0
    assert diagnostics.total("texts_cut_total") == 1
    assert diagnostics.total("values_without_number_total") == sum(n is None for _, n, _ in SCALARS.values())


async def test_elements_of_arrays_share_one_item(tmp_path: Path) -> None:
    tags = tags_of(
        {
            "p[1]": ("pressure", ""), "last": ("pressure", "[2]"), "beyond": ("pressure", "[3]"),
            "corner": ("matrix", "[1,2]"), "word": ("words", "[0]"),
            "speed[7]": ("scalar", ""), "none": ("scalar", "[0]"),
        }
    )  # fmt: skip
    historian = Reader(tags)
    matrix = ua.Variant([[1, 2, 3], [4, 5, 6]], T.Int32, Dimensions=[2, 3])
    values = {"pressure": [0.5, 1.5, 2.5], "matrix": matrix, "words": ["a", "b"], "scalar": 9.0}
    async with plant_with(values) as plant:
        source, _ = source_of(plant, tags, tmp_path)
        async with running(source, historian):
            await until(lambda: len(set(SampleBatch.concatenate(historian.batches).tag.tolist())) == len(tags))
            assert len({item.id for item in source.items}) == 4
            pressure = plant.server.get_node(ua.NodeId("pressure", plant.index))
            await put(plant, pressure, [10.0], 1)
            await until(lambda: len(historian.rows("last")) == 2)
    assert historian.rows("p[1]").value.tolist()[0] == 1.5
    assert historian.rows("last").value.tolist()[0] == 2.5
    assert historian.newest("corner") == (6.0, None, 0)
    assert historian.newest("word")[1] == "a"
    assert historian.newest("speed[7]") == (9.0, None, 0)  # a scalar is taken whole
    for missing in ("beyond", "none", "last"):
        number, text, status = historian.newest(missing)
        assert math.isnan(number)
        assert text is None
        assert status == 0x80370000  # BadIndexRangeNoData


async def describe(plant: Plant) -> None:
    """A structure with all that a field can be; asyncua has a class for each of its types then."""
    server, index = plant.server, plant.index
    mode = await new_enum(server, index, "Mode", ["Off", "On", "Fault"])
    motor, _ = await new_struct(
        server, index, "Motor",
        [new_struct_field("Current", T.Double), new_struct_field("Name", T.String, optional=True),
         new_struct_field("Load", T.Float, optional=True)],
    )  # fmt: skip
    choice, _ = await new_struct(
        server,
        index,
        "Choice",
        [new_struct_field("Number", T.Int64), new_struct_field("Word", T.String)],
        is_union=True,
    )
    await new_struct(
        server, index, "Press",
        [
            new_struct_field("Serial", T.String), new_struct_field("Mode", mode), new_struct_field("Since", T.DateTime),
            new_struct_field("Motors", motor, array=True), new_struct_field("Choice", choice),
            new_struct_field("Trend", T.Float, array=True), new_struct_field("Any", T.Variant),
            new_struct_field("Stroke", ua.NodeId(ua.ObjectIds.Duration)), new_struct_field("Count", T.UInt64),
        ],
    )  # fmt: skip
    await server.load_data_type_definitions()


def press(count: int = 2**60) -> Any:
    motors = [ua.Motor(Current=1.5, Name="left"), ua.Motor(Current=2.5, Load=0.25)]
    choice = ua.Choice()
    choice.Word = "pressing"
    return ua.Press(
        Serial="P-7", Mode=ua.Mode.On, Since=TIME, Motors=motors, Choice=choice, Trend=[0.5, 0.75],
        Any=ua.Variant(-3, T.Int16), Stroke=12.5, Count=count,
    )  # fmt: skip


FIELDS: dict[str, tuple[str, float | None, str | None]] = {
    "serial": (".Serial", None, "P-7"),
    "mode": (".Mode", 1.0, None),
    "since": (".Since", TIME.timestamp(), None),
    "current": (".Motors[1].Current", 2.5, None),
    "name": (".Motors[0].Name", None, "left"),
    "load": (".Motors[1].Load", 0.25, None),
    "word": (".Choice.Word", None, "pressing"),
    "trend": (".Trend[1]", 0.75, None),
    "any": (".Any", -3.0, None),
    "stroke": (".Stroke", 12.5, None),
    "count": (".Count", 2.0**60, str(2**60)),
}
MISSING = {
    "no field": ".Speed", "no element": ".Motors[2].Current", "not chosen": ".Choice.Number",
    "left out": ".Motors[1].Name",
}  # fmt: skip


async def test_fields_of_structures_by_path(tmp_path: Path) -> None:
    parts = {name: ("press", path) for name, (path, _, _) in FIELDS.items()}
    parts |= {name: ("press", path) for name, path in MISSING.items()}
    tags = tags_of(parts | {"whole": ("press", ""), "second": ("presses", "[1].Motors[0].Current")})
    historian = Reader(tags)
    async with plant_with({}) as plant:
        await describe(plant)
        node = await add(plant, "press", press())
        await add(plant, "presses", [press(1), press(2)])
        source, diagnostics = source_of(plant, tags, tmp_path)
        async with running(source, historian):
            await until(lambda: len(set(SampleBatch.concatenate(historian.batches).tag.tolist())) == len(tags))
            assert len({item.id for item in source.items}) == 2
            await put(plant, node, press(9), 1)
            await until(lambda: historian.newest("count")[0] == 9)
    for name, (_, number, text) in FIELDS.items():
        row = historian.rows(name).take([0])
        assert (None if math.isnan(row.value[0]) else row.value[0]) == number, name
        assert (None if row.text is None else row.text[0]) == text, name
    for name in MISSING:
        assert historian.newest(name)[1:] == (None, 0x80370000), name
    whole = json.loads(historian.newest("whole")[1] or "")
    assert whole["Motors"] == [{"Current": 1.5, "Name": "left"}, {"Current": 2.5, "Load": 0.25}]
    assert historian.newest("second") == (1.5, None, 0)
    assert diagnostics.total("decode_errors_total") == 0


async def test_one_undecodable_structure_among_many_costs_itself_alone(tmp_path: Path) -> None:
    count = 200
    tags = tags_of({f"t{n}": (f"t{n}", "") for n in range(count)} | {"broken": ("broken", ".Serial")})
    historian = Reader(tags)
    async with plant_with({f"t{n}": float(n) for n in range(count)}) as plant:
        await describe(plant)
        encoding = next(key for key, cls in ua.extension_objects_by_typeid.items() if cls.__name__ == "Press")
        node = await add(plant, "broken", press())
        source, diagnostics = source_of(plant, tags, tmp_path)
        async with running(source, historian):
            await until(lambda: len(set(SampleBatch.concatenate(historian.batches).tag.tolist())) == len(tags))
            await put(plant, node, ua.Variant(ua.ExtensionObject(encoding, b"\1\2\3"), T.ExtensionObject), 1)
            for number in range(count):
                await put(plant, plant.server.get_node(ua.NodeId(f"t{number}", plant.index)), number + 0.5, 1)
            await until(lambda: all(historian.newest(f"t{n}")[0] == n + 0.5 for n in range(count)))
            await until(lambda: historian.newest("broken")[2] == 0x80070000)  # BadDecodingError
            await put(plant, node, press(), 2)
            await until(lambda: historian.newest("broken")[1:] == ("P-7", 0))
    assert diagnostics.total("decode_errors_total") == 1
    assert not historian.gaps


async def test_a_type_that_is_changed_while_we_listen_is_asked_for_again(tmp_path: Path) -> None:
    tags = tags_of({"speed": ("udt", ".Speed"), "torque": ("udt", ".Torque")})
    historian = Reader(tags)
    fields = [new_struct_field("Speed", T.Double), new_struct_field("Torque", T.Float)]
    async with plant_with({}) as plant:
        udt, (encoding,) = await new_struct(plant.server, plant.index, "Udt", fields[:1])

        def body(*numbers: float) -> Any:
            packed = struct.pack("<df"[: 1 + len(numbers)], *numbers)
            return ua.Variant(ua.ExtensionObject(encoding.nodeid, packed), T.ExtensionObject)

        node = await add(plant, "udt", body(1.5), udt.nodeid)
        source, diagnostics = source_of(plant, tags, tmp_path)
        async with running(source, historian):
            await until(lambda: len(historian.rows("torque")))
            definition: Any = await udt.read_data_type_definition()
            definition.Fields = fields
            await udt.write_data_type_definition(definition)
            await put(plant, node, body(2.5, 0.25), 1)
            await until(lambda: len(historian.rows("torque")) == 2)
    assert historian.rows("speed").value.tolist() == [1.5, 2.5]
    assert historian.rows("torque").status.tolist() == [0x80370000, 0]
    assert historian.newest("torque") == (0.25, None, 0)
    assert diagnostics.total("decode_errors_total") == 0


async def test_a_server_that_does_not_describe_its_types_is_refused_by_field(tmp_path: Path) -> None:
    tags = tags_of({"speed": ("old", ".Speed"), "whole": ("old", ""), "other": ("other", "")})
    historian = Reader(tags)
    async with plant_with({"other": 1.0}) as plant:
        index = plant.index
        parent = plant.server.get_node(ua.ObjectIds.Structure)
        data_type = await parent.add_data_type(index, "Old")
        body = ua.ExtensionObject(ua.NodeId(9876, index), b"\0\1\2")
        await add(plant, "old", ua.Variant(body, T.ExtensionObject), data_type.nodeid)
        source, diagnostics = source_of(plant, tags, tmp_path)
        async with running(source, historian):
            await until(lambda: len(historian.rows("whole")) and len(historian.rows("other")))
            refused = [item for item in source.items if not item.monitored]
            assert [item.tag.name for item in refused] == ["speed"]
            await until(lambda: bool(historian.gaps))
    (gap,) = historian.gaps.values()
    assert gap.tag == "speed"
    assert "does not describe" in gap.detail
    assert historian.newest("whole")[1:] == ("AAEC", 0)  # its bytes
    assert diagnostics.total("decode_errors_total") == 0


async def test_a_tag_of_another_type_and_a_time_that_goes_back_are_kept_and_remarked(tmp_path: Path) -> None:
    tags = tags_of({"a": ("a", ""), "b": ("b", ""), "elements[0]": ("array", "")})
    historian = Reader(tags)
    async with plant_with({"b": 1.0, "array": [1.0]}) as plant:
        await add(plant, "a", 1.0, ua.NodeId(ua.ObjectIds.Number))
        nodes = {name: plant.server.get_node(ua.NodeId(name, plant.index)) for name in ("a", "b", "array")}
        source, diagnostics = source_of(plant, tags, tmp_path, publishing_interval="200ms", sampling_interval="0s")
        async with running(source, historian):
            await until(lambda: len(set(SampleBatch.concatenate(historian.batches).tag.tolist())) == len(tags))
            for node in nodes.values():
                await put(plant, node, 2.0 if node is not nodes["array"] else [2.0], 10)
            for seconds, value in ((20, 3.0), (17.5, 4.0), (17.5, 5.0), (19, 6.0)):
                await put(plant, nodes["b"], value, seconds)
            await until(lambda: historian.newest("b")[0] == 6)
            await put(plant, nodes["a"], 0.0, 10.5, BAD)  # asyncua lets a null be followed by any type
            await put(plant, nodes["a"], "three", 11)
            await put(plant, nodes["array"], 7.0, 11)
            await until(lambda: historian.newest("a")[1] == "three" and historian.newest("elements[0]")[0] == 7)
            await put(plant, nodes["a"], 0.0, 11.5, BAD)
            await put(plant, nodes["a"], 4, 12)
            await until(lambda: historian.newest("a")[0] == 4)
            assert source.connected()
    assert historian.rows("b").value.tolist()[-5:] == [2, 3, 4, 5, 6]
    found = {(remark.tag, remark.kind): remark for remark in historian.remarks}
    back = found["b", RemarkKind.TIME_WENT_BACK]
    assert back.detail == "1 value up to 2.5 s older than the one before"
    assert back.source_time == EPOCH + timedelta(days=365, seconds=17.5)
    assert found["a", RemarkKind.TYPE_CHANGED].detail == "Double before, String now"
    assert found["elements[0]", RemarkKind.TYPE_CHANGED].detail == "Double array before, Double now"
    assert len(historian.remarks) == 3  # a second one within the minute is counted alone
    assert diagnostics.value("remarks_total", source="plant", kind="type_changed") == 3


async def test_tags_that_share_an_item_come_and_go_and_outlive_a_restart(tmp_path: Path) -> None:
    tags = tags_of({"first": ("pair", "[0]"), "second": ("pair", "[1]"), "other": ("other", "")})
    historian = Reader(tags)
    async with plant_with({"pair": [1.0, 2.0], "other": 0.0}) as plant:
        pair = plant.server.get_node(ua.NodeId("pair", plant.index))
        source, _ = source_of(plant, tags, tmp_path)
        async with running(source, historian):
            await until(lambda: len(set(SampleBatch.concatenate(historian.batches).tag.tolist())) == len(tags))
            source.change(tags[1:])  # the one whose item it was
            await until(lambda: len(source.items) == 2)
            await put(plant, pair, [10.0, 20.0], 1)
            await until(lambda: historian.newest("second")[0] == 20)
            source.change(tags)
            await until(lambda: len(historian.rows("first")) and historian.newest("first")[0] == 10)
            historian.deliveries = 0
            await put(plant, pair, [11.0, 21.0], 2)
            await until(lambda: historian.newest("second")[0] == 21 and historian.newest("first")[0] == 11)
        # both have an item of their own now; in one request they would share one
        again, _ = source_of(plant, tags, tmp_path, historian)
        async with running(again, historian):
            await until(again.connected)
            await put(plant, pair, [12.0, 22.0], 3)
            await until(lambda: historian.newest("second")[0] == 22 and historian.newest("first")[0] == 12)
    for name, numbers in (("first", [1, 10, 11, 12]), ("second", [2, 20, 21, 22])):
        found = historian.rows(name)
        times = dict(zip(found.source_time.tolist(), found.value.tolist(), strict=True))
        assert [times[time] for time in sorted(times)][-3:] == numbers[1:], name
    assert not [gap for gap in historian.gaps.values() if gap.tag is None]


async def test_a_shared_item_is_taken_up_after_our_own_restart(tmp_path: Path) -> None:
    tags = tags_of({"first": ("pair", "[0]"), "second": ("pair", "[1]"), "other": ("other", "")})
    historian = Reader(tags)
    async with plant_with({"pair": [1.0, 2.0], "other": 0.0}) as plant:
        pair = plant.server.get_node(ua.NodeId("pair", plant.index))
        source, _ = source_of(plant, tags, tmp_path)
        async with running(source, historian):
            await until(lambda: len(set(SampleBatch.concatenate(historian.batches).tag.tolist())) == len(tags))
            shared = {item.id for item in source.items}
            assert len(shared) == 2
        await put(plant, pair, [10.0, 20.0], 1)  # while nobody listens
        kept = [tags[1], tags[2]]  # and the one whose item it was is configured no longer
        again, _ = source_of(plant, kept, tmp_path, historian)
        async with running(again, historian):
            await until(lambda: historian.newest("second")[0] == 20)
            assert {item.id for item in again.items} == shared
            await put(plant, pair, [11.0, 21.0], 2)
            await until(lambda: historian.newest("second")[0] == 21)
    assert not historian.gaps
