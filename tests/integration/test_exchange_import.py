"""Files of history into a store: what is taken, what is not and why, and what happens when it is cut off."""

import gzip
import itertools
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from openpyxl.utils.datetime import CALENDAR_MAC_1904

from plugin.domain import Level, Reject, SampleBatch, Status, Tag
from plugin.errors import ConfigError, ExchangeError
from plugin.exchange import csv_reading, excel_reading, excel_writing, sifting
from plugin.exchange.exporting import Extract, chosen, export, slices
from plugin.exchange.importing import Order, Outcome, bring
from plugin.exchange.roster import Entry, read_mapping
from plugin.exchange.terms import Ambiguous, Layout, Terms, needs
from plugin.historian.memory import MemoryStore
from plugin.protocols import Delivery
from plugin.zones import Zone

T0 = 1_704_067_200_000_000
PI = """Tag,Timestamp,Value,Status
T1,01-Jan-24 00:00:00.000,1.5,Good
T1,01-Jan-24 00:01:00,I/O Timeout,Bad
T2,01-Jan-24 00:00:00.250,7,Questionable
"""
WONDERWARE = """DateTime;TagName;Value;OPCQuality
2024-01-01 00:00:00.000;T1;1,5;192
2024-01-01 00:01:00.000;T1;;0
2024-01-01 00:00:00.250;T2;7;64
"""


@pytest.fixture
async def store() -> MemoryStore:
    store = MemoryStore()
    await store.register_tags([Tag("T1", "plant", "nsu=u;s=1", unit="degC"), Tag("T2", "plant", "nsu=u;s=2")])
    return store


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., Path]:
    numbers = itertools.count()

    def write(content: str | bytes, ending: str = ".csv") -> Path:
        path = tmp_path / f"history{next(numbers)}{ending}"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


async def taken(store: MemoryStore) -> list[tuple[Any, ...]]:
    batch = await store.read_samples([tag.id for tag in await store.tags()], -(2**62), 2**62)
    words = [None] * len(batch) if batch.text is None else batch.text.tolist()
    values = [None if np.isnan(value) else value for value in batch.value.tolist()]
    seconds = [(time - T0) / 1e6 for time in batch.source_time.tolist()]
    return list(zip(batch.tag.tolist(), seconds, values, batch.status.tolist(), words, strict=True))


async def reasons(store: MemoryStore, outcome: Outcome) -> list[tuple[int, str, str]]:
    return [(each.row, each.column, each.content) for each in await store.rejects(outcome.record.id)]


@pytest.mark.parametrize("content", [PI, WONDERWARE])
async def test_exports_of_other_historians(store, file, content):
    outcome = await bring(store, Order(file(content), Terms(zone="UTC"), user="ann"))
    assert [row[:3] for row in await taken(store)] == [(1, 0.0, 1.5), (1, 60.0, None), (2, 0.25, 7.0)]
    assert [row[3] >> 30 for row in await taken(store)] == [0, 2, 1]
    assert (outcome.record.stored, outcome.record.quarantined, outcome.record.position) == (3, 0, 3)
    (entry,) = await store.audit(action="import")
    assert (entry.user, entry.subject, entry.after["stored"]) == ("ann", outcome.record.file, 3)


async def test_a_dry_run_tells_all_and_writes_nothing(store, file):
    path = file(PI + "T3,01-Jan-24 00:00:00,1,Good\nT1,soon,1,Good\n")
    outcome = await bring(store, Order(path, Terms(zone="UTC"), dry=True, create=True))
    assert (outcome.record.stored, outcome.record.quarantined) == (4, 1)
    assert [outcome.tags[line.tag].name for line in outcome.tally.lines()] == ["T1", "T2", "T3"]
    assert outcome.tally.reasons == {"is no time of the format %d-%b-%y %H:%M:%S": 1}
    line = next(outcome.tally.lines())
    assert (line.new, line.bad, line.first, line.last, line.hole) == (2, 1, T0, T0 + 60_000_000, 60_000_000)
    assert await taken(store) == []
    assert await store.imports() == ()
    assert await store.audit() == ()
    assert len(await store.tags()) == 2


async def test_twice_is_as_once(store, file):
    path = file(PI)
    await bring(store, Order(path, Terms(zone="UTC")))
    before = await taken(store)
    again = await bring(store, Order(path, Terms(zone="UTC")))
    assert (again.record.stored, again.record.duplicates, again.record.quarantined) == (0, 3, 0)
    assert await taken(store) == before
    assert len(await store.imports()) == 1


async def test_what_contradicts_the_store_is_quarantined_but_not_what_a_file_says_twice(store, file):
    await store.write([Delivery(SampleBatch.of([1], T0, 2.0, 0, T0, 1))])
    path = file("time,T1,T2\n2024-01-01,1.5,1\n2024-01-01,2.0,2\n2024-01-01,,3\n")
    for stored, duplicates in ((3, 1), (0, 4)):
        outcome = await bring(store, Order(path, Terms(zone="UTC")))
        assert (outcome.record.stored, outcome.record.duplicates) == (stored, duplicates)
        assert await store.rejects(outcome.record.id) == (
            Reject(1, "T1", "1.5", "differs from what is stored at that time; --correct puts it in its place"),
        )  # fmt: skip
    assert [row[2] for row in await taken(store)] == [2.0, 1.0, 2.0, 3.0]


async def test_corrections_take_the_place_of_what_was_there_which_is_kept(store, file):
    await store.write([Delivery(SampleBatch.of([1, 1], [T0, T0 + 10**6], [2.0, 3.0], 0, T0, 1))])
    order = Order(file("time,T1\n1704067200,1.5\n1704067201,3\n1704067202,4\n"), correct=True, user="ann")
    told = await bring(store, replace(order, dry=True))
    assert (told.corrected, [row[2] for row in await taken(store)]) == (1, [2.0, 3.0])
    outcome = await bring(store, order)
    record = outcome.record
    assert (outcome.corrected, record.stored, record.duplicates, record.quarantined) == (1, 1, 1, 0)
    assert [row[2] for row in await taken(store)] == [1.5, 3.0, 4.0]
    before = await store.modified([1], T0, T0 + 1)
    assert (before.samples.value.tolist(), before.user, before.reason) == ([2.0], ("ann",), ("import of history0.csv",))
    again = await bring(store, order)
    assert (again.corrected, again.record.duplicates) == (0, 3)


async def test_values_of_one_stamp_in_different_pieces_of_a_file_are_no_contradiction(store, file, monkeypatch):
    monkeypatch.setattr(csv_reading, "_BLOCK", 64)
    lines = "".join(f"T1,1704067200,{n}\n" for n in range(50))
    outcome = await bring(store, Order(file("tag,time,value\n" + lines)))
    assert (outcome.record.stored, outcome.record.quarantined) == (50, 0)
    assert [row[2] for row in await taken(store)] == list(range(50))


async def test_names_that_are_no_tag_are_left_out_and_told_or_made_tags(store, file):
    path = file("time,T1,new,\x1bodd,\n2024-01-01,1,2,3,4\n2024-01-02,1,2,,\n")
    outcome = await bring(store, Order(path, Terms(zone="UTC")))
    assert outcome.unknown == {"new": 2, "\x1bodd": 1}
    assert [each.column for each in await store.rejects(outcome.record.id)] == ["new", "�odd"]
    outcome = await bring(store, Order(path, Terms(zone="UTC"), create=True))
    assert [(tag.name, tag.source, tag.node) for tag in outcome.created] == [
        ("new", "import", "nsu=urn:foretag:import;s=new")
    ]
    assert outcome.unknown == {"\x1bodd": 1}
    assert [row[0] for row in await taken(store)] == [1, 1, 3, 3]
    configured = Tag("new", "plant", "nsu=u;s=new", unit="bar")
    (tag,) = await store.register_tags([configured])
    assert tag == replace(configured, id=3), "it takes the history over"


async def test_a_mapping_names_tags_and_turns_units(store, file):
    mapping = file("column,tag,unit,scale,offset\n11TI,T1,degF,,\nraw,T2,,0.01,-1\nremark,,,,\n")
    path = file("time,11TI,raw,remark\n2024-01-01,212,550,hot\n")
    outcome = await bring(store, Order(path, Terms(zone="UTC"), mapping=read_mapping(mapping)))
    assert [row[2] for row in await taken(store)] == [pytest.approx(100.0), pytest.approx(4.5)]
    assert [(each.column, each.reason) for each in await store.rejects(outcome.record.id)] == [
        ("remark", "is left out by the mapping")
    ]
    for entry, word in ((Entry("T1", "bar"), "does not measure"), (Entry("T2", "degF"), "known")):
        with pytest.raises(ConfigError, match=f"unit of 11TI.*{word}"):
            await bring(store, Order(path, Terms(zone="UTC"), mapping={"11TI": entry}))


def test_every_fault_of_a_mapping_is_listed(file):
    with pytest.raises(ConfigError) as refused:
        read_mapping(file("column,tag,scale\na,T1,1\na,T2,x\nb,T1,1\nc,T2,x\n"))
    assert len(refused.value.faults) == 3
    for content in ("column,what\na,b\n", b"\xff\xfe\x00"):
        with pytest.raises(ConfigError):
            read_mapping(file(content))


async def test_it_stops_at_too_many_rejects_and_goes_on_there(store, file, monkeypatch):
    monkeypatch.setattr(csv_reading, "_BLOCK", 256)
    lines = "".join(f"{T0 // 10**6 + n},{'x' if n % 10 == 0 else n}\n" for n in range(400))
    order = Order(file("time,T1\n" + lines), limit=20)
    with pytest.raises(ExchangeError, match="is no number"):
        await bring(store, order)
    (stopped,) = await store.imports()
    assert stopped.finished is None
    assert 200 <= stopped.position < 400
    seen: list[Reject] = []
    outcome = await bring(store, replace(order, limit=1000), rejected=seen.extend)
    assert outcome.resumed == stopped.position
    assert (outcome.record.stored, outcome.record.duplicates, outcome.record.quarantined) == (360, 0, 40)
    assert len(await taken(store)) == 360
    assert [each.row for each in await store.rejects(outcome.record.id)] == list(range(1, 401, 10))
    assert [each.row for each in seen] == list(range(1, 401, 10))


async def test_cut_off_before_its_first_note_it_knows_what_is_its_own(store, file, monkeypatch):
    monkeypatch.setattr(csv_reading, "_BLOCK", 64)
    lines = "".join(f"T1,1704067200,{n}\n" for n in range(50))
    order = Order(file("tag,time,value\n" + lines))

    class CutOff(Exception):
        pass

    def cut(_share: float, rows: int) -> None:
        if rows > 20:
            raise CutOff

    with pytest.raises(CutOff):
        await bring(store, order, cut)
    assert 20 < len(await taken(store)) < 50
    assert [record.position for record in await store.imports()] == [0]
    outcome = await bring(store, order)
    assert outcome.record.quarantined == 0
    assert [row[2] for row in await taken(store)] == list(range(50))


async def test_what_lies_outside_of_what_is_stored_is_not_looked_for(store, file):
    class Counting(MemoryStore):
        reads = 0

        async def read_samples(self, *args: Any, **kwargs: Any) -> SampleBatch:
            self.reads += 1
            return await super().read_samples(*args, **kwargs)

    store = Counting()
    await store.register_tags([Tag("T1", "plant", "nsu=u;s=1")])
    await store.write([Delivery(SampleBatch.of([1, 1], [T0, T0 + 10**6], 1.0, 0, T0, 1))])
    await bring(store, Order(file("time,T1\n1704067100,1\n1704067202,1\n")))
    assert store.reads == 0
    outcome = await bring(store, Order(file("time,T1\n1704067201,2\n")))
    assert (store.reads, outcome.record.quarantined) == (1, 1)


async def test_times(store, file):
    content = "time,T1\n2024-10-27 02:30:00,1\n2024-03-31 02:30:00,2\n2999-01-01 00:00:00,3\n2024-01-01 01:00:00,4\n\n"
    with pytest.raises(ConfigError, match="--zone"):
        await bring(store, Order(file(content)))
    outcome = await bring(store, Order(file(content), Terms(zone="Europe/Berlin")))
    assert await taken(store) == [(1, 0.0, 4.0, 0, None)]
    assert await reasons(store, outcome) == [
        (1, "time", "2024-10-27 02:30:00"), (2, "time", "2024-03-31 02:30:00"), (3, "time", "2999-01-01 00:00:00")
    ]  # fmt: skip
    terms = Terms(zone="Europe/Berlin", ambiguous=Ambiguous.LATER, future=True)
    assert (await bring(store, Order(file(content), terms))).record.stored == 2


async def test_statuses_that_may_mean_either_are_asked_for(store, file):
    path = file("time,tag,value,status\n2024-01-01,T1,1,0\n")
    with pytest.raises(ConfigError, match="--codes"):
        await bring(store, Order(path, Terms(zone="UTC")))


async def test_cells_that_are_empty(store, file):
    long = file("time,tag,value,status\n2024-01-01,T1,,\n2024-01-02,T1,,Uncertain\n2024-01-03,T1, ,Good\n,,,\n,T1,1,\n")
    outcome = await bring(store, Order(long, Terms(zone="UTC")))
    assert [row[2:4] for row in await taken(store)] == [
        (None, Status.BAD_NO_DATA), (None, Status.UNCERTAIN), (None, Status.GOOD)
    ]  # fmt: skip
    assert await reasons(store, outcome) == [(5, "time", "")]
    wide = file("time,T1,T2,T2:status\n2025-01-01,,,\n2025-01-02, ,,Bad\n2025-01-03,,5,Perhaps\n")
    outcome = await bring(store, Order(wide, Terms(zone="UTC")))
    assert [row[0] for row in (await taken(store))[3:]] == [2]
    assert await reasons(store, outcome) == [(3, "T2:status", "Perhaps")]


async def test_parquet_by_type(store, tmp_path):
    table = pa.table(
        {
            "time": pa.array([T0, T0 + 1, None], pa.timestamp("us", "UTC")),
            "T1": pa.array([1, None, 3], pa.int16()),
            "T2": pa.array(["on", "x", "y"]).dictionary_encode(),
        }
    )
    pq.write_table(table, tmp_path / "x.parquet")
    outcome = await bring(store, Order(tmp_path / "x.parquet", Terms(texts=True)))
    assert await taken(store) == [(1, 0.0, 1.0, 0, None), (2, 0.0, None, 0, "on"), (2, 1e-6, None, 0, "x")]
    assert await reasons(store, outcome) == [(3, "time", "")]
    pq.write_table(pa.table({"time": table["time"], "T1": [[1], [2], [3]]}), tmp_path / "x.parquet")
    with pytest.raises(ExchangeError, match="'T1' holds list"):
        await bring(store, Order(tmp_path / "x.parquet"))


@pytest.mark.parametrize("kind", [pa.string_view(), pa.binary(), pa.large_binary(), pa.large_string()], ids=str)
async def test_texts_as_other_programs_write_them(store, tmp_path, kind):
    times = pa.array([T0, T0 + 1], pa.timestamp("us", "UTC"))
    columns = {name: pa.array(texts).cast(kind) for name, texts in (("tag", ["T1", "T1"]), ("value", ["1.5", "2"]))}
    pq.write_table(pa.table({"time": times, **columns}), tmp_path / "x.parquet")
    await bring(store, Order(tmp_path / "x.parquet"))
    assert await taken(store) == [(1, 0.0, 1.5, 0, None), (1, 1e-6, 2.0, 0, None)]


async def test_days_from_1904_are_read_as_dates_and_not_as_numbers_from_1900(store, tmp_path):
    book = openpyxl.Workbook()
    book.epoch = CALENDAR_MAC_1904
    book.active.append(["Time", "T1"])
    book.active.append([datetime(2024, 1, 1), 1.5])  # noqa: DTZ001
    book.save(tmp_path / "x.xlsx")
    await bring(store, Order(tmp_path / "x.xlsx", Terms(zone="UTC")))
    assert await taken(store) == [(1, 0.0, 1.5, 0, None)]
    book.active["A2"] = 43_830.0  # the same day, shown as a number
    book.active["A2"].number_format = "General"
    book.save(tmp_path / "x.xlsx")
    with pytest.raises(ConfigError, match="counts them from 1904"):
        await bring(store, Order(tmp_path / "x.xlsx", Terms(zone="UTC")))


@pytest.mark.parametrize("name", ["hex", "rot13", "no-such"])
async def test_what_is_no_encoding_of_texts_is_refused(store, tmp_path, name):
    (tmp_path / "x.csv").write_text("time,T1\n1704067200,1\n")
    with pytest.raises(ConfigError, match=f"--encoding = {name}: is no encoding"):
        await bring(store, Order(tmp_path / "x.csv", Terms(encoding=name)))


async def test_a_workbook_as_people_make_it(store, tmp_path):
    book = openpyxl.Workbook()
    sheet = book.active
    for row in (["Time", "T1", "T2"], [datetime(2024, 1, 1), 1.5, "=1+1"], [datetime(2024, 1, 1, 0, 1), "#N/A", True]):  # noqa: DTZ001
        sheet.append(row)
    other = book.create_sheet("notes")
    other.append(["who", "what"])
    book.save(tmp_path / "x.xlsx")
    outcome = await bring(store, Order(tmp_path / "x.xlsx", Terms(zone="UTC")))
    assert await taken(store) == [
        (1, 0.0, 1.5, 0, None),
        (1, 60.0, None, Status.BAD_NO_DATA, None),
        (2, 60.0, 1.0, 0, None),
    ]
    assert len(outcome.notes) == 1
    assert "'notes'" in outcome.notes[0]
    with pytest.raises(ConfigError, match="notes"):
        await bring(store, Order(tmp_path / "x.xlsx", Terms(zone="UTC", sheet="samples")))


def write_sheet(xml: str, path: Path) -> None:
    """A workbook whose sheet is this."""
    with excel_writing.excel_writer(path, ["time", "T1"], [], Zone.named("UTC")):
        pass
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    main = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    parts["xl/worksheets/sheet1.xml"] = f"<worksheet {main}><sheetData>{xml}</sheetData></worksheet>".encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


HEADING = '<row r="1"><c t="inlineStr"><is><t>time</t></is></c><c t="inlineStr"><is><t>T1</t></is></c></row>'
RUBBISH: dict[str, tuple[str, bytes, str]] = {
    "nothing": (".csv", b"", "is empty"),
    "a heading alone": (".csv", b"time,T1\n", "no rows"),
    "one column": (".csv", b"time\n1\n", "fewer than two columns"),
    "a column twice": (".csv", b"time,T1,T1\n1,2,3\n", "2 times"),
    "a line without end": (".csv", b"time,T1\n2024-01-01,1\n2024-01-02," + b"9" * 9_000_000 + b",", "longer than"),
    "a heading without end": (".csv", b"x" * 9_000_000, "longer than"),
    "a quotation mark that stays open": (
        ".csv",
        b'time,T1\n2024-01-01,"1\n' + b"2024-01-02,2\n" * 900_000,
        "quotation",
    ),
    "another encoding": (".csv", "time,T1°\n2024-01-01,1\n".encode("cp1252"), "--encoding"),
    "cut off": (".csv.gz", gzip.compress(b"time,T1\n" + b"2024-01-01,1\n" * 90_000)[:-9], "cut off"),
    "no gzip": (".csv.gz", b"time,T1\n2024-01-01,1\n", "can't be read"),
    "no Parquet": (".parquet", b"PAR1 and no more PAR1", "Parquet"),
    "no workbook": (".xlsx", b"time,T1\n", "no workbook"),
    "another file": (".pdf", b"%PDF", "no file that can be read"),
}


@pytest.mark.parametrize("name", RUBBISH)
async def test_rubbish_is_refused_with_a_reason(store, file, name):
    ending, content, reason = RUBBISH[name]
    with pytest.raises(ExchangeError, match=reason):
        await bring(store, Order(file(content, ending), Terms(zone="UTC")))


async def test_workbooks_that_are_meant_to_harm(store, tmp_path, monkeypatch):
    monkeypatch.setattr(excel_reading, "_ROWS", 1000)
    monkeypatch.setattr(excel_reading, "_LARGEST_PART", 2**20)
    path = tmp_path / "x.xlsx"
    far = '<row r="2"><c r="XFD2"><v>1</v></c></row><row r="9000000"><c r="A9000000"><v>1</v></c></row>'
    for xml, reason in (
        (HEADING + far, "more rows than Excel allows"),
        (HEADING + '<row r="2"><c r="A2" t="s"><v>77</v></c></row>', "can't be read"),
        (HEADING + "<row>", "can't be read"),
    ):
        write_sheet(xml, path)
        with pytest.raises(ExchangeError, match=reason):
            await bring(store, Order(path, Terms(zone="UTC", format="excel")))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("xl/sharedStrings.xml", "w") as part:
        part.write(bytes(2**21))
    with pytest.raises(ExchangeError, match=r"sharedStrings.xml unpacks to 2 MiB"):
        await bring(store, Order(path))


async def test_lines_that_are_not_as_the_others_cost_themselves_alone(store, file):
    lines = (
        "\ufefftime,T1,remark", "2024-01-01,1,a", "2024-01-02", "", '2024-01-03,3,"b', 'c"', "2024-01-04,4,,,",
        "2024-01-05,?,", "2024-01-06,6\x00,", "2024-01-07,7,",
    )  # fmt: skip
    content = "\r\n".join(lines).encode().replace(b"?", b"\xff")
    outcome = await bring(store, Order(file(content), Terms(zone="UTC")))
    assert [row[2] for row in await taken(store)] == [1.0, 7.0]
    assert [row[:2] for row in await reasons(store, outcome)] == [
        (0, "remark"), (2, ""), (4, ""), (5, ""), (6, "T1"), (7, "T1")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "terms"),
    [
        ("Werte\n\nZeit\tT1\n01.01.2024 00:00:00\t1,5\n", Terms(zone="UTC", skip=2)),
        ("sep=;\nZeit;T1\n01.01.2024 00:00;1,5\n", Terms(zone="UTC")),
        ("time|T1\n1704067200|1.5\n", Terms()),
        ("time,T1\n1704067200,\"1,5\"\n", Terms(decimal=",")),
    ],
)  # fmt: skip
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp1252"])
async def test_dialects(store, file, content, terms, encoding):
    await bring(store, Order(file(content.encode(encoding)), replace(terms, encoding=encoding)))
    assert await taken(store) == [(1, 0.0, 1.5, 0, None)]


def test_what_is_not_installed_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    needs(Path("x.csv"))
    with pytest.raises(ExchangeError, match=r'openpyxl is not installed: pip install "foretag\[files\]"'):
        needs(Path("x.XLSX"))


# --- export ---


async def test_an_export_is_cut_into_slices_and_misses_nothing(store):
    rng = np.random.default_rng(1)
    times = np.unique(np.concatenate([T0 + rng.integers(0, 10**9, 5000), T0 - 10**15 + rng.integers(0, 10**14, 50)]))
    batch = SampleBatch.of(rng.integers(1, 3, len(times)), times, times / 7, 0, times, 1)
    await store.write([Delivery(batch)])
    parts = [part async for part in slices(store, [1, 2], T0 - 10**16, int(times[-1]))]
    assert np.concatenate([part.source_time for part, _ in parts]).tolist() == times[:-1].tolist()
    assert [part async for part in slices(store, [1, 2], T0 + 10**12, T0 + 10**13)] == []


class Asked(MemoryStore):
    """Remembers the longest stretch that it was asked for."""

    longest = 0

    async def read_samples(self, tags: Any, start: Any, end: Any, **bounds: Any) -> SampleBatch:
        self.longest = max(self.longest, end - start)
        return await super().read_samples(tags, start, end, **bounds)


async def test_what_comes_by_the_hour_is_read_by_the_month(store):
    hours = T0 + np.arange(365 * 24) * 3_600_000_000
    await store.write([Delivery(SampleBatch.of([1] * len(hours), hours, 1.0, 0, hours, hours))])
    found = [len(part) async for part, _ in slices(store, [1], T0, T0 + 10**16)]
    assert sum(found) == len(hours)
    assert len(found) < 40


@pytest.mark.parametrize("tags", [1, 1_000, 10_000])
async def test_what_was_seldom_may_become_frequent_and_a_slice_is_not_all_of_it(tags):
    """A value a minute, and then perhaps all tags each second: some ten million samples at most are read at once."""
    store = Asked()
    await store.register_tags([Tag("T1", "plant", "i=1")])
    times = T0 + 50_000_000 * np.arange(2_000)
    await store.write([Delivery(SampleBatch.of(np.ones(2_000), times, times / 7, 0, times, 1))])
    found = [len(part) async for part, _ in slices(store, range(1, tags + 1), T0, T0 + 10**16)]
    assert sum(found) == 2_000
    assert tags * store.longest // 1_000_000 <= 12_000_000


async def test_a_full_sheet_is_followed_by_the_next(store, tmp_path, monkeypatch):
    monkeypatch.setattr(excel_writing, "ROWS", 11)
    await store.write([Delivery(SampleBatch.of(np.ones(25), T0 + np.arange(25), np.arange(25) / 3, 0, T0, 1))])
    path = tmp_path / "x.xlsx"
    await export(store, path, Extract(await store.tags(), T0, T0 + 99))
    assert [sheet.max_row for sheet in openpyxl.load_workbook(path).worksheets] == [11, 11, 6]
    after = MemoryStore()
    await after.register_tags(await store.tags())
    await bring(after, Order(path, Terms(zone="UTC")))
    assert await taken(after) == await taken(store)


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".xlsx"])
async def test_roll_ups_in_place_of_samples(store, tmp_path, ending):
    times = T0 + np.arange(240) * 30_000_000
    await store.write([Delivery(SampleBatch.of(np.tile([1, 2], 120), times, np.arange(240), 0, T0, 1))])
    path = tmp_path / f"x{ending}"
    extract = Extract(await store.tags(), T0, T0 + 7_200_000_000, level=Level.HOUR)
    written = await export(store, path, extract)
    assert (written.samples, written.rows) == (4, 4)
    if ending == ".parquet":
        rows = pq.read_table(path).to_pylist()
        assert [(row["tag"], row["samples"], row["minimum"], row["maximum"]) for row in rows] == [
            ("T1", 60, 0, 118), ("T2", 60, 1, 119), ("T1", 60, 120, 238), ("T2", 60, 121, 239)
        ]  # fmt: skip
        assert [row["observed [s]"] for row in rows] == [3600, 3570, 3600, 3600]
    with pytest.raises(ConfigError, match="--layout"):
        await export(store, path, replace(extract, layout=Layout.WIDE))


async def test_a_wide_file_tells_what_it_leaves_out(store, tmp_path):
    batch = SampleBatch.of([1, 1, 2], [T0, T0 + 1, T0], [1.0, np.nan, np.nan], [0, Status.BAD, 0], T0, 1)
    await store.write([Delivery(replace(batch, text=np.array([None, None, "on"], np.object_)))])
    path = tmp_path / "x.csv"
    written = await export(store, path, Extract(await store.tags(), T0, T0 + 99, Layout.WIDE))
    assert (written.samples, written.left_out) == (1, 2)
    assert path.read_text() == '"time","T1","T2"\n"2024-01-01T00:00:00.000000Z",1,\n'
    assert path.stat().st_mode & 0o077 == 0


async def test_an_export_that_fails_leaves_the_file_of_before(store, tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("before")

    class Away(MemoryStore):
        async def next_time(self, start: int) -> int | None:
            raise ExchangeError("gone")

    with pytest.raises(ExchangeError):
        await export(Away(), path, Extract(await store.tags(), T0, T0 + 99))
    assert [each.name for each in tmp_path.iterdir()] == ["x.csv"]
    assert path.read_text() == "before"
    with pytest.raises(ExchangeError, match="written"):
        await export(store, tmp_path / "nowhere" / "x.csv", Extract(await store.tags(), T0, T0 + 99))


async def test_a_text_that_no_cell_of_excel_holds_is_not_cut(store, tmp_path):
    text = replace(SampleBatch.of([1], [T0], np.nan, 0, T0, T0), text=np.array(["x" * 40_000], np.object_))
    await store.write([Delivery(text)])
    with pytest.raises(ExchangeError, match=r"40,000 characters.*\.parquet"):
        await export(store, tmp_path / "x.xlsx", Extract(await store.tags(), T0, T0 + 1))
    await export(store, tmp_path / "x.parquet", Extract(await store.tags(), T0, T0 + 1))


async def test_a_file_in_no_order_is_compared_with_all_that_it_spans(store, tmp_path, monkeypatch):
    """Slice by slice, of which each is smaller than what is stored."""
    monkeypatch.setattr(sifting, "_AT_ONCE", 50)
    chance = np.random.default_rng(3)
    seconds = np.sort(chance.choice(10**7, 400, replace=False))
    stamps = T0 + seconds * 1_000_000
    for tag in (1, 2):
        await store.write([Delivery(SampleBatch.of([tag] * 400, stamps, seconds + tag, 0, stamps, stamps))])
    rows = [[f"{T0 // 10**6 + second}", f"T{tag}", f"{second + tag}"] for tag in (1, 2) for second in seconds.tolist()]
    rows += [[f"{T0 // 10**6 + 10**6 + n}", "T2", "0.5"] for n in range(5) if 10**6 + n not in seconds]
    rows[7][2] = "-1"
    chance.shuffle(rows)
    (tmp_path / "x.csv").write_text("time,tag,value\n" + "".join(",".join(row) + "\n" for row in rows))
    outcome = await bring(store, Order(tmp_path / "x.csv", correct=True))
    assert (outcome.record.stored, outcome.record.duplicates, outcome.corrected) == (len(rows) - 800, 799, 1)


async def test_tags_are_chosen_by_wildcards(store):
    tags = await store.tags()
    assert chosen(tags, ["T*", "T1"]) == list(tags)
    with pytest.raises(ConfigError, match="X"):
        chosen(tags, ["T1", "X*"])
